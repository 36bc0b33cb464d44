"""The shell around the making of environments: one child process for each, and the locks on what they are made of.

A child reads its order and answers in one line each (nbray/environments/builder.py). Its result is kept from removal by locks that
this process takes before it lets the child go, and holds until the machine says EndEnvironment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable

import msgspec

from nbray.node.loop import Loop
from nbray.node.records import EnvironmentFailed, EnvironmentMade
from nbray.node.spawn import interpreter

BUILDER = "nbray.environments.builder"


class _Child:
    """One builder. `said` is what has come of its answer."""

    def __init__(self, setup: str, pid: int, orders: int, answers: int) -> None:
        self.setup, self.pid, self.orders, self.answers = setup, pid, orders, answers
        self.said = b""


class Making:
    """Environments by setup. `tell` takes EnvironmentMade and EnvironmentFailed, in the loop."""

    def __init__(
        self,
        loop: Loop,
        directory: str,
        place: str,
        log: str,
        tell: Callable[[EnvironmentMade | EnvironmentFailed], None],
    ) -> None:
        """`directory` is the node's runtime directory, `place` where packages are unpacked, `log` the children's stderr."""
        self._loop, self._directory, self._place, self._log, self._tell = loop, directory, place, log, tell
        self._children: dict[str, _Child] = {}
        self._locks: dict[str, list[int]] = {}
        self._leaving: dict[int, int] = {}  #: children that are told to end, by their answers' descriptor

    def make(self, setup: str) -> None:
        try:
            child = self._spawn(setup)
        except OSError as error:
            self._tell(EnvironmentFailed(setup, f"no process could be started for it: {error.strerror}"))
            return
        self._children[setup] = child
        self._loop.watch(child.answers, lambda: self._hear(child))
        order = {"setup": json.loads(setup), "directory": self._directory, "place": self._place, "parent": os.getpid()}
        with contextlib.suppress(BrokenPipeError):  # it has ended already, and its end of file says so
            os.write(child.orders, json.dumps(order).encode() + b"\n")

    def _spawn(self, setup: str) -> _Child:
        orders_r, orders_w = os.pipe2(os.O_CLOEXEC)
        answers_r, answers_w = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(answers_r, False)
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [*interpreter(), "-m", BUILDER],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, orders_r, 0),
                    (os.POSIX_SPAWN_DUP2, answers_w, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setpgroup=0,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGCHLD],
            )
        except OSError:
            os.close(orders_w)
            os.close(answers_r)
            raise
        finally:
            for fd in (orders_r, answers_w, log):
                os.close(fd)
        return _Child(setup, pid, orders_w, answers_r)

    def _hear(self, child: _Child) -> None:
        try:
            piece = os.read(child.answers, 65_536)
        except BlockingIOError:
            return
        child.said += piece
        if piece and not child.said.endswith(b"\n"):
            return
        del self._children[child.setup]
        news = self._understood(child)
        self._dismiss(child)
        self._tell(news)

    def _understood(self, child: _Child) -> EnvironmentMade | EnvironmentFailed:
        try:
            answer = msgspec.json.decode(child.said)
        except msgspec.DecodeError:
            return EnvironmentFailed(child.setup, f"the process that made it ended without a word; its log: {self._log}")
        if "error" in answer:
            return EnvironmentFailed(child.setup, answer["error"])
        locks: list[int] = []
        self._locks[child.setup] = locks
        try:
            for path in answer["locks"]:
                locks.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                fcntl.flock(locks[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            self._let_go(child.setup)
            return EnvironmentFailed(child.setup, f"what it is made of was removed just now ({error}); try again")
        return EnvironmentMade(child.setup, shlex.join(answer["command"]))

    def _dismiss(self, child: _Child) -> None:
        """Its stdin ends, so it tidies up and ends; its end of file says when to reap it."""
        os.close(child.orders)
        self._loop.unwatch(child.answers)
        self._leaving[child.answers] = child.pid
        self._loop.watch(child.answers, lambda: self._reap(child.answers))

    def _reap(self, answers: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if os.read(answers, 4096):
                return
            self._loop.unwatch(answers)
            os.close(answers)
            os.waitpid(self._leaving.pop(answers), 0)

    def end(self, setup: str) -> None:
        """Stop making it, or let go of what it is made of."""
        child = self._children.pop(setup, None)
        if child is not None:
            os.killpg(child.pid, signal.SIGKILL)
            self._dismiss(child)
        self._let_go(setup)

    def _let_go(self, setup: str) -> None:
        for fd in self._locks.pop(setup, []):
            os.close(fd)

    def close(self) -> None:
        """Kill what is being made, and let go of everything."""
        for child in list(self._children.values()):
            self.end(child.setup)
        for answers, pid in self._leaving.items():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._loop.unwatch(answers)
            os.close(answers)
        self._leaving.clear()
        for setup in list(self._locks):
            self._let_go(setup)
