"""What is done to items on their way, in a shard or in the process that gathers: each step takes an iterable and gives one.

Steps are module functions with their first arguments bound, so that they travel to shards like any other value.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Self

from nbray import api

Step = Callable[[Iterable[Any]], Iterable[Any]]


class Transformed(ABC):
    """Something with items, and steps that are done to them. Each method gives another such thing; this one stays as it is."""

    name: str

    @abstractmethod
    def _with(self, step: Step, name: str) -> Self:
        """The same, with one more step."""

    def transform(self, fn: Step) -> Self:
        """`fn` takes an iterable of all items and gives one."""
        return self._with(fn, ".transform()")

    def for_each(self, fn: Callable[[Any], Any], max_concurrency: int = 1, resources: Mapping[str, Any] | None = None) -> Self:
        """fn(item) for each item. With a `max_concurrency` other than 1 as tasks, so many at once (0: all), with the options
        `resources`, and in the order in which they end."""
        if max_concurrency < 0:
            raise AssertionError(f"max_concurrency must be non-negative, not {max_concurrency}")
        step = partial(_each, fn) if max_concurrency == 1 else partial(_each_as_task, fn, max_concurrency, resources or {})
        return self._with(step, ".for_each()")

    def filter(self, fn: Callable[[Any], bool]) -> Self:
        """The items of which `fn` is true."""
        return self._with(partial(filter, fn), ".filter()")

    def batch(self, n: int) -> Self:
        """Lists of `n` items; the last may be shorter."""
        return self._with(partial(_batched, n), f".batch({n})")

    def flatten(self) -> Self:
        """The items of the items."""
        return self._with(_flat, ".flatten()")

    def combine(self, fn: Callable[[Any], Iterable[Any]]) -> Self:
        """The items of fn(item), for each item."""
        combined = self.for_each(fn).flatten()
        combined.name = f"{self.name}.combine()"
        return combined

    def _shuffled(self, size: int, seed: int | None, called: str) -> Self:
        return self._with(partial(_shuffled, size, seed), f".{called}(shuffle_buffer_size={size}, seed={seed})")


def applied(steps: Iterable[Step], items: Iterable[Any]) -> Iterator[Any]:
    """The items after all steps, each taken when it is asked for."""
    for step in steps:
        items = step(items)
    return iter(items)


def _each(fn: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    return map(fn, items)


def _each_as_task(fn: Callable[[Any], Any], at_once: int, options: Mapping[str, Any], items: Iterable[Any]) -> Iterator[Any]:
    task = api.remote(fn).options(**options)
    running: list[Any] = []
    for item in items:
        if at_once and len(running) >= at_once:
            ready, running = api.wait(running)
            yield from api.get(ready)
        running.append(task.remote(item))
    while running:
        ready, running = api.wait(running)
        yield from api.get(ready)


def _batched(n: int, items: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) >= n:
            yield batch
            batch = []
    if batch:
        yield batch


def _flat(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        yield from item


def _shuffled(size: int, seed: int | None, items: Iterable[Any]) -> Iterator[Any]:
    """Each item is one of `size` that wait, chosen at random."""
    choice = random.Random(seed)
    waiting: list[Any] = []
    for item in items:
        waiting.append(item)
        if len(waiting) >= size:
            yield waiting.pop(choice.randrange(len(waiting)))
    while waiting:
        yield waiting.pop(choice.randrange(len(waiting)))
