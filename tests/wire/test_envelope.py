"""What gateways put around a packet: what goes in comes out, and what nobody sends is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbray.wire.codec import encode
from nbray.wire.envelope import BULK_BYTES, BULK_LANES, CONTROL, Envelope, NotAnEnvelope, lane_of, route, seal, unseal
from nbray.wire.link import ACK, DATA, GAPS_TOLD, OPEN, Packet
from nbray.wire.messages import DefineFunction, PushChunk

NUMBERS = st.integers(0, 2**64 - 1)
NODES = st.binary(min_size=8, max_size=8)
PLAIN = st.builds(
    Packet,
    kind=st.sampled_from([OPEN, ACK]),
    from_epoch=NUMBERS,
    to_epoch=NUMBERS,
    ack=NUMBERS,
    credit=st.integers(0, 2**32 - 1),
    gaps=st.lists(NUMBERS, max_size=GAPS_TOLD).map(tuple),
)
FULL = st.builds(
    Packet,
    kind=st.just(DATA),
    from_epoch=NUMBERS,
    to_epoch=NUMBERS,
    seq=NUMBERS,
    ack=NUMBERS,
    parts=st.tuples(NODES, st.binary(max_size=300)),
)


@given(source=NODES, destination=NODES, lane=st.sampled_from([CONTROL, *BULK_LANES]), packet=PLAIN | FULL)
def test_what_is_sealed_is_unsealed(source: bytes, destination: bytes, lane: int, packet: Packet) -> None:
    frames = seal(source, destination, lane, packet)
    assert unseal(frames) == Envelope(source, destination, lane, packet)
    assert route(frames) == (source, destination, lane)


@given(frames=st.lists(st.binary(max_size=120), min_size=1, max_size=3))
def test_junk_is_refused_and_nothing_else_is_raised(frames: list[bytes]) -> None:
    with contextlib.suppress(NotAnEnvelope):
        unseal(frames)


@given(packet=FULL, at=st.integers(0, 200), bit=st.integers(0, 7))
def test_any_flipped_bit_is_another_packet_or_none(packet: Packet, at: int, bit: int) -> None:
    header, body = seal(b"s" * 8, b"d" * 8, 0, packet)
    broken = bytearray(header)
    broken[at % len(broken)] ^= 1 << bit
    with contextlib.suppress(NotAnEnvelope):
        assert unseal([bytes(broken), body]) != Envelope(b"s" * 8, b"d" * 8, 0, packet)


def test_a_header_of_any_other_length_is_refused() -> None:
    header, body = seal(b"s" * 8, b"d" * 8, 0, Packet(DATA, 1, 2, 3, 0, 0, (4, 5), (b"p" * 8, b"x")))
    for cut in range(len(header)):
        with pytest.raises(NotAnEnvelope):
            unseal([header[:cut], body])
    with pytest.raises(NotAnEnvelope):
        unseal([header + b"\0", body])
    with pytest.raises(NotAnEnvelope):
        unseal([header])


def chunk(ticket: bytes, size: int) -> bytes:
    return encode(PushChunk(ticket, b"o" * 20, 0, size, 0, b"x" * size))


def test_only_large_chunks_of_objects_travel_in_bulk_and_those_of_one_transfer_on_one_lane() -> None:
    lanes = {lane_of(chunk(bytes([i]) + b"t" * 15, BULK_BYTES)) for i in range(10)}
    assert lanes == set(BULK_LANES)
    assert len({lane_of(chunk(b"t" * 16, BULK_BYTES + i)) for i in range(10)}) == 1
    assert lane_of(chunk(b"t" * 16, 100)) == CONTROL
    assert lane_of(encode(DefineFunction(b"f" * 16, "f", b"x" * BULK_BYTES, 0))) == CONTROL
    assert lane_of(b"\xc1" + chunk(b"t" * 16, BULK_BYTES)) == CONTROL
