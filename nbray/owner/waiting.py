"""Threads that wait for objects: `get`, `wait` and callbacks, woken by the owner's `Ready`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from nbray.ids import ObjectId

#: Why a wait is refused: whoever collects garbage may run a __del__ anywhere.
INSIDE = (
    "a __del__ or a signal handler that ran in the midst of nbray's own bookkeeping wants to wait for an answer, which cannot come "
    "before it returns. Tasks and calls may be submitted from there; wait for their results elsewhere"
)


class Waiter:
    """Waits for `count` of several objects. Made, told and left under the runtime's lock; waited on without it."""

    __slots__ = ("_eager", "_gate", "failed", "missing")

    def __init__(self, count: int, eager: bool) -> None:
        """`eager`: the first failure ends the wait."""
        self._eager = eager
        self.missing = count
        self.failed = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def tell(self, failed: bool) -> None:
        """One object is ready."""
        self.missing -= 1
        self.failed = self.failed or (failed and self._eager)
        if (self.missing == 0 or self.failed) and self._gate.locked():
            self._gate.release()

    def give_up(self) -> None:
        """End the wait with objects still missing."""
        if self._gate.locked():
            self._gate.release()

    @property
    def given_up(self) -> bool:
        """Whether `give_up` ended it before anything else did."""
        return self.missing > 0 and not self.failed

    def wait(self, timeout_s: float | None) -> bool:
        """Whether the wait ended in time. Interruptible: a lock's acquire handles signals in the main thread."""
        return self._gate.acquire(timeout=-1 if timeout_s is None else max(0.0, min(timeout_s, threading.TIMEOUT_MAX)))


class WaitList:
    """Who waits for which object. Under the runtime's lock."""

    def __init__(self) -> None:
        self._waiting: dict[ObjectId, list[Waiter | Callable[[], None]]] = {}

    def add(self, object_id: ObjectId, waiter: Waiter | Callable[[], None]) -> None:
        self._waiting.setdefault(object_id, []).append(waiter)

    def remove(self, object_ids: Iterable[ObjectId], waiter: Waiter) -> None:
        """An interrupted or timed-out wait is forgotten."""
        for object_id in object_ids:
            waiters = self._waiting.get(object_id)
            if waiters is not None and waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self._waiting[object_id]

    def abandon(self) -> list[Callable[[], None]]:
        """Nothing becomes ready any more: the waits end. The callbacks are returned, as in `ready`."""
        waiting, self._waiting = self._waiting, {}
        callbacks = []
        for waiters in waiting.values():
            for waiter in waiters:
                if isinstance(waiter, Waiter):
                    waiter.give_up()
                else:
                    callbacks.append(waiter)
        return callbacks

    def ready(self, object_id: ObjectId, failed: bool) -> list[Callable[[], None]]:
        """Tell the waiters; the callbacks are returned, to be called without the lock."""
        callbacks = []
        for waiter in self._waiting.pop(object_id, ()):
            if isinstance(waiter, Waiter):
                waiter.tell(failed)
            else:
                callbacks.append(waiter)
        return callbacks
