"""The same large value given to one function again and again is pickled and stored each time: say so once, and what to do.

Asked only on the way of an argument that is too large for a message, so a call with small arguments pays nothing.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from nbray.exceptions import PACKAGE_DIRECTORY

LARGE_BYTES = 2**20  #: what is smaller is not worth a word
TIMES = 3  #: the same value; twice may be chance
FUNCTIONS = 200  #: remembered


class _Last(NamedTuple):
    """What was given last for one argument. `alive` tells it from a new value in the same place; some values have none."""

    identity: int
    alive: weakref.ref[Any] | None
    times: int


class Repeats:
    """What one process has shipped. Counts per function and argument."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` tells a person, and is no warning: a program that runs with warnings as errors is not wrong."""
        self._say = say
        self._last: dict[tuple[str, str], _Last] = {}
        self._said: set[tuple[str, str]] = set()

    def shipped(self, what: str, argument: str, value: Any, size: int) -> None:
        """`value` (size in bytes) is about to be stored for `argument` of `what`, as in "argument of f"."""
        key = (what, argument)
        if size < LARGE_BYTES or key in self._said:
            return
        last = self._last.get(key)
        same = last is not None and last.identity == id(value) and (last.alive is None or last.alive() is value)
        times = last.times + 1 if last is not None and same else 1
        if len(self._last) > FUNCTIONS:
            self._last.clear()
        self._last[key] = _Last(id(value), _reference(value), times)
        if times >= TIMES:
            name = _name_of(value, _caller())
            if name or self._last[key].alive is not None:  # else it may be a new one, made in the place of one that has gone
                self._said.add(key)
                self._say(_in_words(what.removeprefix("argument of "), name or argument, value, size))


def _reference(value: Any) -> weakref.ref[Any] | None:
    try:
        return weakref.ref(value)
    except TypeError:
        return None


def _caller() -> FrameType | None:
    """The user's frame."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE_DIRECTORY):
        frame = frame.f_back
    return frame


def _in_words(function: str, name: str, value: Any, size: int) -> str:
    stored = f"{name}_ref" if name.isidentifier() else "ref"
    return (
        f"{name} ({size / 1e6:.1f} MB, {type(value).__name__}) is shipped again with every call of {function}. Put it into the "
        f"store once, {stored} = nbray.put({name if name.isidentifier() else '...'}), and pass {stored} instead."
    )


def _name_of(value: Any, frame: FrameType | None) -> str:
    if frame is None:
        return ""
    for scope in (frame.f_locals, frame.f_globals):
        for name, each in list(scope.items()):
            if each is value and not name.startswith("_"):
                return name
    return ""
