"""One member's side of a group: arrays cut into chunks, left in the object store, and put together again."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from nbray import api, session
from nbray.exceptions import RayActorError
from nbray.refs import ObjectRef
from nbray.util.collective import rendezvous
from nbray.util.collective.types import CollectiveError, ReduceOp

Array = npt.NDArray[Any]

#: Arrays up to this many bytes travel in the messages, all of them to everybody: one round instead of two.
SMALL = 32 * 1024
AGAIN_S = 0.05  #: between attempts to join, while a group of the same name is ending


class Group:
    """A member. Its operations are called in the same order by every member; not from two threads at once."""

    def __init__(self, name: str, rank: int, world_size: int, timeout_s: float) -> None:
        """Waits for the other members. Raises CollectiveError when they do not come."""
        self.name, self.rank, self.world_size, self._timeout_s = name, rank, world_size, timeout_s
        self._rounds = 0
        self._sent: dict[int, int] = {}
        self._received: dict[int, int] = {}
        facts = session.current().facts()
        deadline = time.monotonic() + timeout_s
        while True:
            self._actor = rendezvous.of(name, world_size)
            try:
                joined, why = api.get(self._actor.join.remote(rank, world_size, facts.node.hex(), facts.process.hex(), timeout_s))
            except RayActorError:
                joined, why = False, None  # the one of an earlier group, which has ended just now
            if joined:
                return
            if why is not None or time.monotonic() > deadline:
                raise self._error(why or f"an earlier group of this name has not ended after {timeout_s:g} s")
            time.sleep(AGAIN_S)

    def _error(self, why: str) -> CollectiveError:
        return CollectiveError(f"collective group {self.name!r}, rank {self.rank} of {self.world_size}: {why}")

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            fine, value = api.get(getattr(self._actor, method).remote(*args))
        except RayActorError as error:
            raise self._error(f"the actor where its members meet is gone: {error}") from error
        if not fine:
            raise self._error(value)
        return value

    def _exchange(self, label: tuple[Any, ...], part: Any) -> list[Any]:
        """Everybody's part, by rank."""
        self._rounds += 1
        parts: list[Any] = self._ask("exchange", self.rank, self._rounds, label, part, self._timeout_s)
        return parts

    # -- operations

    def barrier(self) -> None:
        self._exchange(("barrier",), None)

    def allreduce(self, array: Array, op: ReduceOp) -> None:
        """In place."""
        if array.nbytes <= SMALL:
            parts = self._exchange(_label("allreduce", array, op), array)
            array[...] = _combined(parts, op)
        else:
            chunks = self._exchange(("allreduce", "gather"), [api.put(self._reduced_chunk("allreduce", array, op))])
            self._fill(array, chunks)

    def reduce(self, array: Array, target: int, op: ReduceOp) -> None:
        """In place at `target`; the arrays of the others stay as they are."""
        if array.nbytes <= SMALL:
            parts = self._exchange((*_label("reduce", array, op), target), array)
            if self.rank == target:
                array[...] = _combined(parts, op)
        else:
            chunks = self._exchange(("reduce", "gather", target), [api.put(self._reduced_chunk("reduce", array, op))])
            if self.rank == target:
                self._fill(array, chunks)

    def _reduced_chunk(self, name: str, array: Array, op: ReduceOp) -> Array:
        """Every rank combines one chunk of all arrays: this rank's."""
        mine = np.array_split(np.ascontiguousarray(array).reshape(-1), self.world_size)
        refs = self._exchange(_label(name, array, op), [api.put(chunk) for chunk in mine])
        return _combined(api.get([every[self.rank] for every in refs]), op)

    def _fill(self, array: Array, chunks: list[list[ObjectRef[Array]]]) -> None:
        array[...] = np.concatenate(api.get([ref for (ref,) in chunks])).reshape(array.shape)

    def broadcast(self, array: Array, source: int) -> None:
        """In place, from `source`."""
        part = _packed(array) if self.rank == source else None
        parts = self._exchange((*_label("broadcast", array), source), part)
        if self.rank != source:
            array[...] = _unpacked(parts[source])

    def allgather(self, arrays: list[Array], array: Array) -> None:
        """`arrays[i]` becomes the array of rank i."""
        for into, part in zip(arrays, self._exchange(_label("allgather", array), _packed(array)), strict=True):
            into[...] = _unpacked(part)

    def reducescatter(self, array: Array, arrays: list[Array], op: ReduceOp) -> None:
        """`array` becomes the combination of everybody's `arrays[rank]`."""
        parts = self._exchange(_label("reducescatter", array, op), [_packed(each) for each in arrays])
        array[...] = _combined([_unpacked(every[self.rank]) for every in parts], op)

    def send(self, array: Array, target: int) -> None:
        """Returns when it is on its way."""
        number = self._sent[target] = self._sent.get(target, 0) + 1
        self._ask("send", self.rank, target, number, _packed(array))

    def recv(self, array: Array, source: int) -> None:
        """In place, what `source` sent next."""
        number = self._received[source] = self._received.get(source, 0) + 1
        array[...] = _unpacked(self._ask("receive", source, self.rank, number, self._timeout_s))

    def destroy(self) -> None:
        try:
            api.get(self._actor.leave.remote(self.rank))
        except RayActorError:
            return  # it has ended with the others


def _label(name: str, array: Array, op: ReduceOp | None = None) -> tuple[Any, ...]:
    """What all members must agree on."""
    return (name, *([] if op is None else [op.name]), str(array.shape), str(array.dtype))


def _packed(array: Array) -> Any:
    """A small array itself, a larger one by reference, in a list so that it stays one."""
    return np.array(array) if array.nbytes <= SMALL else [api.put(array)]


def _unpacked(part: Any) -> Array:
    return api.get(part[0]) if isinstance(part, list) else part  # type: ignore[no-any-return]


def _combined(parts: list[Array], op: ReduceOp) -> Array:
    """In the order of the ranks, so that everybody has the same bits. The parts are read-only views."""
    if len(parts) == 1:
        return np.array(parts[0])
    first = np.asarray(op.combine(parts[0], parts[1], dtype=parts[0].dtype))  # of arrays without dimensions it makes a scalar
    return functools.reduce(lambda total, part: op.combine(total, part, out=total), parts[2:], first)
