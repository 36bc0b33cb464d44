"""References that stand for placement groups which are being placed: `group.ready()`. Pure.

The process that asks owns the reference. Its node tells of the group, and the value is there as soon as the group is CREATED.
"""

from __future__ import annotations

from nbray.ids import Address
from nbray.machine import Effect, Send
from nbray.owner.objects import ObjectTable
from nbray.owner.records import GroupAwaited, Notice
from nbray.wire.messages import Failure, GroupUpdate, Value, WatchGroup


class GroupTable:
    """Appends effects to `out`."""

    def __init__(self, me: Address, objects: ObjectTable, out: list[Effect]) -> None:
        self.me = me
        self.objects = objects
        self.out = out
        self.awaited: dict[bytes, list[GroupAwaited]] = {}
        self.made: dict[bytes, str] = {}  #: groups of ours that live, and the state that we were told; "" before that
        self._told: dict[bytes, str] = {}  #: why a group waits, as its person was last told

    def make(self, group: bytes) -> None:
        self.made[group] = ""
        self._watch(group)

    def give_up(self, group: bytes) -> None:
        if group in self.made:
            self.made[group] = "REMOVED"

    def wait(self, event: GroupAwaited) -> None:
        """Of a group of another process only the last word is good: it is asked for anew."""
        obj = self.objects.own(event.object, event.cell, "")
        obj.seen = True  # a group that is removed on purpose is nobody's unhandled error
        self.awaited.setdefault(event.group, []).append(event)
        state = self.made.get(event.group)
        if state == "REMOVED":
            why = "This placement group has been removed. It was removed with remove_placement_group()."
            self._settle(event.group, _removed(event.group, why))
        elif state in ("CREATED", "RESCHEDULING"):
            self._settle(event.group, None)
        elif state != "":  # else the answer is on its way
            self._watch(event.group)

    def _watch(self, group: bytes) -> None:
        self.out.append(Send(Address(self.me.node, self.me.node), WatchGroup(group, self.me)))

    def updated(self, said: GroupUpdate) -> None:
        if said.state == "REMOVED":
            self.made.pop(said.group, None)
        elif self.made.get(said.group, "REMOVED") != "REMOVED":
            self.made[said.group] = said.state
        if said.state == "PENDING":
            awaited = self.awaited.get(said.group)
            if awaited and said.why and self._told.get(said.group) != said.why:
                self._told[said.group] = said.why
                self.out.append(Notice(awaited[0].cell, "waiting", said.why))
            return
        self._told.pop(said.group, None)
        if said.state == "REMOVED":
            self._settle(said.group, _removed(said.group, said.why))
        else:
            self._settle(said.group, None)

    def cluster_gone(self, failure: Failure) -> None:
        for group in list(self.awaited):
            self._settle(group, failure)
        self._told.clear()
        self.made.clear()

    def why(self, object_id: bytes) -> str:
        """Why the group that this reference stands for is not placed; nothing if it stands for none."""
        for group, awaited in self.awaited.items():
            if any(event.object == object_id for event in awaited):
                return self._told.get(group, "")
        return ""

    def why_waits(self, group: bytes) -> str:
        """Why it is not placed, as far as somebody here waits for it."""
        return self._told.get(group, "")

    def _settle(self, group: bytes, failure: Failure | None) -> None:
        for event in self.awaited.pop(group, ()):
            obj = self.objects.objects.get(event.object)
            if obj is not None:
                self.objects.set_value(obj, event.value if failure is None else Value(failure=failure), counted=False)

    def check(self) -> None:
        for awaited in self.awaited.values():
            assert awaited
            for event in awaited:
                obj = self.objects.objects.get(event.object)
                assert obj is None or obj.value is None, "a reference to a group has a value and is waited for"


def _removed(group: bytes, why: str) -> Failure:
    return Failure("TaskPlacementGroupRemoved", message=why, fields={"group": group.hex()})
