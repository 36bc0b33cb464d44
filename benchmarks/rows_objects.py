"""Very many objects at once, against any module with Ray's API."""

from __future__ import annotations

import functools
from typing import Any

from nbray.microbenchmark.row import Block, Row, repeat, seconds_of

MANY, RETURNS = 10_000, 3000


def many_arguments(peer: Any, seconds: float) -> float:
    api = peer.api
    refs = _many_puts(api)

    @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
    def count(*values: Any) -> int:
        return len(values)

    api.get(count.remote(*refs[:10]))
    return seconds_of(lambda: api.get(count.remote(*refs)))


def many_returns(peer: Any, seconds: float) -> float:
    api = peer.api

    @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
    def zeros(n: int) -> list[int]:
        return [0] * n

    api.get(zeros.options(num_returns=10).remote(10))
    return seconds_of(lambda: api.get(zeros.options(num_returns=RETURNS).remote(RETURNS)))


def many_in_one_get(peer: Any, seconds: float) -> float:
    refs = _many_puts(peer.api)
    return seconds_of(lambda: peer.api.get(refs))


def thousand_small(peer: Any, seconds: float) -> float:
    refs = _many_puts(peer.api)[:1000]
    peer.api.get(refs)
    calls, took_s = repeat(lambda: peer.api.get(refs), seconds)
    return calls / took_s


@functools.cache
def _many_puts(api: Any) -> list[Any]:
    """Once per process: Ray takes seconds for them."""
    return [api.put(1) for _ in range(MANY)]


LARGE = Block(
    "large",
    "Very many of one thing",
    (
        Row("10,000 reference arguments to one task", "s", many_arguments, more_is_better=False, target=5, most_pairs=3),
        Row("3,000 returns of one task", "s", many_returns, more_is_better=False, target=5, most_pairs=3),
        Row("1,000 small objects in one get, again and again", "/s", thousand_small, target=5, most_pairs=3),
        Row("10,000 objects in one get", "s", many_in_one_get, more_is_better=False, target=5, most_pairs=3),
    ),
)
