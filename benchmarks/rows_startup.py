"""From nothing to the first result, and no-ops there and back: every peer can do these."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers import Peer, mean, share
from benchmarks.rows_actors import FRESH_WORKER
from benchmarks.rows_memory import IDLE, PROCESSES
from nbray.microbenchmark.row import Block, Row, repeat, seconds_of

EVERY_PEER = ("ray", "dask", "ipyparallel", "loky", "futures")
#: A batch of no-ops that the slowest peer ends within a second or two.
BATCH = 500
#: Of work that all of them are given.
PIECES = 64


def first_result(peer: Peer, seconds: float) -> float:
    """Importing the package is no part of it: notebooks import once, and what is imported belongs to others too."""

    def begin() -> None:
        peer.start()
        peer.call()

    return seconds_of(begin)


def there_and_back(peer: Peer, seconds: float) -> float:
    repeat(peer.call, seconds * 0.4)
    calls, took_s = repeat(peer.call, seconds)
    return calls / took_s


def throughput(peer: Peer, seconds: float) -> float:
    peer.batch(BATCH // 5)
    calls, took_s = repeat(lambda: peer.batch(BATCH), seconds)
    return BATCH * calls / took_s


def shared_work(peer: Peer, seconds: float) -> float:
    """The same pieces of pure Python for everybody, items per second."""
    seeds = list(range(1, PIECES + 1))
    peer.spread(share, seeds[:8])
    calls, took_s = repeat(lambda: peer.spread(share, seeds), seconds)
    return PIECES * calls / took_s


def shared_arrays(peer: Peer, seconds: float) -> float:
    """A megabyte to a worker and a number back, as every peer moves it by default, items per second."""
    arrays = [np.full(2**17, float(number)) for number in range(PIECES)]
    peer.spread(mean, arrays[:8])
    calls, took_s = repeat(lambda: peer.spread(mean, arrays), seconds)
    return PIECES * calls / took_s


def end(peer: Any, seconds: float) -> float:
    return seconds_of(peer.stop)


STARTUP = Block(
    "startup",
    "Starting, no-ops, idle memory",
    (
        Row("init to first result", "s", first_result, more_is_better=False, target=8, limit=0.5),
        Row("no-op, one at a time", "/s", there_and_back),
        Row(f"no-ops, {BATCH} at a time", "/s", throughput),
        Row(f"{PIECES} pieces of pure Python, a few ms each", "/s", shared_work),
        Row(f"{PIECES} arrays of 1 MiB, the mean of each", "/s", shared_arrays),
        IDLE,
        PROCESSES,
        Row("shutdown", "s", end, more_is_better=False),
    ),
    peers=EVERY_PEER,
)
WORKER = Block("worker", "A fresh worker", (FRESH_WORKER,), first="objects")
