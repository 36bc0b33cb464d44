"""A simulated process that runs user code: an owner, its threads, what they wait for, and its view of its node's store.

`Process` does for OwnerState what owner/runtime.py and engines/native.py do in reality, step by step: it drains dropped
references before each event, sends what the machine orders, and wakes the threads that wait for objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import msgspec

from nbray.ids import Address, ObjectId, ProcessId, TaskId, TaskIds, object_id
from nbray.machine import Effect, Send, Tick
from nbray.owner import records as r
from nbray.owner.state import OwnerState
from nbray.store.carver import Carver
from nbray.testing.clock import Alarm, Timer
from nbray.testing.programs import ActorProgram, Program, encode, number_in, payload_of
from nbray.testing.threads import Gate, Thread, Threading
from nbray.wire import messages as m
from nbray.wire.values import checksum

if TYPE_CHECKING:
    from nbray.testing.host import Host
    from nbray.testing.simulator import Simulation

#: Dropped references are collected this long, as in owner/runtime.py.
TIDY_S = 0.05
#: Lent for small objects: little, so that processes come back for more.
LOAN_BYTES = 4096


class Ref(msgspec.Struct, frozen=True):
    """A reference held by one process, which gives it back with `drop`."""

    id: ObjectId
    owner: Address

    @property
    def held(self) -> m.Held:
        return m.Held(self.id, self.owner)


class Fetched(msgspec.Struct):
    """What `get` gave: the number, and the references that were inside the value."""

    number: int
    refs: list[Ref]


class Failed(Exception):
    """What `get` raised."""

    def __init__(self, object_id: ObjectId, failure: m.Failure) -> None:
        self.object_id, self.failure = object_id, failure
        super().__init__(object_id.hex(), failure.kind, failure.message)


class TimedOut(Exception):
    """`get` gave up waiting."""


class Process(Threading):
    """One process with an owner. Methods that are generators may have to wait: `x = yield from process.get(refs)`."""

    def __init__(self, simulation: Simulation, host: Host, process: ProcessId, name: str) -> None:
        super().__init__(simulation.clock, simulation.chance)
        self.simulation = simulation
        self.name = name
        self.me = Address(host.id, process)
        self.host = host
        self.state = OwnerState(self.me)
        self.job = self.me
        self.on_block: Callable[[], None] = lambda: None
        self.on_unblock: Callable[[], None] = lambda: None
        self._ids = TaskIds(process)
        self._alarm = Alarm(self.clock, self.state, lambda: self.step(Tick()))
        self._references: Counter[ObjectId] = Counter()  #: of this process, and not dropped
        self._dropped: list[ObjectId] = []
        self._released: list[ObjectId] = []
        self._tidy: Timer | None = None
        self._callbacks: dict[ObjectId, list[Callable[[], None]]] = {}
        self._carver = Carver(LOAN_BYTES)
        self._loans: dict[int, tuple[Gate, list[Any]]] = {}
        self._requests = 0
        self.next_item: r.NextItem | None = None  #: the latest answer to ItemAsked
        self._streams: set[TaskId] = set()

    # ------------------------------------------------------------------------------------------ stepping

    def step(self, event: Any) -> None:
        """One fact for the owner, and what it orders. A dead process takes none."""
        if not self.alive:
            return
        if self._released:
            released, self._released = self._released, []
            self._handle(r.ViewsReleased(released))
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            self._handle(r.Dropped(dropped))
        self._handle(event)
        self._alarm.set()

    def _handle(self, event: Any) -> None:
        self.simulation.history.add(self.name, event)
        effects = self.state.handle(event, self.clock.now)
        if self.simulation.checked:
            self.state.check()
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.post(effect.to, effect.message)
        elif isinstance(effect, r.Ready):
            for callback in self._callbacks.pop(effect.object, []):
                callback()
        elif isinstance(effect, r.NextItem):
            self.next_item = effect
        elif isinstance(effect, r.CopyLost):
            self.call_soon(lambda: self.copy_lost(effect.object))
        elif isinstance(effect, r.Finished):
            self.simulation.ledger.finished(effect)
        elif isinstance(effect, r.JudgeException):
            # Another thread may come between the report and the verdict.
            verdict = r.RetryDecided(effect.task.id, effect.task.push.attempt, True, effect.values)
            self.clock.call_later(self.chance.uniform(0, 0.001), lambda: self.step(verdict))

    def post(self, to: Address, message: m.Message) -> None:
        if self.alive:
            self.simulation.network.send(self.me, to, message)

    def take(self, message: m.Message) -> None:
        """A message has come to this process's mailbox."""
        if not self.alive:
            return
        if isinstance(message, m.RegionLoaned | m.StoreFull):
            self._loan_answered(message)
        elif self.state.takes(message):
            self.step(message)
        else:
            self.take_other(message)

    def take_other(self, message: m.Message) -> None:
        """Messages that are not the owner's: a driver has no use for them."""
        self.simulation.history.add(self.name, message)

    def copy_lost(self, object_: ObjectId) -> None:
        """A worker's task may be waiting for it; a driver's threads only wait longer."""

    def die(self) -> None:
        self.stop_threads()
        self._alarm.stop()

    # ------------------------------------------------------------------------------------------ work

    def submit(
        self, program: Program, needs: list[Ref] | None = None, nested: list[Ref] | None = None, *, parent: TaskId = b""
    ) -> Ref:
        """Submit one task. `needs` are arguments at top level, `nested` references deeper inside."""
        needs, nested = _distinct(needs), _distinct(nested)
        task = self._owned(program, needs, nested, parent)
        self.simulation.ledger.submitted(self, task, program, needs, nested)
        self.step(r.Submitted(task))
        return self._new(object_id(task.id))

    def _owned(self, program: Program, needs: list[Ref], nested: list[Ref], parent: TaskId) -> r.OwnedTask:
        function = program.function.to_bytes(16, "big")
        definitions = self.state.tasks.leases.definitions
        if function not in definitions:
            definitions[function] = m.DefineFunction(function, f"f{program.function}", b"code", 0)
        args = encode(program)
        push = m.PushTask(
            self._ids.next(), 0, function, 1, args, checksum(args), self.me, self.job, name=f"f{program.function}",
            contains=[ref.held for ref in nested], retry_exceptions=program.retry_exceptions, max_calls=program.max_calls,
            stream=_streaming(program),
        )  # fmt: skip
        task = r.OwnedTask(push, program.retries, shape=program.shape, key=program.key, needs=[ref.held for ref in needs] or None)
        task.parent = parent
        task.retry_exceptions = program.retries if program.retry_exceptions else 0
        return task

    def create_actor(self, program: ActorProgram, needs: list[Ref] | None = None) -> Ref:
        """Create an actor. The reference stands for its handles: when it is dropped, the actor ends."""
        needs = _distinct(needs)
        actor, args = self._ids.next(), encode(program)
        running = {"CPU": round(program.cpus * 10_000)} if program.cpus else {}
        spec = m.ActorSpec(
            actor, self.me, self.job, "Actor", b"c" * 16, b"class", 0, args, checksum(args), [], [], m.Shape(running), running,
            program.max_restarts, program.max_task_retries, program.max_concurrency, groups=program.groups, name=program.name,
            unordered=program.unordered,
        )  # fmt: skip
        push = m.PushTask(actor, 0, b"c" * 16, 1, args, checksum(args), self.me, self.job, name="Actor.__init__")
        task = r.OwnedTask(push, 0, needs=[ref.held for ref in needs] or None)
        self.simulation.ledger.created(actor, program, needs)
        self.step(r.ActorCreated(task, m.RegisterActor(spec, 0)))
        return self._new(object_id(actor))

    def call(self, actor: Ref, program: Program, needs: list[Ref] | None = None, nested: list[Ref] | None = None) -> Ref:
        """Call an actor. `program.retries` are the call's max_task_retries."""
        needs, nested = _distinct(needs), _distinct(nested)
        args, target = encode(program), actor.id[:16]
        push = m.PushCall(
            self._ids.next(), 0, target, 0, 0, "method", 1, args, checksum(args), self.me, self.job, name="Actor.method",
            contains=[ref.held for ref in nested], group=program.group, stream=_streaming(program),
        )  # fmt: skip
        task = r.OwnedTask(push, program.retries, needs=[ref.held for ref in needs] or None)
        task.retry_exceptions = program.retries if program.retry_exceptions else 0
        self.simulation.ledger.called(self, task, target, program, needs, nested)
        self.step(r.Called(task, target, "Actor", self.simulation.ledger.actor_program(target).unordered, actor.id))
        return self._new(object_id(task.id))

    def kill_actor(self, actor: Ref, *, no_restart: bool = True) -> None:
        self.simulation.ledger.killed_actor(actor.id[:16])
        self.step(r.ActorKilled(actor.id[:16], "Actor", no_restart))

    def cancel(self, ref: Ref, *, force: bool = False, recursive: bool = True) -> None:
        self.simulation.ledger.cancelled(ref.id, force=force)
        self.step(r.CancelAsked(ref.id, force, recursive))

    # ------------------------------------------------------------------------------------------ references

    def receive(self, held: m.Held) -> Ref:
        """A reference was unpickled here."""
        self.step(r.Received(held.object, held.owner))
        self._references[held.object] += 1
        return Ref(held.object, held.owner)

    def _new(self, object_id: ObjectId) -> Ref:
        self._references[object_id] += 1
        return Ref(object_id, self.me)

    def drop(self, *refs: Ref) -> None:
        """The references were collected: noticed before the next event, or when nothing else happens for a while."""
        for ref in refs:
            self._references[ref.id] -= 1
            assert self._references[ref.id] >= 0, f"{self.name} drops a reference that it does not hold"
            self._dropped.append(ref.id)
        self._tidy_soon()

    def drop_all(self) -> None:
        """The script is over: its variables are gone."""
        for task in sorted(self._streams):
            self.drop_stream(task)
        self._dropped += self._references.elements()
        self._references.clear()
        self._tidy_soon()

    # ------------------------------------------------------------------------------------------ generators

    def take_item(self, end: Ref) -> Generator[Any, None, Ref | None]:
        """The next item of the generator task whose end is `end`; None when there is none any more."""
        task = end.id[:16]
        self._streams.add(task)
        while True:
            self.step(r.ItemAsked(task))
            assert self.next_item is not None
            each, state = self.next_item.object, self.next_item.state
            if state == "TAKEN":
                return self._new(each)
            if state == "OVER":
                return None
            yield from self.wait_for([each], 1, local=False)

    def drop_stream(self, task: TaskId) -> None:
        """The generator was collected."""
        self._streams.discard(task)
        self.step(r.StreamDropped(task))

    def _release(self, object_id: ObjectId) -> None:
        self._released.append(object_id)
        self._tidy_soon()

    def _tidy_soon(self) -> None:
        if self._tidy is None or self._tidy.action is None:
            self._tidy = self.clock.call_later(TIDY_S, lambda: self.step(r.Dropped([])))

    # ------------------------------------------------------------------------------------------ values

    def put(self, number: int, size: int = 0, nested: list[Ref] | None = None) -> Generator[Any, None, Ref]:
        yield from self.wait_attached()
        new = object_id(self._ids.next())
        contains = [ref.held for ref in _distinct(nested)]
        value = yield from self.sealed(new, self.me, number, size, contains)
        self.simulation.ledger.was_put(new, number)
        self.step(r.WasPut(new, value))
        return self._new(new)

    def sealed(
        self, new: ObjectId, owner: Address, number: int, size: int, contains: list[m.Held]
    ) -> Generator[Any, None, m.Value]:
        """The Value of a number, in the store if `size` is not 0. Raises Failed when there is no room."""
        if not size:
            payload = encode(number)
            return m.Value(payload, checksum(payload), contains=tuple(contains))
        host = self.host
        offset = yield from self._room(new, size)
        host.arena[offset : offset + size] = payload_of(number, size)
        self.post(host.address, m.SealObject(new, owner, self.me.process, offset, size))
        for region in self._carver.returnable():
            self.post(host.address, m.ReturnRegion(self.me.process, *region))
        return m.Value(location=m.Location(host.id, size, self.me.process), contains=tuple(contains))

    def _room(self, new: ObjectId, size: int) -> Generator[Any, None, int]:
        while (offset := self._carver.carve(size)) is None:
            self._requests += 1
            gate, answer = Gate(), list[Any]()
            self._loans[self._requests] = gate, answer
            self.post(self.host.address, m.LoanRegion(self._requests, self.me.process, self._carver.loan_for(size)))
            request = self._requests
            try:
                yield gate
            finally:
                del self._loans[request]
            if not answer or isinstance(answer[0], m.StoreFull):
                raise Failed(new, m.Failure("ObjectStoreFullError", message=answer[0].reason if answer else "the node is gone"))
            self._carver.add_loan(answer[0].offset, answer[0].size)
        return offset

    def _loan_answered(self, message: m.RegionLoaned | m.StoreFull) -> None:
        waiting = self._loans.get(message.request)
        if waiting is not None:
            waiting[1].append(message)
            waiting[0].open()
        elif isinstance(message, m.RegionLoaned):
            self.post(self.host.address, m.ReturnRegion(self.me.process, message.offset, message.size))

    def get(self, refs: list[Ref], timeout_s: float | None = None) -> Generator[Any, None, list[Fetched]]:
        """The values, in order. Raises Failed for the first that has none, TimedOut."""
        wanted = list(dict.fromkeys(ref.id for ref in refs))
        got: dict[ObjectId, Fetched] = {}
        until = None if timeout_s is None else self.clock.now + timeout_s
        while len(got) < len(wanted):
            missing = [each for each in wanted if each not in got]
            left = None if until is None else until - self.clock.now
            if not (yield from self.wait_for(missing, len(missing), left, eager=True)):
                raise TimedOut
            for each in missing:
                value = self.state.objects.objects[each].value
                if value is not None and value.failure is not None:
                    self.simulation.ledger.ended(self, each, value.failure)
                    raise Failed(each, value.failure)
            for each in missing:
                found = self._load(each)
                if found is not None:
                    got[each] = found
        return [got[ref.id] for ref in refs]

    def wait_for(
        self, object_ids: list[ObjectId], count: int, timeout_s: float | None = None, *, local: bool = True, eager: bool = False
    ) -> Generator[Any, None, bool]:
        """Wait until `count` are ready (`eager`: or one has failed). False after the timeout."""
        missing = [each for each in object_ids if not self.is_ready(each, local)]
        count -= len(object_ids) - len(missing)
        if count <= 0 or (eager and any(self._has_failed(each) for each in object_ids)):
            return True
        gate, done = Gate(), [0]

        def ready(each: ObjectId) -> None:
            done[0] += 1
            if done[0] >= count or (eager and self._has_failed(each)):
                gate.open()

        for each in missing:
            self._callbacks.setdefault(each, []).append(lambda each=each: ready(each))  # type: ignore[misc]
        timer = None if timeout_s is None else self.clock.call_later(max(0.0, timeout_s), gate.open)
        self.step(r.Wanted(missing, local))
        self.on_block()
        try:
            yield gate
        finally:
            self.on_unblock()
            if timer is not None:
                timer.cancel()
        return done[0] >= count or (eager and any(self._has_failed(each) for each in object_ids))

    def waited_for(self) -> list[ObjectId]:
        """The objects that threads of this process wait for."""
        return list(self._callbacks)

    def is_ready(self, object_id: ObjectId, local: bool) -> bool:
        obj = self.state.objects.objects.get(object_id)
        if obj is None or obj.value is None:
            return False
        return obj.value.location is None or not local or obj.pinned is not None

    def _has_failed(self, object_id: ObjectId) -> bool:
        obj = self.state.objects.objects.get(object_id)
        return obj is not None and obj.value is not None and obj.value.failure is not None

    def when_ready(self, object_id: ObjectId, callback: Callable[[], None]) -> None:
        def later() -> None:
            self.call_soon(callback)  # another thread runs it, as in owner/runtime.py

        if self.is_ready(object_id, local=True):
            later()
            return
        self._callbacks.setdefault(object_id, []).append(later)
        self.step(r.Wanted([object_id]))

    def _load(self, object_id: ObjectId) -> Fetched | None:
        """What is in a ready object; None if it is no longer ready. A view over stored bytes lives on for a while."""
        obj = self.state.objects.objects[object_id]
        obj.seen = True
        value = obj.value
        if value is None or (value.location is not None and obj.pinned is None):
            return None
        if obj.pinned is None:
            assert value.inline is not None
            number: int | None = msgspec.msgpack.decode(value.inline, type=int)
        else:
            number = self._view(obj)
        self.simulation.ledger.read(self, object_id, number)
        assert number is not None
        return Fetched(number, [self.receive(held) for held in value.contains])

    def _view(self, obj: r.OwnedObject) -> int | None:
        assert obj.pinned is not None
        offset, size = obj.pinned
        obj.views += 1
        arena, object_id = self.host.arena, obj.id
        before = bytes(arena[offset : offset + size])

        def end() -> None:
            if self.alive:
                self.simulation.ledger.viewed(self, object_id, before == bytes(arena[offset : offset + size]))
                self._release(object_id)

        self.clock.call_later(self.chance.choice([0.0, 0.001, 0.2]), end)
        return number_in(before)

    # ------------------------------------------------------------------------------------------ its node

    def wait_attached(self) -> Generator[Any, None, None]:
        """Calls of the API wait here while another cluster is started."""
        while not self.host.alive:
            yield 0.05

    def node_lost(self) -> None:
        """The lifeline ended: the node daemon is gone."""
        for gate, _ in list(self._loans.values()):
            gate.open()
        self._carver = Carver(LOAN_BYTES)
        self.step(r.NodeLost(self.me.node, m.Failure("NodeDiedError", message="the daemon of this node ended")))

    def attach(self, host: Host) -> None:
        """The daemon of `host` has let us in."""
        self.host = host
        self.me = Address(host.id, self.me.process)
        self.simulation.network.bind(self.me, self.take)
        self.step(r.Attached(host.id, host.head.address))

    def spawn(self, code: Generator[Any, None, None], ended: Callable[[], None] | None = None) -> Thread:
        return self.start_thread(code, ended)


def _streaming(program: Program) -> m.Streaming | None:
    return m.Streaming(window=program.window) if program.yields else None


def _distinct(refs: list[Ref] | None) -> list[Ref]:
    """An argument that is given twice is one dependency, as a pickle has it."""
    return list({ref.id: ref for ref in refs or []}.values())
