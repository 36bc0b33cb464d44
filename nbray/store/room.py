"""Which objects lie in memory, which on disk, and who goes first when there is no room. Pure; a part of the ledger.

    MEMORY ---> SPILLING ---> MEMORY with a file ---> DISK ---> QUEUED ---> RESTORING ---> MEMORY with a file
    (dirty)     (readable)    (clean)                 (memory   (no room    (not
                                                      reused)   yet)        readable)

A spilled object keeps its memory until someone needs the room: then that takes no I/O, and whoever reads it before pays
nothing. So what is "over the threshold" is what could not be had at once: dirty, pinned and lent memory.
"""

from __future__ import annotations

from heapq import nlargest
from typing import Literal

from nbray import config
from nbray.ids import Address, ObjectId, ProcessId
from nbray.machine import Effect
from nbray.store.allocator import Allocator, aligned
from nbray.store.orders import RemoveSpilled, Spill
from nbray.wire.messages import FetchObject, PullObject

State = Literal["MEMORY", "SPILLING", "DISK", "QUEUED", "RESTORING"]
GONE_LIMIT = 16_384  #: objects that left are remembered, the latest; about 3 MB


class Stored:
    """One object of this node. About 200 bytes; a node may hold 100,000."""

    __slots__ = ("crc", "file", "freed", "holds", "id", "offset", "owner", "pins", "primary", "size", "state", "waiting", "writer")

    def __init__(self, id_: ObjectId, owner: Address, writer: ProcessId, offset: int, size: int, primary: bool) -> None:
        self.id = id_
        self.owner = owner
        self.writer = writer
        self.offset: int | None = offset  #: None exactly while DISK or QUEUED
        self.size = size
        self.primary = primary
        self.state: State = "MEMORY"
        self.file = False  #: a complete copy is on disk, with `crc`
        self.crc = 0
        self.pins = 0  #: of readers on this node; the ledger knows whose
        self.holds = 0  #: transfers that read it
        self.freed = False  #: goes as soon as nobody reads or writes it
        self.waiting: list[FetchObject | PullObject] = []  #: for its bytes, while DISK, QUEUED or RESTORING

    @property
    def readable(self) -> bool:
        return self.state in {"MEMORY", "SPILLING"}

    @property
    def name(self) -> str:
        """Of its file."""
        return self.id.hex()


class Room:
    """The objects of a node and the memory under them. Orders to the disk are appended to `out`."""

    def __init__(self, size: int, out: list[Effect]) -> None:
        self.allocator = Allocator(size)
        self.objects: dict[ObjectId, Stored] = {}
        self.gone: dict[ObjectId, tuple[ProcessId, str]] = {}  #: object -> its writer, and what became of the copy here
        self.spill_blocked_until = 0.0
        self.spill_failure = ""
        self.disk_full = False
        self._out = out
        self._clean: dict[ObjectId, None] = {}  #: idle, and its memory can be had at once; least recently used first
        self._dirty: dict[ObjectId, None] = {}  #: idle primaries without a file; least recently used first
        self._clean_bytes = 0
        self._spilling_bytes = 0

    def add(self, stored: Stored) -> None:
        self.objects[stored.id] = stored
        self.gone.pop(stored.id, None)
        self.settle(stored)

    def take(self, size: int) -> int | None:
        """A region of `size` bytes, evicting what costs nothing to evict; None if there is none for now."""
        size = aligned(size)
        offset = self.allocator.allocate(size)
        if offset is not None or self.allocator.size - self.allocator.used + self._clean_bytes < size:
            return offset
        while offset is None and self._clean:
            self._evict(self.objects[next(iter(self._clean))])
            offset = self.allocator.allocate(size)
        return offset

    def settle(self, stored: Stored) -> None:
        """Put the object where its state says: among what can go, at the end of the line, or out if it is freed and idle."""
        self._unlist(stored)
        if stored.pins or stored.holds or stored.state in {"SPILLING", "RESTORING"}:
            return
        if stored.freed:
            self.remove(stored, "its owner freed it")
        elif stored.state != "MEMORY":
            return
        elif stored.primary and not stored.file:
            self._dirty[stored.id] = None
        else:
            self._clean[stored.id] = None
            self._clean_bytes += aligned(stored.size)

    def remove(self, stored: Stored, why: str) -> None:
        self._unlist(stored)
        self.drop_memory(stored)
        if stored.file:
            self._out.append(RemoveSpilled(stored.name))
        del self.objects[stored.id]
        self.remember_gone(stored.id, stored.writer, why)

    def remember_gone(self, object_: ObjectId, writer: ProcessId, why: str) -> None:
        self.gone[object_] = (writer, why)
        if len(self.gone) > GONE_LIMIT:
            del self.gone[next(iter(self.gone))]

    def drop_memory(self, stored: Stored) -> None:
        if stored.offset is not None:
            self.allocator.free(stored.offset, stored.size)
            stored.offset = None

    def press(self, needed: int, now: float) -> None:
        """Write out what exceeds SPILL_START, and as much as it takes to have `needed` bytes for those who wait for room."""
        if now < self.spill_blocked_until:
            return
        wanted = needed - self._clean_bytes - (self.allocator.size - self.allocator.used)
        if needed and wanted <= 0 and not self._spilling_bytes:
            wanted = needed  # enough is free, but not in one piece: go on until it is
        wanted = max(wanted, self.excess())
        while self._spilling_bytes < wanted and self._dirty:
            stored = self.objects[next(iter(self._dirty))]
            self._unlist(stored)
            stored.state = "SPILLING"
            self._spilling_bytes += aligned(stored.size)
            assert stored.offset is not None
            self._out.append(Spill(stored.id, stored.offset, stored.size, stored.name))

    def excess(self) -> int:
        """Bytes over SPILL_START that could not be had at once."""
        return int(self.allocator.used - self._clean_bytes - config.SPILL_START * self.allocator.size)

    def wants_disk(self) -> bool:
        """Whether something would be spilled now if the disk took it."""
        return bool(self._dirty) and self.excess() > 0

    def spilled(self, stored: Stored, crc: int) -> None:
        stored.file, stored.crc = True, crc
        self._spill_ended(stored)
        self.spill_failure, self.disk_full = "", False

    def spill_failed(self, stored: Stored, reason: str, disk_full: bool, now: float) -> None:
        self.spill_blocked_until = now + config.SPILL_RETRY_S
        self.spill_failure, self.disk_full = reason, disk_full
        self._spill_ended(stored)

    def holders(self, count: int) -> list[tuple[ObjectId, int, str]]:
        """(object, size, why it cannot go) of the largest in memory."""
        here = (stored for stored in self.objects.values() if stored.offset is not None)
        return [
            (stored.id, stored.size, self._why_here(stored)) for stored in nlargest(count, here, key=lambda stored: stored.size)
        ]

    def check(self) -> None:
        self.allocator.check()
        clean = spilling = 0
        for id_, stored in self.objects.items():
            assert id_ == stored.id
            assert (stored.offset is None) == (stored.state in {"DISK", "QUEUED"}), (
                f"{stored.name} is {stored.state} at {stored.offset}"
            )
            assert stored.state in {"MEMORY", "SPILLING"} or stored.file, f"{stored.name} has no copy"
            assert stored.pins >= 0
            assert stored.holds >= 0
            assert stored.readable or not (stored.pins or stored.holds), f"{stored.name} is read while {stored.state}"
            assert not stored.waiting or stored.state in {"QUEUED", "RESTORING"}
            idle = stored.state == "MEMORY" and not stored.pins and not stored.holds
            assert not (idle and stored.freed), f"{stored.name} is freed, idle and still here"
            assert (id_ in self._dirty) == (idle and stored.primary and not stored.file)
            assert (id_ in self._clean) == (idle and (stored.file or not stored.primary))
            clean += aligned(stored.size) if id_ in self._clean else 0
            spilling += aligned(stored.size) if stored.state == "SPILLING" else 0
        assert clean == self._clean_bytes
        assert spilling == self._spilling_bytes
        assert len(self._clean) + len(self._dirty) <= len(self.objects)

    def _evict(self, stored: Stored) -> None:
        if stored.file:
            self._unlist(stored)
            self.drop_memory(stored)
            stored.state = "DISK"
        else:
            self.remove(stored, "the secondary copy here was evicted to make room")

    def _spill_ended(self, stored: Stored) -> None:
        stored.state = "MEMORY"
        self._spilling_bytes -= aligned(stored.size)
        self.settle(stored)

    def _unlist(self, stored: Stored) -> None:
        self._dirty.pop(stored.id, None)
        if stored.id in self._clean:
            del self._clean[stored.id]
            self._clean_bytes -= aligned(stored.size)

    def _why_here(self, stored: Stored) -> str:
        if stored.pins:
            return "values over it are alive in a process of this node"
        if stored.holds:
            return "it is being sent to another node"
        if stored.state == "SPILLING":
            return "it is being written to disk"
        if stored.state == "RESTORING":
            return "it is being read back from disk"
        if self.spill_failure and not stored.file:
            return f"it cannot be spilled: {self.spill_failure}"
        return "it is idle, but too little beside it is free"
