"""References that stand for placement groups which are being placed: `group.ready()`. Pure.

The process that asks owns the reference, and its value is there as soon as the group is CREATED. Of its own groups a process is
told by the head, without asking; of others' by its node, when it asks.
"""

from __future__ import annotations

from nbray.ids import Address
from nbray.machine import Effect, Send
from nbray.owner.objects import ObjectTable
from nbray.owner.records import GroupAwaited, Notice
from nbray.wire.messages import CreateGroup, Failure, GroupUpdate, RemoveGroup, Value, WatchGroup

#: States of a group in which what runs in it can begin.
PLACED = ("CREATED", "RESCHEDULING")
#: Groups that this process removed and remembers: when as many more are gone, its node has long heard of the first.
REMOVED_KEPT = 1000
GIVEN_UP = "This placement group has been removed. It was removed with remove_placement_group()."


class GroupTable:
    """Appends effects to `out`."""

    def __init__(self, me: Address, objects: ObjectTable, out: list[Effect]) -> None:
        self.me = me
        self.objects = objects
        self.out = out
        self.awaited: dict[bytes, list[GroupAwaited]] = {}
        self.made: dict[bytes, str] = {}  #: groups of ours that live, and the state that we were told; "" before that
        self._removed: dict[bytes, None] = {}  #: groups that we removed, the oldest first
        self._why: dict[bytes, str] = {}  #: why a group waits, of ours and of those that are awaited
        self._told: dict[bytes, str] = {}  #: what of that its person was last told

    def make(self, create: CreateGroup, head: Address) -> None:
        self.made[create.spec.group] = ""
        self.out.append(Send(head, create, soon=True))

    def give_up(self, group: bytes, head: Address) -> None:
        """It is gone from now on for who asks here. The head need not say so, and what it has said before means nothing."""
        self.out.append(Send(head, RemoveGroup(group, self.me.process), soon=True))
        self._removed[group] = None
        if len(self._removed) > REMOVED_KEPT:
            del self._removed[next(iter(self._removed))]
        self._forget(group, GIVEN_UP)

    def wait(self, event: GroupAwaited) -> None:
        """Of a group of another process only the last word is good: it is asked for anew."""
        obj = self.objects.own(event.object, event.cell, "")
        obj.seen = True  # a group that is removed on purpose is nobody's unhandled error
        self.awaited.setdefault(event.group, []).append(event)
        state = self.made.get(event.group)
        if event.group in self._removed:
            self._forget(event.group, GIVEN_UP)
        elif state is None:
            self.out.append(Send(Address(self.me.node, self.me.node), WatchGroup(event.group, self.me)))
        elif state in PLACED:
            self._settle(event.group, None)
        else:  # the head tells of it
            self._tell(event.group)

    def state(self, group: bytes) -> str | None:
        """As far as we were told: "" before the first word of a group of ours, None for one of others. From any thread."""
        return "REMOVED" if group in self._removed else self.made.get(group)

    def updated(self, said: GroupUpdate) -> None:
        if said.group in self._removed:
            return
        if said.state != "REMOVED" and said.group in self.made:
            self.made[said.group] = said.state
        if said.state == "REMOVED":
            self._forget(said.group, said.why)
        elif said.state in PLACED:
            self._why.pop(said.group, None)
            self._told.pop(said.group, None)
            self._settle(said.group, None)
        elif said.group in self.made or said.group in self.awaited:
            self._why[said.group] = said.why
            self._tell(said.group)

    def _tell(self, group: bytes) -> None:
        """Whoever waits for the group is told why, once."""
        why, awaited = self._why.get(group), self.awaited.get(group)
        if awaited and why and self._told.get(group) != why:
            self._told[group] = why
            self.out.append(Notice(awaited[0].cell, "waiting", why))

    def _forget(self, group: bytes, why: str) -> None:
        """It is removed."""
        for known in (self.made, self._why, self._told):
            known.pop(group, None)
        self._settle(group, _removed(group, why))

    def cluster_gone(self, failure: Failure) -> None:
        for group in list(self.awaited):
            self._settle(group, failure)
        for known in (self.made, self._why, self._told):
            known.clear()

    def why_pending(self, object_id: bytes) -> str:
        """Why the group that this reference stands for is not placed; nothing if it stands for none."""
        for group, awaited in self.awaited.items():
            if any(event.object == object_id for event in awaited):
                return self.why(group)
        return ""

    def why(self, group: bytes) -> str:
        """Why it is not there, as far as that is known here."""
        return GIVEN_UP if group in self._removed else self._why.get(group, "")

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
