"""Reading objects: `get`, and the references inside of what it loads.

What came inside a message and is here already is read without the owner's lock: such a value is never changed, the caller's
reference keeps the record, and looking a record up is one step of the interpreter. Everything else is looked at in one pass
under the lock, however many objects are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nbray.exceptions import GetTimeoutError, ResultDeserializationError
from nbray.handlers import is_of_signal
from nbray.ids import Address
from nbray.owner import records as r
from nbray.refs import ObjectRef, arriving
from nbray.wire import messages as m
from nbray.wire.failures import error_of
from nbray.wire.values import loads, verified

if TYPE_CHECKING:
    from nbray.engines.native import NativeEngine

_Refs = dict[bytes, ObjectRef[Any]]


class _Here(NamedTuple):
    """A value to be loaded. `view` pins its bytes where they are in the store; `refs` are made for those inside of it."""

    object: bytes
    value: m.Value
    view: memoryview | None
    refs: _Refs | None


class Reader:
    """Of one engine."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine, self._runtime = engine, engine.runtime
        self._objects = engine.runtime.state.objects.objects

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """The values, in order. Raises what a task raised as soon as one has failed, and GetTimeoutError."""
        wanted = [ref._id for ref in refs]  # as it is now: another thread may append to the list meanwhile
        values = self._at_hand(wanted)
        if values is None:
            return self._get_all(wanted, timeout)
        if len(wanted) == 1:
            return [self._inline(wanted[0], values[0])]
        loaded = self._inlines(wanted, values)
        return [loaded[object_] for object_ in wanted]

    def _at_hand(self, object_ids: list[bytes]) -> list[m.Value] | None:
        """The values, if all came inside messages and hold no references: without the lock."""
        objects = self._objects
        values: list[m.Value] = []
        for object_ in object_ids:
            obj = objects.get(object_)
            if obj is None or (value := obj.value) is None or value.inline is None or value.contains:
                return None
            obj.seen = True
            values.append(value)
        return values

    def _inlines(self, object_ids: list[bytes], values: list[m.Value]) -> dict[bytes, Any]:
        """What is asked for twice is the same object twice."""
        loaded: dict[bytes, Any] = {}
        for object_, value in zip(object_ids, values, strict=True):
            if object_ not in loaded:
                loaded[object_] = self._inline(object_, value)
        return loaded

    def _get_all(self, wanted: list[bytes], timeout: float | None) -> list[Any]:
        missing = unique = list(dict.fromkeys(wanted))
        deadline = None if timeout is None else time.monotonic() + timeout
        loaded: dict[bytes, Any] = {}
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if not self._runtime.wait_for(missing, len(missing), left, local=True, eager=True):
                raise GetTimeoutError(
                    f"Get timed out: some object(s) not ready after {timeout:g} s: {self._engine._unfinished(missing)}"
                )
            values = self._at_hand(missing)
            if values is not None:
                loaded |= self._inlines(missing, values)
            else:
                for here in self._collect(missing):
                    loaded[here.object] = self._load(here)
            if len(loaded) == len(unique):
                return [loaded[object_] for object_ in wanted]
            missing = [o for o in unique if o not in loaded]

    def _collect(self, object_ids: list[bytes]) -> list[_Here]:
        """What is here of these. Not all, perhaps: another thread's last view went between the wait and this. Raises the failure of
        the first that has failed."""
        failure = None
        here: list[_Here] = []
        with self._runtime.locked() as state:
            found = [state.objects.objects[o] for o in object_ids]
            for obj in found:
                if obj.value is not None and obj.value.failure is not None:
                    obj.seen = True
                    failure = obj.value.failure
                    break
            else:
                here = [self._here(obj, obj.value) for obj in found if obj.value is not None and _is_here(obj, obj.value)]
        if failure is not None:
            raise error_of(failure)
        return here

    def _here(self, obj: r.OwnedObject, value: m.Value) -> _Here:
        """Under the lock and the guard: a view that was counted and never made would pin the bytes for ever."""
        obj.seen = True
        refs = self._refs_of(value.contains) if value.contains else None
        if obj.pinned is None:
            return _Here(obj.id, value, None, refs)
        object_, (offset, size) = obj.id, obj.pinned
        obj.views += 1
        view = self._runtime.store.arena.pinned_view(offset, size, lambda: self._runtime.released(object_))
        view.obj.object = object_  # type: ignore[attr-defined]
        return _Here(object_, value, view, refs)

    def _load(self, here: _Here) -> Any:
        if here.refs is None:
            return self._loaded(here)
        before, arriving.refs = arriving.refs, here.refs
        try:
            return self._loaded(here)
        finally:
            arriving.refs = before

    def _loaded(self, here: _Here) -> Any:
        """Arrays over a view pin it."""
        if here.view is None:
            return self._inline(here.object, here.value)
        try:
            return loads(here.view)
        except Exception as error:
            if is_of_signal(error):
                raise
            raise _explained(here.object, error) from error

    def _inline(self, object_: bytes, value: m.Value) -> Any:
        assert value.inline is not None
        try:
            return loads(verified(value.inline, value.crc, "object", object_))
        except Exception as error:
            if is_of_signal(error):
                raise
            raise _explained(object_, error) from error

    # ------------------------------------------------------------------------------------------ references

    def receive(self, object_: bytes, owner: Address) -> ObjectRef[Any]:
        """A reference that came here by itself."""
        guard = self._runtime.guard
        guard.enter()  # one count, one reference
        try:
            self._runtime.step(r.Received(object_, owner))
            return ObjectRef(object_, owner, self._engine)
        finally:
            guard.leave()

    def receive_all(self, held: Sequence[m.Held | m.Dependency]) -> _Refs:
        """The same for many, in one pass."""
        with self._runtime.locked():
            return self._refs_of(held)

    def _refs_of(self, held: Iterable[m.Held | m.Dependency]) -> _Refs:
        """Under the lock and the guard."""
        engine, receive = self._engine, self._runtime.state.objects.receive
        refs: _Refs = {}
        for each in held:
            object_, owner = each.object, each.owner
            if object_ not in refs:
                receive(object_, owner)
                refs[object_] = ObjectRef(object_, owner, engine)
        return refs

    def loads_with(self, payload: bytes, held: Sequence[m.Held]) -> Any:
        """Unpickle what contains these references."""
        if not held:
            return loads(payload)
        before, arriving.refs = arriving.refs, self.receive_all(held)
        try:
            return loads(payload)
        finally:
            arriving.refs = before


def _explained(object_: bytes, error: Exception) -> ResultDeserializationError:
    return ResultDeserializationError(
        f"the object {object_.hex()} is here, and does not load in this process: {type(error).__name__}: {error}. "
        "The reference is still good: once what it needs can be imported here, get it again."
    )


def _is_here(obj: r.OwnedObject, value: m.Value) -> bool:
    return value.location is None or obj.pinned is not None
