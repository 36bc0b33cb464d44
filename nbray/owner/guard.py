"""KeyboardInterrupt and the machines: an interrupt that arrives while the main thread steps one waits until it has.

Python raises KeyboardInterrupt between any two bytecodes of the main thread. In the middle of a step that would leave a
task in no state at all. ipykernel installs its own SIGINT handler before every cell, so a handler installed once would not
stay: each step looks, for the price of one C call, whether ours is still in front.
"""

from __future__ import annotations

import _signal
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGINT = int(signal.SIGINT)
_Handler = Callable[[int, FrameType | None], Any]


class InterruptGuard:
    """`enter` and `leave` bracket a step. Off the main thread they do nothing: signals are not handled there."""

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._inside = 0
        self._waiting = False  #: inside, and in a wait that an interrupt may end
        self._pending: tuple[int, FrameType | None] | None = None
        self._behind: Any = signal.SIG_DFL
        self._handler: _Handler = self._interrupted  # one bound method, so that `is` finds it again

    def enter(self) -> None:
        if threading.get_ident() != self._main:
            return
        # The C function: signal.getsignal wraps its answer in an enum, which costs more than the whole step's locking.
        if self._inside == 0 and _signal.getsignal(_SIGINT) is not self._handler:
            self._install()
        self._inside += 1

    def leave(self) -> None:
        """The step is whole. Raises the KeyboardInterrupt that came meanwhile."""
        if threading.get_ident() != self._main:
            return
        self._inside -= 1
        if self._inside == 0 and self._pending is not None:
            pending, self._pending = self._pending, None
            self._pass_on(*pending)

    def wait(self, wait: Callable[[], bool]) -> bool:
        """Between `enter` and `leave`: `wait()`, which an interrupt ends. False when one has come already; `leave` raises it."""
        if threading.get_ident() != self._main:
            return wait()
        self._waiting = True
        try:
            return False if self._pending is not None else wait()
        finally:
            self._waiting = False

    def _install(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        if before is None:
            return  # installed from C: nothing of Python's runs at SIGINT, and nothing interrupts a step
        self._behind = before
        signal.signal(signal.SIGINT, self._handler)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._inside and not self._waiting:
            self._pending = (number, frame)
            return
        waiting, self._waiting = self._waiting, False  # what is raised is tidied up after without a second one in between
        self._pass_on(number, frame)
        self._waiting = waiting

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if callable(self._behind):
            self._behind(number, frame)
        elif self._behind == signal.SIG_DFL:
            signal.default_int_handler(number, frame)

    def uninstall(self) -> None:
        """Put back what was there. Only from the main thread; elsewhere Python refuses, and the handler is harmless."""
        if threading.get_ident() == self._main and signal.getsignal(signal.SIGINT) is self._handler:
            signal.signal(signal.SIGINT, self._behind)
