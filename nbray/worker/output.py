"""What tasks print, sent to the driver under the cell it belongs to; and all of it in the worker's log file. What C code and child
processes print comes by way of that file (worker/overheard.py), as standard output.

Lines are collected for FLUSH_S at most and sent as one message, so that neither a flood nor a single print is late. Text of a task
leaves before the task's result does.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from nbray.config import OUTPUT_LINES_PER_S
from nbray.ids import Address
from nbray.wire.messages import Display, Message, Output
from nbray.worker.overheard import Log

FLUSH_S = 0.05
FLUSH_CHARACTERS = 64 * 1024
TAIL_LINES = 20  #: of a flood, sent when its task ends
LONGEST_LINE = 256 * 1024  #: characters sent of one line; the log file has the rest


class Source(NamedTuple):
    """Whose output it is."""

    cell: str
    task: bytes
    name: str
    driver: Address


class TaskStream(io.TextIOBase):
    """A worker's sys.stdout or sys.stderr."""

    def __init__(self, stream: str, sender: OutputSender, log_fd: int) -> None:
        super().__init__()
        self._stream = stream
        self._sender = sender
        self._log_fd = log_fd
        self.buffer = ByteStream(stream, sender, log_fd)

    encoding = "utf-8"
    errors = "replace"

    def reconfigure(self, **_ignored: Any) -> None:
        """For programs that ask: it is UTF-8, and leaves line by line, whatever they say."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The log file: what C code and child processes write to."""
        return self._log_fd

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._sender.write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        """Text is sent within FLUSH_S and before the task's result: programs that flush each line need not wait for it."""


class ByteStream(io.BufferedIOBase):
    """`sys.stdout.buffer`: for bytes, which are text in UTF-8 to whoever reads them."""

    def __init__(self, stream: str, sender: OutputSender, log_fd: int) -> None:
        super().__init__()
        self._stream = stream
        self._sender = sender
        self._log_fd = log_fd
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._log_fd

    def write(self, data: Any) -> int:
        raw = bytes(memoryview(data))
        self._sender.put(self._stream, raw, self._decode(raw))
        return len(raw)

    def flush(self) -> None:
        """As that of TaskStream."""


class OutputSender:
    """Collects text per source and stream, and sends it. Safe from any thread."""

    def __init__(self, post: Callable[[Address, Message], None], source: Callable[[], Source], node: bytes, log: Log) -> None:
        self._post = post
        self._source = source
        self._node = node
        self._log = log
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a __del__ that prints may run while this thread holds it
        self._pending: dict[tuple[Source, str], list[str]] = {}
        self._characters = 0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._windows: dict[bytes, tuple[float, int]] = {}  #: per task: when its second began, lines sent in it
        self._held_back: dict[tuple[Source, str], list[str]] = {}  #: the latest lines of a flood, until there is room or an end

    def install(self) -> None:
        sys.stdout = TaskStream("stdout", self, 1)
        sys.stderr = TaskStream("stderr", self, 2)

    def write(self, stream: str, text: str) -> None:
        if text:
            data = text.encode("utf-8", "replace")
            self.put(stream, data, data.decode("utf-8"))  # half a surrogate pair is a str, and no message could carry it

    def put(self, stream: str, data: bytes, text: str) -> None:
        """`data` for the log, `text` for the driver."""
        if os.getpid() != self._pid:
            os.write(1, data)  # a child that user code forked has no mailbox; it is overheard
            return
        source = self._source()
        with self._lock:
            if heard := self._log.write(data):
                self._add(source, "stdout", heard)
            self._add(source, stream, text)
            full = self._characters > FLUSH_CHARACTERS
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nbray-output", daemon=True)
                self._thread.start()
        if full:
            self.flush()
        else:
            self._wake.set()

    def _add(self, source: Source, stream: str, text: str) -> None:
        self._pending.setdefault((source, stream), []).append(text)
        self._characters += len(text)

    def overhear(self, whose: Callable[[], Source]) -> bool:
        """Take in what C code and child processes have written, as that of `whose()`; whether that was anything."""
        with self._lock:
            heard = self._log.look()
        if heard:
            source = whose()  # it may call the user's __repr__: without the lock
            with self._lock:
                self._add(source, "stdout", heard)
        return bool(heard)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(FLUSH_S)
            self._wake.clear()
            self.flush()

    def flush(self, final: bool = False) -> None:
        """Send what is pending. `final`: a task ends, so the last lines of a flood go too."""
        if not self._pending and not (final and self._held_back):
            return
        with self._lock:
            pending, self._pending, self._characters = self._pending, {}, 0
            if final:
                for key in self._held_back:
                    pending.setdefault(key, [])
            for (source, stream), parts in pending.items():
                text, dropped = self._limited(source, stream, "".join(parts), final)
                if text or dropped:
                    what = Output(source.cell, source.task, source.name, self._pid, self._node, stream, text, dropped)
                    self._post(source.driver, what)

    def _limited(self, source: Source, stream: str, text: str, final: bool) -> tuple[str, int]:
        """At most OUTPUT_LINES_PER_S of a task, and at its end the last TAIL_LINES in any case; how many lines were left out."""
        now = time.monotonic()
        if len(self._windows) > 1000:
            self._windows.clear()
        window = self._windows.get(source.task)
        if window is None or now - window[0] >= 1:
            window = self._windows[source.task] = (now, 0)
        lines = self._held_back.pop((source, stream), []) + text.splitlines(keepends=True)
        room = max(0, OUTPUT_LINES_PER_S - window[1])
        kept, rest = lines[:room], lines[room:]
        self._windows[source.task] = (window[0], window[1] + len(kept))
        last = rest[-TAIL_LINES:]
        if final:
            kept += last
        elif last:
            self._held_back[source, stream] = last
        kept = [
            line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ... [{len(line) - LONGEST_LINE} more]\n" for line in kept
        ]
        # By their ends: `print` writes a line in two pieces, and a piece on each side of a flush is not two lines.
        return "".join(kept), "".join(rest[: len(rest) - len(last)]).count("\n")

    def display(self, data: dict[str, Any], metadata: dict[str, Any], transient: dict[str, Any], update: bool) -> None:
        """A rich display of the calling task, after the text that it printed before."""
        self.flush()
        source = self._source()
        self._post(source.driver, Display(source.cell, source.task, data, metadata, transient, update))
