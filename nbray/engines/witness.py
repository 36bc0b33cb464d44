"""What a process that runs user code tells of itself: the tasks it submitted, the objects it holds, what it runs, its stacks.

tasks     {"total", "rows", "forgotten"}   arguments: filters, limit, detail, running, heard
objects   {"total", "rows"}                arguments: filters, limit
task_counts    {"total", "rows": {name: [type, {state: count}]}}      arguments: running, heard
names     {"rows": {object: [names]}}: what the variables of a notebook are called that hold it
lineage   {"names": as `names`, "counts": [[cell, task's name, running, queued, where one was submitted]],
          "tasks": [[task, name, cell, state, needs, parent]]}: what has not ended, all in numbers and some one by one
object_counts  {"rows": {call site: {"objects", "bytes", "status": {}, "references": {}}}}
running   {"rows": {task: [state, began_ns, name]}}
pulse     {"rows": as `running`, "counts": [submitted, done, failed, cancelled]}: cheap, whatever there is
stack     {"text"}

Answers are msgpack, opaque to the nodes and the head on the way, and keep to the `room` (bytes) that the question gives.
Each is worked out in a thread of its own from a copy of the tables: nothing waits meanwhile, in this process or another.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import thread
from typing import Any

import msgspec

from nbray.columns import Filter, matches, told
from nbray.engines import task_rows
from nbray.engines.port import NameCount
from nbray.engines.task_rows import Circumstances
from nbray.engines.unfinished import some_unfinished
from nbray.exceptions import PACKAGE_DIRECTORY
from nbray.ids import object_id
from nbray.owner.records import OwnedObject, OwnedTask
from nbray.owner.runtime import Runtime
from nbray.trace import Trace
from nbray.wire.messages import Answer, Ask

ValueOf = Callable[[str], Any]  #: column -> value
_encode = msgspec.msgpack.encode
#: Of what a worker was sent and runs, at most so many are told one by one.
RUNNING_TOLD = 20_000
#: Objects whose names are told.
NAMED_TOLD = 5_000
#: Of tasks that have not ended: kinds that are counted, tasks that are told one by one, and what each needs.
KINDS_TOLD, UNFINISHED_TOLD, NEEDS_TOLD = 1_000, 2_000, 50
#: Files, besides nbray's own, whose frames only lead to the user's code or wait for it.
NOT_THE_USERS = ("<frozen", *(str(module.__file__) for module in (threading, asyncio.base_events, asyncio.runners, thread)))


class Witness:
    """Answers for one process. `role` is Ray's word, DRIVER or WORKER; `job()` the driver that this process works for,
    `totals()` counts what it has submitted."""

    def __init__(self, runtime: Runtime, log: Trace, role: str, job: Callable[[], bytes], totals: Callable[[], NameCount]) -> None:
        self._runtime = runtime
        self._log = log
        self._role = role
        self._job = job
        self._totals = totals
        self.running_here: Callable[[], dict[bytes, tuple[str, int, str]]] = dict  #: a worker's executor knows
        self.names_here: Callable[[], dict[bytes, list[str]]] = dict  #: a notebook's driver knows
        self.unfinished_here: Callable[[], dict[tuple[str, str], int]] = dict  #: of each cell and name of tasks
        self._known = {
            "tasks": self._tasks,
            "objects": self._objects,
            "names": self._names,
            "lineage": self._lineage,
            "task_counts": self._task_counts,
            "object_counts": self._object_counts,
            "running": self._running,
            "pulse": self._pulse,
            "stack": self._stack,
        }

    def asked(self, ask: Ask) -> None:
        """From the I/O thread: answer soon."""
        threading.Thread(target=self._answer, args=(ask,), name="nbray-witness", daemon=True).start()

    def _answer(self, ask: Ask) -> None:
        answerer = self._known.get(ask.what)
        if answerer is None:
            answer = Answer(ask.request, error=f"a process cannot be asked for {ask.what!r}; it knows {', '.join(self._known)}")
        else:
            try:
                answer = Answer(ask.request, _encode(answerer(ask.arguments)))
            except Exception as error:  # noqa: BLE001 -- the asker is told, and this process goes on
                answer = Answer(ask.request, error=f"{type(error).__name__}: {error}")
        self._runtime.post(ask.asker, answer)

    # -- tasks

    def _tasks(self, arguments: dict[str, Any]) -> dict[str, Any]:
        columns = told("tasks", detail=bool(arguments.get("detail")))
        return {**_chosen(self._every_task(arguments), columns, arguments), "forgotten": self._log.forgotten}

    def _every_task(self, arguments: dict[str, Any]) -> Iterator[ValueOf]:
        """Those that run come first: they were submitted first. Then those that are over, the latest first."""
        with self._runtime.locked() as state:
            unfinished = list(state.tasks.tasks.values())
            here = Circumstances(
                job=self._job().hex(),
                running=arguments.get("running", {}),
                heard=set(arguments.get("heard", ())),
                actors=dict(state.calls.actors),
                definitions=state.tasks.leases.definitions,
            )
        finished = list(self._log.records)
        for task in unfinished:
            if task.traced:
                yield task_rows.of_task(task, here)
        for record in reversed(finished):
            if record.kind == "task":
                yield task_rows.of_record(record, here.job)

    def _task_counts(self, arguments: dict[str, Any]) -> dict[str, Any]:
        rows: dict[str, tuple[str, Counter[str]]] = {}
        total = 0
        for value_of in self._every_task(arguments):
            name = value_of("name")
            if name not in rows:
                rows[name] = (value_of("type"), Counter())
            rows[name][1][value_of("state")] += 1
            total += 1
        return {"total": total, "rows": rows, "forgotten": self._log.forgotten}

    # -- objects

    def _objects(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return _chosen(self._every_object(), told("objects", detail=True), arguments)

    def _every_object(self) -> Iterator[ValueOf]:
        with self._runtime.locked() as state:
            objects = list(state.objects.objects.values())
            tasks = dict(state.tasks.tasks)
            actors = set(state.calls.actors)
        pinned = Counter(pin for task in tasks.values() for pin in task.pins or ())
        inside = Counter(h.object for obj in objects if obj.value is not None for h in obj.value.contains)
        me, role = self._runtime.process, self._role

        def columns(obj: OwnedObject) -> ValueOf:
            task = tasks.get(obj.id[:16])
            known: dict[str, Callable[[], Any]] = {
                "object_id": obj.id.hex,
                "object_size": lambda: _size(obj),
                "task_status": lambda: _status(obj, task, mine=obj.owner.process == me),
                "attempt_number": lambda: 1 if task is None else task.push.attempt + 1,
                "reference_type": lambda: _reference(obj, actors, pinned, inside),
                "call_site": lambda: obj.line,
                "type": lambda: role,
                "pid": os.getpid,
                "ip": lambda: "",  # whoever asks knows the nodes' addresses
            }
            return lambda name: known[name]()

        return map(columns, objects)

    def _object_counts(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        rows: dict[str, dict[str, Any]] = {}
        for value_of in self._every_object():
            line = value_of("call_site")
            row = rows.setdefault(line, {"objects": 0, "bytes": 0, "status": Counter(), "references": Counter()})
            row["objects"] += 1
            row["bytes"] += max(0, value_of("object_size"))
            row["status"][value_of("task_status")] += 1
            row["references"][value_of("reference_type")] += 1
        return {"rows": rows}

    def _names(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {"rows": dict(itertools.islice(self.names_here().items(), NAMED_TOLD))}

    def _lineage(self, arguments: dict[str, Any]) -> dict[str, Any]:
        with self._runtime.locked() as state:
            some = some_unfinished(state, ())[:UNFINISHED_TOLD]
            lines = {task.cell: state.tasks.tasks[task.id].line for task in reversed(some)}
            running = Counter((task.push.cell, task.push.name) for task in state.first_running())
        counts = [
            [cell, name, min(running[cell, name], left), max(0, left - running[cell, name]), lines.get(cell, "")]
            for (cell, name), left in itertools.islice(self.unfinished_here().items(), KINDS_TOLD)
        ]
        tasks = [[task.id, task.name, task.cell, task.state, task.needs[:NEEDS_TOLD], task.parent] for task in some]
        return {"names": self._names(arguments)["rows"], "counts": counts, "tasks": tasks}

    # -- what runs

    def _running(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {"rows": dict(list(self.running_here().items())[:RUNNING_TOLD])}

    def _pulse(self, arguments: dict[str, Any]) -> dict[str, Any]:
        total = self._totals()
        return {**self._running(arguments), "counts": [total.submitted, total.done, total.failed, total.cancelled]}

    def _stack(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        texts = [
            (names.get(ident, str(ident)), "".join(traceback.format_list(frames)))
            for ident, frame in sys._current_frames().items()
            if (frames := _of_the_user(traceback.extract_stack(frame)))
        ]
        return {"text": "\n".join(f"{name}:\n{text}" for name, text in texts) or "no code of the user's runs\n"}


def _of_the_user(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """The user's frames: without what started the thread, and of what they call in nbray only the call. Empty for our threads."""
    own = [frame.filename.startswith((PACKAGE_DIRECTORY, *NOT_THE_USERS)) for frame in stack]
    if all(own):
        return []
    first = own.index(False)
    inner = next((i for i in range(first, len(own)) if stack[i].filename.startswith(PACKAGE_DIRECTORY)), len(own))
    return stack[first : inner + 1]


def _chosen(things: Iterable[ValueOf], columns: list[str], arguments: dict[str, Any]) -> dict[str, Any]:
    """The rows that pass the filters, up to `limit` and `room`; and how many pass in all."""
    limit, room = int(arguments.get("limit", 100)), int(arguments.get("room", 2**20))
    filters: list[Filter] = [(f[0], f[1], f[2]) for f in arguments.get("filters", ())]
    rows: list[bytes] = []
    total = 0
    for value_of in things:
        if filters and not matches(filters, value_of):
            continue
        total += 1
        if len(rows) < limit and room > 0:
            row = _encode({name: value_of(name) for name in columns})
            room -= len(row)
            rows.append(row)
    return {"total": total, "rows": [msgspec.Raw(row) for row in rows]}


def _size(obj: OwnedObject) -> int:
    """Bytes; -1 while nobody knows."""
    value = obj.value
    if value is None or value.failure is not None:
        return -1
    return value.location.size if value.location is not None else len(value.inline or b"")


def _status(obj: OwnedObject, task: OwnedTask | None, *, mine: bool) -> str:
    if task is not None:
        return task_rows.waits(task) or "SUBMITTED_TO_WORKER"
    if not mine:
        return "NIL"  # its owner knows
    if obj.value is None:
        return "NIL"
    return "FAILED" if obj.value.failure is not None else "FINISHED"


def _reference(obj: OwnedObject, actors: set[bytes], pinned: Counter[bytes], inside: Counter[bytes]) -> str:
    """Why this process holds it: Ray's word."""
    if obj.id[:16] in actors and obj.id == object_id(obj.id[:16]):
        return "ACTOR_HANDLE"
    if obj.views:
        return "PINNED_IN_MEMORY"
    if pinned[obj.id]:
        return "USED_BY_PENDING_TASK"
    if obj.count > inside[obj.id]:
        return "LOCAL_REFERENCE"
    return "CAPTURED_IN_OBJECT" if inside[obj.id] or obj.holders else "UNKNOWN_STATUS"
