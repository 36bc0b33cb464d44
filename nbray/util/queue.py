"""Queue: first in, first out, between tasks, actors and drivers. One actor holds the items; the handle goes anywhere.

The actor answers with a word instead of raising, so that `Full` and `Empty` are plain exceptions of the caller.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable, Mapping
from typing import Any

from nbray import api
from nbray.actors import ActorClass, ActorHandle
from nbray.exceptions import ActorDiedError

#: Callers that may wait in one queue at a time: each blocked `put` or `get` is a call under way. The default of async actors,
#: 1,000, would be a deadlock for a thousand consumers and the producer behind them.
WAITING_MOST = 1_000_000
GRACE_S = 5.0


class Empty(queue.Empty):
    """Nothing is in the queue, or not as much as was asked for."""


class Full(queue.Full):
    """There is no room in the queue, or not for as much as was given."""


class Queue:
    """A queue of at most `maxsize` items; 0: no bound. `actor_options` are those of the actor that holds them."""

    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        # No CPU unless asked for: a queue that waited for one could be what those who have it wait for.
        options = {"num_cpus": 0, "max_concurrency": WAITING_MOST, **(actor_options or {})}
        self.actor: ActorHandle | None = ActorClass(_Items, {}).options(**options).remote(maxsize)

    def _actor(self) -> ActorHandle:
        if self.actor is None:
            raise ActorDiedError("this queue was shut down")
        return self.actor

    # -- how much is in it

    def size(self) -> int:
        """How many items are in it now."""
        return int(api.get(self._actor().qsize.remote()))

    def qsize(self) -> int:
        return self.size()

    def __len__(self) -> int:
        return self.size()

    def empty(self) -> bool:
        return self.size() == 0

    def full(self) -> bool:
        return self.maxsize > 0 and self.size() >= self.maxsize

    # -- put

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append `item`; waits for room, up to `timeout` seconds. Raises Full, and ValueError for a negative timeout."""
        _taken(api.get(self._actor().put.remote(item, *_patience(block, timeout))))

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as Ray
        _taken(await self._actor().put.remote(item, *_patience(block, timeout)))

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Append all of `items` in their order, or none. Raises Full."""
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        _taken(api.get(self._actor().put_batch.remote(list(items))))

    # -- get

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The oldest item; waits for one, up to `timeout` seconds. Raises Empty, and ValueError for a negative timeout."""
        return _given(api.get(self._actor().get.remote(*_patience(block, timeout))))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ASYNC109 -- as Ray
        return _given(await self._actor().get.remote(*_patience(block, timeout)))

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """The `num_items` oldest items. Raises Empty, taking none, when there are fewer."""
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        items: list[Any] = _given(api.get(self._actor().get_batch.remote(num_items)))
        return items

    # -- the end

    def shutdown(self, force: bool = False, grace_period_s: float = GRACE_S) -> None:
        """End the actor and drop the items: after the calls that it has, or at once with `force` or after the grace period."""
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            ended, _ = api.wait([actor.__ray_terminate__.remote()], timeout=grace_period_s)
            if ended:
                return
        api.kill(actor)


def _patience(block: bool, timeout: float | None) -> tuple[float | None]:
    """Seconds to wait, as the actor takes them: None for ever, 0 not at all."""
    if not block:
        return (0,)
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return (timeout,)


def _taken(refusal: str | None) -> None:
    if refusal is not None:
        raise Full(refusal) if refusal else Full


def _given(answer: tuple[Any, str | None]) -> Any:
    found, refusal = answer
    if refusal is not None:
        raise Empty(refusal) if refusal else Empty
    return found


class _Items:
    """The actor. Every method is a coroutine, so all of them run on its loop and none needs a lock."""

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def qsize(self) -> int:
        return self._queue.qsize()

    async def put(self, item: Any, patience_s: float | None) -> str | None:
        """None, or why not."""
        try:
            if patience_s == 0:
                self._queue.put_nowait(item)
            else:
                await asyncio.wait_for(self._queue.put(item), patience_s)
        except (asyncio.QueueFull, TimeoutError):
            return ""
        return None

    async def get(self, patience_s: float | None) -> tuple[Any, str | None]:
        """(item, None), or (None, why not)."""
        try:
            if patience_s == 0:
                return self._queue.get_nowait(), None
            return await asyncio.wait_for(self._queue.get(), patience_s), None
        except (asyncio.QueueEmpty, TimeoutError):
            return None, ""

    async def put_batch(self, items: list[Any]) -> str | None:
        have, most = self._queue.qsize(), self._queue.maxsize
        if most > 0 and have + len(items) > most:
            return f"Cannot add {len(items)} items to queue of size {have} and maxsize {most}."
        for item in items:
            self._queue.put_nowait(item)
        return None

    async def get_batch(self, number: int) -> tuple[list[Any], str | None]:
        have = self._queue.qsize()
        if number > have:
            return [], f"Cannot get {number} items from queue of size {have}."
        return [self._queue.get_nowait() for _ in range(number)], None
