"""Objects: Ray's rows about put, get and references, against any module with Ray's API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nbray.microbenchmark.row import Block, rate


def get_small(api: Any) -> Iterator[Callable[[], object]]:
    ref = api.put(0)
    yield lambda: api.get(ref)


def put_small(api: Any) -> Iterator[Callable[[], object]]:
    yield lambda: api.put(0)


def put_small_by_tasks(api: Any) -> Iterator[Callable[[], object]]:
    @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
    def put_100() -> None:
        for _ in range(100):
            api.put(0)

    yield lambda: api.get([put_100.remote() for _ in range(10)])


def put_large(api: Any) -> Iterator[Callable[[], object]]:
    array = np.zeros(100 * 2**20, dtype=np.int64)
    yield lambda: api.put(array)


def put_large_by_tasks(api: Any) -> Iterator[Callable[[], object]]:
    @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
    def put_10() -> None:
        for _ in range(10):
            api.put(np.zeros(10 * 2**20, dtype=np.int64))

    yield lambda: api.get([put_10.remote() for _ in range(10)])


def get_container(api: Any) -> Iterator[Callable[[], object]]:
    @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
    def contains_refs() -> list[Any]:
        return [api.put(1) for _ in range(10_000)]

    ref = contains_refs.remote()
    yield lambda: api.get(ref)


OBJECTS = Block(
    "objects",
    "Objects",
    (
        rate("single client get calls", 1, get_small, target=10),
        rate("single client put calls", 1, put_small, target=20),
        rate("multi client put calls", 1000, put_small_by_tasks, target=10),
        # Fresh pages cost ten times what copying does, whoever maps them: the first calls are not counted, in either.
        # Both count 2**30 bytes, and 100 Mi int64 as 0.8 of them, as Ray's own rows do.
        rate("single client put gigabytes", 0.8, put_large, warm_calls=4, unit="GB/s", target=1.2, bound="copy from zero pages"),
        rate("multi client put gigabytes", 8.0, put_large_by_tasks, unit="GB/s", target=1.0, bound="copy from zero pages"),
        rate("single client get object containing 10k refs", 1, get_container, target=4),
    ),
    is_rays=True,
)
