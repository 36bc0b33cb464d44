"""The head: who is in the cluster, which actors there are and where, and what everybody may ask about it. Pure.

    Members     nodes and their leases on being alive
    Directory   actors: names, lives, deaths, owners
    Placing     actors that wait for a node
    Groups      placement groups: bundles on nodes, reserved all at once
    Submissions submitted jobs: command lines that nodes run
    Questions   listings, key-value store, trace

Events are the messages addressed to the head, and of its own: NodeGone, Tick. Effects are Send and Persist; the Persists of
one `handle` come first, and whoever carries them out makes them durable before it sends anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from nbray import inquiry
from nbray.head.directory import Directory
from nbray.head.groups import GroupRecord, Groups
from nbray.head.members import Members
from nbray.head.questions import BadQuestion, Questions
from nbray.head.records import ALIVE, JobRecord, Life, NodeGone, NodeRecord, Persist, Tables
from nbray.head.submissions import Submissions
from nbray.ids import Address, NodeId, ProcessId, short
from nbray.machine import Effect, IllegalTransition, Send, Tick
from nbray.wire.environment import holder_of
from nbray.wire.messages import (
    ActorFailed,
    ActorLost,
    ActorSpec,
    ActorStarted,
    ActorUnplaced,
    Answer,
    Ask,
    BundlesRefused,
    BundlesReserved,
    CreateGroup,
    Death,
    EntrypointBegun,
    EntrypointEnded,
    EntrypointWaits,
    FindActor,
    Heartbeat,
    JobEnded,
    JobStarted,
    KillActor,
    NodeDied,
    NodeInfo,
    ProcessDied,
    RegisterActor,
    RegisterNode,
    ReleaseActor,
    RemoveGroup,
    TraceBatch,
    WatchActor,
    WatchGroup,
    WatchProcess,
)

__all__ = ["HeadState", "NodeGone", "Persist"]

#: Ended jobs kept for the listing, and dead processes remembered to refuse what they said last.
ENDED_KEPT = 1000
GONE_KEPT = 10_000
#: A node's answer takes this long at most, beyond what it waits for its processes.
NODE_ANSWER_S = 2.0


class HeadState:
    """The head of one cluster. `address` is its mailbox: `Address(head_node, HEAD)`.

    `clock_ms` is Unix time in milliseconds at `now` 0: what people read is reckoned from it, and nothing else.
    """

    def __init__(self, address: Address, session: str, clock_ms: int = 0) -> None:
        self.address = address
        self.session = session
        self.late: Counter[str] = Counter()  #: events that came too late, by type
        self.out: list[Effect] = []
        self.jobs: dict[ProcessId, JobRecord] = {}
        self.gone: dict[ProcessId, str] = {}  #: dead processes that owned or hosted actors, and how they ended
        self.watched: set[ProcessId] = set()  #: processes whose node tells us when they die
        self.members = Members(address, session, self.out)
        self.groups = Groups(self.members, self.late, self.out)
        self.groups.on_removed = self._group_removed
        self.directory = Directory(self.members, self.groups, self.late, self.out)
        self.questions = Questions(self.members, self.groups, self.directory, self.jobs, self.out)
        self.inquiries = inquiry.Inquiries(address)
        self.submissions = Submissions(address, self.members, self.jobs, self.out, clock_ms, self._let_go_of_packages)
        self._clock_ms = clock_ms
        self._now = 0.0
        self._handlers: dict[type, Callable[[Any, float], object]] = {
            RegisterNode: lambda e, now: self._node_heard(e.info, now),
            Heartbeat: lambda e, now: self._node_heard(e.info, now, e.sent_s, astray=e.astray),
            NodeGone: lambda e, now: self._node_died(e.node, e.reason, now),
            NodeDied: lambda e, now: self._node_died(e.node, e.reason, now),  # from the node itself: it leaves in order
            Tick: lambda _, now: self._tick(now),
            JobStarted: self._job_started,
            JobEnded: lambda e, now: self._job_ended(e.driver, "has ended", now),
            ProcessDied: lambda e, now: self._process_died(e.death, now),
            RegisterActor: self._register_actor,
            WatchActor: self.directory.watch,
            FindActor: lambda e, _: self.directory.find(e),
            ReleaseActor: self.directory.release,
            KillActor: self.directory.kill,
            ActorStarted: lambda e, _: self.directory.started(e),
            ActorFailed: self._actor_failed,
            ActorLost: self._actor_lost,
            ActorUnplaced: self.directory.unplaced,
            CreateGroup: self._create_group,
            RemoveGroup: self._remove_group,
            WatchGroup: lambda e, _: self.groups.watch(e),
            BundlesReserved: self._bundles_reserved,
            BundlesRefused: self._bundles_refused,
            EntrypointWaits: lambda e, _: self.submissions.waits(e),
            EntrypointBegun: lambda e, _: self.submissions.begun(e),
            EntrypointEnded: self.submissions.ended,
            Ask: self._ask,
            Answer: lambda e, _: self.out.extend(self.inquiries.answered(e)),
            TraceBatch: lambda e, _: self.questions.trace.add(e),
        }

    def handle(self, event: Any, now: float) -> list[Effect]:
        """Take one event. Raises IllegalTransition, with no effects, for what cannot be."""
        handler = self._handlers.get(type(event))
        if handler is None:
            raise IllegalTransition("the head", event, "any")
        self._now = now
        self.members.notice_pause(now)
        try:
            handler(event, now)
        except IllegalTransition:
            self.out.clear()
            raise
        self.members.broadcast(now)
        effects = sorted(self.out, key=lambda effect: not isinstance(effect, Persist))  # stable: orders are kept
        self.out.clear()
        return effects

    def next_deadline(self) -> float | None:
        """When a Tick is due; None while nothing is waited for."""
        candidates = [
            self.members.next_deadline(),
            self.directory.placing.next_deadline(),
            self.groups.next_deadline(),
            self.directory.strangers.next_deadline(self._now),
            self.inquiries.deadline(),
            self.submissions.next_deadline(),
        ]
        return min((due for due in candidates if due is not None), default=None)

    # -- nodes

    def _node_heard(self, info: NodeInfo, now: float, sent_s: float = 0.0, *, astray: bool = False) -> None:
        known = self.members.nodes.get(info.node)
        returns = known is not None and known.restored
        record = self.members.heartbeat(info, now, sent_s, astray=astray) if known else self.members.register(info, now)
        if record is None:
            return
        if returns:
            self.groups.reattach(record.info.node, record.info.bundles)
            self._reattach(record, now)
        self._retry(now, record)
        self.submissions.node_came(record, returns=returns)

    def _reattach(self, record: NodeRecord, now: float) -> None:
        """A node from before the head was restarted: ask after everyone on it whose death we may have missed."""
        node = record.info.node
        self.directory.reattach(node, now)
        live = self.directory.live.values()
        processes = [job.driver.process for job in self.jobs.values() if job.driver.node == node and not job.ended]
        processes += [r.worker.process for r in live if r.worker is not None and r.worker.node == node]
        processes += [r.spec.owner.process for r in live if r.spec.owner.node == node and not r.spec.detached]
        processes += [r.spec.owner.process for r in self.groups.live.values() if r.spec.owner.node == node]
        for process in dict.fromkeys(processes):
            self._watch(Address(node, process))

    def _node_died(self, node: NodeId, reason: str, now: float) -> None:
        if self.members.bury(node, reason, now) is None:
            self.late["NodeGone"] += 1
            return
        self.questions.metrics.forget_node(node)
        self.out.extend(self.inquiries.gone(lambda who: who.node == node, f"the node is gone: {reason}"))
        for job in [j for j in self.jobs.values() if j.driver.node == node and not j.ended]:
            self._job_ended(job.driver, f"was on node {short(node)}, which is gone: {reason}", now)
        self.groups.node_died(node, now)
        self.directory.node_died(node, reason, now)
        self.submissions.node_died(node, reason, now)
        self._retry(now)

    def _tick(self, now: float) -> None:
        for death in self.members.expire(now):
            self._node_died(death.node, death.reason, now)
        self.directory.placing.remind(now)
        self.groups.remind(now)
        self.out.extend(self.inquiries.expire(now))
        self.submissions.tick(now)
        self.directory.strangers.expire({job.driver.process for job in self.jobs.values() if not job.ended}, now)

    # -- processes

    def _ms(self, now: float) -> int:
        return self._clock_ms + int(now * 1000)

    def _job_started(self, event: JobStarted, now: float) -> None:
        job = JobRecord(event.driver, event.name, event.namespace, event.pid, submission=event.submission, started_ms=self._ms(now))
        self.jobs[event.driver.process] = job
        self.out.append(Persist("jobs", event.driver.process, msgspec.msgpack.encode(job)))

    def _job_ended(self, driver: Address, reason: str, now: float) -> None:
        job = self.jobs.get(driver.process)
        if driver.process in self.gone or (job is not None and job.ended):
            self.late["JobEnded"] += 1
            return
        self._remember_gone(driver.process, reason)
        self.watched.discard(driver.process)
        if job is not None:
            job.ended, job.ended_ms = True, self._ms(now)
            self.out.append(Persist("jobs", driver.process, msgspec.msgpack.encode(job)))
            self._forget_ended_jobs()
        self.members.tell_all(JobEnded(driver))
        self.groups.job_ended(driver, reason, self.directory.keeps, now)
        self._let_go_of_packages(driver.process.hex())
        self.directory.job_ended(driver, reason, now)
        self._retry(now)

    def _let_go_of_packages(self, holder: str) -> None:
        lasting = [record.spec.env for record in self.directory.live.values() if record.spec.detached]
        self.questions.packages.job_ended(holder, lasting)

    def _forget_ended_jobs(self) -> None:
        ended = [process for process, job in self.jobs.items() if job.ended]
        for process in ended[:-ENDED_KEPT]:
            del self.jobs[process]
            self.out.append(Persist("jobs", process, None))

    def _process_died(self, death: Death, now: float) -> None:
        self.watched.discard(death.process)
        job = self.jobs.get(death.process)
        if job is not None and not job.ended:
            self._job_ended(job.driver, f"has ended (pid {death.pid})", now)
            return
        reason = f"has ended (pid {death.pid})"
        self._remember_gone(death.process, reason)
        self.directory.process_died(death, reason, now)
        self.groups.process_died(death.process, reason, now)
        self._retry(now)

    def _remember_gone(self, process: ProcessId, reason: str) -> None:
        self.gone[process] = reason
        self.questions.metrics.forget(process)
        while len(self.gone) > GONE_KEPT:
            del self.gone[next(iter(self.gone))]

    def _watch(self, process: Address) -> None:
        if process.process not in self.watched:
            self.watched.add(process.process)
            self.members.send(process.node, WatchProcess(process.process, self.address))

    # -- actors

    def _register_actor(self, event: RegisterActor, now: float) -> None:
        spec = event.spec
        owner_gone = self.gone.get(spec.owner.process, "")
        if not owner_gone and spec.owner.node in self.members.dead:
            owner_gone = f"was on node {short(spec.owner.node)}, which is gone"
        record = self.directory.register(event, owner_gone, now)
        is_driver = spec.owner.process == spec.job.process
        # A driver's end comes as JobEnded; of a worker that owns actors we must be told.
        if record is not None and record.failure is None and not (is_driver or spec.detached):
            self._watch(spec.owner)

    def _actor_failed(self, event: ActorFailed, now: float) -> None:
        self.directory.failed(event, now)
        self._retry(now)

    def _actor_lost(self, event: ActorLost, now: float) -> None:
        reason = f"has ended (pid {event.death.pid})"
        self._remember_gone(event.death.process, reason)
        self.watched.discard(event.death.process)
        self.directory.lost(event, now)
        # Also when the report is late: whatever the epoch, that process is gone, and it may have owned actors.
        self.directory.end_owned(event.death.process, reason, now)
        self.groups.process_died(event.death.process, reason, now)
        self._retry(now, self.members.nodes.get(event.death.node))

    # -- placement groups

    def _create_group(self, event: CreateGroup, now: float) -> None:
        spec = event.spec
        owner_gone = self.gone.get(spec.owner.process, "")
        if not owner_gone and spec.owner.node in self.members.dead:
            owner_gone = f"was on node {short(spec.owner.node)}, which is gone"
        orphan = spec.job.process in self.gone
        if orphan and not owner_gone and not self.directory.keeps(spec.owner.process):
            owner_gone = f"belonged to a job whose driver {self.gone[spec.job.process]}"
        self.groups.create(event, owner_gone, orphan, now)
        # A driver's end comes as JobEnded; of a worker that is told of its group we must be told.
        if not owner_gone and spec.owner.process != spec.job.process:
            self._watch(spec.owner)

    def _remove_group(self, event: RemoveGroup, now: float) -> None:
        self.groups.remove(event, now)
        self._retry(now)

    def _group_removed(self, record: GroupRecord, now: float) -> None:
        self.directory.group_removed(record.spec.group, record.why, now)

    def _bundles_reserved(self, event: BundlesReserved, now: float) -> None:
        self.groups.reserved(event, now)
        self._retry(now)

    def _bundles_refused(self, event: BundlesRefused, now: float) -> None:
        self.groups.refused(event, now)
        self._retry(now)

    def _retry(self, now: float, room: NodeRecord | None = None) -> None:
        """Something may be free, after news of one node only there: for the actors that wait, then for the groups."""
        self.directory.placing.retry(now, room)
        self.groups.retry(now)

    # -- questions

    def _ask(self, event: Ask, now: float) -> None:
        if event.what == "everywhere":
            self._ask_nodes(event, now)
            return
        if event.what == "metrics_report":
            self._take_metrics(event)
            return
        try:
            if self.submissions.knows(event.what):
                self.submissions.ask(event, now)  # it may answer later
                return
            answer = Answer(event.request, self.questions.answer(event.what, event.arguments))
        except BadQuestion as problem:
            answer = Answer(event.request, error=str(problem))
        self.out.append(Send(event.asker, answer))

    def _take_metrics(self, event: Ask) -> None:
        metrics, reporter = self.questions.metrics, event.asker
        try:
            answer = Answer(event.request, metrics.report(reporter, event.arguments))
        except msgspec.ValidationError as problem:
            answer = Answer(event.request, error=f"this is no report of metrics: {problem}")
        if reporter.process in self.gone:
            metrics.forget(reporter.process)  # its last words came after the news of its death
        elif reporter.process in metrics.reporters:
            self._watch(reporter)
        self.out.append(Send(reporter, answer))

    def _ask_nodes(self, event: Ask, now: float) -> None:
        """What only nodes and their processes know (inquiry.Wanted)."""
        try:
            asked = inquiry.wanted(event)
        except ValueError as problem:
            self.out.append(Send(event.asker, Answer(event.request, error=str(problem))))
            return
        nodes = [Address(node, node) for node in self.members.nodes if asked.node in ("", node.hex())]
        until = now + asked.patience_s + NODE_ANSWER_S
        self.out.extend(self.inquiries.put(event, asked.of, asked.arguments, nodes, until, inquiry.ROOM_BYTES))

    # -- restarts

    @classmethod
    def restore(
        cls, address: Address, session: str, tables: Tables, now: float, clock_ms: int = 0
    ) -> tuple[HeadState, list[Effect]]:
        """Carry on from what `Journal.load` gave back. The effects are to be carried out like those of `handle`.

        Nodes have one full lease to be heard of before what ran on them is started elsewhere.
        """
        head = cls(address, session, clock_ms)
        infos = [msgspec.msgpack.decode(value, type=NodeInfo) for value in tables.get("nodes", {}).values()]
        head.members.restore(infos, now)
        for key, value in tables.get("jobs", {}).items():
            head.jobs[key] = msgspec.msgpack.decode(value, type=JobRecord)
        head.questions.kv.restore(tables.get("kv", {}))
        head.directory.endings.restore(tables.get("endings", {}))
        head.groups.restore(tables.get("groups", {}), {process for process, job in head.jobs.items() if job.ended})
        lives = {key: msgspec.msgpack.decode(value, type=Life) for key, value in tables.get("lives", {}).items()}
        for key, value in tables.get("actors", {}).items():
            head.directory.restore(msgspec.msgpack.decode(value, type=ActorSpec), lives.get(key), now)
        gone = {info.node for info in infos if info.is_head and info.node != address.node}
        head.submissions.restore(tables.get("submissions", {}), gone, now)
        holders = [job.driver.process.hex() for job in head.jobs.values() if not job.ended]
        holders += [holder_of(name) for name in head.submissions.open]
        head.questions.packages.restore(tables.get("packages", {}), holders)
        head._now = now
        effects = sorted(head.out, key=lambda effect: not isinstance(effect, Persist))
        head.out.clear()
        return head, effects

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        assert not self.out, "effects were left behind"
        self.members.check()
        self.groups.check()
        self.directory.check()
        self.inquiries.check()
        self.submissions.check()
        for process, job in self.jobs.items():
            assert job.driver.process == process
            assert job.ended or process not in self.gone, "a job runs whose driver is gone"
        for record in self.directory.live.values():
            spec = record.spec
            assert spec.detached or spec.owner.node not in self.members.dead, "an actor outlives its owner's node"
            assert spec.detached or spec.owner.process not in self.gone, "an actor outlives its owner"
            if record.state == ALIVE:
                assert record.worker is not None
                assert record.worker.node == record.node
        for line in self.directory.placing.lines.values():
            first = next(iter(line.values()))
            where = first.spec.placement
            assert where.strategy == "NODE" or not self.members.has_room(where), f"{first.actor.hex()} waits beside free room"
        assert self.questions.trace.size_bytes == sum(len(batch.records) for batch in self.questions.trace.batches)
