"""The supervisor of one submitted job: runs its command line, keeps its log, and leaves nothing of it behind.

`python -m nbray.node.supervisor <socket fd>`, started by node/supervision.py.

    daemon --Command, Signal, Arm--> supervisor --fork--> sh -c <command line> (a session of its own)
         <--Forked, Born, Grown, Gone-- |  <--pipe-- its output
                                        `-> <log>, <log>.1

A process of its own, so that a job which prints a gigabyte costs the daemon nothing, and so that somebody is there to clean up
when the daemon is killed: the end of file on the socket is an order to kill everything. As a subreaper it inherits what the
command line leaves behind, in whatever session or group that hides, and ends it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import msgspec

from nbray.node.logs import tail
from nbray.node.parentage import adopt_orphans, die_with_parent, kill_children, kill_group

PACKET_BYTES = 256 * 1024
READ_BYTES = 64 * 1024


class _Word(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of what is said on the socketpair."""


class Command(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """daemon -> supervisor, first of all: run this."""

    line: str
    environment: dict[str, str]  #: all of it
    directory: str  #: to run in; "": ours
    log_path: str
    segment_bytes: int  #: a log this long becomes `<log_path>.1`; the one that had that name is gone


class Signal(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """daemon -> supervisor: signal the process group; SIGKILL everything."""

    number: int


class Arm(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """daemon -> supervisor: say Grown once, as soon as more than `size` bytes have been printed."""

    size: int


class Forked(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """supervisor -> daemon: this process, which leads its group, waits to become the shell. Said first, so that there is never a
    shell which nobody but us knows of."""

    pid: int


class Born(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """supervisor -> daemon: it is the shell."""

    pid: int


class Segment(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """supervisor -> daemon: the file with this inode begins with byte `begins` of the log. Said before it can be seen."""

    inode: int
    begins: int


class Grown(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """supervisor -> daemon: bytes printed so far, all of them in the log unless its segment is gone."""

    size: int


class Gone(_Word, frozen=True, array_like=True, tag=True, gc=False):
    """supervisor -> daemon: nothing is left. `exit_code` and `signal` are both None when it could not begin."""

    exit_code: int | None
    signal: int | None
    reason: str
    log_tail: str


Order = Command | Signal | Arm
Report = Forked | Born | Segment | Grown | Gone
encode = msgspec.msgpack.Encoder().encode
orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
reports: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


class CannotRun(Exception):
    """The command line was not begun; the text says why."""


class Log:
    """A log of two segments: what was printed last stays, and the disk does not fill."""

    def __init__(self, path: str, segment_bytes: int, tell: Callable[[Report], None]) -> None:
        self.size = 0  #: bytes printed in all
        self._path = path
        self._segment_bytes = segment_bytes
        self._tell = tell
        self._fd = self._begin()

    def _begin(self) -> int:
        draft = f"{self._path}.new"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._tell(Segment(os.fstat(fd).st_ino, self.size))
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path, f"{self._path}.1")
        os.rename(draft, self._path)
        return fd

    def write(self, data: bytes) -> None:
        while data:
            room = self._segment_bytes - self.size % self._segment_bytes
            if room == self._segment_bytes and self.size:
                os.close(self._fd)
                self._fd = self._begin()
            part, data = data[:room], data[room:]
            # A full disk takes a part or nothing: what the job printed is lost then, and its offsets are not.
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, part, self.size % self._segment_bytes)
            self.size += len(part)


class Supervisor:
    """One command line from its beginning to the end of all that came of it."""

    def __init__(self, link: socket.socket, command: Command) -> None:
        self._link = link
        self._log = Log(command.log_path, command.segment_bytes, self._tell)
        self._log_path = command.log_path
        self._armed: int | None = None
        self._status: int | None = None  #: how the command line ended
        self._output, inner = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = _run(command, inner, self._tell)
        finally:
            os.close(inner)
        os.set_blocking(self._output, False)
        self._wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        self._tell(Born(self._pid))

    def serve(self) -> None:
        """Until the command line has ended, or the daemon has."""
        poll = select.poll()
        for fd in (self._link.fileno(), self._output, self._wake_r):
            poll.register(fd, select.POLLIN)
        self._reap()
        while self._status is None:
            for fd, _events in poll.poll():
                if fd == self._output and not self._copy():
                    poll.unregister(self._output)  # it closed its output, and goes on
                elif fd == self._wake_r:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_r, 4096)
                    self._reap()
                elif fd == self._link.fileno() and not self._obey():
                    self._kill_all()
                    return
        self._kill_all()
        while self._copy(one=True):
            pass
        code = os.waitstatus_to_exitcode(self._status)
        exit_code, number = (None, -code) if code < 0 else (code, None)
        self._tell(Gone(exit_code, number, "", tail(self._log_path)))

    def _obey(self) -> bool:
        packet = self._link.recv(PACKET_BYTES)
        if not packet:
            return False
        match orders.decode(packet):
            case Arm(size):
                self._armed = size
                self._report()
            case Signal(number) if number == signal.SIGKILL:
                self._kill_all()
            case Signal(number):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._pid, number)
        return True

    def _copy(self, *, one: bool = False) -> bool:
        """Take some output into the log. False at its end; with `one` also when there is none now."""
        try:
            data = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return not one
        self._log.write(data)
        self._report()
        return bool(data)

    def _report(self) -> None:
        if self._armed is not None and self._log.size > self._armed:
            self._armed = None
            self._tell(Grown(self._log.size))

    def _reap(self) -> None:
        """Take in who has ended: the command line, and what was orphaned below it."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._status = status

    def _kill_all(self) -> None:
        """SIGKILL to the process group and to everything below us, until nothing is left."""
        kill_group(self._pid)
        kill_children(self._reap, self._wait_for_an_end)

    def _wait_for_an_end(self) -> None:
        select.select([self._wake_r], [], [], 0.05)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_r, 4096)

    def _tell(self, report: Report) -> None:
        with contextlib.suppress(OSError):  # the daemon is gone: its end of file is read next
            self._link.send(encode(report))


def _run(command: Command, output: int, tell: Callable[[Report], None]) -> int:
    """Fork the shell. Returns its pid, or raises CannotRun with what the operating system said."""
    told_r, told_w = os.pipe2(os.O_CLOEXEC)
    go_r, go_w = os.pipe2(os.O_CLOEXEC)
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(go_w)
        _become(command, output, go_r, told_w, supervisor)
    os.close(told_w)
    os.close(go_r)
    tell(Forked(pid))
    with contextlib.suppress(BrokenPipeError):  # it was killed meanwhile, and is reaped as any other
        os.write(go_w, b"!")
    os.close(go_w)
    with open(told_r, "rb") as file:
        problem = file.read().decode("utf-8", "replace")
    if problem:
        os.waitpid(pid, 0)
        raise CannotRun(problem)
    return pid


def _become(command: Command, output: int, go: int, told: int, supervisor: int) -> NoReturn:
    """In the child: be the shell once we may, or say why not."""
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and a shell would inherit that
        die_with_parent(supervisor)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        if command.directory:
            os.chdir(command.directory)
        if os.read(go, 1):
            os.execve("/bin/sh", ["/bin/sh", "-c", command.line], command.environment)
    except OSError as error:
        where = command.directory if error.filename == command.directory else "/bin/sh"
        os.write(told, f"{where}: {error.strerror}".encode())
    finally:
        os._exit(127)


def main() -> None:
    link = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(link.fileno(), False)
    os.set_blocking(link.fileno(), True)
    adopt_orphans()
    packet = link.recv(PACKET_BYTES)
    if not packet:
        return
    command = orders.decode(packet)
    assert isinstance(command, Command), command
    try:
        supervisor = Supervisor(link, command)
    except (CannotRun, OSError) as problem:
        link.send(encode(Gone(None, None, str(problem), "")))
        return
    supervisor.serve()


if __name__ == "__main__":
    main()
