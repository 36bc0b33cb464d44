"""Runs tasks: loads functions and arguments, calls user code in the main thread, stores and reports results. Decides nothing."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import GeneratorType
from typing import Any

import cloudpickle
import msgspec

from nbray import ids, logging_config
from nbray.engines.native import NativeEngine
from nbray.engines.port import RuntimeFacts
from nbray.exceptions import RayTaskError
from nbray.ids import Address, FunctionId, object_id
from nbray.machine import Effect
from nbray.owner import records as r
from nbray.owner.packing import unpack
from nbray.wire import messages as m
from nbray.wire.failures import failure_of
from nbray.wire.values import verified
from nbray.worker import state as w
from nbray.worker.actor import ActorExit, LiveActor
from nbray.worker.breakpoints import Breakpoints
from nbray.worker.environment import Entered
from nbray.worker.facts import facts_of
from nbray.worker.generators import Generators
from nbray.worker.overheard import SHORTEST_NS
from nbray.worker.returns import several
from nbray.worker.share import Share
from nbray.worker.snapshots import Album
from nbray.worker.speakers import Speakers

_Push = m.PushTask | m.PushCall
#: Of a cancelled call of an actor that is not async.
IN_A_CALL = (
    "; a call that has begun is not interrupted: this one went on to its end in the actor, and its result was dropped. "
    "get_runtime_context().is_canceled() was True in it"
)


class Current(msgspec.Struct):
    """The task that a thread (or an asyncio task) of this worker runs."""

    push: _Push | None
    cancelled: bool = False
    leaves: str = ""  #: it has called exit_actor(), or raised SystemExit: the call has no result
    started_ns: int = 0
    waits_in: str = ""  #: "GET" or "WAIT" while it waits for objects
    interrupted: bool = False  #: KeyboardInterrupt was raised in it


class Executor:
    """The main thread's loop, and the shell of worker.state."""

    def __init__(self, engine: NativeEngine) -> None:
        self.engine = engine
        self.runtime = engine.runtime
        self.state = w.WorkerState(self.runtime.me)
        self.actor: LiveActor | None = None
        self.current: contextvars.ContextVar[Current | None] = contextvars.ContextVar("nbray_task", default=None)
        self.running: dict[ids.TaskId, Current] = {}
        self.namespace = ""
        self.entered = Entered(engine)
        self.flush_output: Callable[[], None] = lambda: None  #: a task ends: all that it printed leaves
        self.overhear: Callable[[_Push], None] = lambda _ended: None  #: take in what C code and child processes have printed
        self.send_output: Callable[[], None] = lambda: None  #: as much as may be sent now
        self._idle = Current(None)
        self.speakers = Speakers(self)
        self.album = Album()
        self.breakpoints = Breakpoints(self.runtime.post, self.speakers.here, lambda: self.runtime.me)
        self.share = Share()
        self._main = threading.get_ident()
        self.in_main: Current | None = None  #: what the main thread runs, while it may be interrupted
        self._runs: queue.SimpleQueue[_Push | Callable[[], None] | None] = queue.SimpleQueue()
        self._definitions: dict[FunctionId, m.DefineFunction] = {}
        self._functions: dict[FunctionId, Any] = {}
        self.generators = Generators(self)
        self._keeps = False
        self._fetching: dict[ids.TaskId, list[ids.ObjectId]] = {}  #: tasks whose arguments are on their way
        self._fetched: dict[ids.TaskId, int] = {}  #: how long that took, ns, of those that have not ended
        engine.on_copy_lost = self._copy_lost
        self.exit_code: int | None = None
        self.init_failed = False
        signal.signal(signal.SIGINT, self._interrupted)

    # ------------------------------------------------------------------------------------------ stepping

    def step(self, event: Any) -> list[Effect]:
        """Step worker.state under the runtime's lock; sends leave at once, the rest is returned."""
        runtime = self.runtime
        runtime.guard.enter()
        try:
            with runtime.lock:
                return runtime._send(self.state.handle(event, 0.0), time.monotonic())
        finally:
            runtime.guard.leave()

    def take_work(self, pushes: list[_Push]) -> None:
        """Tasks or calls that came together. From the I/O thread."""
        with self.runtime.lock:
            effects = [effect for push in pushes for effect in self.state.handle(push, 0.0)]
            effects = self.runtime._send(effects, time.monotonic())
        self.carry_out(effects)

    def take(self, message: m.Message) -> None:
        """A message that is not the owner's. From the I/O thread."""
        if isinstance(message, m.DefineFunction):
            self._definitions[message.function] = message
        elif isinstance(message, m.InputGiven):
            self.breakpoints.answered(message)
        elif isinstance(message, m.DefineJob):
            self._join_job(message)
        elif isinstance(message, m.StartActor):
            self.state.is_actor = True
            self._runs.put(lambda: self._become(message))
        elif self.state.takes(message):
            self.carry_out(self.step(message))

    def carry_out(self, effects: list[Effect]) -> None:
        """From any thread: what must run in the main thread is queued for it."""
        for effect in effects:
            if isinstance(effect, w.Run):
                self._schedule(effect.push)
            elif isinstance(effect, w.GoOn):
                self.generators.go_on(effect.task)
            elif isinstance(effect, w.FetchArguments):
                self._fetch(effect.push)
            elif isinstance(effect, w.Interrupt):
                self._interrupt(effect)
            elif isinstance(effect, w.Refuse):
                self._refuse(effect)
            elif isinstance(effect, w.DropArguments):
                self.runtime.step(r.Dropped([d.object for d in effect.push.dependencies]))
            elif isinstance(effect, w.Exit):
                self.end()

    def _schedule(self, push: _Push) -> None:
        if self.actor is None or not isinstance(push, m.PushCall) or not self.actor.begin(push):
            self._runs.put(push)

    def serve(self) -> None:
        """The main thread's life. Returns when the worker is to exit."""
        while True:
            try:
                job = self._runs.get()
                if isinstance(job, m.PushCall | m.PushTask):
                    self.execute(job)
                elif job is None:
                    return
                else:
                    job()
            except KeyboardInterrupt:
                continue  # meant for a task that ended meanwhile

    def _join_job(self, message: m.DefineJob) -> None:
        self.engine.job = message.job
        self.engine.runtime.namespace = message.namespace
        self.runtime.state.tasks.leases.job = message.job.process
        self.runtime.state.objects.driver = message.job
        self.runtime.state.tasks.leases.introduction = message
        self._runs.put(lambda: self.entered.job_joined(message.path, message.directory))
        if message.logging:
            self._runs.put(lambda: logging_config.apply(logging_config.from_json(message.logging)))

    # ------------------------------------------------------------------------------------------ arguments

    def _fetch(self, push: _Push) -> None:
        """The submitter holds the dependencies until the task reports; here they are borrowed until then."""
        self.runtime.step(r.ValuesTold(push.dependencies))
        missing = [dependency.object for dependency in push.dependencies if dependency.value.location is not None]
        if not missing:
            self.carry_out(self.step(w.ArgumentsReady(push.task)))
            return
        left, begun = [len(missing)], time.monotonic_ns()
        self._fetching[push.task] = missing

        def arrived() -> None:
            left[0] -= 1
            if not left[0]:
                self._fetching.pop(push.task, None)
                self._fetched[push.task] = time.monotonic_ns() - begun
                self.carry_out(self.step(w.ArgumentsReady(push.task)))

        for object_ in missing:
            self.runtime.on_ready(object_, arrived)

    def _copy_lost(self, object_: ids.ObjectId) -> None:
        for task, missing in list(self._fetching.items()):
            if object_ in missing:
                self.carry_out(self.step(w.ArgumentLost(task)))

    def arguments(self, push: _Push) -> tuple[tuple[Any, ...], dict[str, Any]]:
        payload = push.args
        if not payload:
            return (), {}
        reader, dependencies = self.engine.reader, push.dependencies
        values: list[Any] = []
        if dependencies:
            refs = reader.receive_all(dependencies)
            values = reader.get([refs[each.object] for each in dependencies], None)

        def load(index: int) -> Any:
            if index < 0:
                return reader.loads_with(verified(payload, push.crc, "the arguments of", push.name), push.contains)
            return values[index]

        return unpack(payload, load)

    def function(self, function: FunctionId) -> Any:
        loaded = self._functions.get(function)
        if loaded is None:
            definition = self._definitions[function]
            loaded = cloudpickle.loads(verified(definition.payload, definition.crc, "the function", definition.name))
            self._functions[function] = loaded
        return loaded

    # ------------------------------------------------------------------------------------------ running

    def begin(self, push: _Push) -> Current:
        """The calling thread or asyncio task runs `push` from now on."""
        current = Current(push, started_ns=time.time_ns())
        self.running[push.task] = current
        current.cancelled = self.state.is_cancelled(push.task)  # before `_interrupt` could find it
        self.current.set(current)
        return current

    def execute(self, push: _Push) -> None:
        """Run one task or call in the calling thread and report it."""
        current = Current(push, started_ns=time.time_ns())
        self.running[push.task] = current
        # Cancelled between the order to run it and here: `_interrupt` found nothing to interrupt.
        current.cancelled = self.state.is_cancelled(push.task)
        token = self.current.set(current)
        cell = self.engine.enter_cell(push.cell)
        cpu = time.thread_time_ns()
        try:
            values, retriable = self._outcome(push, current)
        finally:
            self.engine.leave_cell(cell)
            self.current.reset(token)
            self.running.pop(push.task, None)
        self.conclude(push, current, values, current.started_ns, retriable, time.thread_time_ns() - cpu)

    def conclude(self, push: _Push, current: Current, values: list[m.Value], started: int, retriable: bool, cpu: int) -> None:
        """The task is over: report it, unless it leaves the actor. Who waits for that call learns it by the actor's end."""
        if not current.leaves:
            self.report(push, values, started, retriable, cpu)
            return
        self.flush_output()
        if self.exit_code is None:
            self.carry_out(self.step(w.Ran(push.task)))
        else:
            self.end()

    def _outcome(self, push: _Push, current: Current) -> tuple[list[m.Value], bool]:
        """The values of the task's returns, or its failure; whether the failure was an exception of the user's code."""
        try:
            if isinstance(push, m.PushTask):
                if push.env != self.entered.environment or self.entered.failure is not None:
                    self.entered.enter(push.env)
                if push.amounts is not self.share.amounts or push.devices:
                    self.share.take(push.amounts, push.devices)
                self.engine.groups.enter(push.group)
                call = self.function(push.function)
            else:
                assert self.actor is not None
                call = self.actor.method(push.method)
            args, kwargs = self.arguments(push)
            if self.actor is None:
                self.in_main = current
            if current.cancelled:
                raise KeyboardInterrupt  # while its arguments were loaded, where nothing is interrupted
            result = call(*args, **kwargs)
            self.in_main = None
            del args, kwargs
            if push.stream is not None:
                return self.generators.drain(push, current, result), False
            if type(result) is GeneratorType and push.returns:
                return self.generators.collect(push, current, result), False
            if current.cancelled and self.actor is not None:
                return self.cancelled(push, IN_A_CALL), False  # its result is not wanted
            return self.stored(push, result), False
        except BaseException as error:  # noqa: BLE001 -- whatever the user's code raises is the task's result
            self.in_main = None
            return self.failed(push, current, error)

    def failed(self, push: _Push, current: Current, error: BaseException) -> tuple[list[m.Value], bool]:
        """What an exception comes to. Begins the end of the worker for exits."""
        if isinstance(error, ActorExit | SystemExit):
            self._leave(current, error)
            return [], False
        if current.cancelled and isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
            return self.cancelled(push), False
        if (unset := self.entered.failure_for(error)) is not None:
            return [m.Value(failure=unset)], False
        names: dict[str, Any] = {}
        if self.actor is not None:
            names = {"actor_repr": self.actor.title(), "actor_id": self.actor.id.hex()}
        failure = failure_of(
            error, name=push.name, pid=self.engine.pid, node=self.runtime.me.node, task=push.task, attempt=push.attempt,
            snapshot=self.album.snapshot_of(error, push.cell), **names,
        )  # fmt: skip
        return [m.Value(failure=failure)], not isinstance(error, RayTaskError) or error.cause is not None

    def cancelled(self, push: _Push, but: str = "") -> list[m.Value]:
        message = f"{push.name} (task {push.task.hex()}) was cancelled while it ran{but}"
        return [m.Value(failure=m.Failure("TaskCancelledError", message=message, fields={"task": push.task.hex()}))]

    def _leave(self, current: Current, error: BaseException) -> None:
        """`exit_actor()` and `sys.exit()`: the process ends, and with it the call."""
        code = getattr(error, "code", None)
        if isinstance(error, ActorExit):
            self.leave_actor(current, "exit_actor() was called")
        elif self.actor is not None and code == 0:
            self.leave_actor(current, "sys.exit(0) was called")
        else:
            # As any crash: an actor with restarts left is started again.
            if code is not None and not isinstance(code, int):
                print(code, file=sys.stderr)  # as Python does with sys.exit("why")
                self.flush_output()
            current.leaves = f"sys.exit({code!r})"
            self.exit_code = code if isinstance(code, int) else int(code is not None or self.actor is not None)

    def leave_actor(self, current: Current | None, reason: str) -> None:
        """The actor ends on purpose: calls that run finish first, those that have not begun are refused."""
        if current is not None:
            current.leaves = current.leaves or reason
        self.carry_out(self.step(w.LeaveAsked(reason)))

    def stored(self, push: _Push, result: Any) -> list[m.Value]:
        """The result as values. Raises what pickling raises, with the path to the culprit."""
        if push.returns == 0:
            return []
        if push.returns == 1:
            results = [result]
        else:
            results = several(push.name, push.returns, result)
        values = []
        passed: list[m.Held] = []
        for index, each in enumerate(results):
            value = self._sealed(push, index, each)
            values.append(value)
            passed += value.contains
        if passed:  # only now: had one not been pickled or stored, the receiver would be counted for what never comes
            self.runtime.step(r.Passed(passed, push.owner))
        return values

    def stored_return(self, push: _Push, index: int, result: Any) -> m.Value:
        """One return, which leaves whatever becomes of the others."""
        value = self._sealed(push, index, result)
        if value.contains:
            self.runtime.step(r.Passed(value.contains, push.owner))
        return value

    def _sealed(self, push: _Push, index: int, result: Any) -> m.Value:
        pickled, contains = self.engine._packer.dumps(result, f"return value of {push.name}", "result")
        return self.engine.sealed(object_id(push.task, index), push.owner, pickled, contains, result)

    def report(self, push: _Push, values: list[m.Value], started: int, retriable: bool, cpu: int) -> None:
        """Send the result after everything the task printed, then go on."""
        ended = time.time_ns()
        if ended - started > SHORTEST_NS:
            self.overhear(push)
        self.flush_output()
        if len(sys.modules) != self.entered.modules.count:
            self.entered.tell_modules(push.job, started)
        if self.engine.trace_log.unsent:
            self.engine.send_trace()  # what it submitted is known before it is done
        if (tally := self.engine.tally) is not None and tally.fresh:
            tally.tell()
        borrows: list[m.Held] = []
        if push.dependencies or push.contains:
            borrows = self._still_held(push)
        me = self.runtime.me.process
        spent = self.state.is_last(push)
        fetched = self._fetched.pop(push.task, 0) if self._fetched else 0
        done = m.TaskDone(push.task, push.attempt, me, values, started, ended, borrows, retriable, cpu, spent, fetched)
        self.carry_out(self._send_or_hold(push, done))

    def _send_or_hold(self, push: _Push, done: m.TaskDone) -> list[Effect]:
        """Results of very short tasks travel together.

        Only before more of the same, on its first attempt: a task that takes the process down would take held results with
        it, and whoever finished before it would be blamed.
        """
        runtime = self.runtime
        runtime.guard.enter()
        try:
            with runtime.lock:
                effects = self.state.handle(w.Ran(push.task), 0.0)
                more = _same(push, effects[0]) if effects else self._in_company(push)
                if self.runtime.state.keeps() != self._keeps:
                    effects += self._say_keeps()
                effects.append(r.Send(push.owner, done, more))
                rest = runtime._send(effects, time.monotonic())
                if not more:
                    runtime._outgoing.flush()
                return rest
        finally:
            runtime.guard.leave()

    def _in_company(self, push: _Push) -> bool:
        return self.actor is not None and isinstance(push, m.PushCall) and self.actor.ends_in_company(push)

    def _say_keeps(self) -> list[Effect]:
        """Under the lock: the node is told that this worker is (no longer) more than idle."""
        self._keeps = not self._keeps
        after = self.state.handle(w.KeepsChanged(self._keeps), 0.0)
        return [r.Send(self.state.node, m.WorkerKeeps(self.runtime.process, self._keeps)), *after]

    def look_at_keeps(self) -> None:
        """After the I/O thread stepped the owner: what it kept may be gone."""
        if self._keeps and not self.runtime.state.keeps():
            rest: list[Effect] = []
            with self.runtime.lock:
                if not self.runtime.state.keeps():
                    rest = self.runtime._send(self._say_keeps(), time.monotonic())
            self.carry_out(rest)

    def _still_held(self, push: _Push) -> list[m.Held]:
        """References from the arguments that outlive the task here: the submitter counts us for them."""
        candidates = {h.object: h for h in push.contains}
        for dependency in push.dependencies:
            for held in dependency.value.contains:
                candidates[held.object] = held
        self.runtime.step(r.Dropped([d.object for d in push.dependencies]))
        if not candidates:
            return []
        with self.runtime.locked() as state:
            kept = [h for o, h in candidates.items() if o in state.objects.objects and h.owner.process != self.runtime.process]
        if kept:
            self.runtime.step(r.Reported([h.object for h in kept]))
        return kept

    def _refuse(self, effect: w.Refuse) -> None:
        now = time.time_ns()
        self._fetched.pop(effect.push.task, None)
        value = m.Value(failure=effect.failure)
        done = m.TaskDone(effect.push.task, effect.push.attempt, self.runtime.me.process, [value], now, now)
        self.runtime.post(effect.push.owner, done)

    # ------------------------------------------------------------------------------------------ interrupting

    def _interrupt(self, effect: w.Interrupt) -> None:
        current = self.running.get(effect.push.task)
        if current is None:
            return  # the main thread has not got to it, and asks `is_cancelled` when it does
        current.cancelled = True
        if effect.recursive:
            self.runtime.step(r.CellCancelled(parent=effect.push.task))
        if self.actor is not None and isinstance(effect.push, m.PushCall):
            self.actor.cancel(effect.push.task)
        else:
            signal.pthread_kill(self._main, signal.SIGINT)
        self.generators.go_on(effect.push.task)  # if it waits for its consumer, after the signal

    def _interrupted(self, _number: int, _frame: Any) -> None:
        """SIGINT in the main thread: only for the task that was cancelled, and only inside its own code."""
        current = self.in_main
        if current is not None and current.cancelled:
            current.interrupted = True
            raise KeyboardInterrupt

    # ------------------------------------------------------------------------------------------ actors

    def _become(self, message: m.StartActor) -> None:
        spec = message.spec
        node = Address(self.runtime.me.node, self.runtime.me.node)
        if spec.path:
            self.entered.job_joined(spec.path, spec.directory)
        push = m.PushTask(
            spec.actor, message.epoch, spec.class_id, 0, spec.args, spec.crc, spec.owner, spec.job, spec.cell,
            f"{spec.class_name}.__init__", spec.dependencies, spec.contains,
        )  # fmt: skip
        self.engine.job = self.runtime.state.objects.driver = spec.job
        self.engine.groups.live_in(spec.placement)
        current = Current(push, started_ns=time.time_ns())
        token = self.current.set(current)
        try:
            if spec.env:
                self.entered.enter(spec.env)
            self.share.take(spec.running, message.devices)
            cls = cloudpickle.loads(verified(spec.class_payload, spec.class_crc, "the class", spec.class_name))
            if spec.dependencies:
                self.runtime.step(r.ValuesTold(spec.dependencies))
            args, kwargs = self.arguments(push)
            self.actor = LiveActor(self, spec, message.epoch, cls)
            self.actor.build(args, kwargs)
            if current.leaves:
                raise ActorExit  # swallowed in `__init__`
        except BaseException as error:  # noqa: BLE001 -- whatever __init__ raises is why there is no actor
            self._failed_init(message, push, error)
            return
        finally:
            self.current.reset(token)
        self.overhear(push)
        self.entered.tell_modules(spec.job, current.started_ns)
        # Before anybody is told: a call may arrive the moment they are.
        born = w.BecameActor(spec.actor, message.epoch, spec.max_concurrency, spec.groups, spec.unordered, spec.window)
        self.carry_out(self.step(born))
        self.runtime.post(node, m.ActorStarted(spec.actor, message.epoch, self.runtime.me, self.engine.pid))
        self.actor.live()

    def _failed_init(self, message: m.StartActor, push: m.PushTask, error: BaseException) -> None:
        self.overhear(push)
        self.flush_output()
        spec = message.spec
        node = Address(self.runtime.me.node, self.runtime.me.node)
        if isinstance(error, ActorExit):
            self.state.exiting = "exit_actor() was called in __init__"
        else:
            self.init_failed = True
            failure = self.entered.failure_for(error) or failure_of(
                error, name=push.name, pid=self.engine.pid, node=self.runtime.me.node, task=push.task, attempt=message.epoch,
                actor_repr=spec.class_name, actor_id=spec.actor.hex(),
            )  # fmt: skip
            self.runtime.post(node, m.ActorFailed(spec.actor, message.epoch, failure))
        self._runs.put(None)

    def end(self) -> None:
        """Leave `serve` after what is queued. From any thread."""
        if self.actor is not None:
            self.actor.stop()
        self._runs.put(None)

    # ------------------------------------------------------------------------------------------ who runs here

    def blocked(self, waits_in: str) -> None:
        """The calling thread is about to wait for objects."""
        current = self.current.get()
        if current is not None:
            current.waits_in = waits_in
        self.carry_out(self.step(w.Blocked()))

    def unblocked(self) -> None:
        current = self.current.get()
        if current is not None:
            current.waits_in = ""
        self.carry_out(self.step(w.Unblocked()))

    def running_now(self) -> dict[bytes, tuple[str, int, str]]:
        """What was sent here and has not reported, in the State API's words, with when it began: (state, ns or 0, name)."""
        with self.runtime.locked():
            sent = list(self.state.tasks.values())
        told = {}
        for each in sent:
            current = self.running.get(each.push.task)
            if current is not None:
                state = f"RUNNING_IN_RAY_{current.waits_in}" if current.waits_in else "RUNNING"
                told[each.push.task] = (state, current.started_ns, each.push.name)
            elif not each.ready:
                call = isinstance(each.push, m.PushCall)
                told[each.push.task] = ("PENDING_ACTOR_TASK_ARGS_FETCH" if call else "PENDING_ARGS_FETCH", 0, each.push.name)
        return told

    def is_busy(self) -> bool:
        """Whether anything that was sent here has not ended."""
        return bool(self.state.tasks) or (self.state.is_actor and self.actor is None and not self.init_failed)

    def task_here(self) -> bytes:
        """The task in which the calling thread is."""
        push = (self.current.get() or self.in_main or self._idle).push
        return b"" if push is None else push.task

    def facts(self) -> RuntimeFacts:
        return facts_of(self)


def _same(push: _Push, effect: Effect) -> bool:
    if type(effect) is not w.Run or effect.push.attempt:
        return False
    following = effect.push
    if isinstance(following, m.PushTask):
        return isinstance(push, m.PushTask) and following.function == push.function
    return isinstance(push, m.PushCall) and following.method == push.method
