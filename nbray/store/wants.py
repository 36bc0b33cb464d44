"""Who wants bytes that this node does not have, though a process of it may be about to seal them: for the ledger. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, KeysView

import msgspec

from nbray.ids import ObjectId
from nbray.wire.messages import FetchObject, PullObject

Want = FetchObject | PullObject  #: a process of this node, or another node, wants an object's bytes


class Awaited(msgspec.Struct):
    """`deadline` is finite when the seal is unlikely to come."""

    want: Want
    deadline: float


class Unsealed:
    """Wants by object, until its seal comes or cannot come any more."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[ObjectId, list[Awaited]] = {}

    def add(self, want: Want, deadline: float) -> None:
        self._of.setdefault(want.object, []).append(Awaited(want, deadline))

    def take(self, object_: ObjectId) -> list[Want]:
        """All who want this object, who are no longer here then."""
        return [item.want for item in self._of.pop(object_, [])]

    def take_where(self, which: Callable[[Want], bool]) -> list[Want]:
        return self._take(lambda item: which(item.want))

    def take_late(self, now: float) -> list[Want]:
        return self._take(lambda item: item.deadline <= now)

    def objects(self) -> KeysView[ObjectId]:
        return self._of.keys()

    def wants(self) -> list[Want]:
        return [item.want for items in self._of.values() for item in items]

    def next_deadline(self) -> float:
        """math.inf for none."""
        return min((item.deadline for items in self._of.values() for item in items), default=math.inf)

    def _take(self, which: Callable[[Awaited], bool]) -> list[Want]:
        taken: list[Want] = []
        for object_, items in list(self._of.items()):
            kept = [item for item in items if not which(item)]
            if len(kept) < len(items):
                taken += [item.want for item in items if which(item)]
                if kept:
                    self._of[object_] = kept
                else:
                    del self._of[object_]
        return taken
