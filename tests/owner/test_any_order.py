"""The owner among nodes and workers that obey the protocol and take their time: messages keep their order per sender, and nothing
else is certain. When everybody has said everything, every task has ended once, and nothing is held by anyone."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbray.ids import Address, object_id
from nbray.machine import Send, Tick
from nbray.owner import records as r
from nbray.wire import messages as m
from tests.owner.desk import NODE, OTHER_NODE, THIRD_NODE, Desk, death, failed, inline, stored

NODES = [NODE, OTHER_NODE, THIRD_NODE]


class Worker:
    """A leased process: what it was sent, in order; the first is what runs."""

    def __init__(self, at: Address, lease: int) -> None:
        self.at, self.lease = at, lease
        self.tasks: deque[m.PushTask] = deque()
        self.returned = False  #: its lease was given back
        self.blocked = False


class Node:
    """A daemon: requests that wait for it, and the workers that it has granted."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.alive = True
        self.requests: deque[m.RequestLease] = deque()
        self.workers: dict[int, Worker] = {}
        self.copies: set[bytes] = set()


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.nodes = {name: Node(name) for name in NODES}
        self.words: dict[bytes, deque[Any]] = {}  #: what each process and daemon has said and the owner has not heard
        self.tasks: list[r.OwnedTask] = []
        self.held: Counter[bytes] = Counter()
        self.ended: Counter[tuple[bytes, int]] = Counter()
        self.executions: Counter[bytes] = Counter()
        self.allowed: dict[bytes, int] = {}
        self.judged: list[r.JudgeException] = []
        self.dead: set[bytes] = set()
        self.count = 0
        self.grants = 0

    # -- machinery

    def tell(self, event: Any) -> None:
        self.carry(self.desk.tell(event))

    def carry(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    self.heard(to, message)
                case r.Finished(task=task):
                    self.ended[task.id, task.push.attempt] += 1
                    assert self.ended[task.id, task.push.attempt] == 1, "one attempt ended twice"
                case r.JudgeException():
                    self.judged.append(effect)

    def say(self, by: bytes, message: Any) -> None:
        self.words.setdefault(by, deque()).append(message)

    def heard(self, to: Address, message: Any) -> None:
        """A node or worker takes what the owner says; whoever is dead does not."""
        node = self.nodes[to.node]
        if not node.alive:
            return
        match message:
            case m.RequestLease():
                node.requests.append(message)
            case m.CancelLeaseRequest(request=request):
                node.requests = deque(each for each in node.requests if each.request != request)
            case m.ReturnLease(lease=lease, broken=broken):
                worker = node.workers.get(lease)
                if worker is not None:
                    assert broken or not worker.tasks, "a lease was given back under a running task"
                    self.end_worker(node, worker)
            case m.FreeObjects(objects=objects):
                node.copies -= set(objects)
            case m.PushTask():
                worker = self.worker_at(to)
                if worker is None:
                    assert to.process in self.dead, "a task was sent to a worker that is not leased"
                    return
                if worker.blocked:
                    self.say(to.process, m.TasksReturned(to.process, [message.task], True))
                    return
                assert not worker.tasks or self.task(message.task).retries != 0, "a task without retries was sent behind another"
                worker.tasks.append(message)
                if len(worker.tasks) == 1:
                    self.begins(message)
            case m.RecallTasks(count=count):
                worker = self.worker_at(to)
                if worker is not None:
                    back = [worker.tasks.pop() for _ in range(min(count, len(worker.tasks) - 1))]
                    self.say(to.process, m.TasksReturned(to.process, [each.task for each in reversed(back)]))
            case m.CancelTask(task=each):
                worker = self.worker_at(to)
                if worker is not None and any(push.task == each for push in list(worker.tasks)[1:]):
                    push = next(push for push in worker.tasks if push.task == each)
                    worker.tasks.remove(push)
                    self.say(
                        to.process, m.TaskDone(each, push.attempt, to.process, [failed(m.Failure("TaskCancelledError"))], 0, 0)
                    )

    def worker_at(self, at: Address) -> Worker | None:
        return next((worker for worker in self.nodes[at.node].workers.values() if worker.at == at), None)

    def task(self, task_id: bytes) -> r.OwnedTask:
        return next(task for task in self.tasks if task.id == task_id)

    def begins(self, push: m.PushTask) -> None:
        self.executions[push.task] += 1

    def end_worker(self, node: Node, worker: Worker) -> None:
        del node.workers[worker.lease]
        self.dead.add(worker.at.process)
        self.words.pop(worker.at.process, None)

    def all_workers(self) -> list[tuple[Node, Worker]]:
        return [(node, worker) for node in self.nodes.values() for worker in node.workers.values()]

    # -- what the process does

    @rule(
        retries=st.sampled_from([0, 1, 3, -1]),
        needs=st.lists(st.integers(0, 99), max_size=2),
        nested=st.integers(0, 99),
        function=st.integers(1, 2),
        two=st.booleans(),
        exceptions=st.booleans(),
    )
    def a_task_is_submitted(self, retries: int, needs: list[int], nested: int, function: int, two: bool, exceptions: bool) -> None:
        held = sorted(self.held)
        picked = list(dict.fromkeys(held[each % len(held)] for each in needs)) if held else []
        inner = [m.Held(held[nested % len(held)], self.desk.state.me)] if held and nested % 3 == 0 else []
        task = self.desk.task(needs=picked, nested=inner, retries=retries, function=function, returns=1 + two)
        task.retry_exceptions = 1 if exceptions else 0
        self.tasks.append(task)
        self.allowed[task.id] = 10**6 if retries < 0 else 1 + retries + task.retry_exceptions
        for index in range(1 + two):
            self.held[object_id(task.id, index)] += 1
        self.tell(r.Submitted(task))

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 99))
    def a_reference_is_dropped(self, index: int) -> None:
        each = sorted(self.held)[index % len(self.held)]
        self.held[each] -= 1
        self.held += Counter()
        self.tell(r.Dropped([each]))

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 99), force=st.booleans())
    def a_task_is_cancelled(self, index: int, force: bool) -> None:
        self.tell(r.CancelAsked(sorted(self.held)[index % len(self.held)], force))

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 99))
    def somebody_waits(self, index: int) -> None:
        self.tell(r.Wanted([sorted(self.held)[index % len(self.held)]], False))

    @precondition(lambda self: self.judged)
    @rule(retry=st.booleans())
    def an_exception_is_judged(self, retry: bool) -> None:
        judge = self.judged.pop(0)
        self.tell(r.RetryDecided(judge.task.id, judge.task.push.attempt, retry, judge.values))

    @rule(seconds=st.sampled_from([0.001, 0.006, 0.2]))
    def time_passes(self, seconds: float) -> None:
        self.desk.now += seconds
        due = self.desk.state.next_deadline()
        if due is not None and due <= self.desk.now:
            self.tell(Tick())

    # -- what nodes and workers do

    @rule(index=st.integers(0, 9), where=st.sampled_from(["here", "here", "elsewhere", "refused"]))
    def a_request_is_answered(self, index: int, where: str) -> None:
        nodes = [node for node in self.nodes.values() if node.alive and node.requests]
        if not nodes:
            return
        node = nodes[index % len(nodes)]
        request = node.requests.popleft()
        others = [each.name for each in self.nodes.values() if each.alive and each is not node]
        if where == "elsewhere" and others and not request.hops:
            self.say(node.name, m.LeaseRedirected(request.request, others[index % len(others)]))
        elif where == "refused" and index > 5:
            self.say(node.name, m.LeaseRefused(request.request, m.Failure("WorkerCrashedError", message="the pool stopped")))
        else:
            self.grants += 1
            self.count += 1
            worker = Worker(Address(node.name, b"w" + self.count.to_bytes(7, "big")), self.grants)
            node.workers[worker.lease] = worker
            self.say(node.name, m.LeaseGranted(request.request, worker.lease, worker.at, 1))

    @rule(
        index=st.integers(0, 99), outcome=st.sampled_from(["inline", "stored", "raises"]), took=st.sampled_from([1e-4, 1e-3, 1.0])
    )
    def a_task_ends(self, index: int, outcome: str, took: float) -> None:
        busy = [(node, worker) for node, worker in self.all_workers() if worker.tasks]
        if not busy:
            return
        node, worker = busy[index % len(busy)]
        push = worker.tasks.popleft()
        worker.blocked = False
        if outcome == "stored":
            values = [stored(node.name) for _ in range(push.returns)]
            node.copies |= {object_id(push.task, each) for each in range(push.returns)}
        else:
            values = [inline(each) for each in range(push.returns)] if outcome == "inline" else [failed()]
        report = m.TaskDone(push.task, push.attempt, worker.at.process, values, 0, int(took * 1e9), [], outcome == "raises")
        self.say(worker.at.process, report)
        if worker.tasks:
            self.begins(worker.tasks[0])

    @rule(index=st.integers(0, 99))
    def a_task_blocks(self, index: int) -> None:
        busy = [worker for _, worker in self.all_workers() if worker.tasks and not worker.blocked]
        if busy:
            worker = busy[index % len(busy)]
            worker.blocked = True
            back = [worker.tasks.pop() for _ in range(len(worker.tasks) - 1)]
            self.say(worker.at.process, m.TasksReturned(worker.at.process, [each.task for each in reversed(back)], True))

    @rule(index=st.integers(0, 99))
    def a_worker_dies(self, index: int) -> None:
        """Its daemon has read its last words to the daemon; its words to the owner are on another path, and may come later."""
        workers = self.all_workers()
        if workers:
            node, worker = workers[index % len(workers)]
            del node.workers[worker.lease]
            self.dead.add(worker.at.process)
            self.say(node.name, m.LeaseLost(worker.lease, worker.at, death(worker.at)))

    @rule(index=st.integers(0, 99))
    def a_lease_is_recalled(self, index: int) -> None:
        workers = self.all_workers()
        if workers:
            node, worker = workers[index % len(workers)]
            self.say(node.name, m.LeaseRecalled(worker.lease, node.name))

    @rule(chance=st.integers(0, 5), which=st.sampled_from([OTHER_NODE, THIRD_NODE]))
    def a_node_dies(self, chance: int, which: bytes) -> None:
        node = self.nodes[which]
        if chance or not node.alive:
            return
        node.alive = False
        node.requests.clear()
        for worker in list(node.workers.values()):
            self.end_worker(node, worker)
        self.words.pop(which, None)
        self.say(NODE, m.NodeDied(which, "it crashed"))

    @precondition(lambda self: any(self.words.values()))
    @rule(index=st.integers(0, 99))
    def something_is_heard(self, index: int) -> None:
        speakers = [by for by, said in self.words.items() if said]
        self.tell(self.words[speakers[index % len(speakers)]].popleft())

    # -- what must hold

    @invariant()
    def no_task_runs_more_often_than_it_may(self) -> None:
        for task, count in self.executions.items():
            # Behind another it may have begun without its owner's knowing: that costs no retry. Alone it may not.
            assert count <= self.allowed[task] or self.allowed[task] > 1, task.hex()

    @invariant()
    def who_is_dead_is_asked_for_nothing(self) -> None:
        for pool in self.desk.state.tasks.leases.pools.values():
            for node in pool.requests.values():
                assert self.nodes[node].alive or any(isinstance(each, m.NodeDied) for each in self.words.get(NODE, ()))

    def teardown(self) -> None:
        for _ in range(3000):
            if any(self.words.values()):
                self.something_is_heard(0)
            elif self.judged:
                self.an_exception_is_judged(retry=False)
            elif any(worker.tasks for _, worker in self.all_workers()):
                self.a_task_ends(0, "inline", 1e-3)
            elif any(node.requests for node in self.nodes.values() if node.alive):
                self.a_request_is_answered(0, "here")
            elif self.desk.state.next_deadline() is not None:
                self.time_passes(0.2)
            else:
                break
        owner = self.desk.state
        assert not owner.tasks.tasks, [(task.id.hex(), task.state) for task in owner.tasks.tasks.values()]
        for each in self.held:
            assert owner.objects.objects[each].value is not None
        assert not self.all_workers(), "a lease was kept"
        self.tell(r.Dropped(list(self.held.elements())))
        assert not owner.objects.objects
        assert owner.tasks.lineage == 0
        for node in self.nodes.values():
            assert not node.alive or not node.copies, "a copy was forgotten"
        assert all(value == 1 for value in self.ended.values())


AnyOrder.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None, report_multiple_bugs=False)
test_an_owner_keeps_its_promises_whatever_comes_first = AnyOrder.TestCase
