"""Concurrency groups and the last call of a worker, as sentences about its machine."""

from __future__ import annotations

import msgspec
import pytest

from nbray.wire import messages as m
from nbray.worker import state as w
from tests.worker.test_state import ACTOR, ME, OTHER, Bench, call, ids, task


def grouped(number: int, group: str, *, waits: bool = False) -> m.PushCall:
    return msgspec.structs.replace(call(number, waits=waits), group=group)


def limited(number: int, max_calls: int, *, waits: bool = False) -> m.PushTask:
    return msgspec.structs.replace(task(number, waits=waits), max_calls=max_calls)


@pytest.fixture
def actor() -> Bench:
    """An actor that runs one call at a time, and two of the group "io"."""
    bench = Bench()
    bench.tell(w.BecameActor(ACTOR, 0, 1, {"io": 2}))
    return bench


def test_a_full_group_holds_up_nobody_but_itself(actor: Bench) -> None:
    plain, queued, first, second, third = call(1), call(2), grouped(3, "io"), grouped(4, "io"), grouped(5, "io")
    actor.tell(plain, queued, first, second, third)
    assert actor.runs() == ids(plain, first, second)
    actor.tell(w.Ran(first.task))
    assert actor.runs() == ids(third)
    actor.tell(w.Ran(plain.task))
    assert actor.runs() == ids(queued)


def test_a_call_that_waits_for_its_arguments_holds_back_its_group_only(actor: Bench) -> None:
    waits, behind, beside = grouped(1, "io", waits=True), grouped(2, "io"), call(3)
    actor.tell(waits, behind, beside)
    assert actor.runs() == ids(beside)
    actor.tell(w.ArgumentsReady(waits.task))
    assert actor.runs() == ids(waits, behind)


def test_out_of_order_it_holds_back_only_itself() -> None:
    bench = Bench()
    bench.tell(w.BecameActor(ACTOR, 0, 2, unordered=True))
    waits, behind = call(1, waits=True), call(2)
    bench.tell(waits, behind)
    assert bench.runs() == ids(behind)
    bench.tell(w.ArgumentsReady(waits.task))
    assert bench.runs() == ids(waits)


def test_every_actor_has_the_system_group_of_one(actor: Bench) -> None:
    busy, first, second = call(1), grouped(2, "_ray_system"), grouped(3, "_ray_system")
    actor.tell(busy, first, second)
    assert actor.runs() == ids(busy, first)


def test_a_call_in_a_group_that_is_not_there_is_refused(actor: Bench) -> None:
    actor.tell(grouped(1, "oi"))
    assert "'oi'" in actor.effects(w.Refuse)[0].failure.message
    assert not actor.state.tasks


def test_a_cancelled_call_makes_way_in_its_group(actor: Bench) -> None:
    waits, behind = grouped(1, "io", waits=True), grouped(2, "io")
    actor.tell(waits, behind)
    actor.tell(m.CancelTask(waits.task))
    assert actor.runs() == ids(behind)
    assert actor.effects(w.Refuse)


# ------------------------------------------------------------------------------------------ max_calls


def test_the_last_run_that_a_function_may_have_ends_the_taking_of_tasks() -> None:
    bench = Bench()
    first, second, behind, fetching = limited(1, 2), limited(2, 2), task(3), task(4, waits=True)
    bench.tell(first, second, behind, fetching)
    assert not bench.state.is_last(first)
    bench.tell(w.Ran(first.task))
    assert bench.state.is_last(second)
    bench.tell(w.Ran(second.task))
    assert not bench.said, "what was behind is the owner's again, by the report"
    assert not bench.state.tasks
    bench.tell(task(5))
    assert not bench.said
    bench.tell(w.ArgumentsReady(fetching.task))
    assert bench.effects(w.DropArguments) == [w.DropArguments(fetching)]


def test_other_functions_do_not_count() -> None:
    bench = Bench()
    other = task(1, OTHER)
    bench.tell(other, w.Ran(other.task))
    assert not bench.state.is_last(limited(2, 2))
    assert not bench.state.is_last(task(3))


def test_a_worker_that_has_run_its_calls_stays_while_others_need_what_it_owns() -> None:
    bench = Bench()
    last = limited(1, 1)
    bench.tell(last, w.KeepsChanged(True), w.Ran(last.task))
    bench.tell(m.ExitWorker("it has run a function max_calls times"))
    assert not bench.effects(w.Exit)
    bench.tell(w.KeepsChanged(False))
    assert bench.effects(w.Exit)
    assert bench.state.me == ME
