"""The actors of a parallel iterator, and how their items are fetched."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nbray import api
from nbray.actors import ActorHandle
from nbray.util.iter.steps import Step, applied

#: Some items, and whether there are no more.
Items = tuple[list[Any], bool]


class Shard(NamedTuple):
    """An actor, and what it does to its items."""

    actor: ActorHandle
    steps: tuple[Step, ...] = ()


class ParallelIteratorWorker:
    """The class of a shard's actor; classes of actors for `from_actors` are derived from it.

    Whoever reads has a name of its own, and reads from the beginning, unless the items are an iterator, which there is only once.
    """

    def __init__(self, item_generator: Any, repeat: bool) -> None:
        """`item_generator` is an iterable, or a function that gives one."""
        self._given, self._repeat = item_generator, repeat
        self._readers: dict[str, Iterator[Any]] = {}
        self._parts: dict[str, tuple[int, dict[int, deque[Any]]]] = {}  #: items taken so far, and those that wait for their part

    def _items(self, _reader: str) -> Iterator[Any]:
        while True:
            items = self._given() if callable(self._given) else self._given
            if self._repeat and items is iter(items) and not callable(self._given):
                raise ValueError(f"{items!r} cannot be iterated over repeatedly: pass what makes it, lambda: ...")
            yield from items
            if not self._repeat:
                return

    def _reading(self, reader: str, steps: Sequence[Step]) -> Iterator[Any]:
        found = self._readers.get(reader)
        if found is None:
            found = self._readers[reader] = applied(steps, self._items(reader))
        return found

    def par_iter_next(self, reader: str, steps: Sequence[Step], batch_ms: float) -> Items:
        """One item for this reader, or what comes in `batch_ms`."""
        items, until = self._reading(reader, steps), time.monotonic() + batch_ms / 1000
        batch: list[Any] = []
        for item in items:
            batch.append(item)
            if time.monotonic() >= until:
                return batch, False
        self._readers[reader] = iter(())
        return batch, True

    def par_iter_part(self, reader: str, steps: Sequence[Step], parts: int, part: int, batch_ms: float) -> Items:
        """As `par_iter_next`, of the items whose number, modulo `parts`, is `part`."""
        items, until = self._reading(reader, steps), time.monotonic() + batch_ms / 1000
        taken, waiting = self._parts.setdefault(reader, (0, {each: deque() for each in range(parts)}))
        batch: list[Any] = []
        while True:
            while not waiting[part]:
                try:
                    waiting[taken % parts].append(next(items))
                except StopIteration:
                    return batch, True
                taken += 1
                self._parts[reader] = taken, waiting
            batch.append(waiting[part].popleft())
            if time.monotonic() >= until:
                return batch, False


class PartWorker(ParallelIteratorWorker):
    """A shard whose items are a part of those of other shards."""

    def __init__(self, shards: Sequence[Shard], parts: int, part: int, batch_ms: float) -> None:
        super().__init__((), repeat=False)
        self._shards, self._of, self._part, self._batch_ms = shards, parts, part, batch_ms

    def _items(self, reader: str) -> Iterator[Any]:
        def ask(shard: Shard) -> Any:
            return shard.actor.par_iter_part.remote(reader, shard.steps, self._of, self._part, self._batch_ms)

        running = {ask(shard): shard for shard in self._shards}
        while running:
            [ref], _ = api.wait(list(running))
            shard = running.pop(ref)
            items, over = api.get(ref)
            if not over:
                running[ask(shard)] = shard
            yield from items


class AsTheyCome:
    """The items of shards in the order in which they arrive. `actor` is where the last one came from."""

    def __init__(self, shards: Sequence[Shard], batch_ms: float, num_async: int) -> None:
        if num_async < 1:
            raise ValueError("queue depth must be positive")
        if batch_ms < 0:
            raise ValueError("batch time must be positive")
        self._shards, self._batch_ms, self._num_async = shards, batch_ms, num_async
        self.actor: ActorHandle | None = None

    def __iter__(self) -> Iterator[Any]:
        reader, steps = uuid.uuid4().hex, [api.put(shard.steps) for shard in self._shards]

        def ask(index: int) -> Any:
            return self._shards[index].actor.par_iter_next.remote(reader, steps[index], self._batch_ms)

        running = {ask(index): index for _ in range(self._num_async) for index in range(len(self._shards))}
        while running:
            [ref], _ = api.wait(list(running))
            index = running.pop(ref)
            items, over = api.get(ref)
            if not over:
                running[ask(index)] = index
            for item in items:
                self.actor = self._shards[index].actor
                yield item


class InRounds:
    """A list of one item of each shard that has one, again and again."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards

    def __iter__(self) -> Iterator[list[Any]]:
        reader, active = uuid.uuid4().hex, [(shard.actor, api.put(shard.steps)) for shard in self._shards]
        while active:
            told: list[Items] = api.get([actor.par_iter_next.remote(reader, steps, 0) for actor, steps in active])
            active = [each for each, (_, over) in zip(active, told, strict=True) if not over]
            items = [item for some, _ in told for item in some]
            if items:
                yield items
