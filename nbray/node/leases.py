"""Leases of one node: who gets a worker, who waits and is told why, who is sent elsewhere, whose lease is asked back. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from nbray import config
from nbray.ids import Address, NodeId, ProcessId, short
from nbray.node.bundles import Bundles
from nbray.node.devices import GPU
from nbray.node.environments import Standing
from nbray.node.ground import Ground
from nbray.node.queue import LeaseQueue, Verdict
from nbray.node.records import Lease, Phase, Request, ShapeKey, Worker, shape_key
from nbray.node.stock import Stock
from nbray.sched.policy import explain, feasible
from nbray.sched.resources import fits, in_words, take
from nbray.sched.rooms import has_room
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

    def __init__(self, ground: Ground, bundles: Bundles) -> None:
        self.ground = ground
        self.bundles = bundles
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
        elif (failure := self._impossible(said)) is not None:
            self._refuse(request, failure)
        elif not self._redirect(request, now):
            self.queue.add(request)
            if said.shape.group:
                self.bundles.learn(said.shape.group)
            if not self._feasible(request):
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
        lease.stock.release(lease.held)
        self.ground.devices.give(lease.devices, lease.amounts)
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

    def bundle_gone(self, stock: Stock, reason: str, now: float) -> None:
        """The bundle was released: what runs in it ends."""
        for lease in [lease for lease in self.leases.values() if lease.stock is stock]:
            self.ground.pool.kill(self.ground.pool[lease.worker], reason, now, self.ground.out)

    def _drop(self, theirs: Callable[[Address, bytes], bool], reason: str, now: float) -> None:
        for request in self.queue:
            if theirs(request.said.owner, request.said.job):
                self.queue.remove(*request.id)
        for lease in list(self.leases.values()):
            if theirs(lease.owner, lease.job):
                self.ground.pool.kill(self.ground.pool[lease.worker], reason, now, self.ground.out)

    def cluster_changed(self, now: float) -> None:
        """A new ClusterView, or news of a group: what waits may have a better place, or none at all any more."""
        for request in self.queue:
            if (failure := self._impossible(request.said)) is not None:
                self.queue.remove(*request.id)
                self._refuse(request, failure)
            elif self._redirect(request, now):
                self.queue.remove(*request.id)

    # -- decisions

    def _impossible(self, said: RequestLease) -> Failure | None:
        """Why no wait could ever help: its group was removed, or it must run on a node that is dead or was never there."""
        shape = said.shape
        if (why := self.bundles.refusal(shape)) is not None:
            return Failure("TaskPlacementGroupRemoved", message=why, fields={"group": shape.group.hex()})
        if shape.strategy != "NODE" or shape.soft or shape.node == self.ground.me.node:
            return None
        target = self.ground.others.get(shape.node)
        if target is not None and target.alive:
            return None
        return Failure("TaskUnschedulableError", message=explain(shape, self.ground.nodes()))

    def _feasible(self, request: Request) -> bool:
        """Whether a node of the cluster could ever hold it. A group that is not placed yet may be."""
        shape = request.said.shape
        return self.bundles.why(shape) is not None or feasible(shape, self.ground.nodes())

    def _redirect(self, request: Request, now: float) -> bool:
        """Send the request elsewhere if that is better. A request is moved once: two busy nodes would play ball with it. One for
        a placement group goes where the group's bundles are, and on from there only to one that has room."""
        said, me = request.said, self.ground.me.node
        if not self.ground.others or (said.hops > 0 and not said.shape.group):
            return False
        if said.shape.group and not self.bundles.is_open(said.shape.group):
            return False
        here = self.ground.info()
        to = self.ground.others.choose(said.shape, here, said.near, self._turn)
        self._turn += 1
        if to is None or to == me:
            return False
        is_here = said.shape.group and any(self.bundles.stocks(said.shape))
        if is_here and (has_room(here, said.shape) or not has_room(self.ground.others[to], said.shape)):
            return False
        self.ground.promise(to, said.shape, now)
        self.ground.send(said.owner, LeaseRedirected(said.request, to))
        return True

    def settle(self, now: float) -> Counter[str]:
        """Grant what can be granted. Returns how many requests lack nothing but a worker, by the command that starts one."""
        missing: Counter[str] = Counter()
        if self.ground.pool.stopped_until(now) is not None:
            self._refuse_all(now)
            return missing
        self._settled_at = now
        if self.ground.closed:
            self._tell_the_waiting(now)
            return missing
        if not self.queue:  # most of the time: after every event of the node this is asked
            self.ground.queued = []
            return missing
        free: dict[Stock, Amounts] = {}  #: what is left of each, once those who came before have theirs

        def visit(request: Request) -> Verdict:
            shape, env = request.said.shape, request.said.shape.env
            for stock in self.bundles.stocks(shape):
                left = free.setdefault(stock, dict(stock.free))
                if fits(left, shape.amounts):
                    break
            else:
                return Verdict.FULL
            if self.ground.devices.choose(shape.amounts) is None:
                return Verdict.FULL
            command = ""
            if env and (made := self.ground.environments.want(env, now, self.ground.out)) is not None:
                if made.standing is Standing.FAILED:
                    self._refuse(request, Failure("RuntimeEnvSetupError", message=made.reason))
                    return Verdict.SERVED
                if made.standing is Standing.MAKING:
                    return Verdict.FULL  # without the room: others use it meanwhile
                command = made.command
            take(left, shape.amounts)  # also for who waits for a worker to start: the room is theirs
            worker = self.ground.pool.idle_for((request.said.job, env, GPU in shape.amounts), command)
            if worker is None:
                missing[command] += 1
                return Verdict.KEPT
            self._grant(request, worker, stock, now)
            return Verdict.SERVED

        blocked = {worker.process for worker in self.ground.pool.workers.values() if worker.blocked}
        self.queue.pass_around(visit, (lambda request: request.said.owner.process in blocked) if blocked else None)
        if missing and self.ground.pool.room() <= 0:
            self._cut_a_knot(now)
        self._recall(now)
        self._tell_the_waiting(now)
        self.ground.queued = list(self._demands())
        return missing

    def _grant(self, request: Request, worker: Worker, stock: Stock, now: float) -> None:
        said = request.said
        self._granted += 1
        lease = Lease(
            self._granted, said.owner, said.job, request.key, said.shape.amounts, stock.hold(said.shape.amounts),
            worker.process, said.retriable, now, stock, self.ground.devices.take(said.shape.amounts),
        )  # fmt: skip
        self.leases[lease.id] = lease
        worker.phase, worker.since, worker.lease = Phase.LEASED, now, lease.id
        worker.use = said.job, said.shape.env, GPU in said.shape.amounts
        here = Address(self.ground.me.node, worker.process)
        self.ground.send(said.owner, LeaseGranted(said.request, lease.id, here, worker.pid, lease.devices))
        if said.owner.node != self.ground.me.node and said.owner.process not in self._watched:
            self._watched.add(said.owner.process)
            self.ground.send(Address(said.owner.node, said.owner.node), WatchProcess(said.owner.process, self.ground.me))

    def _refuse(self, request: Request, failure: Failure) -> None:
        self.ground.send(request.said.owner, LeaseRefused(request.said.request, failure))

    def refuse_all(self, reason: str) -> None:
        for request in self.queue:
            self.queue.remove(*request.id)
            self._refuse(request, Failure("NodeDiedError", message=reason))

    def _refuse_all(self, now: float) -> None:
        if self.queue:
            message = self.why_stopped(now)
            for request in self.queue:
                self.queue.remove(*request.id)
                self._refuse(request, Failure("WorkerCrashedError", message=message))

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
        message = (
            f"all {len(holders)} workers of node {node} wait in get() for tasks that have no process left to run in "
            f"(the limit is {pool.limit} processes for {pool.cpus} CPUs). Who waits for whom: {self._chain(request)}. Do not wait "
            "for tasks inside tasks that deep: pass references on instead of their values, or return them."
        )
        self._refuse(request, Failure("DeadlockError", message=message))

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
        stock = next(stock for stock in self.bundles.stocks(waiting.said.shape) if fits(stock.total, waiting.said.shape.amounts))
        coming = dict(stock.free)
        for lease in self.leases.values():
            if lease.recalled and lease.stock is stock:
                _add(coming, lease.held)
        per_job = Counter(lease.job for lease in self.leases.values())
        per_class = Counter((lease.owner.process, lease.key) for lease in self.leases.values())
        for lease in sorted(self.leases.values(), key=lambda held: (-per_job[held.job], held.since)):
            if fits(coming, waiting.said.shape.amounts):
                return
            if lease.stock is not stock or lease.recalled or not lease.held:
                continue
            if not self._has_more(lease, waiting, per_job, per_class):
                continue
            lease.recalled = True
            self._recalled_at = now
            _add(coming, lease.held)
            self.ground.send(lease.owner, LeaseRecalled(lease.id, self.ground.me.node))

    def _is_stuck(self, request: Request, now: float) -> bool:
        shape = request.said.shape
        if now < request.since + config.RECALL_AFTER_S or self.bundles.room_for(shape, shape.amounts) is not None:
            return False
        return any(fits(stock.total, shape.amounts) for stock in self.bundles.stocks(shape))

    @staticmethod
    def _has_more(lease: Lease, waiting: Request, per_job: Counter[bytes], per_class: Counter[tuple[ProcessId, ShapeKey]]) -> bool:
        if lease.job != waiting.said.job:
            return per_job[lease.job] > per_job[waiting.said.job]
        holder, asker = (lease.owner.process, lease.key), (waiting.said.owner.process, waiting.key)
        return holder != asker and per_class[holder] > per_class[asker]

    def _tell_the_waiting(self, now: float) -> None:
        for request in self.queue:
            if not request.told and now >= request.since + config.LEASE_TOLD_S:
                self._tell(request, infeasible=not self._feasible(request), now=now)

    def _tell(self, request: Request, *, infeasible: bool, now: float = 0.0) -> None:
        shape, bundles = request.said.shape, self.bundles
        why = self.ground.closed or bundles.why(shape) or self.ground.environments.why_waiting(shape.env, now)
        request.told = why or explain(shape, self.ground.nodes())
        self.ground.send(request.said.owner, LeaseWaiting(request.said.request, infeasible, request.told))

    def _demands(self) -> Iterator[QueuedDemand]:
        for oldest, count in self.queue.shapes():
            yield QueuedDemand(
                oldest.said.shape.amounts, count, oldest.told or f"Needs {in_words(oldest.said.shape.amounts)}. Waits for its turn."
            )

    # -- memory

    def end_for_memory(self, reason: str, now: float) -> bool:
        """Kill one lease's worker: the newest that may be tried again, else the newest. Never the only one that runs."""
        running = [lease for lease in self.leases.values() if self.ground.pool[lease.worker].phase is Phase.LEASED]
        if len(running) < 2:
            return False
        victim = max(running, key=lambda lease: (lease.retriable, lease.since, lease.id))
        self.ground.pool.kill(self.ground.pool[victim.worker], reason, now, self.ground.out, oom=True)
        return True

    def end_what_others_may_run(self, reason: str, now: float) -> None:
        """Kill the workers of tasks that processes of other nodes would send elsewhere if this node were taken for dead."""
        for lease in list(self.leases.values()):
            if lease.retriable and lease.owner.node != self.ground.me.node:
                self.ground.pool.kill(self.ground.pool[lease.worker], reason, now, self.ground.out)

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
