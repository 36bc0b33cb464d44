"""Signal handlers and the machines: what a handler raises while the main thread steps one waits until it has.

Python runs signal handlers between any two bytecodes of the main thread, and many raise: KeyboardInterrupt, the time-outs
of notebooks and test runners (SIGALRM), scripts that end at SIGTERM. In the middle of a step that would leave a task in no
state at all. So whatever handlers there are get a `_Front`, which lets a step end first. Others install theirs at any time
(ipykernel a SIGINT handler before every cell, a time-out its SIGALRM handler before every call), so each step looks, for the
price of a C call, whether those two are still ours; for the rest nbray-io looks, as mail comes.
"""

from __future__ import annotations

import _signal
import _thread
import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from nbray.handlers import Handler, run

_SIGINT, _SIGALRM = int(signal.SIGINT), int(signal.SIGALRM)
#: Others that somebody may have a handler for. Those for faults of the process itself must not wait.
_SELDOM = (
    *(
        signal.SIGHUP,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGQUIT,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGXCPU,
    ),
    *(signal.SIGPIPE, signal.SIGCHLD, signal.SIGWINCH, signal.SIGIO, signal.SIGURG, signal.SIGCONT, signal.SIGTSTP),
)
_DEPTH = 4  #: frames between whoever is spared and the line that a signal came at

_get_ident = threading.get_ident
#: The C function: signal.getsignal wraps its answer in an enum, which costs more than the whole step's locking.
_getsignal = _signal.getsignal


class _Front:
    """One handler of somebody's, asked when it suits. It is never changed, so that who puts it back later gets the same one."""

    __slots__ = ("behind", "guard")

    def __init__(self, guard: InterruptGuard, behind: Handler) -> None:
        self.guard, self.behind = guard, behind

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.guard.came(self, number, frame)


class InterruptGuard:
    """`enter` and `leave` bracket a step. Off the main thread they do nothing: signals are not handled there.

    `spared` are functions in which nothing may be raised although they are no step, such as what `__del__` calls: Python
    would print it and go on. A signal that comes in one of them comes again `soon`.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], None], spared: frozenset[CodeType] = frozenset()) -> None:
        self._main = threading.main_thread().ident
        self._inside = 0
        self._waiting = False  #: inside, and in a wait that a signal may end
        self._pending: dict[int, tuple[_Front, FrameType | None]] = {}
        self._soon, self._spared = soon, spared
        self._int: Any = None  #: the handlers as they were last seen
        self._alarm: Any = None
        self._seldom: list[Any] = [None] * len(_SELDOM)
        self._stale = True  #: some of the seldom ones are new

    def enter(self) -> None:
        if _get_ident() != self._main:
            return
        if self._inside == 0 and (_getsignal(_SIGINT) is not self._int or _getsignal(_SIGALRM) is not self._alarm or self._stale):
            self._install()
        self._inside += 1

    def leave(self) -> None:
        """The step is whole. Raises what the handlers of signals that came meanwhile do."""
        if _get_ident() != self._main:
            return
        self._inside -= 1
        if self._pending and self._inside == 0:
            self._deliver()

    def wait(self, wait: Callable[[], bool]) -> bool:
        """Between `enter` and `leave`: `wait()`, which a handler that raises ends, also one whose signal has come already."""
        if _get_ident() != self._main:
            return wait()
        try:
            self._hear()
            return wait()
        finally:
            self._waiting = False

    def look(self) -> None:
        """From any thread, now and then: are there new handlers for signals that seldom have one?"""
        if not self._stale and any(_getsignal(number) is not seen for number, seen in zip(_SELDOM, self._seldom, strict=True)):
            self._stale = True

    def came(self, front: _Front, number: int, frame: FrameType | None) -> None:
        if self._inside and not self._waiting:
            self._pending[number] = front, frame
        elif self._is_spared(frame):
            self._soon(lambda: _signal_again(number))
        else:
            waiting, self._waiting = self._waiting, False  # what is raised is tidied up after without a second one in between
            run(front.behind, number, frame)
            if waiting:
                self._hear()

    def _hear(self) -> None:
        """In a wait: what has come, and from now on what comes."""
        self._waiting = True
        while self._pending:
            self._waiting = False
            self._deliver()
            self._waiting = True

    def _is_spared(self, frame: FrameType | None) -> bool:
        for _ in range(_DEPTH):
            if frame is None:
                return False
            if frame.f_code in self._spared:
                return True
            frame = frame.f_back
        return False

    def _deliver(self) -> None:
        pending, self._pending = self._pending, {}
        try:
            while pending:
                number, (front, frame) = pending.popitem()
                run(front.behind, number, frame)
        finally:
            for number in pending:  # one has raised; the others come as if they came now
                _signal_again(number)

    def _install(self) -> None:
        self._stale = False
        self._int, self._alarm = self._fronted(_SIGINT), self._fronted(_SIGALRM)
        self._seldom = [self._fronted(number) for number in _SELDOM]

    def _fronted(self, number: int) -> Any:
        """The handler of a signal, with a front of ours if it is one of Python's."""
        found = _getsignal(number)
        if not callable(found) or (isinstance(found, _Front) and found.guard is self):
            return found
        front = _Front(self, found.behind if isinstance(found, _Front) else found)
        signal.signal(number, front)
        return front

    def uninstall(self) -> None:
        """Put back what was there. Only from the main thread; elsewhere Python refuses, and the fronts are harmless."""
        if _get_ident() != self._main:
            return
        for number in (_SIGINT, _SIGALRM, *_SELDOM):
            found = _getsignal(number)
            if isinstance(found, _Front) and found.guard is self:
                signal.signal(number, found.behind)


def _signal_again(number: int) -> None:
    """Have the main thread run the handler at its next bytecode. From any thread."""
    _thread.interrupt_main(signal.Signals(number))
