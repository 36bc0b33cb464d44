"""Leases of one node: who gets a worker, who waits and is told why, who is sent elsewhere, whose lease is asked back. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from nbray import config
from nbray.ids import Address, NodeId, ProcessId, short
from nbray.node.environments import Standing
from nbray.node.ground import Ground
from nbray.node.queue import LeaseQueue, Verdict
from nbray.node.records import Lease, Phase, Request, ShapeKey, Worker, shape_key
from nbray.sched.policy import choose, explain, feasible
from nbray.sched.resources import fits, in_words, take
from nbray.wire.messages import (
    Amounts,
    Death,
    Failure,
    LeaseGranted,
    LeaseLost,
    LeaseRecalled,
    LeaseRedirected,
    LeaseRefused,
    LeaseWaiting,
    QueuedDemand,
    RequestLease,
    ReturnLease,
    WatchProcess,
)

#: How long a node that is full of workers which all wait for each other lets the knot be before it cuts one thread more.
KNOT_S = 0.5


class LeaseDesk:
    """Requests and leases. `settle` does what has become possible; call it after every event."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.queue = LeaseQueue()
        self.leases: dict[int, Lease] = {}
        self.dropped = 0  #: events that were true when they were sent
        self._granted = 0
        self._turn = 0
        self._watched: set[ProcessId] = set()  #: owners elsewhere whose death we asked to hear of
        self._cut_at = 0.0
        self._recalled_at = 0.0
        self._settled_at = 0.0

    # -- events

    def request(self, said: RequestLease, now: float) -> None:
        request = Request(said, shape_key(said.shape), now)
        if request.id in self.queue or said.owner.node in self.ground.dead:
            self.dropped += 1  # the second: it did not know yet that it had been declared dead, and will not come to use a lease
        elif (reason := self._impossible(said)) is not None:
            self._refuse(request, "TaskUnschedulableError", reason)
        elif not self._redirect(request):
            self.queue.add(request)
            if not feasible(said.shape, self.ground.nodes()):
                self._tell(request, infeasible=True)

    def cancel(self, owner: ProcessId, request: int) -> None:
        if self.queue.remove(owner, request) is None:
            self.dropped += 1

    def give_back(self, said: ReturnLease, now: float) -> None:
        lease = self.leases.get(said.lease)
        if lease is None or lease.owner.process != said.owner:
            self.dropped += 1
            return
        worker = self.ground.pool[lease.worker]
        self._forget(lease)
        worker.lease = None
        if worker.phase is Phase.ENDING:
            return
        if said.broken:
            self.ground.pool.kill(worker, "its task was cancelled by force", now, self.ground.out)
        elif said.spent:
            self.ground.pool.retire(worker, "it has run a function max_calls times", now, self.ground.out)
        else:
            self.ground.pool.release(worker, now)

    def worker_gone(self, worker: Worker, death: Death) -> None:
        """The worker under a lease was reaped."""
        lease = self.leases.get(worker.lease) if worker.lease is not None else None
        if lease is not None:
            self._forget(lease)
            self.ground.send(lease.owner, LeaseLost(lease.id, Address(self.ground.me.node, worker.process), death))

    def _forget(self, lease: Lease) -> None:
        self.ground.release(lease.held)
        del self.leases[lease.id]

    def owner_gone(self, owner: ProcessId, now: float) -> None:
        """Results of its tasks would go nowhere: its requests vanish and its workers are killed."""
        self._watched.discard(owner)
        self._drop(lambda by, _job: by.process == owner, "the process that had leased it died", now)

    def job_gone(self, job: ProcessId, now: float) -> None:
        self._drop(lambda by, of: job in (by.process, of), "the driver of its job is gone", now)
        for worker in list(self.ground.pool.workers.values()):
            retired = worker.phase is Phase.ENDING and worker.kill_at is None and worker.actor is None
            if worker.use is not None and worker.use[0] == job and (worker.phase is Phase.IDLE or retired):
                self.ground.pool.kill(worker, "the driver of its job is gone", now, self.ground.out)

    def node_gone(self, node: NodeId, now: float) -> None:
        self._drop(lambda by, _job: by.node == node, f"node {short(node)}, whose process had leased it, died", now)

    def _drop(self, theirs: Callable[[Address, bytes], bool], reason: str, now: float) -> None:
        for request in self.queue:
            if theirs(request.said.owner, request.said.job):
                self.queue.remove(*request.id)
        for lease in list(self.leases.values()):
            if theirs(lease.owner, lease.job):
                self.ground.pool.kill(self.ground.pool[lease.worker], reason, now, self.ground.out)

    def cluster_changed(self) -> None:
        """A new ClusterView: what waits may have a better place, or none at all any more."""
        for request in self.queue:
            if (reason := self._impossible(request.said)) is not None:
                self.queue.remove(*request.id)
                self._refuse(request, "TaskUnschedulableError", reason)
            elif request.said.hops == 0 and self._redirect(request):
                self.queue.remove(*request.id)

    # -- decisions

    def _impossible(self, said: RequestLease) -> str | None:
        """Why no wait could ever help: a hard affinity to a node that is dead or was never there."""
        shape = said.shape
        if shape.strategy != "NODE" or shape.soft or shape.node == self.ground.me.node:
            return None
        target = self.ground.others.get(shape.node)
        return None if target is not None and target.alive else explain(shape, self.ground.nodes())

    def _redirect(self, request: Request) -> bool:
        """Send the request elsewhere if that is better. A request is moved once: two busy nodes would play ball with it."""
        said, me = request.said, self.ground.me.node
        if said.hops > 0 or not self.ground.others:
            return False
        to = choose(said.shape, me, self.ground.nodes(), said.near, self._turn)
        self._turn += 1
        if to is None or to == me:
            return False
        # Until the next view this is all we know of it; without it every request of a burst would go to one free CPU.
        other = self.ground.others[to]
        left = dict(other.available)
        take(left, said.shape.amounts, force=True)
        self.ground.others[to] = msgspec.structs.replace(other, available=left)
        self.ground.send(said.owner, LeaseRedirected(said.request, to))
        return True

    def settle(self, now: float) -> Counter[str]:
        """Grant what can be granted. Returns how many requests lack nothing but a worker, by the command that starts one."""
        missing: Counter[str] = Counter()
        if self.ground.pool.stopped_until(now) is not None:
            self._refuse_all(now)
            return missing
        self._settled_at = now
        free = dict(self.ground.free)

        def visit(request: Request) -> Verdict:
            amounts, env = request.said.shape.amounts, request.said.shape.env
            if not fits(free, amounts):
                return Verdict.FULL
            command = ""
            if env and (made := self.ground.environments.want(env, now, self.ground.out)) is not None:
                if made.standing is Standing.FAILED:
                    self._refuse(request, "RuntimeEnvSetupError", made.reason)
                    return Verdict.SERVED
                if made.standing is Standing.MAKING:
                    return Verdict.FULL  # without the room: others use it meanwhile
                command = made.command
            take(free, amounts)  # also for who waits for a worker to start: the room is theirs
            worker = self.ground.pool.idle_for((request.said.job, env), command)
            if worker is None:
                missing[command] += 1
                return Verdict.KEPT
            self._grant(request, worker, now)
            return Verdict.SERVED

        blocked = {worker.process for worker in self.ground.pool.workers.values() if worker.blocked}
        self.queue.pass_around(visit, (lambda request: request.said.owner.process in blocked) if blocked else None)
        if missing and self.ground.pool.room() <= 0:
            self._cut_a_knot(now)
        self._recall(now)
        self._tell_the_waiting(now)
        self.ground.queued = list(self._demands())
        return missing

    def _grant(self, request: Request, worker: Worker, now: float) -> None:
        said = request.said
        self._granted += 1
        lease = Lease(
            self._granted, said.owner, said.job, request.key, said.shape.amounts, self.ground.hold(said.shape.amounts),
            worker.process, said.retriable, now,
        )  # fmt: skip
        self.leases[lease.id] = lease
        worker.phase, worker.since, worker.lease, worker.use = Phase.LEASED, now, lease.id, (said.job, said.shape.env)
        self.ground.send(said.owner, LeaseGranted(said.request, lease.id, Address(self.ground.me.node, worker.process), worker.pid))
        if said.owner.node != self.ground.me.node and said.owner.process not in self._watched:
            self._watched.add(said.owner.process)
            self.ground.send(Address(said.owner.node, said.owner.node), WatchProcess(said.owner.process, self.ground.me))

    def _refuse(self, request: Request, kind: str, message: str) -> None:
        self.ground.send(request.said.owner, LeaseRefused(request.said.request, Failure(kind, message=message)))

    def refuse_all(self, reason: str) -> None:
        for request in self.queue:
            self.queue.remove(*request.id)
            self._refuse(request, "NodeDiedError", reason)

    def _refuse_all(self, now: float) -> None:
        if self.queue:
            message = self.why_stopped(now)
            for request in self.queue:
                self.queue.remove(*request.id)
                self._refuse(request, "WorkerCrashedError", message)

    def why_stopped(self, now: float) -> str:
        """What to tell whoever wants a worker from a pool that has stopped."""
        pool = self.ground.pool
        until, death = pool.stopped_until(now), pool.last_death
        wait = "" if until is None else f" It tries again in {until - now:.0f} s."
        how, log = "", ""
        if death is not None:
            how = death.reason or (f"signal {death.signal}" if death.signal is not None else f"exit code {death.exit_code}")
            log = f"\nLast output of worker {death.pid} ({death.log_path}):\n{death.log_tail}" if death.log_tail else ""
        node = short(self.ground.me.node)
        return (
            f"{config.START_DEATHS} workers of node {node} died within {config.START_DEATHS_S:.0f} s before their first "
            f"task, the last one by {how or 'unknown causes'}; the node has stopped starting workers.{wait}{log}"
        )

    def _cut_a_knot(self, now: float) -> None:
        """Every process that may exist waits for a task that has no process: fail one request, so that its waiter goes on."""
        holders = [worker for worker in self.ground.pool.workers.values() if worker.lease is not None]
        if not holders or not all(worker.blocked for worker in holders) or now < self._cut_at + KNOT_S:
            return
        self._cut_at = now
        request = max(self.queue, key=lambda waiting: waiting.since)
        self.queue.remove(*request.id)
        pool, node = self.ground.pool, short(self.ground.me.node)
        self._refuse(
            request,
            "DeadlockError",
            f"all {len(holders)} workers of node {node} wait in get() for tasks that have no process left to run in "
            f"(the limit is {pool.limit} processes for {pool.cpus} CPUs). Who waits for whom: {self._chain(request)}. Do not wait "
            "for tasks inside tasks that deep: pass references on instead of their values, or return them.",
        )

    def _chain(self, request: Request) -> str:
        """Who waits for the task of this request, and who for that one, up to the driver."""
        names, by = [], request.said.owner.process
        while (worker := self.ground.pool.get(by)) is not None and worker.lease is not None:
            names.append(f"worker {worker.pid}")
            by = self.leases[worker.lease].owner.process
        if len(names) > 8:
            names[4:-4] = [f"{len(names) - 8} more"]
        return " <- ".join(["the task without a process", *names, "the driver"])

    def _recall(self, now: float) -> None:
        """Ask back leases that stand in the way of someone who has less."""
        waiting = next((r for r in sorted(self.queue, key=lambda r: r.since) if self._is_stuck(r, now)), None)
        if waiting is None or now < self._recalled_at + config.RECALL_AFTER_S:
            return
        coming = dict(self.ground.free)
        for lease in self.leases.values():
            if lease.recalled:
                _add(coming, lease.held)
        per_job = Counter(lease.job for lease in self.leases.values())
        per_class = Counter((lease.owner.process, lease.key) for lease in self.leases.values())
        for lease in sorted(self.leases.values(), key=lambda held: (-per_job[held.job], held.since)):
            if fits(coming, waiting.said.shape.amounts):
                return
            if lease.recalled or not lease.held or not self._has_more(lease, waiting, per_job, per_class):
                continue
            lease.recalled = True
            self._recalled_at = now
            _add(coming, lease.held)
            self.ground.send(lease.owner, LeaseRecalled(lease.id, self.ground.me.node))

    def _is_stuck(self, request: Request, now: float) -> bool:
        amounts = request.said.shape.amounts
        return now >= request.since + config.RECALL_AFTER_S and fits(self.ground.total, amounts) and not self.ground.fits(amounts)

    @staticmethod
    def _has_more(lease: Lease, waiting: Request, per_job: Counter[bytes], per_class: Counter[tuple[ProcessId, ShapeKey]]) -> bool:
        if lease.job != waiting.said.job:
            return per_job[lease.job] > per_job[waiting.said.job]
        holder, asker = (lease.owner.process, lease.key), (waiting.said.owner.process, waiting.key)
        return holder != asker and per_class[holder] > per_class[asker]

    def _tell_the_waiting(self, now: float) -> None:
        for request in self.queue:
            if not request.told and now >= request.since + config.LEASE_TOLD_S:
                self._tell(request, infeasible=not feasible(request.said.shape, self.ground.nodes()), now=now)

    def _tell(self, request: Request, *, infeasible: bool, now: float = 0.0) -> None:
        shape = request.said.shape
        request.told = self.ground.environments.why_waiting(shape.env, now) or explain(shape, self.ground.nodes())
        self.ground.send(request.said.owner, LeaseWaiting(request.said.request, infeasible, request.told))

    def _demands(self) -> Iterator[QueuedDemand]:
        for oldest, count in self.queue.shapes():
            yield QueuedDemand(oldest.said.shape.amounts, count, oldest.told or f"Needs {in_words(oldest.said.shape.amounts)}.")

    # -- memory

    def end_for_memory(self, reason: str, now: float) -> bool:
        """Kill one lease's worker: the newest that may be tried again, else the newest. Never the only one that runs."""
        running = [lease for lease in self.leases.values() if self.ground.pool[lease.worker].phase is Phase.LEASED]
        if len(running) < 2:
            return False
        victim = max(running, key=lambda lease: (lease.retriable, lease.since, lease.id))
        self.ground.pool.kill(self.ground.pool[victim.worker], reason, now, self.ground.out, oom=True)
        return True

    def deadline(self) -> float | None:
        """When `settle` next has something to do without an event."""
        times = []
        for request in self.queue:
            if not request.told:
                times.append(request.since + config.LEASE_TOLD_S)
            # Once it is stuck, only an event can make someone's lease worth recalling.
            if (stuck := max(request.since, self._recalled_at) + config.RECALL_AFTER_S) > self._settled_at:
                times.append(stuck)
        if self.queue and (again := self._cut_at + KNOT_S) > self._settled_at:
            times.append(again)
        return min(times, default=None)

    def check(self) -> None:
        self.queue.check()
        for lease in self.leases.values():
            worker = self.ground.pool.get(lease.worker)
            assert worker is not None, f"the worker of lease {lease.id} is gone"
            assert worker.lease == lease.id, f"the worker of lease {lease.id} does not know it"
            assert worker.phase in (Phase.LEASED, Phase.ENDING), f"worker of lease {lease.id} is {worker.phase}"
            lent = {"CPU"} if worker.blocked else set()
            assert {k: v for k, v in lease.held.items() if v} == {k: v for k, v in lease.amounts.items() if v and k not in lent}
        for worker in self.ground.pool.workers.values():
            assert worker.lease is None or worker.lease in self.leases, f"worker {worker.process.hex()} names a lease that is gone"


def _add(to: Amounts, amounts: Amounts) -> None:
    for name, units in amounts.items():
        to[name] = to.get(name, 0) + units
