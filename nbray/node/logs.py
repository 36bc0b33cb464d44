"""Log files of workers: what they are called, how they are kept from filling the disk, and their last lines.

Tasks write to the descriptors that they were born with, C code too, so a log cannot be moved from under them. It is copied and
emptied instead; what is written between the two is lost, which only happens to who writes without end.
"""

from __future__ import annotations

import os
import re

from nbray.config import LOG_TAIL_LINES

#: Enough for LOG_TAIL_LINES of ordinary length; a longer line is cut at its start.
TAIL_BYTES = 8 * 1024
STEP_BYTES = 2**20
#: Control characters other than newline and tab: a log that is shown with an error must not drive a terminal.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f]")


def worker_log(directory: str, pid: int) -> str:
    """Where the worker `pid` writes; `<path>.1` is its previous part when the log was rotated."""
    return f"{directory}/worker-{pid}.log"


def rotate(path: str, limit: int) -> bool:
    """If the log is longer than `limit` bytes, move its last `limit` bytes to `<path>.1` and empty it. Whether it did."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        if size <= limit:
            return False
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
