"""The part of an engine that is about cells: which one the calling code belongs to, and how each stands.

A base class, because the port is one face: whoever submits asks `current_cell`, whoever draws asks the rest.
"""

from __future__ import annotations

import contextvars
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from nbray.engines.cells import Cells, Standing
from nbray.engines.nested import Nested, Tally, total
from nbray.engines.port import CellProgress, UnfinishedTask
from nbray.engines.unfinished import some_unfinished
from nbray.ids import Address
from nbray.owner import records as r
from nbray.owner.leaving import Leaving
from nbray.owner.runtime import Runtime
from nbray.wire import messages as m


class OfCells:
    """What NativeEngine has besides tasks and objects."""

    def __init__(self, runtime: Runtime, job: Address, *, is_driver: bool) -> None:
        self.runtime = runtime
        self.is_driver = is_driver
        self.job = job  #: the driver; a worker is told with each task
        self.tally = None if is_driver else Tally(self._standing, self._tell_driver)
        self.cells = self.tally or Cells()
        #: What tasks of this driver's cells have submitted.
        self.nested = Nested(runtime.state.objects.is_dead, lambda worker: runtime.step(r.DeathAwaited(worker)))
        self.leaving = Leaving(runtime.lock)
        if is_driver:
            runtime.leaving = self.leaving
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
        self.leaving.begin_cell(tag)
        self.on_cell()
        self.look_around()

    @contextmanager
    def packing(self) -> Iterator[None]:
        tag, began = self.current_cell(), time.perf_counter()
        before = self.cells.packing_s(tag)
        try:
            yield
        finally:  # what was put meanwhile has been counted already
            self.cells.packed(tag, time.perf_counter() - began - (self.cells.packing_s(tag) - before))

    def cell_ended(self) -> list[Any] | None:
        return self.leaving.end_cell()

    def send_to_background(self, tag: str) -> bool:
        return self.leaving.ask(tag)

    def awaited_in_vain(self, what: Any) -> None:
        self.leaving.awaited(what)

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
        own.running = sum(self._standing(tag).running.values())
        count = total([own, *self.nested.counts(tag).values()])
        return {what: getattr(count, what) for what in ("queued", "running", "done", "failed", "cancelled")}

    def on_new_cell(self, callback: Callable[[str], bool]) -> None:
        self.cells.on_new = callback

    def cell_progress(self, tag: str) -> CellProgress:
        return self.nested.together(tag, self.cells.progress(tag, self._standing(tag)))

    def unfinished(self, tasks: Iterable[bytes] = ()) -> list[UnfinishedTask]:
        with self.runtime.locked() as state:
            return some_unfinished(state, tasks)

    def forget_cell(self, tag: str) -> None:
        self.cells.forget(tag)
        self.nested.forget(tag)

    def _standing(self, tag: str) -> Standing:
        """Running are tasks that workers have begun, as far as the owner knows: the first of what each was sent."""
        with self.runtime.locked() as state:
            running = Counter(task.push.name for task in state.first_running() if task.push.cell == tag)
            inputs = {name: count for (cell, name), count in state.tasks.awaiting.items() if cell == tag}
            return Standing(running, inputs, [*state.tasks.leases.stuck(tag), *state.calls.stuck(tag)])

    def _tell_driver(self, tag: str, names: dict[str, list[int]], records: bytes, stuck: list[m.Stuck]) -> None:
        self.runtime.post(self.job, m.CellNews(tag, self.runtime.me, names, records, stuck))
