"""Virtual time: it stands still while something happens, and jumps to the next thing that is due."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from nbray.machine import Machine


class Timer:
    """Something that will happen. `cancel` makes it not happen."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at = at
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Clock:
    """Things happen in the order of their times; those of one time in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 1000.0  #: seconds; not 0, so that nothing takes "never" for "just now"
        self._queue: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    def call_at(self, at: float, action: Callable[[], None]) -> Timer:
        timer = Timer(max(at, self.now), action)
        heapq.heappush(self._queue, (timer.at, next(self._count), timer))
        return timer

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        return self.call_at(self.now + delay_s, action)

    def step(self, until: float) -> bool:
        """Let the next thing happen. False, and it is `until` now, if nothing is due before that."""
        while self._queue:
            at, _, timer = self._queue[0]
            if timer.action is None:
                heapq.heappop(self._queue)
                continue
            if at > until:
                break
            heapq.heappop(self._queue)
            self.now = at
            action, timer.action = timer.action, None
            action()
            return True
        self.now = max(self.now, until)
        return False


class Alarm:
    """Rings when a machine's `next_deadline()` has come. Call `set` after every event of the machine."""

    __slots__ = ("_clock", "_machine", "_ring", "_timer")

    def __init__(self, clock: Clock, machine: Machine, ring: Callable[[], None]) -> None:
        self._clock, self._machine, self._ring = clock, machine, ring
        self._timer: Timer | None = None

    def set(self) -> None:
        due = self._machine.next_deadline()
        if self._timer is not None:
            if due is not None and self._timer.action is not None and self._timer.at <= due:
                return  # it rings earlier, and looks again
            self._timer.cancel()
        self._timer = None if due is None else self._clock.call_at(due, self._due)

    def _due(self) -> None:
        due = self._machine.next_deadline()
        if due is not None and due <= self._clock.now:
            self._ring()
            due = self._machine.next_deadline()
            # A real loop would spin: the machine wants a Tick that it has just had.
            assert due is None or due > self._clock.now, f"{type(self._machine).__name__} asks for a Tick it was given"
        self.set()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
