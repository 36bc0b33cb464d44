"""Actors as their callers see them: creation, order, epochs, losses, the end of the last handle."""

from __future__ import annotations

import pytest

from nbray.ids import object_id
from nbray.machine import Send
from nbray.owner import records as r
from nbray.owner.calls import BUSY
from nbray.wire import messages as m
from tests.owner.desk import HEAD_ADDRESS, ME, NODE, RAISED, STRANGER, Desk, death, failed, inline, worker

FOREIGN_ACTOR = STRANGER.process + b"\0" * 8


@pytest.fixture
def desk() -> Desk:
    return Desk()


def pushed(desk: Desk, number: int = 1) -> list[tuple[bytes, int, int]]:
    """(task, epoch, sequence) of the calls that the last event sent to worker `number`."""
    return [(push.task, push.epoch, push.sequence) for push in desk.sent(m.PushCall, worker(number))]


# ------------------------------------------------------------------------------------------ creation


def test_an_actor_is_registered_when_its_arguments_are_ready(desk: Desk) -> None:
    argument = desk.running()
    actor = desk.actor(needs=[desk.ref(argument)])
    assert not desk.sent(m.RegisterActor)
    desk.done(argument, inline(3))
    (register,) = desk.sent(m.RegisterActor, HEAD_ADDRESS)
    assert register.spec.actor == actor
    assert register.spec.dependencies == [m.Dependency(desk.ref(argument), ME, inline(3))]


def test_an_actor_whose_argument_fails_is_dead_and_so_are_its_calls(desk: Desk) -> None:
    argument = desk.running()
    actor = desk.actor(needs=[desk.ref(argument)])
    call = desk.call(actor)
    desk.done(argument, failed())
    assert desk.failure(call).type_name == "ValueError"
    assert not desk.sent(m.RegisterActor)
    assert desk.failure(desk.call(actor)).fields["maybe_executed"] is False


def test_a_rejected_actor_is_dead(desk: Desk) -> None:
    actor = desk.actor()
    call = desk.call(actor)
    desk.tell(m.ActorRejected(actor, 0, "the name is taken"))
    assert "the name is taken" in desk.failure(call).message


def test_the_actor_of_another_is_watched_from_the_first_call_on(desk: Desk) -> None:
    desk.call(FOREIGN_ACTOR)
    assert desk.sent(m.WatchActor, HEAD_ADDRESS) == [m.WatchActor(FOREIGN_ACTOR, ME)]
    desk.call(FOREIGN_ACTOR)
    assert not desk.sent(m.WatchActor)


def test_calls_wait_until_the_actor_lives_and_are_then_sent_in_order(desk: Desk) -> None:
    actor = desk.actor()
    calls = [desk.call(actor) for _ in range(3)]
    desk.update(actor, "PENDING")
    assert not pushed(desk)
    desk.update(actor, "ALIVE")
    assert pushed(desk) == [(call.id, 0, sequence) for sequence, call in enumerate(calls)]
    assert [effect.state for effect in desk.effects(r.ActorKnown)] == ["ALIVE"]


def test_a_call_whose_argument_is_not_ready_holds_back_those_behind_it(desk: Desk) -> None:
    argument = desk.running(2)
    actor = desk.live_actor()
    first = desk.call(actor)
    second = desk.call(actor, needs=[desk.ref(argument)])
    third = desk.call(actor)
    assert (first.state, second.state, third.state) == (r.PUSHED, r.WAITING, r.WAITING)
    desk.done(argument, inline(2))
    assert pushed(desk) == [(second.id, 0, 1), (third.id, 0, 2)]


def test_in_another_concurrency_group_it_holds_back_nothing(desk: Desk) -> None:
    argument = desk.running(2)
    actor = desk.live_actor()
    waits = desk.call(actor, needs=[desk.ref(argument)], group="io")
    behind, beside = desk.call(actor, group="io"), desk.call(actor)
    assert (waits.state, behind.state, beside.state) == (r.WAITING, r.WAITING, r.PUSHED)
    desk.done(argument, inline(2))
    assert [task for task, _, _ in pushed(desk)] == [waits.id, behind.id]


def test_out_of_order_a_call_that_waits_for_its_argument_holds_back_only_itself(desk: Desk) -> None:
    argument = desk.running(2)
    actor = desk.live_actor()
    waits = desk.call(actor, needs=[desk.ref(argument)], unordered=True)
    behind = desk.call(actor, unordered=True)
    assert (waits.state, behind.state) == (r.WAITING, r.PUSHED)
    assert desk.state.calls.actors[actor].pending == 2
    desk.done(argument, inline(2))
    assert [task for task, _, _ in pushed(desk)] == [waits.id]


def test_a_call_out_of_order_that_waits_can_be_cancelled_and_ends_with_its_actor(desk: Desk) -> None:
    argument = desk.running(2)
    actor = desk.live_actor()
    cancelled, lost = (desk.call(actor, needs=[desk.ref(argument)], unordered=True) for _ in range(2))
    desk.tell(r.CancelAsked(object_id(cancelled.id)))
    assert desk.failure(cancelled).kind == "TaskCancelledError"
    desk.update(actor, "DEAD", failure=m.Failure("ActorDiedError", message="it is dead"))
    assert desk.failure(lost).kind == "ActorDiedError"
    assert desk.state.calls.actors[actor].pending == 0


def test_calls_that_were_cancelled_in_the_line_are_pending_no_more(desk: Desk) -> None:
    argument = desk.running(2)
    actor = desk.live_actor()
    waits = desk.call(actor, needs=[desk.ref(argument)])
    behind = [desk.call(actor) for _ in range(3)]
    for call in behind:
        desk.tell(r.CancelAsked(object_id(call.id)))
    assert waits.state == r.WAITING
    assert desk.state.calls.actors[actor].pending == 1


def test_a_call_whose_argument_fails_makes_way_for_those_behind_it(desk: Desk) -> None:
    argument = desk.running(2)
    actor = desk.live_actor()
    second = desk.call(actor, needs=[desk.ref(argument)])
    third = desk.call(actor)
    desk.done(argument, failed())
    assert desk.failure(second).type_name == "ValueError"
    assert pushed(desk) == [(third.id, 0, 0)]


def test_a_report_gives_a_call_its_value(desk: Desk) -> None:
    call = desk.call(desk.live_actor())
    desk.done(call, inline(9), at=worker(1))
    assert desk.value(call) == inline(9)


def test_references_that_the_actor_keeps_are_counted_once_at_its_node(desk: Desk) -> None:
    inner = desk.put()
    actor = desk.live_actor()
    call = desk.call(actor)
    desk.done(call, at=worker(1), borrows=[m.Held(inner, ME)])
    assert desk.state.objects.objects[inner].holders == {worker(1).process: 1}
    assert [watch.process for watch in desk.sent(m.WatchProcess)] == [worker(1).process]


# ------------------------------------------------------------------------------------------ lives


def test_calls_in_flight_without_retries_fail_when_the_actor_restarts_and_say_that_they_may_have_run(desk: Desk) -> None:
    actor = desk.live_actor(max_restarts=1)
    call = desk.call(actor)
    desk.update(actor, "RESTARTING", 1)
    failure = desk.failure(call)
    assert failure.kind == "ActorUnavailableError"
    assert failure.fields["maybe_executed"] is True


def test_calls_with_retries_go_again_to_the_next_life_in_their_order_and_before_new_ones(desk: Desk) -> None:
    actor = desk.live_actor(max_restarts=1)
    again = [desk.call(actor, retries=1) for _ in range(2)]
    desk.update(actor, "RESTARTING", 1)
    new = desk.call(actor)
    desk.update(actor, "ALIVE", 1, number=2)
    assert pushed(desk, 2) == [(again[0].id, 1, 0), (again[1].id, 1, 1), (new.id, 1, 2)]
    assert [call.push.attempt for call in again] == [1, 1]
    assert [call.retries for call in again] == [0, 0]


def test_a_life_that_was_not_announced_ends_the_one_before_all_the_same(desk: Desk) -> None:
    """The word RESTARTING may have been lost with a head that was restarted."""
    actor = desk.live_actor(max_restarts=1)
    once, again = desk.call(actor), desk.call(actor, retries=1)
    desk.update(actor, "ALIVE", 1, number=2)
    assert desk.failure(once).kind == "ActorUnavailableError"
    assert pushed(desk, 2) == [(again.id, 1, 0)]


def test_words_of_an_older_epoch_are_late(desk: Desk) -> None:
    actor = desk.live_actor(max_restarts=2)
    desk.update(actor, "RESTARTING", 1)
    desk.update(actor, "ALIVE", 1, number=2)
    desk.update(actor, "ALIVE", 0, number=1)
    call = desk.call(actor)
    assert pushed(desk, 2) == [(call.id, 1, 0)]


def test_a_report_from_the_life_before_is_dropped(desk: Desk) -> None:
    actor = desk.live_actor(max_restarts=1)
    call = desk.call(actor, retries=1)
    desk.update(actor, "RESTARTING", 1)
    desk.update(actor, "ALIVE", 1, number=2)
    desk.done(call, inline(1), at=worker(1), attempt=0)
    assert call.state == r.PUSHED
    desk.done(call, inline(2), at=worker(2))
    assert desk.value(call) == inline(2)


def test_death_fails_what_ran_and_what_waited_and_tells_them_apart(desk: Desk) -> None:
    actor = desk.live_actor()
    argument = desk.running(2)
    ran, waited = desk.call(actor, retries=5), desk.call(actor, needs=[desk.ref(argument)])
    gone = m.Failure("ActorDiedError", message="its process was killed by SIGKILL")
    desk.update(actor, "DEAD", failure=gone)
    assert desk.failure(ran).fields["maybe_executed"] is True
    assert desk.failure(waited).fields["maybe_executed"] is False
    assert desk.failure(desk.call(actor)).kind == "ActorDiedError"
    desk.done(argument)  # and nothing happens to the call that waited for it


def test_an_actor_of_a_lost_cluster_is_dead(desk: Desk) -> None:
    call = desk.call(desk.live_actor(max_restarts=-1), retries=-1)
    desk.tell(r.NodeLost(NODE, m.Failure("NodeDiedError", message="the daemon ended")))
    assert desk.failure(call).kind == "NodeDiedError"


# ------------------------------------------------------------------------------------------ exceptions and cancelling


def test_a_call_that_is_repeated_for_an_exception_goes_before_those_that_may_wait_for_it(desk: Desk) -> None:
    actor = desk.live_actor()
    call = desk.call(actor, retry_exceptions=1)
    desk.call(actor, needs=[desk.ref(call)])
    desk.done(call, failed(), at=worker(1), retriable=True)
    desk.tell(r.RetryDecided(call.id, 0, True, [failed()]))
    assert pushed(desk) == [(call.id, 0, 1)]
    desk.done(call, inline(1), at=worker(1))
    assert len(pushed(desk)) == 1, "and now the one that waited"


def test_an_exception_without_retries_is_the_value(desk: Desk) -> None:
    call = desk.call(desk.live_actor())
    desk.done(call, failed(), at=worker(1), retriable=True)
    assert desk.failure(call) == RAISED


def test_a_call_that_waits_is_cancelled_at_once_and_one_that_runs_is_asked(desk: Desk) -> None:
    actor = desk.actor()
    waiting = desk.call(actor)
    desk.tell(r.CancelAsked(desk.ref(waiting)))
    assert desk.failure(waiting).kind == "TaskCancelledError"
    desk.update(actor, "ALIVE")
    running = desk.call(actor)
    assert pushed(desk) == [(running.id, 0, 0)], "the cancelled one took no number"
    desk.tell(r.CancelAsked(desk.ref(running)))
    assert desk.sent(m.CancelTask, worker(1)) == [m.CancelTask(running.id, True)]


def test_a_cancelled_call_is_not_sent_to_the_next_life(desk: Desk) -> None:
    actor = desk.live_actor(max_restarts=1)
    call = desk.call(actor, retries=1)
    desk.tell(r.CancelAsked(desk.ref(call)))
    desk.update(actor, "RESTARTING", 1)
    assert desk.failure(call).kind == "TaskCancelledError"


def test_cancelling_somebody_elses_reference_is_their_business(desk: Desk) -> None:
    theirs = STRANGER.process + b"\0" * 12
    desk.tell(r.Received(theirs, STRANGER))
    desk.tell(r.CancelAsked(theirs, force=True))
    assert desk.sent(m.CancelObject, STRANGER) == [m.CancelObject(theirs, True, True)]


# ------------------------------------------------------------------------------------------ handles


def test_the_last_handle_releases_the_actor(desk: Desk) -> None:
    actor = desk.live_actor()
    handle = object_id(actor)
    desk.tell(r.Received(handle, ME))
    desk.drop(handle)
    assert not desk.sent(m.ReleaseActor)
    desk.drop(handle)
    assert desk.sent(m.ReleaseActor, HEAD_ADDRESS) == [m.ReleaseActor(actor)]


def test_a_handle_that_another_process_holds_keeps_the_actor_until_that_ends(desk: Desk) -> None:
    actor = desk.live_actor()
    handle = object_id(actor)
    desk.tell(m.AddBorrower([handle], STRANGER))
    desk.drop(handle)
    assert not desk.sent(m.ReleaseActor)
    desk.tell(m.ProcessDied(death(STRANGER)))
    assert desk.sent(m.ReleaseActor, HEAD_ADDRESS)


def test_a_handle_dropped_before_the_actor_lives_releases_it_when_it_does(desk: Desk) -> None:
    actor = desk.actor()
    desk.drop(object_id(actor))
    assert not desk.sent(m.ReleaseActor)
    desk.update(actor, "ALIVE")
    assert desk.sent(m.ReleaseActor, HEAD_ADDRESS)


def test_the_last_handle_of_a_dead_actor_releases_nothing(desk: Desk) -> None:
    actor = desk.live_actor()
    desk.update(actor, "DEAD", failure=m.Failure("ActorDiedError", message="killed"))
    desk.drop(object_id(actor))
    assert not desk.sent(m.ReleaseActor)


# ------------------------------------------------------------------------------------------ killed by this process


def test_nothing_called_after_a_kill_reaches_the_actor_while_its_death_is_on_the_way(desk: Desk) -> None:
    actor = desk.live_actor(max_restarts=3)
    under_way = desk.call(actor)
    desk.tell(r.ActorKilled(actor, "Counter", no_restart=True))
    assert desk.sent(m.KillActor, HEAD_ADDRESS) == [m.KillActor(actor, True)]
    late = desk.call(actor)
    assert not pushed(desk)
    assert (desk.failure(late).kind, desk.failure(late).fields["maybe_executed"]) == ("ActorDiedError", False)
    assert "it was killed by `nbray.kill`" in desk.failure(late).message
    assert under_way.state == r.PUSHED
    desk.update(actor, "DEAD", failure=m.Failure("ActorDiedError", message="the head's words"))
    assert "the head's words" in desk.failure(under_way).message
    assert "the head's words" in desk.failure(desk.call(actor)).message


def test_a_call_that_waits_for_its_arguments_is_not_sent_to_a_killed_actor(desk: Desk) -> None:
    argument = desk.running(2)
    actor = desk.live_actor()
    waits = desk.call(actor, needs=[desk.ref(argument)])
    desk.tell(r.ActorKilled(actor, "Counter", no_restart=True))
    desk.done(argument, inline(1))
    assert not pushed(desk)
    desk.update(actor, "DEAD", failure=m.Failure("ActorDiedError", message="it is dead"))
    assert desk.failure(waits).fields["maybe_executed"] is False


def test_a_kill_before_the_actor_lives_or_is_known_here_counts_too(desk: Desk) -> None:
    desk.tell(r.ActorKilled(FOREIGN_ACTOR, "Counter", no_restart=True))
    assert desk.failure(desk.call(FOREIGN_ACTOR)).kind == "ActorDiedError"
    actor = desk.actor()
    waits = desk.call(actor)
    desk.tell(r.ActorKilled(actor, "Counter", no_restart=True))
    desk.update(actor, "ALIVE")
    assert not pushed(desk)
    desk.update(actor, "DEAD", failure=m.Failure("ActorDiedError", message="it is dead"))
    assert desk.failure(waits).kind == "ActorDiedError"


def test_a_kill_that_leaves_a_restart_fails_nothing_here(desk: Desk) -> None:
    actor = desk.live_actor(max_restarts=1)
    desk.tell(r.ActorKilled(actor, "Counter", no_restart=False))
    call = desk.call(actor, retries=1)
    desk.update(actor, "RESTARTING", 1)
    desk.update(actor, "ALIVE", 1, 2)
    assert pushed(desk, 2) == [(call.id, 1, 0)]


def test_calls_to_an_actor_that_has_enough_to_do_may_wait_for_company_and_others_may_not(desk: Desk) -> None:
    actor = desk.live_actor()
    calls, soon = [], []
    for _ in range(BUSY + 2):
        calls.append(desk.call(actor))
        soon.append([effect.soon for effect in desk.effects(Send) if isinstance(effect.message, m.PushCall)])
    assert soon == [[False]] * BUSY + [[True]] * 2
    for call in calls[:3]:
        desk.done(call)
    desk.call(actor)
    assert [effect.soon for effect in desk.effects(Send)] == [False]


def test_a_call_holds_its_actor_until_it_has_reported_and_its_process_is_not_told_of_that(desk: Desk) -> None:
    actor = desk.live_actor()
    call = desk.call(actor, alive=object_id(actor))
    assert desk.sent(m.PushCall)[0].contains == []
    desk.tell(r.Dropped([object_id(actor)]))
    assert desk.sent(m.ReleaseActor) == []
    desk.done(call)
    assert [release.actor for release in desk.sent(m.ReleaseActor)] == [actor]
