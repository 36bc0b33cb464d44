"""A plain cell that was sent to the background: its prompt is back, its tasks go on, and what it waited for is kept.

Background pressed   its code waits in get, wait, next    that ends with SentToBackground (owner/leaving.py)
                     it awaits                            its asyncio task is cancelled
                     it computes                          the same at its next wait
the cell ends        Left, which `%nbray last` gives, and one quiet line under the cell
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any

import nbray
from nbray.cards import words
from nbray.engines.port import Engine
from nbray.exceptions import GetTimeoutError, SentToBackground
from nbray.generators import ObjectRefGenerator
from nbray.notebook import display
from nbray.refs import ObjectRef
from nbray.sourcelines import cell_of


class Left:
    """What a cell waited for. `refs`, `result(timeout)`, `done()`, `counts()`, `cancel()`.

    `refs` is a list of references, or the generator whose next item the cell waited for.
    """

    def __init__(self, engine: Engine, tag: str, label: str, line: int, waited_for: Any) -> None:
        self.engine, self.tag, self.label, self.line = engine, tag, label, line
        self._waited_for = waited_for
        self._taken: list[ObjectRef[Any]] = []  # of a generator

    @property
    def refs(self) -> list[Any] | ObjectRefGenerator[Any]:
        if isinstance(self._waited_for, ObjectRefGenerator | list):
            return self._waited_for
        return [] if self._waited_for is None else [self._waited_for]

    def result(self, timeout: float | None = None) -> Any:
        """What `get` gives: one value, or a list where the cell waited for several; of a generator the values that were to come
        (one among several stays a generator).

        Raises what a task raised; GetTimeoutError after `timeout` seconds, and the tasks go on.
        """
        waited_for = self._waited_for
        if isinstance(waited_for, list) and any(isinstance(each, ObjectRefGenerator) for each in waited_for):
            return [nbray.get(each, timeout=timeout) for each in waited_for]
        if not isinstance(waited_for, ObjectRefGenerator):
            return None if waited_for is None else nbray.get(waited_for, timeout=timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not nbray.wait([waited_for], timeout=left)[0]:
                raise GetTimeoutError(f"Get timed out: {waited_for!r} has not ended after {timeout:g} s; it goes on")
            if (ref := next(waited_for, None)) is None:
                return nbray.get(self._taken)
            self._taken.append(ref)

    def done(self) -> bool:
        """Whether every task of the cell has ended."""
        counts = self.counts()
        return not counts["queued"] and not counts["running"]

    def counts(self) -> dict[str, int]:
        """How many of the cell's tasks are queued, running, done, failed and cancelled."""
        return self.engine.cell_counts(self.tag)

    def cancel(self, force: bool = False) -> int:
        """Stop what is left of the cell: `force` kills the workers. Returns how many tasks that was. Does not wait."""
        return self.engine.cancel_cell(self.tag, force)

    def __repr__(self) -> str:
        return self._line()["text/plain"]

    def _repr_html_(self) -> str:
        return self._line()["text/html"]

    def _line(self) -> display.Bundle:
        counts = self.counts()
        told = words.counts_text({"submitted": sum(counts.values()), **counts})
        state = "done" if self.done() else "running"
        return display.line(state, [self.label, "in the background", told, ".refs, .result()"])


def own_task(shell: Any) -> asyncio.Task[Any] | None:
    """The asyncio task that is nothing but the running cell, where it may await; None in other cells."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return None
    runs = getattr(type(shell), "run_cell_async", None)
    return task if task is not None and runs is not None and _code(task.get_coro()) is _code(runs) else None


def _code(what: Any) -> Any:
    return getattr(what, "cr_code", None) or getattr(what, "__code__", what)


def waited_for(error: BaseException, awaited: list[Any]) -> Any:
    """What the cell waited for that `error` ended: as it gave it, or all that it awaited."""
    if isinstance(error, SentToBackground):
        return error.waited_for
    return awaited[0] if len(awaited) == 1 else awaited or None


def stopped_at(trace: TracebackType | None, label: str) -> int:
    """The line of the cell that its code had reached; 0 where it is not known."""
    line = 0
    while trace is not None:
        if cell_of(trace.tb_frame.f_code.co_filename) == label:
            line = trace.tb_lineno or 0
        trace = trace.tb_next
    return line


def said(left: Left) -> str:
    """The line under the cell."""
    counts = left.counts()
    several = counts["queued"] + counts["running"]
    going_on = f"{words.count_text(several, 'task')} {'goes' if several == 1 else 'go'} on" if several else "its tasks have ended"
    where = f" at line {left.line}" if left.line else ""
    kept = ". %nbray last has what it waited for: .refs, and .result() for the values" if left.refs else ""
    return f"{left.label} is in the background: {going_on}, and its code stopped{where}{kept}"
