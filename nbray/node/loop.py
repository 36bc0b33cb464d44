"""The daemon's loop: readable things, deadlines, and words from other threads. It sleeps until one of them comes."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Loop:
    """Single-threaded but for `call_from_thread`. Callbacks that raise end the loop: what they may meet they handle."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._from_threads: deque[Callable[[], None]] = deque()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch(self._wake_r, self._woken)

    @staticmethod
    def now() -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def watch(self, readable: HasFileno | int, callback: Callable[[], None]) -> None:
        self._selector.register(readable, selectors.EVENT_READ, callback)

    def unwatch(self, readable: HasFileno | int) -> None:
        with contextlib.suppress(KeyError, ValueError):  # ValueError: it is closed already
            self._selector.unregister(readable)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now() + delay_s, next(self._count), callback))

    def call_from_thread(self, callback: Callable[[], None]) -> None:
        """Run `callback` in the loop, soon. From any thread."""
        self._from_threads.append(callback)
        self.wake()

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: a wake-up is on its way already
            os.write(self._wake_w, b"\0")

    def on_signal(self, number: signal.Signals, callback: Callable[[], None]) -> None:
        """Main thread only. The callback runs in the loop, not in the handler."""
        signal.signal(number, lambda _number, _frame: self.call_from_thread(callback))
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)

    def step(self, deadline: float | None) -> None:
        """Wait for the next thing, at most until `deadline`, and do what is due."""
        if self._timers:
            deadline = self._timers[0][0] if deadline is None else min(deadline, self._timers[0][0])
        timeout = None if deadline is None else max(0.0, deadline - self.now())
        for key, _ in self._selector.select(timeout):
            # A callback may have unwatched one that is further down this list.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        while self._timers and self._timers[0][0] <= self.now():
            heapq.heappop(self._timers)[2]()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_r, 4096):
                pass
        while self._from_threads:
            self._from_threads.popleft()()

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._selector.close()
        os.close(self._wake_r)
        os.close(self._wake_w)
