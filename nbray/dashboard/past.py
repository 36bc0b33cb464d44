"""What has run on a cluster, job by job, as far as its head remembers it: for pages that draw it. One thread at a time.

    head --trace_since--> Past: batches as they came, the latest KEPT_BYTES --decoded once somebody looks--> Drawing of a job

A page is told of a job in short at every look, and asks for what is long: the spans that it lacks, the graph, the events. Nothing
is asked of owners or workers but, for a graph, what the job's driver knows of this moment; nothing here is ever unpickled.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from nbray.cards.lineage import CellNote, Group, Lineage, Notes, Unfinished, VariableNote, View
from nbray.cards.spans import Spans
from nbray.cards.words import cut
from nbray.engines.port import UnfinishedTask
from nbray.trace import TraceRecord, as_dict, chrome_events, decode_records
from nbray.util.state.asking import Source

KEPT_BYTES = 12 * 2**20  #: as much as the head keeps
ROOM_BYTES = 2 * 2**20  #: of one answer
ASKS = 4  #: in one look: the first looks at a long past fall behind and catch up
MOST_DRAWN = 3  #: jobs that pages look at
MOST_JOBS = 40  #: to choose from, and so of
CELLS_KEPT, CELLS_TOLD = 1000, 60  #: the latest
MOST_WORKERS = 1000  #: whose names a page is told
REDRAWN_AT = 150_000  #: spans: then those that the batches do not have any more are left out
SENT_SPANS = 20_000  #: in one answer: 460 kB
MOST_OPEN = 5  #: groups of a graph, each with up to lineage.MOST_OPEN tasks
MS = 1e6  #: nanoseconds in one
NOTHING_KNOWN: dict[str, Any] = {"names": {}, "counts": [], "tasks": []}  #: where no driver answers
_NAME = re.compile(r"past(?:/([0-9a-f]{16}))?\Z")


def known(view: str) -> bool:
    """Whether it is `past`, of whichever job was active last, or `past/JOB`."""
    return _NAME.match(view) is not None


def job_of(view: str) -> bytes:
    found = _NAME.match(view)
    return bytes.fromhex(found[1]) if found and found[1] else b""


def tag_of(record: TraceRecord) -> str:
    """The cell that a task belongs to, whichever job of it; without a notebook the file that submitted it."""
    return _tag(record.cell, record.line)


def _tag(cell: str, line: str) -> str:
    return cut(cell.partition("#")[0] or _title(line))


def _title(line: str) -> str:
    """`In[12]`, or `train.py`: where a task was submitted, without the line."""
    return cut(line.partition(" line ")[0] if " line " in line else line.rpartition(":")[0]) or "program"


class Cell:
    """Tasks of one cell, or of one file of a program."""

    __slots__ = ("begin_ns", "end_ns", "tasks", "title")

    def __init__(self) -> None:
        self.title, self.tasks = "", 0
        self.begin_ns, self.end_ns = 0, 0

    def take(self, record: TraceRecord) -> None:
        # A worker does not know the numbers of cells, and a cell may submit from a module's function.
        if not self.title or not (record.parent or self.title.startswith("In[")):
            self.title = _title(record.line)
        self.tasks += 1
        if record.started_ns:
            self.begin_ns = min(self.begin_ns or record.submitted_ns, record.submitted_ns)
            self.end_ns = max(self.end_ns, record.ended_ns)


class Drawing:
    """A job as a page draws it. `edition` changes when spans that the page has are not the beginning of ours any more."""

    def __init__(self, edition: int) -> None:
        self.edition = edition
        self.upto = -1  #: the last batch that is in it
        self.begun_ns = 0
        self.spans = Spans()
        self.states: Counter[str] = Counter()
        self.cells: dict[str, Cell] = {}
        self._lineage: Lineage | None = None

    def take(self, batches: Iterable[tuple[int, bytes]]) -> bool:
        """New batches. False when everything has to be drawn anew: something began before all that is drawn, or it is too much."""
        fresh = []
        for number, batch in batches:
            if number > self.upto:
                fresh += tasks_in(batch)
                self.upto = number
        first_ns = min((record.submitted_ns for record in fresh if record.started_ns), default=0)
        if not self.begun_ns:
            self.begun_ns = first_ns
        self._add(fresh)
        return (not first_ns or first_ns >= self.begun_ns) and len(self.spans) <= REDRAWN_AT

    def _add(self, fresh: list[TraceRecord]) -> None:
        self.spans.add(fresh, self.begun_ns)
        self.states.update(record.state for record in fresh)
        for tag, records in by_cell(fresh):
            if tag not in self.cells:
                if len(self.cells) >= CELLS_KEPT:
                    del self.cells[next(iter(self.cells))]
                self.cells[tag] = Cell()
            for record in records:
                self.cells[tag].take(record)
            if self._lineage is not None:
                self._lineage.add(tag, records, tag)

    def lineage(self, batches: Iterable[tuple[int, bytes]]) -> Lineage:
        """Made when somebody asks, and kept from then on. `batches` are all that this has taken."""
        if self._lineage is None:
            self._lineage = Lineage()
            for _, batch in batches:
                for tag, records in by_cell(tasks_in(batch)):
                    self._lineage.add(tag, records, tag)
        return self._lineage

    def notes(self, now: dict[str, Any]) -> Notes:
        """Cells, also those of which no task has ended, and variables that hold results."""
        titles = {_tag(cell, line): _title(line) for cell, _, _, _, line in now["counts"] if line}
        titles |= {tag: cell.title for tag, cell in self.cells.items()}
        tasks: dict[str, dict[bytes, None]] = {}
        for object_, names in now["names"].items():
            for name in names:  # `parts[3]` is of the variable `parts`
                tasks.setdefault(name if name.startswith("Out[") else name.partition("[")[0], {})[object_[:16]] = None
        cells = [CellNote(number, tag, title) for number, (tag, title) in enumerate(titles.items(), 1)]
        return Notes(cells, [VariableNote(name, tasks=list(made)) for name, made in tasks.items()])

    def told(self) -> dict[str, Any]:
        """For a page, in short; times in ms after the job's first submission."""
        states, spans = self.states, self.spans
        counts = {"done": states["FINISHED"], "failed": states["FAILED"], "cancelled": states["CANCELLED"]}
        cells = [
            {
                "tag": tag,
                "title": cell.title,
                "tasks": cell.tasks,
                "from_ms": (cell.begin_ns - self.begun_ns) / MS,
                "to_ms": (cell.end_ns - self.begun_ns) / MS,
            }
            for tag, cell in itertools.islice(reversed(self.cells.items()), CELLS_TOLD)
            if cell.end_ns
        ]
        return {
            "v": 2,
            "edition": self.edition,
            "spans": len(spans),
            "span_names": list(spans.names),
            "workers": [f"{node.hex()[:4]}/{worker.hex()[:4]}" for node, worker in itertools.islice(spans.rows, MOST_WORKERS)],
            "counts": {"submitted": sum(states.values()), **counts, "running": 0, "queued": 0},
            "cells": cells,
        }

    def part(self, edition: int, first: int) -> dict[str, Any]:
        """Spans from `first` on, for a page that has those before of this edition."""
        first = min(first, len(self.spans)) if edition == self.edition else 0
        data = self.spans.packed(first, min(len(self.spans), first + SENT_SPANS))
        return {"edition": self.edition, "first": first, "data": base64.b64encode(data).decode("ascii")}


class Past:
    """The latest batches of every job of one cluster."""

    def __init__(self) -> None:
        self._next = 0  #: what the head is asked from
        self._numbers = itertools.count()
        self._editions = itertools.count(1)
        self._order: deque[bytes] = deque()  #: the job of each batch that is kept, oldest first
        self._jobs: dict[bytes, deque[tuple[int, bytes]]] = {}
        self._size = 0
        self._drawn: dict[bytes, Drawing] = {}  #: the one looked at last is last
        self._lost = False  #: whether there was more than is kept

    def read(self, source: Source) -> None:
        """What is new at the head. Raises ConnectionError when it does not answer."""
        for _ in range(ASKS):
            told = source.ask("trace_since", number=self._next, room=ROOM_BYTES)
            if told["first"] < self._next:  # another head, which has begun to count anew
                self._order, self._jobs, self._drawn, self._size = deque(), {}, {}, 0
            self._lost |= told["first"] > self._next
            for job, records in told["batches"]:
                self._keep(job, records)
            self._next = told["next"]
            if told["next"] >= told["last"]:
                return

    def _keep(self, job: bytes, records: bytes) -> None:
        self._order.append(job)
        self._jobs.setdefault(job, deque()).append((next(self._numbers), records))
        self._size += len(records)
        while self._size > KEPT_BYTES:
            oldest = self._order.popleft()
            self._size -= len(self._jobs[oldest].popleft()[1])
            self._lost = True
            if not self._jobs[oldest]:
                del self._jobs[oldest]
                self._drawn.pop(oldest, None)

    def drawing(self, job: bytes) -> Drawing | None:
        """Up to date with what was read; None for a job of which nothing is known."""
        batches = self._jobs.get(job)
        if batches is None:
            return None
        drawing = self._drawn.pop(job, None) or Drawing(next(self._editions))
        if not drawing.take(batches):
            drawing = Drawing(next(self._editions))
            drawing.take(batches)
        self._drawn[job] = drawing
        if len(self._drawn) > MOST_DRAWN:
            del self._drawn[next(iter(self._drawn))]
        return drawing

    def batches(self, job: bytes) -> list[bytes]:
        """To be decoded elsewhere: a long past takes a second."""
        return [batch for _, batch in self._jobs.get(job, ())]

    def look(self, source: Source, job: bytes) -> dict[str, Any]:
        """A job in short, and which others there are; the one that was active last where `job` is none of them."""
        names = {each["job_id"]: each for each in source.ask("jobs")}
        active = list(dict.fromkeys(reversed(self._order)))[:MOST_JOBS]
        if job not in self._jobs:
            job = active[0] if active else b""
        jobs = [_named(each.hex(), names.get(each.hex())) for each in active]
        drawing = self.drawing(job)
        told = {"job": job.hex(), "jobs": jobs, "lost": self._lost}
        return told if drawing is None else {**told, **drawing.told()}

    def graph(self, job: bytes, drawing: Drawing, view: View, now: dict[str, Any]) -> dict[str, Any]:
        """What was made from what (cards/lineage.py), around `view.focus`. `now` is what the driver answers to `lineage`."""
        graph = drawing.lineage(self._jobs[job]).graph(drawing.notes(now), view, unfinished(now))
        for node in graph["nodes"]:
            node |= {name: cut(node[name]) for name in ("label", "detail", "title")}
        return graph


def unfinished(now: dict[str, Any]) -> Unfinished:
    """What a driver answers to `lineage` of tasks that have not ended."""
    lines = {cell: line for cell, _, _, _, line in now["counts"]}
    counts: dict[Group, tuple[int, int]] = {}
    tasks: dict[Group, list[UnfinishedTask]] = {}

    def group_of(cell: str, name: str) -> Group:
        tag = _tag(cell, lines.get(cell, ""))
        return Group(tag, tag, cut(name))

    for cell, name, running, queued, _ in now["counts"]:
        counts[group_of(cell, name)] = running, queued
    for id_, name, cell, state, needs, parent in now["tasks"]:
        if (group := group_of(cell, name)) in counts:
            tasks.setdefault(group, []).append(UnfinishedTask(id_, group.name, cell, state, tuple(needs), parent))
    return Unfinished(counts, tasks)


def tasks_in(batch: bytes) -> list[TraceRecord]:
    """What a batch tells of tasks, with names that are short."""
    found = [record for record in decode_records(batch) if record.kind == "task"]
    for record in found:
        record.name = cut(record.name)
    return found


def by_cell(records: list[TraceRecord]) -> Iterator[tuple[str, list[TraceRecord]]]:
    """Those of one cell that stand together, with its tag."""
    for tag, some in itertools.groupby(records, tag_of):
        yield tag, list(some)


def of_cell(batches: Iterable[bytes], tag: str, most: int) -> list[TraceRecord]:
    """The latest `most` tasks of a cell; of the whole job where `tag` is empty."""
    kept: deque[TraceRecord] = deque(maxlen=most)
    for batch in batches:
        kept.extend(record for record in tasks_in(batch) if not tag or tag_of(record) == tag)
    return list(kept)


def events(batches: Collection[bytes]) -> Iterator[str]:
    """A job in Chrome's trace format as JSON, piece by piece."""
    rows: dict[tuple[str, str], int] = {}
    before = "["
    for batch in batches:
        told = json.dumps(chrome_events([as_dict(record) for record in tasks_in(batch)], rows))[1:-1]
        if told:
            yield before + told
            before = ","
    yield "]" if before == "," else "[]"


def _named(job: str, told: dict[str, Any] | None) -> dict[str, Any]:
    """What a page calls a job."""
    if told is None:
        return {"id": job, "name": f"job {job[:8]}", "state": "ended", "notebook": ""}
    called = told["submission_id"] or told["name"]
    notebook = told["name"] if told["name"].endswith(".ipynb") else ""
    return {"id": job, "name": cut(f"{called} (pid {told['pid']})"), "state": told["state"].lower(), "notebook": notebook}
