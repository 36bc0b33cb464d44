"""Whether a notebook's cell is still to wait: another thread may end the wait of the cell's code, without any signal.

    ask(cell)   its code waits      the wait ends at once, with SentToBackground
                it computes         its next wait ends so

What the wait was for is not touched: tasks go on, objects stay.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from nbray.exceptions import SentToBackground
from nbray.owner.waiting import Waiter

_get_ident = threading.get_ident


class Leaving:
    """Of one driver. The cell's code is what its main thread runs, in the asyncio task in which the cell began: a wait that another
    asyncio task makes there is not the cell's, and an error of this kind in it would end the event loop."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._main = threading.main_thread().ident
        self.cell = ""  #: whose code runs
        self._task: asyncio.Task[Any] | None = None
        self._asked = False
        self._waiters: list[Waiter] = []  # more than one where a signal's handler waits too
        self._awaited: list[Any] = []

    def begin_cell(self, cell: str) -> None:
        """The code of `cell` runs from now on, in the calling thread."""
        with self._lock:
            if cell != self.cell:
                self.cell, self._asked, self._awaited = cell, False, []
            self._task = _current_task()

    def end_cell(self) -> list[Any] | None:
        """It has ended. What it awaited when it was sent to the background; None where it was not sent."""
        with self._lock:
            awaited = self._awaited if self._asked else None
            self.cell, self._task, self._asked, self._awaited = "", None, False, []
        return awaited

    def ask(self, cell: str) -> bool:
        """From any thread. Whether it waited. Raises LookupError where the code of `cell` does not run."""
        with self._lock:
            if not cell or cell != self.cell:
                raise LookupError("the code of this cell has ended already, and its prompt is back")
            self._asked = True
            for waiter in (waiters := list(self._waiters)):
                waiter.give_up()
            return bool(waiters)

    def awaited(self, what: Any) -> None:
        """Code that awaited `what` was cancelled."""
        if self._asked:
            self._awaited.append(what)

    def begin_wait(self, waiter: Waiter) -> None:
        """Under the lock: the calling thread is about to wait. Raises SentToBackground if it is not to."""
        if _get_ident() != self._main or _current_task() is not self._task:
            return
        if self._asked:
            raise SentToBackground
        self._waiters.append(waiter)

    def end_wait(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None
