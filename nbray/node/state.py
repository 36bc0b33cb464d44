"""What a node decides: who gets a worker, which workers live, and what the head and the neighbours are told. Pure.

    state.py   routes events, answers for processes (drivers, watchers), beats the heart, stops
    leases.py  requests, grants, recalls        actors.py  placed actors
    queue.py   whose turn it is                 pool.py    worker processes        ground.py  resources, cluster view
    bundles.py placement groups                 stock.py   amounts that are given out
    elsewhere.py  processes of nodes that are gone      entrypoints.py  submitted jobs

After every event everybody settles: whoever waits may have become possible by it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from nbray import config, inquiry
from nbray.ids import Address, ProcessId, short
from nbray.machine import Effect, IllegalTransition, Tick
from nbray.node import capacity, census
from nbray.node.actors import ActorDesk
from nbray.node.bundles import Bundles
from nbray.node.elsewhere import Elsewhere
from nbray.node.entrypoints import EntrypointDesk
from nbray.node.fence import Fence
from nbray.node.ground import Ground
from nbray.node.leases import LeaseDesk
from nbray.node.pool import WorkerPool
from nbray.node.records import (
    ActorLife,
    Begun,
    Driver,
    DriverHello,
    EnvironmentFailed,
    EnvironmentMade,
    HeadMoved,
    Lease,
    MemoryPressure,
    Phase,
    ProcessLost,
    StartFailed,
    Stop,
    StoreUsed,
    Worker,
    WorkerExited,
    WorkerHello,
)
from nbray.node.stock import Bundle, Stock
from nbray.sched.resources import UNIT, give
from nbray.wire import messages as m

#: Deaths remembered for whoever asks later; a death is asked about within moments, by those who held something of it.
DEATHS_KEPT = 1000


class NodeState:
    """The machine of one node life. `embedded`: it ends with its last driver, or when none ever comes."""

    def __init__(self, info: m.NodeInfo, head: Address, *, embedded: bool = False) -> None:
        self.pool = WorkerPool(info.node, max(0, info.total.get("CPU", 0) // UNIT))
        self.ground = Ground(info, head, self.pool)
        self.bundles = Bundles(self.ground)
        self.leases = LeaseDesk(self.ground, self.bundles)
        self.actors = ActorDesk(self.ground, self.bundles)
        self.entrypoints = EntrypointDesk(self.ground)
        self.elsewhere = Elsewhere(self.ground)
        self.inquiries = inquiry.Inquiries(self.ground.me)
        self.drivers: dict[ProcessId, Driver] = {}
        self.stopping = self._cannot_fork = ""  #: why, once it is
        self.dropped = 0  #: events that were true when they were sent
        self._embedded = embedded
        self._begun: float | None = None
        self._watchers: dict[ProcessId, list[Address]] = {}
        self._deaths: OrderedDict[ProcessId, m.Death] = OrderedDict()
        self._beat_at = self._head_heard = 0.0
        self._beat_said: m.NodeInfo | None = None
        self.fence = Fence(lasting=self._is_head)
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            Tick: lambda _e, _now: None,
            Begun: self._begin,
            WorkerHello: self._worker_hello,
            WorkerExited: self._worker_exited,
            DriverHello: self._driver_hello,
            ProcessLost: self._process_lost,
            StartFailed: self._start_failed,
            EnvironmentMade: self.ground.environments.made,
            EnvironmentFailed: self.ground.environments.failed,
            MemoryPressure: self._memory_pressure,
            m.PrepareEnvironment: self._prepare_environment,
            StoreUsed: lambda e, _: self._store_used(e),
            m.RequestLease: self._request_lease,
            m.CancelLeaseRequest: lambda e, _: self._cancel_request(e),
            m.ReturnLease: self.leases.give_back,
            m.WorkerKeeps: self._keeps,
            m.WorkerBlocked: lambda e, _: self._blocked(e.worker, True),
            m.WorkerUnblocked: lambda e, _: self._blocked(e.worker, False),
            m.PlaceActor: lambda e, _: self.actors.place(e),
            m.ActorStarted: lambda e, _: self.actors.started(e),
            m.ActorFailed: lambda e, _: self.actors.failed(e),
            m.ActorExiting: self.actors.exiting,
            m.EndActor: self._end_actor,
            m.ReserveBundles: lambda e, _: self.bundles.reserve(e),
            m.ReleaseBundles: self._release_bundles,
            m.GroupUpdate: self._group_updated,
            m.WatchGroup: lambda e, _: self.bundles.watch(e),
            **self.entrypoints.handlers,
            m.WatchProcess: self._watch,
            m.ProcessDied: lambda e, now: self._owner_gone(e.death.process, now),
            m.JobEnded: lambda e, now: self._job_gone(e.driver.process, now),
            m.NodeDied: self._node_died,
            m.ClusterView: self._cluster_view,
            m.NodeAccepted: self._heard_head,
            m.HeartbeatTaken: self._lease_renewed,
            HeadMoved: lambda e, _: self._stop(f"node {short(e.head)} is the head now", rejoin=True),
            m.DrainNode: self._drain,
            m.Ask: self._asked,
            m.Answer: lambda e, _: self.ground.out.extend(self.inquiries.answered(e)),
        }

    # -- the machine

    def handle(self, event: Any, now: float) -> list[Effect]:
        out: list[Effect] = []
        self.ground.out = out
        handler = self._handlers.get(type(event))
        if handler is None:
            raise IllegalTransition(f"node {short(self.ground.me.node)}", event, "any")
        handler(event, now)
        if self._begun is not None:
            self._settle(now)
        return out

    def handles(self, event: Any) -> bool:
        """Whether a message of this type is for the node at all."""
        return type(event) in self._handlers

    def next_deadline(self) -> float | None:
        if self._begun is None or self.stopping:
            return self.pool.deadline()
        times = [self._beat_at + config.HEARTBEAT_S, self.leases.deadline(), self.pool.deadline(), self.elsewhere.deadline()]
        times.append(self.inquiries.deadline())
        times.append(self.ground.environments.deadline())
        times.append(self.entrypoints.deadline())
        times += [self.ground.environments.start_due(worker) for worker in self.pool.in_phase(Phase.STARTING)]
        times.append(self.fence.deadline())
        if self._beat_said != self._info_said():
            times.append(self._beat_at + config.HEARTBEAT_MIN_S)
        if self._embedded and not self.drivers:
            times.append(self._begun + config.EMBEDDED_GRACE_S)
        return min(time for time in times if time is not None)

    def check(self) -> None:
        """Amounts add up, every lease and actor has its worker, and nobody waits who could be served."""
        bundles = [*self.ground.bundles.values(), *self.bundles.ending]
        held: dict[Stock, m.Amounts] = {stock: {} for stock in (self.ground, *bundles)}
        for bundle in bundles:
            give(held[self.ground], bundle.held)
        holders: list[Lease | ActorLife] = [*self.leases.leases.values(), *self.actors.lives.values()]
        for holder in holders:
            give(held[holder.stock], holder.held)
        for entrypoint in self.entrypoints.running.values():
            give(held[self.ground], entrypoint.held or {})
        devices = [(h.devices, h.amounts if isinstance(h, Lease) else h.spec.running) for h in holders]
        devices += [(each.devices, each.said.amounts) for each in self.entrypoints.running.values()]
        self.ground.devices.check(devices, self.ground.total)
        for stock, taken in held.items():
            for name in stock.total | taken:
                free, total = stock.free.get(name, 0), stock.total.get(name, 0)
                assert free + taken.get(name, 0) == total, f"{name}: {free} free and {taken.get(name, 0)} held of {total}"
                assert free >= 0 or name == "CPU", f"{name} is over-used by {-free}"
        self.bundles.check()
        self.leases.check()
        self.actors.check()
        self.ground.environments.check()
        if not self.stopping:
            self.entrypoints.check()
        assert self.pool.room() >= 0, "more processes than allowed"
        assert not (self.stopping and len(self.leases.queue)), "a stopping node has requests"

    @property
    def is_working(self) -> bool:
        """Whether anything runs: memory and logs could grow."""
        return bool(self.leases.leases or self.actors.lives or self.entrypoints.running)

    def hosts(self, actor: bytes, epoch: int) -> bool:
        return (actor, epoch) in self.actors.lives

    def workers(self) -> list[dict[str, Any]]:
        """The processes of this node, for the State API."""
        return census.workers(self.ground.me.node, self.drivers.values(), self.pool.workers.values(), self._deaths.values())

    def _settle(self, now: float) -> None:
        out = self.ground.out
        self.pool.kill_the_slow(now, out)
        if self.stopping:
            return
        self._mind_the_fence(now)
        if self.ground.settle_promises(now):
            self.leases.cluster_changed(now)
        self.ground.environments.settle(self._inhabited(), now, out)
        self._give_up_on_starts(now)
        self.bundles.settle()
        self.entrypoints.settle(now)
        missing = self.actors.settle(now)
        stopped = self.pool.stopped_until(now) is not None
        if missing and (self._cannot_fork or stopped):
            self.actors.fail_waiting(self._cannot_fork or self.leases.why_stopped(now))
            missing.clear()
        self._cannot_fork = ""
        missing += self.leases.settle(now)
        if not stopped:
            self._start_workers(missing, now)
        self.pool.reap_idle(now, out)
        self.elsewhere.settle(now)
        self.ground.out.extend(self.inquiries.expire(now))
        self._beat(now)
        if self._embedded and not self.drivers and self._begun is not None and now >= self._begun + config.EMBEDDED_GRACE_S:
            self._stop(f"no driver attached within {config.EMBEDDED_GRACE_S:.0f} s")

    def _start_workers(self, missing: Counter[str], now: float) -> None:
        for command, count in missing.items():
            wanted = count - self.pool.starting(command)
            if wanted > 0:
                # Idle workers that only other jobs can use would otherwise stay beside the new ones.
                self.pool.retire_strangers(wanted, now, self.ground.out)
                self.pool.start(wanted, now, self.ground.out, command)

    def _give_up_on_starts(self, now: float) -> None:
        """Interpreters that somebody brought have as long to become a worker as their environment had to be made."""
        for worker in list(self.pool.in_phase(Phase.STARTING)):
            due = self.ground.environments.start_due(worker)
            if due is not None and now >= due:
                said = f"it has not become a worker within {now - worker.since:.0f} s"
                self.ground.environments.worker_died_unused(worker.command, said, now, self.ground.out)
                self.pool.kill(worker, said, now, self.ground.out)

    def _inhabited(self) -> Iterator[str]:
        """The environments that somebody is in, or waits for."""
        for worker in self.pool.workers.values():
            if worker.use is not None:
                yield worker.use[1]
        for life in self.actors.lives.values():
            yield life.spec.env
        for request, _count in self.leases.queue.shapes():
            yield request.said.shape.env
        for entrypoint in self.entrypoints.running.values():
            yield entrypoint.said.env

    # -- life of the node

    def _begin(self, _: Begun, now: float) -> None:
        self._begun = self._head_heard = now
        self.pool.start(min(self.pool.cpus, config.WORKERS_PRESTART), now, self.ground.out)
        self._beat_at, self._beat_said = now, self._info_said()
        self.fence.renew(now)
        self.ground.send(self.ground.head, m.RegisterNode(self.ground.info()))

    def _info_said(self) -> m.NodeInfo:
        return self.ground.info()

    def _beat(self, now: float) -> None:
        if now >= self._beat_at + config.HEARTBEAT_MIN_S:
            info = self._info_said()
            if now >= self._beat_at + config.HEARTBEAT_S or info != self._beat_said:
                self._beat_at, self._beat_said = now, info
                self.ground.send(self.ground.head, m.Heartbeat(info, now, self.ground.astray))
        if now >= self._head_heard + config.HEAD_GRACE_S and not self._is_head:
            self._stop(f"the head has not answered for {config.HEAD_GRACE_S:.0f} s")

    @property
    def _is_head(self) -> bool:
        return self.ground.head.node == self.ground.me.node

    def _heard_head(self, _: object, now: float) -> None:
        self._head_heard = now

    def _lease_renewed(self, said: m.HeartbeatTaken, now: float) -> None:
        self._head_heard = now
        self.fence.renew(said.sent_s)

    def _mind_the_fence(self, now: float) -> None:
        self.ground.closed = self.fence.why(now) if self.fence.is_closed(now) else ""
        if self.fence.is_to_end(now):
            reason = f"{self.fence.why(now)}, and others may have begun its work again by now"
            self.leases.end_what_others_may_run(reason, now)
            self.actors.end_what_others_may_run(reason, now)

    def _cluster_view(self, said: m.ClusterView, now: float) -> None:
        self._head_heard = now
        self.ground.learn(said)
        self.bundles.view_changed()
        self.leases.cluster_changed(now)

    def _release_bundles(self, said: m.ReleaseBundles, now: float) -> None:
        self._end_in(self.bundles.release(said), said.reason, now)

    def _group_updated(self, said: m.GroupUpdate, now: float) -> None:
        self._end_in(self.bundles.updated(said), f"its placement group {short(said.group)} was removed", now)
        self.leases.cluster_changed(now)

    def _end_in(self, bundles: Iterable[Bundle], reason: str, now: float) -> None:
        for bundle in bundles:
            self.leases.bundle_gone(bundle, reason, now)
            self.actors.bundle_gone(bundle, reason, now)

    def _node_died(self, said: m.NodeDied, now: float) -> None:
        if said.node == self.ground.me.node:
            self._stop(f"the head had declared this node dead: {said.reason}", rejoin=True)
            return
        self.ground.forget(said.node)
        self.ground.dead.add(said.node)
        self.leases.node_gone(said.node, now)
        self.leases.cluster_changed(now)
        for process in (*self.pool.workers, *self.drivers):
            worker = self.pool.get(process)
            if worker is None or worker.phase is not Phase.STARTING:
                self.ground.send(Address(self.ground.me.node, process), said)

    def _drain(self, said: m.DrainNode, _now: float) -> None:
        if self._is_head:
            for node in self.ground.others:
                self.ground.send(Address(node, node), said)
        self._stop(said.reason)

    def _stop(self, reason: str, *, rejoin: bool = False) -> None:
        if self.stopping:
            return
        self.stopping = self.entrypoints.stopping = reason
        if not self._is_head and not rejoin:
            # The head learns it from us, not from heartbeats that stay away for NODE_DEAD_S.
            self.ground.send(self.ground.head, m.NodeDied(self.ground.me.node, reason))
        self.leases.refuse_all(f"node {short(self.ground.me.node)} is stopping: {reason}")
        self.ground.out.append(Stop(reason, rejoin))

    # -- processes

    def _worker_hello(self, event: WorkerHello, now: float) -> None:
        if self.pool.greet(event.process, event.pid, now) is None:
            self.dropped += 1

    def _worker_exited(self, event: WorkerExited, now: float) -> None:
        worker = self.pool.get(event.process)
        if worker is None:
            self.dropped += 1
            return
        death = msgspec.structs.replace(
            event.death, reason=worker.ending or event.death.reason, oom=worker.oom or (event.death.oom and not worker.ending)
        )
        self.pool.bury(event.process, now, death)
        if worker.command and worker.is_unused and not worker.ending:
            ended = f"signal {death.signal}" if death.signal is not None else f"exit code {death.exit_code}"
            how = f"{death.reason or ended}\n{death.log_tail}"
            self.ground.environments.worker_died_unused(worker.command, how, now, self.ground.out)
        self.leases.worker_gone(worker, death)
        self.actors.worker_gone(worker, death)
        self._died(death, now)

    def _start_failed(self, event: StartFailed, now: float) -> None:
        death = m.Death(event.process, self.ground.me.node, reason=event.reason)
        self._cannot_fork = event.reason
        self.pool.bury(event.process, now, death)
        self._died(death, now)

    def _driver_hello(self, event: DriverHello, _now: float) -> None:
        self.drivers[event.process] = Driver(event.process, event.pid, event.job, event.namespace)
        address = Address(self.ground.me.node, event.process)
        self.ground.send(self.ground.head, m.JobStarted(address, event.job, event.namespace, event.pid, event.submission))

    def _process_lost(self, event: ProcessLost, now: float) -> None:
        if self.drivers.pop(event.process, None) is None:
            return
        self.ground.send(self.ground.head, m.JobEnded(Address(self.ground.me.node, event.process)))
        self._job_gone(event.process, now)
        self._died(m.Death(event.process, self.ground.me.node, event.pid, reason=census.LIFELINE_ENDED), now)
        if self._embedded and not self.drivers:
            self._stop("its last driver has left")

    def _job_gone(self, job: ProcessId, now: float) -> None:
        self.leases.job_gone(job, now)
        self.ground.environments.waiter_left(job)

    def _owner_gone(self, process: ProcessId, now: float) -> None:
        self.leases.owner_gone(process, now)
        self.ground.environments.waiter_left()

    def _died(self, death: m.Death, now: float) -> None:
        """A process of this node is gone: remember it, tell who asked, and clear what it had here."""
        self._deaths[death.process] = death
        if len(self._deaths) > DEATHS_KEPT:
            self._deaths.popitem(last=False)
        for watcher in self._watchers.pop(death.process, []):
            self.ground.send(watcher, m.ProcessDied(death))
        self.ground.out.extend(self.inquiries.gone(lambda who: who.process == death.process, "has ended"))
        self.bundles.process_gone(death.process)
        self._owner_gone(death.process, now)

    def _watch(self, said: m.WatchProcess, now: float) -> None:
        if said.node not in (b"", self.ground.me.node):
            self.elsewhere.watch(said, now)
            return
        if said.process in self.pool.workers or said.process in self.drivers:
            watchers = self._watchers.setdefault(said.process, [])
            if said.watcher not in watchers:
                watchers.append(said.watcher)
            return
        unknown = m.Death(said.process, self.ground.me.node, reason="no such process is on its node any more")
        self.ground.send(said.watcher, m.ProcessDied(self._deaths.get(said.process, unknown)))

    def _keeps(self, said: m.WorkerKeeps, now: float) -> None:
        worker = self.pool.get(said.worker)
        if worker is None:
            self.dropped += 1
        else:
            self.pool.keeps(worker, said.keeps, now)

    def _blocked(self, process: ProcessId, blocked: bool) -> None:
        worker = self.pool.get(process)
        holder = self._holder(worker) if worker is not None else None
        if worker is None or holder is None or worker.blocked == blocked:
            self.dropped += 1
            return
        worker.blocked = blocked
        if blocked:
            holder.stock.lend_cpu(holder.held)
        else:
            holder.stock.take_cpu_back(holder.held, holder.amounts if isinstance(holder, Lease) else holder.spec.running)

    def _holder(self, worker: Worker) -> Lease | ActorLife | None:
        if worker.lease is not None:
            return self.leases.leases[worker.lease]
        return self.actors.lives[worker.actor] if worker.actor is not None else None

    # -- questions

    def _asked(self, ask: m.Ask, now: float) -> None:
        if ask.what != "scale":
            self._ask_processes(ask, now)
        elif capacity.scale(self.ground, ask):
            self.leases.cluster_changed(now)

    def _ask_processes(self, ask: m.Ask, now: float) -> None:
        """What only processes that run user code know (inquiry.Wanted): drivers, and workers that have said Hello."""
        try:
            asked = inquiry.wanted(ask)
        except ValueError as problem:
            self.ground.send(ask.asker, m.Answer(ask.request, error=str(problem)))
            return
        # One that has never run anything can tell no more than its stack, and need not be woken for less.
        silent = asked.of != "stack"
        workers = [
            w.process
            for w in self.pool.workers.values()
            if w.phase is not Phase.STARTING and not w.killed and not (silent and w.is_unused)
        ]
        every = (*self.drivers, *workers)
        whom = [Address(self.ground.me.node, each) for each in every if asked.process in ("", each.hex())]
        until = now + asked.patience_s
        self.ground.out.extend(self.inquiries.put(ask, asked.of, asked.arguments, whom, until, asked.room))

    # -- requests

    def _request_lease(self, said: m.RequestLease, now: float) -> None:
        if self.stopping:
            failure = m.Failure("NodeDiedError", message=f"node {short(self.ground.me.node)} is stopping: {self.stopping}")
            self.ground.send(said.owner, m.LeaseRefused(said.request, failure))
        else:
            self.leases.request(said, now)

    def _cancel_request(self, said: m.CancelLeaseRequest) -> None:
        self.leases.cancel(said.owner, said.request)
        self.ground.environments.waiter_left()

    def _end_actor(self, said: m.EndActor, now: float) -> None:
        self.actors.end(said, now)
        self.ground.environments.waiter_left()

    def _prepare_environment(self, said: m.PrepareEnvironment, now: float) -> None:
        if self.pool.cpus:  # a driver's own node, which runs nothing, has no use for it
            record = self.ground.environments.want(said.env, now, self.ground.out)
            if record is not None:
                record.drivers.add(said.job)

    def _memory_pressure(self, event: MemoryPressure, now: float) -> None:
        used, limit = event.used / 2**30, event.limit / 2**30
        reason = f"memory ran out on its node ({used:.2f} GiB of {limit:.2f} GiB in use)"
        idle = list(self.pool.in_phase(Phase.IDLE))
        for worker in idle:
            self.pool.kill(worker, "idle, and memory is short", now, self.ground.out)
        if not idle:
            self.leases.end_for_memory(reason, now)

    def _store_used(self, event: StoreUsed) -> None:
        self.ground.store_used = event.used
