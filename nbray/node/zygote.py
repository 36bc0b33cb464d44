"""The zygote: imports what every worker needs, then forks a ready worker in milliseconds, and reaps it.

`python -m nbray.node.zygote <socket fd> <daemon pid>`. Single-threaded, and without a zmq context: neither
threads nor contexts survive a fork.
"""

# ruff: noqa: E402

from __future__ import annotations

import gc

# Until everything is imported: hardly any of it is garbage, and looking for some takes a tenth of the time.
gc.disable()

import array
import base64
import contextlib
import faulthandler
import importlib
import json
import os
import random
import select
import shlex
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import cloudpickle
import msgspec
import numpy as np
import numpy.random  # numpy would load it when the first of the workers seeds it, in each of them
import zmq  # noqa: F401 -- imported for the workers

from nbray.node import forking
from nbray.node.logs import worker_log
from nbray.node.parentage import adopt_orphans, die_with_parent, kill_children, kill_group, outlive_parent
from nbray.worker.boot import WorkerBoot


def main() -> None:
    link_fd, daemon = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(link_fd, False)
    die_with_parent(daemon)
    link = socket.socket(fileno=link_fd)
    link.setblocking(True)
    packet, ancillary, _flags, _ = link.recvmsg(forking.PACKET_BYTES, socket.CMSG_SPACE(4))
    if not packet:
        return
    prepare = forking.orders.decode(packet)
    assert isinstance(prepare, forking.Prepare), prepare
    fds = array.array("i")
    fds.frombytes(ancillary[0][2])
    _write_to(prepare.log_path)
    module, _, function = prepare.entry.partition(":")
    run = getattr(importlib.import_module(module), function)
    # Untouched by the collector, the pages of these objects stay shared with every worker.
    gc.freeze()
    gc.enable()
    # From here on the end of file on the link says that the daemon is gone, and then what workers have started is to be ended.
    adopt_orphans()
    outlive_parent()
    nursery = Nursery(link)
    try:
        nursery.serve()
        nursery.end_all()
        os._exit(0)  # the daemon may be waiting, and taking the interpreter down takes longer than all of this
    except _Born as born:
        boot = born.boot
    # Outside the handler, so that no exception of the worker's drags the zygote's frames along.
    nursery.leave()
    if boot.command:
        become(boot, prepare.entry)
    live(run, msgspec.structs.replace(boot, arena_fd=fds[0], arena_bytes=prepare.arena_bytes))


class _Born(BaseException):
    """Raised in the child of a fork: it unwinds the zygote's frames, which are no part of a worker's stack."""

    def __init__(self, boot: WorkerBoot) -> None:
        self.boot = boot


def live(run: Callable[[WorkerBoot], Any], boot: WorkerBoot) -> NoReturn:
    """Be the worker of `boot` from here to the end of the process."""
    code = 1
    try:
        run(msgspec.structs.replace(boot, log_path=_settle(boot.log_directory)))
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 -- the last frame of this process: the log gets it, the exit code tells
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: what the zygote registered to run at its exit is not the worker's.
        os._exit(code)


def become(boot: WorkerBoot, entry: str) -> NoReturn:
    """Turn this fork into the interpreter of `boot.command`, which then runs nbray/worker/fresh.py. Pid, parent, log and death
    with the zygote stay what they are."""
    log = _settle(boot.log_directory)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    told = {
        "boot": base64.b64encode(forking.encode(boot)).decode(),
        "entry": entry,
        "parents": [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")],
        "root": os.path.dirname(package),
    }
    command = [*shlex.split(boot.command), f"{package}/worker/fresh.py"]
    try:
        os.execvpe(command[0], command, {**os.environ, "NBRAY_WORKER_BOOT": json.dumps(told)})
    except OSError as error:
        print(f"{command[0]} could not be started: {error.strerror} (log: {log})", file=sys.stderr, flush=True)
        os._exit(1)


class Nursery:
    """Forks and reaps, one order after another."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._pids: dict[bytes, int] = {}  #: workers that have not been reaped
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Until the daemon is gone. In a child of a fork, raises _Born."""
        self._tell(forking.Ready(cloudpickle.__version__))
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(self._wake_r, select.POLLIN)
        while True:
            for fd, _events in poll.poll():
                if fd == self._wake_r:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_r, 4096)
                    self._reap()
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        try:
            packet = self._link.recv(forking.PACKET_BYTES)
        except ConnectionResetError:
            return False  # it was killed with reports unread
        if not packet:
            return False
        match forking.orders.decode(packet):
            case forking.Signal(process, number):
                self._signal(process, number)
            case WorkerBoot() as boot:
                self._fork(boot)
        return True

    def _signal(self, process: bytes, number: int) -> None:
        pid = self._pids.get(process)
        if pid is None:
            return
        os.kill(pid, number)
        if number == signal.SIGKILL:
            kill_group(pid)

    def _fork(self, boot: WorkerBoot) -> None:
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(forking.ForkFailed(boot.process, f"fork: {error.strerror}; is a limit on processes or memory reached?"))
            return
        if pid == 0:
            os.setsid()
            die_with_parent(zygote)
            raise _Born(boot)
        self._pids[boot.process] = pid
        self._tell(forking.Forked(boot.process, pid))

    def leave(self) -> None:
        """In a child: let go of what is the zygote's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._link.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def end_all(self) -> None:
        """The daemon is gone: kill the workers and everything that ever came of one."""
        for pid in self._pids.values():
            kill_group(pid)
        kill_children(self._reap, self._wait_for_an_end)

    def _wait_for_an_end(self) -> None:
        select.select([self._wake_r], [], [], 0.05)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_r, 4096)

    def _reap(self) -> None:
        processes = {pid: process for process, pid in self._pids.items()}
        while (pid := _ended()) is not None:
            if pid not in processes:
                os.waitpid(pid, 0)  # an orphan of some worker's
                continue
            kill_group(pid)
            _, status = os.waitpid(pid, 0)
            process = processes.pop(pid)
            del self._pids[process]
            code = os.waitstatus_to_exitcode(status)
            self._tell(forking.Reaped(process, pid, -code if code < 0 else None, code if code >= 0 else None))

    def _tell(self, report: forking.Report) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the daemon is gone: its end of file is read next
            self._link.send(forking.encode(report))


def _ended() -> int | None:
    """A child that has ended and is not reaped: as long as it is a zombie nobody else has its pid. None when there is none."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return ended.si_pid if ended is not None else None


def _write_to(path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _settle(log_directory: str) -> str:
    """Make the fork a process of its own: signals, log, random numbers. Returns the log's path."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = worker_log(log_directory, os.getpid())
    _write_to(path)
    faulthandler.enable(2)
    random.seed()
    np.random.seed()  # noqa: NPY002 -- the global generator of user code, or every worker draws the same numbers
    return path


if __name__ == "__main__":
    main()
