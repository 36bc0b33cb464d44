"""Pool: the standard library's, with actors for processes."""

from __future__ import annotations

import itertools
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from nbray import api, connection
from nbray.util.multiprocessing.crew import Batch, Crew
from nbray.util.multiprocessing.results import (
    AsyncResult,
    Deliver,
    IMapIterator,
    OrderedIMapIterator,
    UnorderedIMapIterator,
)

BATCHES_PER_PROCESS = 4  #: of a `map` without a chunksize: enough to even out, few enough to be cheap
WINDOW = 2  #: batches per process that an imap has on their way: one running, one to come


class Pool:
    """`processes` actors (the cluster's CPUs) that run what they are given. Starts a local cluster if there is none.

    `ray_address` is a cluster to attach to; `ray_remote_args` are options of the actors, which take no CPU by default. The
    start method belongs to the cluster, so `context` has no effect. Raises ValueError for more processes than there are CPUs.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        if context is not None:
            warnings.warn("Pool(context=...) has no effect: the cluster starts its workers its own way", UserWarning, stacklevel=2)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if maxtasksperchild is not None and maxtasksperchild <= 0:
            raise ValueError("maxtasksperchild must be a positive int or None")
        self._processes = _processes(processes, ray_address)
        options = {"num_cpus": 0, **(ray_remote_args or {})}
        self._crew = Crew(self._processes, initializer, tuple(initargs or ()), maxtasksperchild, options)
        self._closed = False
        self._feeding: list[IMapIterator] = []
        # A pool that is dropped takes its actors with it: nothing but its thread would hold them.
        self._end = weakref.finalize(self, self._crew.kill)
        self._end.atexit = False

    # -- one call

    def apply(self, func: Callable[..., Any], args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None) -> Any:
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Run `func(*args, **kwargs)`. The callbacks run in a thread of the pool, and should return at once."""
        self._check_running()
        result = AsyncResult(1, single=True, callback=callback, error_callback=error_callback)
        self._crew.add([Batch(func, [(args or (), kwargs or {})], result.deliver_to(0))])
        return result

    # -- lists

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        return self._map_async(func, _ones(iterable), chunksize, callback, error_callback)

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None) -> list[Any]:
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        return self._map_async(func, ((tuple(args), {}) for args in iterable), chunksize, callback, error_callback)

    def _map_async(
        self, func: Callable[..., Any], calls: Iterator[Any], chunksize: int | None, callback: Any, error_callback: Any
    ) -> AsyncResult:
        self._check_running()
        every = list(calls)
        size = _checked_size(chunksize) or max(1, -(-len(every) // (self._processes * BATCHES_PER_PROCESS)))
        batches = list(_batched(every, size))
        result = AsyncResult(len(batches), single=False, callback=callback, error_callback=error_callback)
        shared = api.put(func) if len(batches) > 1 else func
        self._crew.add([Batch(shared, calls, result.deliver_to(i)) for i, calls in enumerate(batches)])
        return result

    # -- iterators

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1) -> IMapIterator:
        """Results in order, as an iterator. `iterable` may be endless: it is read as results are taken."""
        return self._imap(OrderedIMapIterator, func, iterable, chunksize)

    def imap_unordered(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1) -> IMapIterator:
        """As `imap`, each result as soon as it is there."""
        return self._imap(UnorderedIMapIterator, func, iterable, chunksize)

    def _imap(
        self, kind: type[IMapIterator], func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None
    ) -> IMapIterator:
        self._check_running()
        shared = api.put(func)
        crew = self._crew

        def submit(calls: list[Any], deliver: Deliver) -> None:
            crew.add([Batch(shared, calls, deliver)])

        batches = _batched(_ones(iterable), _checked_size(chunksize) or 1)
        iterator = kind(submit, batches, WINDOW * self._processes, self._feeding.remove)
        self._feeding.append(iterator)
        iterator.feed()
        return iterator

    # -- the end

    def _check_running(self) -> None:
        if self._closed:
            raise ValueError("Pool not running")

    def close(self) -> None:
        """Take nothing more. What was given is finished, iterators included."""
        if self._closed:
            return
        self._closed = True
        for iterator in list(self._feeding):
            iterator.read_all()

    def terminate(self) -> None:
        """End at once. What had not finished fails with RayActorError."""
        self._closed = True
        self._end()

    def join(self) -> None:
        """Wait for everything that was given, and for the actors to end. Raises ValueError before `close` or `terminate`."""
        if not self._closed:
            raise ValueError("Pool is still running")
        self._crew.wait_idle()
        self._crew.finish()
        self._end.detach()

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.terminate()


def _processes(wanted: int | None, address: str | None) -> int:
    """How many, after attaching to a cluster or starting one."""
    if wanted is not None and wanted <= 0:
        raise ValueError("Processes in the pool must be >0.")
    if not connection.is_initialized():
        address = address or os.environ.get("NBRAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
        if address in (None, "local"):
            connection.init(address, num_cpus=wanted)
        else:
            connection.init(address)
    cpus = int(api.cluster_resources().get("CPU", 0))
    if wanted is None:
        return max(1, cpus)
    if wanted > cpus:
        raise ValueError(
            f"Tried to start a pool with {wanted} processes on an existing cluster, but there are only {cpus} CPUs in the cluster."
        )
    return wanted


def _ones(iterable: Iterable[Any]) -> Iterator[Any]:
    return (((item,), {}) for item in iterable)


def _checked_size(chunksize: int | None) -> int | None:
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")
    return chunksize


def _batched(calls: Iterable[Any], size: int) -> Iterator[list[Any]]:
    source = iter(calls)
    while batch := list(itertools.islice(source, size)):
        yield batch
