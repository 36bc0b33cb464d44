"""`--profile cpu|mem`, where the cell runs: a task is watched from its first line to its last, and what was seen is sent as a
display of its own kind, before the task's result, and also where the task fails or is stopped.

    cpu    py-spy, a process beside the worker, looks at its stacks RATE times a second
    mem    memray, inside the worker, notes every allocation; shown is what was alive at the peak

Only what the cell's own code calls is kept: the frames above it are ours. Where the tool is missing or not permitted the cell
does not begin: an hour's run without the picture that was asked for would be worse than an error now.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nbray import session
from nbray.cards.flame import Flame
from nbray.exceptions import PACKAGE_DIRECTORY

MIME = "application/vnd.nbray.profile.v1+json"
RATE = 100  #: samples a second
STARTS_WITHIN_S = 60.0  #: of py-spy, which reads the interpreter's symbols first
ENDS_WITHIN_S = 60.0
SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
PR_SET_PTRACER, ANYBODY, NOBODY = 0x59616D61, -1, 0

_FRAME = re.compile(r"(.*?) \((.*?)(?::(\d+))?\)")


class Frame(NamedTuple):
    function: str
    file: str
    line: int


class Profiled:
    """Watches the code inside `with`, and sends what was seen. `cells`: what a person calls a cell, by the file name of its
    code, the one that runs first.

    Entering raises RuntimeError where it cannot be done. Not a generator: memray loses count of the frames when one is
    suspended while it begins.
    """

    def __init__(self, kind: str, cells: Mapping[str, str]) -> None:
        self._kind, self._cells = kind, cells

    def __enter__(self) -> None:
        self._watcher = _PySpy() if self._kind == "cpu" else _Memray()

    def __exit__(self, *_raised: object) -> None:
        seen = self._watcher.end()
        flame = Flame(self._kind, RATE if self._kind == "cpu" else 0)
        for stack, value in seen:
            if labels := labelled(stack, self._cells):
                flame.add(labels, value)
        show = session.current().show_here
        if show is not None:
            show({MIME: flame.to_data()}, {}, {}, False)


# -------------------------------------------------------------------------------------------------- what frames are called


def labelled(stack: Sequence[Frame], cells: Mapping[str, str]) -> list[str]:
    """The frames of the cell's code and of what it calls, outermost first; empty for what is not the cell's.

    The steps of an import are left out: five for every module, they would hide which imports which.
    """
    stack = [frame for frame in stack if not frame.file.startswith("<frozen importlib")]
    begins = [i for i, frame in enumerate(stack) if frame.function == "<module>" and frame.file.startswith("<cell ")]
    if begins:
        first = begins[0]  # another cell's is in another thread of the same actor
        return [label(frame, cells) for frame in stack[first:]] if stack[first].file == next(iter(cells)) else []
    # Threads that the cell began belong to it, as far as anybody can tell; those of ours do not.
    inside = [frame for frame in stack if os.path.basename(frame.file) != "threading.py"]
    if len(inside) == len(stack) or not inside or inside[0].file.startswith(PACKAGE_DIRECTORY):
        return []
    return ["threads of the cell", *(label(frame, cells) for frame in inside)]


def label(frame: Frame, cells: Mapping[str, str]) -> str:
    """`fit (model.py)`; of a cell's code the line as well: `In[7] line 3`, `step (In[5] line 2)`."""
    if (cell := cells.get(frame.file)) is not None:
        where = f"{cell} line {frame.line}"
        return where if frame.function == "<module>" else f"{frame.function} ({where})"
    return f"{frame.function} ({_short(frame.file)})"


def _short(file: str) -> str:
    roots = [root for root in sys.path if root and file.startswith(root.rstrip(os.sep) + os.sep)]
    return os.path.relpath(file, max(roots, key=len)) if roots else os.path.basename(file)


# -------------------------------------------------------------------------------------------------- time


class _PySpy:
    """py-spy at work on this process. It is a child of ours, and ends when we do."""

    def __init__(self) -> None:
        program = shutil.which("py-spy", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))
        if program is None:
            raise RuntimeError(_missing("--profile cpu", "py-spy"))
        self._file = os.memfd_create("nbray-profile")  # nothing on disk: whoever kills us leaves nothing behind
        arguments = ["--pid", str(os.getpid()), "--rate", str(RATE), "--format", "raw", "--full-filenames"]
        _may_be_looked_into(ANYBODY)
        self._process = subprocess.Popen(
            [program, "record", *arguments, "--output", f"/proc/self/fd/{self._file}"],
            pass_fds=[self._file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            said = self._begun()
        except BaseException:  # a cell may be stopped while it waits here
            self._leave()
            raise
        if said is not None:
            self._leave()
            raise RuntimeError(refused(said, SCOPE.read_text().strip() if SCOPE.exists() else ""))

    def _begun(self) -> str | None:
        """Wait until it takes samples; what it said if it does not."""
        assert self._process.stdout is not None
        said, deadline, fd = b"", time.monotonic() + STARTS_WITHIN_S, self._process.stdout.fileno()
        while b"Sampling" not in said:
            readable, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(fd, 4096) if readable else b""
            if not more:
                return said.decode(errors="replace").strip() or f"nothing within {STARTS_WITHIN_S:g} s"
            said += more
        return None

    def end(self) -> list[tuple[list[Frame], int]]:
        """Stop it; the stacks that it saw, and how often."""
        try:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=ENDS_WITHIN_S)
            size = os.fstat(self._file).st_size
            return stacks(os.pread(self._file, size, 0).decode(errors="replace"))
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        os.close(self._file)
        _may_be_looked_into(NOBODY)


def stacks(text: str) -> list[tuple[list[Frame], int]]:
    """py-spy's raw form: `outer (file:line);inner (file:line) count`, a line for each stack."""
    found = []
    for line in text.splitlines():
        frames, _, count = line.rpartition(" ")
        if count.isdigit():
            matches = (_FRAME.fullmatch(part) for part in frames.split(";"))
            found.append(([Frame(m[1], m[2], int(m[3] or 0)) for m in matches if m], int(count)))
    return found


def refused(said: str, scope: str) -> str:
    """What to do about py-spy's refusal. `scope` is the kernel's ptrace_scope, "" where it has none."""
    last = said.splitlines()[-1].removeprefix("Error: ")
    if not re.search(r"permission|permitted|EPERM|EACCES", said, re.IGNORECASE):
        return f"--profile cpu: py-spy could not look into worker {os.getpid()}: {last}"
    found = f" (its kernel.yama.ptrace_scope is {scope})" if scope else ""
    setting = "; on a machine of your own: sudo sysctl kernel.yama.ptrace_scope=1" if scope in {"2", "3"} else ""
    return (
        f"--profile cpu: this machine does not let py-spy look into worker {os.getpid()}{found}: permission denied. "
        f"In a container, start it with --cap-add=SYS_PTRACE{setting}. --profile mem needs no permission."
    )


def _missing(option: str, package: str) -> str:
    return (
        f"{option} needs {package}, which {sys.executable} on {os.uname().nodename} does not have; the cell has not begun. "
        'Install it on every node that runs the cell: pip install "nbray[profile]"'
    )


def _may_be_looked_into(by: int) -> None:
    """Where the kernel lets only parents look into their children, a child of ours needs our word for it (Yama)."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(by & (2**64 - 1)), 0, 0, 0)  # EINVAL without Yama: nothing to allow


# -------------------------------------------------------------------------------------------------- memory


class _Memray:
    """memray at work in this process."""

    def __init__(self) -> None:
        try:
            self._memray: Any = importlib.import_module("memray")
        except ImportError:
            raise RuntimeError(_missing("--profile mem", "memray")) from None
        self._file = os.memfd_create("nbray-profile")
        self._path = f"/proc/self/fd/{self._file}"
        kept = self._memray.FileFormat.AGGREGATED_ALLOCATIONS  # by place: a line for each allocation would fill the memory
        target = self._memray.FileDestination(self._path, overwrite=True, compress_on_exit=False)
        self._tracker = self._memray.Tracker(destination=target, file_format=kept)
        try:
            self._tracker.__enter__()
        except RuntimeError as error:  # there can be one: another cell is watched in this actor
            os.close(self._file)
            raise RuntimeError(f"--profile mem: memray could not begin in worker {os.getpid()}: {error}") from None

    def end(self) -> list[tuple[list[Frame], int]]:
        """Stop it; the stacks under which memory was allocated that was alive at the peak, and how many bytes."""
        try:
            self._tracker.__exit__(None, None, None)
            with self._memray.FileReader(self._path) as reader:
                records = reader.get_high_watermark_allocation_records(merge_threads=True)
                return [([Frame(*frame) for frame in reversed(record.stack_trace())], record.size) for record in records]
        finally:
            os.close(self._file)
