"""Threads of simulated user code: generators that yield what they wait for, seconds or a `Gate`."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

from nbray.testing.clock import Clock, Timer

#: A thread that was woken runs after at most this long.
SWITCH_S = 0.0001


class Gate:
    """Something that one thread waits for. It may be opened before the thread comes to it."""

    __slots__ = ("opened", "wake")

    def __init__(self) -> None:
        self.opened = False
        self.wake: Callable[[], None] | None = None

    def open(self) -> None:
        if not self.opened:
            self.opened = True
            if self.wake is not None:
                self.wake()


class Thread:
    """One generator on its way."""

    def __init__(self, home: Threading, code: Generator[Any, None, None], ended: Callable[[], None] | None) -> None:
        self._home, self._code, self._ended = home, code, ended
        self._timer: Timer | None = None
        self._gate: Gate | None = None
        self._running = False

    def resume(self, error: BaseException | None = None) -> None:
        self._gate = self._timer = None
        if not self._home.alive:
            return
        self._running = True
        try:
            wanted = self._code.send(None) if error is None else self._code.throw(error)
        except StopIteration:
            self._home.threads.pop(self, None)
            if self._ended is not None:
                self._ended()
            return
        finally:
            self._running = False
        if isinstance(wanted, Gate):
            self._gate = wanted
            wanted.wake = self._woken
            if wanted.opened:
                self._woken()
        else:
            self._timer = self._home.clock.call_later(wanted, self.resume)

    def _woken(self) -> None:
        self._timer = self._home.clock.call_later(self._home.chance.uniform(0, SWITCH_S), self.resume)

    def interrupt(self, error: BaseException) -> None:
        """Raise `error` where the thread waits."""
        if self._timer is not None:
            self._timer.cancel()
        if self._gate is not None:
            self._gate.wake = None
        self._timer = self._home.clock.call_later(self._home.chance.uniform(0, SWITCH_S), lambda: self.resume(error))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._gate is not None:
            self._gate.wake = None
        if not self._running:  # else it is this one that ended its process, and it comes to its own end
            self._code.close()


class Threading:
    """The threads of one process, while it lives."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self.clock, self.chance = clock, chance
        self.alive = True
        self.threads: dict[Thread, None] = {}

    def start_thread(self, code: Generator[Any, None, None], ended: Callable[[], None] | None = None) -> Thread:
        thread = Thread(self, code, ended)
        self.threads[thread] = None
        self.call_soon(thread.resume)
        return thread

    def call_soon(self, action: Callable[[], None]) -> None:
        """Another thread does it, a moment later, if the process still lives."""
        self.clock.call_later(self.chance.uniform(0, SWITCH_S), lambda: action() if self.alive else None)

    def stop_threads(self) -> None:
        """The process is dead: nothing of it runs any more."""
        self.alive = False
        for thread in list(self.threads):
            thread.close()
        self.threads.clear()
