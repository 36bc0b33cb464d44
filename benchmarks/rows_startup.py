"""From nothing to the first result, and no-ops there and back: every peer can do these."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import Peer
from benchmarks.rows_actors import FRESH_WORKER
from benchmarks.rows_memory import IDLE, PROCESSES
from nbray.microbenchmark.row import Block, Row, repeat, seconds_of

EVERY_PEER = ("ray", "dask", "ipyparallel", "loky", "futures")
#: A batch of no-ops that the slowest peer ends within a second or two.
BATCH = 500


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


def end(peer: Any, seconds: float) -> float:
    return seconds_of(peer.stop)


STARTUP = Block(
    "startup",
    "Starting, no-ops, idle memory",
    (
        Row("init to first result", "s", first_result, more_is_better=False, target=8, limit=0.5),
        Row("no-op, one at a time", "/s", there_and_back),
        Row(f"no-ops, {BATCH} at a time", "/s", throughput),
        IDLE,
        PROCESSES,
        Row("shutdown", "s", end, more_is_better=False),
    ),
    peers=EVERY_PEER,
)
WORKER = Block("worker", "A fresh worker", (FRESH_WORKER,), first="objects")
