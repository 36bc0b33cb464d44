"""The stop button: what a cell submitted is cancelled, and the prompt is back at once.

    first stop     the cell's tasks are asked to end: those that wait never run, those that run get KeyboardInterrupt; calls of
                   actors that have begun go on, and only their results are dropped, unless the actor is async
    second stop    workers still busy with a task that was asked to end are killed

The second stop usually comes in a later cell, because the first gave the prompt back; so the cells that were asked are
remembered, and any later interrupt ends what is left of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from nbray.engines.port import Engine

DETACH = "detach"
HEARTBEAT_S = 0.1


class Stopped(NamedTuple):
    """What was asked to end."""

    tasks: int  #: calls of actors among them
    calls: int  #: of actors, and under way: most of those go on

    def __str__(self) -> str:
        said = f"tasks cancelled: {self.tasks - self.calls}"
        if not self.calls:
            return said
        goes_on = "goes on in its actor, and only its result is dropped (get_runtime_context().is_canceled() is True in it)"
        return f"{said}; calls of actors under way: {self.calls}: each {goes_on}, unless the actor is async"


def cancel(engine: Engine, tags: Sequence[str], force: bool) -> Stopped:
    """Cancel what these cells have submitted, and say what that means."""
    calls = sum(map(engine.calls_under_way, tags))
    return Stopped(sum(engine.cancel_cell(tag, force) for tag in tags), calls)


class Interrupts:
    """Which cells were asked to end. Belongs to the notebook's main thread."""

    def __init__(self) -> None:
        self._asked: dict[str, None] = {}

    def stopped(self, engine: Engine, tags: list[str]) -> Stopped:
        """The user pressed stop while `tags` ran."""
        self.insist(engine)
        self._asked |= dict.fromkeys(tags)
        return cancel(engine, tags, False)

    def insist(self, engine: Engine) -> int:
        """Kill the workers of tasks that were asked to end and have not. Returns how many tasks that were."""
        killed = 0
        for tag in list(self._asked):
            if _unfinished(engine, tag):
                killed += engine.cancel_cell(tag, force=True)
            del self._asked[tag]
        return killed

    def forget(self) -> None:
        """The cluster is another one."""
        self._asked.clear()


def _unfinished(engine: Engine, tag: str) -> int:
    counts = engine.cell_counts(tag)
    return counts.get("queued", 0) + counts.get("running", 0)


class Heartbeat:
    """Turns the kernel's event loop while a cell runs: an interrupted `await` ends only when the loop next wakes, and nothing
    else may wake it for as long as a task takes."""

    def __init__(self) -> None:
        self._next: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a shell without a loop awaits nothing
            return
        self.end()
        self._beat(loop)

    def end(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = loop.call_later(HEARTBEAT_S, self._beat, loop)
