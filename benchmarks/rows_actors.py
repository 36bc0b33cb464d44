"""Actors: a process of its own for each, however fast that can be had, and a thousand of them."""

from __future__ import annotations

from typing import Any

from nbray.microbenchmark.actors import plain
from nbray.microbenchmark.row import Row, seconds_of


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


FRESH_WORKER = Row("a fresh worker: an actor made and its first call answered", "ms", fresh_worker, more_is_better=False, limit=30)
