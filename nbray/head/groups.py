"""The placement groups: where their bundles are, and who is told.

    PENDING --a place for every bundle--> (reserving) --every node has set its part aside--> CREATED
       ^----------------- one node refused: all give back, another try -----'          |  a node died
                                                                                       v
    REMOVED, for ever  <-- removed, its job ended ---- from everywhere ---------- RESCHEDULING --> CREATED ...

Bundles are sought for all at once and reserved on all nodes before any is used: the word that the group is CREATED is what
opens them, so a group that gets only a part of what it asked for never runs anything. Each try has a `round`, and answers of
another are late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container

import msgspec

from nbray.head.members import Members
from nbray.head.records import Persist
from nbray.ids import Address, NodeId, ProcessId, short
from nbray.machine import Effect, Send
from nbray.sched.bundles import Places, explain, feasible, place
from nbray.sched.resources import give
from nbray.wire.messages import (
    Amounts,
    Answer,
    BundleInfo,
    BundlesRefused,
    BundlesReserved,
    CreateGroup,
    GroupSpec,
    GroupUpdate,
    ReleaseBundles,
    RemoveGroup,
    ReserveBundles,
    WatchGroup,
)

PENDING, CREATED, RESCHEDULING, REMOVED = "PENDING", "CREATED", "RESCHEDULING", "REMOVED"
#: Removed groups kept, for the listing and to tell late askers.
REMOVED_KEPT = 1000
#: A group that only waits for others to end says so after this long; one that no node could ever hold at once.
TOLD_S = 1.0
#: How often the reason for waiting is looked at again.
REMIND_S = 5.0
TABLE = "groups"
#: Nodes among which a place is sought first, and two for each bundle; all of them only if these have none.
SEARCHED = 64
#: A search among all nodes that has failed is not repeated for so long per node; not at all in a small cluster.
RETRY_S_PER_NODE = 1e-4


class GroupLife(msgspec.Struct, frozen=True, array_like=True):
    """A group as the journal keeps it. `places[i]` is empty while bundle i has none."""

    spec: GroupSpec
    state: str
    places: list[bytes]
    round: int
    orphan: bool = False


class GroupRecord:
    """One group. `reserving` are the places of the try that is under way, `unanswered` the nodes that have not answered yet."""

    __slots__ = ("look_at", "orphan", "places", "reserving", "round", "spec", "state", "unanswered", "watchers", "why")

    def __init__(self, spec: GroupSpec) -> None:
        self.spec = spec
        self.state = PENDING
        self.round = 0
        self.places: Places = {}  #: of the bundles that are reserved and belong to the group for good
        self.reserving: Places = {}
        self.unanswered: set[NodeId] = set()
        self.watchers: dict[Address, None] = {}
        self.why = ""  #: why it waits, or was removed
        self.look_at: float | None = None  #: when to look again why it waits
        self.orphan = False  #: its job is gone; it lives as long as the actor that made it

    @property
    def waits(self) -> bool:
        return self.state in (PENDING, RESCHEDULING) and not self.reserving

    def update(self) -> GroupUpdate:
        spec = self.spec
        places = [self.places.get(index, b"") for index in range(len(spec.bundles))]
        return GroupUpdate(spec.group, self.state, places, spec.bundles, self.why)

    def life(self) -> GroupLife:
        places = [self.places.get(index, b"") for index in range(len(self.spec.bundles))]
        return GroupLife(self.spec, self.state, places, self.round, self.orphan)


class Groups:
    """Every placement group of the cluster. `opened` is called when a group's bundles can be used, `removed` when it is gone."""

    def __init__(self, members: Members, late: Counter[str], out: list[Effect]) -> None:
        self.members = members
        self.late = late
        self.out = out
        self.live: dict[bytes, GroupRecord] = {}
        self.removed: dict[bytes, GroupRecord] = {}  #: the oldest removal first
        self.waiting: dict[bytes, GroupRecord] = {}  #: those of them that have no place, and are not being given one
        self.names: dict[tuple[str, str], bytes] = {}
        self._tried_at = float("-inf")  #: when a place was last sought for those that wait
        self._again_at: float | None = None  #: when it is sought again, if it is
        self.on_removed: Callable[[GroupRecord, float], None] = lambda _record, _now: None  #: before its bundles are released

    # -- what people ask for

    def create(self, event: CreateGroup, owner_gone: str, orphan: bool, now: float) -> None:
        """A new group. `owner_gone` says how its owner ended, if it has; `orphan`: its job has, and not its owner."""
        spec = event.spec
        key = spec.namespace, spec.name
        if spec.name and key in self.names:
            taken = (
                f"Failed to create placement group '{spec.group.hex()}' because name '{spec.name}' already exists. Please use a "
                f"different name, or take the group that has it: get_placement_group({spec.name!r})."
            )
            self.out.append(Send(spec.owner, Answer(event.request, error=taken)))
            return
        if spec.name:
            self.out.append(Send(spec.owner, Answer(event.request)))
        if spec.group not in self.live and spec.group not in self.removed:  # else it is said again, to a head that was restarted
            record = self.live[spec.group] = GroupRecord(spec)
            record.watchers[spec.owner] = None
            record.orphan = orphan and not spec.detached
            if spec.name:
                self.names[key] = spec.group
            self._save(record)
            if owner_gone and not spec.detached:
                self._remove(record, f"The process that created it {owner_gone}.", now)
            else:
                self._try(record, now)

    def remove(self, event: RemoveGroup, now: float) -> None:
        record = self.live.get(event.group)
        if record is None:
            self.late["RemoveGroup"] += 1
        else:
            if event.by == record.spec.owner.process:
                record.watchers.pop(record.spec.owner, None)
            self._remove(record, "It was removed with remove_placement_group().", now)

    def watch(self, event: WatchGroup) -> None:
        record = self.live.get(event.group)
        if record is not None:
            record.watchers[event.watcher] = None
            self.out.append(Send(event.watcher, record.update()))
        elif event.group in self.removed:
            self.out.append(Send(event.watcher, self.removed[event.group].update()))
        else:
            why = f"This cluster has no placement group {short(event.group)}, and if it had one that is long ago."
            self.out.append(Send(event.watcher, GroupUpdate(event.group, REMOVED, why=why)))

    # -- placing

    def retry(self, now: float) -> None:
        """Look for a place for every group that has none, the oldest first."""
        if not self.waiting:
            return
        nodes = len(self.members.nodes)
        due = self._tried_at + (nodes * RETRY_S_PER_NODE if nodes > SEARCHED else 0.0)
        if now < due:
            self._again_at = due
            return
        self._tried_at, self._again_at = now, None
        failed: list[tuple[list[Amounts], str, object]] = []
        for record in list(self.waiting.values()):
            if record.waits:
                kind = (record.spec.bundles, record.spec.strategy, record.spec.selectors)
                # Groups alike in all that matters cannot do what the first of them could not.
                if record.places or kind not in failed:
                    self._try(record, now)
                    if record.waits and not record.places:
                        failed.append(kind)

    def _try(self, record: GroupRecord, now: float) -> None:
        spec = record.spec
        found = self._place(record)
        if found is None:
            self._wait(record, now)
            return
        self.waiting.pop(spec.group, None)
        record.round += 1
        record.reserving = found
        by_node: dict[NodeId, list[tuple[int, Amounts]]] = {}
        for index, node in sorted(found.items()):
            by_node.setdefault(node, []).append((index, spec.bundles[index]))
        record.unanswered = set(by_node)
        for node, bundles in by_node.items():
            target = self.members.nodes[node]
            # One message, one placement: the node counts it once.
            together: Amounts = {}
            for _, amounts in bundles:
                give(together, amounts)
            target.hold(spec.group, record.round, together, now)
            self.members.room_changed(target, now)
            self.members.send(node, ReserveBundles(spec.group, record.round, bundles))

    def _place(self, record: GroupRecord) -> Places | None:
        spec, nodes = record.spec, self.members.nodes
        if len(nodes) > SEARCHED:
            likely = self.members.roster.likely(spec.bundles, max(SEARCHED, 2 * len(spec.bundles)))
            known = {info.node for info in likely}
            concerned = dict.fromkeys((*record.places.values(), spec.target or b""))
            likely += [nodes[node].view() for node in concerned if node in nodes and node not in known]
            found = place(spec, [info for info in likely if not nodes[info.node].full], record.places)
            if found is not None:
                return found
        return place(spec, self.members.open_views(), record.places)

    def _wait(self, record: GroupRecord, now: float) -> None:
        self.waiting[record.spec.group] = record
        if record.look_at is None:
            record.look_at = now + TOLD_S
            if not feasible(record.spec, self.members.views(), record.places):
                self._explain(record)

    def _explain(self, record: GroupRecord) -> None:
        why = f"Placement group {called(record.spec)} waits. {explain(record.spec, self.members.views(), record.places)}"
        if why != record.why:
            record.why = why
            self._tell(record)

    def remind(self, now: float) -> None:
        """Say why groups wait, where that has changed."""
        for record in self.waiting.values():
            if record.look_at is not None and now >= record.look_at:
                record.look_at = now + REMIND_S
                self._explain(record)
        if self._again_at is not None and now >= self._again_at:
            self.retry(now)

    def next_deadline(self) -> float | None:
        if not self.waiting:
            return None
        times = [record.look_at for record in self.waiting.values() if record.look_at is not None]
        if self._again_at is not None:
            times.append(self._again_at)
        return min(times, default=None)

    # -- what nodes answer

    def reserved(self, event: BundlesReserved, now: float) -> None:
        record = self._current(event)
        node = self.members.nodes.get(event.node)
        if node is not None and (hold := node.holds.get((event.group, event.round))) is not None:
            hold.started = True
        if record is None:
            return  # it was told to release them
        record.unanswered.discard(event.node)
        if not record.unanswered:
            self._created(record, now)

    def refused(self, event: BundlesRefused, now: float) -> None:
        """One node had no room after all: nobody keeps anything of this try. That node gets nothing more until it has reported."""
        node = self.members.nodes.get(event.node)
        if node is not None:
            node.release(event.group, event.round)
            node.full = True
            self.members.room_changed(node, now)
        record = self._current(event)
        if record is not None:
            self._give_up(record, f"node {short(event.node)} had no room", now, but=event.node)
            self._try(record, now)

    def _current(self, event: BundlesReserved | BundlesRefused) -> GroupRecord | None:
        record = self.live.get(event.group)
        if record is None or record.round != event.round or event.node not in record.unanswered:
            self.late[type(event).__name__] += 1
            return None
        return record

    def _created(self, record: GroupRecord, now: float) -> None:
        spec = record.spec
        made: dict[NodeId, list[BundleInfo]] = {}
        for index, node in record.reserving.items():
            made.setdefault(node, []).append(BundleInfo(spec.group, index, spec.bundles[index], spec.bundles[index]))
        for node, bundles in made.items():
            # Its next heartbeat will say so; the actors that wait for the group do not wait for that.
            self.members.nodes[node].add_bundles(spec.group, record.round, bundles)
        record.places |= record.reserving
        record.reserving = {}
        record.state, record.why, record.look_at = CREATED, "", None
        for node in dict.fromkeys(record.places.values()):
            record.watchers[Address(node, node)] = None
            self.members.room_changed(self.members.nodes[node], now)
        self._publish(record)

    def _give_up(self, record: GroupRecord, reason: str, now: float, but: NodeId | None = None) -> None:
        """Take back what the present try has reserved."""
        by_node: dict[NodeId, list[int]] = {}
        for index, node in record.reserving.items():
            by_node.setdefault(node, []).append(index)
        record.reserving, record.unanswered = {}, set()
        for node, indexes in by_node.items():
            target = self.members.nodes.get(node)
            if target is not None and node != but:
                target.release(record.spec.group, record.round)
                self.members.send(node, ReleaseBundles(record.spec.group, indexes, reason))
                self.members.room_changed(target, now)

    # -- ends

    def _remove(self, record: GroupRecord, why: str, now: float) -> None:
        spec = record.spec
        record.why = f"Placement group {called(spec)} has been removed. {why}"
        del self.live[spec.group]
        self.waiting.pop(spec.group, None)
        if self.names.get((spec.namespace, spec.name)) == spec.group:
            del self.names[spec.namespace, spec.name]
        record.state = REMOVED
        self.removed[spec.group] = record
        self._publish(record)
        self.on_removed(record, now)
        self._give_up(record, record.why, now)
        for node in dict.fromkeys(record.places.values()):  # which were told that it is gone, and let go of it
            target = self.members.nodes[node]
            target.drop_group(spec.group, record.round)
            self.members.room_changed(target, now)
        record.watchers.clear()
        while len(self.removed) > REMOVED_KEPT:
            oldest = next(iter(self.removed))
            del self.removed[oldest]
            self.out.append(Persist(TABLE, oldest, None))

    def job_ended(self, driver: Address, reason: str, keeps: Callable[[ProcessId], bool], now: float) -> None:
        """A driver is gone, and with it the groups of its job that are not detached. `keeps`: whether the process that made one is
        an actor which outlives the job; such a group ends with the actor."""
        self._owner_gone(driver.process)
        for record in [r for r in self.live.values() if r.spec.job.process == driver.process and not r.spec.detached]:
            if keeps(record.spec.owner.process):
                record.orphan = True
                self._save(record)
            else:
                advice = "A group that should outlive its job is made with lifetime='detached'."
                self._remove(record, f"The driver of its job {reason}. {advice}", now)

    def process_died(self, process: ProcessId, reason: str, now: float) -> None:
        self._owner_gone(process)
        for record in [r for r in self.live.values() if r.orphan and r.spec.owner.process == process]:
            self._remove(record, f"The actor that created it {reason}.", now)

    def _owner_gone(self, process: ProcessId) -> None:
        """There is nobody left to tell."""
        for record in self.live.values():
            if record.spec.owner.process == process:
                record.watchers.pop(record.spec.owner, None)

    def node_died(self, node: NodeId, now: float) -> None:
        """Bundles there are lost: they are sought anew, the others of their groups stay where they are."""
        for record in self.live.values():
            for watcher in [watcher for watcher in record.watchers if watcher.node == node]:
                del record.watchers[watcher]
            lost = [index for index, where in record.places.items() if where == node]
            if node in record.reserving.values() or (lost and record.reserving):
                self._give_up(record, f"node {short(node)} died", now)  # the next try is for everything that is lost
            if lost:
                for index in lost:
                    del record.places[index]
                record.state = RESCHEDULING
                self._publish(record)
            if record.waits:
                self.waiting[record.spec.group] = record

    # -- what the head's other tables ask

    def is_open(self, group: bytes) -> bool:
        """Whether bundles of it may be used, those that have a place."""
        record = self.live.get(group)
        return record is not None and record.state in (CREATED, RESCHEDULING)

    def why(self, group: bytes) -> str:
        record = self.live.get(group) or self.removed.get(group)
        return record.why if record is not None else f"This cluster has no placement group {short(group)}."

    def _publish(self, record: GroupRecord) -> None:
        self._save(record)
        self._tell(record)

    def _save(self, record: GroupRecord) -> None:
        self.out.append(Persist(TABLE, record.spec.group, msgspec.msgpack.encode(record.life())))

    def _tell(self, record: GroupRecord) -> None:
        update = record.update()
        self.out += [Send(watcher, update) for watcher in record.watchers]

    # -- restarts of the head

    def restore(self, saved: dict[bytes, bytes], ended: Container[ProcessId]) -> None:
        """Take back the groups of the journal. Nodes tell what they have set aside when they are heard of. `ended`: drivers whose
        jobs have ended."""
        for value in saved.values():
            life = msgspec.msgpack.decode(value, type=GroupLife)
            record = GroupRecord(life.spec)
            if life.spec.owner.process not in ended:
                record.watchers[life.spec.owner] = None
            record.state, record.round, record.orphan = life.state, life.round, life.orphan
            if record.state == REMOVED:
                record.why = f"Placement group {called(life.spec)} has been removed."
                self.removed[life.spec.group] = record
                continue
            record.places = {index: node for index, node in enumerate(life.places) if node in self.members.nodes}
            if record.state == CREATED and len(record.places) < len(life.spec.bundles):
                record.state = RESCHEDULING
            self.live[life.spec.group] = record
            if record.waits:
                self.waiting[life.spec.group] = record
            if life.spec.name:
                self.names[life.spec.namespace, life.spec.name] = life.spec.group

    def reattach(self, node: NodeId, bundles: list[BundleInfo]) -> None:
        """A node of before the head's restart is heard of: it hears of all groups, and what is set aside for nobody is released."""
        astray: dict[bytes, list[int]] = {}
        for bundle in bundles:
            record = self.live.get(bundle.group)
            if record is None or record.places.get(bundle.index) != node:
                astray.setdefault(bundle.group, []).append(bundle.index)
        for group, indexes in astray.items():
            self.members.nodes[node].drop_bundles(group, indexes)
            self.members.send(node, ReleaseBundles(group, indexes, "the head was restarted while it was set aside"))
        for record in [*self.live.values(), *self.removed.values()]:
            update = record.update()
            if record.state != REMOVED:
                record.watchers[Address(node, node)] = None
            self.members.send(node, update)
            if record.spec.owner.node == node and record.spec.owner in record.watchers:
                self.out.append(Send(record.spec.owner, update))

    def check(self) -> None:
        assert not self.live.keys() & self.removed.keys(), "a group is both live and removed"
        assert self.waiting.keys() == {group for group, record in self.live.items() if record.waits}
        for group, record in self.live.items():
            everywhere = set(range(len(record.spec.bundles)))
            assert record.spec.group == group
            assert record.state in (PENDING, CREATED, RESCHEDULING)
            assert not record.places.keys() & record.reserving.keys(), "a bundle has a place and is given another"
            assert (record.state == CREATED) == (record.places.keys() == everywhere), "CREATED means that every bundle has a place"
            assert not record.reserving or record.places.keys() | record.reserving.keys() == everywhere, "part of a group is sought"
            assert bool(record.reserving) == bool(record.unanswered)
            assert all(node in self.members.nodes for node in (*record.places.values(), *record.reserving.values()))
            if record.spec.strategy == "STRICT_PACK":
                assert len({*record.places.values(), *record.reserving.values()}) <= 1, "STRICT_PACK is on two nodes"
            if record.spec.strategy == "STRICT_SPREAD":
                used = [*record.places.values(), *record.reserving.values()]
                assert len(set(used)) == len(used), "STRICT_SPREAD shares a node"
        assert all(group in self.live for group in self.names.values())


def called(spec: GroupSpec) -> str:
    """What a person calls the group: "'train' [3f2a#12]"."""
    return f"{spec.name!r} [{short(spec.group)}]" if spec.name else f"[{short(spec.group)}]"
