"""An actor alive in this worker: its instance, and how its methods run (one by one, in threads, or on an asyncio loop)."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from nbray.engines.port import ActorToken
from nbray.ids import TaskId
from nbray.wire.messages import ActorSpec, PushCall

if TYPE_CHECKING:
    from nbray.worker.executor import Executor


class ActorExit(BaseException):
    """Raised by exit_actor(). A BaseException, so that `except Exception` in a method does not swallow it."""


class LiveActor:
    """One epoch of an actor."""

    def __init__(self, executor: Executor, spec: ActorSpec, epoch: int, cls: type) -> None:
        self.executor = executor
        self.spec = spec
        self.id = spec.actor
        self.name = spec.name
        self.epoch = epoch
        self.cls = cls
        self.instance: Any = None
        self.concurrency = spec.max_concurrency
        self.schedule: Callable[[PushCall], None] | None = None  #: None: the main thread, one by one
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[TaskId, asyncio.Task[None]] = {}

    def build(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.instance = self.cls(*args, **kwargs)
        if self.spec.is_async:
            self._loop = asyncio.new_event_loop()
            self.schedule = self._on_loop
        elif self.spec.max_concurrency > 1:
            pool = ThreadPoolExecutor(self.spec.max_concurrency, thread_name_prefix="nbray-call")
            self.schedule = lambda push: _submit(pool, lambda: self._in_thread(push))

    def live(self) -> None:
        """For an async actor: run its loop in the main thread until the worker is to exit."""
        if self._loop is None:
            return
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self.executor.end()

    def stop_loop(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    # ------------------------------------------------------------------------------------------ methods

    def method(self, name: str) -> Callable[..., Any]:
        if name == "__ray_ready__":
            return lambda: True
        if name == "__ray_terminate__":
            return self._terminate
        if name == "__ray_call__":
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        return getattr(self.instance, name)  # type: ignore[no-any-return]

    def _terminate(self) -> None:
        raise ActorExit

    def title(self) -> str:
        """What its output and errors are called: its own repr if it has one, else the class."""
        if self.instance is None or type(self.instance).__repr__ is object.__repr__:  # type: ignore[comparison-overlap]
            return self.spec.class_name
        try:
            return repr(self.instance)
        except Exception as error:  # noqa: BLE001 -- the user's __repr__ must not take the actor down
            return f"{self.spec.class_name} (its __repr__ raised {type(error).__name__})"

    def token(self) -> ActorToken:
        return ActorToken(self.id, self.spec.class_name, self.spec.methods, self.spec.max_task_retries, None)

    # ------------------------------------------------------------------------------------------ threads and loop

    def _in_thread(self, push: PushCall) -> None:
        try:
            self.executor.execute(push)
        except ActorExit:
            self.executor.end()

    def _on_loop(self, push: PushCall) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._begin, push)

    def _begin(self, push: PushCall) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._run(push), context=contextvars.copy_context())
        self._tasks[push.task] = task
        task.add_done_callback(lambda _t: self._tasks.pop(push.task, None))

    async def _run(self, push: PushCall) -> None:
        executor = self.executor
        current = executor.begin(push)
        started = time.time_ns()
        with executor.engine.cell(push.cell):
            try:
                # Arguments may have to be waited for: on the loop thread only what is here already is loaded.
                args, kwargs = executor.arguments(push)
                if current.cancelled:
                    raise asyncio.CancelledError
                result = self.method(push.method)(*args, **kwargs)
                if inspect.isawaitable(result):
                    result = await result
                values, retriable = executor.stored(push, result), False
            except BaseException as error:  # noqa: BLE001 -- every end of a call is reported
                try:
                    values, retriable = executor.failed(push, current, error)
                except ActorExit:
                    self.stop_loop()
                    return
        executor.running.pop(push.task, None)
        executor.report(push, values, started, retriable, 0)

    def cancel(self, task_id: TaskId) -> None:
        """Async: CancelledError inside. Others only see `is_canceled()`."""
        task = self._tasks.get(task_id)
        if task is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(task.cancel)

    # ------------------------------------------------------------------------------------------ the end

    def farewell(self) -> None:
        """`__ray_shutdown__`, if the class has one, in an orderly exit."""
        hook = getattr(self.instance, "__ray_shutdown__", None)
        if callable(hook):
            hook()


def _submit(pool: ThreadPoolExecutor, call: Callable[[], None]) -> None:
    pool.submit(contextvars.copy_context().run, call)
