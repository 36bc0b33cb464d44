"""What the ledger is told besides messages, and what it orders. Facts come back for Spill and Restore, in any order.

The shell carries WriteChunk and SendChunk out at once and in order: the ledger reuses memory on the strength of that. Spill,
Restore and RemoveSpilled of one name are carried out in the order in which they were given (spill.py does both).
"""

from __future__ import annotations

import msgspec

from nbray.ids import Address, ObjectId, ProcessId
from nbray.machine import Effect


class Fact(msgspec.Struct, frozen=True, gc=False):
    """Base of the ledger's own events."""


class ProcessExited(Fact, frozen=True, gc=False):
    """A process is gone, on this node or any other: its loans, pins and requests end, and what it owned is freed."""

    process: ProcessId


class SpillDone(Fact, frozen=True, gc=False):
    """The file is complete. `crc` is the crc32 of its bytes."""

    object: ObjectId
    crc: int


class SpillFailed(Fact, frozen=True, gc=False):
    """Nothing is left of the file; the memory copy stands. `disk_full`: for want of room, and not for an I/O error."""

    object: ObjectId
    reason: str
    disk_full: bool


class RestoreDone(Fact, frozen=True, gc=False):
    """The region holds the object's bytes, and their crc32 was right."""

    object: ObjectId


class RestoreFailed(Fact, frozen=True, gc=False):
    """`corrupt`: the file is damaged, short or missing, for good; else reading it may work another time."""

    object: ObjectId
    corrupt: bool
    reason: str


class Spill(Effect, frozen=True, gc=False):
    """Write the region to the file `name`. Answered by SpillDone or SpillFailed."""

    object: ObjectId
    offset: int
    size: int
    name: str


class Restore(Effect, frozen=True, gc=False):
    """Read the file `name` into the region. Answered by RestoreDone or RestoreFailed."""

    object: ObjectId
    offset: int
    size: int
    name: str
    crc: int


class RemoveSpilled(Effect, frozen=True, gc=False):
    name: str


class WriteChunk(Effect, frozen=True, gc=False):
    """Copy `data` into the arena at `offset`."""

    offset: int
    data: bytes


class SendChunk(Effect, frozen=True, gc=False):
    """Send PushChunk(ticket, object, offset, total, crc, data) to `to`; data is the arena's [source, source + length)."""

    to: Address
    ticket: bytes
    object: ObjectId
    offset: int
    length: int
    total: int
    source: int
