"""A cluster of honest nodes around the head, driven at random: joins, silences, crashes, kills, late words, head restarts.

Nodes obey the protocol but answer when they like; messages keep their order per node. `check()` runs after every event, and at
the end, when everybody has said everything, every actor is where it should be.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nbray.head.records import ALIVE, DEAD
from nbray.ids import Address
from nbray.machine import Effect, Send, Tick
from nbray.sched.resources import UNIT, fits, give, take
from nbray.wire import messages as m
from tests.head.story import Story, ident, spec

EPOCH = tuple[bytes, int]


class Node:
    """One daemon: what it holds, what it has been told, and what it has yet to say."""

    def __init__(self, name: bytes, cpus: int, gpus: int) -> None:
        self.name = name
        self.total = {"CPU": cpus * UNIT, "GPU": gpus * UNIT}
        self.free = dict(self.total)
        self.inbox: deque[object] = deque()
        self.outbox: deque[object] = deque()
        self.silent = False
        self.placements = 0
        self.leased = 0
        self.lives: dict[EPOCH, tuple[m.ActorSpec, bytes | None]] = {}
        self.intended: set[EPOCH] = set()
        self.watchers: set[bytes] = set()
        self.ended: set[bytes] = set()

    def info(self) -> m.NodeInfo:
        return m.NodeInfo(self.name, "h", 1, self.total, dict(self.free), placements=self.placements)

    def step(self) -> str | None:
        """Take one message; says so if the node must rejoin."""
        match self.inbox.popleft():
            case m.PlaceActor(spec=wanted, epoch=epoch):
                self.placements += 1
                if fits(self.free, wanted.running):
                    take(self.free, wanted.running)
                    self.lives[wanted.actor, epoch] = (wanted, None)
                else:
                    self.outbox.append(m.ActorUnplaced(wanted.actor, epoch, self.name))
            case m.EndActor(actor=actor, epoch=epoch):
                if (actor, epoch) in self.lives:
                    self.intended.add((actor, epoch))
                    self.close((actor, epoch))
            case m.WatchProcess(process=process):
                if process in self.ended:
                    self.outbox.append(m.ProcessDied(m.Death(process, self.name, 1)))
                self.watchers.add(process)
            case m.NodeDied(node=node) if node == self.name:
                return "rejoin"
        return None

    def close(self, key: EPOCH) -> None:
        wanted, worker = self.lives.pop(key)
        give(self.free, wanted.running, self.total)
        death = m.Death(worker or bytes(8), self.name, 1, signal=9, reason="told to" if key in self.intended else "")
        self.outbox.append(m.ActorLost(*key, death, key in self.intended))
        if worker is not None:
            self.ended.add(worker)
            if worker in self.watchers:
                self.outbox.append(m.ProcessDied(death))


class Cluster(RuleBasedStateMachine):
    """Actors are owned by the driver "d" on the first node, or by a worker."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story()
        self.nodes: dict[bytes, Node] = {}
        self.count = 0
        self.driver = Address(ident("a"), ident("d"))

    # -- plumbing

    def fresh(self, letter: str) -> bytes:
        self.count += 1
        return ident(f"{letter}{self.count}")

    def take(self, event: object) -> None:
        self.carry(self.story.take(event))

    def carry(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and effect.to.node == effect.to.process and effect.to.node in self.nodes:
                self.nodes[effect.to.node].inbox.append(effect.message)

    def join(self, name: bytes, cpus: int, gpus: int) -> None:
        self.nodes[name] = Node(name, cpus, gpus)
        self.take(m.RegisterNode(self.nodes[name].info()))

    def rejoin(self, node: Node) -> None:
        del self.nodes[node.name]
        self.join(self.fresh("n"), node.total["CPU"] // UNIT, node.total["GPU"] // UNIT)

    def pick(self, index: int) -> Node:
        nodes = list(self.nodes.values())
        return nodes[index % len(nodes)]

    def actor(self, index: int) -> bytes | None:
        known = list(self.story.head.directory.live) or list(self.story.head.directory.dead)
        return known[index % len(known)] if known else None

    # -- what happens

    @initialize()
    def begin(self) -> None:
        self.join(ident("a"), 2, 0)
        self.take(m.JobStarted(self.driver, "n", "", 1))

    @rule(cpus=st.integers(0, 4), gpus=st.integers(0, 2))
    def node_joins(self, cpus: int, gpus: int) -> None:
        if len(self.nodes) < 6:
            self.join(self.fresh("n"), cpus, gpus)

    @rule(index=st.integers(0, 9))
    def node_falls_silent_or_speaks_again(self, index: int) -> None:
        node = self.pick(index)
        if node.name != self.story.head.address.node:
            node.silent = not node.silent

    @rule(index=st.integers(0, 9))
    def node_leaves(self, index: int) -> None:
        node = self.pick(index)
        if node.name != self.story.head.address.node:
            del self.nodes[node.name]
            self.take(m.NodeDied(node.name, "drained"))

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 6.0, 20.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.story.now + seconds
        while self.story.now < until:
            self.story.now = min(until, self.story.now + 1.0)
            for node in list(self.nodes.values()):
                if not node.silent:
                    self.drain(node)
                    self.take(m.Heartbeat(node.info()))
            self.take(Tick())

    @rule(
        cpus=st.integers(0, 3),
        gpus=st.integers(0, 1),
        restarts=st.sampled_from([0, 0, 1, -1]),
        named=st.booleans(),
        detached=st.booleans(),
        strategy=st.sampled_from(["DEFAULT", "SPREAD", "NODE", "SOFT"]),
        where=st.integers(0, 9),
        owner=st.integers(0, 9),
        get=st.booleans(),
    )
    def actor_is_registered(
        self, cpus: int, gpus: int, restarts: int, named: bool, detached: bool, strategy: str, where: int, owner: int, get: bool
    ) -> None:
        amounts = {"CPU": cpus * UNIT, "GPU": gpus * UNIT}
        bound = strategy in {"NODE", "SOFT"}
        shape = m.Shape(amounts, "NODE" if bound else strategy, self.pick(where).name if bound else b"", strategy == "SOFT")
        workers = [Address(n.name, w) for n in self.nodes.values() for _, w in n.lives.values() if w]
        by = workers[owner % len(workers)] if workers and owner % 2 else self.driver
        if by == self.driver and by.node not in self.nodes:
            return
        self.count += 1
        made = spec(
            by.process + self.count.to_bytes(8, "big"),
            by,
            self.driver,
            placement=shape,
            running=amounts,
            max_restarts=restarts,
            name="one" if named else "",
            detached=detached,
        )
        self.take(m.RegisterActor(made, self.count, get))

    @rule(index=st.integers(0, 99), no_restart=st.booleans())
    def actor_is_killed(self, index: int, no_restart: bool) -> None:
        actor = self.actor(index)
        if actor is not None:
            self.take(m.KillActor(actor, no_restart))

    @rule(index=st.integers(0, 99))
    def last_handle_goes(self, index: int) -> None:
        actor = self.actor(index)
        if actor is not None:
            self.take(m.ReleaseActor(actor))

    @rule(index=st.integers(0, 9))
    def node_reads(self, index: int) -> None:
        node = self.pick(index)
        if node.inbox and not node.silent and node.step():
            self.rejoin(node)

    @rule(life=st.integers(0, 99), raises=st.sampled_from([False, False, True]))
    def actor_begins(self, life: int, raises: bool) -> None:
        starting = [(n, key) for n in self.nodes.values() if not n.silent for key, (_, worker) in n.lives.items() if worker is None]
        if not starting:
            return
        node, key = starting[life % len(starting)]
        if raises:
            node.close(key)
            node.outbox[-1] = m.ActorFailed(*key, m.Failure("RayTaskError", message="raised"))
        else:
            self.begin_life(node, key)

    def begin_life(self, node: Node, key: EPOCH) -> None:
        worker = self.fresh("w")
        node.lives[key] = (node.lives[key][0], worker)
        node.outbox.append(m.ActorStarted(*key, Address(node.name, worker), 1))

    @rule(life=st.integers(0, 99), intended=st.booleans())
    def actor_ends(self, life: int, intended: bool) -> None:
        lives = [(node, key) for node in self.nodes.values() if not node.silent for key in node.lives]
        if lives:
            node, key = lives[life % len(lives)]
            if intended:
                node.intended.add(key)
            node.close(key)

    @rule(index=st.integers(0, 9), cpus=st.integers(0, 4))
    def tasks_take_what_was_free(self, index: int, cpus: int) -> None:
        """The node grants or ends leases, and the head will hear of it later."""
        node = self.pick(index)
        give(node.free, {"CPU": node.leased}, node.total)
        node.leased = min(cpus * UNIT, node.free["CPU"])
        take(node.free, {"CPU": node.leased})

    @rule()
    def all_is_said_and_read(self) -> None:
        for node in list(self.nodes.values()):
            if not node.silent:
                self.drain(node)

    @rule(index=st.integers(0, 9))
    def node_is_heard(self, index: int) -> None:
        node = self.pick(index)
        if node.outbox and not node.silent:
            self.take(node.outbox.popleft())

    @rule(chance=st.integers(0, 3))
    def driver_ends(self, chance: int) -> None:
        if chance:
            return
        self.take(m.JobEnded(self.driver))
        self.driver = Address(next(iter(self.nodes)), self.fresh("d"))
        self.take(m.JobStarted(self.driver, "n", "", 1))

    @rule(chance=st.integers(0, 3))
    def head_is_restarted(self, chance: int) -> None:
        """Its daemon was killed: its node and workers with it. What nodes had said to it and it had not heard is lost."""
        if chance:
            return
        old = self.story.head.address.node
        self.nodes.pop(old, None)
        name = self.fresh("h")
        effects = self.story.restart(name)
        for node in self.nodes.values():
            node.inbox.clear()
            node.outbox.clear()
            node.watchers.clear()
        self.carry(effects)
        self.join(name, 2, 0)
        if self.driver.node not in self.nodes:
            self.driver = Address(name, self.fresh("d"))
            self.take(m.JobStarted(self.driver, "n", "", 1))

    def drain(self, node: Node) -> None:
        """Say and read everything."""
        for _ in range(1000):
            if node.outbox:
                self.take(node.outbox.popleft())
            elif not node.inbox:
                return
            elif node.step():
                self.rejoin(node)
                return
        raise AssertionError(f"the head and a node talk without end: {node.inbox}, {node.outbox}")

    # -- what must hold

    @invariant()
    def nothing_is_held_twice(self) -> None:
        """No actor has two calls for processes on nodes that the head thinks alive, in its current epoch."""
        for actor, record in self.story.head.directory.live.items():
            homes = [name for name, node in self.nodes.items() if (actor, record.epoch) in node.lives]
            assert len(homes) <= 1, record.story

    def teardown(self) -> None:
        if not self.nodes:
            return
        for node in self.nodes.values():
            node.silent = False
        for _ in range(80):  # seconds: longer than any lease
            for node in list(self.nodes.values()):
                for key in [key for key, (_, worker) in node.lives.items() if worker is None]:
                    self.begin_life(node, key)
            self.time_passes(1.0)
        head = self.story.head
        hosted = {key for node in self.nodes.values() for key in node.lives}
        for actor, record in head.directory.live.items():
            assert record.state == ALIVE or record.node is None, record.story
            if record.state == ALIVE:
                assert (actor, record.epoch) in hosted, record.story
        # Nothing that the head has given up is still running.
        for actor, epoch in hosted:
            record = head.directory.live.get(actor)
            assert record is not None, (actor, head.directory.dead[actor].story if actor in head.directory.dead else "unknown")
            assert record.epoch == epoch, record.story
        for node in self.nodes.values():
            assert head.members.nodes[node.name].free == node.free, "the head's sum differs from the node's"
        assert all(record.state == DEAD for record in head.directory.dead.values())


Cluster.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
test_the_head_keeps_its_promises_to_honest_nodes = Cluster.TestCase
