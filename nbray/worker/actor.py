"""An actor alive in this worker: its instance, and how its methods run (one by one, in threads, or on asyncio loops)."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from nbray.engines.port import ActorToken
from nbray.ids import TaskId
from nbray.wire.messages import SYSTEM_GROUP, ActorSpec, PushCall
from nbray.worker.lanes import Lane, Loop, Threads

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
        self.built = False  #: `__init__` has returned
        self._lanes: dict[str, Lane] = {}  #: by group; a group without one runs in the main thread, one by one
        self._main_loop: Loop | None = None

    def build(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cls: Any = self.cls
        if type(cls).__call__ is type.__call__:
            # In two steps: an `__init__` that is left by exit_actor() leaves an instance, whose `__ray_shutdown__` runs.
            self.instance = object.__new__(cls) if cls.__new__ is object.__new__ else cls.__new__(cls, *args, **kwargs)
            if isinstance(self.instance, cls):
                cls.__init__(self.instance, *args, **kwargs)
        else:
            self.instance = cls(*args, **kwargs)  # a metaclass that makes instances in its own way
        self.built = True
        self._open_lanes()

    def _open_lanes(self) -> None:
        groups, flush = {SYSTEM_GROUP: 1, **self.spec.groups}, self.executor.runtime.flush
        if self.spec.is_async:
            self._lanes = {name: Loop(name, self._run, flush, own_thread=True) for name in groups}
            self._main_loop = self._lanes[""] = Loop("main", self._run, flush, own_thread=False)
            return
        self._lanes = {name: Threads(size, self.executor.execute) for name, size in groups.items()}
        if self.spec.max_concurrency > 1:
            self._lanes[""] = Threads(self.spec.max_concurrency, self.executor.execute)

    def begin(self, push: PushCall) -> bool:
        """Run a call where its group runs. False: in the main thread, which is not ours."""
        lane = self._lanes.get(push.group)
        if lane is None:
            return False
        lane.begin(push)
        return True

    def ends_in_company(self, push: PushCall) -> bool:
        lane = self._lanes.get(push.group)
        return lane is not None and lane.ends_in_company()

    def live(self) -> None:
        """For an async actor: run its loop in the main thread until the worker is to exit."""
        if self._main_loop is not None:
            self._main_loop.serve()
            self.executor.end()

    def stop(self) -> None:
        """The main thread is needed for the end."""
        if self._main_loop is not None:
            self._main_loop.stop()

    # ------------------------------------------------------------------------------------------ methods

    def method(self, name: str) -> Callable[..., Any]:
        if name == "__ray_ready__":
            return lambda: True
        if name == "__ray_terminate__":
            return self.executor.engine.exit_actor
        if name == "__ray_call__":
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        return getattr(self.instance, name)  # type: ignore[no-any-return]

    def title(self) -> str:
        """What its output and errors are called: its own repr if it has one, else the class."""
        if not self.built or type(self.instance).__repr__ is object.__repr__:  # type: ignore[comparison-overlap]
            return self.spec.class_name
        try:
            return repr(self.instance)
        except Exception as error:  # noqa: BLE001 -- the user's __repr__ must not take the actor down
            return f"{self.spec.class_name} (its __repr__ raised {type(error).__name__})"

    def token(self) -> ActorToken:
        return ActorToken(self.id, self.spec.class_name, self.spec.methods, self.spec.max_task_retries, None)

    async def _run(self, push: PushCall) -> None:
        executor = self.executor
        current = executor.begin(push)
        started = time.time_ns()
        executor.engine.enter_cell(push.cell)  # for good: every call has a context of its own
        try:
            # Arguments may have to be waited for: on the loop thread only what is here already is loaded.
            args, kwargs = executor.arguments(push)
            if current.cancelled:
                raise asyncio.CancelledError
            result = self.method(push.method)(*args, **kwargs)
            if push.stream is not None:
                values, retriable = await executor.generators.drain_async(push, current, result), False
            else:
                if type(result) is CoroutineType or inspect.isawaitable(result):
                    result = await result
                values, retriable = executor.stored(push, result), False
        except BaseException as error:  # noqa: BLE001 -- every end of a call is reported
            values, retriable = executor.failed(push, current, error)
        executor.running.pop(push.task, None)
        executor.conclude(push, current, values, started, retriable, 0)

    def cancel(self, task_id: TaskId) -> None:
        """Async: CancelledError inside. Others only see `is_canceled()`."""
        for lane in self._lanes.values():
            lane.cancel(task_id)

    # ------------------------------------------------------------------------------------------ the end

    def farewell(self) -> None:
        """`__ray_shutdown__`, if the class has one, in an orderly exit."""
        hook = getattr(self.instance, "__ray_shutdown__", None)
        if not callable(hook):
            return
        result = hook()
        if inspect.isawaitable(result):
            (self._main_loop or Loop("end", self._run, self.executor.runtime.flush, own_thread=False)).finish(result)
