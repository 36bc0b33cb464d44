"""The owner's tasks and leases, as sentences."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from nbray import config
from nbray.machine import Send
from nbray.owner import records as r
from nbray.wire import messages as m
from tests.owner.desk import BORROWER, ME, NODE, OTHER_NODE, RAISED, Desk, daemon, failed, inline, stored, worker


@pytest.fixture
def desk() -> Desk:
    return Desk()


# ------------------------------------------------------------------------------------------ from submission to completion


def test_a_submitted_task_asks_its_node_for_a_lease(desk: Desk) -> None:
    desk.submit()
    (request,) = desk.sent(m.RequestLease, daemon())
    assert request.owner == ME
    assert request.shape.amounts == {"CPU": 10_000}
    assert request.job == ME.process


def test_a_granted_lease_takes_the_task_and_the_function_goes_before_it(desk: Desk) -> None:
    desk.state.tasks.leases.introduction = m.DefineJob(ME, [], "", "")
    desk.state.tasks.leases.definitions[b"\1" * 16] = m.DefineFunction(b"\1" * 16, "f", b"code", 0)
    task = desk.submit()
    desk.grant(1)
    kinds = [type(effect.message) for effect in desk.said if isinstance(effect, Send) and effect.to == worker(1)]
    assert kinds == [m.DefineJob, m.DefineFunction, m.PushTask]
    assert task.state == r.PUSHED


def test_a_worker_is_told_of_a_function_once(desk: Desk) -> None:
    desk.state.tasks.leases.definitions[b"\1" * 16] = m.DefineFunction(b"\1" * 16, "f", b"code", 0)
    desk.done(desk.running())
    desk.submit()
    assert desk.sent(m.PushTask, worker(1))
    assert not desk.sent(m.DefineFunction)


def test_a_report_gives_the_return_its_value_and_wakes_who_waits(desk: Desk) -> None:
    task = desk.running()
    assert not desk.want(desk.ref(task))
    desk.done(task, inline(7))
    assert desk.effects(r.Ready) == [r.Ready(desk.ref(task))]
    assert desk.value(task) == inline(7)
    (finished,) = desk.effects(r.Finished)
    assert finished.state == r.DONE
    assert task.state == r.DONE


def test_two_returns_get_a_value_each_and_a_failure_is_that_of_both(desk: Desk) -> None:
    both, neither = desk.running(1, returns=2), desk.running(2, returns=2)
    desk.done(both, inline(1), inline(2))
    desk.done(neither, failed())
    assert [desk.value(both, i) for i in (0, 1)] == [inline(1), inline(2)]
    assert [desk.value(neither, i).failure for i in (0, 1)] == [RAISED, RAISED]


def test_what_nobody_holds_any_more_when_it_ends_is_freed_with_its_report(desk: Desk) -> None:
    task = desk.running()
    desk.drop(desk.ref(task))
    assert not desk.gone(desk.ref(task))
    desk.done(task, stored())
    assert desk.sent(m.FreeObjects, daemon()) == [m.FreeObjects([desk.ref(task)])]
    assert desk.gone(desk.ref(task))


def test_an_idle_lease_is_kept_for_a_moment_and_then_returned(desk: Desk) -> None:
    desk.done(desk.running())
    assert not desk.sent(m.ReturnLease)
    due = desk.state.next_deadline()
    assert due == pytest.approx(desk.now + config.LEASE_IDLE_S)
    desk.passes(config.LEASE_IDLE_S)
    assert desk.sent(m.ReturnLease, daemon()) == [m.ReturnLease(1, ME.process)]
    assert desk.state.next_deadline() is None


def test_the_next_task_of_the_shape_takes_the_idle_lease_and_asks_nobody(desk: Desk) -> None:
    desk.done(desk.running())
    task = desk.submit()
    assert desk.sent(m.PushTask, worker(1))
    assert not desk.sent(m.RequestLease)
    assert task.state == r.PUSHED


def test_a_task_of_another_shape_asks_for_a_lease_of_its_own(desk: Desk) -> None:
    desk.done(desk.running())
    desk.submit(shape=m.Shape({"CPU": 20_000}))
    assert [request.shape.amounts for request in desk.sent(m.RequestLease)] == [{"CPU": 20_000}]


def test_a_spent_worker_is_returned_and_what_was_sent_behind_goes_elsewhere(desk: Desk) -> None:
    first = desk.running()
    desk.done(first, took_s=1e-4)
    first, behind = desk.submit(), desk.submit()
    assert behind.lease is desk.lease(first)
    attempt = behind.push.attempt
    desk.done(first, took_s=1e-4, spent=True)
    assert desk.sent(m.ReturnLease, daemon()) == [m.ReturnLease(1, ME.process, spent=True)]
    assert desk.value(first) == inline()
    assert (behind.state, behind.push.attempt) == (r.QUEUED, attempt)
    assert [push.task for push in desk.grant(2)] == [behind.id]


def test_a_spent_worker_whose_lease_was_recalled_is_returned_as_spent(desk: Desk) -> None:
    task = desk.running()
    desk.tell(m.LeaseRecalled(1, NODE))
    desk.done(task, spent=True)
    assert desk.sent(m.ReturnLease, daemon()) == [m.ReturnLease(1, ME.process, spent=True)]


def test_a_spent_worker_is_returned_also_by_a_report_that_is_late(desk: Desk) -> None:
    first = desk.running()
    desk.done(first, attempt=7, spent=True)
    assert desk.sent(m.ReturnLease, daemon()) == [m.ReturnLease(1, ME.process, spent=True)]
    assert first.state == r.QUEUED


def test_a_task_whose_function_ends_its_worker_is_not_sent_behind_another(desk: Desk) -> None:
    desk.done(desk.running(), took_s=1e-4)
    desk.submit()
    limited = desk.task()
    limited.push = msgspec.structs.replace(limited.push, max_calls=5)
    desk.tell(r.Submitted(limited))
    assert limited.state == r.QUEUED


def test_a_recalled_lease_is_returned_when_its_task_ends_and_takes_nothing_more(desk: Desk) -> None:
    task = desk.running()
    desk.tell(m.LeaseRecalled(1, NODE))
    assert not desk.sent(m.ReturnLease)
    desk.submit()
    assert not desk.sent(m.PushTask)
    desk.done(task)
    assert desk.sent(m.ReturnLease, daemon())


def test_an_idle_lease_that_is_recalled_is_returned_at_once(desk: Desk) -> None:
    desk.done(desk.running())
    desk.tell(m.LeaseRecalled(1, NODE))
    assert desk.sent(m.ReturnLease, daemon())


def test_requests_that_are_no_longer_needed_are_withdrawn(desk: Desk) -> None:
    task, other = desk.submit(), desk.submit()
    (second,) = desk.sent(m.RequestLease)
    desk.tell(r.CancelAsked(desk.ref(task)))
    assert [push.task for push in desk.grant(1)] == [other.id]
    assert desk.sent(m.CancelLeaseRequest, daemon()) == [m.CancelLeaseRequest(second.request, ME.process)]


def test_a_grant_that_nobody_waits_for_goes_straight_back(desk: Desk) -> None:
    desk.tell(m.LeaseGranted(99, 5, worker(1), 4000))
    assert desk.sent(m.ReturnLease, daemon()) == [m.ReturnLease(5, ME.process)]


def test_a_redirected_request_is_asked_of_the_other_node_and_says_so(desk: Desk) -> None:
    desk.submit()
    desk.tell(m.LeaseRedirected(1, OTHER_NODE))
    (request,) = desk.sent(m.RequestLease, daemon(OTHER_NODE))
    assert request.hops == 1


def test_a_redirection_after_the_task_was_cancelled_asks_for_the_next_one(desk: Desk) -> None:
    """The front of the queue is a task that is no more, and so are its arguments."""
    argument = desk.put(stored())
    cancelled = desk.submit(needs=[argument])
    waiting = desk.submit()
    desk.drop(argument)
    desk.tell(r.CancelAsked(desk.ref(cancelled)))
    assert desk.gone(argument)
    desk.tell(m.LeaseRedirected(1, OTHER_NODE))
    (request,) = desk.sent(m.RequestLease, daemon(OTHER_NODE))
    assert request.near == []
    assert waiting.state == r.QUEUED


def test_a_refused_request_fails_what_waits_for_it(desk: Desk) -> None:
    tasks = [desk.submit(), desk.submit()]
    desk.tell(m.LeaseRefused(1, m.Failure("TaskUnschedulableError", message="no such node")))
    assert [desk.failure(task).kind for task in tasks] == ["TaskUnschedulableError"] * 2


def test_a_refusal_is_not_about_what_was_cancelled_before(desk: Desk) -> None:
    task = desk.submit()
    desk.submit()
    desk.tell(r.CancelAsked(desk.ref(task)))
    desk.tell(m.LeaseRefused(1, m.Failure("TaskUnschedulableError", message="no such node")))
    assert [effect.task for effect in desk.effects(r.Finished)] != [task]
    assert desk.failure(task).kind == "TaskCancelledError"
    assert len(desk.effects(r.Finished)) == 1


def test_why_a_request_waits_is_said_once(desk: Desk) -> None:
    desk.submit(cell="In[3]")
    desk.tell(m.LeaseWaiting(1, True, "Needs num_gpus=1."))
    assert desk.effects(r.Notice) == [r.Notice("In[3]", "waiting", "Needs num_gpus=1.")]
    desk.tell(m.LeaseWaiting(1, True, "Needs num_gpus=1."))
    assert not desk.effects(r.Notice)


def test_a_request_names_the_nodes_that_hold_its_arguments(desk: Desk) -> None:
    argument = desk.put(stored(OTHER_NODE, 5000))
    desk.submit(needs=[argument])
    assert desk.sent(m.RequestLease)[0].near == [(OTHER_NODE, 5000)]


# ------------------------------------------------------------------------------------------ pipelines


def learned(desk: Desk, took_s: float = 0.0005, function: int = 1) -> None:
    """The owner knows that tasks of this function are short."""
    desk.done(desk.running(function=function), took_s=took_s)


def test_short_tasks_of_a_known_function_are_sent_one_behind_the_other(desk: Desk) -> None:
    learned(desk)
    tasks = [desk.submit() for _ in range(5)]
    assert [task.state for task in tasks] == [r.PUSHED] * 5
    assert list(desk.lease(tasks[0]).running.values()) == tasks


def test_no_more_is_sent_ahead_than_the_pipeline_target(desk: Desk) -> None:
    learned(desk, took_s=config.PIPELINE_TARGET_S / 4)
    tasks = [desk.submit() for _ in range(10)]
    assert sum(task.state == r.PUSHED for task in tasks) == 4


def test_tasks_that_take_long_or_are_not_known_are_sent_one_at_a_time(desk: Desk) -> None:
    learned(desk, took_s=1.0)
    assert [desk.submit().state for _ in range(2)] == [r.PUSHED, r.QUEUED]
    assert desk.submit(function=2).state == r.QUEUED


def test_a_task_without_retries_is_never_sent_behind_another(desk: Desk) -> None:
    """Lost from there, nobody could say whether it had begun."""
    learned(desk)
    first, second = desk.submit(retries=0), desk.submit(retries=0)
    assert (first.state, second.state) == (r.PUSHED, r.QUEUED)


def test_one_long_task_is_a_better_warning_than_a_short_one_is_a_promise(desk: Desk) -> None:
    learned(desk)
    desk.done(desk.running(), took_s=0.05)
    desk.done(desk.running(), took_s=0.0001)
    assert [desk.submit().state for _ in range(2)] == [r.PUSHED, r.QUEUED]


def test_a_blocked_worker_gives_back_what_it_has_not_begun_and_gets_nothing_more(desk: Desk) -> None:
    learned(desk)
    first, second, third = desk.submit(), desk.submit(), desk.submit()
    desk.tell(m.TasksReturned(worker(1).process, [second.id, third.id], blocked=True))
    assert [task.state for task in (first, second, third)] == [r.PUSHED, r.QUEUED, r.QUEUED]
    assert not desk.sent(m.PushTask)
    last = desk.submit()
    assert last.state == r.QUEUED
    assert [push.task for push in desk.grant(2)] == [second.id, third.id, last.id]
    assert desk.lease(second).worker == worker(2)


def test_what_comes_back_goes_to_the_front_in_its_order(desk: Desk) -> None:
    learned(desk)
    tasks = [desk.submit() for _ in range(3)]
    last = desk.submit(retries=0)
    desk.tell(m.TasksReturned(worker(1).process, [tasks[1].id, tasks[2].id], blocked=True))
    assert list(desk.state.tasks.leases.pools[last.key].queue) == [tasks[1], tasks[2], last]


def test_a_worker_that_was_blocked_takes_more_when_its_task_is_done(desk: Desk) -> None:
    learned(desk)
    first, second = desk.submit(), desk.submit()
    desk.tell(m.TasksReturned(worker(1).process, [second.id], blocked=True))
    desk.done(first)
    assert [push.task for push in desk.sent(m.PushTask, worker(1))] == [second.id]


def test_an_idle_worker_takes_over_what_another_sits_on(desk: Desk) -> None:
    desk.submit()
    desk.grant(1)
    desk.submit()
    desk.grant(2)
    for task in list(desk.state.tasks.tasks.values()):
        desk.done(task, took_s=0.0005)
    slow = [desk.submit() for _ in range(4)]
    busy = {desk.lease(task).worker.process for task in slow}
    assert len(busy) <= 2
    lease = max((desk.lease(task) for task in slow), key=lambda each: len(each.running))
    for task in [task for task in slow if task.lease is not lease]:
        desk.done(task, took_s=0.0005)
    desk.passes(config.PIPELINE_TARGET_S)
    assert desk.sent(m.RecallTasks, lease.worker) == [m.RecallTasks(ME.process, len(lease.running) - 1)]
    desk.passes(config.PIPELINE_TARGET_S)
    assert not desk.sent(m.RecallTasks), "it was asked already"


# ------------------------------------------------------------------------------------------ arguments


def test_a_task_waits_for_its_arguments_and_takes_their_values_along(desk: Desk) -> None:
    first = desk.running()
    second = desk.submit(needs=[desk.ref(first)])
    assert second.state == r.WAITING
    desk.done(first, inline(5))
    (push,) = desk.sent(m.PushTask)
    assert push.dependencies == [m.Dependency(desk.ref(first), ME, inline(5))]


def test_it_is_known_how_many_tasks_of_a_cell_wait_for_arguments(desk: Desk) -> None:
    first = desk.submit(cell="a")
    waiting = [desk.submit(cell="a", needs=[desk.ref(first)]) for _ in range(3)]
    assert desk.state.tasks.awaiting == {("a", first.push.name): 3}
    desk.tell(r.CancelAsked(desk.ref(waiting[0])))
    assert desk.state.tasks.awaiting == {("a", first.push.name): 2}
    desk.grant()
    desk.done(first, inline(5))
    assert desk.state.tasks.awaiting == {}


def test_what_no_node_can_run_is_known_of_its_cell_until_it_is_granted(desk: Desk) -> None:
    task = desk.submit(cell="a")
    leases = desk.state.tasks.leases
    (request,) = leases.pools[task.key].requests
    desk.tell(m.LeaseWaiting(request, True, "Needs num_cpus=77."))
    assert list(leases.stuck("a")) == [m.Stuck(task.push.name, "Needs num_cpus=77.", True)]
    assert list(leases.stuck("b")) == []
    desk.grant()
    assert list(leases.stuck("a")) == []


def test_an_argument_given_twice_is_waited_for_once_and_held_throughout(desk: Desk) -> None:
    first = desk.running()
    second = desk.submit(needs=[desk.ref(first), desk.ref(first)])
    desk.drop(desk.ref(first))
    desk.done(first, inline(5))
    assert second.state == r.PUSHED
    desk.done(second)
    assert desk.gone(desk.ref(first))


def test_a_failed_argument_fails_the_task_with_the_same_cause(desk: Desk) -> None:
    first = desk.running()
    second = desk.submit(needs=[desk.ref(first)])
    third = desk.submit(needs=[desk.ref(second)])
    desk.done(first, failed())
    assert [desk.failure(task).type_name for task in (second, third)] == ["ValueError"] * 2
    assert not desk.state.tasks.tasks


def test_an_argument_that_belongs_to_another_process_is_asked_for(desk: Desk) -> None:
    borrowed = BORROWER.process + b"\0" * 12
    desk.tell(r.Received(borrowed, BORROWER))
    task = desk.submit(needs=[borrowed])
    assert desk.sent(m.AskValue, BORROWER) == [m.AskValue(borrowed, ME)]
    desk.tell(m.TellValue(borrowed, inline(3)))
    assert task.state == r.QUEUED


def test_references_inside_the_arguments_are_held_until_the_report(desk: Desk) -> None:
    inner = desk.put()
    task = desk.running(nested=[m.Held(inner, ME)])
    desk.drop(inner)
    assert not desk.gone(inner)
    desk.done(task)
    assert desk.gone(inner)


def test_a_task_whose_argument_is_lost_while_it_waits_for_a_worker_waits_for_the_argument(desk: Desk) -> None:
    maker = desk.running(1)
    desk.done(maker, stored(OTHER_NODE))
    user = desk.submit(needs=[desk.ref(maker)], shape=m.Shape({"CPU": 20_000}))
    assert user.state == r.QUEUED
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    assert maker.state == r.PUSHED, "it is made again"
    assert user.state == r.WAITING
    desk.done(maker, stored(NODE))
    assert user.state == r.QUEUED
    desk.grant(2)
    assert user.push.dependencies[0].value == stored(NODE)


# ------------------------------------------------------------------------------------------ crashes and retries


def test_the_first_task_of_a_lost_lease_uses_a_retry_and_those_behind_it_do_not(desk: Desk) -> None:
    learned(desk)
    first, second = desk.submit(retries=2), desk.submit(retries=2)
    desk.lost(desk.lease(first))
    assert (first.retries, second.retries) == (1, 2)
    assert [task.state for task in (first, second)] == [r.QUEUED] * 2
    assert [push.task for push in desk.grant(2)] == [first.id, second.id]
    assert (first.push.attempt, second.push.attempt) == (1, 1)


def test_a_lost_task_without_retries_fails_and_says_how_its_process_ended(desk: Desk) -> None:
    task = desk.running(retries=0)
    desk.lost(desk.lease(task), log_tail="boom")
    failure = desk.failure(task)
    assert failure.kind == "WorkerCrashedError"
    assert "SIGKILL" in failure.message
    assert "boom" in failure.message
    assert failure.fields["pid"] == 4000


def test_a_task_may_be_retried_for_ever(desk: Desk) -> None:
    task = desk.running(retries=-1)
    for number in range(2, 8):
        desk.lost(desk.lease(task))
        desk.grant(number)
    assert task.push.attempt == 6
    assert task.retries == -1


def test_retries_run_out(desk: Desk) -> None:
    task = desk.running(retries=1)
    desk.lost(desk.lease(task))
    desk.grant(2)
    desk.lost(desk.lease(task), oom=True)
    assert desk.failure(task).kind == "OutOfMemoryError"


def test_a_retried_task_goes_before_those_that_have_not_waited_yet(desk: Desk) -> None:
    task = desk.running()
    later = desk.submit()
    desk.lost(desk.lease(task))
    assert list(desk.state.tasks.leases.pools[task.key].queue) == [task, later]


def test_the_loss_of_a_lease_that_was_given_back_is_late(desk: Desk) -> None:
    desk.done(desk.running())
    desk.passes(config.LEASE_IDLE_S)
    desk.tell(m.LeaseLost(1, worker(1), m.Death(worker(1).process, NODE, 1)))
    assert not desk.said
    assert desk.state.tasks.leases.late == 1


def test_a_report_of_an_older_attempt_is_dropped_and_its_references_are_given_back(desk: Desk) -> None:
    task = desk.running()
    lease = desk.lease(task)
    desk.lost(lease)
    desk.grant(2)
    held = m.Held(BORROWER.process + b"\0" * 12, BORROWER)
    late = desk.state.tasks.late
    desk.done(task, inline(1, [held]), at=lease.worker, attempt=0)
    assert task.state == r.PUSHED
    assert desk.state.tasks.late == late + 1
    assert desk.sent(m.RemoveBorrower, BORROWER) == [m.RemoveBorrower([held.object], [1], ME.process)]


def test_a_copy_that_an_attempt_in_vain_has_sealed_goes_with_the_object(desk: Desk) -> None:
    task = desk.running()
    lease = desk.lease(task)
    desk.lost(lease)
    desk.tell(m.LeaseRedirected(min(desk.state.tasks.leases.pools[task.key].requests), OTHER_NODE))
    desk.grant(2, OTHER_NODE)
    desk.done(task, stored(OTHER_NODE))
    desk.drop(desk.ref(task))
    assert {effect.to for effect in desk.said if isinstance(effect, Send)} == {daemon(NODE), daemon(OTHER_NODE)}


def test_a_second_report_is_late(desk: Desk) -> None:
    task = desk.running()
    desk.done(task, inline(1))
    desk.done(task, inline(2), at=worker(1))
    assert desk.value(task) == inline(1)


# ------------------------------------------------------------------------------------------ exceptions


def test_an_exception_is_judged_by_the_shell_and_repeated_if_it_says_so(desk: Desk) -> None:
    task = desk.running(retry_exceptions=2)
    desk.done(task, failed(), retriable=True)
    (judge,) = desk.effects(r.JudgeException)
    desk.tell(r.RetryDecided(judge.task.id, 0, True, judge.values))
    assert task.state == r.PUSHED
    assert (task.push.attempt, task.retry_exceptions, task.retries) == (1, 1, 2), "N retries are N + 1 runs, whatever ends them"


def test_an_exception_that_the_shell_does_not_want_repeated_is_the_value(desk: Desk) -> None:
    task = desk.running(retry_exceptions=2)
    desk.done(task, failed(), retriable=True)
    desk.tell(r.RetryDecided(task.id, 0, False, [failed()]))
    assert desk.failure(task) == RAISED


def test_an_exception_is_not_judged_when_no_retry_is_left_or_the_task_was_cancelled(desk: Desk) -> None:
    spent, cancelled = desk.running(1), desk.running(2, retry_exceptions=2)
    desk.done(spent, failed(), retriable=True)
    assert not desk.effects(r.JudgeException)
    desk.tell(r.CancelAsked(desk.ref(cancelled)))
    desk.done(cancelled, failed(), retriable=True)
    assert not desk.effects(r.JudgeException)


def test_a_cancellation_overtakes_the_verdict(desk: Desk) -> None:
    task = desk.running(retry_exceptions=2)
    desk.done(task, failed(), retriable=True)
    desk.tell(r.CancelAsked(desk.ref(task)))
    desk.tell(r.RetryDecided(task.id, 0, True, [failed()]))
    assert task.id not in desk.state.tasks.tasks


# ------------------------------------------------------------------------------------------ cancel


def test_a_waiting_task_is_cancelled_at_once(desk: Desk) -> None:
    first = desk.running()
    waiting = desk.submit(needs=[desk.ref(first)])
    desk.tell(r.CancelAsked(desk.ref(waiting)))
    assert desk.failure(waiting).kind == "TaskCancelledError"
    desk.done(first)
    assert desk.failure(waiting).kind == "TaskCancelledError"


def test_a_queued_task_is_cancelled_at_once_and_never_pushed(desk: Desk) -> None:
    task = desk.submit()
    desk.tell(r.CancelAsked(desk.ref(task)))
    assert desk.failure(task).kind == "TaskCancelledError"
    assert desk.sent(m.CancelLeaseRequest, daemon())


def test_a_running_task_is_asked_to_stop_and_what_it_reports_counts(desk: Desk) -> None:
    task = desk.running()
    desk.tell(r.CancelAsked(desk.ref(task), recursive=False))
    assert desk.sent(m.CancelTask, worker(1)) == [m.CancelTask(task.id, False)]
    desk.done(task, failed(m.Failure("TaskCancelledError")))
    assert desk.effects(r.Finished)[0].state == r.CANCELLED


def test_force_breaks_the_lease_and_repeats_only_what_was_not_cancelled(desk: Desk) -> None:
    learned(desk)
    first, second = desk.submit(), desk.submit()
    desk.tell(r.CancelAsked(desk.ref(first), force=True))
    assert desk.sent(m.ReturnLease, daemon()) == [m.ReturnLease(1, ME.process, True)]
    assert desk.failure(first).kind == "TaskCancelledError"
    assert (second.state, second.retries) == (r.QUEUED, 3)


def test_force_on_a_task_behind_another_only_asks(desk: Desk) -> None:
    learned(desk)
    desk.submit()
    second = desk.submit()
    desk.tell(r.CancelAsked(desk.ref(second), force=True))
    assert desk.sent(m.CancelTask, worker(1))
    assert not desk.sent(m.ReturnLease)


def test_a_cancelled_task_that_comes_back_or_is_lost_is_not_tried_again(desk: Desk) -> None:
    learned(desk)
    first, second, third = desk.submit(), desk.submit(), desk.submit()
    for task in (second, third):
        desk.tell(r.CancelAsked(desk.ref(task)))
    desk.tell(m.TasksReturned(worker(1).process, [second.id]))
    desk.lost(desk.lease(first))
    assert [desk.failure(task).kind for task in (second, third)] == ["TaskCancelledError"] * 2
    assert first.state == r.QUEUED


def test_cancelling_what_is_done_changes_nothing(desk: Desk) -> None:
    task = desk.running()
    desk.done(task, inline(1))
    assert not desk.tell(r.CancelAsked(desk.ref(task)))
    assert desk.value(task) == inline(1)


def test_a_cell_is_cancelled_whole_and_alone(desk: Desk) -> None:
    mine = [desk.running(1, cell="a"), desk.submit(cell="a")]
    other = desk.submit(cell="b")
    desk.tell(r.CellCancelled("a"))
    assert desk.sent(m.CancelTask, worker(1))
    assert desk.failure(mine[1]).kind == "TaskCancelledError"
    assert other.state == r.QUEUED


def test_what_waits_for_another_task_of_a_cancelled_cell_is_cancelled_too_and_does_not_fail(desk: Desk) -> None:
    first = desk.submit(cell="a")
    second = desk.submit(cell="a", needs=[desk.ref(first)])
    desk.tell(r.CellCancelled("a"))
    assert [each.state for each in desk.effects(r.Finished)] == ["CANCELLED", "CANCELLED"]
    assert desk.failure(second).kind == "TaskCancelledError"


def test_cancelling_a_task_cancels_what_it_submitted(desk: Desk) -> None:
    child, other = desk.submit(parent=b"p" * 16), desk.submit(parent=b"q" * 16)
    desk.tell(r.CellCancelled(parent=b"p" * 16))
    assert desk.failure(child).kind == "TaskCancelledError"
    assert other.state == r.QUEUED


# ------------------------------------------------------------------------------------------ nodes


def test_the_death_of_a_node_repeats_what_ran_there_and_asks_again_what_waited_there(desk: Desk) -> None:
    running, once = desk.submit(), desk.submit(retries=0)
    for request in (1, 2):
        desk.tell(m.LeaseRedirected(request, OTHER_NODE))
    desk.grant(1, OTHER_NODE)
    desk.grant(2, OTHER_NODE)
    waiting = desk.submit()
    (request,) = desk.sent(m.RequestLease)
    desk.tell(m.LeaseRedirected(request.request, OTHER_NODE))
    desk.tell(m.NodeDied(OTHER_NODE, "it crashed"))
    assert (running.state, running.retries, running.push.attempt) == (r.QUEUED, 2, 1)
    assert desk.failure(once).kind == "NodeDiedError"
    assert waiting.state == r.QUEUED
    assert set(desk.state.tasks.leases.pools[running.key].requests.values()) == {NODE}


def test_our_own_node_is_lost_and_after_the_next_attachment_everything_goes_on(desk: Desk) -> None:
    retried, once = desk.running(1), desk.running(2, retries=0)
    queued = desk.submit()
    desk.tell(r.NodeLost(NODE, m.Failure("NodeDiedError", message="the daemon ended")))
    assert desk.failure(once).kind == "NodeDiedError"
    assert not desk.sent(m.RequestLease), "there is nobody to ask"
    assert [task.state for task in (retried, queued)] == [r.QUEUED] * 2
    desk.tell(r.Attached(OTHER_NODE, daemon(OTHER_NODE)))
    assert desk.sent(m.RequestLease, daemon(OTHER_NODE))
    (push, *_) = desk.grant(3, OTHER_NODE)
    assert push.task == retried.id
    assert push.owner == push.job == (OTHER_NODE, ME.process), "its report must find us"


def test_what_is_submitted_while_no_node_is_there_waits_for_one() -> None:
    desk = Desk(attached=False)
    task = desk.submit()
    assert task.state == r.QUEUED
    assert not desk.said
    desk.tell(r.Attached(NODE, daemon()))
    assert desk.sent(m.RequestLease, daemon())


def test_behind_a_long_queue_a_task_asks_for_nothing_and_is_pushed_when_it_is_its_turn(desk: Desk) -> None:
    tasks = [desk.submit() for _ in range(3 * config.LEASE_REQUESTS)]
    assert desk.said == []
    pool = desk.state.tasks.leases.pools[tasks[0].key]
    before = len(pool.requests)
    pushed = desk.grant(1)
    assert [push.task for push in pushed] == [tasks[0].id]
    assert len(pool.requests) >= before - 1
    for first, second in itertools.pairwise(tasks[:6]):
        desk.tell(m.TaskDone(first.id, 0, worker(1).process, [inline()], 0, 10**9))
        assert [push.task for push in desk.sent(m.PushTask)] == [second.id]


def test_reports_that_come_together_are_one_step_and_the_queue_moves_up_once(desk: Desk) -> None:
    first = desk.running()
    desk.tell(m.TaskDone(first.id, 0, worker(1).process, [inline()], 0, 1000))
    pushed = [desk.submit() for _ in range(4)]
    waiting = [desk.submit(retries=0) for _ in range(2)]
    assert all(task.state == r.PUSHED for task in pushed)
    reports = [m.TaskDone(task.id, 0, worker(1).process, [inline()], 0, 1000) for task in pushed]
    effects = desk.state.handle_all(reports, desk.now)
    desk.state.check()
    assert [done.task for done in effects if isinstance(done, r.Finished)] == pushed
    assert [e.message.task for e in effects if isinstance(e, Send) and isinstance(e.message, m.PushTask)] == [waiting[0].id]
