"""The part of an engine that is about cells: which one the calling code belongs to, and how each stands.

A base class, because the port is one face: whoever submits asks `current_cell`, whoever draws asks the rest.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nbray.engines.cells import Cells
from nbray.engines.nested import Nested, Tally, total
from nbray.engines.port import CellProgress
from nbray.ids import Address
from nbray.owner import records as r
from nbray.owner.runtime import Runtime
from nbray.wire import messages as m


class OfCells:
    """What NativeEngine has besides tasks and objects."""

    def __init__(self, runtime: Runtime, job: Address, *, is_driver: bool) -> None:
        self.runtime = runtime
        self.is_driver = is_driver
        self.job = job  #: the driver; a worker is told with each task
        self.tally = None if is_driver else Tally(self._running, self._tell_driver)
        self.cells = self.tally or Cells()
        #: What tasks of this driver's cells have submitted.
        self.nested = Nested(runtime.state.objects.is_dead, lambda worker: runtime.step(r.DeathAwaited(worker)))
        self.on_cell: Callable[[], None] = lambda: None  #: a notebook's next cell begins
        self.look_around: Callable[[], None] = lambda: None  #: the same, for what was edited since
        self._cell: contextvars.ContextVar[str | None] = contextvars.ContextVar("nbray_cell", default=None)
        self._default_cell = ""

    def current_cell(self) -> str:
        tag = self._cell.get()
        return self._default_cell if tag is None else tag

    @contextmanager
    def cell(self, tag: str) -> Iterator[None]:
        token = self.enter_cell(tag)
        try:
            yield
        finally:
            self.leave_cell(token)

    def enter_cell(self, tag: str) -> contextvars.Token[str | None]:
        return self._cell.set(tag)

    def leave_cell(self, token: contextvars.Token[str | None]) -> None:
        self._cell.reset(token)

    def set_default_cell(self, tag: str) -> None:
        self._default_cell = tag
        self.on_cell()
        self.look_around()

    def cancel_cell(self, tag: str, force: bool) -> int:
        with self.runtime.locked() as state:
            count = sum(t.push.cell == tag for t in state.tasks.tasks.values())
        self.runtime.step(r.CellCancelled(tag, force=force))
        return count

    def calls_under_way(self, tag: str) -> int:
        with self.runtime.locked() as state:
            return sum(task.push.cell == tag for actor in state.calls.actors.values() for task in actor.under_way())

    def cell_counts(self, tag: str) -> dict[str, int]:
        own = self.cells.counts(tag)
        own.running = sum(self._running(tag).values())
        count = total([own, *self.nested.counts(tag).values()])
        return {what: getattr(count, what) for what in ("queued", "running", "done", "failed", "cancelled")}

    def on_new_cell(self, callback: Callable[[str], bool]) -> None:
        self.cells.on_new = callback

    def cell_progress(self, tag: str) -> CellProgress:
        return self.nested.together(tag, self.cells.progress(tag, self._running(tag)))

    def forget_cell(self, tag: str) -> None:
        self.cells.forget(tag)
        self.nested.forget(tag)

    def _running(self, tag: str) -> dict[str, int]:
        """Tasks of a cell by name that workers have begun, as far as the owner knows: the first of what each was sent."""
        running: dict[str, int] = {}
        with self.runtime.locked() as state:
            for task in state.first_running():
                if task.push.cell == tag:
                    running[task.push.name] = running.get(task.push.name, 0) + 1
        return running

    def _tell_driver(self, tag: str, names: dict[str, list[int]], records: bytes) -> None:
        self.runtime.post(self.job, m.CellNews(tag, self.runtime.me, names, records))
