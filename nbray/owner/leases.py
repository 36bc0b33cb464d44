"""Leases: workers that are ours until we give them back, and the queues of tasks that wait for one.

A pool holds the tasks of one shape (resources, placement, environment) and the leases for it. A lease with nothing pushed
takes the next task; a lease whose pushed work is estimated below PIPELINE_TARGET_S takes more, so that short tasks do not
wait for a round trip each. Estimates are per function and come from what its tasks took.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import msgspec

from nbray import config
from nbray.ids import Address, FunctionId, NodeId, ProcessId, object_id
from nbray.machine import Effect, Send
from nbray.owner import obituary
from nbray.owner.objects import ObjectTable
from nbray.owner.records import PUSHED, QUEUED, Lease, LeasePool, Notice, OwnedTask
from nbray.wire.messages import (
    CancelLeaseRequest,
    Death,
    Dependency,
    Failure,
    LeaseGranted,
    LeaseLost,
    LeaseRecalled,
    LeaseRedirected,
    LeaseRefused,
    LeaseWaiting,
    Message,
    PushCall,
    PushTask,
    RecallTasks,
    RequestLease,
    ReturnLease,
    Stuck,
    TasksReturned,
)

#: A task shorter than this costs its worker this much all the same.
SHORTEST_S = 20e-6
LOOKED_AT = 1000  #: of a queue, for one of some cell


class LeaseTable:
    """Steps pools and leases; appends effects to `out`."""

    def __init__(self, me: Address, objects: ObjectTable, out: list[Effect]) -> None:
        self.me = me
        self.job = me.process  #: the driver's process id; a worker learns it with each task
        self.objects = objects
        self.out = out
        self.attached = False
        self.pools: dict[str, LeasePool] = {}
        self.definitions: dict[FunctionId, Message] = {}  #: DefineFunction of every function submitted
        self.introduction: Message | None = None  #: DefineJob, sent to a worker before anything else
        self.late = 0
        self.now = 0.0
        self.fail: Callable[[OwnedTask, Failure], None]  #: a task that no lease will run
        self.lost_argument: Callable[[OwnedTask], bool]  #: whether a queued task has to wait for an argument again
        self.streaming: Callable[[OwnedTask], PushTask]  #: the push of a generator, as things stand
        self.attempt_lost: Callable[[OwnedTask, NodeId], None]  #: a generator's worker is gone
        self._estimates: dict[FunctionId, float] = {}
        self._known: dict[ProcessId, set[bytes]] = {}  #: what each leased worker has been told
        self._requests: dict[int, LeasePool] = {}
        self._next_request = 1
        self._by_worker: dict[ProcessId, Lease] = {}
        self.due: dict[str, None] = {}  #: keys of pools to be pumped before the step ends

    # ------------------------------------------------------------------------------------------ queueing and pushing

    def join(self, task: OwnedTask) -> None:
        """A task that has its arguments, behind those that have come before it."""
        queue = self.enqueue(task).queue
        # The first of a long queue was looked at when something changed last, and as many leases were asked for as may be.
        if len(queue) <= config.LEASE_REQUESTS:
            self.pump(self.pools[task.key])

    def pump_due(self) -> None:
        due, self.due = self.due, {}
        for key in due:
            self.pump(self.pools[key])

    def enqueue(self, task: OwnedTask, front: bool = False) -> LeasePool:
        assert task.shape is not None
        pool = self.pools.get(task.key)
        if pool is None:
            pool = self.pools[task.key] = LeasePool(task.key, task.shape)
        task.state = QUEUED
        if front:
            pool.queue.appendleft(task)  # whoever depends on it has waited once already
        else:
            pool.queue.append(task)
        return pool

    def cancelled(self, key: str) -> None:
        """A task of the pool with that key will not run. After the last that waits the node hears that nobody asks."""
        pool = self.pools.get(key)
        if pool is None:
            return
        queue = pool.queue
        while queue and queue[0].state != QUEUED:
            queue.popleft()
        if not queue:
            self.due[key] = None

    def again(self, task: OwnedTask) -> None:
        task.push = msgspec.structs.replace(task.push, attempt=task.push.attempt + 1)
        self.enqueue(task, front=True)

    def pump(self, pool: LeasePool) -> None:
        """Push what can be pushed, then ask for as many leases as the rest could use."""
        queue = pool.queue
        while queue:
            task = queue[0]
            if task.state != QUEUED:
                queue.popleft()  # cancelled while it waited
                continue
            if task.needs and self.lost_argument(task):
                if queue and queue[0] is task:
                    queue.popleft()
                continue
            lease = self._lease_for(pool, task)
            if lease is None:
                break
            queue.popleft()
            self._push(task, lease)
        if not self.attached:
            return
        if queue:
            # Two more than we have: the number of requests in flight doubles with each round trip and wastes few.
            allowed = min(len(queue), len(pool.leases) + 2, config.LEASE_REQUESTS)
            while len(pool.requests) < allowed:
                self._request(pool, queue[0])
        elif pool.requests:
            for request, node in pool.requests.items():
                del self._requests[request]
                self.out.append(Send(Address(node, node), CancelLeaseRequest(request, self.me.process)))
            pool.requests.clear()

    def _lease_for(self, pool: LeasePool, task: OwnedTask) -> Lease | None:
        if pool.idle:
            return next(reversed(pool.idle.values()))  # the warmest; the coldest may expire
        if task.retries == 0 or task.push.max_calls:  # type: ignore[union-attr]
            # Behind another task it could be lost without anyone knowing whether it had begun; or its worker ends before it.
            return None
        estimate = self._estimates.get(_function(task))
        if estimate is None or estimate > config.PIPELINE_TARGET_S:
            return None
        best: Lease | None = None
        for lease in pool.leases.values():
            if lease.blocked or lease.recalled or len(lease.running) >= config.PIPELINE_MAX:
                continue
            if lease.busy_since + config.PIPELINE_TARGET_S <= self.now:
                continue  # what runs there takes longer than its estimate: nobody knows how long
            if lease.load_s + estimate <= config.PIPELINE_TARGET_S and (best is None or lease.load_s < best.load_s):
                best = lease
        return best

    def _push(self, task: OwnedTask, lease: Lease) -> None:
        push = task.push
        if task.needs:
            push = task.push = msgspec.structs.replace(push, dependencies=self.resolved(task))
        if push.stream is not None:
            push = task.push = self.streaming(task)
        if push.owner.node != self.me.node:
            push = task.push = self.readdressed(push)
        if lease.devices:
            push = task.push = msgspec.structs.replace(push, devices=lease.devices)
        worker = lease.worker
        known = self._known.get(worker.process)
        if known is None:
            known = self._known[worker.process] = set()
        function: FunctionId = push.function  # type: ignore[union-attr]
        if function not in known:
            self.introduce(worker, known, function)
        if not lease.running:
            lease.idle_since = None
            lease.busy_since = self.now
            lease.pool.idle.pop((lease.node, lease.id), None)
        lease.running[push.task] = task
        lease.load_s += self._estimates.get(function, config.PIPELINE_TARGET_S)
        task.lease = lease
        task.state = PUSHED
        self.out.append(Send(worker, push))

    def readdressed(self, push: PushTask | PushCall) -> PushTask | PushCall:
        """It was submitted under a node that is gone: its report comes to where we are now."""
        job = self.me if push.job.process == self.me.process else push.job
        return msgspec.structs.replace(push, owner=self.me, job=job)

    def introduce(self, worker: Address, known: set[bytes], function: FunctionId) -> None:
        """Tell a worker what it must know before its first task of this function."""
        if b"job" not in known and self.introduction is not None:
            known.add(b"job")
            self.out.append(Send(worker, self.introduction))
        if function not in known:
            known.add(function)
            definition = self.definitions.get(function)
            if definition is not None:
                self.out.append(Send(worker, definition))

    def resolved(self, task: OwnedTask) -> list[Dependency]:
        dependencies = []
        for held in task.needs or []:
            value = self.objects.objects[held.object].value
            assert value is not None
            dependencies.append(Dependency(held.object, held.owner, value))
        return dependencies

    # ------------------------------------------------------------------------------------------ asking, and what the node answers

    def _request(self, pool: LeasePool, task: OwnedTask, node: NodeId | None = None, hops: int = 0) -> None:
        request = self._next_request
        self._next_request += 1
        near: dict[NodeId, int] = {}
        for held in task.needs or []:
            value = self.objects.objects[held.object].value
            if value is not None and value.location is not None:
                near[value.location.node] = near.get(value.location.node, 0) + value.location.size
        to = node or self.me.node
        pool.requests[request] = to
        self._requests[request] = pool
        message = RequestLease(request, self.me, pool.shape, hops, list(near.items()), task.retries != 0, self.job)
        self.out.append(Send(Address(to, to), message))

    def granted(self, event: LeaseGranted, now: float) -> None:
        self.now = now
        pool = self._requests.pop(event.request, None)
        node = event.worker.node
        if pool is None:
            self.late += 1
            self.out.append(Send(Address(node, node), ReturnLease(event.lease, self.me.process)))
            return
        del pool.requests[event.request]
        pool.waiting, pool.never = "", False
        lease = Lease(event.lease, node, event.worker, event.pid, pool, {}, idle_since=now, devices=event.devices)
        pool.leases[node, event.lease] = lease
        pool.idle[node, event.lease] = lease
        self._by_worker[event.worker.process] = lease
        self.pump(pool)

    def redirected(self, event: LeaseRedirected, now: float) -> None:
        pool = self._requests.pop(event.request, None)
        if pool is None:
            self.late += 1
            return
        del pool.requests[event.request]
        while pool.queue and pool.queue[0].state != QUEUED:
            pool.queue.popleft()  # cancelled while it waited
        if pool.queue:
            self._request(pool, pool.queue[0], event.to, hops=1)

    def waits(self, event: LeaseWaiting) -> None:
        pool = self._requests.get(event.request)
        if pool is None:
            self.late += 1
            return
        if pool.waiting != event.why and (event.infeasible or not pool.leases) and pool.queue:
            self.out.append(Notice(pool.queue[0].push.cell, "waiting", event.why))
        pool.waiting, pool.never = event.why, event.infeasible

    def refused(self, event: LeaseRefused) -> None:
        pool = self._requests.pop(event.request, None)
        if pool is None:
            self.late += 1
            return
        del pool.requests[event.request]
        waiting = [task for task in pool.queue if task.state == QUEUED]  # the others were cancelled while they waited
        pool.queue.clear()
        for task in waiting:
            self.fail(task, event.failure)

    def recalled(self, event: LeaseRecalled) -> None:
        for pool in self.pools.values():
            lease = pool.leases.get((event.node, event.lease))
            if lease is not None:
                lease.recalled = True
                if not lease.running:
                    self.give_back(lease)
                    self.pump(pool)
                return
        self.late += 1

    # ------------------------------------------------------------------------------------------ giving back and losing

    def give_back(self, lease: Lease, broken: bool = False, spent: bool = False) -> None:
        self._discard(lease)
        self.out.append(Send(Address(lease.node, lease.node), ReturnLease(lease.id, self.me.process, broken, spent)))

    def _spend(self, lease: Lease) -> None:
        """The worker has run a function as often as it may. What was sent behind has not begun, and goes elsewhere."""
        rest = list(lease.running.values())
        lease.running.clear()
        self._known.pop(lease.worker.process, None)
        self.give_back(lease, spent=True)
        for task in reversed(rest):
            task.lease = None
            if task.cancelled:
                self.fail(task, obituary.cancelled(task))
            else:
                self.enqueue(task, front=True)

    def spent_late(self, worker: ProcessId) -> None:
        """The same, said by a report that is otherwise late."""
        lease = self._by_worker.get(worker)
        if lease is not None:
            self._spend(lease)
            self.pump(lease.pool)

    def _discard(self, lease: Lease) -> None:
        lease.pool.leases.pop((lease.node, lease.id), None)
        lease.pool.idle.pop((lease.node, lease.id), None)
        self._by_worker.pop(lease.worker.process, None)

    def lost(self, event: LeaseLost, now: float) -> None:
        self.now = now
        self._known.pop(event.worker.process, None)
        lease = self._by_worker.get(event.worker.process)
        if lease is None or lease.id != event.lease:
            self.late += 1
            return
        self.lose(lease, lambda task: obituary.crashed(task, event.death, task.push.attempt))
        self.pump(lease.pool)

    def lose(self, lease: Lease, failure: Callable[[OwnedTask], Failure]) -> None:
        """The worker is gone: its first task was running, the others had not begun."""
        self._discard(lease)
        lost = list(lease.running.values())
        lease.running.clear()
        for position, task in reversed(list(enumerate(lost))):
            task.lease = None
            for index in range(task.push.returns):
                # It may have sealed a result and died before it could say so.
                self.objects.sealed_in_vain(object_id(task.id, index), lease.node)
            if task.push.stream is not None:
                self.attempt_lost(task, lease.node)
            if task.cancelled:
                self.fail(task, obituary.cancelled(task))
            elif position == 0 and task.retries == 0:
                self.fail(task, failure(task))
            else:
                if position == 0:
                    task.use_retry()
                self.again(task)

    def shun(self, node: NodeId) -> list[Lease]:
        """The node is gone: from now on nothing is pushed or asked there. Returns its leases, for `node_gone`."""
        gone = []
        for pool in self.pools.values():
            for lease in [x for x in pool.leases.values() if x.node == node]:
                self._known.pop(lease.worker.process, None)
                self._discard(lease)
                gone.append(lease)
            for request in [r for r, asked in pool.requests.items() if asked == node]:
                del pool.requests[request]
                del self._requests[request]
        return gone

    def node_gone(self, gone: list[Lease], node: NodeId, reason: str) -> None:
        """What ran there is retried or fails, what waited asks elsewhere."""
        for lease in gone:
            self.lose(lease, lambda task: obituary.node_gone(task, node, reason))
        self.pump_all()

    def worker_died(self, death: Death) -> None:
        self._known.pop(death.process, None)

    def end_by_force(self, lease: Lease) -> None:
        """Its first task was cancelled by force: the node kills the worker, and what was behind goes elsewhere."""
        self.give_back(lease, broken=True)
        self._known.pop(lease.worker.process, None)
        self.lose(lease, obituary.cancelled)
        self.pump(lease.pool)

    # ------------------------------------------------------------------------------------------ what workers report

    def ran(self, lease: Lease, task: OwnedTask, took_s: float, now: float, spent: bool = False) -> None:
        function = _function(task)
        before = self._estimates.get(function)
        lease.load_s -= before if before is not None else config.PIPELINE_TARGET_S
        took_s = max(took_s, SHORTEST_S)
        # Rising at once and falling slowly: one long task is a better warning than ten short ones are a promise.
        self._estimates[function] = took_s if before is None or took_s > before else before * 0.8 + took_s * 0.2
        del lease.running[task.push.task]
        lease.blocked = False
        lease.busy_since = now
        if spent:
            self._spend(lease)
        elif not lease.running:
            self._emptied(lease)

    def _emptied(self, lease: Lease) -> None:
        """Nothing is pushed to it any more: all of it is done, or came back."""
        lease.load_s = 0.0
        if lease.recalled:
            self.give_back(lease)
        else:
            lease.idle_since = self.now
            lease.pool.idle[lease.node, lease.id] = lease

    def returned(self, event: TasksReturned, now: float) -> None:
        self.now = now
        lease = self._by_worker.get(event.worker)
        if lease is None:
            self.late += 1
            return
        lease.blocked = event.blocked
        lease.asked_back = False
        had_work = bool(lease.running)
        for task_id in reversed(event.tasks):
            task = lease.running.pop(task_id, None)
            if task is None:
                continue
            task.lease = None
            lease.load_s = max(0.0, lease.load_s - self._estimates.get(_function(task), config.PIPELINE_TARGET_S))
            if task.cancelled:
                self.fail(task, obituary.cancelled(task))
            else:
                self.enqueue(task, front=True)
        if had_work and not lease.running:
            self._emptied(lease)  # also the first had not begun: it waited for its arguments
        self.pump(lease.pool)

    # ------------------------------------------------------------------------------------------ time

    def tick(self, now: float) -> None:
        self.now = now
        for pool in self.pools.values():
            for lease in list(pool.idle.values()):
                assert lease.idle_since is not None
                if lease.idle_since + config.LEASE_IDLE_S > now + 1e-4:
                    break
                self.give_back(lease)
            self._recall(pool, now)

    def _recall(self, pool: LeasePool, now: float) -> None:
        """A worker sits on a task longer than foreseen, with more behind it: take those back, for whoever is free or will be."""
        if pool.queue:
            return
        for lease in pool.leases.values():
            if len(lease.running) > 1 and not lease.asked_back and lease.busy_since + config.PIPELINE_TARGET_S <= now:
                lease.asked_back = True
                self.out.append(Send(lease.worker, RecallTasks(self.me.process, len(lease.running) - 1)))

    def next_deadline(self) -> float | None:
        soonest: float | None = None
        for pool in self.pools.values():
            times = []
            if pool.idle:
                first = next(iter(pool.idle.values()))
                assert first.idle_since is not None
                times.append(first.idle_since + config.LEASE_IDLE_S)
            if not pool.queue:
                for lease in pool.leases.values():
                    overrun = lease.busy_since + config.PIPELINE_TARGET_S
                    # One task alone is looked at once, when it overruns: until then another thread may push more behind it.
                    if (len(lease.running) > 1 and not lease.asked_back) or (lease.running and overrun > self.now):
                        times.append(overrun)
            due = min(times, default=None)
            if due is not None and (soonest is None or due < soonest):
                soonest = due
        return soonest

    def pump_all(self) -> None:
        for pool in self.pools.values():
            self.pump(pool)

    def stuck(self, cell: str) -> Iterator[Stuck]:
        """What of a cell no node has a worker for."""
        for pool in self.pools.values():
            if not pool.waiting or not (pool.never or not pool.leases):
                continue
            # A long queue is nearly always of one cell.
            first = (task for task in itertools.islice(pool.queue, LOOKED_AT) if task.push.cell == cell and task.state == QUEUED)
            if (task := next(first, None)) is not None:
                yield Stuck(task.push.name, pool.waiting, pool.never)

    def why_queued(self, task: OwnedTask) -> str:
        """What the node said about tasks of this shape, if the task waits for a lease; else nothing."""
        return self.pools[task.key].waiting if task.state == QUEUED else ""

    def check(self) -> None:
        for pool in self.pools.values():
            for key, lease in pool.leases.items():
                assert (key in pool.idle) == (not lease.running), f"lease {key} is idle and busy at once"
                for task_id, task in lease.running.items():
                    assert task.state == PUSHED, (task_id.hex(), task.state)
                    assert task.lease is lease, task_id.hex()
            for request in pool.requests:
                assert self._requests[request] is pool


def _function(task: OwnedTask) -> FunctionId:
    assert isinstance(task.push, PushTask)
    return task.push.function
