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
import numpy as np

from nbray.refs import ObjectRef

PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})
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
        if self._namespace is None or not module.startswith("cloudpickle"):
            return found
        if name == "_make_function":
            return self._make_function(found)
        return self._set_state(found) if name == "_function_setstate" else found

    def _make_function(self, make: Callable[..., types.FunctionType]) -> Callable[..., types.FunctionType]:
        def make_function(code: types.CodeType, namespace: dict[str, Any], *rest: Any) -> types.FunctionType:
            at_home = namespace.get("__name__") == "__main__"
            return make(code, self._namespace if at_home else namespace, *rest)

        return make_function

    def _set_state(self, set_state: Callable[..., None]) -> Callable[..., None]:
        def function_set_state(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
            attributes, slots = state
            if function.__globals__ is self._namespace:
                # What the namespace has already is what the function means; its own copy came from another time.
                missing = {name: value for name, value in slots["__globals__"].items() if name not in function.__globals__}
                slots = {**slots, "__globals__": missing}
            set_state(function, (attributes, slots))

        return function_set_state


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


def at_home(value: Any, namespace: dict[str, Any]) -> Any:
    """`value`, as if the notebook itself had made it: its functions see `namespace`, its arrays have memory of their own.

    References inside stay the same objects. A value with neither functions nor views of the store is returned as it is, and so is
    one that loads here and does not pickle again, such as an instance of a class that the notebook has as an actor.
    """
    if type(value) in PLAIN or isinstance(value, ObjectRef):
        return value
    kept: dict[str, list[Any]] = {"reference": [], "array": []}
    buffers: list[pickle.PickleBuffer] = []

    def keep(obj: Any) -> tuple[str, int] | None:
        if isinstance(obj, ObjectRef):
            kept["reference"].append(obj)
            return "reference", len(kept["reference"]) - 1
        # Not left to pickle: it would make a view of the store a view again, as read-only as before.
        if type(obj) is np.ndarray and not obj.flags.writeable and not obj.dtype.hasobject:
            kept["array"].append(obj.copy(order="K"))
            return "array", len(kept["array"]) - 1
        return None

    file = io.BytesIO()
    try:
        Packer(file, keep, buffers.append).dump(value)
    except Exception:  # noqa: BLE001 -- any class may refuse in its own way
        return value
    defined_in_cell = isinstance(value, types.FunctionType | type) and getattr(value, "__module__", None) == "__main__"
    if not defined_in_cell and not kept["array"]:
        return value
    file.seek(0)
    try:
        return Unpacker(file, kept, namespace, buffers).load()
    except Exception:  # noqa: BLE001 -- as above
        return value
