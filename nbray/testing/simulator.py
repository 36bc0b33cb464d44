"""The simulator: a cluster with its drivers in one process, in virtual time, with faults, and with books kept of it all."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Generator
from typing import Any

from nbray.ids import Address
from nbray.testing.clock import Clock
from nbray.testing.faults import Fault, FaultPlan
from nbray.testing.head import SimulatedHead
from nbray.testing.history import History, Violation
from nbray.testing.host import Host
from nbray.testing.ledger import RunLedger
from nbray.testing.network import Network, Weather
from nbray.testing.process import Process
from nbray.testing.worker import Worker
from nbray.testing.workload import random_script
from nbray.wire import messages as m

Script = Callable[[Process], Generator[Any, None, None]]
Workload = Callable[[random.Random, int, int, int], Script]  #: (chance, actions, cpus, cpus of actors)

#: A script may take this long, virtually: longer than any lease, grace or retry that a fault can set off.
BOUND_S = 240.0
#: Everything that was held is given back within this time of the last reference; after a node's death has become known.
REST_S = 10.0
DEATH_KNOWN_S = 62.0
#: A daemon that is to rejoin takes this long for a new life; an embedded cluster is started again in this time.
REBORN_S = 0.4


class Simulation:
    """A cluster of `nodes` hosts with `cpus` each; the first has the head, and the drivers."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 1,
        cpus: int = 2,
        arena_bytes: int = 256 * 1024,
        plan: FaultPlan | None = None,
        head_apart: bool = False,
        checked: bool = True,
    ) -> None:
        """`head_apart`: the head runs on a host of its own, and can be restarted there. `checked`: every machine proves its
        invariants after every event, which takes longer the more it knows; a rehearsal of thousands of tasks does without."""
        self.seed = seed
        self.checked = checked
        self.chance = random.Random(seed)  # reproducible on purpose
        self.clock = Clock()
        self.plan = plan or FaultPlan.none()
        self.cpus, self.arena_bytes = cpus, arena_bytes
        self.history = History(seed, lambda: self.clock.now)
        self.ledger = RunLedger(self.history)
        self.network = Network(self.clock, self.chance, Weather(self.plan.loss, self.plan.repeated, slow=self.plan.slow))
        self.network.on_lost = self.ledger.message_lost
        self.drivers: list[Process] = []
        self._pids = itertools.count(100)
        self._names = itertools.count(1)
        self.hosts: list[Host] = []
        self.head = SimulatedHead.apart(self) if head_apart else None
        for _ in range(nodes):
            self._add_host()
        self._started_at = self.clock.now
        self._last_node_fault = 0.0
        self._cut_off: list[Host] = []
        self._reporters_doomed = 0

    def next_pid(self) -> int:
        return next(self._pids)

    def lives(self, process: Address) -> bool:
        """Whether a driver or worker is there."""
        return any(process.process in (*host.workers, *host.drivers) for host in self.hosts if host.alive)

    # ------------------------------------------------------------------------------------------ running

    def run(self, *scripts: Script) -> None:
        """Run each script in a driver of its own, until all have ended, every reference is dropped, and everything has come to
        rest. Raises Violation."""
        try:
            self._run(scripts)
        except Violation:
            raise
        except Exception as error:
            raise self.history.violation(f"a machine failed: {type(error).__name__}: {error}") from error

    def _run(self, scripts: tuple[Script, ...]) -> None:
        self._started_at = self.clock.now
        running = [0]

        def ended() -> None:
            running[0] -= 1

        for script in scripts:
            driver = self._add_driver()
            running[0] += 1
            driver.spawn(script(driver), ended)
        for fault in self.plan.faults:
            self.clock.call_later(fault.at_s, lambda fault=fault: self._strike(fault))  # type: ignore[misc]
        bound = self.clock.now + BOUND_S
        while running[0]:
            if self.clock.now >= bound:
                raise self._hang()
            self.clock.step(bound)
        self._come_to_rest()

    def _hang(self) -> Violation:
        waiting = []
        for driver in self.drivers:
            for object_id in driver.waited_for():
                task = driver.state.tasks.tasks.get(object_id[:16])
                waiting.append(f"{driver.name} waits for {object_id.hex()} ({'no task' if task is None else task.state})")
        subject = next((object_id[:16] for driver in self.drivers for object_id in driver.waited_for()), None)
        return self.history.violation(f"no end after {BOUND_S:g} s: {'; '.join(waiting)}", subject)

    def _come_to_rest(self) -> None:
        """Drop what the scripts still hold, then wait until nothing is held."""
        for driver in self.drivers:
            driver.drop_all()
        ended_at = looked_at = self.clock.now
        while True:
            if self.clock.now >= looked_at + 0.2:
                looked_at = self.clock.now
                if not self._cut_off and not self._leftovers():
                    return
            known_at = self._last_node_fault + DEATH_KNOWN_S if self._last_node_fault else 0.0
            ended_at = max(ended_at, self.ledger.last_ran_at)
            rest_s = REST_S * (1 + 10 * self.plan.loss)  # the last words may have to be said again and again
            until = self.clock.now + 1.0 if self._cut_off else max(ended_at, known_at) + rest_s
            if self.clock.now >= until:
                self.ledger.check_rest(self._leftovers(), rest_s)
                return
            self.clock.step(until)

    def _leftovers(self) -> list[str]:
        processes = [process for host in self.hosts for process in (*host.workers.values(), *host.drivers.values())]
        astray = self.ledger.astray(processes)
        found = [line for host in self.hosts if host.alive for line in host.leftovers(astray)]
        if self.head is not None:
            directory = self.head.state.directory
            found += [f"head: actor {actor.hex()} {record.state}" for actor, record in directory.live.items()]
        return found

    # ------------------------------------------------------------------------------------------ hosts and drivers

    def _add_host(self) -> Host:
        host = Host(self, f"node {next(self._names)}", self.cpus, self.head)
        self.head = host.head
        self.hosts.append(host)
        host.begin()
        return host

    def _add_node(self) -> None:
        """Another host joins, if there is a cluster to join."""
        if self.head is not None:
            self._add_host()

    def _add_driver(self) -> Process:
        host = self.hosts[0]
        driver = Process(self, host, self.chance.randbytes(8), f"driver {len(self.drivers) + 1}")
        self.drivers.append(driver)
        self.ledger.drivers.add(driver.me.process)
        self._join(driver, host)
        return driver

    def _join(self, driver: Process, host: Host) -> None:
        driver.state.tasks.leases.introduction = m.DefineJob(driver.me, [], "", "space")
        host.driver_joins(driver)
        driver.job = driver.me
        driver.state.tasks.leases.introduction = m.DefineJob(driver.me, [], "", "space")

    def host_stopped(self, host: Host, reason: str, rejoin: bool) -> None:
        """The machine of a daemon ordered its end."""
        self._end_host(host, reason, rejoins=rejoin)
        if rejoin:
            self.clock.call_later(REBORN_S, self._add_node)

    def _end_host(self, host: Host, reason: str, *, rejoins: bool = False) -> None:
        self.ledger.node_failed(f"{host.name} ended: {reason}")
        self._last_node_fault = self.clock.now
        host.end()
        if host is self.hosts[0] and not rejoins:
            self.head = None
            self.hosts.clear()
            self.clock.call_later(REBORN_S, lambda: self._start_again(host))
        else:
            self.hosts.remove(host)

    def _start_again(self, old: Host) -> None:
        """An embedded cluster is gone; its drivers start another."""
        host = self._add_host()
        for driver in old.drivers.values():
            self._join(driver, host)

    # ------------------------------------------------------------------------------------------ faults

    def _strike(self, fault: Fault) -> None:
        others = [host for host in self.hosts[1:] if host.alive]
        match fault.kind:
            case "kill worker":
                self._kill_worker(fault.pick)
            case "kill reporter":
                self._reporters_doomed += 1
            case "memory pressure":
                self.ledger.violence = self.ledger.violence or "memory ran out"
                for host in self.hosts:
                    host.memory_pressure()
            case "restart head":
                head = self.head
                if head is not None and head.is_apart and not head.down:
                    head.crash()
                    self.clock.call_later(fault.lasts_s, head.restart)
            case "new node":
                self._add_node()
            case "crash node":
                if others or len(self.hosts) == 1:
                    victim = others[int(fault.pick * len(others))] if others else self.hosts[0]
                    self._end_host(victim, "it crashed")
            case "cut off node":
                if others:
                    self._cut(others[int(fault.pick * len(others))], fault.lasts_s)

    def _kill_worker(self, pick: float) -> None:
        """One that is of use to somebody: those that die before their first task stop the pool."""
        used = [worker for host in self.hosts for worker in host.workers.values() if worker.running or worker.actor is not None]
        if used:
            victim: Worker = used[int(pick * len(used))]
            victim.host.worker_exits(victim, None)

    def reported(self, worker: Worker) -> None:
        """A worker has just sent results."""
        if self._reporters_doomed and worker.actor is None:
            self._reporters_doomed -= 1
            self.ledger.violence = self.ledger.violence or f"{worker.name} was killed"
            worker.host.worker_exits(worker, None)

    def _cut(self, host: Host, lasts_s: float) -> None:
        self.network.cut_off(host.id)
        self._cut_off.append(host)
        if lasts_s > 10.0:
            self.ledger.node_failed(f"{host.name} was cut off for {lasts_s:g} s")

        def heal() -> None:
            self._cut_off.remove(host)
            self.network.heal(host.id)
            self._last_node_fault = self.clock.now

        self.clock.call_later(lasts_s, heal)


def simulate(seed: int, size: int = 25, workload: Workload = random_script) -> Simulation:
    """One run with everything drawn from the seed: hosts, CPUs, faults, and drivers of about `size` actions. Raises Violation."""
    chance = random.Random(seed * 7919 + 1)
    nodes, cpus = chance.choice([1, 1, 2, 2, 3]), chance.choice([1, 2, 2, 4])
    plan = FaultPlan.drawn(chance, nodes)
    apart = any(fault.kind == "restart head" for fault in plan.faults)
    simulation = Simulation(seed, nodes=nodes, cpus=cpus, arena_bytes=chance.choice([96, 256]) * 1024, plan=plan, head_apart=apart)
    drivers = chance.choice([1, 1, 1, 2])
    actor_cpus = chance.choice([0, 1]) if cpus > drivers else 0
    chances = [random.Random(seed * 31 + i) for i in range(drivers)]
    simulation.run(*[workload(each, size // drivers, cpus - drivers * actor_cpus, actor_cpus) for each in chances])
    return simulation
