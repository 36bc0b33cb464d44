"""ParallelIterator: shards that are transformed where they are, and the ways to gather them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from nbray.api import remote
from nbray.util.iter.local import LocalIterator
from nbray.util.iter.shards import AsTheyCome, InRounds, PartWorker, Shard
from nbray.util.iter.steps import Step, Transformed


class ParallelIterator(Transformed):
    """Items in shards. It is not iterated over itself, but gathered: `for item in it.gather_async()`."""

    def __init__(self, shards: Sequence[Shard], name: str, *, united: bool = False) -> None:
        """Made by `from_items` and its like."""
        self._shards, self.name, self._united = list(shards), name, united

    def _with(self, step: Step, name: str) -> ParallelIterator:
        shards = [Shard(actor, (*steps, step)) for actor, steps in self._shards]
        return ParallelIterator(shards, self.name + name, united=self._united)

    def __iter__(self) -> NoReturn:
        raise TypeError("You must use it.gather_sync() or it.gather_async() to iterate over the results of a ParallelIterator.")

    def __repr__(self) -> str:
        return f"ParallelIterator[{self.name}]"

    def local_shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> ParallelIterator:
        """Each shard in another order: an item is chosen from `shuffle_buffer_size` that wait."""
        return self._shuffled(shuffle_buffer_size, seed, "local_shuffle")

    def repartition(self, num_partitions: int, batch_ms: float = 0) -> ParallelIterator:
        """The same items in so many other shards, which take them from each of these in turn."""
        worker = remote(PartWorker)
        shards = [Shard(worker.remote(self._shards, num_partitions, part, batch_ms)) for part in range(num_partitions)]
        return ParallelIterator(shards, f"{self.name}.repartition[num_partitions={num_partitions}]")

    # ------------------------------------------------------------------------------------------ gathering

    def batch_across_shards(self) -> LocalIterator:
        """Lists of one item of each shard that has one left."""
        return LocalIterator(InRounds(self._shards), f"{self!r}.batch_across_shards()")

    def gather_sync(self) -> LocalIterator:
        """One item of each shard in turn: the same order every time."""
        gathered = self.batch_across_shards().flatten()
        gathered.name = f"{self!r}.gather_sync()"
        return gathered

    def gather_async(self, batch_ms: float = 0, num_async: int = 1) -> LocalIterator:
        """Items as they come: what comes in `batch_ms` at a time, with `num_async` requests to each shard on their way."""
        return LocalIterator(AsTheyCome(self._shards, batch_ms, num_async), f"{self!r}.gather_async()")

    def take(self, n: int) -> list[Any]:
        """The first `n` items."""
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        """Print the first `n` items."""
        self.gather_sync().show(n)

    # ------------------------------------------------------------------------------------------ shards

    def union(self, other: ParallelIterator) -> ParallelIterator:
        """The shards of both."""
        if not isinstance(other, ParallelIterator):
            raise TypeError(f"other must be of type ParallelIterator, got {type(other)}")
        return ParallelIterator([*self._shards, *other._shards], f"ParallelUnion[{self!r}, {other!r}]", united=True)

    def select_shards(self, shards_to_keep: Collection[int]) -> ParallelIterator:
        """Only the shards with these numbers."""
        if self._united:
            raise ValueError("select_shards() is not allowed after union()")
        if not shards_to_keep:
            raise ValueError("at least one shard must be selected")
        if not all(0 <= index < len(self._shards) for index in shards_to_keep):
            raise AssertionError(f"Invalid actor index in {shards_to_keep}: there are {len(self._shards)} shards")
        kept = [shard for index, shard in enumerate(self._shards) if index in shards_to_keep]
        return ParallelIterator(kept, f"{self!r}.select_shards({len(kept)} total)")

    def num_shards(self) -> int:
        """How many there are."""
        return len(self._shards)

    def shards(self) -> list[LocalIterator]:
        """An iterator for each shard."""
        return [self.get_shard(index) for index in range(len(self._shards))]

    def get_shard(self, shard_index: int, batch_ms: float = 0, num_async: int = 1) -> LocalIterator:
        """The items of one shard; it can be passed to a task, which iterates."""
        if not 0 <= shard_index < len(self._shards):
            raise ValueError("Shard index out of range", shard_index, len(self._shards))
        return LocalIterator(AsTheyCome([self._shards[shard_index]], batch_ms, num_async), f"{self.name}.shard[{shard_index}]")
