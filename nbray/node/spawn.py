"""Starting the zygote. Alone in a module that imports next to nothing: it is the daemon's first act, before its own imports,
so that both import at the same time."""

from __future__ import annotations

import os
import signal
import socket
import sys

#: In the environment of workers while the user has said nothing of OMP_NUM_THREADS.
THREADS_UNSET = "NBRAY_OMP_NUM_THREADS_UNSET"

#: Where the package `nbray` lies.
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def interpreter() -> list[str]:
    """The beginning of the command of every process of ours that runs a module with `-m`.

    -P keeps the working directory off its path: a notebook's own `types.py` or `queue.py` would else hide the standard
    library's. Workers get the driver's path with its first task. In a source tree the working directory may be where nbray is.
    """
    try:
        in_source = os.path.samefile(os.getcwd(), _ROOT)
    except OSError:
        in_source = False  # the directory was removed under us
    return [sys.executable] if in_source else [sys.executable, "-P"]


def spawn_zygote() -> tuple[int, socket.socket]:
    """(pid of the zygote, our end of the socketpair). Its output goes to our stderr until it is told of a log."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.set_inheritable(theirs.fileno(), True)
    # BLAS threads of the zygote die in the fork, and as many per worker as there are cores would fight: one unless asked.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    if "OMP_NUM_THREADS" not in os.environ:
        environment[THREADS_UNSET] = "1"
    # Not subprocess: its import costs the daemon as much as all of this.
    pid = os.posix_spawn(
        sys.executable,
        [*interpreter(), "-m", "nbray.node.zygote", str(theirs.fileno()), str(os.getpid())],
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGCHLD],
    )
    os.close(null)
    theirs.close()
    ours.setblocking(False)
    return pid, ours
