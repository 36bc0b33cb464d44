"""What daemon and zygote say to each other over their socketpair, and the daemon's end of it.

The zygote is the parent of every worker, so it alone can signal one without meeting a stranger who got the same pid: a pid
is not reused before its parent has reaped it. The daemon therefore asks the zygote for every signal.
"""

from __future__ import annotations

import array
import os
import select
import signal
import socket

import msgspec

from nbray.ids import ProcessId
from nbray.worker.boot import WorkerBoot

__all__ = ["DEFAULT_ENTRY", "ForkFailed", "Forked", "Prepare", "Ready", "Reaped", "Signal", "WorkerBoot", "Zygote"]

#: A WorkerBoot is under 1 KiB plus three paths.
PACKET_BYTES = 64 * 1024
DEFAULT_ENTRY = "nbray.worker.main:run"


class _Word(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of what is said on the socketpair."""


class Prepare(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """daemon -> zygote, first of all, with the arena's descriptor beside it: what every worker inherits."""

    arena_bytes: int
    log_path: str  #: for the zygote's own output
    entry: str  #: "module:function" to call with each WorkerBoot


class Signal(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """daemon -> zygote: signal the worker if it has not been reaped. SIGKILL goes to its whole process group."""

    process: bytes
    signal: int


class Ready(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """zygote -> daemon: everything is imported; forks take milliseconds from now on."""

    cloudpickle: str


class Forked(_Word, frozen=True, array_like=True, tag=True, gc=False):
    process: bytes
    pid: int


class ForkFailed(_Word, frozen=True, array_like=True, tag=True, gc=False):
    process: bytes
    reason: str


class Reaped(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """zygote -> daemon: the worker ended and its process group was killed. One of `signal` and `exit_code` is not None."""

    process: bytes
    pid: int
    signal: int | None
    exit_code: int | None


Order = Prepare | Signal | WorkerBoot
Report = Ready | Forked | ForkFailed | Reaped
encode = msgspec.msgpack.Encoder().encode
orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
reports: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


class Zygote:
    """The zygote as its daemon sees it: what to tell it, and `read` for its reports."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        """The results of `spawn_zygote`."""
        self.pid = pid
        self.socket = link

    def fileno(self) -> int:
        return self.socket.fileno()

    def prepare(self, fd: int, size: int, log_path: str, entry: str) -> None:
        """Give it the arena `fd` of `size` bytes, and what Prepare says. Raises OSError when the zygote is gone already."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self.socket.sendmsg([encode(Prepare(size, log_path, entry))], ancillary)

    def start(self, boot: WorkerBoot) -> None:
        """Fork a worker. Raises OSError when the zygote is gone or its queue is full."""
        self.socket.send(encode(boot))

    def signal(self, process: ProcessId, number: int) -> None:
        self.socket.send(encode(Signal(process, number)))

    def read(self) -> Report | None:
        """The next report. None at end of file: the zygote is gone and its workers with it. BlockingIOError: no more now."""
        try:
            packet = self.socket.recv(PACKET_BYTES)
        except ConnectionResetError:
            return None
        return reports.decode(packet) if packet else None

    def end(self, patience_s: float) -> int:
        """End and reap the zygote. Returns its wait status. Once only.

        At the end of file it kills its workers and all that came of them; when that takes longer than `patience_s` it is killed,
        and the kernel kills its workers.
        """
        self.socket.close()
        if patience_s > 0:
            ended = os.pidfd_open(self.pid)
            select.select([ended], [], [], patience_s)
            os.close(ended)
        os.kill(self.pid, signal.SIGKILL)
        return os.waitpid(self.pid, 0)[1]
