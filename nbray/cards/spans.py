"""Finished tasks as columns: what a timeline draws. 100,000 spans take 2.3 MB here and on the wire.

One span is 23 bytes, little-endian, column after column: `queued`, `start`, `end` in milliseconds after the run's beginning
(float32: exact to 0.3 ms after an hour), `row` (uint16, the worker), `name` (uint16, the function), `attempt` (uint16),
`state` (uint8: 0 finished, 1 failed, 2 cancelled), `fetch` (float32, ms: how long its arguments were on their way to the worker).
Cards kept by version 1 have no `fetch`: 19 bytes.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np

from nbray.engines.cells import OTHERS
from nbray.trace import TraceRecord

MOST = 200_000  #: spans kept of one run; the counts go on
STATES = {"FINISHED": 0, "FAILED": 1, "CANCELLED": 2}
COLUMNS = (
    ("queued", "f"),
    ("start", "f"),
    ("end", "f"),
    ("row", "H"),
    ("name", "H"),
    ("attempt", "H"),
    ("state", "B"),
    ("fetch", "f"),
)
SPAN_BYTES = 23
MOST_NAMES = 500  #: told apart; the last stands for all others
MS = 1e6  #: nanoseconds in one


class Spans:
    """Columns that only grow. `rows` are workers in the order of their first task, `names` the tasks' names."""

    def __init__(self) -> None:
        self.columns: dict[str, array[Any]] = {name: array(code) for name, code in COLUMNS}
        self.ids: list[bytes] = []
        self.rows: dict[tuple[bytes, bytes], int] = {}
        self.names: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, records: Iterable[TraceRecord], begun_ns: int) -> None:
        """Tasks that ran. One that never began (cancelled while queued) has no span."""
        ran = [record for record in records if record.started_ns][: MOST - len(self.ids)]
        rows, names, columns = self.rows, self.names, self.columns
        # Column by column: thousands come at once, and a loop over all columns of each takes twice as long.
        columns["queued"].extend([(record.submitted_ns - begun_ns) / MS for record in ran])
        columns["start"].extend([(record.started_ns - begun_ns) / MS for record in ran])
        columns["end"].extend([(record.ended_ns - begun_ns) / MS for record in ran])
        columns["row"].extend([min(rows.setdefault((record.node, record.worker), len(rows)), 65_535) for record in ran])
        columns["name"].extend([at if (at := names.get(record.name)) is not None else self._name(record.name) for record in ran])
        columns["attempt"].extend([min(record.attempt, 65_535) for record in ran])
        columns["state"].extend([STATES[record.state] for record in ran])
        columns["fetch"].extend([record.fetch_ns / MS for record in ran])
        self.ids += [record.id for record in ran]  # last: whoever reads meanwhile goes by their number

    def _name(self, name: str) -> int:
        """The number of a new one."""
        return self.names.setdefault(name if len(self.names) < MOST_NAMES - 1 else OTHERS, len(self.names))

    def packed(self, first: int, last: int) -> bytes:
        """Spans `first` to `last` (not included), column after column."""
        return b"".join(column[first:last].tobytes() for column in self.columns.values())

    def table(self) -> dict[str, np.ndarray[Any, Any]]:
        """The columns as arrays of their own: the spans may grow meanwhile."""
        size = len(self.ids)
        return {name: np.array(column[:size]) for name, column in self.columns.items()}

    def chosen(self, most: int, names: int = MOST_NAMES) -> str:
        """At most `most` spans in base64: all, or the longest and every failed one, in their order. For a page without a kernel; it
        knows `names` names, the last of which is everybody else's."""
        table = self.table()
        if len(self.ids) > most:
            duration = table["end"] - table["start"]
            duration[table["state"] == 1] = np.inf
            keep = np.sort(np.argpartition(duration, -most)[-most:]) if most else slice(0)
            table = {name: column[keep] for name, column in table.items()}
        table["name"] = np.minimum(table["name"], max(0, names - 1))
        return base64.b64encode(b"".join(column.tobytes() for column in table.values())).decode("ascii")
