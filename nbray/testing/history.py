"""What happened in a simulation, and how it is told when something was wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

#: Events kept, and lines of a story.
KEPT = 50_000
TOLD = 60


class Violation(AssertionError):
    """A promise was broken. Carries the seed that shows it again, and the story of the subject."""

    def __init__(self, seed: int, what: str, story: str) -> None:
        self.seed, self.what, self.story = seed, what, story
        super().__init__(seed, what, story)

    def __str__(self) -> str:
        return f"{self.what}\nShows again with nbray.testing.simulate({self.seed}). What happened to it last:\n{self.story}"


class History:
    """Who handled which event when; the latest KEPT of them."""

    def __init__(self, seed: int, now: Callable[[], float]) -> None:
        self.seed = seed
        self._now = now
        self._events: deque[tuple[float, str, object]] = deque(maxlen=KEPT)
        self.count = 0

    def add(self, who: str, event: object) -> None:
        self.count += 1
        self._events.append((self._now(), who, event))

    def story(self, subject: bytes | None, last: int = TOLD) -> str:
        """The last events that mention `subject` (None: any), one a line, oldest first."""
        lines: deque[str] = deque(maxlen=last)
        for at, who, event in self._events:
            if subject is None or mentions(event, subject):
                lines.append(f"    {at:10.4f}  {who:<16} {described(event)}")
        return "\n".join(lines)

    def violation(self, what: str, subject: bytes | None = None) -> Violation:
        return Violation(self.seed, what, self.story(None if subject is None else subject[:16]))


def mentions(thing: object, subject: bytes) -> bool:
    """Whether an id that begins with `subject` is anywhere inside."""
    if isinstance(thing, bytes):
        return thing.startswith(subject)
    if isinstance(thing, str):
        return subject.hex() in thing
    if isinstance(thing, msgspec.Struct):
        return any(mentions(getattr(thing, name), subject) for name in thing.__struct_fields__ if name not in _CIRCULAR)
    if isinstance(thing, dict):
        return any(mentions(value, subject) for pair in thing.items() for value in pair)
    if isinstance(thing, list | tuple | set):
        return any(mentions(each, subject) for each in thing)
    return False


#: Fields of records that lead back to records: an OwnedTask knows its Lease, which knows its tasks.
_CIRCULAR = {"lease", "pool", "dependents", "retry_types"}


def described(thing: object) -> str:
    """An event in one line: ids short, what is empty left out."""
    if isinstance(thing, bytes):
        return named(thing)
    if isinstance(thing, msgspec.Struct):
        fields = {name: getattr(thing, name) for name in thing.__struct_fields__ if name not in _CIRCULAR}
        shown = ", ".join(f"{name}={described(value)}" for name, value in fields.items() if value not in _EMPTY)
        return f"{type(thing).__name__}({shown})"
    if isinstance(thing, list | tuple):
        return "[" + ", ".join(map(described, thing)) + "]"
    if isinstance(thing, float):
        return f"{thing:.6g}"
    return thing if isinstance(thing, str) else repr(thing)


def named(identifier: bytes) -> str:
    """An id as stories have it: long enough to tell workers of one node apart. What is no id is shortened."""
    if len(identifier) not in {8, 16, 20}:
        return repr(identifier[:12])
    index = f".{int.from_bytes(identifier[16:], 'big')}" if len(identifier) == 20 else ""
    return identifier[:4].hex() + (f"#{int.from_bytes(identifier[8:16], 'big')}{index}" if len(identifier) > 8 else "")


_EMPTY: tuple[Any, ...] = (None, b"", "", [], {}, 0, False)
