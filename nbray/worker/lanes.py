"""Where the calls of one concurrency group run: in threads that the group keeps, or on an event loop of its own.

A group that blocks its thread or its loop blocks nobody else. Methods of a group find their thread-locals again, because its
threads stay for as long as the actor lives. Nothing is started before a group's first call.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from nbray.ids import TaskId
from nbray.wire.messages import PushCall


class Lane(Protocol):
    """Runs what it is given; how many at once is decided elsewhere (groups.py)."""

    def begin(self, push: PushCall) -> None:
        """From any thread; returns at once."""

    def cancel(self, task: TaskId) -> None:
        """Raise CancelledError in it, where that is possible."""

    def ends_in_company(self) -> bool:
        """Whether the report of the call that ends now may wait for others: then they all leave soon."""


class Threads:
    """Up to `size` threads.

    A call wakes one of them, or starts it; a thread that takes a call wakes the next if there is more to take. So short calls
    are run one after another by whoever is awake, and nobody waits behind a call that blocks.
    """

    def __init__(self, size: int, run: Callable[[PushCall], None]) -> None:
        self._size, self._run = size, run
        self._lock = threading.Lock()
        self._calls: deque[PushCall] = deque()
        self._threads = self._asleep = 0
        self._waking = False  #: one has been woken, and has not got there yet
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def begin(self, push: PushCall) -> None:
        self._calls.append(push)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._waking or not self._calls:
                return
            if self._asleep:
                self._asleep -= 1
                self._bell.put(None)
            elif self._threads < self._size:
                threading.Thread(target=self._serve, name=f"nbray-call_{self._threads}", daemon=True).start()
                self._threads += 1
            else:
                return
            self._waking = True

    def _serve(self) -> None:
        awake = False
        while True:
            with self._lock:
                if not awake:
                    awake, self._waking = True, False
                push = self._calls.popleft() if self._calls else None
                self._asleep += push is None
            if push is None:
                self._bell.get()
                awake = False
                continue
            self._wake()
            try:
                contextvars.Context().run(self._run, push)
            except BaseException:  # noqa: BLE001 -- a bug of ours: the calls that follow are not to pay for it
                traceback.print_exc()

    def cancel(self, task: TaskId) -> None:
        """A thread cannot be interrupted: the method may look at `is_canceled()`."""

    def ends_in_company(self) -> bool:
        return False  # who reports knows which call follows


class Loop:
    """An asyncio loop. `serve` runs it in the calling thread; without that, its first call starts a thread for it."""

    def __init__(
        self, name: str, run: Callable[[PushCall], Coroutine[Any, Any, None]], flush: Callable[[], None], *, own_thread: bool
    ) -> None:
        """`flush` lets leave what has waited for company."""
        self._name, self._run, self._flush, self._waits_for_thread = name, run, flush, own_thread
        self._loop: asyncio.AbstractEventLoop  # costs three descriptors: not before it is needed
        if not own_thread:
            self._loop = asyncio.new_event_loop()
        self._starting = threading.Lock()
        self._arrived: deque[PushCall] = deque()
        self._called = False  #: the loop will look at what has arrived
        self._flushes = False  #: at the end of this turn
        self._tasks: dict[TaskId, asyncio.Task[None]] = {}
        self._kinds: dict[tuple[str, int], int] = {}  #: how many of a method and attempt are under way

    def serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def finish(self, rest: Awaitable[object]) -> None:
        """Run `rest` to its end on the loop, which has stopped."""
        self._loop.run_until_complete(_awaited(rest))

    def begin(self, push: PushCall) -> None:
        if self._waits_for_thread:
            self._start_thread()
        self._arrived.append(push)
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._start)

    def _start_thread(self) -> None:
        with self._starting:
            if self._waits_for_thread:
                self._loop = asyncio.new_event_loop()
                self._waits_for_thread = False
                threading.Thread(target=self.serve, name=f"nbray-loop-{self._name}", daemon=True).start()

    def _start(self) -> None:
        """All that have arrived: waking the loop costs more than a call does."""
        self._called = False  # before looking: what arrives from now on calls again
        while self._arrived:
            push = self._arrived.popleft()
            kind = push.method, push.attempt
            self._kinds[kind] = self._kinds.get(kind, 0) + 1
            self._tasks[push.task] = self._loop.create_task(self._live(push, kind), context=contextvars.Context())

    async def _live(self, push: PushCall, kind: tuple[str, int]) -> None:
        try:
            await self._run(push)
        finally:
            del self._tasks[push.task]
            left = self._kinds[kind] = self._kinds[kind] - 1
            if not left:
                del self._kinds[kind]

    def ends_in_company(self) -> bool:
        """Others end in this turn of the loop, perhaps: their reports leave together at its end. Not beside calls of another kind,
        or of a second attempt: one that takes the process down would take finished ones with it."""
        if len(self._tasks) < 2 or len(self._kinds) > 1 or next(iter(self._kinds))[1]:
            return False
        if not self._flushes:
            self._flushes = True
            self._loop.call_soon(self._end_turn)
        return True

    def _end_turn(self) -> None:
        self._flushes = False
        self._flush()

    def cancel(self, task: TaskId) -> None:
        """CancelledError inside, at its next `await`."""
        found = self._tasks.get(task)
        if found is not None:
            self._loop.call_soon_threadsafe(found.cancel)


async def _awaited(awaitable: Awaitable[object]) -> None:
    await awaitable
