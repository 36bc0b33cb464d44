"""The shell around the zygote: starts and signals workers as ordered, and says how each ended."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import msgspec

from nbray import config
from nbray.ids import NodeId, ProcessId
from nbray.node import monitor
from nbray.node.forking import Forked, ForkFailed, Ready, Reaped, WorkerBoot, Zygote
from nbray.node.logs import keep_within, rotate, tail, worker_log
from nbray.node.loop import Loop
from nbray.node.parentage import END_S, kill_group
from nbray.node.records import StartFailed, WorkerExited
from nbray.node.spawn import spawn_zygote
from nbray.wire.messages import Death

#: A zygote that dies before it is ready is started this often, then no more: something is wrong with the installation.
ZYGOTE_TRIES = 3
#: What it needs to end everything below it.
ZYGOTE_END_S = END_S + 0.5
#: The logs of all workers are measured whenever so many more have died.
DEAD_LOGS = 16


class Workers:
    """Worker processes by process id. `tell` takes WorkerExited and StartFailed, in the loop."""

    def __init__(
        self,
        loop: Loop,
        node: NodeId,
        boot: WorkerBoot,
        arena_fd: int,
        entry: str,
        tell: Callable[[WorkerExited | StartFailed], None],
    ) -> None:
        """`boot` is what every worker is told, but for its process id."""
        self.cloudpickle = ""  #: the workers' version, once the zygote has told
        self.pids: dict[ProcessId, int] = {}  #: forked and not reaped
        self._loop = loop
        self._node = node
        self._boot = boot
        self._arena_fd = arena_fd
        self._entry = entry
        self._tell = tell
        self._ordered: set[ProcessId] = set()  #: not forked yet
        self._zygote: Zygote | None = None
        self._failures = 0
        self._trimming: threading.Thread | None = None
        self._dead_logs = 0  #: left by workers since the logs were last looked through
        self._oom_kills = monitor.oom_kills()

    def adopt(self, pid: int, link: socket.socket) -> None:
        """Take a spawned zygote into service."""
        self._zygote = zygote = Zygote(pid, link)
        self._loop.watch(zygote, self._hear)
        try:
            zygote.prepare(self._arena_fd, self._boot.arena_bytes, self._zygote_log, self._entry)
        except OSError:
            self._zygote_gone()

    @property
    def _zygote_log(self) -> str:
        return f"{self._boot.log_directory}/zygote.log"

    def start(self, process: ProcessId, command: str = "") -> None:
        """Fork it; with a command, the fork becomes that interpreter (a shell's words) before it is a worker."""
        if self._zygote is None:
            self._tell(StartFailed(process, self._why_no_zygote()))
            return
        try:
            self._zygote.start(msgspec.structs.replace(self._boot, process=process, command=command))
        except OSError as error:
            self._tell(StartFailed(process, f"the zygote takes no more orders ({error.strerror})"))
            return
        self._ordered.add(process)

    def signal(self, process: ProcessId, number: int) -> None:
        """Late is harmless: who has been reaped is not signalled."""
        if self._zygote is not None:
            try:
                self._zygote.signal(process, number)
            except BlockingIOError:
                self._loop.call_later(0.01, lambda: self.signal(process, number))
            except OSError:
                return  # it is gone, and its workers with it: its end of file says so

    def _hear(self) -> None:
        while self._zygote is not None:
            try:
                report = self._zygote.read()
            except BlockingIOError:
                return
            match report:
                case None:
                    self._zygote_gone()
                case Ready(cloudpickle):
                    self.cloudpickle = cloudpickle
                    self._failures = 0
                case Forked(process, pid):
                    self._ordered.discard(process)
                    self.pids[process] = pid
                case ForkFailed(process, reason):
                    self._ordered.discard(process)
                    self._tell(StartFailed(process, reason))
                case Reaped():
                    self._reaped(report)

    def _reaped(self, report: Reaped) -> None:
        self.pids.pop(report.process, None)
        self._dead_logs += 1
        path = worker_log(self._boot.log_directory, report.pid)
        death = Death(
            report.process,
            self._node,
            report.pid,
            report.signal,
            report.exit_code,
            oom=report.signal == signal.SIGKILL and self._kernel_killed(),
            log_tail=tail(path),
            log_path=path,
        )
        self._tell(WorkerExited(report.process, death))

    def _kernel_killed(self) -> bool:
        """Whether the kernel's count of out-of-memory kills has risen since we last looked."""
        before, self._oom_kills = self._oom_kills, monitor.oom_kills()
        return self._oom_kills > before

    def _zygote_gone(self) -> None:
        assert self._zygote is not None
        zygote, self._zygote = self._zygote, None
        self._loop.unwatch(zygote)
        status = zygote.end(0)
        print(
            f"the zygote (pid {zygote.pid}) ended with wait status {status}; its workers died with it", file=sys.stderr, flush=True
        )
        self._failures += not self.cloudpickle
        self.cloudpickle = ""
        lost, ordered = self.pids, self._ordered
        self.pids, self._ordered = {}, set()
        if self._failures < ZYGOTE_TRIES:
            self.adopt(*spawn_zygote())
        for process, pid in lost.items():
            kill_group(pid)  # they are dead, and what they had started is not
            path = worker_log(self._boot.log_directory, pid)
            reason = "the process that had forked it was killed"
            death = Death(process, self._node, pid, signal.SIGKILL, None, reason=reason, log_tail=tail(path), log_path=path)
            self._tell(WorkerExited(process, death))
        for process in ordered:
            self._tell(StartFailed(process, self._why_no_zygote()))

    def _why_no_zygote(self) -> str:
        return f"the zygote that forks workers ended; its last words ({self._zygote_log}):\n{tail(self._zygote_log)}"

    def trim_logs(self) -> None:
        """Keep every log within bounds. The copying is done in a thread, one at a time: it may be 50 MB to a slow disk."""
        if self._trimming is not None and self._trimming.is_alive():
            return
        paths = [worker_log(self._boot.log_directory, pid) for pid in self.pids.values()]
        long = [path for path in paths if os.path.exists(path) and os.path.getsize(path) > config.LOG_BYTES]
        if long or self._dead_logs >= DEAD_LOGS:
            self._dead_logs = 0
            arguments = (long, self._boot.log_directory, set(self.pids.values()))
            self._trimming = threading.Thread(target=_trim, args=arguments, name="nbray-logs", daemon=True)
            self._trimming.start()

    @property
    def running(self) -> bool:
        """Whether any worker may still live."""
        return self._zygote is not None and bool(self.pids or self._ordered)

    def kill_all(self) -> None:
        for process in (*self.pids, *self._ordered):
            self.signal(process, signal.SIGKILL)

    def end(self) -> None:
        """End the zygote, and with it what is left of the workers."""
        if self._zygote is not None:
            self._loop.unwatch(self._zygote)
            # One that is still importing would not see it.
            self._zygote.end(ZYGOTE_END_S if self.cloudpickle else 0)
            self._zygote = None


def _trim(paths: list[str], directory: str, alive: set[int]) -> None:
    for path in paths:
        try:
            rotate(path, config.LOG_BYTES)
        except OSError as error:
            print(f"the log {path} could not be rotated ({error}) and was emptied", file=sys.stderr, flush=True)
    keep_within(directory, config.LOGS_BYTES, alive)
