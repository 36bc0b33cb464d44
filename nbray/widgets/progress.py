"""How far a number of tasks are."""

from __future__ import annotations

import html
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from nbray import connection, session
from nbray.cards.page import STATE_COLOURS
from nbray.cards.words import SIGNS, count_text, seconds_text
from nbray.engines.port import Engine
from nbray.generators import ObjectRefGenerator
from nbray.refs import ObjectRef
from nbray.widgets.picture import Picture, Snapshot

BLOCKS = 30  #: of the bar in the text
FEW = 1000  #: references that are asked one by one


class Progress(Picture):
    """A bar over references: done, failed, running, and how long the rest takes if it goes on like this. Only a view: wait for the
    references themselves.

    `refs` are references, generators (each counts as one task), or a `%%remote` handle. It holds a reference until that is
    ready, no longer.
    """

    _make = "createProgress"
    _stays = True

    def __init__(self, refs: Any) -> None:
        """Raises TypeError for what is no reference."""
        super().__init__()
        self._engine: Engine = connection.engine()
        self._begun_s = time.monotonic()
        self._pending = {ref.binary(): ref for ref in _references(refs)}
        self._tasks = {id_[:16] for id_ in self._pending}
        self.total = len(self._pending)
        self._ended: deque[bytes] = deque()
        self._done = self._failed = self._before = 0
        self._ended_s: float | None = None
        self._counting = threading.Lock()
        for id_, ref in list(self._pending.items()):
            # From any thread, also within the engine's lock: it only appends.
            self._engine.on_ready(ref, lambda id_=id_: self._ended.append(id_), local=False)  # type: ignore[misc]
        self._count()
        self._before = self._done + self._failed  # ready at once: they say nothing about how fast it goes

    def _count(self) -> None:
        with self._counting:
            while self._ended:
                self._settle(self._ended.popleft())
            if 0 < len(self._pending) <= FEW and session.engine is self._engine:  # to the moment; of many it may be a little late
                few = list(self._pending.values())
                for ref in self._engine.wait(few, len(few), 0, False)[0]:
                    self._settle(ref.binary())
            if not self._pending and self._ended_s is None:
                self._ended_s = time.monotonic()

    def _settle(self, id_: bytes) -> None:
        ref = self._pending.get(id_)
        state = self._engine.facts_of(ref)["state"] if ref is not None else "PENDING"
        if state == "PENDING":
            return  # counted before, or its session ended first
        del self._pending[id_]
        if state == "FAILED":
            self._failed += 1
        else:
            self._done += 1

    def _look(self) -> Snapshot:
        self._count()
        if self._pending and session.engine is not self._engine:
            return {
                "gone": f"{count_text(len(self._pending), 'task')} of {self.total:,} belong to a session that has ended.",
                "over": True,
            }
        elapsed = (self._ended_s or time.monotonic()) - self._begun_s
        left, new = len(self._pending), self._done + self._failed - self._before
        running = sum(task in self._tasks for task in self._engine.looks.running()) if left else 0
        eta = left * elapsed / new if left and new else None
        state = "running" if left else "failed" if self._failed else "done"
        parts = [f"{self._done:,} of {count_text(self.total, 'task')} done"]
        parts += [f"{count:,} {what}" for what, count in (("failed", self._failed), ("running", running)) if count]
        time_text = seconds_text(elapsed) + (f", about {seconds_text(eta)} left" if eta is not None else "")
        counts = {"total": self.total, "done": self._done, "failed": self._failed, "running": running}
        return {**counts, "state": state, "words": f"{', '.join(parts)} · {time_text}", "left_s": eta, "over": not left}

    def _text(self, snapshot: Snapshot) -> str:
        if "total" not in snapshot:
            return str(snapshot["gone"])
        done, failed = (snapshot[what] * BLOCKS // max(1, self.total) for what in ("done", "failed"))
        bar = "█" * done + "✗" * failed + "·" * (BLOCKS - done - failed)
        return f"{SIGNS[snapshot['state']]} {snapshot['state']} · [{bar}] {snapshot['words']}"

    def _html(self, snapshot: Snapshot) -> str:
        if "total" not in snapshot:
            return f"<div>{html.escape(snapshot['gone'])}</div>"
        each = "display:inline-block;height:8px;vertical-align:top"
        pieces = "".join(
            f'<span title="{snapshot[what]:,} {what}" style="{each};background:{STATE_COLOURS[what]};'
            f'width:{100 * snapshot[what] / max(1, self.total):.2f}%"></span>'
            for what in ("done", "failed", "running")
            if snapshot[what]
        )
        sign = f'<span style="color:{STATE_COLOURS[snapshot["state"]]}">{SIGNS[snapshot["state"]]} {snapshot["state"]}</span>'
        style = "height:8px;max-width:600px;background:rgba(128,128,128,.15);line-height:0"
        bar = f'<div aria-hidden="true" style="{style}">{pieces}</div>'
        return f'<div role="group" aria-label="progress">{sign} · {html.escape(snapshot["words"])}{bar}</div>'


def _references(given: Any) -> list[ObjectRef[Any]]:
    chunks = getattr(given, "chunks", None)  # of a handle
    if chunks is not None and all(isinstance(getattr(chunk, "report", None), ObjectRef) for chunk in chunks):
        return [chunk.report for chunk in chunks]
    each = [given] if isinstance(given, ObjectRef | ObjectRefGenerator) else given
    if not isinstance(each, Iterable):
        raise TypeError(f"Progress() takes references, generators or a handle of %%remote, not {given!r:.100}")
    found = [one.completed() if isinstance(one, ObjectRefGenerator) else one for one in each]
    for one in found:
        if not isinstance(one, ObjectRef):
            raise TypeError(f"Progress() takes references, generators or a handle of %%remote, and among these is {one!r:.100}")
    return found
