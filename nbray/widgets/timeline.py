"""What ran where and when."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from nbray import connection, session
from nbray.cards import page, words
from nbray.cards.lanes import lanes
from nbray.cards.run import Run
from nbray.engines.port import CellProgress, NameCount
from nbray.exceptions import RayError
from nbray.trace import TraceRecord, chrome_events, from_dict
from nbray.widgets.notebook import Cards, cards_here
from nbray.widgets.picture import Picture, Snapshot, projector

SENT_SPANS = 20_000  #: in one message
NOTHING = "No tasks have run yet."


class Timeline(Picture):
    """The tasks of one cell, each on its worker's line, while they run and afterwards.

    `cell` is the cell's number, its title ("In[7]"), its tag, or a `%%remote` handle; without one the cell that runs now, else the
    last. Cells are known where the notebook extension is loaded; elsewhere a timeline has everything that this process submitted.
    Raises LookupError for a cell of which nothing is known.
    """

    _make = "createTimelineView"

    def __init__(self, cell: Any = None) -> None:
        super().__init__()
        self._cards: Cards | None = cards_here()
        self._card = self._cards.find(cell) if self._cards is not None else None
        if self._card is None and cell is not None:
            known = ", ".join(self._cards.titles()) if self._cards is not None else ""
            raise LookupError(f"nothing is known of the tasks of {cell!r:.80}; cells that are: {known or 'none'}")
        self._whole: Run | None = None
        self._sent = 0  #: spans that pages have

    def _run(self) -> Run | None:
        return self._card.run if self._card is not None else self._whole

    def _look(self) -> Snapshot:
        if self._card is None:
            self._whole = whole_run()  # as it is now: who looks again asks again
        return self._part(0)[0]

    def _changes(self) -> tuple[Snapshot, list[bytes]] | None:
        snapshot, spans = self._part(self._sent)
        self._sent = min(snapshot.get("spans", 0), self._sent + SENT_SPANS)
        return {**snapshot, "over": snapshot.get("state") != "running" and self._sent >= snapshot.get("spans", 0)}, spans

    def _part(self, first: int) -> tuple[Snapshot, list[bytes]]:
        if self._card is not None:
            snapshot, packed = self._card.part(first, SENT_SPANS)
        elif self._whole is not None:
            snapshot, packed = self._whole.snapshot(0), self._whole.spans.packed(first, first + SENT_SPANS)
        else:
            return {"gone": NOTHING, "over": True}, []
        return {**snapshot, "first": first}, [packed] if packed else []

    def _text(self, snapshot: Snapshot) -> str:
        run = self._run()
        if run is None or "counts" not in snapshot:
            return str(snapshot.get("gone", NOTHING))
        return "\n".join([words.text(snapshot), *lanes(run.spans)])

    def _html(self, snapshot: Snapshot) -> str:
        run = self._run()
        if run is None or "counts" not in snapshot:
            return f"<div>{html.escape(str(snapshot.get('gone', NOTHING)))}</div>"
        return page.page(snapshot, run.spans).replace("<details ", "<details open ", 1)

    def _can(self) -> list[str]:
        return ["perfetto"]

    def _commands(self) -> dict[str, Callable[..., Any]]:
        return {"resync": self._resync, "perfetto": self._perfetto}

    def _resync(self) -> None:
        with self._lock:
            self._sent = 0
        projector.resync(self)

    def _perfetto(self) -> list[dict[str, Any]]:
        if self._card is not None:
            return self._card.chrome_trace()
        return chrome_events(connection.attached("widgets.Timeline").trace())


def records_here() -> list[TraceRecord]:
    """Every task of this process's job that is over; none without a cluster, or while it does not answer."""
    engine = session.engine
    if engine is None:
        return []
    try:
        return [from_dict(record) for record in engine.trace() if record["kind"] == "task"]
    except RayError:
        return []


def whole_run() -> Run | None:
    """Everything that this process has submitted, as one run; None when that is nothing."""
    records = records_here()
    if not records:
        return None
    run = Run("this process", min(record.submitted_ns for record in records))
    names: dict[str, NameCount] = {}
    for record in records:
        count = names.setdefault(record.name, NameCount())
        count.submitted += 1
        count.done += record.state == "FINISHED"
        count.failed += record.state == "FAILED"
        count.cancelled += record.state == "CANCELLED"
    run.take(CellProgress(names, records))
    run.end(max(record.ended_ns for record in records))
    return run
