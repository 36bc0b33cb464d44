"""What C code and child processes of tasks write: it is in the worker's log, where their descriptors 1 and 2 lead, and Python's own
streams write there too. What in the log is not ours is theirs.

No pipe between: one that is full would hold up C code that holds the interpreter, and what is in it would die with a crash.
"""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable

#: Of what others wrote at once, more than this is left to the log.
MOST_BYTES = 2**20
#: Between two looks at the log, while something runs and while only what it has started may.
LOOK_S, IDLE_LOOK_S = 0.1, 0.5
#: Others are listened to for this long after their last word, whoever they are.
LINGER_S = 5.0
#: No task that ends sooner has started a process.
SHORTEST_NS = 1_000_000


class Log:
    """The log's end as this process knows it. One thread at a time."""

    def __init__(self, path: str) -> None:
        # A description of our own: its position after a write is where that write ended, whoever else appends.
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._seen = os.lseek(self._fd, 0, os.SEEK_END)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(self, data: bytes) -> str:
        """Append what is ours; returns what others wrote before it."""
        written = os.write(self._fd, data)
        end = os.lseek(self._fd, 0, os.SEEK_CUR)
        heard = self._until(end - written)
        self._seen = end
        return heard

    def look(self) -> str:
        """What others have written since."""
        end = os.lseek(self._fd, 0, os.SEEK_END)
        if end < self._seen:
            self._seen = 0  # it was too long, and has been emptied
        heard = self._until(end)
        self._seen = end
        return heard

    def _until(self, end: int) -> str:
        size = end - self._seen
        if size <= 0:
            return ""
        if size <= MOST_BYTES:
            return self._decode(os.pread(self._fd, size, self._seen))
        first = os.pread(self._fd, MOST_BYTES // 2, self._seen).decode("utf-8", "replace")
        last = os.pread(self._fd, MOST_BYTES // 2, end - MOST_BYTES // 2).decode("utf-8", "replace")
        return f"{first}\n... [{size - MOST_BYTES:,} bytes are in the worker's log only]\n{last}"


class Listening:
    """When to look: while tasks run and while what they have started lives. Idle workers look at nothing."""

    def __init__(self, look: Callable[[], bool], busy: Callable[[], bool]) -> None:
        """`look` takes in what others wrote and says whether that was anything; `busy`: something runs here."""
        self._look = look
        self._busy = busy
        self._due = 0.0
        self._heard = 0.0
        self._lingers = False

    def until_next(self) -> float | None:
        """Look if it is time. In how many seconds to come again; None: not before something has run."""
        busy = self._busy()
        if not (busy or self._lingers):
            return None
        now = time.monotonic()
        if now >= self._due:
            if self._look():
                self._heard = now
            self._lingers = now < self._heard + LINGER_S or has_children()
            self._due = now + (LOOK_S if busy else IDLE_LOOK_S)
        return self._due - now

    def task_ended(self) -> None:
        """One that took long enough to have started something."""
        self._lingers = self._lingers or has_children()


def has_children() -> bool:
    """Whether this process has any, dead ones included."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
