"""What gateways put around a link's packet: from which node, to which, on which lane. Two frames: header, and the message.

The header has a fixed part, then the numbers of the gaps. A DATA packet's parts are (process, message): the process's 8
bytes travel in the header, so that the message stays one frame and is never copied.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from nbray.ids import NodeId
from nbray.wire.codec import encode
from nbray.wire.link import ACK, DATA, GAPS_TOLD, OPEN, Packet
from nbray.wire.messages import PushChunk

_FIXED = struct.Struct(">BBB8s8s8sQQQQIB")
_MARK = 0x6E  # "n": a frame that is something else is seen at once
_NOBODY = b"\x00" * 8
CONTROL = 0
BULK_LANES = (1, 2)
BULK_BYTES = 64 * 1024

# Only chunks of objects may overtake other messages (they say where they belong); a large function or argument may not.
_CHUNK = encode(PushChunk(b"t" * 16, b"o" * 20, 0, 0, 0, b""))[:13]
_TICKET = slice(len(_CHUNK), len(_CHUNK) + 16)


class Envelope(msgspec.Struct, frozen=True, gc=False):
    source: NodeId
    destination: NodeId
    lane: int
    packet: Packet


class NotAnEnvelope(ValueError):
    """Frames of an admitted peer that no gateway of this protocol sends."""


def lane_of(body: Any) -> int:
    """The lane for an encoded message: chunks go in bulk, those of one transfer on one lane, so they stay in order."""
    if len(body) < BULK_BYTES:
        return CONTROL
    start = bytes(memoryview(body)[: _TICKET.stop])
    if not start.startswith(_CHUNK):
        return CONTROL
    return BULK_LANES[sum(start[_TICKET]) % len(BULK_LANES)]


def seal(source: NodeId, destination: NodeId, lane: int, packet: Packet) -> list[Any]:
    """The frames of `packet`."""
    process, body = packet.parts or (_NOBODY, None)
    gaps = packet.gaps
    fixed = _FIXED.pack(
        _MARK, packet.kind, lane, source, destination, process,
        packet.from_epoch, packet.to_epoch, packet.seq, packet.ack, min(max(packet.credit, 0), 2**32 - 1), len(gaps),
    )  # fmt: skip
    header = fixed + struct.pack(f">{len(gaps)}Q", *gaps) if gaps else fixed
    return [header] if body is None else [header, body]


def route(frames: Sequence[Any]) -> tuple[NodeId, NodeId, int]:
    """(source, destination, lane) without opening the rest: all that a relay needs. Raises NotAnEnvelope."""
    header = memoryview(frames[0])
    if len(header) < _FIXED.size or header[0] != _MARK or header[2] > max(BULK_LANES):
        raise NotAnEnvelope("a header that is none")
    return bytes(header[3:11]), bytes(header[11:19]), header[2]


def unseal(frames: Sequence[Any]) -> Envelope:
    """The opposite of `seal`; frames may be bytes or zmq frames. Raises NotAnEnvelope."""
    source, destination, lane = route(frames)
    header = memoryview(frames[0])
    (_, kind, _, _, _, process, from_epoch, to_epoch, seq, ack, credit, gap_count) = _FIXED.unpack_from(header)
    if kind not in (OPEN, DATA, ACK) or gap_count > GAPS_TOLD or len(header) != _FIXED.size + 8 * gap_count:
        raise NotAnEnvelope(f"a header of {len(header)} bytes, kind {kind}, {gap_count} gaps")
    if len(frames) != (2 if kind == DATA else 1):
        raise NotAnEnvelope(f"{len(frames)} frames for kind {kind}")
    gaps = struct.unpack_from(f">{gap_count}Q", header, _FIXED.size) if gap_count else ()
    parts = (process, frames[1]) if kind == DATA else ()
    return Envelope(source, destination, lane, Packet(kind, from_epoch, to_epoch, seq, ack, credit, gaps, parts))
