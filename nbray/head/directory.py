"""The actors: their names, lives and deaths.

    PENDING --started--> ALIVE --lost, restarts left--> RESTARTING --started--> ALIVE ... --> DEAD (for ever)

The epoch counts lives from 0; whatever speaks of another epoch is late: dropped, and counted. A name belongs to at most one
actor that is not dead, and is free again the moment its actor is killed or released, also while the process still ends.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from nbray.head import obituary
from nbray.head.endings import Endings
from nbray.head.groups import Groups
from nbray.head.members import Members
from nbray.head.placing import Placing, key_of
from nbray.head.records import ALIVE, DEAD, PENDING, RESTARTING, ActorRecord, Life, Persist
from nbray.head.strangers import Strangers
from nbray.ids import ActorId, Address, NodeId, ProcessId, short
from nbray.machine import Effect, IllegalTransition, Send
from nbray.sched.policy import explain
from nbray.wire.messages import (
    ActorFailed,
    ActorFound,
    ActorLost,
    ActorRejected,
    ActorSpec,
    ActorStarted,
    ActorUnplaced,
    Death,
    EndActor,
    Failure,
    FindActor,
    KillActor,
    RegisterActor,
    ReleaseActor,
    WatchActor,
)

#: Dead actors kept, without their code and arguments, to tell late callers why.
DEAD_KEPT = 10_000
NO_ACTOR: ActorId = b"\0" * 16


class Directory:
    """Every actor of the cluster."""

    def __init__(self, members: Members, groups: Groups, late: Counter[str], out: list[Effect]) -> None:
        self.members = members
        self.groups = groups
        self.late = late
        self.out = out
        self.placing = Placing(members, groups, self._publish, self._tell)
        self.live: dict[ActorId, ActorRecord] = {}
        self.dead: dict[ActorId, ActorRecord] = {}  #: oldest death first
        self.names: dict[tuple[str, str], ActorId] = {}  #: (namespace, name) -> a live actor
        self.owned: dict[ProcessId, dict[ActorId, None]] = {}  #: live actors by owner, detached ones excepted
        self.grouped: dict[bytes, dict[ActorId, None]] = {}  #: live actors by placement group
        self.hosts: dict[ProcessId, ActorId] = {}  #: worker process -> the ALIVE actor in it
        self.strangers = Strangers(out)
        self.endings = Endings(members, out)

    # -- what people ask for

    def register(self, event: RegisterActor, owner_gone: str, now: float) -> ActorRecord | None:
        """A new actor. `owner_gone` says how the owner ended, if it has. Returns the record, unless the name decided otherwise."""
        spec = event.spec
        known = self.live.get(spec.actor) or self.dead.get(spec.actor)
        if known is not None:  # said again, to a head that was restarted in between
            known.watchers[spec.owner] = None
            self.out.append(Send(spec.owner, known.update()))
            return known
        holder = self.names.get((spec.namespace, spec.name)) if spec.name else None
        if holder is not None:
            self._name_taken(event, self.live[holder])
            return None
        record = self._adopt(ActorRecord(spec))
        self.out.append(Persist("actors", spec.actor, msgspec.msgpack.encode(spec)))
        if owner_gone and not spec.detached:
            self.end(record, obituary.owner_died(record, owner_gone), now)
        else:
            self._queue(record, now)
        stranger = self.strangers.introduce(spec.actor)
        if stranger is not None:
            for watcher in stranger.watchers:
                self.watch(WatchActor(spec.actor, watcher), now)
            if stranger.kill is not None:
                self.kill(stranger.kill, now)
        return record

    def _adopt(self, record: ActorRecord) -> ActorRecord:
        """Enter a live actor in every index."""
        spec = record.spec
        self.live[spec.actor] = record
        record.watchers[spec.owner] = None
        if spec.name and not record.released:
            self.names[spec.namespace, spec.name] = spec.actor
        if not spec.detached:
            self.owned.setdefault(spec.owner.process, {})[spec.actor] = None
        if spec.placement.group:
            self.grouped.setdefault(spec.placement.group, {})[spec.actor] = None
        if record.worker is not None:
            self.hosts[record.worker.process] = spec.actor
        return record

    def _name_taken(self, event: RegisterActor, holder: ActorRecord) -> None:
        spec = event.spec
        if event.get_if_exists:
            self.out.append(Send(spec.owner, _found(event.request, holder.spec)))
            return
        where = f" in namespace {spec.namespace!r}" if spec.namespace else ""
        reason = (
            f"The actor name {spec.name!r}{where} is already taken by {obituary.called(holder)}, which is {holder.state}. "
            f"Please use a different name, or take the actor that has it: nbray.get_actor({spec.name!r})."
        )
        self.out.append(Send(spec.owner, ActorRejected(spec.actor, event.request, reason)))

    def find(self, event: FindActor) -> None:
        actor = self.names.get((event.namespace, event.name))
        if actor is not None:
            self.out.append(Send(event.asker, _found(event.request, self.live[actor].spec)))
            return
        elsewhere = sorted(namespace for namespace, name in self.names if name == event.name)
        hint = "It was never created with that name, or it has ended."
        if elsewhere:
            hint = f"There is one in namespace {elsewhere[0]!r}: pass namespace={elsewhere[0]!r}."
        reason = (
            f"Failed to look up actor with name {event.name!r}: no live actor has that name in "
            f"namespace {event.namespace!r}. {hint}"
        )
        self.out.append(Send(event.asker, ActorRejected(NO_ACTOR, event.request, reason)))

    def watch(self, event: WatchActor, now: float) -> None:
        record = self.live.get(event.actor) or self.dead.get(event.actor)
        if record is None:
            self.strangers.watch(event.actor, event.watcher, now)
            return
        if record.state != DEAD:
            record.watchers[event.watcher] = None
        self.out.append(Send(event.watcher, record.update()))

    def kill(self, event: KillActor, now: float) -> None:
        record = self.live.get(event.actor)
        if record is None:
            if event.actor in self.dead:
                self.late["KillActor"] += 1
            else:
                self.strangers.kill(event, now)
            return
        record.tell(f"killed by nbray.kill(no_restart={event.no_restart})")
        self._end_process(record, kill=True, reason="killed by nbray.kill")
        if event.no_restart or record.released or not record.can_restart:
            self.end(record, obituary.killed(record), now)
        else:
            self._restart(record, now)

    def release(self, event: ReleaseActor, now: float) -> None:
        """No handle is left. A process that was started finishes its calls first; the name is free already."""
        record = self.live.get(event.actor)
        if record is None or record.released or (record.spec.detached and not event.asked):
            self.late["ReleaseActor"] += 1
            return
        record.released = True
        record.tell("released: no handle is left")
        self._free_name(record)
        if record.node is None:
            self.end(record, obituary.unreferenced(record), now)
        else:
            reason = "it was asked to end by `nbray kill-actor`" if event.asked else "its last handle went out of scope"
            self._end_process(record, kill=False, reason=reason)
            self._save(record)

    # -- what nodes report

    def started(self, event: ActorStarted) -> None:
        record = self._current(event.actor, event.epoch, event)
        node = self.members.nodes.get(event.worker.node)
        if node is None:
            return
        if record is None:
            # The epoch was given up while it started. Its process must not stay.
            self.endings.order(event.worker.node, EndActor(event.actor, event.epoch, True, "the head has given this epoch up"))
            return
        if record.worker == event.worker:
            self.late["ActorStarted"] += 1
            return
        if record.node != event.worker.node or record.state == ALIVE:
            raise IllegalTransition(obituary.called(record), event, record.state, record.story)
        hold = node.holds.get((event.actor, event.epoch))
        if hold is not None:
            hold.started = True
        record.state, record.worker, record.pid = ALIVE, event.worker, event.pid
        record.tell(f"epoch {event.epoch} started as pid {event.pid}")
        self.hosts[event.worker.process] = event.actor
        self._publish(record)

    def failed(self, event: ActorFailed, now: float) -> None:
        self.endings.done(event.actor, event.epoch)
        record = self._current(event.actor, event.epoch, event)
        if record is None:
            return
        if record.node is None or record.state == ALIVE:
            raise IllegalTransition(obituary.called(record), event, record.state, record.story)
        self.members.nodes[record.node].release(record.actor, record.epoch)
        record.tell("__init__ raised")
        self.end(record, obituary.init_raised(record, event.failure), now)

    def unplaced(self, event: ActorUnplaced, now: float) -> None:
        """The node had no room after all. It gets nothing more until it has reported what it has."""
        self.endings.done(event.actor, event.epoch)
        node = self.members.nodes.get(event.node)
        if node is not None:
            node.release(event.actor, event.epoch)
            node.full = True
            self.members.room_changed(node, now)
        record = self._current(event.actor, event.epoch, event)
        if record is None or record.node != event.node:
            return
        record.tell(f"node {short(event.node)} had no room")
        record.node = None
        self._queue(record, now)

    def lost(self, event: ActorLost, now: float) -> None:
        """The process of an epoch ended."""
        self.endings.done(event.actor, event.epoch)
        node = self.members.nodes.get(event.death.node)
        if node is not None:
            node.release(event.actor, event.epoch)
            self.members.room_changed(node, now)
        record = self._current(event.actor, event.epoch, event)
        if record is None:
            return
        if record.node is None:
            raise IllegalTransition(obituary.called(record), event, record.state, record.story)
        self._ended(record, event.death, event.intended, now)

    def _ended(self, record: ActorRecord, death: Death, intended: bool, now: float) -> None:
        record.tell(
            f"process {death.pid} ended: signal {death.signal}, exit code {death.exit_code}, {death.reason or 'not intended'}"
        )
        if record.released:
            self.end(record, obituary.unreferenced(record), now)
        elif intended:
            self.end(record, obituary.left(record, death), now)
        elif record.can_restart:
            self._restart(record, now)
        else:
            self.end(record, obituary.worker_died(record, death), now)

    # -- what other deaths mean for actors

    def process_died(self, death: Death, reason: str, now: float) -> None:
        """A process is gone: the actor in it, if any, and the actors that it owned."""
        host = self.hosts.get(death.process)
        if host is not None:  # ActorLost says the same, unless the head was away when it was sent
            self._ended(self.live[host], death, bool(death.reason), now)
        self.end_owned(death.process, reason, now)
        self.strangers.owner_died(death.process, reason)

    def job_ended(self, driver: Address, reason: str, now: float) -> None:
        """A driver is gone: its actors end, and those of its tasks; not what a detached actor keeps."""
        for record in list(self.live.values()):
            if record.spec.job.process == driver.process and not self._outlives_job(record):
                self._end_with_owner(record, reason, now)
        self.strangers.owner_died(driver.process, reason)
        for record in self.live.values():
            record.watchers.pop(driver, None)

    def node_died(self, node: NodeId, reason: str, now: float) -> None:
        self.endings.node_died(node)
        for record in self.live.values():
            record.watchers = {watcher: None for watcher in record.watchers if watcher.node != node}
        for record in self.placing.stranded(node):
            self._never(record, now)
        for record in [r for r in self.live.values() if r.spec.owner.node == node and not r.spec.detached]:
            self._end_with_owner(record, f"was on node {short(node)}, which is gone: {reason}", now)
        for record in [r for r in self.live.values() if r.node == node]:
            if record.node != node:  # it went with another that ended just now
                continue
            record.tell(f"node {short(node)} died: {reason}")
            if record.can_restart and not record.released:
                self._restart(record, now)
            else:
                self.end(record, obituary.node_died(record, node, reason), now)

    def group_removed(self, group: bytes, why: str, now: float) -> None:
        """A placement group is gone: every actor in it ends, whatever restarts it has left."""
        for actor in list(self.grouped.get(group, ())):
            record = self.live.get(actor)
            if record is None:  # it went with another that ended just now
                continue
            self._end_process(record, kill=True, reason="its placement group was removed")
            self.end(record, obituary.group_removed(record, why), now)

    def keeps(self, process: ProcessId) -> bool:
        """Whether the process is an actor's that outlives its job."""
        actor = self.hosts.get(process)
        return actor is not None and self._outlives_job(self.live[actor])

    def _outlives_job(self, record: ActorRecord) -> bool:
        """Detached, or owned (through any number of actors) by one that is."""
        while not record.spec.detached:
            host = self.hosts.get(record.spec.owner.process)
            if host is None or host == record.actor:
                return False
            record = self.live[host]
        return True

    def _end_with_owner(self, record: ActorRecord, reason: str, now: float) -> None:
        if record.state == DEAD:  # it went with another that ended just now
            return
        self._end_process(record, kill=True, reason="its owner has died")
        self.end(record, obituary.owner_died(record, reason), now)

    # -- transitions

    def end(self, record: ActorRecord, failure: Failure, now: float) -> None:
        """DEAD, for ever. What it owned ends when its process is reported dead, or now if it had none."""
        self.placing.remove(record)
        del self.live[record.actor]
        self._free_name(record)
        self._leave_process(record, now)
        owned = self.owned.get(record.spec.owner.process, {})
        owned.pop(record.actor, None)
        if not owned:
            self.owned.pop(record.spec.owner.process, None)
        grouped = self.grouped.get(record.spec.placement.group, {})
        grouped.pop(record.actor, None)
        if not grouped:
            self.grouped.pop(record.spec.placement.group, None)
        record.state, record.failure, record.node, record.waiting = DEAD, failure, None, ""
        record.tell(f"dead: {failure.fields.get('cause', failure.kind)}")
        self._publish(record)
        record.watchers.clear()
        record.spec = msgspec.structs.replace(record.spec, class_payload=b"", args=b"", dependencies=[], contains=[])
        self.out.append(Persist("actors", record.actor, msgspec.msgpack.encode(record.spec)))
        self.dead[record.actor] = record
        while len(self.dead) > DEAD_KEPT:
            oldest = next(iter(self.dead))
            del self.dead[oldest]
            self.out += [Persist("actors", oldest, None), Persist("lives", oldest, None)]

    def _restart(self, record: ActorRecord, now: float) -> None:
        self.placing.remove(record)
        self._leave_process(record, now)
        record.restarts += 1
        record.epoch += 1
        record.state, record.node = RESTARTING, None
        record.tell(f"restart {record.restarts} of {record.spec.max_restarts}")
        self._queue(record, now)

    def _queue(self, record: ActorRecord, now: float) -> None:
        """Place it now, or let it wait; either way its watchers hear where it stands."""
        if record.released:  # while its last place was being given up: nobody waits for another
            self.end(record, obituary.unreferenced(record), now)
            return
        if not self._never(record, now) and not self.placing.enqueue(record, now):
            self._publish(record)

    def _leave_process(self, record: ActorRecord, now: float) -> None:
        """The epoch's process is gone or going; what it owned dies with it."""
        worker, pid = record.worker, record.pid
        record.worker, record.pid = None, 0
        if worker is None:
            return
        del self.hosts[worker.process]
        self.end_owned(worker.process, f"has ended (pid {pid}, {obituary.called(record)})", now)

    def end_owned(self, owner: ProcessId, reason: str, now: float) -> None:
        for actor in list(self.owned.get(owner, ())):
            if actor in self.live:  # not yet gone with another
                self._end_with_owner(self.live[actor], reason, now)

    def _never(self, record: ActorRecord, now: float) -> bool:
        """End an actor that is bound to a node that is not alive, or to a group that is no more: no waiting will help."""
        where = record.spec.placement
        if where.group and where.group not in self.groups.live:
            self.end(record, obituary.group_removed(record, self.groups.why(where.group)), now)
            return True
        if where.strategy != "NODE" or where.soft or where.node in self.members.nodes:
            return False
        views = [*self.members.views(), *(r.view() for r in self.members.dead.values() if r.info.node == where.node)]
        self.end(record, obituary.unschedulable(record, explain(where, views)), now)
        return True

    def _end_process(self, record: ActorRecord, *, kill: bool, reason: str) -> None:
        if record.node is not None:
            self.endings.order(record.node, EndActor(record.actor, record.epoch, kill, reason))

    def _free_name(self, record: ActorRecord) -> None:
        key = record.spec.namespace, record.spec.name
        if self.names.get(key) == record.actor:
            del self.names[key]

    def _current(self, actor: ActorId, epoch: int, event: object) -> ActorRecord | None:
        """The live record that a node's report is about; None, counted, when the report is late."""
        record = self.live.get(actor)
        if record is None or record.epoch > epoch:
            self.late[type(event).__name__] += 1
            return None
        if record.epoch < epoch:
            raise IllegalTransition(obituary.called(record), event, record.state, record.story)
        return record

    def _publish(self, record: ActorRecord) -> None:
        """Durable first, then told."""
        self._save(record)
        self._tell(record)

    def _save(self, record: ActorRecord) -> None:
        self.out.append(Persist("lives", record.actor, msgspec.msgpack.encode(record.life())))

    def _tell(self, record: ActorRecord) -> None:
        update = record.update()
        self.out += [Send(watcher, update) for watcher in record.watchers]

    # -- restarts of the head

    def restore(self, spec: ActorSpec, life: Life | None, now: float) -> None:
        """Take back an actor from the journal. One whose start was never reported is decided when its node is heard of or dies."""
        record = ActorRecord(spec)
        if life is not None:
            record.resume(life)
        if record.state == DEAD:
            self.dead[spec.actor] = record
            return
        self._adopt(record)
        if record.node is None:
            self._queue(record, now)
        elif record.node not in self.members.nodes:
            self.node_died(record.node, "it is not among the nodes that the head remembers", now)

    def reattach(self, node: NodeId, now: float) -> None:
        """A node of before the head's restart is heard of: an epoch that was being started there may have answered to nobody."""
        self.endings.repeat(node)
        for record in [r for r in self.live.values() if r.node == node and r.state != ALIVE]:
            self._end_process(record, kill=True, reason="the head was restarted while it started")
            record.epoch += 1
            record.node = None
            self._queue(record, now)

    def check(self) -> None:
        assert not self.live.keys() & self.dead.keys(), "an actor is both live and dead"
        for actor, record in self.live.items():
            story = "\n".join(map(str, record.story))
            assert record.state in (PENDING, ALIVE, RESTARTING), story
            assert record.failure is None, story
            assert (record.state == ALIVE) == (record.worker is not None), story
            waits = actor in self.placing.lines.get(key_of(record.spec.placement), {})
            assert waits == (record.node is None), f"{obituary.called(record)} is neither placed nor waiting, or both\n{story}"
            assert record.node is None or record.node in self.members.nodes, story
            assert record.spec.max_restarts < 0 or record.restarts <= record.spec.max_restarts, story
            assert record.epoch >= record.restarts, story
            assert record.worker is None or self.hosts[record.worker.process] == actor, story
            if record.spec.name and not record.released:
                assert self.names[record.spec.namespace, record.spec.name] == actor, story
        for record in self.dead.values():
            assert record.failure is not None
            assert record.worker is None
            assert not record.watchers
        assert all(actor in self.live for actor in self.names.values())
        assert all(actor in self.live for actor in self.hosts.values())
        assert all(actor in self.live for owned in self.owned.values() for actor in owned)
        assert {actor for grouped in self.grouped.values() for actor in grouped} == {
            actor for actor, record in self.live.items() if record.spec.placement.group
        }
        self.placing.check()
        self.endings.check()


def _found(request: int, spec: ActorSpec) -> ActorFound:
    return ActorFound(request, spec.actor, spec.owner, spec.class_name, spec.methods, spec.max_task_retries)
