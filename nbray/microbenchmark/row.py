"""What a row is. A row says what is measured; `alone.py`, or `benchmarks` beside peers, says how often, and of whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

#: What one measurement comes to: one figure, or one for each of those that it compares, by name.
Measured = float | dict[str, float]
Setup = Callable[[Any], Iterator[Callable[[], object]]]

WARM_SHARE = 0.4


@dataclass(frozen=True)
class Row:
    """One line. `measure(peer, seconds)` measures for about `seconds`; `standalone` rows bring their own processes."""

    name: str
    unit: str  #: "/s", "GB/s", "s", "ms", "MB", "KiB", "x", "us"
    measure: Callable[[Any, float], Measured] | None  #: None: nbray has nothing to measure, and `note` says what is missing
    more_is_better: bool = True
    target: float | None = None  #: ratio to reach, against Ray or else against `baseline`
    limit: float | None = None  #: figure to reach, in `unit`
    bound: str = ""  #: key of bounds.measure(): what this machine could do at most
    baseline: str = ""  #: of a row that compares nbray with something other than a peer: what with
    standalone: bool = False
    most_pairs: int | None = None  #: rows that take long settle for fewer
    timeout_s: float = 60.0
    note: str = ""


@dataclass(frozen=True)
class Block:
    """Rows that are measured by one process, one after the other. A pair is this process once for nbray and once for a peer."""

    key: str
    title: str
    rows: tuple[Row, ...]
    peers: tuple[str, ...] = ("ray",)
    is_rays: bool = False  #: a row of Ray's own microbenchmark: counts in the geometric mean
    first: str = ""  #: the block whose process this one's rows share; Ray takes seconds to start, and does all of its own in one


def rate(name: str, per_call: float, setup: Setup, *, warm_calls: int = 1, **others: Any) -> Row:
    """A row that counts calls for a while. `setup(api)` is a generator: what to call, then, after `yield`, what to clean up."""

    def measure(peer: Any, seconds: float) -> float:
        stages = setup(peer.api)
        call = next(stages)
        for _ in range(warm_calls):
            call()
        repeat(call, seconds * WARM_SHARE)
        calls, took_s = repeat(call, seconds)
        for _ in stages:
            raise RuntimeError(f"the set-up of {name!r} yields once")
        return per_call * calls / took_s

    return Row(name, others.pop("unit", "/s"), measure, **others)


def repeat(call: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Call until `seconds` are over, once at least. Returns how often, and how long that took."""
    calls, step = 0, 1
    start = time.perf_counter()
    while True:
        for _ in range(step):
            call()
        calls += step
        passed = time.perf_counter() - start
        if passed >= seconds:
            return calls, passed
        # Calls of microseconds are counted by the hundred, so that reading the clock is no part of them.
        step = max(1, min(1000, int(calls / passed * seconds / 50)))


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
