"""Random histories of one head and several nodes with placement groups: whatever the order of messages and deaths, the machines'
own checks hold after every step, and in the end every bundle is where the head says it is and nowhere else."""

from __future__ import annotations

import random
from collections import deque

import pytest

from nbray.head.records import NodeGone, Persist
from nbray.head.state import HeadState
from nbray.ids import HEAD, Address
from nbray.machine import Send, Tick
from nbray.node.records import Begun, DriverHello, KillWorker, StartWorker, WorkerExited, WorkerHello
from nbray.node.state import NodeState
from nbray.sched.bundles import place
from nbray.sched.resources import to_amounts
from nbray.wire import messages as m


class World:
    """Messages between two ends keep their order; which pair of ends comes next is chance."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.head_at = Address(b"headhost", HEAD)  # no node is there, so that it can be started again
        self.tables: dict[str, dict[bytes, bytes]] = {}
        self.head = HeadState(self.head_at, "session")
        self.nodes: dict[bytes, NodeState] = {}
        self.mail: dict[tuple[bytes, Address], deque[object]] = {}
        self.owner = Address(b"node0000", b"owner000")
        self.told: dict[bytes, str] = {}  #: what the owner last heard of each group
        self.granted: dict[int, Address] = {}
        self.refused: dict[int, str] = {}
        self.groups: list[bytes] = []
        self.shapes: dict[int, m.Shape] = {}
        for number in range(nodes):
            self.add_node(b"node%04d" % number)
        self.node(self.owner.node, DriverHello(self.owner.process, 1, "job", ""))
        self.run()

    def add_node(self, name: bytes) -> None:
        cpus = to_amounts({"CPU": self.chance.randint(1, 4)})
        state = self.nodes[name] = NodeState(m.NodeInfo(name, "h", 1, cpus, cpus), self.head_at)
        self.carry(name, state.handle(Begun(), self.now))

    def carry(self, source: bytes, effects: list) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                table = self.tables.setdefault(effect.table, {})
                if effect.value is None:
                    table.pop(effect.key, None)
                else:
                    table[effect.key] = effect.value
            elif isinstance(effect, Send):
                self.mail.setdefault((source, effect.to), deque()).append(effect.message)
            elif isinstance(effect, StartWorker):
                self.node(source, WorkerHello(effect.process, 1))
            elif isinstance(effect, KillWorker):
                death = m.Death(effect.process, source, 1, signal=9)
                self.mail.setdefault((b"kernel00", Address(source, source)), deque()).append(WorkerExited(effect.process, death))

    def node(self, name: bytes, event: object) -> None:
        state = self.nodes.get(name)
        if state is not None:
            self.carry(name, state.handle(event, self.now))
            state.check()

    def tell_head(self, event: object) -> None:
        effects = self.head.handle(event, self.now)
        self.head.check()
        self.carry(b"head", effects)

    def step(self) -> bool:
        waiting = [key for key, messages in self.mail.items() if messages]
        if not waiting:
            return False
        source, to = self.chance.choice(waiting)
        message = self.mail[source, to].popleft()
        if to == self.head_at:
            self.tell_head(message)
        elif to.process == self.owner.process:
            self.owner_hears(message)
        elif to.node == to.process:
            self.node(to.node, message)
        return True

    def owner_hears(self, message: object) -> None:
        if isinstance(message, m.GroupUpdate):
            assert message.state == "REMOVED" or self.told[message.group] != "REMOVED", "a removed group came back"
            self.told[message.group] = message.state
        elif isinstance(message, m.LeaseGranted):
            self.granted[message.request] = message.worker
        elif isinstance(message, m.LeaseRefused):
            self.refused[message.request] = message.failure.kind
        elif isinstance(message, m.LeaseRedirected):
            self.ask(message.request, self.shapes[message.request], message.to, 1)

    def ask(self, request: int, shape: m.Shape, node: bytes = b"node0000", hops: int = 0) -> None:
        self.shapes[request] = shape
        self.mail.setdefault((self.owner.process, Address(node, node)), deque()).append(
            m.RequestLease(request, self.owner, shape, hops, job=self.owner.process)
        )

    def run(self, steps: int = 100_000) -> None:
        for _ in range(steps):
            if not self.step():
                return

    def settle(self) -> None:
        """Deliver everything, with time for heartbeats and reminders."""
        for _ in range(12):
            self.run()
            self.now += 0.6
            for name in list(self.nodes):
                self.node(name, Tick())
            self.tell_head(Tick())
        self.run()

    def create(self) -> None:
        group = (len(self.groups) + 1).to_bytes(16, "big")
        bundles = [to_amounts({"CPU": self.chance.randint(1, 2)}) for _ in range(self.chance.randint(1, 3))]
        strategy = self.chance.choice(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"])
        self.groups.append(group)
        self.told[group] = "PENDING"
        self.tell_head(m.CreateGroup(m.GroupSpec(group, bundles, strategy, self.owner, self.owner)))

    def remove(self) -> None:
        if self.groups:
            self.tell_head(m.RemoveGroup(self.chance.choice(self.groups)))

    def kill_node(self) -> None:
        others = [name for name in self.nodes if name != b"node0000"]
        if others:
            gone = self.chance.choice(others)
            del self.nodes[gone]
            for key in [key for key in self.mail if key[0] == gone or key[1].node == gone]:
                del self.mail[key]
            self.tell_head(NodeGone(gone, "it was killed"))

    def restart_head(self) -> None:
        """What it was sent waits for it."""
        self.head, effects = HeadState.restore(self.head_at, "session", self.tables, self.now)
        self.head.check()
        self.carry(b"head", effects)

    def verify(self) -> None:
        """At rest: what the head says of bundles is what nodes have, and nobody waits who could be placed."""
        said = {(g, i): n for g, r in self.head.groups.live.items() for i, n in r.places.items()}
        here = {key: name for name, state in self.nodes.items() for key in state.ground.bundles}
        assert said == here
        assert not any(state.bundles.ending for state in self.nodes.values())
        for record in self.head.groups.live.values():
            assert not record.reserving
            assert record.state == "CREATED" or place(record.spec, self.head.members.open_views(), record.places) is None


@pytest.mark.parametrize("seed", range(100))
def test_bundles_are_where_the_head_says_after_any_history(seed):
    world = World(seed, nodes=3)
    what = [world.create] * 4 + [world.remove] * 3 + [world.kill_node]
    for number in range(40):
        if number % 13 == 12 and len(world.nodes) < 4:
            world.add_node(b"new0%04d" % number)
        world.chance.choice(what)()
        world.run(world.chance.randint(0, 12))
    world.settle()
    world.verify()
    for group in world.groups:
        record = world.head.groups.live.get(group)
        assert world.told[group] == (record.state if record is not None else "REMOVED")
    world.tell_head(m.JobEnded(world.owner))
    world.settle()
    world.verify()
    assert not world.head.groups.live
    assert all(state.ground.free == state.ground.total for state in world.nodes.values())


@pytest.mark.parametrize("seed", range(40))
def test_groups_outlive_their_head(seed):
    world = World(seed, nodes=3)
    for number in range(30):
        world.chance.choice([world.create, world.create, world.remove])()
        world.run(world.chance.randint(0, 12))
        if number % 10 == 9:
            world.restart_head()
    world.settle()
    world.verify()
    for group, record in world.head.groups.live.items():
        assert world.told[group] == record.state


@pytest.mark.parametrize("seed", range(40))
def test_work_runs_in_its_bundle_or_hears_that_the_group_is_gone(seed):
    world = World(seed, nodes=3)
    for _ in range(3):
        world.create()
    request = 0
    for _ in range(10):
        request += 1
        group = world.chance.choice(world.groups)
        world.ask(request, m.Shape(to_amounts({"CPU": 1}), group=group, bundle=world.chance.choice([-1, 0])))
        world.run(world.chance.randint(0, 20))
    world.settle()
    open_groups = {group for group, record in world.head.groups.live.items() if record.state == "CREATED"}
    for number, worker in world.granted.items():
        shape = world.shapes[number]
        assert shape.group in open_groups
        assert worker.node in world.head.groups.live[shape.group].places.values()
    for group in world.groups:
        world.tell_head(m.RemoveGroup(group))
    world.settle()
    world.verify()
    assert {number for number in range(1, request + 1) if number not in world.granted} == set(world.refused)
    assert set(world.refused.values()) <= {"TaskPlacementGroupRemoved"}
    assert all(state.ground.free == state.ground.total for state in world.nodes.values())
