"""Lines that many processes print alike, folded into one: pure, with the time handed in.

The first of a kind is shown at once. What other processes print alike within the window is held back, and at its end the last
of them is shown with how many there were. What one process repeats by itself is its own business, and is all shown. Lines are
alike when they differ in words with digits only.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import NamedTuple

_DIGIT = re.compile(r"\d")


class Rules(NamedTuple):
    """`shown`: lines that are never folded. `left_out`: lines that are never shown. `shown` wins."""

    window_s: float = 5.0
    folds: bool = True
    shown: re.Pattern[str] | None = None
    left_out: re.Pattern[str] | None = None


class _Kind:
    """What has been seen of lines that are alike, since `since`."""

    __slots__ = ("held", "last", "lead", "since", "sources")

    def __init__(self, since: float, source: Hashable) -> None:
        self.since = since
        self.sources = {source}
        self.held = 0  #: lines not shown
        self.last = ""
        self.lead = ""


class Fold:
    """The lines of one stream."""

    def __init__(self, rules: Rules, notice: str) -> None:
        """`notice` is said once, at the first line that stands for several."""
        self._rules = rules
        self._notice = notice
        self._kinds: dict[str, _Kind] = {}  #: oldest first

    def take(self, source: Hashable, lead: str, lines: list[str], now: float) -> list[str]:
        """What to show of new lines, each behind its `lead`; what is due of older ones comes first."""
        shown = self.due(now)
        shown += [lead + line for line in lines if self._shows(source, lead, line, now)]
        return shown

    def _shows(self, source: Hashable, lead: str, line: str, now: float) -> bool:
        rules = self._rules
        if rules.shown is not None and rules.shown.search(line):
            return True
        if rules.left_out is not None and rules.left_out.search(line):
            return False
        if not rules.folds:
            return True
        key = " ".join(word for word in line.split() if not _DIGIT.search(word))
        if not key:
            return True  # nothing but figures: they are what is to be read
        kind = self._kinds.get(key)
        if kind is None:
            self._kinds[key] = _Kind(now, source)
            return True
        kind.sources.add(source)
        if len(kind.sources) == 1:
            return True
        kind.held, kind.last, kind.lead = kind.held + 1, line, lead
        return False

    def due(self, now: float) -> list[str]:
        """What windows that are over have held back."""
        over = [key for key, kind in self._kinds.items() if now - kind.since >= self._rules.window_s]
        return self._let_go(over, now)

    def flush(self, now: float) -> list[str]:
        """All that is held back."""
        return self._let_go(list(self._kinds), now)

    def _let_go(self, keys: list[str], now: float) -> list[str]:
        shown = []
        for key in keys:
            kind = self._kinds.pop(key)
            if kind.held == 1:
                shown.append(kind.lead + kind.last)
            elif kind.held:
                shown.append(f"{kind.lead}{kind.last} [repeated {kind.held}x across cluster]{self._notice}")
                self._notice = ""
                # Others are likely to follow: they are held back from the first on.
                kind.since, kind.held = now, 0
                self._kinds[key] = kind
        return shown

    def next_deadline(self) -> float | None:
        """When `due` next has something to show."""
        return min((kind.since + self._rules.window_s for kind in self._kinds.values() if kind.held), default=None)
