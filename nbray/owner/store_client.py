"""A process's side of its node's object store: room for what it writes, bytes for what it reads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

from nbray.exceptions import ObjectStoreFullError, RaySystemError
from nbray.ids import Address, NodeId, ObjectId, ProcessId
from nbray.owner.guard import InterruptGuard
from nbray.owner.waiting import INSIDE
from nbray.store.arena import Arena
from nbray.store.carver import Carver
from nbray.wire.messages import LoanRegion, Location, Message, RegionLoaned, ReturnRegion, SealObject, StoreFull
from nbray.wire.values import Pickled

_Post = Callable[[Address, Message], None]


class StoreClient:
    """Writes pickled values into the arena and announces them. Safe from any thread; `write` may wait for room."""

    def __init__(self, arena: Arena, node: NodeId, process: ProcessId, post: _Post, guard: InterruptGuard) -> None:
        """`post(to, message)` sends under the runtime's lock."""
        self._guard = guard
        self.arena = arena
        self._node = node
        self._daemon = Address(node, node)
        self._process = process
        self._post = post
        self._carver = Carver()
        self._lock = threading.RLock()
        self._is_inside: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]
        self._requests = itertools.count(1)
        self._answers: dict[int, tuple[threading.Lock, list[Any]]] = {}
        self._gone = False

    def write(self, object_id: ObjectId, owner: Address, pickled: Pickled) -> Location:
        """Seal `pickled` as `object_id`. Raises ObjectStoreFullError with the largest holders when there is no room."""
        self._guard.enter()
        try:
            return self._write(object_id, owner, pickled)
        finally:
            self._guard.leave()

    def _write(self, object_id: ObjectId, owner: Address, pickled: Pickled) -> Location:
        size = pickled.size
        offset = self._room(size)
        try:
            pickled.write(lambda at, part: self.arena.write(offset + at, part))
        except BaseException:
            with self._lock:
                self._carver.give_up(offset, size)
            raise
        self._post(self._daemon, SealObject(object_id, owner, self._process, offset, size))
        self._give_back()
        return Location(self._node, size, self._process)

    def _room(self, size: int) -> int:
        if self._is_inside():
            raise RaySystemError(INSIDE)
        while True:
            with self._lock:
                offset = self._carver.carve(size)
                wanted = self._carver.loan_for(size)
            if offset is not None:
                return offset
            self._borrow(wanted)

    def _borrow(self, size: int) -> None:
        gate = threading.Lock()
        answer: list[Any] = []
        gate.acquire()
        request = next(self._requests)
        self._answers[request] = (gate, answer)
        if self._gone:
            raise ObjectStoreFullError("the node that this process stored objects on is gone; the next call starts another")
        self._post(self._daemon, LoanRegion(request, self._process, size))
        try:
            self._guard.wait(gate.acquire)
        finally:
            del self._answers[request]
        got = answer[0] if answer else None
        if isinstance(got, RegionLoaned):
            with self._lock:
                self._carver.add_loan(got.offset, got.size)
            return
        if isinstance(got, StoreFull):
            raise ObjectStoreFullError(_full(got), wanted=got.wanted, capacity=got.capacity)
        raise ObjectStoreFullError("the node's object store went away while this process waited for room in it")

    def answered(self, event: RegionLoaned | StoreFull) -> None:
        """From the I/O thread. A loan that nobody waits for any more (an interrupted put) goes straight back."""
        waiting = self._answers.get(event.request)
        if waiting is not None:
            waiting[1].append(event)
            waiting[0].release()
        elif isinstance(event, RegionLoaned):
            self._post(self._daemon, ReturnRegion(self._process, event.offset, event.size))

    def _give_back(self) -> None:
        with self._lock:
            regions = self._carver.returnable()
        for offset, size in regions:
            self._post(self._daemon, ReturnRegion(self._process, offset, size))

    def end(self) -> None:
        """The node is gone: whoever waits for room is told."""
        self._gone = True
        for gate, answer in list(self._answers.values()):
            if not answer:
                gate.release()


def _full(full: StoreFull) -> str:
    if full.wanted > full.capacity:
        return (
            f"an object of {full.wanted / 2**20:.1f} MiB is larger than the whole object store of its node, "
            f"{full.capacity / 2**20:.1f} MiB. Start with more: nbray.init(object_store_memory=...), or make it in parts."
        )
    holders = "".join(f"\n    {size / 2**20:10.1f} MiB  {object_id.hex()}  {why}" for object_id, size, why in full.holders[:10])
    return (
        f"no room for {full.wanted / 2**20:.1f} MiB in the object store of {full.capacity / 2**20:.1f} MiB; "
        f"the largest objects in it:{holders}\n"
        "Drop references that are no longer needed, or start with more: nbray.init(object_store_memory=...)."
    )
