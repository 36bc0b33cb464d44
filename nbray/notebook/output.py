"""Where the output of tasks goes: under the cell that submitted them, whichever cell runs by now.

The engine's I/O thread only appends; a thread of our own formats and sends, so that a slow page never delays the cluster.
Each cell's parent header is kept from the moment it ran: that is what makes late output land in it. `ip.set_parent` from a
thread would redirect everybody's prints, so messages are sent through the kernel's session with the saved parent instead.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nbray.engines.port import OutputEvent
from nbray.notebook.grouping import Fact, Grouping
from nbray.notebook.sampling import MIME as PROFILE
from nbray.notebook.stream import CellStream, Message, display_message, note, warning

CELLS_KEPT = 1000  #: cells whose late output still finds its place
WARNINGS = frozenset({"lost", "restarted", "unhandled"})  #: kinds of notices; the others are no more than notes
SEPARATOR = "#"  #: between a cell's tag and the number of a job in it

Publish = Callable[[dict[str, Any] | None, Message], None]


def to_kernel(kernel: Any) -> Publish:
    """Send messages under a saved parent. Safe from any thread: the kernel's own I/O thread does the sending, in order."""

    def publish(parent: dict[str, Any] | None, message: Message) -> None:
        kernel.session.send(
            kernel.iopub_socket, message.type, message.content, parent=parent, ident=message.type.encode(), metadata={}
        )

    return publish


def to_terminal(_parent: dict[str, Any] | None, message: Message) -> None:
    """Without a kernel there is one place to print."""
    if message.type == "stream":
        target = sys.stderr if message.content["name"] == "stderr" else sys.stdout
        print(message.content["text"], end="", file=target, flush=True)
    else:
        print(message.content["data"].get("text/plain", "<display>"), flush=True)


class OutputRouter:
    """All cells' output. One thread, started with the first output and ended by `close`."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self.count_tasks: Callable[[str], int] = lambda _tag: 1  #: how many tasks a cell has; asked before its first lines show
        self.captures: Callable[[str, Message], bool] = lambda _tag, _message: False  #: whether somebody else has taken it
        self.on_profile: Callable[[str, dict[str, Any]], None] = lambda _tag, _data: None
        self._lock = threading.Condition()
        self._cells: OrderedDict[str, tuple[CellStream, dict[str, Any] | None]] = OrderedDict()
        self._parents: OrderedDict[str, dict[str, Any] | None] = OrderedDict()
        self._current: str = ""
        self._groups: dict[str, Grouping] = {}  # of jobs that want one, until they are done
        self._busy: set[str] = set()  # cells that have something to say: the thread looks at no others
        self._thread: threading.Thread | None = None
        self._closed = False

    # -- cells

    def begin(self, tag: str, parent: dict[str, Any] | None) -> None:
        """The cell `tag` runs now; `parent` is its execute request."""
        with self._lock:
            self._parents[tag] = {"header": parent["header"]} if parent and parent.get("header") else None
            self._parents.move_to_end(tag)
            self._current = tag
            while len(self._parents) > CELLS_KEPT:
                self._parents.popitem(last=False)

    def open(self, tag: str, *, limit: int = 10**6, badges: bool = False, held: bool = False, group: str = "live") -> None:
        """A job of a cell begins, with its own bounds. `tag` is the cell's, SEPARATOR, and a number. `group`: grouping.py."""
        with self._lock:
            stream = CellStream(limit, badges, held, last=time.monotonic())
            self._cells[tag] = (stream, self._parent(tag))
            if group != "live":
                self._groups[tag] = Grouping(group, limit, stream.omit)

    def expect(self, tag: str, tasks: Sequence[bytes]) -> None:
        """The tasks of a job that shows its output in their order."""
        with self._lock:
            if (grouping := self._groups.get(tag)) is not None:
                grouping.expect(tasks)
                self._wake(tag)

    def task_ended(self, tag: str, task: bytes) -> None:
        """Nothing more comes from a task of a job that shows its output in their order."""
        with self._lock:
            if (grouping := self._groups.get(tag)) is not None and not self._closed:
                grouping.end(task)
                self._wake(tag)

    def parent(self, tag: str) -> dict[str, Any] | None:
        with self._lock:
            return self._parent(tag)

    def _parent(self, tag: str) -> dict[str, Any] | None:
        cell = tag.partition(SEPARATOR)[0]
        return self._parents.get(cell, self._parents.get(self._current))

    def _stream(self, tag: str) -> CellStream:
        found = self._cells.get(tag)
        if found is None:
            found = self._cells[tag] = (CellStream(last=time.monotonic()), self._parent(tag))
            if len(self._cells) > CELLS_KEPT:
                del self._cells[next(t for t in self._cells if t not in self._busy)]
        return found[0]

    # -- what the engine calls, from its I/O thread

    def take(self, event: OutputEvent) -> None:
        """Output of a task. Never raises, never waits for the page."""
        if event.mime is not None and PROFILE in event.mime:
            with contextlib.suppress(LookupError, TypeError, ValueError):  # a program may show anything under this name
                self.on_profile(event.cell, event.mime[PROFILE])
            return
        now = time.monotonic()
        with self._lock:
            if self._closed:
                return
            stream = self._stream(event.cell)
            facts = []
            if event.mime is not None:
                message = display_message(event.mime, event.metadata, event.transient, update=event.update)
                facts.append(Fact(lambda: stream.display(message, now)))
            if event.text or event.dropped:
                text, who = event.text, f"{event.name} pid={event.pid}"
                tell = partial(stream.text, event.task, who, event.stream, text, event.dropped, now)
                facts.append(Fact(tell, len(text), text.count("\n")))
            grouping = self._groups.get(event.cell)
            for fact in facts:
                if grouping is None:
                    fact.tell()
                else:
                    grouping.take(event.task if grouping.by == "order" else (event.node, event.pid), fact)
            self._wake(event.cell)

    def notice(self, cell: str, kind: str, text: str) -> None:
        """Something a person should know while waiting."""
        with self._lock:
            if not self._closed:
                self._stream(cell).note(warning(text) if kind in WARNINGS else note(text), time.monotonic())
                self._wake(cell)

    # -- what the notebook calls

    def flush(self, tag: str) -> None:
        """Send what the cell and its jobs have, before the prompt returns."""
        self._ask_whose()
        with self._lock:
            for each in [t for t in self._cells if t == tag or t.startswith(tag + SEPARATOR)]:
                self._send(each, self._cells[each][0].flush())

    def finish(self, tag: str) -> None:
        """The job `tag` is done: send everything it has, the tail of a flood included."""
        with self._lock:
            if (grouping := self._groups.pop(tag, None)) is not None:
                grouping.finish()
        self._ask_whose()
        with self._lock:
            if tag in self._cells:
                self._send(tag, self._cells[tag][0].finish())

    def show(self, tag: str, message: Message) -> None:
        """Send `message` under the cell `tag`, after what its tasks printed before."""
        with self._lock:
            self._leave(tag, self._parent(tag), message)

    def close(self) -> None:
        """Send what is left and end the thread."""
        with self._lock:
            for grouping in self._groups.values():
                grouping.finish()
            for tag in self._busy:
                self._send(tag, self._cells[tag][0].finish())
            self._closed = True
            self._lock.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    # -- the thread

    def _send(self, tag: str, messages: list[Message]) -> None:
        # Inside the lock on purpose: then what is sent first is queued first, whichever thread sends.
        for message in messages:
            self._leave(tag, self._cells[tag][1], message)

    def _leave(self, tag: str, parent: dict[str, Any] | None, message: Message) -> None:
        if not self.captures(tag, message):
            self._publish(parent, message)

    def _wake(self, tag: str) -> None:
        self._busy.add(tag)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="nbray-output", daemon=True)
            self._thread.start()
        self._lock.notify_all()

    def _ask_whose(self, until: float = float("inf")) -> None:
        """Find out which cells have several tasks. Outside our lock: the engine has one of its own, and may hold it to call us."""
        with self._lock:
            asking = [tag for tag in self._busy if (at := self._cells[tag][0].ask_at) is not None and at <= until]
        for tag in asking:
            try:
                several = self.count_tasks(tag) > 1
            except Exception:  # noqa: BLE001 -- the cluster may be gone; what it printed still shows
                several = False
            with self._lock:
                self._cells[tag][0].told_whether(several)

    def _run(self) -> None:
        while not self._closed:
            self._ask_whose(time.monotonic())
            with self._lock:
                if self._closed:
                    return
                due = self._send_due(time.monotonic())
                self._lock.wait(None if due is None else max(0.0, due - time.monotonic()))

    def _send_due(self, now: float) -> float | None:
        """Send what may go now; returns when there is more."""
        due = None
        for tag in list(self._busy):
            stream = self._cells[tag][0]
            at = stream.next_due(now)
            if at is not None and at <= now:
                self._send(tag, stream.due(now))
                at = stream.next_due(now)
            if at is None:
                self._busy.discard(tag)
            else:
                due = at if due is None else min(due, at)
        return due
