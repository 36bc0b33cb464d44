"""The actors that wait for a node, by shape, and the placing of them.

Actors of one shape wait in one line: when its first cannot be placed, the rest cannot either, so a report of a node costs one
comparison per shape, not one per actor. What was placed counts as taken at once (`NodeRecord.hold`), so that a hundred
actors do not all go to the same free CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nbray.head.groups import Groups
from nbray.head.members import Members
from nbray.head.records import ActorRecord, NodeRecord
from nbray.ids import ActorId, NodeId
from nbray.sched.policy import explain
from nbray.wire.messages import PlaceActor, Shape

#: How often the reason for waiting is looked at again.
REMIND_S = 5.0

ShapeKey = tuple[object, ...]


def key_of(shape: Shape) -> ShapeKey:
    """What actors must share to wait in one line. The environment does not matter to placing."""
    selectors = tuple(map(tuple, shape.selectors))
    return tuple(sorted(shape.amounts.items())), shape.strategy, shape.node, shape.soft, shape.group, shape.bundle, selectors


class Placing:
    """The waiting actors, first come first served within a shape."""

    def __init__(
        self, members: Members, groups: Groups, placed: Callable[[ActorRecord], None], told: Callable[[ActorRecord], None]
    ) -> None:
        """`placed` is called when an actor has got a node, `told` when the reason why it waits has changed."""
        self.members = members
        self.groups = groups
        self.lines: dict[ShapeKey, dict[ActorId, ActorRecord]] = {}
        self._placed = placed
        self._told = told
        self._turn = 0
        self._remind_at = 0.0

    def enqueue(self, record: ActorRecord, now: float) -> bool:
        """Place the actor and return True, or let it wait at the end of its line, with the reason in `record.waiting`."""
        line = self.lines.setdefault(key_of(record.spec.placement), {})
        if not line and self._place(record, now):
            self._tidy(record)
            return True
        if not line:
            self._remind_at = max(self._remind_at, now + REMIND_S)
        # Who waits before it in the same line waits for the same reason, which takes a look at every node.
        record.waiting = next(iter(line.values())).waiting if line else self._why(record.spec.placement)
        line[record.actor] = record
        return False

    def remove(self, record: ActorRecord) -> None:
        """The actor waits no longer: it ended."""
        line = self.lines.get(key_of(record.spec.placement))
        if line is not None:
            line.pop(record.actor, None)
            self._tidy(record)

    def retry(self, now: float, room: NodeRecord | None = None) -> None:
        """Place what can be placed; after news of `room` only, if that node could take anything."""
        for key in list(self.lines):
            line = self.lines[key]
            while line:
                record = next(iter(line.values()))
                if room is not None and not room.has_room(record.spec.placement):
                    break
                if not self._place(record, now):
                    break
                del line[record.actor]
            if not line:
                del self.lines[key]

    def remind(self, now: float) -> None:
        """Say again why things wait, where that has changed."""
        if now < self._remind_at:
            return
        self._remind_at = now + REMIND_S
        for line in self.lines.values():
            why = self._why(next(iter(line.values())).spec.placement)
            for record in line.values():
                if record.waiting != why:
                    record.waiting = why
                    self._told(record)

    def stranded(self, node: NodeId) -> list[ActorRecord]:
        """Those that may run on `node` and nowhere else."""
        return [
            record
            for line in self.lines.values()
            for record in line.values()
            if (where := record.spec.placement).strategy == "NODE" and where.node == node and not where.soft
        ]

    def of_group(self, group: bytes) -> list[ActorRecord]:
        """Those that wait for a bundle of that placement group."""
        return [record for line in self.lines.values() for record in line.values() if record.spec.placement.group == group]

    def _why(self, shape: Shape) -> str:
        if shape.group and not self.groups.is_open(shape.group):
            return self.groups.why(shape.group) or "Waits for its placement group, which is being placed."
        return explain(shape, self.members.views())

    def waiting(self) -> Sequence[tuple[ActorRecord, int]]:
        """One actor of each line, and the length of the line."""
        return [(next(iter(line.values())), len(line)) for line in self.lines.values()]

    def next_deadline(self) -> float | None:
        return self._remind_at if self.lines else None

    def _place(self, record: ActorRecord, now: float) -> bool:
        spec = record.spec
        if spec.placement.group and not self.groups.is_open(spec.placement.group):
            return False
        owner = spec.owner.node
        near = [(d.value.location.node, d.value.location.size) for d in spec.dependencies if d.value.location is not None]
        roster = self.members.roster
        node = roster.with_room(spec.placement, roster.get(owner), near, self._turn)
        if node is None:
            return False
        target = self.members.nodes[node]
        self._turn += spec.placement.strategy == "SPREAD" or bool(spec.placement.group)
        target.hold(spec.actor, record.epoch, spec.running, now, spec.placement)
        self.members.room_changed(target, now)
        record.node, record.waiting = node, ""
        record.tell(f"epoch {record.epoch} placed on node {node.hex()}")
        self._placed(record)
        self.members.send(node, PlaceActor(spec, record.epoch))
        return True

    def _tidy(self, record: ActorRecord) -> None:
        key = key_of(record.spec.placement)
        if not self.lines.get(key, True):
            del self.lines[key]

    def check(self) -> None:
        for key, line in self.lines.items():
            assert line, "an empty line is kept"
            for actor, record in line.items():
                assert record.actor == actor
                assert key_of(record.spec.placement) == key
                assert record.node is None, f"{actor.hex()} waits and is placed"
