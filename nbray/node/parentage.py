"""Dying with one's parent, so that nothing outlives its daemon: daemon -> zygote -> workers."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the thread that started us ends. `parent` is the pid that must still be there.

    Raises SystemExit if it died before we could ask. Elsewhere than on Linux the end of file on a socket has to do.
    """
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl(PR_SET_PDEATHSIG): {os.strerror(errno)}")
    if os.getppid() != parent:
        raise SystemExit(f"parent process {parent} ended before process {os.getpid()} was ready")
