"""Which names of the notebook have another value than before a cell ran, without keeping any value alive.

A name is known by the identity of its value and, where that is cheap, by a mark of what it says: running a cell again that
defines the same function, or sets the same number, changes nothing.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nbray.notebook.capture import PRIVATE_TO_IPYTHON

SCALARS = (type(None), bool, int, float, complex)
TEXT_MARKED = 10_000  #: characters
ITEMS_MARKED = 100
DEPTH = 3


class Seen(NamedTuple):
    """A value as it was: `mark` is None where only its identity is known."""

    identity: int
    mark: int | None
    kind: str  #: "module", "function" or "value"


def is_users(name: str) -> bool:
    """Whether the user gave this name: neither IPython's nor private."""
    return not name.startswith("_") and name not in PRIVATE_TO_IPYTHON


def mark_of(value: Any) -> int | None:
    """Equal for values that say the same; None where that is not cheaply known."""
    try:
        return hash(_said(value, DEPTH))
    except (_Unmarked, TypeError, ValueError, RecursionError):
        return None


class _Unmarked(Exception):
    """Only its identity tells it from others."""


def _said(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in SCALARS:
        return kind.__name__, value
    if kind in {str, bytes} and len(value) <= TEXT_MARKED:
        return kind.__name__, value
    if kind is types.FunctionType:
        return "function", value.__code__, _said(value.__defaults__, 1), len(value.__closure__ or ())
    if kind is types.ModuleType:
        return "module", value.__name__
    if not depth:
        raise _Unmarked
    if kind in {tuple, list} and len(value) <= ITEMS_MARKED:
        return kind.__name__, tuple(_said(each, depth - 1) for each in value)
    if kind is dict and len(value) <= ITEMS_MARKED:
        return "dict", tuple((_said(k, depth - 1), _said(v, depth - 1)) for k, v in value.items())
    if kind is type and value.__module__ == "__main__":
        members = (each for each in vars(value).items() if not each[0].startswith("__") or type(each[1]) is types.FunctionType)
        return "class", value.__qualname__, tuple((name, _said(each, depth - 1)) for name, each in members)
    definition = vars(kind).get("__wrapped_definition__")  # a remote function or actor class
    if isinstance(definition, property):
        return "remote", _said(value.__wrapped_definition__.target, depth - 1), repr(getattr(value, "_given", None))
    raise _Unmarked


def _kind(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return "module"
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType) or "__wrapped_definition__" in vars(type(value)):
        return "function"
    return "value"


class Versions:
    """The names as they were at the end of the last cell."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}

    def changes(self, namespace: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """(names with another value since this was asked last, names whose object is the same and may have changed in place)."""
        changed: list[str] = []
        opaque: list[str] = []
        for name in [name for name in self.seen if name not in namespace]:
            del self.seen[name]
        for name, value in list(namespace.items()):
            if not is_users(name):
                continue
            before = self.seen.get(name)
            same = before is not None and before.identity == id(value)
            if same and before is not None and before.kind != "value":
                continue
            mark = mark_of(value)
            if before is None or (not same if mark is None or before.mark is None else mark != before.mark):
                changed.append(name)
            elif mark is None:
                opaque.append(name)
            self.seen[name] = Seen(id(value), mark, _kind(value))
        return changed, opaque

    def learn(self, namespace: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
        """What is there now, or only these names of it, is known already."""
        for name in namespace.keys() if names is None else namespace.keys() & set(names):
            if is_users(name):
                value = namespace[name]
                self.seen[name] = Seen(id(value), mark_of(value), _kind(value))
