"""The worker's machine, as sentences, and at random against a model of what it was sent."""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbray.ids import Address
from nbray.machine import Effect, Send
from nbray.wire import messages as m
from nbray.worker import state as w

E = TypeVar("E", bound=Effect)
M = TypeVar("M", bound=m.Message)

NODE = b"node-one"
ME = Address(NODE, b"worker-1")
DAEMON = Address(NODE, NODE)
OWNER, OTHER = Address(NODE, b"owner-01"), Address(b"node-two", b"owner-02")
ACTOR = b"actor" + b"\0" * 11
LOCATED = m.Dependency(b"d" * 20, OWNER, m.Value(location=m.Location(NODE, 10, b"writer-1")))


def task(number: int, owner: Address = OWNER, *, waits: bool = False) -> m.PushTask:
    """`waits`: it has an argument to be fetched."""
    needs = [LOCATED] if waits else []
    return m.PushTask(
        owner.process + number.to_bytes(8, "big"), 0, b"f" * 16, 1, b"", 0, owner, owner, name="f", dependencies=needs
    )


def call(number: int, owner: Address = OWNER, *, waits: bool = False, epoch: int = 0, actor: bytes = ACTOR) -> m.PushCall:
    name, needs = owner.process + number.to_bytes(8, "big"), [LOCATED] if waits else []
    return m.PushCall(name, 0, actor, epoch, 0, "m", 1, b"", 0, owner, owner, name="A.m", dependencies=needs)


class Bench:
    """A worker's machine, and what it said last."""

    def __init__(self) -> None:
        self.state = w.WorkerState(ME)
        self.said: list[Effect] = []

    def tell(self, *events: Any) -> list[Effect]:
        """Returns the effects of all of them."""
        self.said = []
        for event in events:
            self.said += self.state.handle(event, 0.0)
            self.state.check()
        return self.said

    def effects(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.said if isinstance(effect, kind)]

    def sent(self, kind: type[M], to: Address | None = None) -> list[M]:
        sends = [effect for effect in self.said if isinstance(effect, Send) and isinstance(effect.message, kind)]
        return [send.message for send in sends if to is None or send.to == to]

    def runs(self) -> list[bytes]:
        """The tasks that the last events started."""
        return [effect.push.task for effect in self.effects(w.Run)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def ids(*pushes: m.PushTask | m.PushCall) -> list[bytes]:
    return [push.task for push in pushes]


# ------------------------------------------------------------------------------------------ tasks


def test_a_task_runs_when_it_comes_and_the_next_when_it_is_done(bench: Bench) -> None:
    first, second = task(1), task(2)
    bench.tell(first, second)
    assert bench.runs() == ids(first)
    bench.tell(w.Ran(first.task))
    assert bench.runs() == ids(second)


def test_a_task_runs_when_its_arguments_are_here_and_holds_up_those_behind_it(bench: Bench) -> None:
    first, second = task(1, waits=True), task(2)
    bench.tell(first, second)
    assert bench.effects(w.FetchArguments) == [w.FetchArguments(first)]
    assert not bench.runs()
    bench.tell(w.ArgumentsReady(first.task))
    assert bench.runs() == ids(first)


def test_arguments_are_fetched_while_another_task_runs(bench: Bench) -> None:
    first, second = task(1), task(2, waits=True)
    bench.tell(first, second)
    assert bench.effects(w.FetchArguments)
    bench.tell(w.ArgumentsReady(second.task))
    assert not bench.runs()
    bench.tell(w.Ran(first.task))
    assert bench.runs() == ids(second)


def test_a_task_that_blocks_gives_back_its_cpu_and_all_that_has_not_begun(bench: Bench) -> None:
    first, second, third = task(1), task(2), task(3, OTHER)
    bench.tell(first, second, third)
    bench.tell(w.Blocked())
    assert bench.sent(m.WorkerBlocked, DAEMON) == [m.WorkerBlocked(ME.process)]
    assert bench.sent(m.TasksReturned, OWNER) == [m.TasksReturned(ME.process, ids(second), True)]
    assert bench.sent(m.TasksReturned, OTHER) == [m.TasksReturned(ME.process, ids(third), True)]


def test_the_owner_of_a_blocked_task_is_told_also_when_it_gets_nothing_back(bench: Bench) -> None:
    bench.tell(task(1), w.Blocked())
    assert bench.sent(m.TasksReturned, OWNER) == [m.TasksReturned(ME.process, [], True)]


def test_what_comes_while_the_task_is_blocked_goes_straight_back(bench: Bench) -> None:
    bench.tell(task(1), w.Blocked())
    late = task(2, waits=True)
    bench.tell(late)
    assert bench.sent(m.TasksReturned, OWNER) == [m.TasksReturned(ME.process, ids(late), True)]
    assert not bench.effects(w.FetchArguments)


def test_two_threads_that_block_are_one_blocked_worker(bench: Bench) -> None:
    bench.tell(task(1), w.Blocked())
    bench.tell(w.Blocked(), w.Unblocked())
    assert not bench.said
    bench.tell(w.Unblocked())
    assert bench.sent(m.WorkerUnblocked, DAEMON)


def test_a_recall_takes_the_latest_that_has_not_begun(bench: Bench) -> None:
    pushes = [task(number) for number in range(1, 5)]
    bench.tell(*pushes)
    bench.tell(m.RecallTasks(OWNER.process, 2))
    assert bench.sent(m.TasksReturned, OWNER) == [m.TasksReturned(ME.process, ids(*pushes[2:]))]
    bench.tell(w.Ran(pushes[0].task))
    assert bench.runs() == ids(pushes[1])


def test_a_recall_leaves_what_others_have_sent(bench: Bench) -> None:
    mine, theirs = task(1), task(2, OTHER)
    bench.tell(mine, theirs)
    bench.tell(m.RecallTasks(OWNER.process, 5))
    assert bench.sent(m.TasksReturned) == [m.TasksReturned(ME.process, [])], "so that it may ask again"
    bench.tell(w.Ran(mine.task))
    assert bench.runs() == ids(theirs)


# ------------------------------------------------------------------------------------------ arguments of what does not run


def test_fetched_arguments_of_a_task_that_goes_back_are_dropped(bench: Bench) -> None:
    second = task(2, waits=True)
    bench.tell(task(1), second, w.ArgumentsReady(second.task))
    bench.tell(m.RecallTasks(OWNER.process, 1))
    assert bench.effects(w.DropArguments) == [w.DropArguments(second)]


def test_arguments_that_come_after_their_task_went_back_are_dropped_then(bench: Bench) -> None:
    second = task(2, waits=True)
    bench.tell(task(1), second)
    bench.tell(m.RecallTasks(OWNER.process, 1))
    assert not bench.effects(w.DropArguments)
    bench.tell(w.ArgumentsReady(second.task))
    assert bench.effects(w.DropArguments) == [w.DropArguments(second)]


def test_a_task_that_comes_again_before_its_first_arguments_has_a_fetch_of_its_own(bench: Bench) -> None:
    running, again = task(1), task(2, waits=True)
    bench.tell(running, again)
    bench.tell(m.RecallTasks(OWNER.process, 1))
    bench.tell(w.Ran(running.task), again)
    assert bench.effects(w.FetchArguments)
    bench.tell(w.ArgumentsReady(again.task))
    assert bench.effects(w.DropArguments)
    assert not bench.runs()
    bench.tell(w.ArgumentsReady(again.task))
    assert bench.runs() == ids(again)


def test_a_worker_that_waits_for_a_lost_argument_lends_its_cpu_until_it_is_there(bench: Bench) -> None:
    """The task that makes the argument again may need this very CPU."""
    waiting = task(1, waits=True)
    bench.tell(waiting)
    assert not bench.sent(m.WorkerBlocked)
    bench.tell(w.ArgumentLost(waiting.task))
    assert bench.sent(m.WorkerBlocked, DAEMON)
    bench.tell(w.ArgumentsReady(waiting.task))
    assert bench.sent(m.WorkerUnblocked, DAEMON)
    assert bench.runs() == ids(waiting)


def test_a_cpu_in_use_is_not_lent_for_the_argument_of_a_task_behind(bench: Bench) -> None:
    running, waiting = task(1), task(2, waits=True)
    bench.tell(running, waiting)
    bench.tell(w.ArgumentLost(waiting.task))
    assert not bench.sent(m.WorkerBlocked)
    bench.tell(w.Ran(running.task))
    assert bench.sent(m.WorkerBlocked, DAEMON)
    bench.tell(m.RecallTasks(OWNER.process, 1))
    assert bench.sent(m.WorkerUnblocked, DAEMON)


# ------------------------------------------------------------------------------------------ cancelling


def test_a_cancelled_task_that_has_not_begun_never_runs_and_says_so(bench: Bench) -> None:
    first, second, third = task(1), task(2), task(3)
    bench.tell(first, second, third)
    bench.tell(m.CancelTask(second.task))
    (refuse,) = bench.effects(w.Refuse)
    assert (refuse.push, refuse.failure.kind) == (second, "TaskCancelledError")
    bench.tell(w.Ran(first.task))
    assert bench.runs() == ids(third)


def test_a_cancelled_task_that_waits_for_arguments_makes_way(bench: Bench) -> None:
    first, second = task(1, waits=True), task(2)
    bench.tell(first, second)
    bench.tell(m.CancelTask(first.task))
    assert bench.runs() == ids(second)
    assert not bench.effects(w.DropArguments)
    bench.tell(w.ArgumentsReady(first.task))
    assert bench.effects(w.DropArguments) == [w.DropArguments(first)]


def test_a_running_task_is_interrupted_and_goes_on_to_report(bench: Bench) -> None:
    running = task(1)
    bench.tell(running)
    bench.tell(m.CancelTask(running.task, recursive=False))
    assert bench.effects(w.Interrupt) == [w.Interrupt(running, False)]
    assert bench.state.is_cancelled(running.task)
    bench.tell(w.Ran(running.task))
    assert not bench.state.tasks


def test_words_about_what_is_not_here_any_more_are_late(bench: Bench) -> None:
    bench.tell(m.CancelTask(task(1).task), w.ArgumentsReady(task(1).task), w.Ran(task(1).task), w.ArgumentLost(task(1).task))
    assert not bench.said
    assert bench.state.late == 3


# ------------------------------------------------------------------------------------------ actors


@pytest.fixture
def actor(bench: Bench) -> Bench:
    bench.state.is_actor = True
    bench.tell(w.BecameActor(ACTOR, 0, 1))
    return bench


def test_calls_start_in_the_order_of_each_caller(actor: Bench) -> None:
    waits, behind, other = call(1, waits=True), call(2), call(1, OTHER)
    actor.tell(waits, behind, other)
    assert actor.runs() == ids(other), "another caller's call does not wait"
    actor.tell(w.ArgumentsReady(waits.task))
    actor.tell(w.Ran(other.task))
    assert actor.runs() == ids(waits)
    actor.tell(w.Ran(waits.task))
    assert actor.runs() == ids(behind)


def test_as_many_calls_run_at_one_time_as_the_actor_wants(bench: Bench) -> None:
    bench.state.is_actor = True
    bench.tell(w.BecameActor(ACTOR, 0, 2))
    calls = [call(number) for number in range(3)]
    bench.tell(*calls)
    assert bench.runs() == ids(*calls[:2])
    bench.tell(w.Ran(calls[1].task))
    assert bench.runs() == ids(calls[2])


def test_calls_of_another_life_or_another_actor_are_refused_and_fetch_nothing(actor: Bench) -> None:
    actor.tell(call(1, epoch=1), call(2, actor=b"other" + b"\0" * 11, waits=True))
    assert [refuse.failure.kind for refuse in actor.effects(w.Refuse)] == ["ActorDiedError"] * 2
    assert not actor.effects(w.FetchArguments)
    assert not actor.effects(w.DropArguments)
    assert not actor.state.tasks


def test_an_actor_that_blocks_keeps_its_calls(actor: Bench) -> None:
    actor.tell(call(1), call(2))
    actor.tell(w.Blocked())
    assert actor.sent(m.WorkerBlocked, DAEMON)
    assert not actor.sent(m.TasksReturned)
    actor.tell(call(3))
    assert not actor.sent(m.TasksReturned)


def test_an_actor_that_leaves_on_purpose_takes_no_more_calls(actor: Bench) -> None:
    running = call(1)
    actor.tell(running, waits := call(2))
    actor.tell(w.LeaveAsked("exit_actor() was called"))
    assert [(refuse.push, refuse.failure.kind) for refuse in actor.effects(w.Refuse)] == [(waits, "ActorDiedError")]
    assert not actor.effects(w.Exit), "a call runs"
    actor.tell(call(3))
    assert actor.effects(w.Refuse)
    actor.tell(w.Ran(running.task))
    assert actor.effects(w.Exit)


# ------------------------------------------------------------------------------------------ the end


def test_a_worker_that_is_to_exit_finishes_what_it_was_sent(bench: Bench) -> None:
    first, second = task(1), task(2)
    bench.tell(first, second)
    bench.tell(m.ExitWorker("idle"))
    assert not bench.effects(w.Exit)
    bench.tell(w.Ran(first.task))
    bench.tell(w.Ran(second.task))
    assert bench.effects(w.Exit) == [w.Exit("idle")]


def test_an_idle_worker_exits_at_once_and_the_first_reason_stays(bench: Bench) -> None:
    bench.tell(m.ExitWorker("idle"))
    assert bench.effects(w.Exit) == [w.Exit("idle")]
    bench.tell(m.ExitWorker("another job needs a fresh worker"))
    assert bench.effects(w.Exit) == [w.Exit("idle")]


def test_the_cancellation_of_the_last_task_lets_the_worker_exit(bench: Bench) -> None:
    last = task(1, waits=True)
    bench.tell(last, m.ExitWorker("idle"))
    bench.tell(m.CancelTask(last.task))
    assert bench.effects(w.Exit)


# ------------------------------------------------------------------------------------------ at random


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes in whatever order: each attempt of each task runs once, goes back once, or is refused once; never two of
    these; arguments that were fetched are dropped or used; and what the node is told of blocking is true."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.count = 0
        self.here: dict[bytes, m.PushTask] = {}
        self.running: list[bytes] = []
        self.fetching: deque[bytes] = deque()
        self.fetched: dict[bytes, int] = {}
        self.blocked_told = False
        self.blocked = 0
        self.exiting = self.exited = False
        self.gone: list[m.PushTask] = []

    def tell(self, event: Any) -> None:
        for effect in self.bench.tell(event):
            match effect:
                case w.FetchArguments(push=push):
                    self.fetching.append(push.task)
                case w.Run(push=push):
                    assert push.task in self.here
                    assert push.task not in self.running
                    assert not push.dependencies or self.fetched.get(push.task), "it runs without its arguments"
                    self.running.append(push.task)
                case w.DropArguments(push=push):
                    assert self.fetched[push.task] > 0
                    self.fetched[push.task] -= 1
                case w.Refuse(push=push):
                    assert push.task not in self.running
                    del self.here[push.task]
                case w.Exit():
                    assert self.exiting
                    assert not self.here
                    self.exited = True
                case Send(to=to, message=m.TasksReturned(tasks=tasks)):
                    for each in tasks:
                        assert self.here[each].owner == to, "it went to another owner"
                        assert each not in self.running, "it had begun"
                        self.gone.append(self.here.pop(each))
                case Send(message=m.WorkerBlocked()):
                    assert not self.blocked_told
                    self.blocked_told = True
                case Send(message=m.WorkerUnblocked()):
                    assert self.blocked_told
                    self.blocked_told = False

    @precondition(lambda self: not self.exited)
    @rule(owner=st.sampled_from([OWNER, OTHER]), waits=st.booleans(), again=st.booleans())
    def a_task_comes(self, owner: Address, waits: bool, again: bool) -> None:
        """`again`: one that went back may come another time."""
        before = [push for push in self.gone if push.task not in self.here]
        if again and before:
            push = before[-1]
        else:
            self.count += 1
            push = task(self.count, owner, waits=waits)
        self.here[push.task] = push
        self.tell(push)

    @precondition(lambda self: self.fetching)
    @rule(index=st.integers(0, 9))
    def arguments_come(self, index: int) -> None:
        self.fetching.rotate(-index)
        each = self.fetching.popleft()
        self.fetched[each] = self.fetched.get(each, 0) + 1
        self.tell(w.ArgumentsReady(each))

    @precondition(lambda self: self.fetching)
    @rule(index=st.integers(0, 9))
    def an_argument_is_lost(self, index: int) -> None:
        self.tell(w.ArgumentLost(self.fetching[index % len(self.fetching)]))

    @precondition(lambda self: self.running and not self.blocked)
    @rule()
    def the_task_ends(self) -> None:
        each = self.running.pop()
        if self.here.pop(each).dependencies:
            self.fetched[each] -= 1
        self.tell(w.Ran(each))

    @precondition(lambda self: self.running)
    @rule()
    def the_task_blocks(self) -> None:
        self.blocked += 1
        self.tell(w.Blocked())

    @precondition(lambda self: self.blocked)
    @rule()
    def the_task_goes_on(self) -> None:
        self.blocked -= 1
        self.tell(w.Unblocked())

    @rule(owner=st.sampled_from([OWNER, OTHER]), count=st.integers(0, 3))
    def tasks_are_recalled(self, owner: Address, count: int) -> None:
        self.tell(m.RecallTasks(owner.process, count))

    @rule(number=st.integers(1, 30), owner=st.sampled_from([OWNER, OTHER]))
    def a_task_is_cancelled(self, number: int, owner: Address) -> None:
        self.tell(m.CancelTask(task(number, owner).task))

    @precondition(lambda self: self.count > 5)
    @rule()
    def it_is_told_to_exit(self) -> None:
        self.exiting = True
        self.tell(m.ExitWorker("idle"))

    @invariant()
    def what_is_here_is_here(self) -> None:
        assert self.bench.state.tasks.keys() == self.here.keys()
        assert len(self.running) <= 1
        assert not self.exiting or self.exited or self.here

    @invariant()
    def nothing_idles_that_could_run(self) -> None:
        first = next(iter(self.here.values()), None)
        if first is not None and not self.running:
            assert first.dependencies, "the first in line could run"
            assert not self.fetched.get(first.task), "and has its arguments"

    @invariant()
    def a_blocked_worker_is_known_as_one(self) -> None:
        assert self.blocked_told or not self.blocked
        assert not (self.blocked_told and self.running and not self.blocked), "its CPU is lent, and in use"

    def teardown(self) -> None:
        while self.blocked:
            self.the_task_goes_on()
        while self.fetching:
            self.arguments_come(0)
        while self.running:
            self.the_task_ends()
        assert not self.here
        assert not self.blocked_told
        assert not any(self.fetched.values()), "arguments were kept of what did not run"


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_a_worker_keeps_its_promises_in_any_order = AnyOrder.TestCase
