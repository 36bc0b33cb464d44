"""The native engine: the port's face of this process's owner. Used alike in drivers and in workers.

What only a driver does (starting, attaching, restarting a cluster; showing output) is in `driver/attachment.py` and
`driver/showing.py`; what only a worker does is in `worker/`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from nbray import trace
from nbray.config import INLINE_LIMIT
from nbray.describing import describe
from nbray.engines import callsite, nodes_view
from nbray.engines.asking import Ask, Asking
from nbray.engines.environments import Environments
from nbray.engines.finished import record_of, returned_bytes
from nbray.engines.groups import GroupDesk
from nbray.engines.holding import Holding
from nbray.engines.looks import Looks
from nbray.engines.of_cells import OfCells
from nbray.engines.port import (
    ActorOptions,
    ActorToken,
    CallOptions,
    FunctionSpec,
    OutputEvent,
    RuntimeFacts,
    TaskOptions,
)
from nbray.engines.reading import Reader
from nbray.engines.witness import Witness
from nbray.exceptions import PendingCallsLimitExceeded
from nbray.ids import Address, TaskIds, object_id
from nbray.machine import Effect, Tick
from nbray.owner import records as r
from nbray.owner.packing import Packer
from nbray.owner.questions import Question, Questions
from nbray.owner.runtime import Runtime
from nbray.refs import ObjectRef
from nbray.sched.resources import UNIT
from nbray.wire import messages as m
from nbray.wire.failures import error_of
from nbray.wire.values import Pickled, checksum

ONE_CPU = {"CPU": UNIT}
#: Of most tasks' lists. Messages are never changed.
NONE: list[Any] = []
#: The head is given the news this long after their first.
TRACE_S = 1.0


class NativeEngine(OfCells):
    """Implements engines/port.py:Engine."""

    def __init__(self, runtime: Runtime, job: Address, *, is_driver: bool) -> None:
        super().__init__(runtime, job, is_driver=is_driver)
        self.forget = runtime.forget  #: a reference was collected
        self.trace_log = trace.Trace()
        self.questions = Questions(runtime)
        role = "DRIVER" if is_driver else "WORKER"
        self.witness = Witness(runtime, self.trace_log, role, lambda: self.job.process, self.cells.totals)
        self.witness.unfinished_here = self.cells.unfinished
        self._ids = TaskIds(runtime.process)
        say = lambda text: self.notice(self.current_cell(), "repeated", text)
        self._packer = Packer(self._put_pickled, self._owner_of, say, self._packed)
        self.reader = Reader(self)
        self.groups, self.looks = GroupDesk(self), Looks(self)
        self._shapes: dict[int, tuple[Any, m.Shape, str, tuple[bytes, bool] | None]] = {}
        self.lost = ""
        self._trace_armed = False
        self._naming: dict[bytes, Question] = {}  #: actors whose name the head has not granted yet
        self._on_output: Callable[[OutputEvent], None] = lambda _event: None
        self._on_notice: Callable[[str, str, str], None] = lambda _cell, _kind, _text: None
        self.facts_here: Callable[[], RuntimeFacts] = self._driver_facts
        self.task_here: Callable[[], bytes] = lambda: b""  #: a worker's: the task that submits
        self.on_shutdown: Callable[[], None] = lambda: None  #: before the runtime closes
        self.after_shutdown: Callable[[], None] = lambda: None
        self.environments = Environments(lambda what, **asked: self.questions.ask(what, asked), self._holder, self._shapes.clear)
        self.look_around = lambda: self.environments.look(now=True)
        self.description_here: dict[str, Any] = {}
        self.exit_here: Callable[[], None] = _no_actor
        self.show_here: Callable[[dict[str, Any], dict[str, Any], dict[str, Any], bool], None] | None = None
        self.asking = Asking(runtime.post)  #: what tasks at a breakpoint() ask of this driver
        self.on_unclaimed: Callable[[m.Message], None] = self.asking.take  #: a worker's executor takes tasks here
        self.pid = os.getpid()
        self.on_copy_lost: Callable[[bytes], None] = lambda _object: None  #: a worker's task may be waiting for it
        self.self_here: Callable[[], ActorToken | None] = lambda: None
        runtime.on_effect = self._effect
        runtime.on_message = self._message

    def _holder(self) -> str:
        return self.job.process.hex()

    # ------------------------------------------------------------------------------------------ work

    def submit(
        self, function: FunctionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: TaskOptions
    ) -> list[ObjectRef[Any]]:
        runtime = self.runtime
        if not runtime.attached.is_set():
            runtime.wait_attached()
        if self.environments.look_due is not None:
            self.environments.look()
        packed = self._packer.arguments(args, kwargs, function.name)
        task_id = self._ids.next()
        _, shape, key, group = self._shapes.get(id(options)) or self._shape(options, function.name)
        definitions = runtime.state.tasks.leases.definitions
        if function.id not in definitions:
            definitions[function.id] = m.DefineFunction(function.id, function.name, function.payload, function.crc)
        retry_types = options.retry_exceptions
        push = m.PushTask(
            task_id, 0, function.id, options.returns, packed.payload, packed.crc, runtime.me, self.job, self.current_cell(),
            options.name or function.name, NONE, packed.contains, None, bool(retry_types), shape.env,
            None if options.amounts == ONE_CPU else options.amounts, options.max_calls, options.stream, group, NONE,
        )  # fmt: skip
        task = r.OwnedTask(
            push, options.max_retries, shape=shape, key=key, needs=packed.needs, submitted_ns=time.time_ns(), line=callsite.here()
        )
        if retry_types:
            task.retry_exceptions, task.retry_types = options.max_retries, retry_types
        if not options.traced:
            task.traced = False
        if not self.is_driver:
            task.parent = self.task_here()
        ids, me = [object_id(task_id, i) for i in range(options.returns)], runtime.me
        # Before the step: what a signal's handler raises at its end then drops them like any other.
        refs: list[ObjectRef[Any]] = [ObjectRef(each, me, self) for each in ids]
        self._leaves(push, r.Submitted(task, ids))
        return refs

    def _leaves(self, push: m.PushTask | m.PushCall, event: r.Submitted | r.Called) -> None:
        """Count a task for its cell and step it: both, or neither when a signal comes."""
        runtime = self.runtime
        runtime.guard.enter()
        try:
            self.cells.submitted(push.cell, push.name)
            runtime.step_within(event)
        finally:
            runtime.guard.leave()

    def _shape(self, options: TaskOptions, name: str) -> tuple[Any, m.Shape, str, tuple[bytes, bool] | None]:
        """Options objects are made once per function or `.options()`; the entry keeps them, so their id stays theirs."""
        where = self.environments.of(options.env), *self.groups.choose(options.group, [options.amounts], name)
        shape = m.Shape(options.amounts, options.strategy, options.node, options.soft, *where, options.selectors)
        key = msgspec.json.encode(shape, order="sorted").decode()
        if len(self._shapes) > 10_000:
            self._shapes.clear()
        entry = self._shapes[id(options)] = (options, shape, key, (shape.group, shape.capture) if shape.group else None)
        return entry

    def environment_here(self) -> str:
        return self.environments.of("")

    def create_actor(
        self, cls: FunctionSpec, methods: bytes, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: ActorOptions
    ) -> ActorToken:
        runtime = self.runtime
        runtime.wait_attached()
        self.environments.look()
        packed = self._packer.arguments(args, kwargs, f"{cls.name}.__init__")
        actor = self._ids.next()
        namespace = options.namespace if options.namespace is not None else self.facts_here().namespace
        env = self.environments.of(options.env)
        group = self.groups.choose(options.group, [options.running, options.placement], cls.name)
        introduction = runtime.state.tasks.leases.introduction
        where = (introduction.path, introduction.directory) if isinstance(introduction, m.DefineJob) else ([], "")
        shape = m.Shape(options.placement, options.strategy, options.node, options.soft, env, *group, options.selectors)
        line = callsite.here()
        spec = m.ActorSpec(
            actor, runtime.me, self.job, cls.name, cls.id, cls.payload, cls.crc, packed.payload, packed.crc, [], packed.contains,
            shape, options.running, options.max_restarts, options.max_task_retries, options.max_concurrency, options.is_async,
            options.groups, options.name, namespace, options.detached, self.current_cell(), env, methods, options.unordered,
            *where, options.window, line,
        )  # fmt: skip
        push = m.PushTask(
            actor, 0, cls.id, 1, packed.payload, packed.crc, runtime.me, self.job, self.current_cell(), f"{cls.name}.__init__",
            [], packed.contains,
        )  # fmt: skip
        task = r.OwnedTask(push, 0, needs=packed.needs, submitted_ns=time.time_ns(), line=line)
        named = self.questions.open() if options.name else None
        if named is not None:
            self._naming[actor] = named
        register = m.RegisterActor(spec, named.request if named else 0, options.get_if_exists)
        alive: ObjectRef[Any] = ObjectRef(object_id(actor), runtime.me, self)
        runtime.step(r.ActorCreated(task, register))
        if named is not None:
            try:
                answer = self.questions.wait(named)
            finally:
                self._naming.pop(actor, None)
            if isinstance(answer, m.ActorFound) and answer.actor != actor:
                runtime.step(m.ActorRejected(actor, 0, f"another actor has the name {options.name!r}"))
                return self._found(answer)
            if isinstance(answer, m.ActorRejected):
                raise ValueError(answer.reason)
        return ActorToken(actor, cls.name, methods, options.max_task_retries, alive)

    def call_actor(
        self, actor: ActorToken, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: CallOptions
    ) -> list[ObjectRef[Any]]:
        runtime = self.runtime
        if not runtime.attached.is_set():
            runtime.wait_attached()
        name = f"{actor.class_name}.{method}"
        packed = self._packer.arguments(args, kwargs, name)
        task_id = self._ids.next()
        push = m.PushCall(
            task_id, 0, actor.actor, 0, 0, method, options.returns, packed.payload, packed.crc, runtime.me, self.job,
            self.current_cell(), options.name or name, NONE, packed.contains, None, options.group, options.stream,
        )  # fmt: skip
        retries = options.max_task_retries
        task = r.OwnedTask(push, retries, needs=packed.needs, submitted_ns=time.time_ns(), line=callsite.here())
        if options.retry_exceptions:
            task.retry_exceptions, task.retry_types = retries, options.retry_exceptions
        if not self.is_driver:
            task.parent = self.task_here()
        if not options.traced:
            task.traced = False
        ids, me = [object_id(task_id, i) for i in range(options.returns)], runtime.me
        refs: list[ObjectRef[Any]] = [ObjectRef(each, me, self) for each in ids]
        alive = b"" if actor.alive is None else actor.alive._id
        self._leaves(push, r.Called(task, actor.actor, actor.class_name, options.unordered, alive, ids))
        return refs

    def pending_calls(self, actor: ActorToken, limit: int) -> None:
        """Raises PendingCallsLimitExceeded when this process has `limit` calls to the actor that have not reported."""
        with self.runtime.locked() as state:
            client = state.calls.actors.get(actor.actor)
            pending = client.pending if client is not None else 0
        if pending >= limit:
            raise PendingCallsLimitExceeded(
                f"{actor.class_name} has {pending} pending calls from this process; its max_pending_calls is {limit}"
            )

    def find_actor(self, name: str, namespace: str | None) -> ActorToken:
        runtime = self.runtime
        runtime.wait_attached()
        question = self.questions.open()
        space = namespace if namespace is not None else self.facts_here().namespace
        runtime.post(runtime.state.calls.head, m.FindActor(question.request, name, space, runtime.me))
        answer = self.questions.wait(question)
        if isinstance(answer, m.ActorRejected):
            raise ValueError(answer.reason)
        return self._found(answer)

    def _found(self, answer: m.ActorFound) -> ActorToken:
        return ActorToken(answer.actor, answer.class_name, answer.methods, answer.max_task_retries, None)

    def self_actor(self) -> ActorToken | None:
        return self.self_here()

    def kill_actor(self, actor: ActorToken, no_restart: bool) -> None:
        self.runtime.wait_attached()
        self.runtime.step(r.ActorKilled(actor.actor, actor.class_name, no_restart))

    def exit_actor(self) -> None:
        self.exit_here()

    # ------------------------------------------------------------------------------------------ objects

    def put(self, value: Any) -> ObjectRef[Any]:
        if not self.runtime.attached.is_set():
            self.runtime.wait_attached()
        line, began = callsite.here(), time.perf_counter()
        pickled, contains = self._packer.dumps(value, "put value", "value")
        ref = self._put_pickled(pickled, contains, value, line)
        if pickled.size > INLINE_LIMIT:
            self._packed(time.perf_counter() - began)
        return ref

    def _packed(self, seconds: float) -> None:
        if self.is_driver:
            self.cells.packed(self.current_cell(), seconds)

    def _put_pickled(self, pickled: Pickled, contains: list[m.Held], value: Any, line: str = "") -> ObjectRef[Any]:
        ref: ObjectRef[Any] = ObjectRef(object_id(self._ids.next()), self.runtime.me, self)
        self.runtime.guard.enter()  # what is in the store is known to be ours
        try:
            self.runtime.step(r.WasPut(ref._id, self.sealed(ref._id, self.runtime.me, pickled, contains, value), line))
        finally:
            self.runtime.guard.leave()
        return ref

    def sealed(self, new: bytes, owner: Address, pickled: Pickled, contains: list[m.Held], value: Any) -> m.Value:
        """The Value of `value`, which was pickled: inside the message when small, else written to the store of this node."""
        if len(pickled.data) > INLINE_LIMIT or pickled.size > INLINE_LIMIT:
            self.runtime.refuse_inside()  # it may have to wait for room
            location = self.runtime.store.write(new, owner, pickled)
            if self.is_driver:
                self.cells.stored(self.current_cell(), location.size)
            return m.Value(location=location, contains=tuple(contains), said=describe(value))
        payload = pickled.payload()
        return m.Value(payload, checksum(payload), contains=tuple(contains))

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        return self.reader.get(refs, timeout)

    def _unfinished(self, object_ids: list[bytes]) -> str:
        with self.runtime.locked() as state:
            waiting = sum(not self.runtime.is_ready(o, local=True) for o in object_ids)
            tasks = [task for o in object_ids if (task := state.tasks.tasks.get(o[:16])) is not None]
            why = {(state.calls if task.shape is None else state.tasks.leases).why_queued(task) for task in tasks}
            why = (why | {state.groups.why_pending(o) for o in object_ids[:100]}) - {""}
        said = f" ({'; '.join(sorted(why))})" if why else ""
        return f"{waiting} of {len(object_ids)}{said}"

    def wait(
        self, refs: Sequence[ObjectRef[Any]], count: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        object_ids = [ref._id for ref in refs]
        self.runtime.wait_for(object_ids, count, timeout, fetch_local, eager=False)
        ready: list[ObjectRef[Any]] = []
        rest: list[ObjectRef[Any]] = []
        with self.runtime.locked():
            for position, ref in enumerate(refs):
                if len(ready) == count:
                    rest.extend(refs[position:])
                    break
                (ready if self.runtime.is_ready(ref._id, fetch_local) else rest).append(ref)
        return ready, rest

    def on_ready(self, ref: ObjectRef[Any], callback: Callable[[], None], local: bool = True) -> None:
        self.runtime.on_ready(ref._id, callback, local)

    def call_soon(self, function: Callable[[], None]) -> None:
        self.runtime.call_soon(function)

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        if force:
            with self.runtime.locked() as state:
                task = state.tasks.tasks.get(ref._id[:16])
                if task is not None and isinstance(task.push, m.PushCall):
                    raise ValueError(
                        "force=True is not supported for actor tasks: it would end the actor. nbray.kill(actor) does that"
                    )
        self.runtime.step(r.CancelAsked(ref._id, force, recursive))

    # ------------------------------------------------------------------------------------------ generators

    def take_item(self, end: ObjectRef[Any]) -> ObjectRef[Any] | None:
        item = self.runtime.ask(r.ItemAsked(end._id[:16]), r.NextItem, r.ItemMissed)
        return ObjectRef(item.object, self.runtime.me, self) if item.state == "TAKEN" else None

    def peek_item(self, end: ObjectRef[Any]) -> ObjectRef[Any] | None:
        with self.runtime.locked() as state:
            item = state.tasks.streams.next_of(end._id[:16])
            if item is None:
                return None
            state.objects.hold(item)
            return ObjectRef(item, self.runtime.me, self)

    def drop_stream(self, end: ObjectRef[Any]) -> None:
        self.runtime.step_later(r.StreamDropped(end._id[:16]))

    def facts_of(self, ref: ObjectRef[Any]) -> dict[str, Any]:
        return self.facts_of_all([ref])[0]

    def facts_of_all(self, refs: Sequence[ObjectRef[Any]]) -> list[dict[str, Any]]:
        with self.runtime.locked() as state:
            objects, tasks = state.objects.objects, state.tasks.tasks
            return [nodes_view.object_facts(ref, objects.get(ref._id), tasks.get(ref._id[:16])) for ref in refs]

    def holders_of(self, groups: Sequence[Collection[bytes]], known: Sequence[int]) -> list[dict[str, int]]:
        self.runtime.step(Tick())  # what was dropped is let go
        return Holding(self.runtime).of(groups, known)

    def unnamed(self, named: Collection[bytes]) -> list[dict[str, Any]]:
        return Holding(self.runtime).unnamed(named)

    def lend(self, ref: ObjectRef[Any]) -> Address:
        return self._packer.lend(ref)

    def _owner_of(self, ref: ObjectRef[Any]) -> Address:
        return self.runtime.me if ref._owner.process == self.runtime.process else ref._owner

    def receive(self, id_: bytes, owner: Address) -> ObjectRef[Any]:
        return self.reader.receive(id_, owner)

    def references(self) -> Iterator[ObjectRef[Any]]:
        with self.runtime.locked() as state:
            held = [(o.id, o.owner) for o in state.objects.objects.values() if o.count > 0]
        for id_, owner in held:
            yield self.receive(id_, owner)

    # ------------------------------------------------------------------------------------------ the cluster

    def ask(self, what: str, **arguments: Any) -> Any:
        self.runtime.wait_attached()
        return self.questions.ask(what, arguments)

    def nodes(self, patience_s: float | None = None) -> list[dict[str, Any]]:
        return nodes_view.nodes(self.runtime, self.questions, patience_s)

    def trace(self) -> list[dict[str, Any]]:
        self.send_trace()
        own = list(self.trace_log.records)
        for blob in self.questions.ask("trace", {}):
            own.extend(trace.decode_records(blob))
        unique = {(record.kind, record.id, record.attempt, record.state): record for record in own}
        return sorted((trace.as_dict(x) for x in unique.values()), key=lambda x: x["submitted_ns"])

    def facts(self) -> RuntimeFacts:
        return self.facts_here()

    def _driver_facts(self) -> RuntimeFacts:
        welcome: Any = self.runtime.welcome
        where = (self.job.process, self.runtime.me.node, self.runtime.process, self.runtime.namespace, welcome.session)
        return RuntimeFacts(*where, temp_dir=os.path.dirname(welcome.log_directory))

    def description(self) -> dict[str, Any]:
        return {"pid": os.getpid(), **self.description_here}

    def shutdown(self) -> None:
        if self.runtime.attached.is_set() and not self.runtime.closing:
            self.send_trace()  # what this process did is known after it has left
        self.on_shutdown()
        self.runtime.close()
        self.environments.close()
        self.after_shutdown()

    # ------------------------------------------------------------------------------------------ what it tells

    def on_output(self, callback: Callable[[OutputEvent], None]) -> None:
        self._on_output = callback

    def on_notice(self, callback: Callable[[str, str, str], None]) -> None:
        self._on_notice = callback

    def on_input(self, ask: Ask) -> None:
        self.asking.ask = ask

    def on_names(self, callback: Callable[[], dict[bytes, list[str]]]) -> None:
        self.witness.names_here = callback

    def notice(self, cell: str, kind: str, text: str) -> None:
        self._on_notice(cell, kind, text)

    # ------------------------------------------------------------------------------------------ what the runtime reports

    def _effect(self, effect: Effect) -> None:
        if isinstance(effect, r.Finished):
            self._finished(effect)
        elif isinstance(effect, r.JudgeException):
            self._judge(effect)
        elif isinstance(effect, r.Unhandled):
            self._on_notice(effect.cell, "unhandled", effect.failure.traceback or effect.failure.message)
        elif isinstance(effect, r.ActorKnown):
            naming = self._naming.get(effect.actor)
            if naming is not None:
                self.questions.settle(naming, effect)
        elif isinstance(effect, r.Notice):
            self._on_notice(effect.cell, effect.kind, effect.text)
        elif isinstance(effect, r.CopyLost):
            self.on_copy_lost(effect.object)

    def _finished(self, done: r.Finished) -> None:
        record = record_of(done, self.runtime.state)
        if self.cells.ended(record.cell, record.name, record):
            self.cells.moved(record.cell, len(done.task.push.args), returned_bytes(done, self.runtime.state))
        if not done.task.traced:
            return
        self.trace_log.add(record)
        if not self._trace_armed:
            self._trace_armed = True
            self._trace_later()

    def _judge(self, effect: r.JudgeException) -> None:
        """Only here can the exception be loaded; the machine waits for the verdict."""
        task, failure = effect.task, effect.values[0].failure
        assert failure is not None
        wanted = task.retry_types
        if isinstance(wanted, tuple):
            error = error_of(failure)
            retry = isinstance(error, wanted) or isinstance(getattr(error, "cause", None), wanted)
        else:
            retry = bool(wanted)
        self.runtime.step(r.RetryDecided(task.id, task.push.attempt, retry, effect.values))

    def _message(self, message: m.Message) -> None:
        if isinstance(message, m.Output):
            where = (message.cell, message.task, message.name, message.pid, message.node)
            self._on_output(OutputEvent(*where, stream=message.stream, text=message.text, dropped=message.dropped))
        elif isinstance(message, m.Display):
            shown = OutputEvent(message.cell, message.task, "", 0, b"", mime=message.data, metadata=message.metadata)
            self._on_output(msgspec.structs.replace(shown, transient=message.transient, update=message.update))
        elif isinstance(message, m.Ask):
            self.witness.asked(message)
        elif isinstance(message, m.CellNews):
            self.nested.take(message, keep=self.cells.is_drawn(message.cell))
        elif isinstance(message, m.ModulesLoaded):
            self.environments.loaded(message, self.runtime.me)
        else:
            self.questions.answered(message)
            self.on_unclaimed(message)

    def _trace_later(self) -> None:
        """Batches: the first record of a quiet second arms a timer, so that an idle process does nothing."""
        timer = threading.Timer(TRACE_S, self.send_trace)
        timer.name, timer.daemon = "nbray-trace", True
        timer.start()

    def send_trace(self) -> None:
        """Give the head what it has not been told."""
        self._trace_armed = False
        batch = self.trace_log.take_unsent()
        if batch:
            me = self.runtime.me
            self.runtime.post(self.runtime.state.calls.head, m.TraceBatch(me.process, me.node, batch, self.job.process))


def _no_actor() -> None:
    raise TypeError("exit_actor called on a non-actor worker: it ends the actor that calls it, so call it in an actor's method")
