"""Parallel iterators, as Ray's `ray.util.iter`: items in shards, a shard to an actor, transformed where they are.

    from_range(8, num_shards=2).for_each(f).filter(g).gather_async()

      shard 0, an actor: items -> f -> g --\\
                                            >-- LocalIterator, in the process that gathers: transformed further there
      shard 1, an actor: items -> f -> g --/

Deprecated in Ray, and used by older programs; new ones have generators (`num_returns="streaming"`) and `nbray.util.map_unordered`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nbray.actors import ActorHandle
from nbray.api import remote
from nbray.util.iter.local import LocalIterator
from nbray.util.iter.parallel import ParallelIterator
from nbray.util.iter.shards import ParallelIteratorWorker, Shard

__all__ = [
    "LocalIterator",
    "ParallelIterator",
    "ParallelIteratorWorker",
    "from_actors",
    "from_items",
    "from_iterators",
    "from_range",
]


def from_items(items: Sequence[Any], num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """The items, dealt out to `num_shards` actors in turn; for ever if they `repeat`."""
    kind = type(items[0]).__name__ if items else "None"
    name = f"from_items[{kind}, {len(items)}, shards={num_shards}{_again(repeat)}]"
    items = list(items)
    return from_iterators([items[start::num_shards] for start in range(num_shards)], repeat=repeat, name=name)


def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """0 to n - 1, in `num_shards` stretches; what does not divide is the last one's."""
    size = n // num_shards
    parts = [range(i * size, n if i == num_shards - 1 else (i + 1) * size) for i in range(num_shards)]
    return from_iterators(parts, repeat=repeat, name=f"from_range[{n}, shards={num_shards}{_again(repeat)}]")


def from_iterators(generators: Sequence[Any], repeat: bool = False, name: str | None = None) -> ParallelIterator:
    """A shard for each of these: an iterable, or a function that gives one, which may be what does not pickle."""
    worker = remote(ParallelIteratorWorker)
    actors = [worker.remote(each, repeat) for each in generators]
    return from_actors(actors, name or f"from_iterators[shards={len(actors)}{_again(repeat)}]")


def from_actors(actors: Iterable[ActorHandle], name: str | None = None) -> ParallelIterator:
    """The shards of actors whose class is derived from ParallelIteratorWorker."""
    shards = [Shard(actor) for actor in actors]
    return ParallelIterator(shards, name or f"from_actors[shards={len(shards)}]")


def _again(repeat: bool) -> str:
    return ", repeat=True" if repeat else ""
