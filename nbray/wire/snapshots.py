"""Where a task failed, with the values its frames held, as it travels at the end of a Failure.

worker:  worker/snapshots.py takes one
reader:  read(data)   the frames again; each value is loaded when it is looked at
"""

from __future__ import annotations

import zlib

import msgspec


class Value(msgspec.Struct, array_like=True):
    """One variable. `text` is always there; `pickle` where the value itself is."""

    name: str
    type_name: str
    text: str
    pickle: bytes = b""
    why: str = ""  #: why there is no pickle
    facts: dict[str, str] = {}  #: shape, dtype, length of a value that is not here


class Frame(msgspec.Struct, array_like=True):
    """One frame. `lines` is the source around `line`, from `first` on: the file may not exist where this is read."""

    filename: str
    line: int
    function: str
    first: int
    lines: list[str]
    locals: list[Value]
    globals: list[Value]  #: those that the frame's code names
    left_out: int = 0  #: variables beyond NAMES


class Snapshot(msgspec.Struct, array_like=True):
    """Frames, outermost first."""

    frames: list[Frame]
    left_out: int = 0  #: frames beyond FRAMES, outside of these


def read(data: bytes) -> Snapshot:
    """The snapshot that `taken` made. Loads no values. Raises ValueError for what is none."""
    try:
        return msgspec.msgpack.decode(zlib.decompress(data), type=Snapshot)
    except (zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"these {len(data):,} bytes are no snapshot: {error}") from None
