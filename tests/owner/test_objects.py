"""The owner's objects: who holds them, who is told, what becomes of them when copies and processes are lost."""

from __future__ import annotations

import pytest

from nbray.ids import Address
from nbray.owner import records as r
from nbray.wire import messages as m
from tests.owner.desk import (
    BORROWER,
    ME,
    NODE,
    OTHER_NODE,
    STRANGER,
    THIRD_NODE,
    Desk,
    daemon,
    death,
    failed,
    inline,
    stored,
    worker,
)

FOREIGN = BORROWER.process + b"\0" * 12
INNER = STRANGER.process + b"\0" * 12


@pytest.fixture
def desk() -> Desk:
    return Desk()


def add(desk: Desk, object_id: bytes, to: Address = BORROWER) -> None:
    desk.tell(m.AddBorrower([object_id], to))


def remove(desk: Desk, object_id: bytes, count: int = 1, of: Address = BORROWER) -> None:
    desk.tell(m.RemoveBorrower([object_id], [count], of.process))


# ------------------------------------------------------------------------------------------ counting


def test_a_put_object_is_freed_with_its_last_reference(desk: Desk) -> None:
    new = desk.put(stored())
    desk.tell(r.Received(new, ME))
    desk.drop(new)
    assert not desk.gone(new)
    desk.drop(new)
    assert desk.gone(new)
    assert desk.sent(m.FreeObjects, daemon())


def test_a_borrower_keeps_the_object_and_its_process_is_watched(desk: Desk) -> None:
    new = desk.put()
    add(desk, new)
    assert desk.sent(m.WatchProcess, daemon()) == [m.WatchProcess(BORROWER.process, ME)]
    desk.drop(new)
    assert not desk.gone(new)
    remove(desk, new)
    assert desk.gone(new)


def test_counts_of_two_borrowers_do_not_make_up_for_each_other(desk: Desk) -> None:
    new = desk.put()
    add(desk, new)
    remove(desk, new, 1, STRANGER)
    desk.drop(new)
    assert not desk.gone(new), "plus one and minus one are not zero and zero"
    add(desk, new, STRANGER)
    assert not desk.gone(new)
    remove(desk, new)
    assert desk.gone(new)


def test_a_count_may_be_negative_for_a_moment_and_then_names_no_node_to_ask(desk: Desk) -> None:
    """Who gives a reference back before it was counted: the paths raced. Its node is not known from that."""
    new = desk.put()
    remove(desk, new, 1, STRANGER)
    assert not desk.sent(m.WatchProcess)
    desk.drop(new)
    assert not desk.gone(new)
    add(desk, new, STRANGER)
    assert desk.gone(new)


def test_a_borrower_that_dies_holds_nothing_any_more(desk: Desk) -> None:
    new = desk.put()
    add(desk, new)
    desk.drop(new)
    desk.tell(m.ProcessDied(death(BORROWER)))
    assert desk.gone(new)
    late = desk.state.objects.late
    other = desk.put()
    add(desk, other)
    assert desk.state.objects.late == late + 1, "a count for a dead process comes too late"
    desk.drop(other)
    assert desk.gone(other)


def test_a_borrower_on_a_node_that_died_holds_nothing_any_more(desk: Desk) -> None:
    new = desk.put()
    add(desk, new, STRANGER)
    desk.drop(new)
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    assert desk.gone(new)


def test_a_reference_inside_a_value_is_held_by_the_value(desk: Desk) -> None:
    inner = desk.put()
    outer = desk.put(inline(1, [m.Held(inner, ME)]))
    desk.drop(inner)
    assert not desk.gone(inner)
    desk.drop(outer)
    assert desk.gone(inner)


def test_a_task_that_returns_a_foreign_reference_makes_us_a_borrower_until_we_let_go(desk: Desk) -> None:
    task = desk.running()
    desk.done(task, inline(1, [m.Held(FOREIGN, BORROWER)]))
    desk.drop(desk.ref(task))
    assert desk.sent(m.RemoveBorrower, BORROWER) == [m.RemoveBorrower([FOREIGN], [1], ME.process)]


def test_our_own_reference_that_comes_home_was_counted_for_us_on_the_way(desk: Desk) -> None:
    """Its sender lets go just before it arrives: without the count it would be freed in between."""
    inner = desk.put()
    task = desk.running()
    add(desk, inner, BORROWER)
    desk.drop(inner)
    add(desk, inner, ME)
    remove(desk, inner, 1, BORROWER)
    assert not desk.gone(inner)
    desk.done(task, inline(1, [m.Held(inner, ME)]))
    desk.drop(desk.ref(task))
    assert desk.gone(inner)


def test_a_worker_that_keeps_references_from_the_arguments_is_counted_before_the_arguments_go(desk: Desk) -> None:
    inner = desk.put()
    task = desk.running(nested=[m.Held(inner, ME)])
    desk.drop(inner)
    desk.done(task, borrows=[m.Held(inner, ME)])
    assert not desk.gone(inner)
    remove(desk, inner, 1, worker(1))
    assert desk.gone(inner)


def test_a_foreign_reference_is_counted_at_its_owner_before_it_is_passed_on(desk: Desk) -> None:
    desk.tell(r.Received(FOREIGN, BORROWER))
    desk.tell(r.Passed([m.Held(FOREIGN, BORROWER)], STRANGER))
    assert desk.sent(m.AddBorrower, BORROWER) == [m.AddBorrower([FOREIGN], STRANGER)]


def test_nothing_is_counted_for_a_process_that_is_dead(desk: Desk) -> None:
    desk.tell(r.Received(FOREIGN, BORROWER))
    add(desk, desk.put(), STRANGER)
    desk.tell(m.ProcessDied(death(STRANGER)))
    desk.tell(r.Passed([m.Held(FOREIGN, BORROWER)], STRANGER))
    assert not desk.said


def test_a_reference_that_the_count_did_not_know_of_says_that_its_object_is_gone(desk: Desk) -> None:
    new = desk.put()
    desk.drop(new)
    desk.tell(r.Received(new, ME))
    value = desk.state.objects.objects[new].value
    assert value is not None
    assert value.failure is not None
    assert value.failure.kind == "ObjectFreedError"


# ------------------------------------------------------------------------------------------ telling


def test_a_reader_is_told_when_the_value_comes_and_only_once(desk: Desk) -> None:
    task = desk.running()
    desk.tell(m.AskValue(desk.ref(task), BORROWER))
    assert not desk.said
    desk.done(task, inline(4))
    assert desk.sent(m.TellValue, BORROWER) == [m.TellValue(desk.ref(task), inline(4))]
    assert not desk.object(task).readers


def test_a_reader_of_a_known_value_is_told_at_once_and_counted_for_what_is_inside(desk: Desk) -> None:
    inner = desk.put()
    outer = desk.put(inline(1, [m.Held(inner, ME)]))
    desk.tell(m.AskValue(outer, BORROWER))
    assert desk.sent(m.TellValue, BORROWER)
    assert desk.state.objects.objects[inner].holders == {BORROWER.process: 1}


def test_a_reader_of_a_freed_object_is_told_that(desk: Desk) -> None:
    new = desk.put()
    desk.drop(new)
    desk.tell(m.AskValue(new, BORROWER))
    (told,) = desk.sent(m.TellValue, BORROWER)
    assert told.value.failure is not None
    assert told.value.failure.kind == "ObjectFreedError"


def test_a_borrower_asks_once_and_is_ready_when_it_is_told(desk: Desk) -> None:
    desk.tell(r.Received(FOREIGN, BORROWER))
    assert not desk.want(FOREIGN)
    assert desk.sent(m.AskValue, BORROWER) == [m.AskValue(FOREIGN, ME)]
    assert not desk.want(FOREIGN)
    assert not desk.sent(m.AskValue)
    desk.tell(m.TellValue(FOREIGN, inline(1)))
    assert desk.effects(r.Ready) == [r.Ready(FOREIGN)]


def test_a_value_told_twice_is_taken_once_and_what_the_second_one_counted_is_given_back(desk: Desk) -> None:
    desk.tell(r.Received(FOREIGN, BORROWER))
    desk.want(FOREIGN)
    desk.tell(m.TellValue(FOREIGN, inline(1)))
    desk.tell(m.TellValue(FOREIGN, inline(1, [m.Held(INNER, STRANGER)])))
    assert desk.sent(m.RemoveBorrower, STRANGER) == [m.RemoveBorrower([INNER], [1], ME.process)]


def test_an_object_whose_owner_died_before_it_told_anything_fails(desk: Desk) -> None:
    desk.tell(r.Received(FOREIGN, BORROWER))
    desk.want(FOREIGN)
    desk.tell(m.ProcessDied(death(BORROWER)))
    assert desk.effects(r.Ready) == [r.Ready(FOREIGN)]
    failure = desk.state.objects.objects[FOREIGN].value.failure  # type: ignore[union-attr]
    assert failure is not None
    assert failure.kind == "OwnerDiedError"
    desk.drop(FOREIGN)
    assert not desk.sent(m.RemoveBorrower), "there is nobody to tell"


def test_an_owner_on_another_node_is_asked_after_here_too(desk: Desk) -> None:
    """The daemon there cannot say that its node is gone."""
    desk.tell(r.Received(INNER, STRANGER))
    desk.want(INNER)
    assert desk.sent(m.WatchProcess, daemon(OTHER_NODE)) == [m.WatchProcess(STRANGER.process, ME)]
    assert desk.sent(m.WatchProcess, daemon(NODE)) == [m.WatchProcess(STRANGER.process, ME, OTHER_NODE)]


def test_a_reference_from_before_the_driver_moved_finds_it_where_it_is_now(desk: Desk) -> None:
    desk.state.objects.driver = Address(NODE, STRANGER.process)
    desk.tell(r.Received(INNER, STRANGER))
    desk.want(INNER)
    assert desk.sent(m.AskValue, Address(NODE, STRANGER.process))


# ------------------------------------------------------------------------------------------ bytes in the store


def pinned(desk: Desk, object_id: bytes) -> None:
    desk.tell(m.ObjectPinned(object_id, 0, 1000))


def test_a_stored_value_is_ready_when_its_bytes_are_here(desk: Desk) -> None:
    new = desk.put(stored(OTHER_NODE))
    assert not desk.want(new)
    (fetch,) = desk.sent(m.FetchObject, daemon())
    assert fetch.location.node == OTHER_NODE
    pinned(desk, new)
    assert desk.effects(r.Ready) == [r.Ready(new)]


def test_who_does_not_want_the_bytes_is_ready_with_the_value(desk: Desk) -> None:
    new = desk.put(stored(OTHER_NODE))
    assert desk.want(new, local=False)
    assert not desk.sent(m.FetchObject)


def test_a_pin_is_given_back_with_the_last_view_or_the_last_reference(desk: Desk) -> None:
    new = desk.put(stored())
    desk.want(new)
    pinned(desk, new)
    desk.state.objects.objects[new].views = 2
    desk.tell(r.ViewsReleased([new]))
    assert not desk.sent(m.Unpin)
    desk.tell(r.ViewsReleased([new]))
    assert desk.sent(m.Unpin, daemon()) == [m.Unpin(ME.process, [new])]


def test_views_that_outlive_the_references_keep_the_pin(desk: Desk) -> None:
    new = desk.put(stored())
    desk.want(new)
    pinned(desk, new)
    desk.state.objects.objects[new].views = 1
    desk.drop(new)
    assert desk.gone(new)
    assert not desk.sent(m.Unpin)
    desk.tell(r.ViewsReleased([new]))
    assert desk.sent(m.Unpin, daemon())


def test_an_object_that_comes_back_while_views_of_before_live_has_a_pin_of_its_own(desk: Desk) -> None:
    inner = BORROWER.process + b"\0" * 11 + b"\1"
    value = stored(NODE, contains=[m.Held(inner, BORROWER)])
    for _ in range(2):
        desk.tell(r.Received(FOREIGN, BORROWER))
        desk.want(FOREIGN)
        desk.tell(m.TellValue(FOREIGN, value))
        pinned(desk, FOREIGN)
        desk.state.objects.objects[FOREIGN].views = 1
        desk.drop(FOREIGN)
        assert desk.gone(inner), "and what it contains is counted each time anew"
    unpins = 0
    for _ in range(2):
        desk.tell(r.ViewsReleased([FOREIGN]))
        unpins += len(desk.sent(m.Unpin, daemon()))
    assert unpins == 1, "the other went when the two records became one"


def test_bytes_that_come_after_everybody_has_lost_interest_are_unpinned(desk: Desk) -> None:
    new = desk.put(stored())
    desk.want(new)
    desk.drop(new)
    pinned(desk, new)
    assert desk.sent(m.Unpin, daemon())


def test_a_copy_made_elsewhere_is_freed_too_also_if_we_hear_of_it_late(desk: Desk) -> None:
    new = desk.put(stored())
    desk.tell(m.CopyMade(new, OTHER_NODE))
    desk.drop(new)
    assert desk.sent(m.FreeObjects, daemon(NODE))
    assert desk.sent(m.FreeObjects, daemon(OTHER_NODE))
    desk.tell(m.CopyMade(new, THIRD_NODE))
    assert desk.sent(m.FreeObjects, daemon(THIRD_NODE))


# ------------------------------------------------------------------------------------------ lost copies and lineage


def test_a_lost_copy_is_replaced_by_another(desk: Desk) -> None:
    new = desk.put(stored(OTHER_NODE))
    desk.tell(m.CopyMade(new, NODE))
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    value = desk.state.objects.objects[new].value
    assert value is not None
    assert value.location is not None
    assert value.location.node == NODE


def test_the_only_copy_of_a_result_is_made_again_by_its_task_and_readers_hear_of_the_new_one(desk: Desk) -> None:
    task = desk.running(retries=2)
    desk.done(task, stored(OTHER_NODE))
    desk.tell(m.ReportMissing(desk.ref(task), OTHER_NODE, BORROWER))
    assert task.state == r.PUSHED
    assert (task.push.attempt, task.retries) == (1, 1)
    desk.done(task, stored(NODE))
    assert desk.sent(m.TellValue, BORROWER) == [m.TellValue(desk.ref(task), stored(NODE))]


def test_the_arguments_of_what_may_be_made_again_stay_until_it_is_freed(desk: Desk) -> None:
    argument = desk.put()
    task = desk.running(needs=[argument])
    desk.drop(argument)
    desk.done(task, stored())
    assert not desk.gone(argument)
    desk.drop(desk.ref(task))
    assert desk.gone(argument)
    assert desk.state.tasks.lineage == 0


def test_lineage_goes_back_as_far_as_copies_are_lost(desk: Desk) -> None:
    first = desk.running(1)
    desk.done(first, stored(OTHER_NODE))
    second = desk.submit(needs=[desk.ref(first)])
    desk.done(second, stored(OTHER_NODE))
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    assert (first.state, second.state) == (r.PUSHED, r.WAITING)
    desk.done(first, stored(NODE))
    assert second.state == r.PUSHED
    desk.done(second, stored(NODE))
    desk.drop(desk.ref(first), desk.ref(second))
    assert desk.gone(desk.ref(first))
    assert desk.state.tasks.lineage == 0


def test_what_a_node_took_with_it_is_not_made_again_on_an_idle_lease_of_that_node(desk: Desk) -> None:
    task = desk.submit(retries=2)
    desk.grant(1, OTHER_NODE)
    desk.done(task, stored(OTHER_NODE))
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    assert not desk.sent(m.PushTask)
    assert task.state == r.QUEUED
    (push,) = desk.grant(2, NODE)
    assert (push.attempt, task.retries) == (1, 1)


def test_a_second_run_that_fails_lets_go_of_its_arguments(desk: Desk) -> None:
    argument = desk.put(stored(OTHER_NODE))
    task = desk.running(needs=[argument])
    desk.done(task, stored(OTHER_NODE))
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    assert desk.failure(task).fields["cause_kind"] == "ObjectReconstructionFailedError"
    desk.drop(argument)
    assert desk.gone(argument)
    assert desk.state.tasks.lineage == 0


def test_the_death_of_a_node_with_a_copy_in_vain_leaves_no_trace_of_it(desk: Desk) -> None:
    """The attempt that was lost there may have sealed something; the one that counts has not reported yet."""
    task = desk.running()
    desk.state.objects.sealed_in_vain(desk.ref(task), OTHER_NODE)
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    desk.done(task, stored(NODE))
    assert desk.object(task).copies == {NODE}


def test_the_death_of_another_copy_changes_nothing_for_who_reads(desk: Desk) -> None:
    new = desk.put(stored(NODE))
    desk.tell(m.CopyMade(new, OTHER_NODE))
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    assert desk.state.objects.objects[new].value == stored(NODE)


def test_a_lost_put_is_lost_and_says_where_it_was(desk: Desk) -> None:
    new = desk.put(stored(OTHER_NODE))
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    failure = desk.state.objects.objects[new].value.failure  # type: ignore[union-attr]
    assert failure is not None
    assert failure.kind == "ObjectReconstructionFailedError"
    assert OTHER_NODE.hex()[:4] in failure.message


def test_a_lost_result_of_a_task_that_may_not_be_repeated_is_lost(desk: Desk) -> None:
    task = desk.running(retries=0)
    desk.done(task, stored(OTHER_NODE))
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    assert desk.failure(task).kind == "ObjectReconstructionFailedError"


def test_a_copy_that_could_not_be_fetched_in_time_is_not_lost(desk: Desk) -> None:
    new = desk.put(stored(OTHER_NODE))
    desk.want(new)
    desk.tell(m.ObjectUnavailable(new, False, "no room"))
    assert desk.state.objects.objects[new].value.failure.kind == "ObjectFetchTimedOutError"  # type: ignore[union-attr]


def test_a_borrower_reports_a_lost_copy_and_waits_for_what_the_owner_does(desk: Desk) -> None:
    desk.tell(r.Received(FOREIGN, BORROWER))
    desk.want(FOREIGN)
    desk.tell(m.TellValue(FOREIGN, stored(OTHER_NODE)))
    desk.tell(m.ObjectUnavailable(FOREIGN, True, "its node is dead"))
    assert desk.sent(m.ReportMissing, BORROWER) == [m.ReportMissing(FOREIGN, OTHER_NODE, ME)]
    assert desk.effects(r.CopyLost) == [r.CopyLost(FOREIGN)]
    desk.tell(m.TellValue(FOREIGN, inline(1)))
    assert desk.effects(r.Ready) == [r.Ready(FOREIGN)]


def test_a_lost_copy_of_an_owner_that_is_dead_too_is_reported_to_nobody(desk: Desk) -> None:
    desk.tell(r.Received(FOREIGN, BORROWER))
    desk.want(FOREIGN)
    desk.tell(m.TellValue(FOREIGN, stored(OTHER_NODE)))
    desk.tell(m.ProcessDied(death(BORROWER)))
    desk.tell(m.ObjectUnavailable(FOREIGN, True, "its node is dead"))
    assert not desk.sent(m.ReportMissing)
    assert desk.effects(r.Ready) == [r.Ready(FOREIGN)]


def test_what_lay_on_our_own_node_is_asked_for_again_after_its_loss(desk: Desk) -> None:
    desk.tell(r.Received(INNER, STRANGER))
    desk.want(INNER)
    desk.tell(m.TellValue(INNER, stored(NODE)))
    desk.tell(r.NodeLost(NODE, m.Failure("NodeDiedError", message="the daemon ended")))
    assert desk.sent(m.ReportMissing, STRANGER)


# ------------------------------------------------------------------------------------------ failures nobody saw


def test_a_failure_that_nobody_looked_at_is_reported_when_it_goes(desk: Desk) -> None:
    unseen, seen = desk.running(1, cell="In[4]"), desk.running(2)
    desk.done(unseen, failed())
    desk.done(seen, failed())
    desk.want(desk.ref(seen))
    desk.drop(desk.ref(seen))
    assert not desk.effects(r.Unhandled)
    desk.drop(desk.ref(unseen))
    assert [unhandled.cell for unhandled in desk.effects(r.Unhandled)] == ["In[4]"]


def test_a_loss_that_another_reader_reported_first_does_not_leave_us_waiting(desk: Desk) -> None:
    task = desk.running()
    desk.done(task, stored(NODE))
    desk.want(desk.ref(task))
    desk.tell(m.ReportMissing(desk.ref(task), NODE, BORROWER))
    desk.tell(m.ObjectUnavailable(desk.ref(task), True, "its writer died"))
    desk.done(task, stored(OTHER_NODE))
    assert desk.sent(m.FetchObject, daemon())[0].location.node == OTHER_NODE


def test_the_loss_of_the_copy_before_is_not_that_of_the_copy_since(desk: Desk) -> None:
    task = desk.running()
    desk.done(task, stored(NODE))
    desk.want(desk.ref(task))
    desk.tell(m.ReportMissing(desk.ref(task), NODE, BORROWER))
    desk.done(task, stored(OTHER_NODE))
    desk.tell(m.ObjectUnavailable(desk.ref(task), True, "its writer died"))
    assert desk.sent(m.FetchObject, daemon())[0].location.node == OTHER_NODE
    assert task.state == r.DONE


def test_a_pin_on_a_copy_that_was_given_up_goes_back(desk: Desk) -> None:
    task = desk.running()
    desk.done(task, stored(NODE))
    desk.want(desk.ref(task))
    desk.tell(m.ReportMissing(desk.ref(task), NODE, BORROWER))
    pinned(desk, desk.ref(task))
    assert desk.sent(m.Unpin, daemon())


def test_what_is_freed_with_a_lost_object_is_not_lost_once_more(desk: Desk) -> None:
    """Our node goes, and with it an object, and what only that object held."""
    first, second, inner = (BORROWER.process + bytes(11) + bytes([number]) for number in (1, 2, 3))
    values = {first: [m.Held(second, BORROWER)], second: [m.Held(inner, BORROWER)]}
    desk.tell(r.Received(inner, BORROWER))
    desk.tell(r.Received(first, BORROWER))
    for each, contains in values.items():
        desk.want(each, local=False)
        desk.tell(m.TellValue(each, stored(NODE, contains=contains)))
    desk.tell(r.NodeLost(NODE, m.Failure("NodeDiedError", message="the daemon ended")))
    assert desk.state.objects.objects[inner].count == 1


def test_a_worker_that_gave_back_what_its_lost_report_would_have_counted_is_forgotten_with_its_lease(desk: Desk) -> None:
    inner = desk.put()
    task = desk.running(nested=[m.Held(inner, ME)], retries=0)
    remove(desk, inner, 1, worker(1))
    desk.lost(desk.lease(task))
    desk.drop(inner)
    assert desk.gone(inner)
