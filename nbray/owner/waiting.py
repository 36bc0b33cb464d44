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
    """Waits for `count` of several objects. Told and left under the runtime's lock; waited on without it."""

    __slots__ = ("_eager", "_gate", "enlisted", "failed", "missing")

    def __init__(self, count: int, eager: bool) -> None:
        """`eager`: the first failure ends the wait."""
        self._eager = eager
        self.missing = count
        self.failed = False
        self.enlisted = 0  #: objects of which it is still to be told
        self._gate = threading.Lock()
        self._gate.acquire()

    def tell(self, failed: bool) -> None:
        """One object is ready."""
        self.missing -= 1
        self.failed = self.failed or (failed and self._eager)
        if (self.missing == 0 or self.failed) and self._gate.locked():
            self._gate.release()

    @property
    def over(self) -> bool:
        """Whether it has been told enough."""
        return self.missing <= 0 or self.failed

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


Who = Waiter | Callable[[], None]


class WaitList:
    """Who waits for which object. Under the runtime's lock."""

    def __init__(self) -> None:
        # Nearly always it is one: a list for each of a million objects would be a million more for the garbage collector.
        self._waiting: dict[ObjectId, Who | list[Who]] = {}

    def add(self, object_id: ObjectId, waiter: Who) -> None:
        known = self._waiting.get(object_id)
        if known is None:
            self._waiting[object_id] = waiter
        elif isinstance(known, list):
            known.append(waiter)
        else:
            self._waiting[object_id] = [known, waiter]

    def remove(self, object_ids: Iterable[ObjectId], waiter: Waiter) -> None:
        """A wait that ended before all of them were ready is forgotten."""
        for object_id in object_ids:
            known = self._waiting.get(object_id)
            if known is waiter:
                del self._waiting[object_id]
            elif isinstance(known, list) and waiter in known:
                known.remove(waiter)
                if not known:
                    del self._waiting[object_id]

    def abandon(self) -> list[Callable[[], None]]:
        """Nothing becomes ready any more: the waits end. The callbacks are returned, as in `ready`."""
        waiting, self._waiting = self._waiting, {}
        callbacks = []
        for known in waiting.values():
            for waiter in known if isinstance(known, list) else (known,):
                if isinstance(waiter, Waiter):
                    waiter.give_up()
                else:
                    callbacks.append(waiter)
        return callbacks

    def ready(self, object_id: ObjectId, failed: bool) -> list[Callable[[], None]]:
        """Tell the waiters; the callbacks are returned, to be called without the lock."""
        known = self._waiting.pop(object_id, None)
        if known is None:
            return []
        callbacks = []
        for waiter in known if isinstance(known, list) else (known,):
            if isinstance(waiter, Waiter):
                waiter.enlisted -= 1
                waiter.tell(failed)
            else:
                callbacks.append(waiter)
        return callbacks
