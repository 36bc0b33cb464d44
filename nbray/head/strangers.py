"""Actors that others speak of before their owner has registered them.

A handle exists as soon as `.remote()` returns, but its owner registers the actor only when the arguments have values; and
words of different processes race. So an unknown actor is not a dead one: its watchers wait.
"""

from __future__ import annotations

from nbray.config import HEAD_GRACE_S
from nbray.head import obituary
from nbray.head.records import DEAD
from nbray.ids import ActorId, Address, ProcessId, owner_of, short
from nbray.machine import Effect, Send
from nbray.wire.messages import ActorUpdate, KillActor


class Stranger:
    """Who waits for one such actor, and whether it was killed before it was known."""

    __slots__ = ("kill", "since", "watchers")

    def __init__(self, now: float) -> None:
        self.since = now
        self.watchers: dict[Address, None] = {}
        self.kill: KillActor | None = None


class Strangers:
    """All of them, oldest first."""

    def __init__(self, out: list[Effect]) -> None:
        self.out = out
        self.waiting: dict[ActorId, Stranger] = {}

    def watch(self, actor: ActorId, watcher: Address, now: float) -> None:
        self._of(actor, now).watchers[watcher] = None

    def kill(self, event: KillActor, now: float) -> None:
        self._of(event.actor, now).kill = event

    def introduce(self, actor: ActorId) -> Stranger | None:
        """The actor is registered: hand over what waited for it."""
        return self.waiting.pop(actor, None)

    def owner_died(self, owner: ProcessId, reason: str) -> None:
        for actor in [actor for actor in self.waiting if owner_of(actor) == owner]:
            self._give_up(actor, f"its owner has died before it was created: process {short(owner)} {reason}")

    def expire(self, drivers: set[ProcessId], now: float) -> None:
        """Give up on those that nobody registers, except while their owner is a driver that lives: arguments may take days."""
        for actor, stranger in list(self.waiting.items()):
            if now - stranger.since >= HEAD_GRACE_S and owner_of(actor) not in drivers:
                self._give_up(actor, f"nobody registered it within {HEAD_GRACE_S:.0f} s")

    def next_deadline(self, now: float) -> float | None:
        if not self.waiting:
            return None
        return max(next(iter(self.waiting.values())).since + HEAD_GRACE_S, now + HEAD_GRACE_S / 10)

    def _of(self, actor: ActorId, now: float) -> Stranger:
        return self.waiting.setdefault(actor, Stranger(now))

    def _give_up(self, actor: ActorId, reason: str) -> None:
        update = ActorUpdate(actor, DEAD, 0, failure=obituary.unknown(actor, reason))
        self.out += [Send(watcher, update) for watcher in self.waiting.pop(actor).watchers]
