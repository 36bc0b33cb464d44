"""The peers: for each the least that starts it, calls it and ends it.

`nbray` and `ray` also have `api`, the module, for rows that are written in Ray's API. Every peer has two workers per two CPUs:
as many as the machine has.
"""

from __future__ import annotations

import builtins
import importlib
import multiprocessing
import os
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol

WORKERS = os.cpu_count() or 2


def noop() -> bytes:
    return b"ok"


def share(seed: int) -> float:
    """One piece of the work that every peer is given: some milliseconds of pure Python, a number in, a number out."""
    inside, x = 0, seed
    for _ in range(20_000):
        x = (1103515245 * x + 12345) % 2147483648
        y = (1103515245 * x + 12345) % 2147483648
        inside += x * x + y * y <= 2147483648 * 2147483648
        x = y
    return 4 * inside / 20_000


def mean(array: Any) -> float:
    """One piece of the other: a megabyte in, a number out."""
    return float(array.mean())


def _local(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function as if it were a notebook's: it travels by value, where a peer can do that."""
    made = types.FunctionType(function.__code__, {"__builtins__": builtins}, function.__name__)
    made.__module__ = "__main__"
    return made


def _by_value() -> Callable[[], bytes]:
    """A no-op that travels by value: the peers' workers need not be able to import this package."""

    def small_value() -> bytes:
        return b"ok"

    return small_value


class Peer(Protocol):
    name: str
    api: Any

    def prepare(self) -> None:
        """Import the package; no part of starting."""
        ...

    def start(self) -> None: ...

    def call(self) -> object:
        """One no-op there and back."""
        ...

    def batch(self, n: int) -> object:
        """`n` no-ops submitted, and all their results here."""
        ...

    def spread(self, function: Callable[[Any], float], items: list[Any]) -> list[float]:
        """`function` of every item, by all workers."""
        ...

    def stop(self) -> None: ...


class RayLike:
    """Ray, or whatever has its API."""

    def __init__(self, name: str, **start: Any) -> None:
        self.name, self._start = name, start
        self.api: Any = None
        self._noop: Any = None

    def prepare(self) -> None:
        self.api = importlib.import_module(self.name)

    def start(self) -> None:
        self.api.init(**self._start)
        self._noop = self.api.remote(_by_value())

    def call(self) -> object:
        return self.api.get(self._noop.remote())

    def batch(self, n: int) -> object:
        return self.api.get([self._noop.remote() for _ in range(n)])

    def spread(self, function: Callable[[Any], float], items: list[Any]) -> list[float]:
        remote = self.api.remote(_local(function))
        return list(self.api.get([remote.remote(item) for item in items]))

    def stop(self) -> None:
        self.api.shutdown()


class Dask:
    """dask.distributed: one process per worker, as the others have."""

    name = "dask"
    api: Any = None

    def prepare(self) -> None:
        self._package = importlib.import_module("distributed")

    def start(self) -> None:
        self._cluster = self._package.LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None)
        self._client = self._package.Client(self._cluster)
        self._noop = _by_value()

    def call(self) -> object:
        return self._client.submit(self._noop, pure=False).result()

    def batch(self, n: int) -> object:
        return self._client.gather([self._client.submit(self._noop, pure=False) for _ in range(n)])

    def spread(self, function: Callable[[Any], float], items: list[Any]) -> list[float]:
        return list(self._client.gather(self._client.map(_local(function), items, pure=False)))

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()


class IPyParallel:
    name = "ipyparallel"
    api: Any = None

    def prepare(self) -> None:
        self._package = importlib.import_module("ipyparallel")

    def start(self) -> None:
        self._cluster = self._package.Cluster(n=WORKERS, log_level=40)
        self._client = self._cluster.start_and_connect_sync(activate=False)
        self._view = self._client.load_balanced_view()
        self._noop = _by_value()

    def call(self) -> object:
        return self._view.apply_sync(self._noop)

    def batch(self, n: int) -> object:
        return [each.get() for each in [self._view.apply_async(self._noop) for _ in range(n)]]

    def spread(self, function: Callable[[Any], float], items: list[Any]) -> list[float]:
        return list(self._view.map_sync(_local(function), items))

    def stop(self) -> None:
        self._client.close()
        self._cluster.stop_cluster_sync()


class Loky:
    """joblib's own pool, through its executor: joblib.Parallel has no single calls."""

    name = "loky"
    api: Any = None

    def prepare(self) -> None:
        self._package = importlib.import_module("joblib.externals.loky")

    def start(self) -> None:
        self._pool = self._package.get_reusable_executor(max_workers=WORKERS)

    def call(self) -> object:
        return self._pool.submit(noop).result()

    def batch(self, n: int) -> object:
        return [each.result() for each in [self._pool.submit(noop) for _ in range(n)]]

    def spread(self, function: Callable[[Any], float], items: list[Any]) -> list[float]:
        return list(self._pool.map(function, items))

    def stop(self) -> None:
        self._pool.shutdown(wait=True)


class Processes:
    """concurrent.futures: no cluster, no objects, functions by name only. The least that a process pool can cost."""

    name = "futures"
    api: Any = None

    def prepare(self) -> None:
        pass

    def start(self) -> None:
        self._pool = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork"))

    def call(self) -> object:
        return self._pool.submit(noop).result()

    def batch(self, n: int) -> object:
        return [each.result() for each in [self._pool.submit(noop) for _ in range(n)]]

    def spread(self, function: Callable[[Any], float], items: list[Any]) -> list[float]:
        return list(self._pool.map(function, items))

    def stop(self) -> None:
        self._pool.shutdown(wait=True)


#: By name, and how a person knows them.
TITLES = {
    "nbray": "nbray",
    "ray": "Ray",
    "dask": "Dask",
    "ipyparallel": "ipyparallel",
    "loky": "joblib/loky",
    "futures": "concurrent.futures",
}
#: The package whose version goes into the table.
PACKAGES = {"nbray": "nbray", "ray": "ray", "dask": "distributed", "ipyparallel": "ipyparallel", "loky": "joblib"}


def make(name: str) -> Peer:
    # `custom` is what Ray's row about placement groups asks for.
    if name == "nbray":
        return RayLike("nbray", num_cpus=WORKERS, resources={"custom": 100})
    if name == "ray":
        return RayLike("ray", num_cpus=WORKERS, resources={"custom": 100}, logging_level="ERROR", log_to_driver=False)
    others: dict[str, type[Peer]] = {"dask": Dask, "ipyparallel": IPyParallel, "loky": Loky, "futures": Processes}
    return others[name]()
