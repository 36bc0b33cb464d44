"""What a cell takes along: which variables, what of them is in the cluster already, and the rest in one pickle.

A large array is put once and used again by later cells *while its bytes are the same*: the check compares it with the stored
copy, block by block, so that an edit in place is seen (a checksum would cost more, and could be wrong). Everything else that
can change in place is sent again each time.
"""

from __future__ import annotations

import builtins
import difflib
import linecache
import types
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbray.config import INLINE_LIMIT
from nbray.engines.port import Engine
from nbray.exceptions import RayError
from nbray.notebook.capture import PRIVATE_TO_IPYTHON, Capture
from nbray.notebook.packing import pack, pickled_size
from nbray.notebook.walk import Read
from nbray.refs import ObjectRef
from nbray.serializability import path_to_culprit

BLOCK = 2**17  #: words of 8 bytes compared at a time: the two blocks and the result stay in the cache
SOURCE_LIMIT = 2**18  #: characters of other cells' text that travel with one cell


@dataclass(slots=True)
class Packed:
    """Inputs, ready to send. `arrays` and `references` are what the pickle leaves out, in its order."""

    data: bytes = b""
    arrays: list[ObjectRef[Any]] = field(default_factory=list)
    references: list[ObjectRef[Any]] = field(default_factory=list)
    bound: dict[str, ObjectRef[Any]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    sent_bytes: int = 0  #: what had to be shipped this time; what was there already is not in it
    reused_bytes: int = 0


@dataclass(slots=True)
class _Stored:
    """An array of the notebook and its copy in the store."""

    array: weakref.ref[np.ndarray[Any, Any]]
    ref: ObjectRef[Any]


class InputStore:
    """What of this notebook's variables is in the cluster already. Belongs to one engine; a new one starts it afresh."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._arrays: dict[int, _Stored] = {}
        self._texts: dict[str, tuple[Any, ObjectRef[Any]]] = {}
        #: References that cells bound instead of values (`--refs`, `--max-fetch`): as inputs they mean the value.
        self.standing_for_values: weakref.WeakSet[ObjectRef[Any]] = weakref.WeakSet()

    def pack(self, values: Mapping[str, Any], engine: Engine) -> Packed:
        """Pack `values`. Raises TypeError naming the variable that does not pickle, and the way to the culprit in it."""
        if engine is not self._engine:
            self._engine, self._arrays, self._texts = engine, {}, {}
        packed = Packed()
        inside: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, ObjectRef) and value in self.standing_for_values:
                packed.bound[name] = value
            elif type(value) in {bytes, str} and len(value) > INLINE_LIMIT:
                packed.bound[name] = self._text(name, value, engine, packed)
            else:
                inside[name] = value
        try:
            packed.data = pack(inside, lambda obj: self._swap(obj, engine, packed))
        except RayError:
            raise
        except Exception as error:
            raise unpicklable(inside, error) from error
        packed.sent_bytes += len(packed.data)
        return packed

    def _swap(self, obj: Any, engine: Engine, packed: Packed) -> tuple[str, int] | None:
        if type(obj) is np.ndarray:
            if obj.nbytes <= INLINE_LIMIT or obj.dtype.hasobject or not (obj.flags.c_contiguous or obj.flags.f_contiguous):
                return None
            packed.arrays.append(self._array(obj, engine, packed))
            return "array", len(packed.arrays) - 1
        if isinstance(obj, ObjectRef):
            packed.references.append(obj)
            return "reference", len(packed.references) - 1
        if type(obj) is types.FunctionType:
            _add_source(obj.__code__.co_filename, packed.sources)
        return None

    def _array(self, array: np.ndarray[Any, Any], engine: Engine, packed: Packed) -> ObjectRef[Any]:
        stored = self._arrays.get(id(array))
        if stored is not None and stored.array() is array and _is_still(array, stored.ref, engine):
            packed.reused_bytes += array.nbytes
            return stored.ref
        ref = engine.put(array)
        key, arrays = id(array), self._arrays
        arrays[key] = _Stored(weakref.ref(array, lambda gone: _forget(arrays, key, gone)), ref)
        packed.sent_bytes += array.nbytes
        return ref

    def _text(self, name: str, value: bytes | str, engine: Engine, packed: Packed) -> ObjectRef[Any]:
        known = self._texts.get(name)
        if known is not None and known[0] is value:  # it cannot change in place, so the same object is the same value
            packed.reused_bytes += len(value)
            return known[1]
        ref = engine.put(value)
        self._texts[name] = (value, ref)
        packed.sent_bytes += len(value)
        return ref

    def forget_rebound(self, namespace: Mapping[str, Any]) -> None:
        """Let go of texts that their names no longer mean: the cache must not keep alive what the user dropped."""
        for name in [name for name, (value, _) in self._texts.items() if namespace.get(name) is not value]:
            del self._texts[name]


def _forget(arrays: dict[int, _Stored], key: int, gone: weakref.ref[Any]) -> None:
    # The id may belong to another array by now.
    if key in arrays and arrays[key].array is gone:
        del arrays[key]


def _is_still(array: np.ndarray[Any, Any], ref: ObjectRef[Any], engine: Engine) -> bool:
    try:
        stored = engine.get([ref], None)[0]
    except RayError:  # its copies are lost: put it again
        return False
    return same_bytes(array, stored)


def same_bytes(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Whether two contiguous arrays have the same type, shape, order and bytes. Stops at the first block that differs."""
    if one.dtype != other.dtype or one.shape != other.shape or one.strides != other.strides:
        return False
    first, second = (a.ravel(order="K").view(np.uint8).data for a in (one, other))
    whole = len(first) // 8 * 8
    words = [np.frombuffer(view[:whole], np.uint64) for view in (first, second)]
    for start in range(0, len(words[0]), BLOCK):
        if not np.array_equal(words[0][start : start + BLOCK], words[1][start : start + BLOCK]):
            return False
    return first[whole:] == second[whole:]


def _add_source(filename: str, sources: dict[str, str]) -> None:
    """Take along the text of the cell that a function was defined in, for tracebacks on the other side."""
    cached = linecache.cache.get(filename)
    # Only what is not on disk has no time of modification.
    if filename not in sources and cached is not None and len(cached) == 4 and cached[1] is None:
        text = "".join(cached[2])
        if sum(map(len, sources.values())) + len(text) <= SOURCE_LIMIT:
            sources[filename] = text


def chosen(
    capture: Capture,
    asked: Iterable[str] | None,
    namespace: Mapping[str, Any],
    own: frozenset[str] = frozenset(),
    *,
    strict: bool = True,
) -> dict[str, Any]:
    """The inputs of a cell, by name. `own` are names that it gets otherwise; `strict`: what must exist, must.

    Raises NameError for a name that neither the cell nor the notebook has, with its line and names that are close.
    """
    if asked is not None:
        asked = [name for name in asked if name not in own]  # the name of --each has a value of its own
        for name in asked:
            if name not in namespace:
                raise NameError(f"--in names {name}, which the notebook has not defined{_close(name, namespace)}", name=name)
        return {name: namespace[name] for name in asked}
    found = {}
    for read in capture.reads:
        if read.name in own or read.name == "get_ipython":
            continue
        if read.name in namespace and (read.name not in PRIVATE_TO_IPYTHON or read.name.startswith("_")):
            found[read.name] = namespace[read.name]
        elif strict and read.certain and not hasattr(builtins, read.name):
            raise undefined(read, namespace)
    return found


def undefined(read: Read, namespace: Mapping[str, Any]) -> NameError:
    return NameError(
        f"line {read.line} of the cell reads {read.name}, which neither the cell nor the notebook has defined"
        f"{_close(read.name, namespace)}",
        name=read.name,
    )


def _close(name: str, namespace: Mapping[str, Any]) -> str:
    known = [each for each in namespace if not each.startswith("_") and each not in PRIVATE_TO_IPYTHON]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def unpicklable(values: Mapping[str, Any], error: Exception) -> TypeError:
    """Which of `values` did not pickle, where in it, and what to do."""
    for name, value in values.items():
        try:
            pickled_size(value)
        except Exception as reason:  # noqa: BLE001 -- any class may refuse in its own way
            said = str(reason).splitlines() or [type(reason).__name__]
            return TypeError(
                f"the input {name} does not pickle: {path_to_culprit(value, name)} ({said[0]}). "
                f"Make it inside the cell, keep it in an actor, or leave it out by naming the others with --in."
            )
    return TypeError(f"the inputs {', '.join(values)} do not pickle: {error}")


def sizes(values: Mapping[str, Any], standing_for_values: Iterable[ObjectRef[Any]] = ()) -> dict[str, int | None]:
    """Bytes of each value when pickled; None for a reference, which takes nothing along."""
    in_cluster = set(standing_for_values)
    return {n: None if isinstance(v, ObjectRef) and v in in_cluster else pickled_size(v) for n, v in values.items()}
