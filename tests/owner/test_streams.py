"""Streams of an owner: what is known of a generator's items, who holds them, and how they end, come again and are let go."""

from __future__ import annotations

import msgspec
import pytest

from nbray.ids import Address, object_id
from nbray.owner import records as r
from nbray.wire import messages as m
from tests.owner.desk import ME, NODE, OTHER_NODE, RAISED, Desk, failed, inline, stored, worker

ALL = 2**62
ACTOR = b"actor" + b"\0" * 11


@pytest.fixture
def desk() -> Desk:
    return Desk()


def generator(
    desk: Desk, *, number: int = 1, node: bytes = NODE, stream: m.Streaming | None = None, **options: object
) -> r.OwnedTask:
    """A generator task that was pushed to worker `number`."""
    task = desk.task(**options)
    task.push = msgspec.structs.replace(task.push, stream=stream or m.Streaming())
    desk.tell(r.Submitted(task))
    if task.state != r.PUSHED:
        desk.grant(number, node)
    assert task.state == r.PUSHED
    return task


def yields(desk: Desk, task: r.OwnedTask, index: int, value: m.Value | None = None, *, tell: bool = False) -> None:
    desk.tell(m.ItemYielded(task.id, task.push.attempt, index, value or inline(index), tell))


def take(desk: Desk, task: r.OwnedTask) -> r.OwnedObject | str:
    """The next item, which the taker holds; else PENDING or OVER."""
    desk.tell(r.ItemAsked(task.id))
    (answer,) = desk.effects(r.NextItem)
    return desk.state.objects.objects[answer.object] if answer.state == "TAKEN" else answer.state


def drop(desk: Desk, task: r.OwnedTask) -> None:
    """The generator object is gone: the stream's hold, and its reference to the end."""
    desk.tell(r.StreamDropped(task.id))
    desk.tell(r.Dropped([object_id(task.id)]))


def is_empty(desk: Desk) -> bool:
    state = desk.state
    return not state.objects.objects and not state.tasks.streams.streams and not state.tasks.tasks


# ------------------------------------------------------------------------------------------ items and their end


def test_items_are_taken_in_order_as_they_come(desk: Desk) -> None:
    task = generator(desk)
    assert take(desk, task) == "PENDING"
    yields(desk, task, 0)
    yields(desk, task, 1)
    assert [obj.value for obj in (take(desk, task), take(desk, task)) if isinstance(obj, r.OwnedObject)] == [inline(0), inline(1)]
    assert take(desk, task) == "PENDING"
    desk.done(task)
    assert take(desk, task) == "OVER"
    assert take(desk, task) == "OVER"


def test_an_item_that_its_taker_missed_is_the_next_again(desk: Desk) -> None:
    """An interrupt may come between the answer and the one who asked."""
    task = generator(desk)
    yields(desk, task, 0)
    first = take(desk, task)
    desk.tell(r.ItemMissed(desk.effects(r.NextItem)[0]))
    assert take(desk, task) is first


def test_an_item_that_was_missed_after_the_generator_was_dropped_is_let_go(desk: Desk) -> None:
    task = generator(desk)
    yields(desk, task, 0)
    take(desk, task)
    (answer,) = desk.effects(r.NextItem)
    drop(desk, task)
    desk.tell(r.ItemMissed(answer))
    desk.done(task)
    assert is_empty(desk)


def test_who_waits_for_the_next_item_waits_for_an_object_and_is_told(desk: Desk) -> None:
    task = generator(desk)
    coming = desk.state.tasks.streams.next_of(task.id)
    assert coming is not None
    desk.tell(r.Wanted([coming], local=False))
    yields(desk, task, 0)
    assert desk.effects(r.Ready) == [r.Ready(coming)]


def test_who_waits_for_an_item_that_does_not_come_is_told_of_the_end(desk: Desk) -> None:
    task = generator(desk)
    coming = desk.state.tasks.streams.next_of(task.id)
    assert coming is not None
    desk.tell(r.Wanted([coming], local=False))
    desk.done(task)
    assert desk.effects(r.Ready) == [r.Ready(coming)]
    assert desk.state.tasks.streams.next_of(task.id) is None


def test_an_error_of_the_generator_is_the_last_item_and_its_end_is_none(desk: Desk) -> None:
    task = generator(desk)
    yields(desk, task, 0)
    desk.done(task, failed(), retriable=True)
    assert desk.value(task) == r.NOTHING
    take(desk, task)
    last = take(desk, task)
    assert isinstance(last, r.OwnedObject)
    assert last.value == failed(RAISED)
    assert take(desk, task) == "OVER"


def test_a_crash_is_the_last_item_and_the_end(desk: Desk) -> None:
    task = generator(desk, retries=0)
    yields(desk, task, 0)
    desk.lost(desk.lease(task))
    assert desk.failure(task).kind == "WorkerCrashedError"
    take(desk, task)
    last = take(desk, task)
    assert isinstance(last, r.OwnedObject)
    assert last.value == desk.value(task)
    assert take(desk, task) == "OVER"


def test_an_error_that_nobody_took_is_reported_once(desk: Desk) -> None:
    task = generator(desk)
    desk.done(task, failed(), retriable=True)
    desk.tell(r.StreamDropped(task.id))
    assert [effect.failure for effect in desk.effects(r.Unhandled)] == [RAISED]
    desk.tell(r.Dropped([object_id(task.id)]))
    assert not desk.effects(r.Unhandled)
    assert is_empty(desk)


def test_an_item_of_an_attempt_that_is_over_is_refused(desk: Desk) -> None:
    task = generator(desk)
    desk.lost(desk.lease(task))
    desk.grant(2)
    desk.tell(m.ItemYielded(task.id, 0, 0, stored()))
    assert desk.state.tasks.streams.streams[task.id].known == 0
    yields(desk, task, 0, stored())
    assert desk.state.tasks.streams.streams[task.id].known == 1


# ------------------------------------------------------------------------------------------ holding and letting go


def test_taken_items_outlive_the_generator_and_the_others_go_with_it(desk: Desk) -> None:
    task = generator(desk)
    for index in range(3):
        yields(desk, task, index, stored())
    first = take(desk, task)
    assert isinstance(first, r.OwnedObject)
    desk.tell(r.StreamDropped(task.id))
    freed = [each for message in desk.sent(m.FreeObjects) for each in message.objects]
    assert freed == [object_id(task.id, 2), object_id(task.id, 3)]
    desk.done(task)
    desk.tell(r.Dropped([object_id(task.id)]))
    assert list(desk.state.objects.objects) == [first.id]
    desk.tell(r.Dropped([first.id]))
    assert is_empty(desk)


def test_what_comes_when_nobody_takes_is_let_go_at_once_with_what_it_contains(desk: Desk) -> None:
    task = generator(desk)
    drop(desk, task)
    lender = Address(NODE, b"lender-1")
    yields(desk, task, 0, stored(contains=[m.Held(object_id(lender.process + b"\0" * 8), lender)]))
    assert desk.sent(m.FreeObjects) == [m.FreeObjects([object_id(task.id, 1)])]
    assert desk.sent(m.RemoveBorrower, lender)
    yields(desk, task, 1, stored())
    assert desk.sent(m.FreeObjects) == [m.FreeObjects([object_id(task.id, 2)])]
    desk.done(task)
    assert is_empty(desk)


def test_a_generator_dropped_before_it_began_leaves_nothing(desk: Desk) -> None:
    task = desk.task()
    task.push = msgspec.structs.replace(task.push, stream=m.Streaming(window=1))
    desk.tell(r.Submitted(task))
    drop(desk, task)
    (push,) = desk.grant()
    assert push.stream is not None
    assert push.stream.taken == ALL
    yields(desk, task, 0, tell=True)
    desk.done(task)
    assert is_empty(desk)


def test_references_in_items_are_held_until_the_item_goes(desk: Desk) -> None:
    lender = Address(NODE, b"lender-1")
    inner = object_id(lender.process + b"\0" * 8)
    task = generator(desk)
    yields(desk, task, 0, inline(0, contains=[m.Held(inner, lender)]))
    assert desk.state.objects.objects[inner].count == 1
    item = take(desk, task)
    assert isinstance(item, r.OwnedObject)
    desk.tell(r.Dropped([item.id]))
    assert desk.sent(m.RemoveBorrower, lender) == [m.RemoveBorrower([inner], [1], ME.process)]


# ------------------------------------------------------------------------------------------ the producer is told


def test_a_producer_that_asks_is_told_what_was_taken(desk: Desk) -> None:
    task = generator(desk, stream=m.Streaming(window=2))
    yields(desk, task, 0, tell=True)
    take(desk, task)
    assert desk.sent(m.ItemsTaken, worker(1)) == [m.ItemsTaken(task.id, 1)]
    desk.tell(r.StreamDropped(task.id))
    assert desk.sent(m.ItemsTaken, worker(1)) == [m.ItemsTaken(task.id, ALL)]


def test_a_producer_that_does_not_ask_is_told_nothing(desk: Desk) -> None:
    task = generator(desk)
    yields(desk, task, 0)
    take(desk, task)
    assert not desk.sent(m.ItemsTaken)
    desk.tell(r.StreamDropped(task.id))
    assert not desk.sent(m.ItemsTaken)


def test_a_producer_that_begins_to_ask_is_told_what_was_taken_before(desk: Desk) -> None:
    """An actor's window is known to the actor alone."""
    task = generator(desk)
    drop(desk, task)
    yields(desk, task, 0, tell=True)
    assert desk.sent(m.ItemsTaken, worker(1)) == [m.ItemsTaken(task.id, ALL)]


# ------------------------------------------------------------------------------------------ attempts


def test_another_attempt_is_told_what_is_here_and_sends_the_rest(desk: Desk) -> None:
    task = generator(desk, stream=m.Streaming(window=3))
    yields(desk, task, 0)
    yields(desk, task, 1)
    take(desk, task)
    desk.lost(desk.lease(task))
    (push,) = desk.grant(2)
    assert push.stream == m.Streaming(have=2, taken=1, window=3)
    yields(desk, task, 2)
    desk.done(task)
    assert [take(desk, task) == "OVER" for _ in range(3)] == [False, False, True]


def test_an_exception_that_is_retried_is_no_item(desk: Desk) -> None:
    task = generator(desk, retry_exceptions=1)
    yields(desk, task, 0)
    desk.done(task, failed(), retriable=True)
    desk.tell(r.RetryDecided(task.id, 0, retry=True, values=[failed()]))
    assert task.push.stream is not None
    assert (task.push.attempt, task.push.stream.have) == (1, 1)
    yields(desk, task, 1)
    desk.done(task)
    assert [take(desk, task) == "OVER" for _ in range(3)] == [False, False, True]


def test_what_a_dead_worker_may_have_sealed_is_let_go(desk: Desk) -> None:
    task = generator(desk, retries=0)
    drop(desk, task)
    yields(desk, task, 0)
    desk.lost(desk.lease(task))
    assert m.FreeObjects([object_id(task.id, 2)]) in desk.sent(m.FreeObjects)
    assert is_empty(desk)


# ------------------------------------------------------------------------------------------ lost with their node


def two_items_of_a_node(desk: Desk, **options: object) -> tuple[r.OwnedTask, list[r.OwnedObject]]:
    task = generator(desk, node=OTHER_NODE, **options)
    yields(desk, task, 0, inline(0))
    yields(desk, task, 1, stored(OTHER_NODE))
    items = [item for item in (take(desk, task), take(desk, task)) if isinstance(item, r.OwnedObject)]
    assert len(items) == 2
    return task, items


def test_an_item_lost_with_its_node_is_made_again_when_the_task_is_over(desk: Desk) -> None:
    task, items = two_items_of_a_node(desk)
    desk.done(task)
    drop(desk, task)
    desk.tell(m.NodeDied(OTHER_NODE, "gone"))
    assert items[1].value is None
    (push,) = desk.grant(2)
    assert push.stream == m.Streaming(have=1, taken=ALL)
    yields(desk, task, 1, stored())
    assert items[1].value == stored()
    desk.done(task)
    desk.tell(r.Dropped([item.id for item in items]))
    assert is_empty(desk)
    assert desk.state.tasks.lineage == 0


def test_an_item_lost_while_the_task_runs_elsewhere_comes_from_a_further_attempt(desk: Desk) -> None:
    task, items = two_items_of_a_node(desk)
    desk.lost(desk.lease(task))
    desk.grant(2)
    yields(desk, task, 2)
    desk.tell(m.NodeDied(OTHER_NODE, "gone"))  # after the attempt was told that we have it
    assert items[1].value is None
    desk.done(task)
    assert task.push.attempt == 2
    assert task.push.stream is not None
    assert task.push.stream.have == 1
    yields(desk, task, 1, stored())
    yields(desk, task, 2)
    desk.done(task)
    assert items[1].value == stored()
    assert isinstance(take(desk, task), r.OwnedObject)
    assert take(desk, task) == "OVER"


def test_an_attempt_goes_on_when_the_item_that_it_is_for_was_let_go(desk: Desk) -> None:
    task, items = two_items_of_a_node(desk)
    desk.done(task)
    drop(desk, task)
    desk.tell(m.NodeDied(OTHER_NODE, "gone"))
    desk.grant(2)
    desk.tell(r.Dropped([item.id for item in items]))
    yields(desk, task, 1, stored())
    yields(desk, task, 2, stored())
    assert desk.sent(m.FreeObjects) == [m.FreeObjects([object_id(task.id, 3)])]
    desk.done(task)
    assert is_empty(desk)


def test_an_item_that_may_not_be_made_again_is_lost(desk: Desk) -> None:
    task, items = two_items_of_a_node(desk, retries=0)
    desk.done(task)
    desk.tell(m.NodeDied(OTHER_NODE, "gone"))
    assert items[1].value is not None
    assert items[1].value.failure is not None
    assert items[1].value.failure.kind == "ObjectReconstructionFailedError"


def test_a_task_that_yields_less_the_second_time_says_so(desk: Desk) -> None:
    task, items = two_items_of_a_node(desk)
    desk.done(task)
    desk.tell(m.NodeDied(OTHER_NODE, "gone"))
    desk.grant(2)
    desk.done(task)
    assert items[1].value is not None
    assert items[1].value.failure is not None
    assert items[1].value.failure.kind == "StreamingGeneratorReplayInconsistentError"


def test_arguments_stay_while_items_may_be_made_again(desk: Desk) -> None:
    argument = desk.running(9)
    desk.done(argument)
    task, items = two_items_of_a_node(desk, needs=[object_id(argument.id)])
    desk.done(task)
    drop(desk, task)
    desk.tell(r.Dropped([object_id(argument.id)]))
    assert object_id(argument.id) in desk.state.objects.objects
    desk.tell(r.Dropped([item.id for item in items]))
    assert is_empty(desk)


# ------------------------------------------------------------------------------------------ cancel


def test_a_cancelled_generator_takes_no_more_items(desk: Desk) -> None:
    task = generator(desk)
    yields(desk, task, 0)
    desk.tell(r.CancelAsked(object_id(task.id)))
    assert desk.sent(m.CancelTask, worker(1))
    yields(desk, task, 1)
    desk.done(task)  # it went on all the same
    take(desk, task)
    last = take(desk, task)
    assert isinstance(last, r.OwnedObject)
    assert last.value is not None
    assert last.value.failure is not None
    assert last.value.failure.kind == "TaskCancelledError"
    assert take(desk, task) == "OVER"


def test_a_generator_cancelled_in_the_queue_has_one_item_that_says_so(desk: Desk) -> None:
    task = desk.task()
    task.push = msgspec.structs.replace(task.push, stream=m.Streaming())
    desk.tell(r.Submitted(task))
    desk.tell(r.CancelAsked(object_id(task.id)))
    assert desk.failure(task).kind == "TaskCancelledError"
    assert isinstance(take(desk, task), r.OwnedObject)
    assert take(desk, task) == "OVER"


# ------------------------------------------------------------------------------------------ collections


def test_a_collection_holds_its_items_and_the_stream_lets_them_go(desk: Desk) -> None:
    task = generator(desk, stream=m.Streaming(dynamic=True))
    yields(desk, task, 0)
    yields(desk, task, 1)
    held = [m.Held(object_id(task.id, 1 + index), ME) for index in range(2)]
    desk.tell(m.AddBorrower([each.object for each in held], ME))
    desk.done(task, inline(contains=held))
    assert [desk.object(task, 1 + index).count for index in range(2)] == [1, 1]
    desk.tell(r.Dropped([object_id(task.id)]))
    assert is_empty(desk)


def test_a_collection_that_comes_twice_is_kept_once(desk: Desk) -> None:
    task = generator(desk, node=OTHER_NODE, stream=m.Streaming(dynamic=True))
    yields(desk, task, 0, stored(OTHER_NODE))
    held = [m.Held(object_id(task.id, 1), ME)]
    desk.tell(m.AddBorrower([held[0].object], ME))
    desk.done(task, inline(contains=held))
    desk.tell(m.NodeDied(OTHER_NODE, "gone"))
    desk.grant(2)
    yields(desk, task, 0, stored())
    desk.tell(m.AddBorrower([held[0].object], ME))
    desk.done(task, stored(contains=held))
    assert desk.value(task) == inline(contains=held)
    desk.tell(r.Dropped([object_id(task.id)]))
    assert m.FreeObjects([object_id(task.id)]) in desk.sent(m.FreeObjects)
    assert is_empty(desk)


def test_a_collection_that_fails_lets_its_items_go(desk: Desk) -> None:
    task = generator(desk, stream=m.Streaming(dynamic=True), retries=0)
    yields(desk, task, 0)
    desk.lost(desk.lease(task))
    assert desk.failure(task).kind == "WorkerCrashedError"
    desk.tell(r.Dropped([object_id(task.id)]))
    assert is_empty(desk)


# ------------------------------------------------------------------------------------------ actors


def a_call(desk: Desk, retries: int = 1) -> r.OwnedTask:
    push = m.PushCall(
        ME.process + b"\0" * 7 + b"\x63", 0, ACTOR, 0, 0, "items", 1, b"", 0, ME, ME, name="A.items", stream=m.Streaming(window=1)
    )
    task = r.OwnedTask(push, retries)
    desk.tell(r.Called(task, ACTOR, "A"))
    desk.tell(m.ActorUpdate(ACTOR, "ALIVE", 0, worker(1), 41))
    return task


def test_the_next_life_of_an_actor_yields_what_the_last_one_had_not(desk: Desk) -> None:
    task = a_call(desk)
    yields(desk, task, 0, tell=True)
    take(desk, task)
    assert desk.sent(m.ItemsTaken, worker(1)) == [m.ItemsTaken(task.id, 1)]
    desk.tell(m.ActorUpdate(ACTOR, "RESTARTING", 0))
    desk.tell(m.ActorUpdate(ACTOR, "ALIVE", 1, worker(2), 42))
    (push,) = desk.sent(m.PushCall, worker(2))
    assert push.stream == m.Streaming(have=1, taken=1, window=1)
    yields(desk, task, 1, tell=True)
    assert isinstance(take(desk, task), r.OwnedObject)
    assert desk.sent(m.ItemsTaken, worker(2)) == [m.ItemsTaken(task.id, 2)]


def test_a_generator_ends_with_its_actor(desk: Desk) -> None:
    task = a_call(desk, retries=0)
    yields(desk, task, 0)
    desk.tell(m.ActorUpdate(ACTOR, "DEAD", 0, failure=m.Failure("ActorDiedError", message="killed")))
    take(desk, task)
    last = take(desk, task)
    assert isinstance(last, r.OwnedObject)
    assert last.value is not None
    assert last.value.failure is not None
    assert last.value.failure.kind == "ActorDiedError"
    assert desk.failure(task).kind == "ActorDiedError"
    assert take(desk, task) == "OVER"
