"""A cluster on paper: the real machines of a head and of any number of nodes, in virtual time, with the head's CPU on the clock.

    PaperNode  NodeState, and what a daemon does for it: workers say Hello, actors start, all at once
    Meter      CPU of the head by kind of event: decoding it, deciding, encoding what is said (a message to many once)

Messages are encoded and decoded on their way, as in nbray.testing, and the clock and its alarms are those of nbray.testing. There
are no links and no stores: nothing is lost here, and no object is made. What a view weighs is counted for all nodes, but only
WITNESSES of them are given it: N pictures of N nodes do not fit into one process.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from nbray.head.records import Persist
from nbray.head.state import HeadState
from nbray.ids import HEAD, Address, NodeId
from nbray.machine import Effect, Send, Tick
from nbray.node.records import Begun, KillWorker, StartWorker, StoreUsed, WorkerExited, WorkerHello
from nbray.node.state import NodeState
from nbray.sched.resources import UNIT
from nbray.testing.clock import Alarm, Clock
from nbray.wire import messages as m
from nbray.wire.codec import decode, encode

WITNESSES = 5
CPUS = 4
#: From one machine to another.
WIRE_S = (0.0005, 0.003)


def node_id(number: int) -> NodeId:
    """Ids of workers begin as that of their node does."""
    return number.to_bytes(4, "big") + b"node"


class Meter:
    """Microseconds of CPU by what happened, and bytes and messages that it caused."""

    def __init__(self) -> None:
        self.us: dict[str, list[float]] = defaultdict(list)
        self.said_bytes: dict[str, list[int]] = defaultdict(list)
        self.renamed: Callable[[Any, list[Effect]], str | None] = lambda _event, _effects: None

    def took(self, event: Any, effects: list[Effect], us: float, size: int) -> None:
        kind = self.renamed(event, effects)
        if kind is not None:
            self.us[kind].append(us)
            self.said_bytes[kind].append(size)

    def median(self, kind: str) -> float | None:
        return statistics.median(self.us[kind]) if self.us.get(kind) else None


class PaperNode:
    """One node: its machine, and workers that do nothing but be there."""

    def __init__(self, cluster: PaperCluster, number: int) -> None:
        self.cluster = cluster
        self.number, self.id = number, node_id(number)
        total = {"CPU": CPUS * UNIT, "memory": 64 * 2**30 * UNIT, f"node:10.0.{number >> 8}.{number & 255}": UNIT}
        gateway = f"10.0.{number >> 8}.{number & 255}:6380"
        labels = {"ray.io/node-id": self.id.hex()}
        info = m.NodeInfo(self.id, f"host-{number}", 1000 + number, total, total, labels, gateway, store_bytes=2**34)
        self.state = NodeState(info, cluster.head_address)
        self.pids = 0
        self._alarm = Alarm(cluster.clock, self.state, lambda: self.take(Tick()))

    def take(self, event: Any) -> None:
        effects = self.state.handle(event, self.cluster.clock.now)
        self._alarm.set()
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    self._sent(to, message)
                case StartWorker(process=process):
                    self.pids += 1
                    self.later(lambda process=process, pid=self.pids: self.take(WorkerHello(process, pid)))  # type: ignore[misc]
                case KillWorker(process=process):
                    death = m.Death(process, self.id, 1, 9)
                    self.later(lambda process=process, death=death: self.take(WorkerExited(process, death)))  # type: ignore[misc]

    def _sent(self, to: Address, message: Any) -> None:
        if to == self.cluster.head_address:
            self.cluster.to_head(message)
        elif isinstance(message, m.StartActor):
            started = m.ActorStarted(message.spec.actor, message.epoch, to, 7)
            self.later(lambda: self.take(started))
        elif isinstance(message, m.ExitWorker):
            self.later(lambda: self.take(WorkerExited(to.process, m.Death(to.process, self.id, 7, None, 0))))

    def later(self, action: Callable[[], object]) -> None:
        self.cluster.clock.call_later(0.005, action)  # type: ignore[arg-type]


class PaperCluster:
    """A head and `nodes` nodes, the first of which has it. Everything is as it would be on `nodes` machines, but for time."""

    def __init__(self, nodes: int, seed: int = 1) -> None:
        self.clock = Clock()
        self.chance = random.Random(seed)
        self.meter = Meter()
        self.head_address = Address(node_id(1), HEAD)
        self.head = HeadState(self.head_address, "session")
        self.persisted = 0
        self._alarm = Alarm(self.clock, self.head, lambda: self.tell_head(b"", Tick()))
        self.nodes = {node.id: node for node in (PaperNode(self, number) for number in range(1, nodes + 1))}
        self.told: list[tuple[Address, Any]] = []  #: what the head said to processes that are no nodes

    def to_head(self, message: Any) -> None:
        frame = encode(message)
        self.clock.call_later(self.chance.uniform(*WIRE_S), lambda: self.tell_head(frame))

    def tell_head(self, frame: bytes, event: Any = None) -> list[Effect]:
        """One message, or an `event` that is none (Tick)."""
        began = time.thread_time_ns()
        if event is None:
            event = decode(frame)
        effects = self.head.handle(event, self.clock.now)
        frames: dict[int, bytes] = {}
        for effect in effects:
            if isinstance(effect, Send) and id(effect.message) not in frames:
                frames[id(effect.message)] = encode(effect.message)
        self.head.next_deadline()
        took_us = (time.thread_time_ns() - began) / 1000
        sent = [effect for effect in effects if isinstance(effect, Send)]
        self.meter.took(event, effects, took_us, sum(len(frames[id(effect.message)]) for effect in sent))
        self.persisted += sum(isinstance(effect, Persist) for effect in effects)
        decoded: dict[int, Any] = {}
        for effect in sent:
            if id(effect.message) not in decoded:
                decoded[id(effect.message)] = decode(frames[id(effect.message)])
            self._carry(effect.to, decoded[id(effect.message)])
        self._alarm.set()
        return effects

    def _carry(self, to: Address, message: Any) -> None:
        node = self.nodes.get(to.node)
        if node is not None and to.process == to.node:
            if not isinstance(message, m.ClusterView) or node.number <= WITNESSES:
                self.clock.call_later(self.chance.uniform(*WIRE_S), lambda: node.take(message))
        else:
            self.told.append((to, message))

    def pass_time(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while self.clock.step(until):
            pass

    def begin(self, over_s: float) -> None:
        """All nodes start within so many seconds."""
        for node in self.nodes.values():
            self.clock.call_later(self.chance.uniform(0, over_s), lambda node=node: node.take(Begun()))  # type: ignore[misc]
        self.pass_time(over_s + 2.0)

    def stir(self, share: float, seconds: int) -> None:
        """For some seconds, this share of the nodes has something new to tell in each heartbeat."""
        for second in range(seconds):
            for node in self.nodes.values():
                if self.chance.random() < share:
                    said = StoreUsed(int(self.clock.now * 1000) + second)
                    at = self.chance.uniform(0, 1)
                    self.clock.call_later(at, lambda node=node, said=said: node.take(said))  # type: ignore[misc]
            self.pass_time(1.0)
