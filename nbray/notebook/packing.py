"""How a cell's variables travel: one pickle for all of them, so that what they share stays shared.

Three things are taken out of that pickle and sent beside it:

    large arrays       as objects of the store, put once and used again by later cells (`inputs.py`)
    references         in a list, so that the engine counts the copies it sends
    the notebook       functions of the notebook are bound to the namespace of the cell when they arrive, as they were at home

`Swap` decides per object; what it returns comes back through `Unpacker.entries`.
"""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle

from nbray.refs import ObjectRef

#: Asked about every object that is not of a plain built-in type; a (kind, index) to send instead of it, or None.
Swap = Callable[[Any], tuple[str, int] | None]


def entry(kind: str, index: int) -> Any:
    """Stands in the pickle for something sent beside it. Only `Unpacker` can say what it was."""
    raise pickle.UnpicklingError(f"{kind} {index} of a cell's inputs can be loaded by nbray.notebook.packing only")


class Packer(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with `swap` asked first."""

    def __init__(self, file: Any, swap: Swap, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._swap = swap

    def reducer_override(self, obj: Any) -> Any:
        swapped = self._swap(obj)
        return super().reducer_override(obj) if swapped is None else (entry, swapped)


class Unpacker(pickle.Unpickler):
    """Loads what `Packer` wrote. Functions of a notebook get `namespace` as their globals, where one is given."""

    def __init__(
        self,
        file: Any,
        entries: Mapping[str, Sequence[Any]],
        namespace: dict[str, Any] | None = None,
        buffers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(file, buffers=buffers)
        self._entries = entries
        self._namespace = namespace

    def find_class(self, module: str, name: str) -> Any:
        if name == "entry" and module == __name__:
            return lambda kind, index: self._entries[kind][index]
        found = super().find_class(module, name)
        if name == "_make_function" and self._namespace is not None and module.startswith("cloudpickle"):
            return self._bound(found)
        return found

    def _bound(self, make: Callable[..., types.FunctionType]) -> Callable[..., types.FunctionType]:
        def make_function(code: types.CodeType, namespace: dict[str, Any], *rest: Any) -> types.FunctionType:
            at_home = namespace.get("__name__") == "__main__"
            return make(code, self._namespace if at_home else namespace, *rest)

        return make_function


def pack(value: Any, swap: Swap) -> bytes:
    """`value` in one pickle. Raises whatever an object in it raises when it is pickled."""
    file = io.BytesIO()
    Packer(file, swap).dump(value)
    return file.getvalue()


def unpack(data: bytes, entries: Mapping[str, Sequence[Any]], namespace: dict[str, Any] | None = None) -> Any:
    return Unpacker(io.BytesIO(data), entries, namespace).load()


class _Length:
    """A file that only counts."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.bytes += size
        return size


def pickled_size(value: Any) -> int:
    """Bytes that `value` takes when it is pickled, arrays included. Raises what pickling raises; nothing is kept."""
    if type(value) in {int, float, bool, type(None)}:
        return 16
    file = _Length()
    buffers: list[int] = []
    Packer(file, _no_reference, lambda buffer: buffers.append(buffer.raw().nbytes)).dump(value)
    return file.bytes + sum(buffers)


def _no_reference(obj: Any) -> tuple[str, int] | None:
    # Pickling a reference for real would count a copy of it that nobody receives.
    return ("reference", 0) if isinstance(obj, ObjectRef) else None


def writable(value: Any) -> Any:
    """`value`, with memory of its own wherever it is a read-only view of the store: an ordinary value.

    References inside stay the same objects. A value without such views is returned as it is.
    """
    if type(value) in {int, float, bool, str, bytes, type(None)} or isinstance(value, ObjectRef):
        return value
    kept: list[ObjectRef[Any]] = []
    buffers: list[memoryview] = []

    def keep(obj: Any) -> tuple[str, int] | None:
        if not isinstance(obj, ObjectRef):
            return None
        kept.append(obj)
        return "reference", len(kept) - 1

    file = io.BytesIO()
    Packer(file, keep, lambda buffer: buffers.append(buffer.raw())).dump(value)
    if not any(buffer.readonly for buffer in buffers):
        return value
    file.seek(0)
    # A bytearray is writable memory, and numpy takes it without another copy.
    return Unpacker(file, {"reference": kept}, None, [bytearray(buffer) for buffer in buffers]).load()
