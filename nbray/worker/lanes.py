"""Where the calls of one concurrency group run: in threads that the group keeps, or on an event loop of its own.

A group that blocks its thread or its loop blocks nobody else. Methods of a group find their thread-locals again, because its
threads stay for as long as the actor lives. Nothing is started before a group's first call.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from nbray.ids import TaskId
from nbray.wire.messages import PushCall


class Lane(Protocol):
    """Runs what it is given; how many at once is decided elsewhere (groups.py)."""

    def begin(self, push: PushCall) -> None:
        """From any thread; returns at once."""

    def cancel(self, task: TaskId) -> None:
        """Raise CancelledError in it, where that is possible."""


class Threads:
    """Up to `size` threads."""

    def __init__(self, size: int, run: Callable[[PushCall], None]) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="nbray-call")
        self._run = run

    def begin(self, push: PushCall) -> None:
        self._pool.submit(contextvars.copy_context().run, self._run, push)

    def cancel(self, task: TaskId) -> None:
        """A thread cannot be interrupted: the method may look at `is_canceled()`."""


class Loop:
    """An asyncio loop. `serve` runs it in the calling thread; without that, its first call starts a thread for it."""

    def __init__(self, name: str, run: Callable[[PushCall], Coroutine[Any, Any, None]], *, own_thread: bool) -> None:
        self._name, self._run, self._waits_for_thread = name, run, own_thread
        self._loop: asyncio.AbstractEventLoop  # costs three descriptors: not before it is needed
        if not own_thread:
            self._loop = asyncio.new_event_loop()
        self._starting = threading.Lock()
        self._tasks: dict[TaskId, asyncio.Task[None]] = {}

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
        self._loop.call_soon_threadsafe(self._start, push)

    def _start_thread(self) -> None:
        with self._starting:
            if self._waits_for_thread:
                self._loop = asyncio.new_event_loop()
                self._waits_for_thread = False
                threading.Thread(target=self.serve, name=f"nbray-loop-{self._name}", daemon=True).start()

    def _start(self, push: PushCall) -> None:
        task = self._loop.create_task(self._run(push), context=contextvars.copy_context())
        self._tasks[push.task] = task
        task.add_done_callback(lambda _t: self._tasks.pop(push.task, None))

    def cancel(self, task: TaskId) -> None:
        """CancelledError inside, at its next `await`."""
        found = self._tasks.get(task)
        if found is not None:
            self._loop.call_soon_threadsafe(found.cancel)


async def _awaited(awaitable: Awaitable[object]) -> None:
    await awaitable
