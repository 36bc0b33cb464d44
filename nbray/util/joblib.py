"""joblib on the cluster: scikit-learn's `n_jobs`, and joblib.Parallel, run as tasks.

    register_nbray()
    with joblib.parallel_backend("nbray"):
        GridSearchCV(model, parameters, n_jobs=-1).fit(X, y)

An argument of INLINE_LIMIT bytes or more is put into the object store once per call of Parallel, however many tasks get it.
Workers see it as a read-only view, as joblib's own memory maps are.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any, NamedTuple

from nbray import api, connection
from nbray.config import INLINE_LIMIT
from nbray.refs import ObjectRef
from nbray.util.futures import Executor, TaskFuture

try:
    import joblib
    from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
except ImportError as missing:
    raise ImportError(
        f"nbray.util.joblib needs joblib, which is not installed here ({missing}): pip install joblib (scikit-learn brings it)"
    ) from missing


class _Shared(NamedTuple):
    """Stands in a batch for an argument that travels beside it."""

    number: int


class NbrayBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """`ray_remote_args` are options of the tasks. Inside a task joblib runs sequentially: the task has one CPU."""

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        ray_remote_args: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **others)
        self._options = dict(ray_remote_args or {})
        self._executor: Executor | None = None
        self._running: set[TaskFuture[Any]] = set()
        #: id of a large argument -> itself, so that the id stays its own, and its reference
        self._shared: dict[int, tuple[Any, ObjectRef[Any]]] = {}

    # -- how many

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        connection.engine()
        cpus = max(1, int(api.cluster_resources().get("CPU", 1)))
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(1, cpus + 1 + n_jobs)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, ray_remote_args: dict[str, Any] | None = None, **_others: Any
    ) -> int:
        jobs = self.effective_n_jobs(n_jobs)
        if jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._jobs = jobs
        self._options = dict(ray_remote_args) if ray_remote_args is not None else self._options
        return jobs

    def get_nested_backend(self) -> tuple[Any, int | None]:
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    # -- work

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> concurrent.futures.Future[Any]:
        """`func` is a joblib.BatchedCalls."""
        if self._executor is None:
            self._executor = Executor(max_workers=self._jobs, **self._options)
        refs: list[ObjectRef[Any]] = []

        def stand_in(value: Any) -> Any:
            ref = self._share(value)
            if ref is None:
                return value
            if ref not in refs:
                refs.append(ref)
            return _Shared(refs.index(ref))

        func.items = [
            (function, tuple([stand_in(a) for a in args]), {k: stand_in(v) for k, v in kwargs.items()})
            for function, args, kwargs in func.items
        ]
        future = self._executor.submit(_run_batch, func, *refs)
        assert isinstance(future, TaskFuture)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def _share(self, value: Any) -> ObjectRef[Any] | None:
        known = self._shared.get(id(value))
        if known is None:
            if _size(value) < INLINE_LIMIT:
                return None
            known = self._shared[id(value)] = (value, api.put(value))
        return known[1]

    def retrieve_result_callback(self, out: concurrent.futures.Future[Any]) -> Any:
        return out.result()

    # -- the end

    def stop_call(self) -> None:
        self._shared.clear()

    def terminate(self) -> None:
        self.reset_batch_stats()
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A task failed, or somebody lost patience: nobody will look at the results of the others."""
        for future in list(self._running):
            if not future.cancel() and future._ref is not None:
                api.cancel(future._ref)
        self.terminate()


def _size(value: Any) -> int:
    """Bytes of an array, a table, a sparse matrix or a string, without pickling it; 0 for what is none of these."""
    if isinstance(value, bytes | bytearray | str):
        return len(value)
    size: Any = getattr(value, "nbytes", None)
    if size is None and callable(getattr(value, "memory_usage", None)):  # a pandas table: the sum of its columns
        size = value.memory_usage()
        size = size.sum() if hasattr(size, "sum") else size
    if size is None:
        size = getattr(getattr(value, "data", None), "nbytes", 0)  # a sparse matrix: its values, about half of it
    return int(size)


def _run_batch(batch: Any, *shared: Any) -> Any:
    """In a worker: the batch with its large arguments."""
    batch.items = [
        (
            function,
            tuple([shared[a.number] if type(a) is _Shared else a for a in args]),
            {k: shared[v.number] if type(v) is _Shared else v for k, v in kwargs.items()},
        )
        for function, args, kwargs in batch.items
    ]
    return batch()


def register_nbray() -> None:
    """Make `parallel_backend("nbray")` run on this process's cluster, or on a local one that is started then."""
    joblib.register_parallel_backend("nbray", NbrayBackend)


def register_ray() -> None:
    """As `register_nbray`, under the name that programs written for Ray use."""
    joblib.register_parallel_backend("ray", NbrayBackend)
