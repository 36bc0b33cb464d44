"""Objects that this process owns or borrows: their values, who holds them, and when they are free.

    owner      PENDING -- set_value --> INLINE | STORED | FAILED -- every count zero --> freed
               STORED -- last copy lost --> PENDING (its task runs again) or FAILED (ObjectReconstructionFailedError)
    borrower   unknown -- AskValue, TellValue --> as the owner says -- count zero --> RemoveBorrower

Counting across processes is described at `AddBorrower` in wire/messages.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nbray.ids import Address, NodeId, ObjectId, ProcessId, short, task_of
from nbray.ids import object_id as make_id
from nbray.machine import Effect, Send
from nbray.owner import obituary
from nbray.owner.records import CopyLost, OwnedObject, OwnedTask, Ready, Unhandled
from nbray.wire.messages import (
    AddBorrower,
    AskValue,
    CopyMade,
    Failure,
    FetchObject,
    FreeObjects,
    Held,
    Location,
    ObjectPinned,
    ObjectUnavailable,
    RemoveBorrower,
    ReportMissing,
    TellValue,
    Unpin,
    Value,
    WatchProcess,
)


class ObjectTable:
    """Steps objects; appends effects to `out`. Tasks are told of values through `value_arrived`, of losses through `rerun`."""

    def __init__(self, me: Address, out: list[Effect]) -> None:
        self.me = me
        self.out = out
        self.objects: dict[ObjectId, OwnedObject] = {}
        self.driver: Address | None = None  #: worker: where the job's driver is now; old references may name a node that is gone
        self.owned = 0  #: objects of ours that are not freed
        self.late = 0  #: messages about objects that are gone: normal, counted
        self._watching: dict[ProcessId, NodeId] = {}  #: whose death we asked to hear of, and where they are
        self._dead: set[ProcessId] = set()
        self._dead_nodes: set[NodeId] = set()
        self._held_by: dict[ProcessId, set[ObjectId]] = {}  #: owner: which objects a process may hold
        self._borrowed: dict[ProcessId, set[ObjectId]] = {}  #: borrower: which objects we have from an owner
        self._viewed: dict[ObjectId, OwnedObject] = {}  #: let go, but views over their bytes are alive
        self.value_arrived: Callable[[OwnedTask, OwnedObject], None]
        self.rerun: Callable[[OwnedTask, OwnedObject], bool]
        self.freed: Callable[[OwnedObject], None]

    # ------------------------------------------------------------------------------------------ making and holding

    def is_mine(self, object_id: ObjectId) -> bool:
        return object_id[:8] == self.me.process

    def own(self, object_id: ObjectId, cell: str, line: str, task: OwnedTask | None = None) -> OwnedObject:
        obj = OwnedObject(object_id, self.me, cell=cell, line=line, task=task)
        self.objects[object_id] = obj
        self.owned += 1
        return obj

    def own_returns(self, task: OwnedTask, objects: list[ObjectId] | None) -> None:
        """What the task will return, each with one hold: the reference that the caller receives."""
        push = task.push
        if objects is None:
            objects = [make_id(push.task, index) for index in range(push.returns)]
        for object_id in objects:
            self.objects[object_id] = OwnedObject(object_id, self.me, cell=push.cell, line=task.line)
        self.owned += len(objects)

    def receive(self, object_id: ObjectId, owner: Address, credits: int = 0) -> OwnedObject:
        """One more hold of this process on a reference that came from elsewhere."""
        obj = self.objects.get(object_id)
        if obj is not None:
            obj.count += 1
            obj.credits += credits
            return obj
        owner = self._now_at(owner)
        obj = OwnedObject(object_id, owner, credits=credits)
        self.objects[object_id] = obj
        if owner.process == self.me.process:
            self.owned += 1
            # A reference of ours came back after its object was freed: it was hidden from the count, in a pickle out of band.
            gone = f"the object {object_id.hex()} was freed: no counted reference to it was left"
            obj.value = Value(failure=Failure("ObjectFreedError", message=gone))
        elif owner.process in self._dead:
            obj.value = self._owner_died(object_id, owner)
        else:
            self._borrowed.setdefault(owner.process, set()).add(object_id)
        return obj

    def _now_at(self, owner: Address) -> Address:
        """A driver whose cluster was started again is on another node than when it pickled some of its references."""
        return self.driver if self.driver is not None and owner.process == self.driver.process else owner

    def hold(self, object_id: ObjectId) -> None:
        self.objects[object_id].count += 1

    def drop(self, object_ids: Iterable[ObjectId]) -> None:
        objects = self.objects
        for object_id in object_ids:
            obj = objects.get(object_id)
            if obj is None:
                self.late += 1
                continue
            obj.count -= 1
            if obj.count == 0 and not obj.holders:
                self._let_go(obj)

    def _let_go(self, obj: OwnedObject) -> None:
        """Nobody holds it. A pending object of ours is let go when its value comes."""
        if obj.owner.process == self.me.process:
            if obj.value is None:
                return
            # Only what the user's own code raised: the end of a process is reported where it matters, and often wanted.
            if obj.value.failure is not None and obj.value.failure.kind == "RayTaskError" and not obj.seen:
                self.out.append(Unhandled(obj.value.failure, obj.cell))
            self.owned -= 1
            if obj.copies:
                for node in sorted(obj.copies):
                    self.out.append(Send(Address(node, node), FreeObjects([obj.id])))
        else:
            self._borrowed.get(obj.owner.process, set()).discard(obj.id)
            if obj.credits and obj.owner.process not in self._dead:
                self.out.append(Send(obj.owner, RemoveBorrower([obj.id], [obj.credits], self.me.process)))
        del self.objects[obj.id]
        self._unpin(obj)
        if obj.views:
            self._outlived(obj)
        self.freed(obj)
        if obj.value is not None and obj.value.contains:
            self.drop([h.object for h in obj.value.contains])

    def _outlived(self, obj: OwnedObject) -> None:
        """Views outlive the references. Should the object come here again, it comes with a pin of its own."""
        before = self._viewed.get(obj.id)
        if before is None:
            self._viewed[obj.id] = obj
        else:
            before.views += obj.views
            obj.views = 0
            self._unpin(obj)

    def _unpin(self, obj: OwnedObject) -> None:
        if obj.pinned is not None and obj.views == 0:
            obj.pinned = None
            self.out.append(Send(Address(self.me.node, self.me.node), Unpin(self.me.process, [obj.id])))

    def views_released(self, object_ids: Iterable[ObjectId]) -> None:
        """Views died. The object may have been let go before its last view: then only the pin is left to give back."""
        for object_id in object_ids:
            obj = self._viewed.get(object_id) or self.objects[object_id]
            obj.views -= 1
            self._unpin(obj)
            if not obj.views:
                self._viewed.pop(object_id, None)

    # ------------------------------------------------------------------------------------------ values

    def set_value(self, obj: OwnedObject, value: Value, counted: bool = True) -> None:
        """The value of `obj` is known. `counted`: the sender counted us for what the value contains."""
        obj.value = value
        obj.asked = False
        if value.contains:
            for held in value.contains:
                mine = held.owner.process == self.me.process
                self.receive(held.object, held.owner, 1 if counted and not mine else 0)
                if counted and mine:
                    self._count(held.object, self.me, -1)  # the sender's count kept it until it was here
        if value.location is not None:
            if obj.copies is None:
                obj.copies = set()
            obj.copies.add(value.location.node)
        if obj.readers:
            readers, obj.readers = obj.readers, None
            for reader in readers:
                self._tell(obj, reader)
        if obj.dependents:
            dependents, obj.dependents = obj.dependents, None
            obj.seen = True
            for task in dependents:
                self.value_arrived(task, obj)
        if obj.watched:
            self._progress(obj)
        if obj.count == 0 and not obj.holders and obj.id in self.objects:
            self._let_go(obj)

    def want(self, object_id: ObjectId, local: bool) -> None:
        obj = self.objects[object_id]
        obj.watched = True
        obj.wanted_local = obj.wanted_local or local
        obj.seen = True
        self._progress(obj)

    def ask(self, obj: OwnedObject) -> None:
        """A borrower wants to be told the value, once."""
        if obj.value is None and not obj.asked and obj.owner.process != self.me.process:
            obj.asked = True
            self.watch(obj.owner)
            self.out.append(Send(obj.owner, AskValue(obj.id, self.me)))

    def _progress(self, obj: OwnedObject) -> None:
        value = obj.value
        if value is None:
            self.ask(obj)
            return
        if value.location is not None and obj.wanted_local and obj.pinned is None:
            if obj.fetching is None:
                obj.fetching = value.location
                fetch = FetchObject(obj.id, obj.owner, self.me.process, value.location)
                self.out.append(Send(Address(self.me.node, self.me.node), fetch))
            return
        obj.watched = obj.wanted_local = False
        self.out.append(Ready(obj.id))

    def pinned(self, event: ObjectPinned) -> None:
        obj = self.objects.get(event.object)
        # A copy whose loss was reported by another reader meanwhile is not what the value is now.
        if obj is None or obj.pinned is not None or obj.value is None or obj.value.location is None:
            self.out.append(Send(Address(self.me.node, self.me.node), Unpin(self.me.process, [event.object])))
            if obj is None:
                self.late += 1
                return
        else:
            obj.pinned = (event.offset, event.size)
        obj.fetching = None
        if obj.watched:
            self._progress(obj)
        else:
            self._unpin(obj)  # nobody waits any more: an interrupted get

    def unavailable(self, event: ObjectUnavailable) -> None:
        obj = self.objects.get(event.object)
        if obj is None:
            self.late += 1
            return
        asked, obj.fetching = obj.fetching, None
        if obj.value is None or obj.value.location is None or obj.value.location != asked:
            self.late += 1  # the owner knew before us, and there is another copy, or will be
            if obj.watched:
                self._progress(obj)
        elif not event.lost:
            self._forget_value(obj)
            self.set_value(obj, Value(failure=Failure("ObjectFetchTimedOutError", message=event.reason)), counted=False)
        elif self.is_mine(obj.id):
            self.copy_lost(obj, obj.value.location.node, event.reason)
        else:
            self._borrowed_copy_lost(obj)

    def _borrowed_copy_lost(self, obj: OwnedObject) -> None:
        """The copy that the owner told us of is gone: it is to find or make another, if it lives."""
        assert obj.value is not None
        assert obj.value.location is not None
        node = obj.value.location.node
        self._forget_value(obj)
        self.out.append(CopyLost(obj.id))
        if obj.owner.process in self._dead:
            self.set_value(obj, self._owner_died(obj.id, obj.owner), counted=False)
            return
        obj.asked = True
        self.watch(obj.owner)
        self.out.append(Send(obj.owner, ReportMissing(obj.id, node, self.me)))

    def _forget_value(self, obj: OwnedObject) -> None:
        value, obj.value = obj.value, None
        if value is not None and value.contains:
            self.drop([h.object for h in value.contains])

    def copy_lost(self, obj: OwnedObject, node: NodeId, reason: str) -> None:
        """The copy at `node` is gone: use another, make it again, or fail."""
        copies = obj.copies or set()
        copies.discard(node)
        value = obj.value
        if value is None or value.location is None or value.location.node != node:
            return
        if copies:
            other = min(copies)
            location = Location(other, value.location.size, other)
            obj.value = Value(location=location, contains=value.contains, said=value.said)
        else:
            self._forget_value(obj)
            self.out.append(CopyLost(obj.id))
            if obj.task is None or not self.rerun(obj.task, obj):
                if obj.task is not None:
                    obj.once = obj.task.unrepeatable() or "OBJECT_UNRECONSTRUCTABLE_TASK_FAILED"
                failure = obituary.lost(obj, f"its only copy was on node {short(node)} ({reason})")
                self.set_value(obj, Value(failure=failure), counted=False)
            return
        self._readers_again(obj)

    def _readers_again(self, obj: OwnedObject) -> None:
        readers, obj.readers = obj.readers or [], None
        for reader in readers:
            self._tell(obj, reader)
        if obj.watched:
            self._progress(obj)

    def copy_made(self, event: CopyMade) -> None:
        obj = self.objects.get(event.object)
        if obj is None:
            self.out.append(Send(Address(event.node, event.node), FreeObjects([event.object])))
        elif obj.copies is not None:
            obj.copies.add(event.node)

    def sealed_in_vain(self, object_id: ObjectId, node: NodeId) -> None:
        """An attempt that does not count may have left a copy at `node`: it goes when the object goes."""
        obj = self.objects.get(object_id)
        if obj is None:
            self.out.append(Send(Address(node, node), FreeObjects([object_id])))
        elif node not in self._dead_nodes:
            obj.copies = (obj.copies or set()) | {node}

    # ------------------------------------------------------------------------------------------ other processes

    def _tell(self, obj: OwnedObject, reader: Address) -> None:
        assert obj.value is not None
        obj.seen = True
        self.pass_on(obj.value.contains, reader)
        self.out.append(Send(reader, TellValue(obj.id, obj.value)))

    def asked(self, event: AskValue) -> None:
        obj = self.objects.get(event.object)
        if obj is None:
            self.late += 1
            gone = Failure("ObjectFreedError", message=f"the object {event.object.hex()} was freed by its owner")
            self.out.append(Send(event.reader, TellValue(event.object, Value(failure=gone))))
        elif obj.value is not None:
            self._tell(obj, event.reader)
        elif obj.readers is None:
            obj.readers = [event.reader]
        else:
            obj.readers.append(event.reader)

    def missing(self, event: ReportMissing) -> None:
        obj = self.objects.get(event.object)
        if obj is None:
            self.asked(AskValue(event.object, event.reader))
            return
        if obj.readers is None:
            obj.readers = []
        obj.readers.append(event.reader)
        value = obj.value
        if value is None:
            return
        if value.location is not None and value.location.node == event.node:
            self.copy_lost(obj, event.node, "a reader found it gone")
        else:
            self._readers_again(obj)

    def told(self, event: TellValue) -> None:
        obj = self.objects.get(event.object)
        if obj is None or obj.value is not None:
            self.late += 1
            self.give_back(event.value.contains)
            return
        self.set_value(obj, event.value)

    def give_back(self, contains: Iterable[Held]) -> None:
        """We were counted for references that we have no use for."""
        for held in contains:
            if held.owner.process != self.me.process:
                self.out.append(Send(self._now_at(held.owner), RemoveBorrower([held.object], [1], self.me.process)))
            else:
                self._count(held.object, self.me, -1)

    def pass_on(self, contains: Iterable[Held], to: Address) -> None:
        """Count `to` as a holder of these references, before they are sent to it; also if it is their owner, which might free
        them otherwise when we let go, just before they arrive."""
        if to.process in self._dead or to.node in self._dead_nodes:
            return
        elsewhere: dict[Address, list[ObjectId]] = {}
        for held in contains:
            if held.owner.process == self.me.process:
                self._count(held.object, to, 1)
            else:
                elsewhere.setdefault(self._now_at(held.owner), []).append(held.object)
        for owner, objects in elsewhere.items():
            self.out.append(Send(owner, AddBorrower(objects, to)))

    def _count(self, object_id: ObjectId, holder: Address, change: int) -> None:
        obj = self.objects.get(object_id)
        if obj is None or holder.process in self._dead or holder.node in self._dead_nodes:
            self.late += 1
            return
        if obj.holders is None:
            obj.holders = {}
        count = obj.holders.get(holder.process, 0) + change
        if count:
            obj.holders[holder.process] = count
            self._held_by.setdefault(holder.process, set()).add(object_id)
            if change > 0:  # who leaves before it came names no node to ask; whoever adds it does
                self.watch(holder)
        else:
            obj.holders.pop(holder.process, None)
            self._held_by.get(holder.process, set()).discard(object_id)
            if obj.count == 0 and not obj.holders:
                self._let_go(obj)

    def borrower_added(self, event: AddBorrower) -> None:
        for object_id in event.objects:
            self._count(object_id, event.borrower, 1)

    def borrower_removed(self, event: RemoveBorrower) -> None:
        # The node is needed only to watch a new holder, and this one is leaving.
        for object_id, count in zip(event.objects, event.counts, strict=True):
            self._count(object_id, Address(self.me.node, event.borrower), -count)

    def credited(self, object_ids: Iterable[ObjectId]) -> None:
        """A submitter counts us once more for each of these: our TaskDone said that we keep them."""
        for object_id in object_ids:
            obj = self.objects.get(object_id)
            if obj is not None:
                obj.credits += 1

    def watch(self, other: Address) -> None:
        """Be told when it dies."""
        if other.process not in self._watching and other.process != self.me.process:
            self._watching[other.process] = other.node
            self.out.append(Send(Address(other.node, other.node), WatchProcess(other.process, self.me)))
            if other.node != self.me.node:
                self.out.append(Send(Address(self.me.node, self.me.node), WatchProcess(other.process, self.me, other.node)))

    # ------------------------------------------------------------------------------------------ deaths

    def process_died(self, process: ProcessId) -> None:
        if process in self._dead:
            return
        self._dead.add(process)
        for object_id in sorted(self._held_by.pop(process, ())):  # sorted: the same history in every process
            obj = self.objects.get(object_id)
            if obj is not None and obj.holders:
                obj.holders.pop(process, None)
                if obj.count == 0 and not obj.holders:
                    self._let_go(obj)
        for object_id in sorted(self._borrowed.pop(process, ())):
            obj = self.objects.get(object_id)
            if obj is not None and obj.value is None:
                self.set_value(obj, self._owner_died(object_id, obj.owner), counted=False)

    def _owner_died(self, object_id: ObjectId, owner: Address) -> Value:
        task = int.from_bytes(task_of(object_id)[8:], "big")
        message = f"the object {object_id.hex()} cannot be had: its owner, process {owner} (its submission {task}), has died"
        return Value(failure=Failure("OwnerDiedError", message=message))

    def is_dead(self, process: Address) -> bool:
        """Whether the death of a process that we watch is known here."""
        return process.process in self._dead or process.node in self._dead_nodes

    def node_died(self, node: NodeId, reason: str) -> None:
        # Its daemon will not answer for the processes there any more.
        self._dead_nodes.add(node)
        for process in [process for process, at in self._watching.items() if at == node]:
            self.process_died(process)
        if node == self.me.node:
            for viewed in self._viewed.values():
                viewed.pinned = None
        for obj in list(self.objects.values()):
            if self.objects.get(obj.id) is not obj:
                continue  # freed just now, with what contained it
            if obj.owner.node == node and obj.owner.process != self.me.process:
                self.process_died(obj.owner.process)
            if node == self.me.node:
                obj.pinned, obj.fetching = None, None
            if self.is_mine(obj.id):
                if obj.copies and node in obj.copies:
                    self.copy_lost(obj, node, reason)
            elif (
                node == self.me.node
                and obj.value is not None
                and obj.value.location is not None
                and obj.value.location.node == node
            ):
                # A store elsewhere learns of a dead node from the head; the one of our next node may never have heard of it.
                self._borrowed_copy_lost(obj)

    def check(self) -> None:
        assert self.owned == sum(self.is_mine(o) for o in self.objects)
        for obj in self.objects.values():
            assert obj.count >= 0, (obj.id.hex(), obj.count)
            assert not (obj.holders and 0 in obj.holders.values()), obj.id.hex()
            assert obj.views >= 0, obj.id.hex()
            assert obj.pinned is None or obj.value is not None
            if obj.value is not None:
                known = [obj.value.inline is not None, obj.value.location is not None, obj.value.failure is not None]
                assert sum(known) == 1, (obj.id.hex(), obj.value)
            elif not self.is_mine(obj.id):
                assert not obj.watched or obj.asked, f"{obj.id.hex()} is watched and nobody was asked"
