"""Who watches what, and one reader for all who watch the same cluster. On the server's loop; reading happens in threads.

    watcher --join, choose, leave--> Watch --one reader per cluster, while it has watchers--> Clusters.snapshot, in a thread
            <--offer: a whole snapshot, at most 1/PERIOD_S times a second--

A snapshot says everything, so a watcher that is slow misses some and no harm is done: nothing is ever queued for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

PERIOD_S = 0.5
#: Of the time, what reading may take: a cluster that is slow to tell is asked less often.
SHARE = 0.25
#: Of one message. What a snapshot holds is bounded part by part, so this is a wall that nothing should reach.
MOST_BYTES = 4 * 2**20
MOST_WATCHERS = 64

Snapshot = dict[str, Any]
Read = Callable[[str, tuple[str, ...]], Awaitable[Snapshot]]  #: cluster, views -> Clusters.snapshot


class Watcher(Protocol):
    def offer(self, message: str) -> None:
        """Send it, or drop it if an earlier one is still on its way."""


class Full(Exception):
    """There are too many watchers already."""


class Watch:
    """All watchers of one server."""

    def __init__(self, read: Read, period_s: float = PERIOD_S) -> None:
        self._read = read
        self._period_s = period_s
        self._watchers: dict[Watcher, tuple[str, tuple[str, ...]]] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._wanted: dict[str, asyncio.Event] = {}

    def join(self, watcher: Watcher) -> None:
        """Raises Full."""
        if len(self._watchers) >= MOST_WATCHERS:
            raise Full(f"{MOST_WATCHERS} pages watch already; close some")
        self.choose(watcher, "", ())

    def choose(self, watcher: Watcher, cluster: str, views: tuple[str, ...]) -> None:
        """From now on `watcher` sees these views of this cluster; the first snapshot is read at once."""
        self._watchers[watcher] = (cluster, views)
        self._wanted.setdefault(cluster, asyncio.Event()).set()
        if cluster not in self._readers:
            self._readers[cluster] = asyncio.get_running_loop().create_task(self._serve(cluster))

    def leave(self, watcher: Watcher) -> None:
        self._watchers.pop(watcher, None)

    def close(self) -> None:
        self._watchers.clear()
        for reader in self._readers.values():
            reader.cancel()
        self._readers.clear()

    @property
    def readers(self) -> int:
        return len(self._readers)

    async def _serve(self, cluster: str) -> None:
        loop, wanted = asyncio.get_running_loop(), self._wanted[cluster]
        try:
            while views := self._views_of(cluster):
                wanted.clear()
                began = loop.time()
                snapshot = await self._read(cluster, tuple(sorted(set().union(*views))))
                took = loop.time() - began
                self._tell(cluster, snapshot)
                try:
                    await asyncio.wait_for(wanted.wait(), max(self._period_s, took * (1 / SHARE - 1)))
                except TimeoutError:
                    continue
        finally:
            if self._readers.get(cluster) is asyncio.current_task():
                del self._readers[cluster], self._wanted[cluster]

    def _views_of(self, cluster: str) -> list[tuple[str, ...]]:
        return [views for watched, views in self._watchers.values() if watched == cluster]

    def _tell(self, cluster: str, snapshot: Snapshot) -> None:
        made: dict[tuple[str, ...], str] = {}
        for watcher, (watched, views) in list(self._watchers.items()):
            if watched != cluster:
                continue
            if views not in made:
                made[views] = message(snapshot, views)
            watcher.offer(made[views])


def message(snapshot: Snapshot, views: tuple[str, ...]) -> str:
    """What a watcher of `views` is sent of a snapshot that has those and others."""
    told = {**snapshot, "views": {view: snapshot["views"][view] for view in views if view in snapshot["views"]}}
    text = json.dumps(told, separators=(",", ":"))
    if len(text) > MOST_BYTES:
        text = json.dumps({**told, "views": {}, "problem": f"there is too much to show: {len(text):,} bytes"})
    return text
