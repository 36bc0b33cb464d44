"""Who of a worker's generators may go on: each by its own window, and all together by their actor's."""

from __future__ import annotations

import msgspec

from nbray.wire import messages as m
from nbray.wire.messages import Streaming
from nbray.worker import state as w
from nbray.worker.flow import Flow
from tests.worker.test_state import OWNER, Bench, task

A, B = b"a" * 16, b"b" * 16


def flow(*, window: int = -1, **terms: Streaming) -> Flow:
    made = Flow()
    made.window = window
    for name, each in terms.items():
        made.begin({"a": A, "b": B}[name], each)
    return made


def test_nothing_bounds_a_generator_without_a_window() -> None:
    assert not flow(a=Streaming()).counts(A)
    assert flow(a=Streaming(window=1)).counts(A)
    assert flow(a=Streaming(), window=1).counts(A)


def test_a_window_of_one_makes_one_item_for_each_that_is_taken() -> None:
    it = flow(a=Streaming(window=1))
    assert it.would_go_on(A, 0) == [A]
    assert it.would_go_on(A, 1) == []
    assert it.taken(A, 1) == [A]
    assert it.would_go_on(A, 2) == []


def test_what_is_taken_before_the_item_was_counted_is_not_lost() -> None:
    it = flow(a=Streaming(window=1))
    it.would_go_on(A, 0)
    assert it.taken(A, 1) == []
    assert it.would_go_on(A, 1) == [A]


def test_an_older_word_on_what_was_taken_changes_nothing() -> None:
    it = flow(a=Streaming(window=1, taken=3, have=3))
    it.would_go_on(A, 0)
    it.would_go_on(A, 4)
    assert it.taken(A, 2) == []
    assert it.taken(A, 4) == [A]


def test_an_attempt_that_repeats_another_counts_what_the_owner_has() -> None:
    it = flow(a=Streaming(window=2, have=2, taken=0))
    assert it.would_go_on(A, 0) == []
    assert it.taken(A, 1) == [A]
    assert it.would_go_on(A, 1) == [A]


def test_an_actors_window_counts_items_in_the_making_too() -> None:
    it = flow(a=Streaming(), b=Streaming(), window=2)
    assert it.would_go_on(A, 0) == [A]
    assert it.would_go_on(B, 0) == [B]
    assert it.would_go_on(A, 1) == []
    assert it.would_go_on(B, 1) == []
    assert it.taken(B, 1) == [A]


def test_the_tighter_of_two_windows_holds() -> None:
    it = flow(a=Streaming(window=1), b=Streaming(), window=3)
    it.would_go_on(A, 0)
    assert it.would_go_on(A, 1) == []
    assert it.would_go_on(B, 0) == [B]
    assert it.would_go_on(B, 1) == [B]
    assert it.would_go_on(B, 2) == []


def test_a_generator_that_has_ended_leaves_its_room_to_the_others() -> None:
    it = flow(a=Streaming(), b=Streaming(), window=1)
    it.would_go_on(A, 0)
    assert it.would_go_on(B, 0) == []
    assert it.end(A) == [B]


def test_several_items_of_one_yield_count_as_many() -> None:
    it = flow(a=Streaming(window=4, per_yield=2))
    assert it.would_go_on(A, 0) == [A]
    assert it.would_go_on(A, 2) == [A]
    assert it.would_go_on(A, 4) == []
    assert it.taken(A, 1) == [A]


# ------------------------------------------------------------------------------------------ in the worker's machine


def generator(number: int, **terms: int) -> m.PushTask:
    return msgspec.structs.replace(task(number), stream=Streaming(**terms))


def test_what_was_taken_is_remembered_for_a_generator_that_has_not_begun() -> None:
    bench, push = Bench(), generator(2, window=1)
    bench.tell(task(1), push, m.ItemsTaken(push.task, 2**62), w.Ran(task(1).task))
    for items in range(3):
        bench.tell(w.WouldGoOn(push.task, items))
        assert bench.effects(w.GoOn) == [w.GoOn(push.task)]


def test_a_generator_that_waits_is_let_go_on_by_its_owners_word() -> None:
    bench, push = Bench(), generator(1, window=1)
    bench.tell(push, w.WouldGoOn(push.task, 0))
    bench.tell(w.WouldGoOn(push.task, 1))
    assert not bench.effects(w.GoOn)
    bench.tell(m.ItemsTaken(push.task, 1))
    assert bench.effects(w.GoOn) == [w.GoOn(push.task)]


def test_the_owners_word_about_a_generator_that_is_over_is_late() -> None:
    bench, push = Bench(), generator(1, window=1)
    bench.tell(push, w.Ran(push.task), m.ItemsTaken(push.task, 1))
    assert bench.state.late == 1
    assert not bench.sent(m.TasksReturned, OWNER)
