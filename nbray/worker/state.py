"""The worker: what it was sent, what it runs, what it gives back. Pure.

    arrived -> waiting for arguments -> ready -> running -> (Ran) gone
       |____________ not begun ___________|
              cancelled: never runs        recalled, or the running task blocks: returned to its owner

A worker for tasks runs one at a time, in the order of arrival. An actor starts each caller's calls in order, up to the bound
of their concurrency group (groups.py). A task that blocks in `get` gives back everything not begun: a pipelined child would
wait for its own parent. A worker that has run a function `max_calls` times takes nothing more: its owner sends what it had not
begun elsewhere, and it exits once nobody needs what it owns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nbray.ids import ActorId, Address, FunctionId, TaskId
from nbray.machine import Effect, Send
from nbray.wire.messages import (
    CancelTask,
    ExitWorker,
    Failure,
    ItemsTaken,
    PushCall,
    PushTask,
    RecallTasks,
    TasksReturned,
    WorkerBlocked,
    WorkerUnblocked,
)
from nbray.worker.flow import Flow
from nbray.worker.groups import Groups, Sent, group_of

NO_GROUPS: Mapping[str, int] = {}

# -- events of this process


class ArgumentsReady(msgspec.Struct, gc=False):
    task: TaskId


class ArgumentLost(msgspec.Struct, gc=False):
    """An argument that was being fetched is gone, and has to be made again before the task can run."""

    task: TaskId


class Ran(msgspec.Struct, gc=False):
    """The task ended, and its report has been sent."""

    task: TaskId


class Blocked(msgspec.Struct, gc=False):
    """A running task waits in `get` or `wait`."""


class Unblocked(msgspec.Struct, gc=False):
    pass


class KeepsChanged(msgspec.Struct, gc=False):
    """Whether the end of this process would fail something: tasks of its own, or objects that somebody holds."""

    keeps: bool


class LeaveAsked(msgspec.Struct, gc=False):
    """exit_actor() was called: what runs finishes, what has not begun never will."""

    reason: str


class BecameActor(msgspec.Struct, gc=False):
    """`__init__` returned: calls may start, `concurrency` at a time and as many of each of the `groups` as it says. `window`:
    items of its generators that may wait to be taken."""

    actor: ActorId
    epoch: int
    concurrency: int
    groups: Mapping[str, int] = NO_GROUPS
    unordered: bool = False
    window: int = -1


class WouldGoOn(msgspec.Struct, gc=False):
    """A generator has yielded `items` in all, and would make the next. Answered by GoOn, at once or when it may."""

    task: TaskId
    items: int


# -- effects


class GoOn(Effect, frozen=True, gc=False):
    """The generator may make its next item."""

    task: TaskId


class FetchArguments(Effect, frozen=True, gc=False):
    """Make the dependencies' bytes present; answer with ArgumentsReady."""

    push: PushTask | PushCall


class Run(Effect, frozen=True, gc=False):
    push: PushTask | PushCall


class Interrupt(Effect, frozen=True, gc=False):
    """Ask the running task to stop."""

    push: PushTask | PushCall
    recursive: bool


class DropArguments(Effect, frozen=True, gc=False):
    """Let go of the dependencies that FetchArguments brought: the task does not run here."""

    push: PushTask | PushCall


class Refuse(Effect, frozen=True, gc=False):
    """Report the task as failed without running it."""

    push: PushTask | PushCall
    failure: Failure


class Exit(Effect, frozen=True, gc=False):
    reason: str


class WorkerState:
    """`handle(event, now)` of one worker."""

    def __init__(self, me: Address) -> None:
        self.me = me
        self.tasks: dict[TaskId, Sent] = {}  #: in the order of arrival
        self.running = 0
        self.groups: Groups | None = None  #: of an actor, from BecameActor on
        self.spent = False  #: it has run a function as often as it may
        self.keeps = False
        self.blocked = 0
        self.actor: ActorId | None = None
        self.epoch = -1
        self.is_actor = False  #: from StartActor on; calls wait until BecameActor
        self.exiting = ""
        self.leaving = False  #: by exit_actor(): no more calls are taken
        self.late = 0
        self._calls: dict[FunctionId, int] = {}  #: runs of functions with max_calls
        self._lost: set[TaskId] = set()  #: that wait for an argument to be made again
        self._lent = False  #: the node has been told that our CPU is free
        self.flow = Flow()
        self._given_up: dict[TaskId, list[PushTask | PushCall]] = {}  #: not to run here, and their arguments are being fetched
        self._out: list[Effect] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            PushTask: self._arrived,
            PushCall: self._called,
            ArgumentsReady: self._arguments_ready,
            ArgumentLost: self._argument_lost,
            Ran: self._ran,
            CancelTask: self._cancel,
            RecallTasks: self._recall,
            Blocked: self._blocked,
            Unblocked: self._unblocked,
            BecameActor: self._became_actor,
            KeepsChanged: self._keeps_changed,
            LeaveAsked: self._leave_asked,
            WouldGoOn: self._would_go_on,
            ItemsTaken: self._items_taken,
            ExitWorker: self._exit,
        }

    def handle(self, event: Any, now: float) -> list[Effect]:
        del now  # nothing a worker decides depends on time
        self._handlers[type(event)](event)
        if self._lost:
            self._lend_cpu()
        effects = self._out.copy()
        self._out.clear()
        return effects

    def takes(self, event: Any) -> bool:
        return type(event) in self._handlers

    def next_deadline(self) -> float | None:
        return None

    def is_cancelled(self, task: TaskId) -> bool:
        sent = self.tasks.get(task)
        return sent is not None and sent.cancelled

    def is_last(self, push: PushTask | PushCall) -> bool:
        """Whether the run of `push` that ends now is the last that its function may have here."""
        return isinstance(push, PushTask) and 0 < push.max_calls <= self._calls.get(push.function, 0) + 1

    @property
    def node(self) -> Address:
        """Our daemon's mailbox."""
        return Address(self.me.node, self.me.node)

    # ------------------------------------------------------------------------------------------ arrivals

    def _arrived(self, push: PushTask | PushCall) -> None:
        if self.spent:
            self.late += 1  # the report that said so is on its way: the owner sends this one elsewhere when it comes
            return
        if self.blocked and not self.is_actor:
            self._out.append(Send(push.owner, TasksReturned(self.me.process, [push.task], blocked=True)))
            return
        sent = Sent(push, ready=not push.dependencies)
        self.tasks[push.task] = sent
        if self.groups is not None:
            self.groups.add(group_of(push), sent)
        if push.stream is not None:
            self.flow.begin(push.task, push.stream)
        if not sent.ready:
            self._out.append(FetchArguments(push))
        self._start(sent)

    def _called(self, push: PushCall) -> None:
        if self.leaving:
            self._refuse_leaving(push)
            return
        if push.actor != self.actor or push.epoch != self.epoch:
            why = f"{push.name} was sent to a life of the actor that is over (epoch {push.epoch}, now {self.epoch})"
            self._out.append(Refuse(push, Failure("ActorDiedError", message=why, fields={"actor": push.actor.hex()})))
            return
        if self.groups is None or push.group not in self.groups:
            why = f"{push.name} was called in the concurrency group {push.group!r}, which the actor does not have"
            self._out.append(Refuse(push, Failure("RaySystemError", message=why, fields={"actor": push.actor.hex()})))
            return
        self._arrived(push)

    def _arguments_ready(self, event: ArgumentsReady) -> None:
        given_up = self._given_up.get(event.task)
        if given_up is not None:
            self._out.append(DropArguments(given_up.pop()))
            if not given_up:
                del self._given_up[event.task]
            return
        sent = self.tasks.get(event.task)
        if sent is None:
            self.late += 1
            return
        sent.ready = True
        self._start(sent)

    def _argument_lost(self, event: ArgumentLost) -> None:
        sent = self.tasks.get(event.task)
        if sent is not None and not sent.ready:
            self._lost.add(event.task)

    def _lend_cpu(self) -> None:
        """While nothing runs here, and what is to run waits for an argument that somebody must make again, our CPU may be what is
        needed for that."""
        self._lost = {task for task in self._lost if task in self.tasks and not self.tasks[task].ready}
        self._tell_node()

    def _tell_node(self) -> None:
        lent = self.blocked > 0 or (bool(self._lost) and not self.running)
        if lent != self._lent:
            self._lent = lent
            self._out.append(Send(self.node, WorkerBlocked(self.me.process) if lent else WorkerUnblocked(self.me.process)))

    def _became_actor(self, event: BecameActor) -> None:
        self.actor, self.epoch = event.actor, event.epoch
        self.groups = Groups(event.concurrency, event.groups, unordered=event.unordered)
        self.flow.window = event.window
        self.is_actor = True

    # ------------------------------------------------------------------------------------------ running

    def _start(self, changed: Sent) -> None:
        """Start what may start now that something has changed for, or by the end of, one task or call."""
        if self.groups is not None:
            for sent in self.groups.startable(group_of(changed.push)):
                self._run(sent)
        else:
            self._start_next()

    def _start_next(self) -> None:
        if self.running or self.spent or self.is_actor:
            return
        first = next(iter(self.tasks.values()), None)
        if first is not None and first.ready:
            self._run(first)

    def _run(self, sent: Sent) -> None:
        sent.running = True
        self.running += 1
        self._out.append(Run(sent.push))

    def _ran(self, event: Ran) -> None:
        sent = self.tasks.pop(event.task, None)
        if sent is None:
            self.late += 1
            return
        self.running -= 1
        if sent.push.stream is not None:
            self._go_on(self.flow.end(event.task))
        if self.groups is not None:
            self.groups.over(group_of(sent.push), sent)
        elif isinstance(sent.push, PushTask) and sent.push.max_calls:
            self._count(sent.push)
        self._start(sent)
        self._maybe_exit()

    def _count(self, push: PushTask) -> None:
        last = self.is_last(push)
        self._calls[push.function] = self._calls.get(push.function, 0) + 1
        if last:
            self.spent = True
            for waiting in list(self.tasks.values()):
                self._give_up(waiting)

    def _would_go_on(self, event: WouldGoOn) -> None:
        if event.task in self.tasks:
            self._go_on(self.flow.would_go_on(event.task, event.items))

    def _items_taken(self, event: ItemsTaken) -> None:
        if event.task in self.tasks:
            self._go_on(self.flow.taken(event.task, event.upto))
        else:
            self.late += 1

    def _go_on(self, tasks: list[TaskId]) -> None:
        for task in tasks:
            self._out.append(GoOn(task))

    def _blocked(self, _event: Blocked) -> None:
        self.blocked += 1
        if self.blocked > 1:
            return
        self._tell_node()
        if not self.is_actor:
            self._return([s for s in self.tasks.values() if not s.running], blocked=True)

    def _unblocked(self, _event: Unblocked) -> None:
        self.blocked -= 1
        self._tell_node()

    # ------------------------------------------------------------------------------------------ giving back

    def _recall(self, event: RecallTasks) -> None:
        waiting = [s for s in self.tasks.values() if not s.running and s.push.owner.process == event.owner]
        latest = waiting[-event.count :] if event.count else []
        if latest:
            self._return(latest, blocked=self.blocked > 0)
            self._start_next()  # the first in line may have been among them, waiting for its arguments
            self._maybe_exit()
            return
        # Nothing left to give: the owner may ask again for what it sends from now on.
        for sent in self.tasks.values():
            if sent.push.owner.process == event.owner:
                self._out.append(Send(sent.push.owner, TasksReturned(self.me.process, [], blocked=self.blocked > 0)))
                return

    def _return(self, sents: list[Sent], blocked: bool) -> None:
        by_owner: dict[Address, list[TaskId]] = {}
        if blocked:
            # The owner of the running task pushes nothing more until it is done, so it is told also when it gets nothing back.
            by_owner = {s.push.owner: [] for s in self.tasks.values() if s.running}
        for sent in sents:
            by_owner.setdefault(sent.push.owner, []).append(sent.push.task)
            self._give_up(sent)
        for owner, tasks in by_owner.items():
            self._out.append(Send(owner, TasksReturned(self.me.process, tasks, blocked)))

    def _give_up(self, sent: Sent) -> None:
        """It will not run here: its arguments go, now or when they have come."""
        del self.tasks[sent.push.task]
        if self.groups is not None:
            self.groups.over(group_of(sent.push), sent)
        if sent.push.stream is not None:
            self._go_on(self.flow.end(sent.push.task))
        if sent.push.dependencies:
            if sent.ready:
                self._out.append(DropArguments(sent.push))
            else:
                self._given_up.setdefault(sent.push.task, []).append(sent.push)

    def _cancel(self, event: CancelTask) -> None:
        sent = self.tasks.get(event.task)
        if sent is None:
            self.late += 1
            return
        sent.cancelled = True
        if sent.running:
            self._out.append(Interrupt(sent.push, event.recursive))
            return
        self._give_up(sent)
        message = f"{sent.push.name} (task {event.task.hex()}) was cancelled before it began"
        self._out.append(Refuse(sent.push, Failure("TaskCancelledError", message=message, fields={"task": event.task.hex()})))
        self._start(sent)
        self._maybe_exit()

    # ------------------------------------------------------------------------------------------ the end

    def _exit(self, event: ExitWorker) -> None:
        self.exiting = self.exiting or event.reason or "told to"
        self._maybe_exit()

    def _leave_asked(self, event: LeaveAsked) -> None:
        self.leaving = True
        self.exiting = self.exiting or event.reason
        for sent in [s for s in self.tasks.values() if not s.running]:
            self._give_up(sent)
            self._refuse_leaving(sent.push)
        self._maybe_exit()

    def _refuse_leaving(self, push: PushTask | PushCall) -> None:
        why = f"{push.name} did not begin: {self.exiting}, and the actor ends"
        fields = {"actor": (self.actor or b"").hex(), "maybe_executed": False}
        self._out.append(Refuse(push, Failure("ActorDiedError", message=why, fields=fields)))

    def _keeps_changed(self, event: KeepsChanged) -> None:
        self.keeps = event.keeps
        if self.spent:
            self._maybe_exit()

    def _maybe_exit(self) -> None:
        # Who has merely run its calls stays while others need what it owns; who is told to end otherwise has been judged useless.
        if self.exiting and not self.tasks and not (self.spent and self.keeps):
            self._out.append(Exit(self.exiting))

    def check(self) -> None:
        assert self.running == sum(s.running for s in self.tasks.values())
        if self.groups is not None:
            self.groups.check()
            assert self.running == sum(group.running for group in self.groups.groups.values())
        else:
            assert 0 <= self.running <= 1
        assert self.blocked >= 0
