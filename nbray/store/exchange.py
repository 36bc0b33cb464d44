"""Objects on their way between nodes: pulls that this node asked for, and transfers that others asked of it. Pure; a part of
the ledger, which decides when a pull starts and what becomes of its end.

    this node                              the node with a copy
    PullObject(ticket)        ------->     holds the object, sends a window of chunks
    WriteChunk, ChunkTaken    <------>     PushChunk, and the next for each one taken
    the copy is complete                   the hold ends with the last ChunkTaken
    PullRefused               <----->      either side ends it early

Chunks come in any order. A ticket is used once: what arrives under an old one is late, and dropped.
"""

from __future__ import annotations

import zlib

from nbray import config
from nbray.ids import Address, NodeId, ObjectId
from nbray.machine import Effect, Send
from nbray.store.allocator import Spans
from nbray.store.orders import SendChunk, WriteChunk
from nbray.store.room import Stored
from nbray.wire.messages import ChunkTaken, FetchObject, PullObject, PullRefused, PushChunk

PULL_ATTEMPTS = 3  #: of one pull whose chunks arrive damaged


class Pull:
    """One object coming in. `offset` is None until there is room for it; the pull is asked for only then."""

    __slots__ = ("attempts", "first", "got", "object", "offset", "size", "source", "ticket", "waiting")

    def __init__(self, first: FetchObject) -> None:
        self.object = first.object
        self.first = first  #: of those who want it: whom the object belongs to, and who wrote it
        self.source = first.location.node
        self.size = first.location.size
        self.offset: int | None = None
        self.ticket = b""
        self.got = Spans()
        self.attempts = 0
        self.waiting: list[FetchObject] = [first]


class Transfer:
    """One object going out."""

    __slots__ = ("in_flight", "next", "node", "stored", "ticket")

    def __init__(self, ticket: bytes, node: NodeId, stored: Stored) -> None:
        self.ticket = ticket
        self.node = node
        self.stored = stored
        self.next = 0
        self.in_flight: set[int] = set()


class Exchange:
    """Every pull and transfer of one node. Effects are appended to `out`."""

    def __init__(self, node: NodeId, out: list[Effect]) -> None:
        self.node = node
        self.pulls: dict[ObjectId, Pull] = {}
        self._tickets: dict[bytes, Pull] = {}  #: pulls that were asked for
        self.transfers: dict[bytes, Transfer] = {}
        self._out = out
        self._count = 0

    # ------------------------------------------------------------------------------------------ coming in

    def add(self, fetch: FetchObject) -> Pull:
        pull = self.pulls[fetch.object] = Pull(fetch)
        return pull

    def ask(self, pull: Pull, offset: int, again: str = "") -> None:
        """Ask the source for the bytes, to be written at `offset`. `again`: why the latest ticket is given up for a new one."""
        if self._tickets.pop(pull.ticket, None) is not None:
            self._send(pull.source, PullRefused(pull.ticket, pull.object, again))
        self._count += 1
        pull.ticket = self.node + self._count.to_bytes(8, "big")
        pull.offset, pull.got = offset, Spans()
        pull.attempts += 1
        self._tickets[pull.ticket] = pull
        self._send(pull.source, PullObject(pull.object, self.node, pull.ticket))

    def remove(self, pull: Pull, tell_source: str = "") -> None:
        """Forget the pull. `tell_source`: why no more of it is wanted; empty when the source has ended it or is dead."""
        del self.pulls[pull.object]
        if self._tickets.pop(pull.ticket, None) is not None and tell_source:
            self._send(pull.source, PullRefused(pull.ticket, pull.object, tell_source))

    def pulled_under(self, ticket: bytes) -> Pull | None:
        return self._tickets.get(ticket)

    def accept(self, pull: Pull, chunk: PushChunk) -> str:
        """Order the chunk written. Returns what is wrong with it, or an empty string; `is_complete` says if it was the last."""
        size = len(chunk.data)
        end = chunk.offset + size
        if chunk.total != pull.size or chunk.offset < 0 or end > pull.size or (size == 0) != (pull.size == 0):
            return f"bytes [{chunk.offset}, {end}) of {chunk.total} arrived for an object of {pull.size} bytes"
        if zlib.crc32(chunk.data) != chunk.crc:
            return f"bytes [{chunk.offset}, {end}) arrived damaged: their checksum is wrong"
        assert pull.offset is not None
        if size and pull.got.holding(chunk.offset, size) is None:
            try:
                pull.got.put(chunk.offset, size)
            except ValueError:
                return f"bytes [{chunk.offset}, {end}) arrived twice in part"
            self._out.append(WriteChunk(pull.offset + chunk.offset, chunk.data))
        self._send(pull.source, ChunkTaken(chunk.ticket, chunk.offset))
        return ""

    @staticmethod
    def is_complete(pull: Pull) -> bool:
        return pull.got.total == pull.size

    # ------------------------------------------------------------------------------------------ going out

    def serve(self, stored: Stored, asked: PullObject) -> None:
        """Start sending. The caller settles `stored`, which this holds."""
        transfer = self.transfers[asked.ticket] = Transfer(asked.ticket, asked.node, stored)
        stored.holds += 1
        self._fill_window(transfer)

    def taken(self, message: ChunkTaken) -> Stored | None:
        """The object, if that was the last chunk of its transfer and its hold has ended."""
        transfer = self.transfers.get(message.ticket)
        if transfer is None or message.offset not in transfer.in_flight:
            return None
        transfer.in_flight.discard(message.offset)
        self._fill_window(transfer)
        return None if transfer.in_flight else self.end(transfer)

    def end(self, transfer: Transfer) -> Stored:
        """The caller settles the object."""
        del self.transfers[transfer.ticket]
        transfer.stored.holds -= 1
        return transfer.stored

    def refuse(self, asked: PullObject, reason: str, lost: bool) -> None:
        self._send(asked.node, PullRefused(asked.ticket, asked.object, reason, lost))

    def check(self) -> None:
        for object_, pull in self.pulls.items():
            assert object_ == pull.object
            assert (pull.offset is None) == (pull.ticket not in self._tickets)
            assert pull.got.total <= pull.size
        assert all(self.pulls.get(pull.object) is pull and pull.ticket == ticket for ticket, pull in self._tickets.items())
        for transfer in self.transfers.values():
            assert 0 < len(transfer.in_flight) <= config.TRANSFER_WINDOW
            assert transfer.stored.readable
            assert transfer.stored.holds > 0

    def _fill_window(self, transfer: Transfer) -> None:
        stored = transfer.stored
        assert stored.offset is not None
        # An empty object is one empty chunk: its end must be told too.
        end = max(stored.size, 1)
        while len(transfer.in_flight) < config.TRANSFER_WINDOW and transfer.next < end:
            offset = transfer.next
            length = min(config.CHUNK_BYTES, stored.size - offset)
            transfer.in_flight.add(offset)
            transfer.next = offset + (length or 1)
            to = Address(transfer.node, transfer.node)
            self._out.append(SendChunk(to, transfer.ticket, stored.id, offset, length, stored.size, stored.offset + offset))

    def _send(self, node: NodeId, message: object) -> None:
        self._out.append(Send(Address(node, node), message))
