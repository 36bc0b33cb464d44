"""nbray by itself, on the machine at hand: a local cluster of its own, and the rows of Ray's microbenchmark one after the other."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterator
from types import SimpleNamespace

import msgspec

import nbray
from nbray.microbenchmark.actors import ACTORS, ASYNC_ACTORS
from nbray.microbenchmark.calls import CALLS
from nbray.microbenchmark.objects import OBJECTS
from nbray.microbenchmark.row import Row

#: In the order in which they are run.
ROWS = tuple(row for block in (OBJECTS, CALLS, ACTORS, ASYNC_ACTORS) for row in block.rows)
#: The median of so many measurements counts; the least and the most are the spread.
TIMES = 3


class Figure(msgspec.Struct, frozen=True):
    """What one row came to, per second; nothing but `error` if it failed."""

    name: str
    unit: str  #: "/s", or "GB/s" with GB of 2**30 bytes
    per_second: float | None = None
    least: float | None = None
    most: float | None = None
    error: str = ""


def matching(pattern: str) -> list[Row]:
    """The rows whose name has the regular expression in it. Raises ValueError for one that is none, or matches nothing."""
    try:
        found = [row for row in ROWS if re.search(pattern, row.name, re.IGNORECASE)]
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if not found:
        raise ValueError(f"no row has {pattern!r} in its name; there are: {'; '.join(row.name for row in ROWS)}")
    return found


def run(rows: list[Row], seconds: float) -> Iterator[Figure]:
    """Measure each for about `TIMES` times so many seconds, on a cluster that is started here and ended at the end."""
    # `custom` is what the row about placement groups asks for.
    nbray.init(address="local", num_cpus=os.cpu_count() or 1, resources={"custom": 100}, log_to_driver=False)
    try:
        for row in rows:
            yield _figure(row, seconds)
    finally:
        nbray.shutdown()


def _figure(row: Row, seconds: float) -> Figure:
    peer = SimpleNamespace(api=nbray)
    assert row.measure is not None
    try:
        found = [row.measure(peer, seconds) for _ in range(TIMES)]
    except Exception as error:  # noqa: BLE001 -- a row that this machine has no room for is a line of the table; the others go on
        return Figure(row.name, row.unit, error=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    rates = [each for each in found if isinstance(each, float)]
    return Figure(row.name, row.unit, statistics.median(rates), min(rates), max(rates))
