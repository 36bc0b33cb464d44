"""`--group worker|order`: what several tasks print, one group after the other instead of as it comes. Pure.

    shows   the first group that has not ended: what it prints goes on at once
    waits   every other group that has printed; it shows when all before it have ended

By order a group is a task of the cell, in the order of its items; by worker it is a worker, in the order in which they first
print, and none ends before the cell does. What tasks print that the cell's own tasks submitted comes after theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Fact:
    """Something printed or displayed. `tell` passes it on; text in it can be left out, and then counts."""

    tell: Callable[[], None]
    characters: int = 0
    lines: int = 0


@dataclass(slots=True)
class _Group:
    facts: deque[Fact] = field(default_factory=deque)
    characters: int = 0
    ended: bool = False


class Grouping:
    """The groups of one cell. `limit` bounds the characters that wait: beyond it the group that holds most loses its older half,
    which `omit(lines, characters)` is told."""

    def __init__(self, by: str, limit: int, omit: Callable[[int, int], None]) -> None:
        self.by, self._limit, self._omit = by, limit, omit
        self._groups: dict[Hashable, _Group] = {}  # in the order in which they show
        self._expected = by == "worker"  # whether the order is known by now
        self._waiting = 0

    # -- facts in

    def expect(self, keys: Sequence[Hashable]) -> None:
        """The groups there will be, in their order. Whatever printed before that waited."""
        early, self._groups = self._groups, {key: _Group() for key in keys}
        for key, group in early.items():
            if key in self._groups:
                group.ended = group.ended or self._groups[key].ended
            self._groups[key] = group
        self._expected = True
        self._go_on()

    def take(self, key: Hashable, fact: Fact) -> None:
        """Pass it on if its group shows, else keep it."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        if self._expected and next(iter(self._groups)) == key:
            fact.tell()
            return
        group.facts.append(fact)
        group.characters += fact.characters
        self._waiting += fact.characters
        if self._waiting > self._limit:
            self._shorten()

    def end(self, key: Hashable) -> None:
        """Nothing more comes from this group."""
        self._groups.setdefault(key, _Group()).ended = True
        if self._expected:
            self._go_on()

    def finish(self) -> None:
        """Nothing more comes at all."""
        for group in self._groups.values():
            self._pass_on(group)
        self._groups.clear()
        self._expected = True

    # -- how

    def _go_on(self) -> None:
        """Let the groups that have ended go by; the next one shows from here on."""
        while self._groups:
            key, group = next(iter(self._groups.items()))
            self._pass_on(group)
            if not group.ended:
                return
            del self._groups[key]

    def _pass_on(self, group: _Group) -> None:
        self._waiting -= group.characters
        group.characters = 0
        while group.facts:
            group.facts.popleft().tell()

    def _shorten(self) -> None:
        largest = max(self._groups.values(), key=lambda group: group.characters)
        lines, characters, target = 0, 0, largest.characters // 2
        kept: deque[Fact] = deque()
        for fact in largest.facts:
            if fact.characters and largest.characters - characters > target:
                lines, characters = lines + fact.lines, characters + fact.characters
            else:
                kept.append(fact)
        largest.facts = kept
        largest.characters -= characters
        self._waiting -= characters
        self._omit(lines, characters)
