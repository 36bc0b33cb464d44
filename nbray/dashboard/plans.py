"""What a job or a cell would take elsewhere, for pages: rehearsed in the thread that asks, one plan at a time, and kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from nbray.dashboard.past import of_cell
from nbray.planning import MOST_TASKS, folded, graph_of, grid

MOST_RECORDS = 20_000  #: the latest; the graph of more would take longer to make than its rehearsals
WAIT_S = 10.0  #: for the plan of somebody else
KEPT = 8


class What(NamedTuple):
    """What is planned. With a later batch of the trace it is another plan."""

    cluster: str
    job: bytes
    cell: str
    latest: int  #: batch


class Plans:
    """Any thread."""

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._made: dict[What, dict[str, Any]] = {}

    def plan(self, what: What, batches: Sequence[bytes]) -> dict[str, Any]:
        """Seconds by cores and nodes (planning/forecasts.py:grid). Raises ValueError where no task has run, RuntimeError when
        others are being planned."""
        if not self._one.acquire(timeout=WAIT_S):
            raise RuntimeError("other plans are being made; ask again in a while")
        try:
            if what not in self._made:
                self._made[what] = self._rehearsed(what, batches)
                if len(self._made) > KEPT:
                    del self._made[next(iter(self._made))]
            return self._made[what]
        finally:
            self._one.release()

    @staticmethod
    def _rehearsed(what: What, batches: Sequence[bytes]) -> dict[str, Any]:
        records = of_cell(batches, what.cell, MOST_RECORDS)
        made = grid(folded(graph_of(records), MOST_TASKS))
        if len(records) == MOST_RECORDS:
            made["notes"].append(f"of the latest {MOST_RECORDS:,} tasks")
        return made
