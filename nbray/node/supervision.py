"""The daemon's end of submitted jobs: starts a supervisor for each, passes orders on, and reads their logs to whoever asks.

A log is read by offset. Who has read it all waits: the supervisor is armed then, and its one word about more output answers
everybody who waits. So a log that nobody follows costs nothing, and one that is followed costs a message per answer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from nbray import config
from nbray.node import supervisor
from nbray.node.loop import Loop
from nbray.node.records import (
    EntrypointExited,
    EntrypointStarted,
    ForgetEntrypoint,
    LogEntrypoint,
    SignalEntrypoint,
    StartEntrypoint,
)
from nbray.node.spawn import interpreter
from nbray.node.surroundings import directory_of, variables_of

#: Of a log, in one answer.
PART_BYTES = 512 * 1024
#: A follower hears something, if only that there is nothing new, within this time: so both sides know that the other lives.
WAIT_S = 30.0


class _Follower(msgspec.Struct, frozen=True, eq=False):
    submission: str
    offset: int
    answer: Callable[[dict[str, Any]], None]


class _Job:
    """One supervisor, while it lives, and the log that stays."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self.link = link
        self.supervisor = pid
        self.pid = 0  #: of the shell, which is also its process group
        self.over = False  #: its last word has been said


class Supervision:
    """Submitted jobs of this node by submission. `tell` takes EntrypointStarted and EntrypointExited, in the loop."""

    def __init__(
        self,
        loop: Loop,
        address: str,
        log_directory: str,
        places: str,
        tell: Callable[[EntrypointStarted | EntrypointExited], None],
    ) -> None:
        """`address` is what NBRAY_ADDRESS shall be for the jobs, `places` where packages are unpacked."""
        self._loop = loop
        self._address = address
        self._logs = log_directory
        self._places = places
        self._tell = tell
        self._jobs: dict[str, _Job] = {}  #: those with a supervisor
        #: inode -> where that file begins in the log, of the two latest segments of each; those of an earlier daemon are unknown
        self._segments: dict[str, dict[int, int]] = {}
        self._followers: dict[_Follower, None] = {}

    # -- orders

    def start(self, order: StartEntrypoint) -> None:
        said = order.said
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.set_inheritable(True)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Not subprocess: its import costs the daemon megabytes.
            pid = os.posix_spawn(
                sys.executable,
                [*interpreter(), "-m", "nbray.node.supervisor", str(theirs.fileno())],
                dict(os.environ),
                file_actions=[(os.POSIX_SPAWN_DUP2, null, 0)],
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGCHLD],
            )
            job = self._jobs[said.submission] = _Job(ours, pid)
            self._loop.watch(ours, lambda: self._hear(said.submission, job))
            path = self._path(said.submission)
            around = variables_of(order, self._address, self._places, os.environ)
            directory = directory_of(order, self._places)
            command = supervisor.Command(said.command, around, directory, path, config.LOG_BYTES)
            ours.send(supervisor.encode(command))
            ours.setblocking(False)
        except OSError as error:
            if (failed := self._jobs.pop(said.submission, None)) is not None:
                self._loop.unwatch(failed.link)
            ours.close()
            self._tell(EntrypointExited(said.submission, None, None, f"its supervisor did not start: {error.strerror}", ""))
        finally:
            os.close(null)
            theirs.close()
        self._arm(said.submission)

    def signal(self, order: SignalEntrypoint) -> None:
        """Late is harmless: who has ended is not signalled."""
        job = self._jobs.get(order.submission)
        if job is not None:
            with contextlib.suppress(OSError):  # it is ending: its last word, or the end of file, comes next
                job.link.send(supervisor.encode(supervisor.Signal(order.signal)))

    # -- reports

    def _hear(self, submission: str, job: _Job) -> None:
        while True:
            try:
                packet = job.link.recv(supervisor.PACKET_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it was killed with an order unread; what it said before is still to be had, and then the end of file
            if not packet:
                self._ended(submission, job)
                return
            match supervisor.reports.decode(packet):
                case supervisor.Forked(pid):
                    job.pid = pid
                case supervisor.Born(pid):
                    self._tell(EntrypointStarted(submission, pid))
                case supervisor.Segment(inode, begins):
                    known = self._segments.setdefault(submission, {})
                    known[inode] = begins
                    for old in list(known)[:-2]:
                        del known[old]
                case supervisor.Grown():
                    self._answer(submission)
                    self._arm(submission)
                case supervisor.Gone(code, number, reason, log_tail):
                    job.over = True
                    self._tell(EntrypointExited(submission, code, number, reason, log_tail))

    def _ended(self, submission: str, job: _Job) -> None:
        """The supervisor is gone. Usually it has said its last word; else it was killed, and cannot clean up any more."""
        self._loop.unwatch(job.link)
        job.link.close()
        status = os.waitpid(job.supervisor, 0)[1]
        del self._jobs[submission]
        if not job.over:
            if job.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(job.pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            self._tell(EntrypointExited(submission, None, None, f"the process that watched over it {how}", ""))
        self._answer(submission)

    # -- logs

    def write(self, order: LogEntrypoint) -> None:
        """The whole log of one that never began."""
        with contextlib.suppress(FileExistsError):
            fd = os.open(self._path(order.submission), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8", errors="replace") as file:
                file.write(f"{order.text}\n")

    def forget(self, order: ForgetEntrypoint) -> None:
        """Nobody can ask for its log any more."""
        self._segments.pop(order.submission, None)
        for suffix in ("", ".1"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(order.submission) + suffix)

    def read_log(self, arguments: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
        """Answer what was printed from `offset` on, as soon as there is something, or the job has ended, or after `wait_s`.

        {"data": bytes, "offset": where to go on, "skipped": bytes of `offset` that are gone, "over": whether this is all}
        """
        name, offset, wait_s = (arguments.get(key) for key in ("submission_id", "offset", "wait_s"))
        if not isinstance(name, str) or not isinstance(offset, int) or not isinstance(wait_s, int | float):
            answer({"data": b"", "offset": 0, "skipped": 0, "over": True})
            return
        part = self._part(name, max(0, offset))
        if part["data"] or part["over"] or wait_s <= 0:
            answer(part)
            return
        follower = _Follower(name, offset, answer)
        self._followers[follower] = None
        self._loop.call_later(min(wait_s, WAIT_S), lambda: self._patience_over(follower))
        self._arm(name)

    def _patience_over(self, follower: _Follower) -> None:
        if follower in self._followers:
            del self._followers[follower]
            follower.answer(self._part(follower.submission, follower.offset))

    def _answer(self, submission: str) -> None:
        for follower in [each for each in self._followers if each.submission == submission]:
            part = self._part(submission, follower.offset)
            if (part["data"] or part["over"]) and follower in self._followers:
                del self._followers[follower]
                follower.answer(part)

    def _arm(self, submission: str) -> None:
        job = self._jobs.get(submission)
        waiting = [each.offset for each in self._followers if each.submission == submission]
        if job is not None and waiting:
            with contextlib.suppress(OSError):  # it is ending, and that answers too
                job.link.send(supervisor.encode(supervisor.Arm(min(waiting))))

    def _part(self, name: str, offset: int) -> dict[str, Any]:
        path, after = self._path(name), 0
        begins, start, data = 0, offset, b""
        with contextlib.ExitStack() as files:
            for fd in [files.enter_context(_opened(each)) for each in (f"{path}.1", path)]:
                if fd < 0:
                    continue
                facts = os.fstat(fd)
                begins = self._begins(name, facts.st_ino, after)
                after = begins + facts.st_size
                start = max(start, begins)
                if start < after:
                    data = os.pread(fd, PART_BYTES, start - begins)
                    break
        over = name not in self._jobs and not data
        return {"data": data, "offset": start + len(data), "skipped": start - offset, "over": over}

    def _begins(self, name: str, inode: int, otherwise: int) -> int:
        """Where the segment begins. A file that can be seen has been announced: if not yet heard, then it is on the link."""
        if inode not in self._segments.get(name, {}) and (job := self._jobs.get(name)) is not None:
            self._hear(name, job)
        return self._segments.get(name, {}).get(inode, otherwise)

    def _path(self, submission: str) -> str:
        return f"{self._logs}/job-{urllib.parse.quote(submission, safe='')}.log"

    # -- the end

    @property
    def running(self) -> bool:
        return bool(self._jobs)

    def end_all(self, number: int) -> None:
        for submission in list(self._jobs):
            self.signal(SignalEntrypoint(submission, number))

    def close(self) -> None:
        """Whatever still runs is killed by its supervisor, which sees the end of file."""
        for job in self._jobs.values():
            self._loop.unwatch(job.link)
            job.link.close()
        self._jobs.clear()


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """A descriptor to read from; -1 when there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield -1
        return
    try:
        yield fd
    finally:
        os.close(fd)
