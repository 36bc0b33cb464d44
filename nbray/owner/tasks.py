"""Tasks that this process submitted: their arguments, results, lineage and end. The leases they run under are in leases.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from nbray import config
from nbray.ids import Address, NodeId, ObjectId, TaskId, object_id
from nbray.machine import Effect, Send
from nbray.owner import obituary
from nbray.owner.leases import LeaseTable
from nbray.owner.objects import ObjectTable
from nbray.owner.records import CANCELLED, DONE, FAILED, FORGOTTEN, PUSHED, QUEUED, WAITING, Finished, Lease, OwnedObject, OwnedTask
from nbray.owner.streams import StreamTable
from nbray.wire.failures import dependency_failure
from nbray.wire.messages import CancelTask, Failure, TaskDone, Value


class TaskTable:
    """Steps tasks; appends effects to `out`."""

    def __init__(self, me: Address, objects: ObjectTable, out: list[Effect]) -> None:
        self.me = me
        self.objects = objects
        self.out = out
        self.leases = LeaseTable(me, objects, out)
        self.leases.fail = self.fail
        self.leases.lost_argument = self.lost_argument
        self.streams = StreamTable(objects, out)
        self.leases.streaming = self.streams.pushed
        self.leases.attempt_lost = self.streams.attempt_lost
        self.tasks: dict[TaskId, OwnedTask] = {}
        self.awaiting: dict[tuple[str, str], int] = {}  #: (cell, name) -> tasks that wait for arguments
        self.late = 0
        self.lineage = 0
        self.route_call: Callable[[OwnedTask, float], None]  #: an actor call whose arguments are ready
        self.fail_early: Callable[[OwnedTask, Failure], None] = self.fail  #: a task that an argument's failure ends

    # ------------------------------------------------------------------------------------------ submission

    def submit(self, task: OwnedTask, objects: list[ObjectId] | None, now: float) -> None:
        self.leases.now = now
        push = task.push
        self.tasks[push.task] = task
        self.objects.own_returns(task, objects)
        if push.stream is not None:
            self.streams.begin(task)
        if task.needs or push.contains:
            self.pin_arguments(task)
        if task.missing == 0:
            self.arguments_ready(task)

    def pin_arguments(self, task: OwnedTask) -> None:
        """Hold every reference in the arguments until the task is over, and wait for those at top level."""
        needs = task.needs or []
        task.pins = [h.object for h in needs] + [h.object for h in task.push.contains]
        for object_ in task.pins:
            self.objects.hold(object_)
        self._await(task)

    def _await(self, task: OwnedTask) -> None:
        """Count the arguments at top level that have no value, and be told when they have."""
        task.missing = 0
        for held in task.needs or []:
            obj = self.objects.objects[held.object]
            if obj.value is None:
                task.missing += 1
                self.objects.ask(obj)
                if obj.dependents is None:
                    obj.dependents = []
                obj.dependents.append(task)
        if task.missing:
            key = task.push.cell, task.push.name
            self.awaiting[key] = self.awaiting.get(key, 0) + 1

    def awaits_no_more(self, task: OwnedTask) -> None:
        """All its arguments are there, or it has ended without them."""
        task.missing = 0
        key = task.push.cell, task.push.name
        self.awaiting[key] -= 1
        if not self.awaiting[key]:
            del self.awaiting[key]

    def lost_argument(self, task: OwnedTask) -> bool:
        """Whether an argument was lost while the task waited for a worker: then it waits for the argument again, or ends."""
        for held in task.needs or []:
            value = self.objects.objects[held.object].value
            if value is None or value.failure is not None:
                task.state = WAITING
                self._await(task)
                if task.missing == 0:
                    self.arguments_ready(task)
                return True
        return False

    def value_arrived(self, task: OwnedTask, obj: OwnedObject) -> None:
        """A dependency has its value."""
        if task.state != WAITING:
            return  # cancelled, or failed by another argument
        task.missing -= 1
        if task.missing == 0:
            self.awaits_no_more(task)
            self.arguments_ready(task)

    def arguments_ready(self, task: OwnedTask) -> None:
        if task.needs:
            for held in task.needs:
                obj = self.objects.objects[held.object]
                obj.seen = True
                if obj.value is None:
                    self._await(task)  # lost again while the task waited for another
                    return
                if obj.value.failure is not None:
                    self.fail_early(task, dependency_failure(obj.value.failure, task.push.name))
                    return
        if task.shape is None:
            self.route_call(task, self.leases.now)
            return
        self.leases.join(task)

    # ------------------------------------------------------------------------------------------ results

    def done(self, event: TaskDone, now: float) -> OwnedTask | None:
        """An attempt ended. Returns the task when its values are to be taken; None when the report is late."""
        self.leases.now = now
        task = self.tasks.get(event.task)
        if task is None or task.push.attempt != event.attempt or task.state != PUSHED:
            self.late += 1
            if event.spent:
                self.leases.spent_late(event.worker)
            for index, value in enumerate(event.values):
                self.objects.give_back(value.contains)
                if value.location is not None:
                    self.objects.sealed_in_vain(object_id(event.task, index), value.location.node)
            return None
        lease: Lease | None = task.lease
        if lease is not None:
            task.lease = None
            task.ran_on = lease.node
            self.leases.ran(lease, task, (event.ended_ns - event.started_ns) * 1e-9, now, event.spent)
            if event.borrows:
                self.objects.pass_on(event.borrows, Address(lease.node, event.worker))
        return task

    def take_values(self, event: TaskDone, task: OwnedTask, node: NodeId) -> None:
        """The attempt's values are the task's."""
        failure = event.values[0].failure if event.values else None
        if failure is None:
            state = DONE
        else:
            state = CANCELLED if failure.kind == "TaskCancelledError" else FAILED
        times = event.started_ns, event.ended_ns, event.cpu_ns
        self.out.append(Finished(task, state, *times, event.worker, node, failure, event.attempt, event.fetch_ns))
        self._complete(task, state, event.values, raised=event.retriable)

    def pump_after(self, task: OwnedTask) -> None:
        """At the end of the step: after a frame of reports once, not after each of them."""
        if task.shape is not None:
            self.leases.due[task.key] = None

    def retry_exception(self, task: OwnedTask) -> None:
        task.use_retry()
        self.leases.again(task)

    def _complete(self, task: OwnedTask, state: str, values: list[Value], raised: bool = False) -> None:
        task.state = state
        push = task.push
        self.tasks.pop(push.task, None)
        if task.missing:
            self.awaits_no_more(task)
        if push.stream is not None:
            self._complete_stream(task, values[0], raised)
            return
        objects = self.objects.objects
        repeatable = task.shape is not None and push.returns and task.retries != 0 and not task.retain
        if repeatable and self.lineage < config.LINEAGE_LIMIT and _are_stored(values):
            task.retain = True
            self.lineage += 1
        for index in range(push.returns):
            obj = objects.get(object_id(push.task, index))
            value = values[index] if index < len(values) else values[0]
            if obj is None or obj.value is not None:
                self.objects.give_back(value.contains)  # a second run for the sake of another return
                continue
            obj.task = None
            if value.location is not None:
                if task.retain:
                    obj.task = task
                else:
                    obj.once = task.unrepeatable() or FORGOTTEN
            self.objects.set_value(obj, value)
        if task.retain:
            self._forget_lineage(task)  # if this was a second run, and has left nothing to run a third time for
        elif task.pins:
            self.unpin(task)

    def _complete_stream(self, task: OwnedTask, value: Value, raised: bool) -> None:
        """Its items are there already, as far as they have not been lost again."""
        self.streams.end(task, value, raised)
        if task.retain:
            self._forget_lineage(task)
        elif not self.streams.may_repeat(task):
            self.unpin(task)
        elif task.retries != 0 and self.lineage < config.LINEAGE_LIMIT:
            task.retain = True
            self.lineage += 1
        else:
            self.streams.never_again(task)
            self.unpin(task)
        if self.streams.has_lost(task) and not (task.retain and self._repeat(task)):
            self.streams.give_up(task)

    def object_freed(self, obj: OwnedObject) -> None:
        """The last stored return of a retained task was let go: its arguments are needed no more."""
        if obj.task is None:
            return
        if obj.task.push.stream is not None:
            self.streams.freed(obj)
        if obj.task.retain:
            self._forget_lineage(obj.task)

    def _forget_lineage(self, task: OwnedTask) -> None:
        """Let go of the arguments of a retained task, unless a return of it is still there that may have to be made again."""
        if task.push.stream is not None and self.streams.may_repeat(task):
            return
        for index in range(task.push.returns):
            other = self.objects.objects.get(object_id(task.id, index))
            if other is not None and other.task is task:
                return
        task.retain = False
        self.lineage -= 1
        if task.state not in (WAITING, QUEUED, PUSHED):
            self.unpin(task)

    def unpin(self, task: OwnedTask) -> None:
        pins, task.pins = task.pins, None
        if pins:
            self.objects.drop(pins)

    def fail(self, task: OwnedTask, failure: Failure) -> None:
        state = CANCELLED if failure.kind == "TaskCancelledError" else FAILED
        self.out.append(Finished(task, state, 0, 0, 0, b"", b"", failure, task.push.attempt))
        self._complete(task, state, [Value(failure=failure)])

    def rerun(self, task: OwnedTask, obj: OwnedObject) -> bool:
        """Make `obj` again from its lineage. False when the task may not run again."""
        on_its_way = task.state in (WAITING, QUEUED, PUSHED)  # for the sake of another return
        if not on_its_way and (task.retries == 0 or task.cancelled):
            return False
        if task.push.stream is not None:
            if task.state == FAILED:
                return False  # made again for another item, which was lost with this one: they are many
            self.streams.lose(task, obj)
        return on_its_way or self._repeat(task)

    def _repeat(self, task: OwnedTask) -> bool:
        """Another attempt of a task that is over. False when it may not run again."""
        if task.retries == 0 or task.cancelled:
            return False
        if task.retries > 0:
            task.retries -= 1
        task.push = msgspec.structs.replace(task.push, attempt=task.push.attempt + 1)
        task.state = WAITING
        self.tasks[task.id] = task
        self._await(task)
        if task.missing == 0:
            self.arguments_ready(task)
        return True

    # ------------------------------------------------------------------------------------------ cancel

    def cancel(self, task: OwnedTask, force: bool, recursive: bool) -> None:
        """Not begun: never runs. Running: asked to stop, or with `force` its worker is killed."""
        task.cancelled = True
        if task.state in (WAITING, QUEUED):
            self.fail(task, obituary.cancelled(task))
            self.leases.cancelled(task.key)
            return
        lease: Lease | None = task.lease
        if task.state != PUSHED or lease is None:
            return
        first = next(iter(lease.running))
        if force and first == task.id:
            self.leases.end_by_force(lease)
        else:
            self.out.append(Send(lease.worker, CancelTask(task.id, recursive)))

    def check(self) -> None:
        self.leases.check()
        for task in self.tasks.values():
            assert task.state in (WAITING, QUEUED, PUSHED), (task.id.hex(), task.state)
            assert task.state != WAITING or task.missing > 0 or task.shape is None, task.id.hex()
        counted = Counter((task.push.cell, task.push.name) for task in self.tasks.values() if task.missing)
        assert counted == self.awaiting, f"{counted} tasks wait for arguments, {self.awaiting} are counted"


def _are_stored(values: list[Value]) -> bool:
    """Whether any of them is. Most tasks return one."""
    return values[0].location is not None if len(values) == 1 else any(v.location is not None for v in values)
