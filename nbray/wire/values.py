"""Python values to bytes and back: pickle protocol 5 with its buffers beside it, so that arrays are never copied twice.

A payload is either a bare pickle (first byte 0x80, the PROTO opcode: nearly every small value), or packed:

    0x01 | 3 pad | u32 number of buffers | u64 length of the pickle | u64 length of each buffer | pickle | buffers

with every buffer aligned to 64 bytes from the payload's start, where the store aligns objects too.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import cloudpickle

from nbray.handlers import is_of_signal

PACKED = 1
ALIGN = 64
_HEAD = struct.Struct("<B3xIQ")
_LENGTH = struct.Struct("<Q")


class CorruptPayload(ValueError):
    """The bytes are not those that were written: their checksum or their layout is wrong."""


class ArgRef(NamedTuple):
    """Stands in pickled arguments for a reference at top level: the i-th dependency of the task."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of this


class Pickled(NamedTuple):
    """A value, pickled. `buffers` are views of the value's own memory: write them out before it can change."""

    data: bytes
    buffers: list[memoryview]

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        if not self.buffers:
            return len(self.data)
        return self.layout()[-1]

    def layout(self) -> list[int]:
        """Where each buffer starts, and after the last one where the payload ends."""
        at = _HEAD.size + _LENGTH.size * len(self.buffers) + len(self.data)
        starts = []
        for buffer in self.buffers:
            at = -(-at // ALIGN) * ALIGN
            starts.append(at)
            at += buffer.nbytes
        return [*starts, at]

    def head(self) -> bytes:
        """Everything before the first buffer's padding."""
        lengths = b"".join(_LENGTH.pack(b.nbytes) for b in self.buffers)
        return _HEAD.pack(PACKED, len(self.buffers), len(self.data)) + lengths + self.data

    def payload(self) -> bytes:
        """The whole payload in one piece, for messages."""
        if not self.buffers:
            return self.data
        out = bytearray(self.size)
        self.write(lambda at, part: out.__setitem__(slice(at, at + part.nbytes), part))
        return bytes(out)

    def write(self, put: Callable[[int, memoryview], object]) -> None:
        """Hand each part and its offset to `put`: the store's way, with no copy in between."""
        if not self.buffers:
            put(0, memoryview(self.data))
            return
        put(0, memoryview(self.head()))
        for at, buffer in zip(self.layout(), self.buffers, strict=False):
            if buffer.nbytes:
                put(at, buffer)


def dumps(value: Any) -> Pickled:
    """Pickle `value`, functions and classes of the notebook by value.

    The C pickler is tried first: it is several times faster, but writes what `__main__` defines by name only, and
    another process has another `__main__`. Its output then contains that name, and cloudpickle does it again.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(value, 5, buffer_callback=buffers.append)
        if b"__main__" not in data and not cloudpickle.list_registry_pickle_by_value():
            return Pickled(data, [b.raw() for b in buffers] if buffers else [])
    except Exception as error:  # whatever the C pickler cannot do, cloudpickle does or explains
        if is_of_signal(error):
            raise
    buffers = []
    data = cloudpickle.dumps(value, 5, buffer_callback=buffers.append)
    return Pickled(data, [b.raw() for b in buffers])


def loads(payload: bytes | memoryview, buffer_over: Callable[[int, int], Any] | None = None) -> Any:
    """The value in `payload`. Arrays are read-only views over it.

    `buffer_over(start, stop)` makes the object that an array over these bytes keeps alive, where that is not `payload`.
    """
    if payload[0] != PACKED:
        return pickle.loads(payload)  # noqa: S301 -- user payloads are loaded in drivers and workers only
    view = memoryview(payload)
    try:
        _, count, length = _HEAD.unpack_from(view)
        lengths = [n for (n,) in _LENGTH.iter_unpack(view[_HEAD.size : _HEAD.size + _LENGTH.size * count])]
    except struct.error as error:
        raise CorruptPayload(f"a packed value of {len(view)} bytes is too short for its header: {error}") from None
    at = _HEAD.size + _LENGTH.size * count
    data = view[at : at + length]
    at += length
    buffers = []
    for n in lengths:
        at = -(-at // ALIGN) * ALIGN
        if at + n > len(view):
            raise CorruptPayload(f"a buffer of {n} bytes at {at} ends beyond the payload's {len(view)} bytes")
        buffers.append(buffer_over(at, at + n) if buffer_over else view[at : at + n].toreadonly())
        at += n
    return pickle.loads(data, buffers=buffers)  # noqa: S301 -- as above


checksum = zlib.crc32


def verified(payload: bytes, crc: int, kind: str, which: str | bytes) -> bytes:
    """`payload` itself. Raises CorruptPayload naming the `kind` of thing and `which` one when the checksum does not match."""
    if zlib.crc32(payload) != crc:
        name = which.hex() if isinstance(which, bytes) else which
        raise CorruptPayload(f"{kind} {name} arrived damaged: crc32 {zlib.crc32(payload):08x}, sent as {crc:08x}")
    return payload
