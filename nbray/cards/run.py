"""A cell at work, as a model: counts, times, spans, errors. Pure; whoever draws it asks for a snapshot.

    running -> done | failed | cancelled | timed out

`take` is given what is new (engines/port.py:CellProgress) a few times a second, whatever the rate of tasks.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from nbray.cards import verdict, words
from nbray.cards.spans import MOST, Spans
from nbray.engines.port import CellProgress, NameCount
from nbray.trace import TraceRecord
from nbray.wire.messages import Stuck

MOST_REASONS = 3  #: told at once, for what waits
RECENT = 200  #: tasks kept for the list, the latest
ERRORS = 50  #: kinds of error kept
S = 1e9  #: nanoseconds in one
PACED_FROM = 100  #: tasks that have ended, from which on there is a pace
SHORT_S = 0.005  #: of a task: below it most of its time is overhead
MORE_COME = "more tasks are being submitted"  #: why an estimate is a lower bound


class Total:
    """What finished tasks of one name took."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0


class Run:
    """One cell, or one job of a cell. `begun_ns` is wall-clock time."""

    def __init__(self, title: str, begun_ns: int) -> None:
        self.title = title
        self.begun_ns = begun_ns
        self.state = "running"
        self.ended_ns = 0
        self.names: dict[str, NameCount] = {}
        self.spans = Spans()
        self.totals: dict[str, Total] = {}
        self.errors: Counter[str] = Counter()
        self.recent: list[TraceRecord] = []
        self.records: list[TraceRecord] = []  #: all, up to spans.MOST; whoever has made a graph of them empties it
        self.notice = ""  #: why nothing moves, in words, as it was told once
        self.stuck: list[Stuck] = []  #: what waits for a worker that no node has, as it is now
        self.packing_s = 0.0
        self.moved = (0, 0)  #: bytes sent and received, where whoever submitted knows better than the tasks
        self.items = 0  #: of --each, where several are in one task
        self.nested = 0  #: of all tasks, those that tasks submitted
        self._counted = (0, 0)
        self._children: dict[bytes, tuple[int, int]] = {}  # parent -> (until when some child ran, ns in all), as far as they ended
        self.most_running = 0
        self.submits = False  #: tasks have come since the last time
        self._first_ran: dict[str, int] = {}  #: name -> when one of its tasks was first seen to run

    # -- facts in

    def take(self, progress: CellProgress, now_ns: int = 0) -> None:
        before = self.total().submitted
        self.names = progress.names
        self.submits = 0 < before < self.total().submitted
        for name, count in self.names.items():
            if count.running:
                self._first_ran.setdefault(name, now_ns or self.begun_ns)
        self.nested = progress.nested
        self.stuck, self.packing_s = progress.stuck, progress.packing_s
        self._counted = (progress.sent, progress.received)
        self.most_running = max(self.most_running, sum(count.running for count in self.names.values()))
        if progress.records:
            self.notice = ""
            self.records += progress.records[: max(0, MOST - len(self.records))]
        self._ended(progress.records)
        children = [each for each in progress.records if each.parent and each.started_ns]
        for record in sorted(children, key=lambda each: each.started_ns):
            until, covered = self._children.get(record.parent, (0, 0))
            covered += max(0, record.ended_ns - max(record.started_ns, until))
            self._children[record.parent] = (max(until, record.ended_ns), covered)

    def _ended(self, records: list[TraceRecord]) -> None:
        self.spans.add(records, self.begun_ns)
        self.recent += records[-RECENT:]
        del self.recent[:-RECENT]
        totals = self.totals
        for record in records:
            if record.started_ns:
                total = totals.get(record.name)
                if total is None:
                    total = totals[record.name] = Total()
                total.count += 1
                total.seconds += (record.ended_ns - record.started_ns) / S
            if record.state == "FAILED":
                what = error_text(record.detail)
                if what in self.errors or len(self.errors) < ERRORS:
                    self.errors[what] += 1

    def end(self, now_ns: int, state: str = "") -> None:
        """Nothing is left. Without a `state` the counts say which."""
        if self.state != "running":
            return
        total = self.total()
        self.ended_ns = now_ns
        self.state = state or ("failed" if total.failed else "cancelled" if total.cancelled else "done")

    # -- what follows from them

    def total(self) -> NameCount:
        together = NameCount()
        for count in self.names.values():
            together.submitted += count.submitted
            together.done += count.done
            together.failed += count.failed
            together.cancelled += count.cancelled
            together.running += count.running
            together.inputs += count.inputs
        return together

    @property
    def unfinished(self) -> int:
        total = self.total()
        return total.queued + total.running

    def elapsed_s(self, now_ns: int) -> float:
        return max(0.0, ((self.ended_ns or now_ns) - self.begun_ns) / S)

    def left_s(self, now_ns: int) -> float | None:
        """How long the rest will take if it is like what ran. A lower bound while there are `unended` names: a task of those takes
        no less than the first of them has taken so far. None while nothing can be said.

        Of short tasks the work is the lesser part: then it is the pace at which they ended that counts."""
        work, rest = 0.0, 0
        for name, count in self.names.items():
            total = self.totals.get(name)
            if total is not None:
                work += (count.queued + count.running / 2) * total.seconds / total.count
                rest += count.queued + count.running
            elif name in self._first_ran:
                work += count.queued * (now_ns - self._first_ran[name]) / S
        left, ended = work / max(1, self.most_running, len(self.spans.rows)), sum(total.count for total in self.totals.values())
        if not work or (not rest and left < 1):
            return None  # too low a bound says nothing
        if ended < PACED_FROM or self.busy_s() / ended >= SHORT_S:
            return left
        return max(left, self.elapsed_s(now_ns) * rest / ended)

    def unended(self) -> list[str]:
        """Names that have unfinished tasks, and of which none has ended: nobody knows how long those take."""
        return [name for name, count in self.names.items() if count.queued + count.running and name not in self.totals]

    def why_waits(self) -> str:
        """Why nothing moves: what has no worker now, and what was told otherwise."""
        never = "A task of {} can never run here as things are. {}"
        reasons = {each.why: never.format(each.name, each.why) if each.never else each.why for each in self.stuck}
        if self.notice:
            reasons.setdefault(self.notice, self.notice)
        return " ".join(list(reasons.values())[:MOST_REASONS])

    def busy_s(self) -> float:
        """Seconds of work. A task that waits for tasks of its own does none meanwhile."""
        waited = sum(covered for _, covered in self._children.values()) / S
        return max(0.0, sum(total.seconds for total in self.totals.values()) - waited)

    @property
    def ran(self) -> int:
        """Tasks that have begun and ended: as many as have a span, and those beyond the spans that are kept."""
        return sum(total.count for total in self.totals.values())

    def verdict(self) -> str:
        if self.state == "running":
            return ""
        total = self.total()
        times = verdict.Times(self.busy_s(), self.elapsed_s(0), self.packing_s)
        return verdict.sentence(self.spans, times, total.failed, total.submitted, self.errors)

    # -- for those who draw

    def snapshot(self, now_ns: int) -> dict[str, Any]:
        """Everything but the spans, as JSON: the same for a live card, a saved one, and the panel."""
        total, elapsed = self.total(), self.elapsed_s(now_ns)
        sent, received = self.moved if any(self.moved) else self._counted
        return {
            "v": 2,
            "title": self.title,
            "state": self.state,
            "begun_ms": self.begun_ns / 1e6,
            "elapsed_s": round(elapsed, 3),
            "left_s": (left := self.left_s(now_ns) if self.state == "running" else None),
            "left_note": "" if left is None else words.unended_text(self.unended()) or (MORE_COME if self.submits else ""),
            "speed_up": round(self.busy_s() / elapsed, 2) if elapsed > 0 else 0.0,
            "counts": _counts(total),
            "nested": self.nested,
            "items": self.items,
            "names": [{"name": name, **_counts(count), **self._times(name)} for name, count in self.names.items()],
            "workers": [f"{node.hex()[:4]}/{worker.hex()[:4]}" for node, worker in self.spans.rows],
            "span_names": list(self.spans.names),
            "spans": len(self.spans),
            "errors": [{"text": text, "count": count} for text, count in self.errors.most_common()],
            "notice": self.why_waits() if self.state == "running" else "",
            "sent": sent,
            "received": received,
            "verdict": self.verdict(),
        }

    def latest(self) -> list[dict[str, Any]]:
        """The tasks that ended last, latest first, for a list."""
        return [
            {
                "id": record.id.hex(),
                "name": record.name,
                "state": record.state,
                "attempt": record.attempt,
                "worker": f"{record.node.hex()[:4]}/{record.worker.hex()[:4]}",
                "waited_ms": max(0.0, (record.started_ns - record.submitted_ns) / 1e6) if record.started_ns else None,
                "transfer_ms": record.fetch_ns / 1e6,
                "ran_ms": (record.ended_ns - record.started_ns) / 1e6 if record.started_ns else None,
                "detail": record.detail,
            }
            for record in reversed(self.recent[-RECENT:])
        ]

    def _times(self, name: str) -> dict[str, float | None]:
        total = self.totals.get(name)
        if total is None or not total.count:
            return {"mean_s": None, "total_s": 0.0}
        return {"mean_s": total.seconds / total.count, "total_s": total.seconds}


def error_text(detail: str) -> str:
    """One line for a failure, from a trace record's detail: `KIND TYPE: MESSAGE`, where TYPE is the user's class or empty."""
    kind, _, rest = detail.partition(" ")
    first = (rest.splitlines() or [""])[0]
    text = f"{kind}{first}" if first.startswith(":") else first or kind or "an error"
    return text if len(text) <= 200 else text[:199] + "…"


def _counts(count: NameCount) -> dict[str, int]:
    return {
        "submitted": count.submitted,
        "queued": count.queued,
        "inputs": count.inputs,
        "running": count.running,
        "done": count.done,
        "failed": count.failed,
        "cancelled": count.cancelled,
    }
