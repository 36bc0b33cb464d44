"""What each cell has submitted from this process, by the name of the task: counts that cost the hot path one addition.

A cell is known by its tag. Who draws cells (the notebook) sets `on_new` and is told of every cell's first task; where it
answers True, the records of the cell's finished tasks are kept for it until it takes them.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from nbray.engines.port import CellProgress, NameCount
from nbray.trace import TraceRecord
from nbray.wire.messages import Stuck

NAMES_PER_CELL = 500  #: tasks may be named one by one; beyond this they are counted together
OTHERS = "(other names)"


class Standing(NamedTuple):
    """What the owner's machine knows of a cell's unfinished tasks, by name."""

    running: dict[str, int]
    inputs: dict[str, int]  #: those that wait for their arguments
    stuck: list[Stuck]


class _Cell:
    __slots__ = ("names", "received", "records", "sent")

    def __init__(self) -> None:
        self.names: dict[str, NameCount] = {}
        self.records: deque[TraceRecord] | None = None
        self.sent = self.received = 0


class Cells:
    """Counts by cell and name. `submitted` and `ended` are called by whichever thread submits or receives."""

    def __init__(self) -> None:
        self.on_new: Callable[[str], bool] = lambda _tag: False
        self._cells: dict[str, _Cell] = {}
        self._stored: dict[str, int] = {}
        self._packing_s: dict[str, float] = {}

    def submitted(self, tag: str, name: str) -> None:
        cell = self._cells.get(tag)
        if cell is None:
            cell = self._cells[tag] = _Cell()
            if self.on_new(tag):
                cell.records = deque()
        count = cell.names.get(name)
        if count is None:
            count = self._new_name(cell, name)
        count.submitted += 1  # no call in between: no other thread gets in here

    def ended(self, tag: str, name: str, record: TraceRecord) -> bool:
        """Whether somebody takes the cell's records."""
        cell = self._cells.get(tag)
        if cell is None:  # submitted before this cluster's engine, or by an older attempt of it
            return False
        count = cell.names.get(name) or cell.names.get(OTHERS)
        if count is None:
            return False  # an actor's creation: it is not counted as a task
        if record.state == "FINISHED":
            count.done += 1
        elif record.state == "FAILED":
            count.failed += 1
        else:
            count.cancelled += 1
        if cell.records is None:
            return False
        cell.records.append(record)
        return True

    def is_drawn(self, tag: str) -> bool:
        """Whether somebody takes the cell's records."""
        cell = self._cells.get(tag)
        return cell is not None and cell.records is not None

    def moved(self, tag: str, sent: int, received: int) -> None:
        """Bytes that went out with an ended task of a cell, and that its results have."""
        cell = self._cells[tag]
        cell.sent += sent
        cell.received += received

    def stored(self, tag: str, size: int) -> None:
        """The cell put a value of `size` bytes into the store; it may not have submitted anything yet."""
        if tag:
            self._stored[tag] = self._stored.get(tag, 0) + size

    def packed(self, tag: str, seconds: float) -> None:
        """So long the cell's own process was busy with a large value: it pickled it, or wrote it into the store."""
        if tag:
            self._packing_s[tag] = self._packing_s.get(tag, 0.0) + seconds

    def packing_s(self, tag: str) -> float:
        return self._packing_s.get(tag, 0.0)

    def counts(self, tag: str) -> NameCount:
        """All names together; `running` is left to the caller, who knows the leases."""
        total = NameCount()
        cell = self._cells.get(tag)
        for count in list(cell.names.values()) if cell is not None else []:
            total.submitted += count.submitted
            total.done += count.done
            total.failed += count.failed
            total.cancelled += count.cancelled
        return total

    def totals(self) -> NameCount:
        """All cells together."""
        total = NameCount()
        for tag in list(self._cells):
            count = self.counts(tag)
            total.submitted += count.submitted
            total.done += count.done
            total.failed += count.failed
            total.cancelled += count.cancelled
        return total

    def unfinished(self) -> dict[tuple[str, str], int]:
        """How many tasks of each cell and name have not ended."""
        left: dict[tuple[str, str], int] = {}
        for tag, cell in list(self._cells.items()):
            for name, count in list(cell.names.items()):
                if (rest := count.submitted - count.done - count.failed - count.cancelled) > 0:
                    left[tag, name] = rest
        return left

    def progress(self, tag: str, now: Standing, most: int = sys.maxsize) -> CellProgress:
        """The counts by name, and the records that ended since this was asked before: each is given once, `most` at a time."""
        cell = self._cells.get(tag)
        if cell is None:
            return CellProgress({}, [])
        records: list[TraceRecord] = []
        waiting = cell.records
        while waiting and len(records) < most:
            records.append(waiting.popleft())
        names = {
            name: NameCount(
                count.submitted, count.done, count.failed, count.cancelled, now.running.get(name, 0), now.inputs.get(name, 0)
            )
            for name, count in list(cell.names.items())
        }
        sent, packing_s = cell.sent + self._stored.get(tag, 0), self.packing_s(tag)
        return CellProgress(names, records, sent=sent, received=cell.received, stuck=now.stuck, packing_s=packing_s)

    def forget(self, tag: str) -> None:
        """Nobody draws the cell any more: keep its counts, collect no records."""
        self._stored.pop(tag, None)
        self._packing_s.pop(tag, None)
        if (cell := self._cells.get(tag)) is not None:
            cell.records = None

    @staticmethod
    def _new_name(cell: _Cell, name: str) -> NameCount:
        if len(cell.names) >= NAMES_PER_CELL:
            name = OTHERS
        return cell.names.setdefault(name, NameCount())
