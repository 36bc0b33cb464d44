"""The owner: what a process that runs user code knows and decides about what it submitted and put. Pure.

One machine from four tables: objects (objects.py), tasks and leases (tasks.py), actors and calls (calls.py), placement groups
that are awaited (groups.py). This file says which event goes where; docs/architecture.md has the states.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nbray.ids import Address, NodeId, TaskId, task_of
from nbray.machine import Effect, Send, Tick
from nbray.owner import records as r
from nbray.owner.calls import CallTable
from nbray.owner.groups import GroupTable
from nbray.owner.objects import ObjectTable
from nbray.owner.records import OwnedObject, OwnedTask
from nbray.owner.tasks import TaskTable
from nbray.wire import messages as m

_Handler = Callable[[Any, float], object]


class OwnerState:
    """`handle(event, now)` for every owner: drivers and workers alike."""

    def __init__(self, me: Address) -> None:
        self.me = me
        self._out: list[Effect] = []
        self._judged: dict[TaskId, m.TaskDone] = {}  #: reports that wait for the shell's word on their exception
        self.objects = ObjectTable(me, self._out)
        self.tasks = TaskTable(me, self.objects, self._out)
        self.calls = CallTable(me, self.objects, self.tasks, self._out)
        self.groups = GroupTable(me, self.objects, self._out)
        self.objects.value_arrived = self.tasks.value_arrived
        self.objects.rerun = self.tasks.rerun
        self.objects.freed = self._freed
        self.tasks.route_call = self.calls.route
        self.tasks.streams.where = self._runs_at
        self.tasks.fail_early = self.calls.fail_early
        self._handlers = self._facts() | self._messages()

    def _facts(self) -> dict[type, _Handler]:
        """What this process does."""
        o, t, c = self.objects, self.tasks, self.calls
        return {
            r.Submitted: lambda e, now: t.submit(e.task, e.objects, now),
            r.ActorCreated: lambda e, now: c.create(e.task, e.register),
            r.Called: lambda e, now: c.call(e),
            r.ActorKilled: lambda e, now: c.kill(e),
            r.WasPut: lambda e, now: self._put(e),
            r.GroupMade: lambda e, now: self.groups.make(e.create, c.head),
            r.GroupGivenUp: lambda e, now: self.groups.give_up(e.group, c.head),
            r.GroupAwaited: lambda e, now: self.groups.wait(e),
            r.Received: lambda e, now: o.receive(e.object, e.owner, e.credits),
            r.Dropped: lambda e, now: o.drop(e.objects),
            r.ViewsReleased: lambda e, now: o.views_released(e.objects),
            r.ItemAsked: lambda e, now: t.streams.ask(e.task),
            r.ItemMissed: lambda e, now: t.streams.missed(e.answer),
            r.StreamDropped: lambda e, now: t.streams.drop(e.task),
            r.Wanted: lambda e, now: self._wanted(e),
            r.ValuesTold: lambda e, now: self._values_told(e),
            r.Passed: lambda e, now: o.pass_on(e.held, e.to),
            r.DeathAwaited: lambda e, now: o.watch(e.process),
            r.Reported: lambda e, now: o.credited(e.objects),
            r.CancelAsked: lambda e, now: self._cancel(e),
            r.CellCancelled: lambda e, now: self._cancel_cell(e),
            r.RetryDecided: self._retry_decided,
            r.NodeLost: lambda e, now: self._node_lost(e),
            r.Attached: lambda e, now: self._attached(e),
            Tick: lambda e, now: t.leases.tick(now),
        }

    def _messages(self) -> dict[type, _Handler]:
        """What others say."""
        o, t, c = self.objects, self.tasks, self.calls
        return {
            # leases and workers
            m.TaskDone: self._task_done,
            m.ItemYielded: lambda e, now: t.streams.yielded(e, t.tasks.get(e.task)),
            m.TasksReturned: t.leases.returned,
            m.LeaseGranted: t.leases.granted,
            m.LeaseRedirected: t.leases.redirected,
            m.LeaseWaiting: lambda e, now: t.leases.waits(e),
            m.LeaseRefused: lambda e, now: t.leases.refused(e),
            m.LeaseRecalled: lambda e, now: t.leases.recalled(e),
            m.LeaseLost: self._lease_lost,
            # objects
            m.ObjectPinned: lambda e, now: o.pinned(e),
            m.ObjectUnavailable: lambda e, now: o.unavailable(e),
            m.CopyMade: lambda e, now: o.copy_made(e),
            m.AskValue: lambda e, now: o.asked(e),
            m.TellValue: lambda e, now: o.told(e),
            m.AddBorrower: lambda e, now: o.borrower_added(e),
            m.RemoveBorrower: lambda e, now: o.borrower_removed(e),
            m.ReportMissing: lambda e, now: o.missing(e),
            m.CancelObject: lambda e, now: self._cancel(r.CancelAsked(e.object, e.force, e.recursive)),
            m.ProcessDied: lambda e, now: self._process_died(e.death),
            m.NodeDied: lambda e, now: self._node_died(e.node, e.reason),
            # actors
            m.GroupUpdate: lambda e, now: self.groups.updated(e),
            m.ActorUpdate: lambda e, now: c.updated(e),
            m.ActorRejected: lambda e, now: c.rejected(e),
        }

    def handle(self, event: Any, now: float) -> list[Effect]:
        """Step. Events are this package's records and the messages addressed to owners."""
        self._handlers[type(event)](event, now)
        return self._ordered()

    def handle_all(self, events: Iterable[Any], now: float) -> list[Effect]:
        """One step for all of them."""
        for event in events:
            self._handlers[type(event)](event, now)
        return self._ordered()

    def _ordered(self) -> list[Effect]:
        if self.tasks.leases.due:
            self.tasks.leases.pump_due()
        effects = self._out.copy()
        self._out.clear()
        return effects

    def takes(self, event: Any) -> bool:
        """Whether this machine has a handler for the event."""
        return type(event) in self._handlers

    def next_deadline(self) -> float | None:
        return self.tasks.leases.next_deadline()

    # ------------------------------------------------------------------------------------------ tasks

    def _task_done(self, event: m.TaskDone, now: float) -> None:
        task = self.tasks.done(event, now)
        if task is None:
            return
        if event.borrows and task.shape is None:
            self.calls.reported(event, task)
        if event.retriable and task.retry_exceptions and not task.cancelled and event.values[0].failure is not None:
            self._out.append(r.JudgeException(task, event.values))
            self._judged[task.id] = event
        else:
            self._finish(event, task, now)
        self.tasks.pump_after(task)

    def _lease_lost(self, event: m.LeaseLost, now: float) -> None:
        self.tasks.leases.lost(event, now)
        # It may have given back references before its report counted it for them: then nobody else tells us of its death.
        self.objects.process_died(event.worker.process)

    def _finish(self, event: m.TaskDone, task: OwnedTask, now: float) -> None:
        if task.shape is None:
            self.calls.done(event, now)
        else:
            self.tasks.take_values(event, task, task.ran_on or self.me.node)

    def _runs_at(self, task: OwnedTask) -> Address | None:
        """The worker of a pushed task or call."""
        if task.lease is not None:
            return task.lease.worker  # type: ignore[no-any-return]
        return self.calls.actors[task.push.actor].address if isinstance(task.push, m.PushCall) else None

    def _retry_decided(self, event: r.RetryDecided, now: float) -> None:
        done = self._judged.pop(event.task, None)
        task = self.tasks.tasks.get(event.task)
        if done is None or task is None or task.push.attempt != event.attempt:
            return
        if not event.retry or task.cancelled:
            self._finish(done, task, now)
        elif task.shape is None:
            self.calls.retry(task)
        else:
            self.tasks.retry_exception(task)
        self.tasks.pump_after(task)

    def _cancel(self, event: r.CancelAsked) -> None:
        task = self.tasks.tasks.get(task_of(event.object))
        if task is not None:
            self._cancel_task(task, event.force, event.recursive)
            return
        obj = self.objects.objects.get(event.object)
        if obj is not None and not self.objects.is_mine(obj.id) and obj.value is None:
            self._out.append(Send(obj.owner, m.CancelObject(obj.id, event.force, event.recursive)))

    def _cancel_task(self, task: OwnedTask, force: bool, recursive: bool) -> None:
        if task.shape is not None:
            self.tasks.cancel(task, force, recursive)
        elif isinstance(task.push, m.PushCall):
            self.calls.cancel(task, recursive)

    def _cancel_cell(self, event: r.CellCancelled) -> None:
        # The latest first: what takes the result of another is cancelled as well, and does not fail for want of it.
        for task in reversed(list(self.tasks.tasks.values())):
            if task.parent == event.parent if event.parent else task.push.cell == event.cell:
                self._cancel_task(task, event.force, recursive=True)

    # ------------------------------------------------------------------------------------------ objects

    def _put(self, event: r.WasPut) -> None:
        obj = self.objects.own(event.object, "", event.line)
        obj.seen = True
        obj.once = "OBJECT_UNRECONSTRUCTABLE_PUT"
        self.objects.set_value(obj, event.value, counted=False)

    def _wanted(self, event: r.Wanted) -> None:
        for each in event.objects:
            self.objects.want(each, event.local)

    def _values_told(self, event: r.ValuesTold) -> None:
        for told in event.dependencies:
            obj = self.objects.receive(told.object, told.owner)
            if obj.value is None:
                # Held by the submitter until the task is done, what it contains too: nobody counted us for that.
                self.objects.set_value(obj, told.value, counted=False)

    def _freed(self, obj: OwnedObject) -> None:
        if obj.task is not None:
            self.tasks.object_freed(obj)
        if obj.id[16:] == b"\0\0\0\0":
            self.calls.object_freed(obj)

    # ------------------------------------------------------------------------------------------ deaths

    def _process_died(self, death: m.Death) -> None:
        self.objects.process_died(death.process)
        self.tasks.leases.worker_died(death)

    def _node_died(self, node: NodeId, reason: str) -> None:
        # First of all: a task that makes a lost object again would else be pushed to an idle lease of the dead node, at the
        # price of one more retry. And what ran there goes elsewhere last, when it is known which arguments are lost.
        gone = self.tasks.leases.shun(node)
        self.objects.node_died(node, reason)
        self.tasks.leases.node_gone(gone, node, reason)

    def _node_lost(self, event: r.NodeLost) -> None:
        """Our own node: nothing can be asked until `Attached`."""
        self.tasks.leases.attached = False
        self.calls.cluster_gone(event.failure)
        self.groups.cluster_gone(event.failure)
        self._node_died(event.node, event.failure.message)

    def _attached(self, event: r.Attached) -> None:
        self.me = Address(event.node, self.me.process)
        self.objects.me = self.tasks.me = self.tasks.leases.me = self.calls.me = self.groups.me = self.me
        self.calls.head = event.head
        self.tasks.leases.attached = True
        self.tasks.leases.pump_all()

    def first_running(self) -> Iterator[OwnedTask]:
        """What workers are busy with, as far as an owner knows: of what each was sent, the first that has not reported."""
        for pool in self.tasks.leases.pools.values():
            for lease in pool.leases.values():
                yield from itertools.islice(lease.running.values(), 1)
        for actor in self.calls.actors.values():
            yield from itertools.islice(actor.running.values(), 1)

    def keeps(self) -> bool:
        """Whether this process's end would fail something: tasks of its own, or objects that somebody holds."""
        return self.objects.owned > 0 or bool(self.tasks.tasks)

    def check(self) -> None:
        self.objects.check()
        self.tasks.check()
        self.tasks.streams.check()
        self.calls.check()
        self.groups.check()


__all__ = ["OwnerState"]
