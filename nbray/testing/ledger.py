"""The books of a simulation: what was submitted, what ran, what was read; and the promises that must have been kept.

values       whoever reads an object reads what its program comes to, and bytes do not change under a view
one end      a task ends once for each of its attempts, and every reference has an end in bounded time
failures     only for a reason: the program's own doing, a cancellation, a process or node that really died
executions   one for each attempt; at most 1 + retries in all; at most one for what may not be repeated
order        calls of one caller start in the order in which they were made, within each life of the actor
rest         when every reference is dropped, nothing is held anywhere (`Host.leftovers`)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from nbray.ids import ActorId, ObjectId, ProcessId, TaskId, task_of
from nbray.ids import object_id as first_return
from nbray.owner.records import PUSHED, Finished, OwnedTask
from nbray.testing.history import History
from nbray.testing.programs import ActorProgram, Program
from nbray.wire import messages as m

if TYPE_CHECKING:
    from nbray.testing.process import Process, Ref
    from nbray.testing.worker import Worker


class Expected(msgspec.Struct):
    """What is known of an object from the moment it is asked for."""

    number: int
    program: Program | None  #: None: it was put
    needs: list[ObjectId]  #: whose failure is its failure
    actor: ActorId = b""  #: of a call
    index: int = 0  #: of a call: among its caller's calls to this actor
    cancelled: bool = False
    parent: TaskId = b""  #: the task that submitted it; its cancellation may be that of its children
    item: bool = False  #: of a generator: it may be there although its task fails later


class RunLedger:
    """Raises Violation when a promise is broken."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._expected: dict[ObjectId, Expected] = {}
        self._actors: dict[ActorId, tuple[ActorProgram, list[ObjectId]]] = {}  #: with what its creation needs
        self._ended_actors: set[ActorId] = set()  #: killed, or left: their calls may fail
        self._calls: Counter[tuple[ProcessId, ActorId]] = Counter()
        self._last_started: dict[tuple[ActorId, int, ProcessId, str], int] = {}
        self._executions: Counter[TaskId] = Counter()
        self._attempts: set[tuple[TaskId, int, bool]] = set()
        self._forgiven: Counter[TaskId] = Counter()  #: executions that the owner could not know of
        self._finished: set[tuple[TaskId, int]] = set()
        self._owned: dict[TaskId, OwnedTask] = {}
        self.drivers: set[ProcessId] = set()  #: owners that never die
        self.violence = ""  #: the first end of a process that was in use; from then on failures have a reason
        self.nodes_failed = False
        self.last_ran_at = 0.0
        self._astray: set[ObjectId] = set()  #: references whose sender was killed between counting their receiver and sending them
        self._uncounted: set[ObjectId] = set()  #: or that were sent, and the counting was lost
        self.outcomes: Counter[str] = Counter()  #: ends of references that were waited for, by kind

    # ------------------------------------------------------------------------------------------ what is asked for

    def submitted(self, process: Process, task: OwnedTask, program: Program, needs: Sequence[Ref], nested: Sequence[Ref]) -> None:
        self._expect(task, program, needs, nested, b"")

    def called(
        self, process: Process, task: OwnedTask, actor: ActorId, program: Program, needs: Sequence[Ref], nested: Sequence[Ref]
    ) -> None:
        self._expect(task, program, needs, nested, actor)
        self._calls[process.me.process, actor] += 1
        self._expected[first_return(task.id)].index = self._calls[process.me.process, actor]

    def _expect(self, task: OwnedTask, program: Program, needs: Sequence[Ref], nested: Sequence[Ref], actor: ActorId) -> None:
        read = [ref.id for ref in needs] + ([ref.id for ref in nested] if program.nested == "read" else [])
        number = program.value() + sum(self._expected[each].number for each in read)
        self._expected[first_return(task.id)] = Expected(number, program, read, actor, parent=task.parent)
        for index in range(program.yields + 1):  # the last one, if there is one, is the error
            item = Expected(number + 1 + index, program, read, actor, parent=task.parent, item=True)
            self._expected[first_return(task.id, 1 + index)] = item
        self._owned[task.id] = task

    def was_put(self, new: ObjectId, number: int) -> None:
        self._expected[new] = Expected(number, None, [])

    def created(self, actor: ActorId, program: ActorProgram, needs: Sequence[Ref]) -> None:
        self._actors[actor] = program, [ref.id for ref in needs]

    def actor_program(self, actor: ActorId) -> ActorProgram:
        return self._actors[actor][0]

    def killed_actor(self, actor: ActorId) -> None:
        self._ended_actors.add(actor)

    def cancelled(self, object_id: ObjectId, *, force: bool) -> None:
        expected = self._expected[object_id]
        expected.cancelled = True
        for index in range(expected.program.yields + 1 if expected.program is not None else 0):
            self._expected[first_return(task_of(object_id), 1 + index)].cancelled = True

    # ------------------------------------------------------------------------------------------ what runs

    def starts(self, worker: Worker, push: m.PushTask | m.PushCall) -> None:
        """A worker's machine ordered this run: calls of one caller in their order, in each concurrency group by itself."""
        expected = self._expected[first_return(push.task)]
        repeats = expected.program is not None and expected.program.raises and push.attempt
        if isinstance(push, m.PushCall) and not repeats and not self.actor_program(push.actor).unordered:
            key = push.actor, push.epoch, push.owner.process, push.group
            before = self._last_started.get(key, 0)
            if expected.index <= before:
                raise self._history.violation(f"call {expected.index} of its caller started after call {before}", push.task)
            self._last_started[key] = expected.index

    def began(self, worker: Worker, push: m.PushTask | m.PushCall) -> int:
        """A program runs. Returns how often it has run, this time included."""
        task, first = push.task, (push.task, push.attempt, isinstance(push, m.PushCall))
        self._executions[task] += 1
        count = self._executions[task]
        if first in self._attempts:
            raise self._history.violation(f"attempt {push.attempt} of task {task.hex()} ran twice", task)
        self._attempts.add(first)
        self.last_ran_at = worker.clock.now
        self._under_lease(worker, push)
        program = self._expected[first_return(task)].program
        assert program is not None
        if program.exits and isinstance(push, m.PushCall):
            self._ended_actors.add(push.actor)
        owned = self._owned[task]
        if program.retries >= 0:
            allowed = 1 + program.retries
            if program.retries and isinstance(push, m.PushTask) and (owned.lease is None or owned.push.attempt != push.attempt):
                self._forgiven[task] += 1  # its owner gave it up before it began
            known = not program.retries or not self.nodes_failed
            if known and count > allowed + (self._forgiven[task] if program.retries else 0):
                raise self._history.violation(f"task {task.hex()} ran {count} times, and {allowed} are allowed", task)
        return count

    def ran(self, worker: Worker, push: m.PushTask | m.PushCall) -> None:
        """A program is over, and is about to be reported."""
        self.last_ran_at = worker.clock.now
        self._under_lease(worker, push)

    def _under_lease(self, worker: Worker, push: m.PushTask | m.PushCall) -> None:
        """What runs, runs with the resources of its node: a worker whose lease was given back may be somebody else's by now."""
        record = worker.host.state.pool.get(worker.me.process)
        if record is None or record.phase.name not in {"LEASED", "ACTOR", "ENDING"}:
            phase = "unknown to its node" if record is None else record.phase.name
            raise self._history.violation(f"{worker.name} runs task {push.task.hex()} and is {phase}", push.task)

    def message_lost(self, message: m.Message) -> None:
        """The process that sent it was killed before it had left."""
        match message:
            case m.TaskDone():
                self._forgive_if_behind(message.task)
                self._astray |= {held.object for value in message.values for held in value.contains}
            case m.ItemYielded():
                self._astray |= {held.object for held in message.value.contains}
            case m.TellValue():
                self._astray |= {held.object for held in message.value.contains}
            case m.AddBorrower():
                self._uncounted |= set(message.objects)

    def astray(self, processes: Sequence[Process]) -> set[ObjectId]:
        """Objects of which nobody can know that nobody holds them, with what they hold: they are kept until the receiver ends."""
        found: set[ObjectId] = set()
        waiting = list(self._astray)
        while waiting:
            each = waiting.pop()
            if each in found:
                continue
            found.add(each)
            for process in processes:
                obj = process.state.objects.objects.get(each)
                if obj is not None and obj.value is not None:
                    waiting += [held.object for held in obj.value.contains]
                if obj is not None and obj.task is not None:
                    waiting += obj.task.pins or []
        return found

    def finished(self, effect: Finished) -> None:
        """An owner's machine says that a task ended."""
        end = effect.task.id, effect.attempt
        if end in self._finished:
            raise self._history.violation(f"task {effect.task.id.hex()} ended twice", effect.task.id)
        self._finished.add(end)

    def process_ends(self, worker: Worker, *, orderly: bool) -> None:
        for current in worker.running.values():
            self._astray |= set(current.passed)
            self._forgive_if_behind(current.push.task)
        owns = any(obj.owner.process == worker.me.process for obj in worker.state.objects.objects.values())
        if orderly and owns:
            # As in Ray, an actor whose last handle goes takes with it what it owns. A worker that says that it keeps something may
            # say so just too late.
            self.violence = self.violence or f"{worker.name} left while it owned objects"
        if not orderly and (worker.running or worker.work.is_actor or worker.work.tasks or worker.state.objects.objects):
            self.violence = self.violence or f"{worker.name} was killed"

    def _forgive_if_behind(self, task: TaskId) -> None:
        """It ran on a worker that is dead, and its owner does not know: if it was sent behind another, it costs no retry."""
        lease = self._owned[task].lease
        if lease is not None and next(iter(lease.running), None) != task:
            self._forgiven[task] += 1

    def node_failed(self, what: str) -> None:
        self.nodes_failed = True
        self.violence = self.violence or what

    # ------------------------------------------------------------------------------------------ what is seen

    def read(self, process: Process, object_id: ObjectId, number: int | None) -> None:
        """A process read the value of an object."""
        expected = self._expected.get(object_id)
        if expected is None:
            raise self._history.violation(f"{process.name} read an object that nobody made", object_id)
        if number != expected.number:
            story = f"{process.name} read {number} in object {object_id.hex()}, and {expected.number} belongs there"
            raise self._history.violation(story, object_id)
        if not self.violence and expected.program is not None and expected.program.failing and not expected.item:
            raise self._history.violation(f"object {object_id.hex()} has a value, and its program fails", object_id)
        self.outcomes["value"] += 1

    def streamed(self, process: Process, end: ObjectId, items: int, failed: bool) -> None:
        """A process took all that a generator had."""
        program = self._expected[end].program
        assert program is not None
        if not failed and items != program.yields:
            story = f"{process.name} took {items} items of {task_of(end).hex()}, which yields {program.yields}, and no error"
            raise self._history.violation(story, end)

    def put_failed(self, process: Process) -> None:
        if not self.nodes_failed:
            raise self._history.violation(f"{process.name} could not put, and its node is well")

    def viewed(self, process: Process, object_id: ObjectId, intact: bool) -> None:
        if not intact:
            raise self._history.violation(f"the bytes of {object_id.hex()} changed under a view of {process.name}", object_id)

    def ended(self, process: Process, object_id: ObjectId, failure: m.Failure) -> None:
        """A process waited for an object and got a failure. Is there a reason?"""
        self.outcomes[failure.kind] += 1
        said = f"{process.name} got {failure.kind} for {object_id.hex()}: {failure.message}"
        if self._is_given_up(process):
            return
        freed = failure.kind == "ObjectFreedError" or failure.fields.get("cause_kind") == "ObjectFreedError"
        if freed and not self._uncounted:
            raise self._history.violation(f"{said}\nIt was freed while somebody held it.", object_id)
        if self._certain(object_id):
            raise self._history.violation(f"{said}\nIt may be tried for ever, so nothing can make it fail.", object_id)
        if not self.violence and not self._may_fail(object_id):
            raise self._history.violation(f"{said}\nNothing has happened that it could fail of.", object_id)

    def _is_given_up(self, process: Process) -> bool:
        """Whether all that runs there runs for nobody any more: its owner has ended it, and its arguments may be gone."""
        if getattr(process, "becoming", b"") in self._ended_actors:
            return True  # killed in its __init__
        pushes = [current.push for current in getattr(process, "running", {}).values()]
        owned = [(push, self._owned[push.task]) for push in pushes]
        return bool(owned) and all(task.state != PUSHED or task.push.attempt != push.attempt for push, task in owned)

    def _certain(self, object_id: ObjectId) -> bool:
        expected = self._expected.get(object_id)
        if expected is None or expected.program is None or expected.cancelled or expected.actor:
            return False
        if object_id[:8] not in self.drivers:
            return False
        return expected.program.certain and all(self._certain(need) for need in expected.needs)

    def _may_fail(self, object_id: ObjectId) -> bool:
        expected = self._expected.get(object_id)
        if expected is None:
            return False
        parent = self._expected.get(first_return(expected.parent)) if expected.parent else None
        if parent is not None and parent.cancelled:
            return True
        own = expected.cancelled or (expected.program is not None and expected.program.failing)
        needs = expected.needs
        if expected.actor:
            actor, made_of = self._actors[expected.actor]
            own = own or expected.actor in self._ended_actors or actor.raises
            needs = needs + made_of
        return own or any(self._may_fail(need) for need in needs)

    def check_rest(self, leftovers: Sequence[str], waited_s: float) -> None:
        """Everything was dropped `waited_s` ago."""
        if leftovers:
            text = "\n    ".join(leftovers[:20])
            subject = _id_in(leftovers[0])
            raise self._history.violation(
                f"{waited_s:g} s after the last reference was dropped something is held:\n    {text}", subject
            )


def _id_in(line: str) -> bytes | None:
    """The first object or task id in a line of leftovers."""
    for word in line.split():
        try:
            found = bytes.fromhex(word)
        except ValueError:
            continue
        if len(found) >= 16:
            return task_of(found)
    return None
