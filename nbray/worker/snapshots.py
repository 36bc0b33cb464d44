"""Where a task failed, with the values its frames held: taken in the worker at the failure, read long after the worker is free.

    snapshot_of(error)   the frames as bytes, for the end of a Failure; empty where nobody asked for them
    Album                which failures of a notebook's plain tasks are worth one: the first few of each cell

Bounded in every direction: a value that is large, slow or does not pickle is its repr instead, and the innermost frames choose
first. Nothing of it can fail the task a second time, or hold the worker for longer than ALL_S.
"""

from __future__ import annotations

import io
import linecache
import os
import queue
import reprlib
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, ModuleType, TracebackType
from typing import Any

import cloudpickle
import msgspec

from nbray.config import ON_ERROR
from nbray.exceptions import PACKAGE_DIRECTORY
from nbray.wire.snapshots import Frame, Snapshot, Value, read

MARK = "_nbray_snapshot"  #: a local of one of our frames: whether a snapshot is wanted
SNAPSHOT, NOTEBOOK = "snapshot", "notebook"
OF_A_CELL = 5  #: failures of its plain tasks whose frames one worker keeps: a cell may have a hundred thousand
CELLS = 100  #: that an album remembers
VALUE_BYTES = 16 * 2**10  #: of one pickled value
FRAME_BYTES = 48 * 2**10  #: of one frame's pickled values
ALL_BYTES = 128 * 2**10  #: of all pickled values; two thousand failed tasks of one cell must fit into the notebook's memory
TEXT_CHARACTERS = 1000  #: of a repr
FRAMES = 30  #: the innermost
NAMES = 100  #: of one frame
CONTEXT = 12  #: lines of source before and after the one that failed
VALUE_S = 0.5  #: for one value; user code runs in `__reduce__` and `__repr__`
ALL_S = 2.0


class Album:
    """Of one worker. Threads: an actor's may fail at once."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}
        self._lock = threading.Lock()

    def snapshot_of(self, error: BaseException, cell: str) -> bytes:
        """The snapshot of the failure of a task that `cell` submitted ("": no notebook's), if it is wanted."""
        return snapshot_of(error, of_notebook=lambda: bool(cell) and self._has_room(cell))

    def _has_room(self, cell: str) -> bool:
        with self._lock:
            taken = self._taken.pop(cell, 0)
            self._taken[cell] = taken + 1
            while len(self._taken) > CELLS:
                del self._taken[next(iter(self._taken))]
        return taken < OF_A_CELL


def snapshot_of(error: BaseException, of_notebook: Callable[[], bool] = lambda: False) -> bytes:
    """The snapshot of `error`, if it is wanted. Takes ALL_S at most."""
    return taken(error) if asked(error, of_notebook) else b""


def asked(error: BaseException, of_notebook: Callable[[], bool] = lambda: False) -> bool:
    """Whether a snapshot of `error` is wanted: looks at frames of ours only, whose locals are few. Where they say nothing it is
    `of_notebook` that says so, unless the environment knows better."""
    mode = os.environ.get("NBRAY_ON_ERROR", ON_ERROR)
    if mode == SNAPSHOT:
        return True
    for frame, _ in _walk(error.__traceback__):
        if frame.f_code.co_filename.startswith(PACKAGE_DIRECTORY) and MARK in frame.f_locals:
            return bool(frame.f_locals[MARK])
    return mode == NOTEBOOK and of_notebook()


def taken(error: BaseException) -> bytes:
    """The frames of `error`, then those of the task whose failure it passes on. Empty where there is nothing of the user's."""
    frames = [(f, line) for f, line in _walk(error.__traceback__) if not f.f_code.co_filename.startswith(PACKAGE_DIRECTORY)]
    inner = getattr(error, "_snapshot", b"")
    if not frames and not inner:
        return b""
    camera = _Camera()
    kept = [camera.frame(frame, line) for frame, line in reversed(frames[-FRAMES:])]
    camera.close()
    found = Snapshot(kept[::-1], max(0, len(frames) - FRAMES))
    if inner and len(inner) <= ALL_BYTES:  # the inner task's own bound; a chain of many tasks ends here
        found.frames = (found.frames + read(inner).frames)[-FRAMES:]
    data = zlib.compress(msgspec.msgpack.encode(found), 1)
    return data if len(data) <= 4 * ALL_BYTES else b""


def _walk(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


class _TooLarge(Exception):
    """The pickle has reached its limit."""


class _NotHere(TypeError):
    """A value that means something only where it is."""


class _Bounded(io.BytesIO):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.limit:
            raise _TooLarge
        return super().write(data)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Stops at the limit instead of copying what is larger; takes no references along, which would be counted as lent for ever."""

    def __init__(self, file: _Bounded) -> None:
        def buffer(each: Any) -> bool:
            if each.raw().nbytes > file.limit:
                raise _TooLarge
            return True  # inside the pickle

        super().__init__(file, protocol=5, buffer_callback=buffer)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj).__module__.partition(".")[0] == "nbray":
            raise _NotHere(f"{type(obj).__name__} stays in the worker")
        return super().reducer_override(obj)


class _Camera:
    """Takes values within what is left of the bytes and of the time."""

    def __init__(self) -> None:
        self.bytes_left = ALL_BYTES
        self.deadline = time.monotonic() + ALL_S
        self.texts = reprlib.Repr()
        self.texts.maxlevel = 4
        self.texts.maxlist = self.texts.maxtuple = self.texts.maxdict = self.texts.maxset = self.texts.maxdeque = 20
        self.texts.maxstring = self.texts.maxother = self.texts.maxlong = TEXT_CHARACTERS
        self._side = _Side()

    def frame(self, frame: FrameType, line: int) -> Frame:
        code = frame.f_code
        first = max(1, line - CONTEXT)
        source = linecache.getlines(code.co_filename, frame.f_globals)
        lines = [each.rstrip("\n")[:200] for each in source[first - 1 : line + CONTEXT]]
        names = [name for name in frame.f_locals if not name.startswith("__")]
        at_module = frame.f_locals is frame.f_globals
        others = () if at_module else (name for name in dict.fromkeys(code.co_names) if name in frame.f_globals)
        left = [FRAME_BYTES]
        local = self._values(((name, frame.f_locals[name]) for name in names[:NAMES]), left)
        outer = self._values(((name, frame.f_globals[name]) for name in others), left)
        return Frame(code.co_filename, line, code.co_name, first, lines, local, outer[:NAMES], max(0, len(names) - NAMES))

    def _values(self, items: Iterable[tuple[str, Any]], left: list[int]) -> list[Value]:
        found = []
        for name, value in items:
            one = self._value(name, value, min(VALUE_BYTES, left[0], self.bytes_left))
            left[0] -= len(one.pickle)
            self.bytes_left -= len(one.pickle)
            found.append(one)
        return found

    def _value(self, name: str, value: Any, limit: int) -> Value:
        """`value` as it is, or in words. User code may run in both, so it runs beside, and is left behind when it takes long."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        wait = min(VALUE_S, self.deadline - time.monotonic())
        result = None
        if wait > 0:
            result = self._side.run(lambda: self._taken(name, kind, value, limit), wait)
        if result is None:
            self._side = _Side() if self._side.stuck else self._side
            return Value(name, kind, f"<{kind}: its repr took too long>", why="taking it took too long")
        return result

    def _taken(self, name: str, kind: str, value: Any, limit: int) -> Value:
        pickled, why = _pickled(value, limit)
        try:
            text = self.texts.repr(value)
        except Exception as error:  # noqa: BLE001 -- somebody's repr
            text = f"<{kind}: its repr raised {type(error).__name__}>"
        if len(text) > TEXT_CHARACTERS:
            text = f"{text[:TEXT_CHARACTERS]}..."
        return Value(name, kind, text, pickled, why, {} if pickled else _facts(value))

    def close(self) -> None:
        self._side.close()


def _pickled(value: Any, limit: int) -> tuple[bytes, str]:
    """(pickle, ""), or (b"", why not)."""
    file = _Bounded(limit)
    try:
        # A view with gaps would be copied whole before the first byte is written; so would a long text.
        nbytes = getattr(value, "nbytes", 0)
        if not isinstance(value, ModuleType) and max(sys.getsizeof(value, 0), nbytes if type(nbytes) is int else 0) > 2 * limit:
            raise _TooLarge
        _Pickler(file).dump(value)
    except _TooLarge:
        return b"", "it is larger than a snapshot takes along"
    except Exception as error:  # noqa: BLE001 -- any class may refuse in its own way
        said = str(error).splitlines() or [""]
        return b"", f"it does not pickle ({type(error).__name__}: {said[0][:200]})"
    return file.getvalue(), ""


def _facts(value: Any) -> dict[str, str]:
    facts = {}
    for name in ("shape", "dtype"):
        try:
            if (fact := getattr(value, name, None)) is not None:
                facts[name] = str(fact)[:100]
        except Exception:  # noqa: BLE001, S112 -- somebody's property; there is no more to say of it
            continue
    try:
        facts["len"] = str(len(value))
    except Exception:  # noqa: BLE001 -- most things have none
        return facts
    return facts


class _Side:
    """A thread for calls that may never return. One that has not is left behind, and goes with the process."""

    def __init__(self) -> None:
        self.stuck = False
        self._calls: queue.SimpleQueue[Callable[[], Value] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Value | None] = queue.SimpleQueue()
        threading.Thread(target=self._live, name="nbray-snapshot", daemon=True).start()

    def _live(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                result = call()
            except BaseException:  # noqa: BLE001 -- user code that raises SystemExit, or the recursion limit
                result = None
            self._results.put(result)

    def run(self, call: Callable[[], Value], timeout: float) -> Value | None:
        """What `call` returns; None when it raised, or took longer."""
        self._calls.put(call)
        try:
            return self._results.get(timeout=timeout)
        except queue.Empty:
            self.stuck = True
            self.close()
            return None

    def close(self) -> None:
        self._calls.put(None)
