"""What the object store of one node decides: who may write where, where each object is, who keeps it, and who waits for it.

    LoanRegion --> [room?] --> RegionLoaned ... SealObject --> an object, this node's primary copy
    FetchObject --> in memory: pinned at once
                --> on disk: restored, then pinned            (needs room)
                --> on another node: pulled, then pinned      (needs room; exchange.py)
                --> not sealed yet: its writer has a loan, so the seal may be on its way
    FreeObjects --> gone when the last pin and transfer end

Needs for room are served in order as memory comes free; loans do not overtake loans. room.py decides who leaves memory.
Late events (from processes, transfers and waits that have ended) are dropped and counted in `dropped`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from nbray import config
from nbray.ids import Address, NodeId, ObjectId, ProcessId, owner_of, short
from nbray.machine import Effect, IllegalTransition, Send, Tick
from nbray.store.allocator import aligned
from nbray.store.exchange import PULL_ATTEMPTS, Exchange, Pull
from nbray.store.loans import Loans
from nbray.store.orders import ProcessExited, Restore, RestoreDone, RestoreFailed, SpillDone, SpillFailed
from nbray.store.room import GONE_LIMIT, Room, Stored
from nbray.store.wants import Unsealed, Want
from nbray.wire.messages import (
    ChunkTaken,
    CopyMade,
    FetchObject,
    FreeObjects,
    LoanRegion,
    NodeDied,
    ObjectPinned,
    ObjectUnavailable,
    PullObject,
    PullRefused,
    PushChunk,
    RegionLoaned,
    ReturnRegion,
    SealObject,
    StoreFull,
    Unpin,
)

HOLDERS_TOLD = 10  #: objects listed in StoreFull


class Need(msgspec.Struct):
    """Something that waits for room until `deadline`: a loan, or the object that is to be restored or pulled."""

    size: int
    deadline: float
    loan: LoanRegion | None = None
    stored: Stored | None = None
    pull: Pull | None = None


class Ledger:
    """The object store's state machine for `node`, over an arena of `size` bytes. `can_spill`: there is a directory for it."""

    def __init__(self, node: NodeId, size: int, can_spill: bool = True) -> None:
        self.node = node
        self.dropped: dict[str, int] = {}  #: late events by kind
        self._out: list[Effect] = []
        self._now = 0.0
        self._room = Room(size, self._out)
        self._exchange = Exchange(node, self._out)
        self._loans = Loans()
        self._pins: dict[ProcessId, dict[ObjectId, int]] = {}
        self._needs: list[Need] = []
        self._unsealed = Unsealed()
        self._freed_early: dict[ObjectId, None] = {}  #: freed, and a seal may still come; the latest GONE_LIMIT
        self._dead: set[ProcessId] = set()
        self._dead_nodes: set[NodeId] = set()
        if not can_spill:
            self._room.spill_blocked_until = math.inf
            self._room.spill_failure = "this node has no directory for spilled objects"
        self._handlers: dict[type, Callable[[Any], None]] = {
            LoanRegion: self._loan_asked,
            ReturnRegion: self._region_returned,
            SealObject: self._sealed,
            FetchObject: self._fetch_asked,
            Unpin: self._unpinned,
            FreeObjects: self._freed,
            PullObject: self._pull_asked,
            PushChunk: self._chunk_came,
            ChunkTaken: self._chunk_taken,
            PullRefused: self._pull_refused,
            NodeDied: self._node_died,
            ProcessExited: self._process_exited,
            SpillDone: self._spill_done,
            SpillFailed: self._spill_failed,
            RestoreDone: self._restore_done,
            RestoreFailed: self._restore_failed,
            Tick: self._tick,
        }

    # ------------------------------------------------------------------------------------------ the machine

    def handle(self, event: Any, now: float) -> list[Effect]:
        """Raises IllegalTransition for a seal or return of memory that its sender was never lent; nothing has changed then."""
        self._now = now
        self._handlers[type(event)](event)
        self._serve_needs()
        effects = self._out.copy()
        self._out.clear()
        return effects

    def handles(self, kind: type) -> bool:
        """Whether events of this type are for the ledger: so that a daemon can sort its mail."""
        return kind in self._handlers

    def next_deadline(self) -> float | None:
        deadlines = [need.deadline for need in self._needs]
        deadlines.append(self._unsealed.next_deadline())
        if self._room.spill_blocked_until > self._now and (self._needs or self._room.wants_disk()):
            deadlines.append(self._room.spill_blocked_until)
        soonest = min(deadlines, default=math.inf)
        return None if soonest == math.inf else soonest

    def check(self) -> None:
        self._room.check()
        self._exchange.check()
        regions = [(stored.offset, aligned(stored.size)) for stored in self._room.objects.values() if stored.offset is not None]
        regions += [(pull.offset, aligned(pull.size)) for pull in self._exchange.pulls.values() if pull.offset is not None]
        regions += self._loans.ranges()
        regions += self._room.allocator.free_ranges()
        end = 0
        for offset, size in sorted(regions):
            assert offset == end, f"the region at {offset} should begin at {end}: memory is lost or given twice"
            end = offset + size
        assert end == self._room.allocator.size
        self._loans.check()
        counts: dict[ObjectId, int] = {}
        for pins in self._pins.values():
            for object_, count in pins.items():
                assert count > 0
                counts[object_] = counts.get(object_, 0) + count
        assert counts == {id_: stored.pins for id_, stored in self._room.objects.items() if stored.pins}
        assert not self._dead & (self._loans.totals().keys() | self._pins.keys())
        assert not self._unsealed.objects() & (self._room.objects.keys() | self._exchange.pulls.keys())
        writers = [want.location.writer for want in self._unsealed.wants() if isinstance(want, FetchObject)]
        assert all(writer in self._loans for writer in writers), "somebody waits for a seal that cannot come"
        queued = [id(need.stored) for need in self._needs if need.stored is not None]
        assert len(set(queued)) == len(queued)
        assert set(queued) == {id(stored) for stored in self._room.objects.values() if stored.state == "QUEUED"}

    # ------------------------------------------------------------------------------------------ what may be asked at any time

    @property
    def used(self) -> int:
        """Bytes of the arena that are lent, or hold an object (evictable or not)."""
        return self._room.allocator.used

    def stats(self) -> dict[str, int]:
        """Bytes (`capacity`, `used`, `pinned`, `lent`, `spilled`: in files) and the number of `objects`."""
        objects = self._room.objects.values()
        return {
            "capacity": self._room.allocator.size,
            "used": self._room.allocator.used,
            "pinned": sum(stored.size for stored in objects if stored.pins),
            "lent": sum(self._loans.totals().values()),
            "spilled": sum(stored.size for stored in objects if stored.file),
            "objects": len(objects),
        }

    def objects(self) -> list[dict[str, Any]]:
        """One dict per object that this node has a copy of; ids are bytes."""
        return [
            {
                "object": stored.id,
                "owner": stored.owner,
                "node": self.node,
                "size": stored.size,
                "state": stored.state,
                "primary": stored.primary,
                "spilled": stored.file,
                "pins": stored.pins,
                "pinned_by": [process for process, pins in self._pins.items() if stored.id in pins] if stored.pins else [],
                "freed": stored.freed,
            }
            for stored in self._room.objects.values()
        ]

    # ------------------------------------------------------------------------------------------ loans and seals

    def _loan_asked(self, message: LoanRegion) -> None:
        if message.process in self._dead:
            self._drop(message)
        elif aligned(message.size) > self._room.allocator.size:
            self._answer_full(message, f"{message.size} bytes are more than this node's whole object store has")
        else:
            self._needs.append(Need(aligned(message.size), self._now + config.STORE_WAIT_S, loan=message))

    def _answer_full(self, message: LoanRegion, reason: str) -> None:
        holders = self._room.holders(HOLDERS_TOLD)
        # A loan is no object; its process, padded to the length of an object's id, says whose it is.
        holders += [
            (process.ljust(20, b"\0"), size, f"lent to process {short(process)} to write into")
            for process, size in self._loans.totals().items()
        ]
        holders.sort(key=lambda holder: -holder[1])
        capacity = self._room.allocator.size
        full = StoreFull(message.request, message.size, capacity, holders[:HOLDERS_TOLD], reason, self._room.disk_full)
        self._tell(message.process, full)

    def _region_returned(self, message: ReturnRegion) -> None:
        if message.process in self._dead:
            self._drop(message)
            return
        self._loans.take_back(message.process, message.offset, aligned(message.size), message)
        self._room.allocator.free(message.offset, message.size)
        if message.process not in self._loans:
            self._loan_ended(message.process)

    def _sealed(self, message: SealObject) -> None:
        if message.process in self._dead:
            self._drop(message)  # its loan went back when it died, and others may have written there since
            return
        unwanted = (
            message.object in self._freed_early or owner_of(message.object) in self._dead or message.owner.node in self._dead_nodes
        )
        self._loans.take_back(message.process, message.offset, aligned(message.size), message)
        self._freed_early.pop(message.object, None)
        existing = self._room.objects.get(message.object)
        if existing is not None:
            # Made twice, by two attempts; or there was a secondary copy. What is here stays, and counts as primary.
            self._room.allocator.free(message.offset, message.size)
            existing.primary, existing.writer = True, message.process
            self._room.settle(existing)
        elif unwanted:
            self._room.allocator.free(message.offset, message.size)
            self._room.remember_gone(message.object, message.process, "its owner freed it")
        else:
            self._keep(message)
        if message.process not in self._loans:
            self._loan_ended(message.process)

    def _keep(self, message: SealObject) -> None:
        wants = self._unsealed.take(message.object)
        pull = self._exchange.pulls.get(message.object)
        if pull is not None:
            wants += pull.waiting
            self._end_pull(pull, "the object was made again on the node that was pulling it")
        stored = Stored(message.object, message.owner, message.process, message.offset, message.size, primary=True)
        self._room.add(stored)
        self._give(stored, wants)

    # ------------------------------------------------------------------------------------------ wants and pins

    def _fetch_asked(self, message: FetchObject) -> None:
        if message.process in self._dead:
            self._drop(message)
        else:
            self._want(message)

    def _pull_asked(self, message: PullObject) -> None:
        if message.node in self._dead_nodes or message.ticket in self._exchange.transfers:
            self._drop(message)
        else:
            self._want(message)

    def _want(self, want: Want) -> None:
        stored = self._room.objects.get(want.object)
        if stored is not None:
            if stored.freed:
                self._refuse([want], True, "its owner freed it")
            elif stored.readable:
                self._give(stored, [want])
            else:
                self._wait_for_restore(stored, want)
        elif isinstance(want, FetchObject) and want.location.node != self.node:
            self._want_from_elsewhere(want)
        else:
            self._wait_for_seal(want)

    def _wait_for_restore(self, stored: Stored, want: Want) -> None:
        if stored.state == "DISK":
            stored.state = "QUEUED"
            self._needs.append(Need(aligned(stored.size), self._now + config.STORE_WAIT_S, stored=stored))
        stored.waiting.append(want)

    def _want_from_elsewhere(self, want: FetchObject) -> None:
        pull = self._exchange.pulls.get(want.object)
        if pull is not None:
            pull.waiting.append(want)
        elif want.location.node in self._dead_nodes:
            self._refuse([want], True, f"node {short(want.location.node)}, which had it, is dead")
        elif aligned(want.location.size) > self._room.allocator.size:
            self._refuse([want], False, f"{want.location.size} bytes are more than this node's whole object store has")
        else:
            pull = self._exchange.add(want)
            self._needs.append(Need(aligned(pull.size), self._now + config.STORE_WAIT_S, pull=pull))

    def _wait_for_seal(self, want: Want) -> None:
        """Wait if somebody may yet seal the object here. Only a process with a loan can; and what was here and has gone is
        probably what is asked for, unless it is being made again by the same process: that is worth a moment."""
        writer, why = self._room.gone.get(want.object, (b"", "it is not on this node"))
        deadline = math.inf
        if isinstance(want, FetchObject):
            if want.location.writer not in self._loans:
                died = want.location.writer in self._dead and not writer
                self._refuse([want], True, "the process that wrote it died before it could announce it" if died else why)
                return
            if writer == want.location.writer:
                deadline = self._now + config.SEAL_GRACE_S
        elif not self._loans:
            self._refuse([want], True, why)
            return
        else:
            deadline = self._now + config.SEAL_GRACE_S
        self._unsealed.add(want, deadline)

    def _give(self, stored: Stored, wants: list[Want]) -> None:
        assert stored.offset is not None
        for want in wants:
            if isinstance(want, PullObject):
                self._exchange.serve(stored, want)
                continue
            stored.pins += 1
            pins = self._pins.setdefault(want.process, {})
            pins[stored.id] = pins.get(stored.id, 0) + 1
            self._tell(want.process, ObjectPinned(stored.id, stored.offset, stored.size))
        self._room.settle(stored)

    def _refuse(self, wants: Sequence[Want], lost: bool, reason: str) -> None:
        for want in wants:
            if isinstance(want, PullObject):
                self._exchange.refuse(want, reason, lost)
            else:
                self._tell(want.process, ObjectUnavailable(want.object, lost, reason))

    def _unpinned(self, message: Unpin) -> None:
        pins = self._pins.get(message.process)
        for object_ in message.objects:
            count = pins.get(object_, 0) if pins else 0
            if pins is None or not count:
                self._drop(message)
                continue
            if count == 1:
                del pins[object_]
            else:
                pins[object_] = count - 1
            stored = self._room.objects[object_]
            stored.pins -= 1
            self._room.settle(stored)
        if pins is not None and not pins:
            del self._pins[message.process]

    def _freed(self, message: FreeObjects) -> None:
        for object_ in message.objects:
            self._free(object_, "its owner freed it")

    def _free(self, object_: ObjectId, why: str) -> None:
        self._remember_freed(object_)
        stored = self._room.objects.get(object_)
        if stored is not None:
            stored.freed = True
            self._refuse_restores(stored, True, why)
            self._room.settle(stored)
            return
        pull = self._exchange.pulls.get(object_)
        if pull is not None:
            self._end_pull(pull, why)
            self._refuse(pull.waiting, True, why)
            return
        self._refuse(self._unsealed.take(object_), True, why)

    def _remember_freed(self, object_: ObjectId) -> None:
        """Freed is for ever. A seal of it may still be on its way, also when a copy is here: of another attempt of its task."""
        if self._loans:
            self._freed_early[object_] = None
            if len(self._freed_early) > GONE_LIMIT:
                del self._freed_early[next(iter(self._freed_early))]

    # ------------------------------------------------------------------------------------------ pulls

    def _chunk_came(self, message: PushChunk) -> None:
        pull = self._exchange.pulled_under(message.ticket)
        if pull is None:
            self._drop(message)
            return
        wrong = self._exchange.accept(pull, message)
        if wrong:
            self._pull_again(pull, wrong)
        elif self._exchange.is_complete(pull):
            self._pulled(pull)

    def _pull_again(self, pull: Pull, why: str) -> None:
        assert pull.offset is not None
        if pull.attempts < PULL_ATTEMPTS:
            self._exchange.ask(pull, pull.offset, why)
        else:
            self._end_pull(pull, why)
            self._pull_failed(pull, True, f"{why}, {pull.attempts} times, from node {short(pull.source)}")

    def _pulled(self, pull: Pull) -> None:
        assert pull.offset is not None
        self._exchange.remove(pull)
        first = pull.first
        stored = Stored(pull.object, first.owner, first.location.writer, pull.offset, pull.size, primary=False)
        self._tell(first.owner, CopyMade(pull.object, self.node))
        self._room.add(stored)
        self._give(stored, list(pull.waiting))

    def _end_pull(self, pull: Pull, tell_source: str) -> None:
        self._exchange.remove(pull, tell_source)
        if pull.offset is not None:
            self._room.allocator.free(pull.offset, pull.size)
            pull.offset = None
        else:
            self._needs = [need for need in self._needs if need.pull is not pull]

    def _pull_failed(self, pull: Pull, lost: bool, reason: str) -> None:
        """The pull has ended without a copy. Whoever named another source than the one that failed gets another try."""
        for want in pull.waiting:
            if want.location.node == pull.source:
                self._refuse([want], lost, reason)
            else:
                self._want(want)

    def _pull_refused(self, message: PullRefused) -> None:
        pull = self._exchange.pulled_under(message.ticket)
        transfer = self._exchange.transfers.get(message.ticket)
        if pull is not None:
            self._end_pull(pull, "")
            self._pull_failed(pull, message.lost, f"node {short(pull.source)} could not send it: {message.reason}")
        elif transfer is not None:
            self._room.settle(self._exchange.end(transfer))
        else:
            self._withdraw(lambda want: isinstance(want, PullObject) and want.ticket == message.ticket)

    def _chunk_taken(self, message: ChunkTaken) -> None:
        stored = self._exchange.taken(message)
        if stored is not None:
            self._room.settle(stored)

    # ------------------------------------------------------------------------------------------ room, disk

    def _serve_needs(self) -> None:
        kept: list[Need] = []
        missing = 0
        loans_wait = False
        for need in self._needs:
            touched = self._room.allocator.touched
            # A small loan must not pass a large one for ever; fetches may, for what they bring is what makes readers let go.
            offset = None if need.loan is not None and loans_wait else self._room.take(need.size)
            if offset is None:
                kept.append(need)
                missing += need.size
                loans_wait = loans_wait or need.loan is not None
            else:
                self._grant(need, offset, touched)
        self._needs = kept
        self._room.press(missing, self._now)

    def _grant(self, need: Need, offset: int, touched: int) -> None:
        if need.loan is not None:
            self._loans.lend(need.loan.process, offset, need.size)
            self._tell(need.loan.process, RegionLoaned(need.loan.request, offset, need.size, offset + need.size <= touched))
        elif need.stored is not None:
            stored = need.stored
            stored.offset, stored.state = offset, "RESTORING"
            self._out.append(Restore(stored.id, offset, stored.size, stored.name, stored.crc))
        elif need.pull is not None:
            self._exchange.ask(need.pull, offset)

    def _tick(self, _: Tick) -> None:
        late = [need for need in self._needs if need.deadline <= self._now]
        self._needs = [need for need in self._needs if need.deadline > self._now]
        why = self._room.spill_failure or "everything in it is in use"
        for need in late:
            if need.loan is not None:
                self._answer_full(need.loan, f"no room came free in {config.STORE_WAIT_S:g} s: {why}")
            elif need.stored is not None:
                need.stored.state = "DISK"
                self._refuse_restores(need.stored, False, f"no room to read it back from disk: {why}")
            elif need.pull is not None:
                self._exchange.remove(need.pull)
                self._refuse(need.pull.waiting, False, f"no room for a copy of it on this node: {why}")
        self._refuse(self._unsealed.take_late(self._now), True, "it is no longer on this node")

    def _spill_done(self, event: SpillDone) -> None:
        self._room.spilled(self._in_state("SPILLING", event), event.crc)

    def _spill_failed(self, event: SpillFailed) -> None:
        self._room.spill_failed(self._in_state("SPILLING", event), event.reason, event.disk_full, self._now)

    def _restore_done(self, event: RestoreDone) -> None:
        stored = self._in_state("RESTORING", event)
        stored.state = "MEMORY"
        wants, stored.waiting = stored.waiting, []
        self._give(stored, wants)

    def _restore_failed(self, event: RestoreFailed) -> None:
        stored = self._in_state("RESTORING", event)
        self._room.drop_memory(stored)
        stored.state = "DISK"
        self._refuse_restores(stored, event.corrupt, f"its spilled copy cannot be read: {event.reason}")
        if event.corrupt:
            self._room.remove(stored, f"its spilled copy was damaged: {event.reason}")
        else:
            self._room.settle(stored)

    def _in_state(self, state: str, event: SpillDone | SpillFailed | RestoreDone | RestoreFailed) -> Stored:
        stored = self._room.objects.get(event.object)
        if stored is None or stored.state != state:
            raise IllegalTransition(f"object {event.object.hex()}", event, stored and stored.state)
        return stored

    def _refuse_restores(self, stored: Stored, lost: bool, why: str) -> None:
        if stored.state == "QUEUED":
            stored.state = "DISK"
            self._needs = [need for need in self._needs if need.stored is not stored]
        wants, stored.waiting = stored.waiting, []
        self._refuse(wants, lost, why)

    # ------------------------------------------------------------------------------------------ deaths

    def _process_exited(self, event: ProcessExited) -> None:
        process = event.process
        if process in self._dead:
            self._drop(event)
            return
        self._dead.add(process)
        self._withdraw(lambda want: isinstance(want, FetchObject) and want.process == process)
        for offset, size in self._loans.end(process):
            self._room.allocator.free(offset, size)
        self._loan_ended(process)
        for object_, count in self._pins.pop(process, {}).items():
            stored = self._room.objects[object_]
            stored.pins -= count
            self._room.settle(stored)
        self._needs = [need for need in self._needs if need.loan is None or need.loan.process != process]
        known = [*self._room.objects, *self._exchange.pulls, *self._unsealed.objects()]
        for object_ in known:
            if owner_of(object_) == process:
                self._free(object_, f"its owner, process {short(process)}, died")

    def _node_died(self, message: NodeDied) -> None:
        node = message.node
        if node in self._dead_nodes or node == self.node:
            self._drop(message)
            return
        self._dead_nodes.add(node)
        for transfer in [transfer for transfer in self._exchange.transfers.values() if transfer.node == node]:
            self._room.settle(self._exchange.end(transfer))
        self._withdraw(lambda want: isinstance(want, PullObject) and want.node == node)
        for pull in [pull for pull in self._exchange.pulls.values() if pull.source == node]:
            self._end_pull(pull, "")
            self._pull_failed(pull, True, f"node {short(node)}, which had it, died: {message.reason}")
        owned = [stored.id for stored in self._room.objects.values() if stored.owner.node == node]
        owned += [pull.object for pull in self._exchange.pulls.values() if pull.first.owner.node == node]
        for object_ in owned:
            self._free(object_, f"its owner was on node {short(node)}, which died")

    def _withdraw(self, gone: Callable[[Want], bool]) -> None:
        """Forget wants whose askers wait no longer, and what was under way for them alone."""
        self._unsealed.take_where(gone)
        for stored in self._room.objects.values():
            if stored.waiting:
                stored.waiting = [want for want in stored.waiting if not gone(want)]
                if not stored.waiting:
                    self._refuse_restores(stored, False, "")
        for pull in list(self._exchange.pulls.values()):
            pull.waiting = [want for want in pull.waiting if not gone(want)]
            if not pull.waiting:
                self._end_pull(pull, "nobody waits for it any more")

    def _loan_ended(self, process: ProcessId) -> None:
        """`process` has nothing on loan: it can seal nothing that anybody waits for, or has freed already."""
        why = "the process that wrote it " + ("died before it could announce it" if process in self._dead else "has given it up")
        hopeless = self._unsealed.take_where(lambda want: isinstance(want, FetchObject) and want.location.writer == process)
        self._refuse(hopeless, True, why)
        if not self._loans:
            self._freed_early.clear()

    # ------------------------------------------------------------------------------------------ small change

    def _tell(self, to: ProcessId | Address, message: object) -> None:
        self._out.append(Send(to if isinstance(to, Address) else Address(self.node, to), message))

    def _drop(self, event: object) -> None:
        kind = type(event).__name__
        self.dropped[kind] = self.dropped.get(kind, 0) + 1
