"""Executor: `concurrent.futures` on the cluster, for programs and libraries that take an executor.

with Executor() as executor:
    executor.submit(f, x).result()
    await asyncio.get_running_loop().run_in_executor(executor, f, x)

future: waiting (only with max_workers) -> a task -> done; cancelled as long as no worker has been given the task
"""

from __future__ import annotations

import concurrent.futures
import inspect
import itertools
import queue
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, ParamSpec, TypeVar

from nbray import api, connection, session
from nbray.exceptions import RaySystemError
from nbray.functions import RemoteFunction
from nbray.options import TASK, checked
from nbray.refs import ObjectRef

P = ParamSpec("P")
T = TypeVar("T")

FUNCTIONS_KEPT = 256  #: functions whose remote form is kept for the next call
NOT_BEGUN = ("WAITING", "QUEUED")  #: task states in which no worker has it


class _Call(NamedTuple):
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class TaskFuture(concurrent.futures.Future[T]):
    """The future of one call. `cancel` succeeds until a worker has been given the task."""

    def __init__(self, executor: _Desk) -> None:
        super().__init__()
        self._desk = executor
        self._ref: ObjectRef[T] | None = None  #: None while it waits for its turn

    def cancel(self) -> bool:
        return self._desk.cancel(self)

    def running(self) -> bool:
        """Whether a worker has it."""
        if self._ref is None or self.done() or session.engine is not self._desk.engine:
            return False
        return not _not_begun(self._ref)

    def result(self, timeout: float | None = None) -> T:
        return super().result(self._waited(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self._waited(timeout))

    def _waited(self, timeout: float | None) -> float | None:
        """Wait as `nbray.wait` does, which frees the CPU of a task that waits for another; what is left of `timeout`."""
        if self._ref is None or self.done() or session.engine is not self._desk.engine:
            return timeout
        began = time.monotonic()
        api.wait([self._ref], timeout=timeout, fetch_local=False)
        return None if timeout is None else max(0.0, timeout - (time.monotonic() - began))

    def _settle(self) -> None:
        """The task has ended. From the desk's thread."""
        assert self._ref is not None
        try:
            value = api.get(self._ref)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it is the future's
            self.set_exception(error)
        else:
            self.set_result(value)


class _Desk:
    """What an Executor and its futures share: who waits for a turn, who is at work, and the thread that takes results."""

    def __init__(self, max_workers: int | None, options: dict[str, Any]) -> None:
        self.max_workers, self.options = max_workers, options
        self.engine = connection.engine()  #: the session that this belongs to: no other is started for what waits
        self.lock = threading.RLock()
        self.waiting: deque[tuple[TaskFuture[Any], _Call]] = deque()
        self.open: set[TaskFuture[Any]] = set()  #: with a task that has not ended
        self.shut = False
        self._functions: OrderedDict[Callable[..., Any], RemoteFunction] = OrderedDict()
        self._generic = RemoteFunction(_call, options)
        self._ended: queue.SimpleQueue[TaskFuture[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, future: TaskFuture[Any], call: _Call) -> None:
        with self.lock:
            if self.shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.waiting.append((future, call))
            self._start_waiting()

    def _start_waiting(self) -> None:
        while self.waiting and (self.max_workers is None or len(self.open) < self.max_workers):
            future, call = self.waiting.popleft()
            try:
                if session.engine is not self.engine:
                    raise RaySystemError("the session of this executor has ended (nbray.shutdown()); make another executor")
                ref = self._submit(call)
            except Exception as error:  # noqa: BLE001 -- arguments that do not fit or do not pickle: the future's, as in a pool
                future.set_exception(error)
                continue
            future._ref = ref
            self.open.add(future)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nbray-executor", daemon=True)
                self._thread.start()
            self.engine.on_ready(ref, lambda done=future: self._ended.put(done))  # type: ignore[misc]

    def _submit(self, call: _Call) -> ObjectRef[Any]:
        function = call.function
        plain = inspect.isfunction(function) and not (
            inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function)
        )
        if not plain:
            return self._generic.remote(function, *call.args, **call.kwargs)  # type: ignore[no-any-return]
        known = self._functions.get(function)
        if known is None:
            known = self._functions[function] = RemoteFunction(function, self.options)
            if len(self._functions) > FUNCTIONS_KEPT:
                self._functions.popitem(last=False)
        return known.remote(*call.args, **call.kwargs)  # type: ignore[no-any-return]

    def cancel(self, future: TaskFuture[Any]) -> bool:
        with self.lock:
            if future.done():
                return future.cancelled()
            if future._ref is None:
                self.waiting = deque(entry for entry in self.waiting if entry[0] is not future)
            elif session.engine is self.engine and _not_begun(future._ref):
                api.cancel(future._ref)
            else:
                return False
            self.open.discard(future)
            concurrent.futures.Future.cancel(future)
            future.set_running_or_notify_cancel()  # tells `wait` and `as_completed`
            self._start_waiting()
        return True

    def _run(self) -> None:
        while not (self.shut and not self.open and not self.waiting):
            future = self._ended.get()
            if future is None:
                continue
            with self.lock:
                mine = future in self.open and future.set_running_or_notify_cancel()
            if mine:
                future._settle()
            with self.lock:
                self.open.discard(future)
                self._start_waiting()

    def close(self) -> None:
        """Take nothing more; the thread ends when everything has."""
        self.shut = True
        self._ended.put(None)


class Executor(concurrent.futures.Executor):
    """Calls as tasks. `max_workers` bounds how many are given to the cluster at a time; None leaves that to its resources.

    `options` are those of `@nbray.remote` for tasks: num_cpus, max_retries, runtime_env ... Arguments that are references are
    passed as their values, as for any task.
    """

    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if options.get("num_returns", 1) != 1:
            raise ValueError(f"num_returns={options['num_returns']!r}: a future has one result")
        self._desk = _Desk(max_workers, checked(TASK, options))
        self._end = weakref.finalize(self, self._desk.close)  # dropped without `shutdown`: its calls end, then its thread
        self._end.atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Run `fn(*args, **kwargs)` as a task. What it raises, the future's `result` raises, also as a RayTaskError."""
        future: TaskFuture[T] = TaskFuture(self._desk)
        self._desk.add(future, _Call(fn, args, kwargs))
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1, **others: Any
    ) -> Iterator[T]:
        """Results in order; `chunksize` calls travel as one task. Raises TimeoutError `timeout` seconds after this call."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **others)
        shared = api.put(fn)
        chunks = super().map(_each, itertools.repeat(shared), _chunks(zip(*iterables, strict=False), chunksize), timeout=timeout)
        return itertools.chain.from_iterable(chunks)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. `cancel_futures`: cancel those that no worker has been given; `wait` for the others."""
        desk = self._desk
        with desk.lock:
            desk.shut = True
            left = [future for future, _ in desk.waiting] + list(desk.open)
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait:
            concurrent.futures.wait(left)
        self._end()


def _not_begun(ref: ObjectRef[Any]) -> bool:
    return session.current().facts_of(ref).get("task_state") in NOT_BEGUN


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _each(function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*args) for args in calls]


def _chunks(calls: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    source = iter(calls)
    while chunk := list(itertools.islice(source, size)):
        yield chunk
