"""A simulated worker: a process whose user code are programs that were pushed to it. The shell of worker/state.py, as
worker/executor.py is in reality."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import msgspec

from nbray.ids import Address, ObjectId, ProcessId, TaskId, object_id
from nbray.machine import Effect, Send
from nbray.owner import records as r
from nbray.testing.process import Failed, Process, Ref
from nbray.testing.programs import ActorProgram, Program, decode_actor, decode_program
from nbray.testing.threads import Gate, Thread
from nbray.wire import messages as m
from nbray.worker import state as w

if TYPE_CHECKING:
    from nbray.testing.host import Host
    from nbray.testing.simulator import Simulation

#: As in worker/executor.py.
HOLD_S, HOLD_MOST = 0.001, 32
_Push = m.PushTask | m.PushCall


class Raised(Exception):
    """What a program raises that is told to raise."""


class Interrupted(Exception):
    """KeyboardInterrupt, in a cancelled task."""


class ProcessEnds(Exception):
    """The program took its process with it."""


class Running(msgspec.Struct):
    """A program on its way in this worker."""

    push: _Push
    thread: Thread | None = None
    cancelled: bool = False
    interruptible: bool = False
    passed: list[ObjectId] = []  #: references in its result, whose receiver has been counted


class Worker(Process):
    """Runs what it is sent."""

    def __init__(self, simulation: Simulation, host: Host, process: ProcessId, pid: int) -> None:
        super().__init__(simulation, host, process, f"worker {pid}")
        self.pid = pid
        self.work = w.WorkerState(self.me)
        self.running: dict[TaskId, Running] = {}
        self.actor: m.StartActor | None = None
        self.becoming = b""  #: the actor that this worker was told to be
        self.kept: list[Ref] = []  #: what the actor's calls kept of their arguments
        self._defined: set[bytes] = set()
        self._keeps = False
        self._gates: dict[TaskId, Gate] = {}  #: generators that wait for their consumers
        self._fetching: dict[TaskId, list[ObjectId]] = {}
        self._held: list[tuple[Address, m.TaskDone]] = []
        self.on_block = lambda: self.step_work(w.Blocked())
        self.on_unblock = lambda: self.step_work(w.Unblocked())
        self.state.calls.head = host.head.address
        self.state.tasks.leases.attached = True

    # ------------------------------------------------------------------------------------------ stepping

    def step_work(self, event: Any) -> None:
        if not self.alive:
            return
        self.simulation.history.add(self.name, event)
        effects = self.work.handle(event, self.clock.now)
        if self.simulation.checked:
            self.work.check()
        for effect in effects:
            self._work_ordered(effect)

    def die(self) -> None:
        for _, done in self._held:
            self.simulation.ledger.message_lost(done)
        super().die()

    def take_other(self, message: m.Message) -> None:
        if isinstance(message, m.DefineFunction):
            self._defined.add(message.function)
        elif isinstance(message, m.DefineJob):
            self.job = message.job
            self.state.tasks.leases.job = message.job.process
            self.state.objects.driver = message.job
            self.state.tasks.leases.introduction = message
        elif isinstance(message, m.StartActor):
            self.simulation.history.add(self.name, message)
            self.work.is_actor = True
            self.becoming = message.spec.actor
            self.spawn(self._become(message))
        elif self.work.takes(message):
            self.step_work(message)

    def _work_ordered(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.post(effect.to, effect.message)
        elif isinstance(effect, w.Run):
            self.simulation.ledger.starts(self, effect.push)
            running = self.running[effect.push.task] = Running(effect.push)
            running.thread = self.spawn(self._execute(running))
        elif isinstance(effect, w.GoOn):
            if (gate := self._gates.pop(effect.task, None)) is not None:
                gate.open()
        elif isinstance(effect, w.FetchArguments):
            self._fetch(effect.push)
        elif isinstance(effect, w.Interrupt):
            self._interrupt(effect)
        elif isinstance(effect, w.Refuse):
            self._refuse(effect)
        elif isinstance(effect, w.DropArguments):
            self.step(r.Dropped([d.object for d in effect.push.dependencies]))
        elif isinstance(effect, w.Exit):
            self.call_soon(lambda: self.host.worker_exits(self, 0))

    def _fetch(self, push: _Push) -> None:
        self.step(r.ValuesTold(push.dependencies))
        missing = [dependency.object for dependency in push.dependencies if dependency.value.location is not None]
        left = [len(missing)]
        self._fetching[push.task] = missing

        def arrived() -> None:
            left[0] -= 1
            if left[0] <= 0:
                self._fetching.pop(push.task, None)
                self.step_work(w.ArgumentsReady(push.task))

        for object_ in missing:
            self.when_ready(object_, arrived)
        if not missing:
            arrived()

    def copy_lost(self, object_: ObjectId) -> None:
        for task, missing in list(self._fetching.items()):
            if object_ in missing:
                self.step_work(w.ArgumentLost(task))

    def _interrupt(self, effect: w.Interrupt) -> None:
        current = self.running.get(effect.push.task)
        if current is None:
            return
        current.cancelled = True
        if effect.recursive:
            self.step(r.CellCancelled(parent=effect.push.task))
        if self.actor is None and current.interruptible and current.thread is not None:
            current.thread.interrupt(Interrupted())

    def _refuse(self, effect: w.Refuse) -> None:
        self.post(
            effect.push.owner, self._done(effect.push, [m.Value(failure=effect.failure)], self.clock.now, [], retriable=False)
        )

    def _done(self, push: _Push, values: list[m.Value], started: float, borrows: list[m.Held], *, retriable: bool) -> m.TaskDone:
        began, ended = round(started * 1e9), round(self.clock.now * 1e9)
        return m.TaskDone(push.task, push.attempt, self.me.process, values, began, ended, borrows, retriable)

    # ------------------------------------------------------------------------------------------ running

    def _execute(self, current: Running) -> Generator[Any, None, None]:
        push, started = current.push, self.clock.now
        execution = self.simulation.ledger.began(self, push)
        mine: list[Ref] = []
        try:
            values, retriable = yield from self._outcome(current, execution, mine)
        except ProcessEnds:
            return
        self.simulation.ledger.ran(self, push)
        self.drop(*mine)
        self.running.pop(push.task, None)
        borrows = self._still_held(push) if push.dependencies or push.contains else []
        if self.state.keeps() != self._keeps:
            self._say_keeps()  # before the result: the lease may be given back upon it
        done = self._done(push, values, started, borrows, retriable=retriable)
        self._held.append((push.owner, msgspec.structs.replace(done, spent=self.work.is_last(push))))
        before = len(self.running)
        self.step_work(w.Ran(push.task))
        if len(self.running) == before or len(self._held) >= HOLD_MOST:
            self._send_held()
        elif len(self._held) == 1:
            self.clock.call_later(HOLD_S, self._send_held)

    def _send_held(self) -> None:
        """Results of short tasks wait for each other, while more of the same follow."""
        held, self._held = self._held, []
        for owner, done in held:
            self.post(owner, done)
        if held:
            self.simulation.reported(self)

    def step(self, event: Any) -> None:
        super().step(event)
        if self._keeps and not self.state.keeps():
            self._say_keeps()

    def _say_keeps(self) -> None:
        self._keeps = not self._keeps
        self.post(self.host.address, m.WorkerKeeps(self.me.process, self._keeps))
        self.step_work(w.KeepsChanged(self._keeps))

    def _outcome(self, current: Running, execution: int, mine: list[Ref]) -> Generator[Any, None, tuple[list[m.Value], bool]]:
        push, program = current.push, decode_program(current.push.args)
        try:
            if isinstance(push, m.PushTask):
                assert push.function in self._defined, "a task came before the definition of its function"
            if push.stream is None:
                number, back = yield from self._run(current, program, execution, mine)
            else:
                number, back = yield from self._yield_items(current, program, execution, mine)
            current.interruptible = False
            contains = [ref.held for ref in back]
            value = yield from self.sealed(object_id(push.task), push.owner, number, program.stored_bytes, contains)
            if contains:
                current.passed = [held.object for held in contains]
                self.step(r.Passed(contains, push.owner))
        except Interrupted:
            current.interruptible = False
            return [m.Value(failure=m.Failure("TaskCancelledError", message="cancelled while it ran"))], False
        except (Raised, Failed) as error:
            current.interruptible = False
            inner = error.failure.kind if isinstance(error, Failed) else ""
            failure = m.Failure("RayTaskError", type(error).__name__, str(error), fields={"cause_kind": inner} if inner else {})
            return [m.Value(failure=failure)], True
        return [value], False

    def _run(
        self, current: Running, program: Program, execution: int, mine: list[Ref]
    ) -> Generator[Any, None, tuple[int, list[Ref]]]:
        """The program itself. References that it makes go to `mine`; returns its number and the references in its result."""
        push, number = current.push, program.number
        nested = [self.receive(held) for held in push.contains]
        mine += nested
        for dependency in push.dependencies:
            ref = self.receive(m.Held(dependency.object, dependency.owner))
            mine.append(ref)
            fetched = yield from self.get([ref])
            number += fetched[0].number
            mine += fetched[0].refs
        current.interruptible = True
        if execution <= program.crashes:
            yield program.duration_s * self.chance.random()
            self.host.worker_exits(self, None)
            raise ProcessEnds
        children = [self.submit(child, parent=push.task) for child in program.children]
        mine += children
        yield from self._work(program)
        if program.gets and children:
            for each in (yield from self.get(children)):
                number += each.number
                mine += each.refs
        if program.nested == "read":
            for each in (yield from self.get(nested)):
                number += each.number
                mine += each.refs
        if execution <= program.raises:
            raise Raised(f"execution {execution}")
        if program.exits and self.actor is not None:
            self.post(self.host.address, m.ActorExiting(self.actor.spec.actor, self.actor.epoch, "exit_actor"))
            self.call_soon(lambda: self.host.worker_exits(self, 0))
            raise ProcessEnds
        if program.nested == "keep":
            for ref in nested:
                mine.remove(ref)
            self.kept += nested
        return number, [*([] if program.gets else children), *(nested if program.nested == "return" else [])]

    def _yield_items(
        self, current: Running, program: Program, execution: int, mine: list[Ref]
    ) -> Generator[Any, None, tuple[int, list[Ref]]]:
        """A generator: what ends it early ends it after half of its items."""
        push, terms = current.push, current.push.stream
        assert terms is not None
        calm = msgspec.structs.replace(program, crashes=0, raises=0, duration_s=0.0)
        number, back = yield from self._run(current, calm, execution, mine)
        bounded = self.work.flow.counts(push.task)
        for index in range(program.yields):
            current.interruptible = True
            if current.cancelled:
                raise Interrupted
            if bounded:
                yield from self._wait_for_consumer(push.task, index)
            if index == program.yields // 2 and execution <= program.crashes:
                self.host.worker_exits(self, None)
                raise ProcessEnds
            if index == program.yields // 2 and execution <= program.raises:
                raise Raised(f"execution {execution}")
            yield from self._work(program)
            current.interruptible = False
            if index >= terms.have:
                contains = [back[index % len(back)].held] if back else []
                each = object_id(push.task, 1 + index)
                value = yield from self.sealed(each, push.owner, number + 1 + index, program.stored_bytes, contains)
                self.step(r.Passed(contains, push.owner))
                self.post(push.owner, m.ItemYielded(push.task, push.attempt, index, value, bounded))
        return number, []

    def _wait_for_consumer(self, task: TaskId, made: int) -> Generator[Any, None, None]:
        gate = self._gates[task] = Gate()
        self.step_work(w.WouldGoOn(task, made))
        self.on_block()
        try:
            yield gate
        finally:
            self.on_unblock()

    def _work(self, program: Program) -> Generator[Any, None, None]:
        until = self.clock.now + program.duration_s
        while self.clock.now < until:
            try:
                yield until - self.clock.now
            except Interrupted:
                if not program.stubborn:
                    raise

    def _still_held(self, push: _Push) -> list[m.Held]:
        """As in worker/executor.py: references from the arguments that outlive the task here."""
        candidates = {held.object: held for held in push.contains}
        for dependency in push.dependencies:
            candidates.update({held.object: held for held in dependency.value.contains})
        self.step(r.Dropped([d.object for d in push.dependencies]))
        held = [h for o, h in candidates.items() if o in self.state.objects.objects and h.owner.process != self.me.process]
        if held:
            self.step(r.Reported([h.object for h in held]))
        return held

    # ------------------------------------------------------------------------------------------ actors

    def _become(self, message: m.StartActor) -> Generator[Any, None, None]:
        spec, program = message.spec, decode_actor(message.spec.args)
        self.job = self.state.objects.driver = spec.job
        try:
            self.step(r.ValuesTold(spec.dependencies))
            for dependency in spec.dependencies:
                ref = self.receive(m.Held(dependency.object, dependency.owner))
                yield from self.get([ref])
                self.drop(ref)
            yield program.init_s
            if program.raises:
                raise Raised("__init__")
        except (Raised, Failed) as error:
            failure = m.Failure("RayTaskError", type(error).__name__, str(error))
            self.post(self.host.address, m.ActorFailed(spec.actor, message.epoch, failure))
            self.call_soon(lambda: self.host.worker_exits(self, 0))
            return
        self.actor = message
        self.post(self.host.address, m.ActorStarted(spec.actor, message.epoch, self.me, self.pid))
        self.step_work(w.BecameActor(spec.actor, message.epoch, program.max_concurrency, spec.groups, spec.unordered))


__all__ = ["ActorProgram", "Interrupted", "ProcessEnds", "Raised", "Worker"]
