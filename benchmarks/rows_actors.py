"""Actors: a process of its own for each, however fast that can be had, and a thousand of them."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import Any

import psutil

from nbray.microbenchmark.actors import plain
from nbray.microbenchmark.row import Block, Row, seconds_of


def fresh_worker(peer: Any, seconds: float) -> float:
    """An actor needs a process of its own: from asking for it to its first answer, in ms. Median of five, one after another."""
    actor_class = plain(peer.api)
    took, made = [], []

    def make() -> None:
        made.append(actor_class.remote())
        peer.api.get(made[-1].small.remote())

    for _ in range(6):
        took.append(seconds_of(make))
    for actor in made:
        peer.api.kill(actor)
    return sorted(took[1:])[2] * 1000


#: NBRAY_BENCH_ACTORS makes it smaller, to see that it works.
MANY = int(os.environ.get("NBRAY_BENCH_ACTORS", "1000"))


@functools.cache
def _many(api: Any, n: int) -> dict[str, float]:
    """`n` actors, each in a process of its own: all made, all called, and what memory they add; then all ended."""
    actor_class = plain(api)
    me = psutil.Process()
    before = _memory(me)
    start = time.perf_counter()
    actors = [actor_class.remote() for _ in range(n)]
    api.get([actor.small.remote() for actor in actors])
    took_s = time.perf_counter() - start
    added = _memory(me) - before
    start = time.perf_counter()
    api.get([actor.small.remote() for actor in actors])
    calls_s = time.perf_counter() - start
    for actor in actors:
        api.kill(actor)
    return {"made": took_s, "MB": added / n / 1e6, "called": n / calls_s}


def _memory(me: psutil.Process) -> int:
    """Of all processes under this one, every page counted once."""
    total = 0
    for process in me.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total


THOUSAND = (
    Row("1,000 actors made, and each called once", "s", lambda peer, _: _many(peer.api, MANY)["made"], more_is_better=False,
        timeout_s=300, most_pairs=1),
    Row("the same, each called once more", "/s", lambda peer, _: _many(peer.api, MANY)["called"], timeout_s=300, most_pairs=1),
    Row("memory of one of them", "MB", lambda peer, _: _many(peer.api, MANY)["MB"], more_is_better=False,
        timeout_s=300, most_pairs=1),
)  # fmt: skip
FRESH_WORKER = Row("a fresh worker: an actor made and its first call answered", "ms", fresh_worker, more_is_better=False, limit=30)
THOUSAND_ACTORS = Block("thousand", "A thousand actors", THOUSAND, peers=())
