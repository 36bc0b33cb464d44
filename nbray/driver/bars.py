"""Progress bars of many processes in one terminal: a block of lines at the bottom, below everything that is printed.

Where the output is no terminal there is nothing to redraw: a bar is a line when it is done, and every PLAIN_S before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from nbray.progress import Progress, line

REDRAW_S = 0.05  #: between drawings, however many bars report
PLAIN_S = 10.0
SHOWN = 20  #: lines of the block; the others are counted


class Bars:
    """Called under its owner's lock. `now` is monotonic seconds."""

    def __init__(self, out: Callable[[], TextIO]) -> None:
        """`out()` is where to draw, asked each time: programs replace sys.stderr."""
        self._out = out
        self._running: dict[str, Progress] = {}
        self._written: dict[str, float] = {}  #: when a bar was last a line, where nothing is redrawn
        self._drawn = 0  #: lines on the screen
        self._drawn_at = -1.0

    def take(self, progress: Progress, now: float) -> None:
        """A bar moved, or was closed: then its last state becomes a line like any other."""
        if self._out().isatty():
            self._redraw(progress, now)
            return
        last = self._written.setdefault(progress.bar, now)
        if progress.closed or now - last >= PLAIN_S:
            self._write(line(progress) + "\n")
            self._written[progress.bar] = now
        if progress.closed:
            del self._written[progress.bar]

    def _redraw(self, progress: Progress, now: float) -> None:
        if progress.closed:
            self._running.pop(progress.bar, None)
            with self.aside():
                self._write(line(progress, self._width()) + "\n")
            return
        new = progress.bar not in self._running
        self._running[progress.bar] = progress
        if new or now - self._drawn_at >= REDRAW_S:
            self._drawn_at = now
            with self.aside():
                pass

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The block is not on the screen inside: what is printed comes above it."""
        if self._drawn:
            self._write(f"\x1b[{self._drawn}A\x1b[J")
        try:
            yield
        finally:
            shown = list(self._running.values())[:SHOWN]
            lines = [line(each, self._width()) for each in shown]
            if len(self._running) > SHOWN:
                lines.append(f"... and {len(self._running) - SHOWN} more")
            self._drawn = len(lines)
            if lines:
                self._write("\n".join(lines) + "\n")

    def finish(self) -> None:
        """Nothing more comes: what is on the screen stays there."""
        self._running.clear()
        self._drawn = 0

    def _width(self) -> int:
        return max(20, shutil.get_terminal_size().columns - 1)

    def _write(self, text: str) -> None:
        out = self._out()
        out.write(text)
        out.flush()
