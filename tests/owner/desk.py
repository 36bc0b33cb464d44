"""One owner on a desk: what it is told, and what it then orders. Ids are small numbers; `check()` runs after every event."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from nbray.ids import HEAD, Address, object_id
from nbray.machine import Effect, Send, Tick
from nbray.owner import records as r
from nbray.owner.state import OwnerState
from nbray.wire import messages as m

E = TypeVar("E", bound=Effect)
M = TypeVar("M", bound=m.Message)

NODE, OTHER_NODE, THIRD_NODE = b"node-one", b"node-two", b"node-3rd"
ME = Address(NODE, b"me-owner")
HEAD_ADDRESS = Address(NODE, HEAD)
BORROWER = Address(NODE, b"borrower")
STRANGER = Address(OTHER_NODE, b"stranger")
ONE_CPU = m.Shape({"CPU": 10_000})
RAISED = m.Failure("RayTaskError", "ValueError", "bad value", "nbray::f()\nValueError: bad value")


def daemon(node: bytes = NODE) -> Address:
    return Address(node, node)


def worker(number: int, node: bytes = NODE) -> Address:
    return Address(node, b"worker-" + bytes([48 + number]))


def inline(number: int = 1, contains: list[m.Held] | None = None) -> m.Value:
    return m.Value(msgspec.msgpack.encode(number), 0, contains=contains or [])


def stored(node: bytes = NODE, size: int = 1000, contains: list[m.Held] | None = None) -> m.Value:
    return m.Value(location=m.Location(node, size, b"writer-1"), contains=contains or [])


def failed(failure: m.Failure = RAISED) -> m.Value:
    return m.Value(failure=failure)


def death(at: Address, **more: Any) -> m.Death:
    return m.Death(at.process, at.node, 4000, **({"signal": 9} | more))


class Desk:
    """An owner that is attached to NODE, and its clock."""

    def __init__(self, *, attached: bool = True) -> None:
        self.state = OwnerState(ME)
        self.now = 100.0
        self.count = 0
        self.said: list[Effect] = []
        self.grants = 0
        if attached:
            self.tell(r.Attached(NODE, HEAD_ADDRESS))

    # -- machinery

    def tell(self, event: Any) -> list[Effect]:
        self.said = self.state.handle(event, self.now)
        self.state.check()
        return self.said

    def effects(self, kind: type[E]) -> list[E]:
        """Of the last event."""
        return [effect for effect in self.said if isinstance(effect, kind)]

    def sent(self, kind: type[M], to: Address | None = None) -> list[M]:
        """Messages of the last event."""
        sends = [effect for effect in self.said if isinstance(effect, Send) and isinstance(effect.message, kind)]
        return [send.message for send in sends if to is None or send.to == to]

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())

    # -- tasks

    def task(self, *, needs: list[bytes] | None = None, nested: list[m.Held] | None = None, **more: Any) -> r.OwnedTask:
        self.count += 1
        function = more.pop("function", 1)
        push = m.PushTask(
            ME.process + self.count.to_bytes(8, "big"), 0, bytes([function]) * 16, more.pop("returns", 1), b"args", 0, ME, ME,
            more.pop("cell", ""), "f", contains=nested or [],
        )  # fmt: skip
        held = [m.Held(each, self.state.objects.objects[each].owner) for each in needs or []]
        retries = more.pop("retries", 3)
        shape = more.pop("shape", ONE_CPU)
        return r.OwnedTask(push, retries, shape=shape, key=str(shape.amounts), needs=held or None, **more)

    def submit(self, **options: Any) -> r.OwnedTask:
        task = self.task(**options)
        self.tell(r.Submitted(task))
        return task

    def grant(self, number: int = 1, node: bytes = NODE) -> list[m.PushTask]:
        """Answer the oldest open request with worker `number`. Returns what was pushed."""
        request = min(request for pool in self.state.tasks.leases.pools.values() for request in pool.requests)
        self.grants += 1
        self.tell(m.LeaseGranted(request, self.grants, worker(number, node), 4000 + number))
        return self.sent(m.PushTask)

    def running(self, number: int = 1, **options: Any) -> r.OwnedTask:
        """A task that was pushed to worker `number`."""
        task = self.submit(**options)
        if task.state != r.PUSHED:
            self.grant(number)
        assert task.state == r.PUSHED
        return task

    def lease(self, task: r.OwnedTask) -> r.Lease:
        assert isinstance(task.lease, r.Lease)
        return task.lease

    def done(
        self,
        task: r.OwnedTask,
        *values: m.Value,
        at: Address | None = None,
        took_s: float = 0.01,
        attempt: int | None = None,
        **more: Any,
    ) -> list[Effect]:
        address = at or (task.lease.worker if task.lease is not None else worker(1))
        number = task.push.attempt if attempt is None else attempt
        report = m.TaskDone(task.id, number, address.process, list(values) or [inline()], 0, int(took_s * 1e9), **more)
        return self.tell(report)

    def lost(self, lease: r.Lease, **more: Any) -> list[Effect]:
        return self.tell(m.LeaseLost(lease.id, lease.worker, death(lease.worker, **more)))

    # -- objects

    def object(self, task: r.OwnedTask, index: int = 0) -> r.OwnedObject:
        return self.state.objects.objects[object_id(task.id, index)]

    def value(self, task: r.OwnedTask, index: int = 0) -> m.Value:
        value = self.object(task, index).value
        assert value is not None
        return value

    def failure(self, task: r.OwnedTask) -> m.Failure:
        failure = self.value(task).failure
        assert failure is not None, self.value(task)
        return failure

    def gone(self, object_id: bytes) -> bool:
        return object_id not in self.state.objects.objects

    def ref(self, task: r.OwnedTask, index: int = 0) -> bytes:
        return object_id(task.id, index)

    def put(self, value: m.Value | None = None) -> bytes:
        self.count += 1
        new = object_id(ME.process + self.count.to_bytes(8, "big"))
        self.tell(r.WasPut(new, value or inline()))
        return new

    def drop(self, *objects: bytes) -> list[Effect]:
        return self.tell(r.Dropped(list(objects)))

    def want(self, *objects: bytes, local: bool = True) -> bool:
        """Whether all of them are ready at once."""
        self.tell(r.Wanted(list(objects), local))
        return {effect.object for effect in self.effects(r.Ready)} == set(objects)

    # -- actors

    def actor(self, *, needs: list[bytes] | None = None, max_restarts: int = 0) -> bytes:
        """Create an actor; returns its id."""
        task = self._creation(needs)
        shape = m.Shape({})
        spec = m.ActorSpec(
            task.id, ME, ME, "Counter", b"c" * 16, b"code", 0, b"args", 0, [], [], shape, {}, max_restarts=max_restarts
        )  # fmt: skip
        self.tell(r.ActorCreated(task, m.RegisterActor(spec, 0)))
        return task.id

    def _creation(self, needs: list[bytes] | None) -> r.OwnedTask:
        self.count += 1
        push = m.PushTask(ME.process + self.count.to_bytes(8, "big"), 0, b"c" * 16, 1, b"args", 0, ME, ME, name="Counter.__init__")
        held = [m.Held(each, self.state.objects.objects[each].owner) for each in needs or []]
        return r.OwnedTask(push, 0, needs=held or None)

    def call(self, actor: bytes, *, needs: list[bytes] | None = None, retries: int = 0, **more: Any) -> r.OwnedTask:
        self.count += 1
        unordered, alive = more.pop("unordered", False), more.pop("alive", b"")
        push = m.PushCall(
            ME.process + self.count.to_bytes(8, "big"), 0, actor, 0, 0, "bump", 1, b"", 0, ME, ME, name="Counter.bump",
            group=more.pop("group", ""),
        )  # fmt: skip
        held = [m.Held(each, self.state.objects.objects[each].owner) for each in needs or []]
        task = r.OwnedTask(push, retries, needs=held or None, **more)
        self.tell(r.Called(task, actor, "Counter", unordered, alive))
        return task

    def update(self, actor: bytes, state: str, epoch: int = 0, number: int = 1, failure: m.Failure | None = None) -> list[Effect]:
        address = worker(number) if state == "ALIVE" else None
        return self.tell(m.ActorUpdate(actor, state, epoch, address, failure=failure))

    def live_actor(self, number: int = 1, **options: Any) -> bytes:
        actor = self.actor(**options)
        self.update(actor, "ALIVE", 0, number)
        return actor
