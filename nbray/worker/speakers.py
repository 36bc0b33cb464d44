"""Whose words are heard: of a thread that prints, and of C code and child processes, which say nothing of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbray.wire.messages import PushCall, PushTask
from nbray.worker.output import Source

if TYPE_CHECKING:
    from nbray.worker.executor import Executor

NO_TASK = b"\0" * 16


class Speakers:
    """Asked by output about what the executor runs."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._last: Source | None = None  #: of whom others were the last time

    def here(self) -> Source:
        """The calling thread, or whatever began last."""
        executor = self._executor
        current = executor.current.get() or next(reversed(executor.running.values()), None)
        return self._of(current.push if current is not None else None)

    def others(self, ended: PushTask | PushCall | None = None) -> Source:
        """What runs here or has just `ended`, if that is one; else only their cell, if that is one; else what ran last."""
        pushes = [push for current in list(self._executor.running.values()) if (push := current.push) is not None]
        if ended is not None:
            pushes.append(ended)
        if not pushes:
            return self._last or self._of(None)
        source = self._of(pushes[0])
        if len(pushes) > 1:
            cell = source.cell if all(push.cell == source.cell for push in pushes) else ""
            source = Source(cell, NO_TASK, self._name(), source.driver)
        self._last = source
        return source

    def _of(self, push: PushTask | PushCall | None) -> Source:
        if push is None:
            return Source("", NO_TASK, self._name(), self._executor.engine.job)
        return Source(push.cell, push.task, push.name if self._executor.actor is None else self._name(), push.job)

    def _name(self) -> str:
        return "worker" if self._executor.actor is None else self._executor.actor.title()
