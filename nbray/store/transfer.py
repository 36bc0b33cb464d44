"""The bytes of a transfer: out of the sender's arena, into the receiver's. What to move, and when, is the ledger's to say."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from nbray.ids import Address
from nbray.store.arena import Arena
from nbray.store.orders import SendChunk, WriteChunk
from nbray.wire.messages import PushChunk


def move_chunk(arena: Arena, order: SendChunk | WriteChunk, send: Callable[[Address, PushChunk], None]) -> None:
    """Carry `order` out, completely, before the ledger takes its next event: the memory may be given to others then."""
    if isinstance(order, WriteChunk):
        arena.write(order.offset, order.data)
        return
    data = bytes(arena.read(order.source, order.length))
    send(order.to, PushChunk(order.ticket, order.object, order.offset, order.total, zlib.crc32(data), data))
