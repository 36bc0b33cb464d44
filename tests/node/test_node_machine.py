"""A node under everything that can happen, in any order: `check()` holds always, and a quiet node has everything back."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from nbray import config
from nbray.ids import Address
from nbray.node import records as r
from nbray.node.records import Phase
from nbray.wire import messages as m
from tests.node.story import Story, actor_spec, address, ident, info, shape

SHAPES = [
    shape(CPU=1),
    shape(CPU=2),
    shape(CPU=0.5, memory=2),
    shape(GPU=1),
    shape(memory=5),
    shape(env="{}", CPU=1),
    shape("SPREAD", CPU=1),
]
DRIVERS = ["d1", "d2", "d3"]


class NodeMachine(RuleBasedStateMachine):
    """The world around one node: processes that start and die, owners that ask and return, a cluster that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(CPU=2, memory=10)
        self.requests = 0
        self.epochs = 0
        self.leases: dict[int, tuple[Address, m.LeaseGranted]] = {}
        self.unreaped: set[bytes] = set()
        self.starting: set[bytes] = set()

    @initialize()
    def begin(self) -> None:
        self.collect()

    def collect(self) -> None:
        """What the world learns from the node's effects."""
        self.starting |= {start.process for start in self.story.ordered(r.StartWorker)}
        self.unreaped |= {kill.process for kill in self.story.ordered(r.KillWorker)}
        for effect in self.story.effects:
            match getattr(effect, "message", None):
                case m.LeaseGranted() as granted:
                    self.leases[granted.lease] = (effect.to, granted)  # type: ignore[attr-defined]
                case m.LeaseLost(lease=lease):
                    self.leases.pop(lease, None)
                case m.ExitWorker():
                    self.unreaped.add(effect.to.process)  # type: ignore[attr-defined]
        self.story.effects.clear()

    @rule(driver=st.sampled_from(DRIVERS))
    def a_driver_comes(self, driver: str) -> None:
        if ident(driver) not in self.story.state.drivers:
            self.story.drive(driver)
        self.collect()

    @rule(driver=st.sampled_from(DRIVERS))
    def a_driver_dies(self, driver: str) -> None:
        self.story.tell(r.ProcessLost(ident(driver), "driver", 7))
        self.story.tell(m.JobEnded(address(driver)))
        self.collect()

    @rule(
        driver=st.sampled_from(DRIVERS), what=st.sampled_from(SHAPES), nested=st.booleans(), retriable=st.booleans(), data=st.data()
    )
    def somebody_asks(self, driver: str, what: m.Shape, nested: bool, retriable: bool, data: st.DataObject) -> None:
        owner = address(driver)
        if nested and self.leases:
            owner = data.draw(st.sampled_from(sorted(self.leases.items())))[1][1].worker
        self.requests += 1
        self.story.request(self.requests, what, owner, job=ident(driver), retriable=retriable)
        self.collect()

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), driver=st.sampled_from(DRIVERS))
    def somebody_thinks_better_of_it(self, data: st.DataObject, driver: str) -> None:
        self.story.tell(m.CancelLeaseRequest(data.draw(st.integers(1, self.requests)), ident(driver)))
        self.collect()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), broken=st.booleans(), twice=st.booleans())
    def a_lease_comes_back(self, data: st.DataObject, broken: bool, twice: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.leases)))
        owner, _ = self.leases.pop(number)
        for _ in range(1 + twice):
            self.story.tell(m.ReturnLease(number, owner.process, broken))
        self.collect()

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def a_worker_says_hello(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.discard(process)
        self.story.greet(process)
        self.collect()

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def a_fork_fails(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.discard(process)
        self.story.tell(r.StartFailed(process, "fork: no"))
        self.collect()

    @precondition(lambda self: self.story.state.pool.workers)
    @rule(data=st.data(), clean=st.booleans())
    def a_worker_dies(self, data: st.DataObject, clean: bool) -> None:
        self.reap(data.draw(st.sampled_from(sorted(self.story.state.pool.workers))), clean)

    @precondition(lambda self: self.unreaped)
    @rule(data=st.data())
    def a_killed_worker_is_reaped(self, data: st.DataObject) -> None:
        self.reap(data.draw(st.sampled_from(sorted(self.unreaped))), False)

    def reap(self, process: bytes, clean: bool) -> None:
        self.unreaped.discard(process)
        self.starting.discard(process)
        self.story.exit(process, signal=None if clean else 9, code=0 if clean else None)
        self.collect()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), blocked=st.booleans())
    def a_worker_blocks_or_goes_on(self, data: st.DataObject, blocked: bool) -> None:
        worker = self.leases[data.draw(st.sampled_from(sorted(self.leases)))][1].worker.process
        self.story.tell(m.WorkerBlocked(worker) if blocked else m.WorkerUnblocked(worker))
        self.collect()

    @rule(name=st.sampled_from("ABC"), running=st.sampled_from([{}, {"CPU": 1.0}, {"memory": 4.0}]))
    def the_head_places_an_actor(self, name: str, running: dict[str, float]) -> None:
        self.epochs += 1
        self.story.tell(m.PlaceActor(actor_spec(name, running), self.epochs))
        self.collect()

    @precondition(lambda self: self.epochs)
    @rule(name=st.sampled_from("ABC"), data=st.data(), how=st.sampled_from(["kill", "ask", "exit", "fail", "start"]))
    def something_happens_to_an_actor(self, name: str, data: st.DataObject, how: str) -> None:
        actor, epoch = actor_spec(name).actor, data.draw(st.integers(1, self.epochs))
        life = self.story.state.actors.lives.get((actor, epoch))
        worker = life.worker if life is not None and life.worker is not None else ident("x")
        events = {
            "kill": m.EndActor(actor, epoch, True, "killed"),
            "ask": m.EndActor(actor, epoch, False, "out of scope"),
            "exit": m.ActorExiting(actor, epoch, "exit_actor"),
            "fail": m.ActorFailed(actor, epoch, m.Failure("RayTaskError")),
            "start": m.ActorStarted(actor, epoch, Address(ident("me"), worker), 1),
        }
        self.story.tell(events[how])
        self.collect()

    @rule(others=st.lists(st.sampled_from(["o1", "o2"]), unique=True), cpus=st.integers(0, 2), gpus=st.integers(0, 1))
    def the_cluster_changes(self, others: list[str], cpus: int, gpus: int) -> None:
        self.story.view(*(info(other, CPU=cpus, GPU=gpus) for other in others))
        self.collect()

    @rule(node=st.sampled_from(["o1", "o2"]))
    def a_node_dies(self, node: str) -> None:
        self.story.tell(m.NodeDied(ident(node), "silent"))
        self.collect()

    @rule()
    def memory_is_short(self) -> None:
        self.story.tell(r.MemoryPressure(96, 100))
        self.collect()

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.5, 6.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.story.wait(seconds)
        self.collect()

    def teardown(self) -> None:
        """Everybody leaves and everything is reaped: the node is whole again, and nothing waits on it."""
        for driver in DRIVERS:
            self.a_driver_dies(driver)
        for name in "ABC":
            for epoch in range(self.epochs + 1):
                self.story.tell(m.EndActor(actor_spec(name).actor, epoch, True, "over"))
        for _ in range(100):
            self.collect()
            leftover = [w.process for w in self.story.state.pool.workers.values() if w.phase is Phase.ENDING or w.lease is not None]
            if not leftover:
                break
            for process in leftover:
                self.reap(process, False)
        self.story.wait(config.START_DEATHS_S)
        assert self.story.state.ground.free == self.story.state.ground.total
        assert not len(self.story.state.leases.queue)
        assert not self.story.state.leases.leases


TestNode = NodeMachine.TestCase
TestNode.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
