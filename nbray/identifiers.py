"""Identifiers as objects, as Ray has them: for programs that store, compare or parse what the cluster calls things.

Inside nbray an id is plain bytes (ids.py); these wrap them for a person. The hex of an id is the same everywhere.
"""

from __future__ import annotations

import enum
import os
from typing import ClassVar, Self

SCRIPT_MODE, WORKER_MODE, LOCAL_MODE = 0, 1, 2


class Language(enum.Enum):
    """The language of a task. nbray runs PYTHON only."""

    PYTHON = 0
    JAVA = 1
    CPP = 2


class BaseID:
    """`size()` bytes. Equal to another of the same class with the same bytes, and hashable."""

    __slots__ = ("_bytes",)
    _size: ClassVar[int] = 16

    def __init__(self, binary: bytes) -> None:
        if not isinstance(binary, bytes) or len(binary) != self._size:
            raise ValueError(f"{type(self).__name__} is made of {self._size} bytes, not of {binary!r:.80}")
        self._bytes = binary

    @classmethod
    def size(cls) -> int:
        """Its length in bytes."""
        return cls._size

    @classmethod
    def from_hex(cls, hex_id: str | bytes) -> Self:
        """The id that `hex()` wrote."""
        return cls(bytes.fromhex(hex_id.decode() if isinstance(hex_id, bytes) else hex_id))

    @classmethod
    def from_binary(cls, binary: bytes) -> Self:
        """The id of these bytes."""
        return cls(binary)

    @classmethod
    def from_random(cls) -> Self:
        """An id that nothing has."""
        return cls(os.urandom(cls._size))

    @classmethod
    def nil(cls) -> Self:
        """The id of nothing: all bits set."""
        return cls(b"\xff" * cls._size)

    def is_nil(self) -> bool:
        """Whether it is the id of nothing."""
        return self._bytes == b"\xff" * self._size

    def binary(self) -> bytes:
        """Its bytes."""
        return self._bytes

    def hex(self) -> str:
        """Its bytes in hexadecimal."""
        return self._bytes.hex()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._bytes))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self._bytes,)


class UniqueID(BaseID):
    """Any id of 28 bytes, Ray's usual length."""

    __slots__ = ()
    _size = 28


class JobID(BaseID):
    """A driver: its process."""

    __slots__ = ()
    _size = 8

    @classmethod
    def from_int(cls, value: int) -> JobID:
        """The job of this number, for programs that count their jobs."""
        return cls(value.to_bytes(cls._size, "big"))


class NodeID(BaseID):
    """One life of one node."""

    __slots__ = ()
    _size = 8


class WorkerID(BaseID):
    """A process."""

    __slots__ = ()
    _size = 8


class TaskID(BaseID):
    """A task."""

    __slots__ = ()


class ActorID(BaseID):
    """An actor: its creation task."""

    __slots__ = ()


class FunctionID(BaseID):
    """A pickled function."""

    __slots__ = ()


class ActorClassID(BaseID):
    """A pickled class."""

    __slots__ = ()


class PlacementGroupID(BaseID):
    """A placement group."""

    __slots__ = ()


class ClusterID(BaseID):
    """One life of a cluster: its session."""

    __slots__ = ()
    _size = 8


def java_function(class_name: str, function_name: str) -> None:
    """Ray's way to call Java from Python."""
    raise NotImplementedError(f"java_function({class_name!r}, {function_name!r}): nbray runs Python only. {_INSTEAD}")


def java_actor_class(class_name: str) -> None:
    """Ray's way to make a Java actor from Python."""
    raise NotImplementedError(f"java_actor_class({class_name!r}): nbray runs Python only. {_INSTEAD}")


def cpp_function(function_name: str) -> None:
    """Ray's way to call C++ from Python."""
    raise NotImplementedError(f"cpp_function({function_name!r}): nbray runs Python only. {_INSTEAD}")


_INSTEAD = "Wrap it in a Python function (ctypes, pybind11, JPype), and make that remote"
