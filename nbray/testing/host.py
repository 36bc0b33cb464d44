"""A simulated machine: its daemon with NodeState and the store's Ledger, its memory, its disk, its workers. The shell of these
machines, as node/daemon.py is in reality; the head lives in the daemon of the first host."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbray.ids import HEAD, Address, NodeId, ObjectId, ProcessId, object_id
from nbray.machine import Effect, Send, Tick
from nbray.node.daemon import LAST_WORDS_S
from nbray.node.records import (
    Begun,
    DriverHello,
    KillWorker,
    MemoryPressure,
    StartWorker,
    Stop,
    StoreUsed,
    WorkerExited,
    WorkerHello,
)
from nbray.node.state import NodeState
from nbray.sched.resources import UNIT
from nbray.store.ledger import Ledger
from nbray.store.orders import ProcessExited, RemoveSpilled, Restore, RestoreDone, SendChunk, Spill, SpillDone, WriteChunk
from nbray.testing.clock import Alarm
from nbray.testing.head import SimulatedHead
from nbray.testing.history import described
from nbray.testing.process import Process
from nbray.testing.worker import Worker
from nbray.wire import messages as m

if TYPE_CHECKING:
    from nbray.testing.simulator import Simulation

#: Seconds, from and to: forking a worker, reaping one, a write to disk.
FORK_S, REAP_S, DISK_S = (0.003, 0.03), (0.0002, 0.01), (0.0005, 0.02)


class Host:
    """One life of one node."""

    def __init__(self, simulation: Simulation, name: str, cpus: int, head: SimulatedHead | None) -> None:
        """`head` None: this host has the head, in its daemon."""
        self.simulation, self.clock, self.name = simulation, simulation.clock, name
        self._chance = simulation.chance
        self.id: NodeId = self._chance.randbytes(8)
        self.address = Address(self.id, self.id)
        self.alive = True
        self.head = head or SimulatedHead(simulation, Address(self.id, HEAD), self.send_from)
        total = {"CPU": cpus * UNIT}
        size = simulation.arena_bytes
        info = m.NodeInfo(self.id, name, 1, total, total, is_head=head is None, store_bytes=size)
        self.state = NodeState(info, self.head.address)
        self.store = Ledger(self.id, size)
        self.arena = bytearray(size)
        self.files: dict[str, bytes] = {}
        self.workers: dict[ProcessId, Worker] = {}
        self.drivers: dict[ProcessId, Process] = {}
        self._doomed: set[ProcessId] = set()  #: killed before they were forked
        self._local: deque[tuple[Address, Any]] = deque()
        self._busy = False
        self._disk_at = 0.0
        self._store_used = 0
        self._members: set[NodeId] = set()
        self._node_alarm = Alarm(self.clock, self.state, lambda: self.tell_node(Tick()))
        self._store_alarm = Alarm(self.clock, self.store, lambda: self.tell_store(Tick()))

    @property
    def has_head(self) -> bool:
        return self.head.address.node == self.id

    def begin(self) -> None:
        network = self.simulation.network
        network.bind(self.address, lambda message: self._arrived(self.address, message))
        if self.has_head:
            network.bind(self.head.address, lambda message: self._arrived(self.head.address, message))
        self.tell_node(Begun())

    # ------------------------------------------------------------------------------------------ events

    def tell_node(self, event: Any) -> None:
        if not self.alive:
            return
        self.simulation.history.add(self.name, event)
        self._carry_all(self.state.handle(event, self.clock.now))
        if self.simulation.checked:
            self.state.check()
        self._node_alarm.set()
        if isinstance(event, m.ClusterView):
            self._learn({self.id, *self.state.ground.others})

    def tell_store(self, event: Any) -> None:
        if not self.alive:
            return
        self.simulation.history.add(f"{self.name} store", event)
        effects = self.store.handle(event, self.clock.now)
        if self.simulation.checked:
            self.store.check()
        self._carry_all(effects)
        self._store_alarm.set()
        if self.store.used != self._store_used:
            self._store_used = self.store.used
            self.tell_node(StoreUsed(self._store_used))

    def _arrived(self, at: Address, message: Any) -> None:
        if not self.alive:
            return
        if at.process == HEAD:
            self.head.take(message)
            return
        if self.store.handles(type(message)):
            self.tell_store(message)
        if isinstance(message, m.ProcessDied):
            self.tell_store(ProcessExited(message.death.process))
        if self.state.handles(message):
            self.tell_node(message)

    def _learn(self, members: set[NodeId]) -> None:
        for gone in sorted(self._members - members):
            self.simulation.network.abandon(self.id, gone, "it left the cluster")
        self._members = members

    # ------------------------------------------------------------------------------------------ effects

    def _carry_all(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._carry(effect)
        if self._busy:
            return
        self._busy = True
        while self._local:
            self._arrived(*self._local.popleft())
        self._busy = False

    def _carry(self, effect: Effect) -> None:
        match effect:
            case Send(to=to, message=message):
                self.send_from(self.address, to, message)
            case StartWorker(process=process):
                self._later(FORK_S, lambda: self._forked(process))
            case KillWorker(process=process):
                self._later(REAP_S, lambda: self._killed(process))
            case Stop(reason=reason, rejoin=rejoin):
                self.simulation.host_stopped(self, reason, rejoin)
            case Spill() | Restore() | RemoveSpilled():
                self._disk_at = max(self._disk_at, self.clock.now + self._chance.uniform(*DISK_S))
                self.clock.call_at(self._disk_at, lambda: self._on_disk(effect))
            case WriteChunk(offset=offset, data=data):
                self.arena[offset : offset + len(data)] = data
            case SendChunk():
                data = bytes(self.arena[effect.source : effect.source + effect.length])
                chunk = m.PushChunk(effect.ticket, effect.object, effect.offset, effect.total, zlib.crc32(data), data)
                self.send_from(self.address, effect.to, chunk)

    def send_from(self, source: Address, to: Address, message: Any) -> None:
        if to == self.address or (self.has_head and to == self.head.address):
            self._local.append((to, message))
            if not self._busy:
                self._later((0.0, 0.0), lambda: self._carry_all([]))
        else:
            self.simulation.network.send(source, to, message)

    def _on_disk(self, order: Spill | Restore | RemoveSpilled) -> None:
        if not self.alive:
            return
        if isinstance(order, Spill):
            data = self.files[order.name] = bytes(self.arena[order.offset : order.offset + order.size])
            self.tell_store(SpillDone(order.object, zlib.crc32(data)))
        elif isinstance(order, Restore):
            data = self.files[order.name]
            assert zlib.crc32(data) == order.crc, "a spilled file is not what was written"
            self.arena[order.offset : order.offset + order.size] = data
            self.tell_store(RestoreDone(order.object))
        else:
            del self.files[order.name]

    def _later(self, between: tuple[float, float], action: Callable[[], None]) -> None:
        self.clock.call_later(self._chance.uniform(*between), lambda: action() if self.alive else None)

    # ------------------------------------------------------------------------------------------ processes

    def _forked(self, process: ProcessId) -> None:
        pid = self.simulation.next_pid()
        if process in self._doomed:
            self._reaped(process, pid, 9, None)
            return
        worker = self.workers[process] = Worker(self.simulation, self, process, pid)
        self.simulation.network.bind(worker.me, worker.take)
        self.tell_node(WorkerHello(process, pid))

    def _killed(self, process: ProcessId) -> None:
        worker = self.workers.get(process)
        if worker is None:
            self._doomed.add(process)
        else:
            self.worker_exits(worker, None)

    def worker_exits(self, worker: Worker, code: int | None) -> None:
        """The process ends: by itself with an exit code, or by SIGKILL (None)."""
        if not worker.alive or not self.alive:
            return
        self.simulation.ledger.process_ends(worker, orderly=code is not None)
        worker.die()
        self.simulation.network.unbind(worker.me, orderly=code is not None)
        del self.workers[worker.me.process]
        self._later(REAP_S, lambda: self._reaped(worker.me.process, worker.pid, None if code is not None else 9, code))

    def _reaped(self, process: ProcessId, pid: int, signal: int | None, code: int | None) -> None:
        death = m.Death(process, self.id, pid, signal, code)
        if code == 0:
            self._later((LAST_WORDS_S, LAST_WORDS_S), lambda: self._bury(death))
        else:
            self._bury(death)

    def _bury(self, death: m.Death) -> None:
        self.simulation.network.flush(self.address)
        self.tell_node(WorkerExited(death.process, death))
        self.tell_store(ProcessExited(death.process))

    def memory_pressure(self) -> None:
        self.tell_node(MemoryPressure(99, 100))

    def driver_joins(self, driver: Process) -> None:
        self.drivers[driver.me.process] = driver
        driver.attach(self)
        self.tell_node(DriverHello(driver.me.process, 1, "script", "space"))

    def end(self) -> None:
        """The daemon's process is gone, and everything under it."""
        self.alive = False
        for worker in list(self.workers.values()):
            self.simulation.ledger.process_ends(worker, orderly=False)
            worker.die()
        self._node_alarm.stop()
        self._store_alarm.stop()
        if self.has_head:
            self.head.crash()
        self.simulation.network.remove_node(self.id)
        for driver in self.drivers.values():
            self.clock.call_later(self._chance.uniform(*REAP_S), driver.node_lost)

    def leftovers(self, astray: set[ObjectId]) -> list[str]:
        """What is held on this host although nobody should hold anything. `astray`: objects that nobody can know to be free."""
        state = self.state
        found = [f"{self.name}: lease {lease.id} of {lease.owner}" for lease in state.leases.leases.values()]
        found += [f"{self.name}: request {request.id} waits" for request in state.leases.queue]
        found += [f"{self.name}: actor {key[0].hex()} epoch {key[1]}" for key in state.actors.lives]
        if state.ground.free != state.ground.total:
            found.append(f"{self.name}: {state.ground.free} free of {state.ground.total}")
        for each in self.store.objects():
            # A secondary copy whose owner died elsewhere is garbage that nobody has told us of; the next who needs room has it.
            known = each["object"] not in astray
            if each["pins"] or (known and (each["primary"] or self.simulation.lives(each["owner"]))):
                found.append(f"{self.name}: object {each['object'].hex()} {each['state']}, pins {each['pins']}")
        found += [f"{self.name}: file {name}" for name in self.files]
        for process in [*self.workers.values(), *self.drivers.values()]:
            held = {id_: obj for id_, obj in process.state.objects.objects.items() if id_ not in astray}
            found += [f"{process.name}: object {obj.id.hex()} {described(obj)}" for obj in held.values()]
            found += [f"{process.name}: task {task.id.hex()} {task.state}" for task in process.state.tasks.tasks.values()]
            for task, stream in process.state.tasks.streams.streams.items():
                if not any(object_id(task, index) in astray for index in stream.kept or ()):
                    found.append(f"{process.name}: stream {task.hex()}")
        return found
