"""Dying with one's parent, and leaving nothing behind: daemon -> zygote -> workers -> what those have started.

Our own processes ask the kernel to die with their parent. What users' code starts does not; so whoever stands above it is a
subreaper, which inherits what loses its parent, in whatever session or group that hides, and ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
#: Killed processes are gone within this time, or something holds them that we cannot end.
END_S = 2.0


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the thread that started us ends. `parent` is the pid that must still be there.

    Raises SystemExit if it died before we could ask. Elsewhere than on Linux the end of file on a socket has to do.
    """
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(f"parent process {parent} ended before process {os.getpid()} was ready")


def outlive_parent() -> None:
    """Take `die_with_parent` back: there is something to be done afterwards, and another sign of the parent's end."""
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Be the parent of everything below us that loses its own. Elsewhere than on Linux nobody is."""
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def _prctl(name: str, option: int, value: int) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl({name}): {os.strerror(errno)}")


def kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_children(reap: Callable[[], None], wait: Callable[[], None]) -> None:
    """SIGKILL to everything below us, until nothing is left. `reap` takes in who has ended; `wait` waits for the next to end: its
    own children become ours then."""
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        reap()
        found = _children()
        if not found:
            return
        for pid in found:
            # Our own children, and not reaped: the pid is still theirs.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        wait()


def _children() -> list[int]:
    """The pids of our children, zombies excepted, from /proc; [] where there is none."""
    me, found = os.getpid(), []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                    # The second field is the command in parentheses, which may hold anything.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                    if int(parent) == me and state not in (b"Z", b"X"):
                        found.append(int(name))
    return found
