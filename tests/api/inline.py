"""An engine of one process: tasks run where they are submitted, after a full round trip through pickle.

It implements engines/port.py as far as the API needs it, so that what the API promises can be tested without a cluster.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cloudpickle

from nbray import session
from nbray.engines.port import ActorOptions, ActorToken, CallOptions, FunctionSpec, RuntimeFacts, TaskOptions
from nbray.exceptions import GetTimeoutError
from nbray.ids import Address, TaskIds, object_id
from nbray.refs import ObjectRef
from nbray.wire.failures import error_of, failure_of
from nbray.wire.messages import Failure

ME = Address(b"node0000", b"driver00")


class InlineEngine:
    is_driver = True

    def __init__(self) -> None:
        self.values: dict[bytes, Any] = {}
        self.submitted: list[tuple[FunctionSpec, TaskOptions]] = []
        self.created: list[tuple[FunctionSpec, ActorOptions]] = []
        self.called: list[tuple[str, CallOptions]] = []
        self.killed: list[tuple[bytes, bool]] = []
        self.cancelled: list[tuple[bytes, bool, bool]] = []
        self.instances: dict[bytes, Any] = {}
        self.names: dict[tuple[str, str | None], ActorToken] = {}
        self.self_token: ActorToken | None = None
        self.streams: dict[bytes, list[ObjectRef[Any]]] = {}
        self.closed = False
        self._ids = TaskIds(ME.process)

    def awaited_in_vain(self, what: Any) -> None:
        """No cell is sent to the background here."""

    def submit(
        self, function: FunctionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: TaskOptions
    ) -> list[ObjectRef[Any]]:
        self.submitted.append((function, options))
        load = lambda: pickle.loads(function.payload)
        if options.stream is not None:
            load = lambda: lambda *args: list(pickle.loads(function.payload)(*args))
        refs = self._run(function.name, load, args, kwargs, options.returns)
        if options.stream is not None:
            self.streams[refs[0].binary()] = [self.put(item) for item in self.values[refs[0].binary()]]
        return refs

    def create_actor(self, cls: FunctionSpec, methods: bytes, args: Any, kwargs: Any, options: ActorOptions) -> ActorToken:
        known = self.names.get((options.name, options.namespace))
        if options.name and known is not None:
            if options.get_if_exists:
                return known
            raise ValueError(f"The name {options.name} is already taken. Please use a different name")
        self.created.append((cls, options))
        task = self._ids.next()
        args, kwargs = pickle.loads(cloudpickle.dumps((args, kwargs)))
        self.instances[task] = pickle.loads(cls.payload)(*args, **kwargs)
        token = ActorToken(task, cls.name, methods, options.max_task_retries, ObjectRef(object_id(task), ME, self))
        self.names[options.name, options.namespace] = ActorToken(task, cls.name, methods, options.max_task_retries, None)
        return token

    def call_actor(self, actor: ActorToken, method: str, args: Any, kwargs: Any, options: CallOptions) -> list[ObjectRef[Any]]:
        self.called.append((method, options))
        instance = self.instances[actor.actor]
        built_in = {"__ray_ready__": lambda: True, "__ray_call__": lambda function, *rest: function(instance, *rest)}
        load = lambda: built_in.get(method) or getattr(instance, method)
        return self._run(f"{actor.class_name}.{method}", load, args, kwargs, options.returns)

    def _run(self, name: str, load: Any, args: Any, kwargs: Any, returns: int) -> list[ObjectRef[Any]]:
        task = self._ids.next()
        args, kwargs = pickle.loads(cloudpickle.dumps((args, kwargs)))
        args = [self.values[a.binary()] if isinstance(a, ObjectRef) else a for a in args]
        try:
            result = load()(*args, **kwargs)
            values = [result] if returns == 1 else list(result or ())
        except BaseException as error:
            values = [failure_of(error, name=name, pid=1, node=ME.node, task=task, attempt=0)] * returns
        for index, value in enumerate(values):
            self.values[object_id(task, index)] = value
        return [ObjectRef(object_id(task, i), ME, self) for i in range(returns)]

    def pending_calls(self, actor: ActorToken, limit: int) -> None:
        raise AssertionError("inline calls are never pending")

    def find_actor(self, name: str, namespace: str | None) -> ActorToken:
        try:
            return self.names[name, namespace]
        except KeyError:
            raise ValueError(f"Failed to look up actor with name '{name}'") from None

    def self_actor(self) -> ActorToken | None:
        return self.self_token

    def kill_actor(self, actor: ActorToken, no_restart: bool) -> None:
        self.killed.append((actor.actor, no_restart))

    def put(self, value: Any) -> ObjectRef[Any]:
        new = object_id(self._ids.next())
        self.values[new] = pickle.loads(cloudpickle.dumps(value))
        return ObjectRef(new, ME, self)

    def pending(self) -> ObjectRef[Any]:
        """A reference that never gets a value."""
        return ObjectRef(object_id(self._ids.next()), ME, self)

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        found = []
        for ref in refs:
            if ref.binary() not in self.values:
                raise GetTimeoutError("Get timed out")
            value = self.values[ref.binary()]
            if isinstance(value, Failure):
                raise error_of(value)
            found.append(value)
        return found

    def wait(self, refs: Sequence[ObjectRef[Any]], count: int, timeout: float | None, fetch_local: bool) -> Any:
        ready = [ref for ref in refs if ref.binary() in self.values][:count]
        return ready, [ref for ref in refs if ref not in ready]

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        self.cancelled.append((ref.binary(), force, recursive))

    def take_item(self, end: ObjectRef[Any]) -> ObjectRef[Any] | None:
        items = self.streams[end.binary()]
        return items.pop(0) if items else None

    def peek_item(self, end: ObjectRef[Any]) -> ObjectRef[Any] | None:
        items = self.streams[end.binary()]
        return items[0] if items else None

    def drop_stream(self, _end: ObjectRef[Any]) -> None:
        pass

    lost = ""

    def nodes(self, patience_s: float | None = None) -> list[dict[str, Any]]:
        alive = {
            "NodeID": "aa",
            "Alive": True,
            "NodeManagerHostname": "here",
            "Resources": {"CPU": 2.0},
            "Available": {"CPU": 0.0, "b": 1.0},
        }
        return [alive, {"NodeID": "bb", "Alive": False, "NodeManagerHostname": "gone", "Resources": {"CPU": 8.0}}]

    def facts(self) -> RuntimeFacts:
        return RuntimeFacts(ME.process, ME.node, ME.process, "space", "session")

    def description(self) -> dict[str, Any]:
        return {"address": "<script>", "version": "0.1.0", "embedded": True, "cpus_from": "the affinity mask"}

    def ask(self, what: str, **_arguments: Any) -> Any:
        states = {"actors": [{"actor_id": "11", "state": "ALIVE"}, {"actor_id": "22", "state": "DEAD"}], "jobs": []}
        return states[what]

    def shutdown(self) -> None:
        self.closed = True

    def forget(self, _id: bytes) -> None:
        return None

    def lend(self, ref: ObjectRef[Any]) -> Address:
        return ref.owner_address()

    def receive(self, id_: bytes, owner: Address) -> ObjectRef[Any]:
        return ObjectRef(id_, owner, self)


@contextmanager
def engine_in_use() -> Iterator[InlineEngine]:
    engine = InlineEngine()
    before = session.engine
    session.set_current(engine)  # type: ignore[arg-type]
    try:
        yield engine
    finally:
        session.set_current(before)
