"""Log files of workers: what they are called, how they are kept from filling the disk, and how they are read.

Tasks write to the descriptors that they were born with, C code too, so a log cannot be moved from under them. It is copied and
emptied instead; what is written between the two is lost, which only happens to who writes without end.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from nbray.config import LOG_BACKUPS, LOG_TAIL_LINES
from nbray.wire.messages import Answer, Ask

#: Enough for LOG_TAIL_LINES of ordinary length; a longer line is cut at its start.
TAIL_BYTES = 8 * 1024
STEP_BYTES = 2**20
#: Of one answer to whoever reads a log through the daemon: it reads while others wait.
PIECE_BYTES = 256 * 1024
#: Control characters other than newline and tab: a log that is shown with an error must not drive a terminal.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f]")


def worker_log(directory: str, pid: int) -> str:
    """Where the worker `pid` writes; `<path>.1`, `<path>.2` ... are earlier parts of a log that was rotated, the latest first."""
    return f"{directory}/worker-{pid}.log"


def rotate(path: str, limit: int, backups: int = LOG_BACKUPS) -> bool:
    """If the log is longer than `limit` bytes, move its last `limit` bytes to `<path>.1` and empty it. Whether it did.

    `backups` earlier parts are kept, at least one."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        if size <= limit:
            return False
        for number in range(backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}.{number}", f"{path}.{number + 1}")
        kept = os.open(f"{path}.1", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            start = size - limit
            while start < size and (sent := os.sendfile(kept, fd, start, min(size - start, STEP_BYTES))):
                start += sent
        finally:
            os.close(kept)
            # Emptied even if the disk had no room for the copy: then more than ever.
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)
    return True


def tail(path: str, lines: int = LOG_TAIL_LINES) -> str:
    """The last `lines` lines, at most TAIL_BYTES of them, without control characters; "" when there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        size = os.fstat(fd).st_size
        start = max(0, size - TAIL_BYTES)
        data = os.pread(fd, TAIL_BYTES, start)
    finally:
        os.close(fd)
    text = _CONTROL.sub("", data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n"))
    found = text.rstrip("\n").split("\n")
    if start > 0 and len(found) > 1:
        del found[0]  # it began before what was read
    return "\n".join(found[-lines:])


def keep_within(directory: str, limit: int, alive: set[int]) -> list[str]:
    """Remove logs of dead workers, those that were written to longest ago first, until all logs take at most `limit` bytes.

    Returns what was removed. `alive` are the pids whose logs stay."""
    mine = {os.path.basename(worker_log(directory, pid)) for pid in alive}
    found = []
    total = 0
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            about = entry.stat(follow_symlinks=False)
            total += about.st_size
            if entry.name.startswith("worker-") and entry.name.partition(".log")[0] + ".log" not in mine:
                found.append((about.st_mtime_ns, entry.path, about.st_size))
    removed = []
    for _, path, size in sorted(found):
        if total <= limit:
            break
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        total -= size
        removed.append(path)
    return removed


# ---------------------------------------------------------------------------------------------------- reading from afar


def listing(directory: str) -> list[dict[str, Any]]:
    """The log files of a node: name, and size in bytes."""
    found = []
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False):
                found.append({"name": entry.name, "size": entry.stat(follow_symlinks=False).st_size})
    return sorted(found, key=lambda one: str(one["name"]))


def piece(directory: str, name: str, offset: int, length: int) -> dict[str, Any]:
    """Up to `length` bytes of a log from `offset` on, with its `size`. Raises ValueError for what is no log of this node."""
    if not name or os.path.basename(name) != name or name.startswith("."):
        raise ValueError(f"{name!r} is not the name of a log file")
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"the log {name} cannot be read: {error.strerror}") from None
    try:
        size = os.fstat(fd).st_size
        return {"data": os.pread(fd, max(0, min(length, PIECE_BYTES)), max(0, offset)), "size": size}
    finally:
        os.close(fd)


def answer(directory: str, ask: Ask) -> Answer:
    """To "logs" (what there is), and to "log": `name`, `offset`, `length`."""
    told = ask.arguments
    try:
        if ask.what == "logs":
            return Answer(ask.request, listing(directory))
        return Answer(
            ask.request, piece(directory, str(told.get("name", "")), int(told.get("offset", 0)), int(told.get("length", 0)))
        )
    except (ValueError, TypeError, OSError) as problem:
        return Answer(ask.request, error=str(problem))
