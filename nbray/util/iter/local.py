"""LocalIterator: items that have been gathered, and what is done to them in this process."""

from __future__ import annotations

import itertools
import queue
import random
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

from nbray.util.iter.shards import AsTheyCome
from nbray.util.iter.steps import Step, Transformed, applied

AHEAD = 2  #: items of each iterator of a union that may wait to be taken
MOST_AT_ONCE = 100  #: items that "*" takes in one round


class LocalIterator(Transformed):
    """Items in this process. It can be passed to a task before it has begun; one process iterates."""

    def __init__(self, source: Iterable[Any], name: str, steps: tuple[Step, ...] = ()) -> None:
        """Made by `gather_sync` and its like."""
        self._source, self.name, self._steps = source, name, steps
        self._begun: Iterator[Any] | None = None

    def _with(self, step: Step, name: str) -> LocalIterator:
        return LocalIterator(self._source, self.name + name, (*self._steps, step))

    def __iter__(self) -> Iterator[Any]:
        if self._begun is None:
            self._begun = applied(self._steps, self._source)
        return self._begun

    def __next__(self) -> Any:
        return next(iter(self))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_begun": None}

    def __repr__(self) -> str:
        return f"LocalIterator[{self.name}]"

    def shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> LocalIterator:
        """In another order: an item is chosen from `shuffle_buffer_size` that wait."""
        return self._shuffled(shuffle_buffer_size, seed, "shuffle")

    def zip_with_source_actor(self) -> LocalIterator:
        """Pairs of the shard's actor and its item, after `gather_async`. Raises ValueError where the actor is not known."""
        return self._with(partial(_with_actor, self._source), ".zip_with_source_actor()")

    def take(self, n: int) -> list[Any]:
        """The next `n` items."""
        return list(itertools.islice(self, n))

    def show(self, n: int = 20) -> None:
        """Print the next `n` items."""
        for item in itertools.islice(self, n):
            print(item)

    def duplicate(self, n: int) -> list[LocalIterator]:
        """`n` iterators with all the items. What one of them has not taken yet is kept for it."""
        if n < 2:
            raise ValueError("Number of copies must be >= 2")
        copies = _Copies(self, n)
        return [LocalIterator(_Copy(copies, index), f"{self.name}.duplicate[{index}]") for index in range(n)]

    def union(
        self, *others: LocalIterator, deterministic: bool = False, round_robin_weights: Sequence[float | str] | None = None
    ) -> LocalIterator:
        """The items of all of them: as they come, or, if `deterministic`, one of each in turn.

        `round_robin_weights` are how many of each in turn; "*" is as many as are there.
        """
        for other in others:
            if not isinstance(other, LocalIterator):
                raise ValueError(f"other must be of type LocalIterator, got {type(other)}")
        every = [self, *others]
        if round_robin_weights and len(round_robin_weights) != len(every):
            raise ValueError("Length of round robin weights must equal number of iterators total.")
        weights = list(round_robin_weights or [1 if deterministic else "*"] * len(every))
        return LocalIterator(_Union(every, weights), f"LocalUnion[{', '.join(map(repr, every))}]")

    @staticmethod
    def get_metrics() -> NoReturn:
        """Ray's counters inside of iterators, which are not built. Raises NotImplementedError."""
        raise NotImplementedError("LocalIterator.get_metrics() is not built; nbray.util.metrics counts in every process")


def _with_actor(source: Iterable[Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    for item in items:
        if not isinstance(source, AsTheyCome) or source.actor is None:
            raise ValueError("Could not identify source actor of item")
        yield source.actor, item


class _Copies:
    """What each copy has still to take."""

    def __init__(self, items: LocalIterator, n: int) -> None:
        self._items, self._waiting = items, [deque[Any]() for _ in range(n)]
        self._lock = threading.Lock()  # copies may be read by the threads of a union

    def next(self, index: int) -> Any:
        with self._lock:
            mine = self._waiting[index]
            if not mine:
                item = next(self._items)
                for waiting in self._waiting:
                    waiting.append(item)
            return mine.popleft()


class _Copy:
    def __init__(self, copies: _Copies, index: int) -> None:
        self._copies, self._index = copies, index

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self._copies.next(self._index)
            except StopIteration:
                return


class _Reader:
    """Reads an iterator ahead, in a thread, so that what is there can be told from what is to come."""

    def __init__(self, items: LocalIterator, news: queue.SimpleQueue[None]) -> None:
        self._items, self._news = items, news
        self._room = threading.Semaphore(AHEAD)
        self._box: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._stopped = False
        threading.Thread(target=self._read, name="nbray-union", daemon=True).start()

    def _read(self) -> None:
        while True:
            self._room.acquire()
            if self._stopped:
                return
            try:
                told: tuple[Any, ...] = (next(self._items),)
            except StopIteration:
                told = ()
            except BaseException as error:  # noqa: BLE001 -- it is raised where the union is read
                told = (None, error)
            self._box.put(told)
            self._news.put(None)
            if len(told) != 1:
                return

    def take(self, most: int) -> Iterator[Any]:
        """What is there. Raises StopIteration's place in a generator, `_Over`, at the end."""
        for _ in range(most):
            try:
                told = self._box.get_nowait()
            except queue.Empty:
                return
            if not told:
                raise _Over
            if len(told) == 2:
                raise told[1]
            self._room.release()
            yield told[0]

    def stop(self) -> None:
        self._stopped = True
        self._room.release()


class _Over(Exception):
    """An iterator has no more items."""


class _Union:
    """Several iterators as one."""

    def __init__(self, every: Sequence[LocalIterator], weights: Sequence[float | str]) -> None:
        self._every, self._weights = every, weights

    def __iter__(self) -> Iterator[Any]:
        news: queue.SimpleQueue[None] = queue.SimpleQueue()
        active: list[tuple[float | str, Any]] = [
            (weight, _Reader(each, news) if weight == "*" else each)
            for weight, each in zip(self._weights, self._every, strict=True)
        ]
        readers = [each for _, each in active if isinstance(each, _Reader)]
        try:
            while active:
                came = False
                for one in list(active):
                    weight, each = one
                    try:
                        for item in each.take(MOST_AT_ONCE) if isinstance(each, _Reader) else _some(each, float(weight)):
                            came = True
                            yield item
                    except _Over:
                        active.remove(one)
                        came = True
                if not came:
                    news.get()  # only iterators that are read ahead are left, and nothing is there
        finally:
            for reader in readers:
                reader.stop()


def _some(items: LocalIterator, weight: float) -> Iterator[Any]:
    """`weight` items; of a fraction, one more as often as that says."""
    for _ in range(int(weight) + (random.random() < weight % 1)):
        try:
            item = next(items)
        except StopIteration:
            raise _Over from None
        yield item
