"""The worker processes of a node: how many there may be, which one serves whom, and when one has to go. Pure.

    STARTING -> IDLE -> LEASED -> IDLE ...        -> ENDING -> gone
    STARTING -> IDLE -> ACTOR

A worker serves one job and environment for life (`Use`), or becomes an actor while nobody has used it. Workers that keep
dying before their first task would be started for ever; START_DEATHS of them within START_DEATHS_S stop the pool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from nbray import config
from nbray.ids import Address, NodeId, ProcessId
from nbray.machine import Effect, IllegalTransition, Send
from nbray.node.records import SIGKILL, KillWorker, Phase, StartWorker, Use, Worker
from nbray.wire.messages import Death, ExitWorker


class WorkerPool:
    """Workers by process id. Methods that order something append to `out`."""

    def __init__(self, node: NodeId, cpus: int) -> None:
        self.node = node
        self.limit = 0  #: of processes, besides actors
        self.resize(cpus)
        self.workers: dict[ProcessId, Worker] = {}
        self.last_death: Death | None = None  #: of a worker that never worked
        self._started = 0
        self._start_deaths: deque[float] = deque(maxlen=config.START_DEATHS)

    def resize(self, cpus: int) -> None:
        """The node has so many CPUs from now on. The limit only grows: so many processes there may be already."""
        self.cpus = cpus
        self.limit = max(self.limit, config.WORKERS_PER_CPU * cpus, config.WORKERS_MIN)

    def __getitem__(self, process: ProcessId) -> Worker:
        return self.workers[process]

    def get(self, process: ProcessId) -> Worker | None:
        return self.workers.get(process)

    def in_phase(self, phase: Phase) -> Iterator[Worker]:
        return (worker for worker in self.workers.values() if worker.phase is phase)

    def count(self, phase: Phase) -> int:
        return sum(1 for _ in self.in_phase(phase))

    # -- starting

    def _new_process(self) -> ProcessId:
        # Counter first, so that the short form that people see differs; the node's random bytes make it unique.
        self._started += 1
        mixed = self._started ^ int.from_bytes(self.node[5:], "big")
        return (mixed & 0xFFFFFF).to_bytes(3, "big") + self.node[:5]

    def starting(self, command: str) -> int:
        return sum(worker.command == command for worker in self.in_phase(Phase.STARTING))

    def start(self, count: int, now: float, out: list[Effect], command: str = "") -> int:
        """Order up to `count` workers, as many as may start at one time. Returns how many were ordered."""
        count = min(count, self.room(), config.WORKERS_STARTING - self.count(Phase.STARTING))
        for _ in range(count):
            process = self._new_process()
            self.workers[process] = Worker(process, Phase.STARTING, now, command)
            out.append(StartWorker(process, command))
        return max(count, 0)

    def room(self) -> int:
        """How many more processes there may be: actors do not count, and neither does who has been told to end."""
        return self.limit - sum(worker.phase not in (Phase.ACTOR, Phase.ENDING) for worker in self.workers.values())

    def stopped_until(self, now: float) -> float | None:
        """When the pool tries again, or None while it is not stopped."""
        if len(self._start_deaths) < config.START_DEATHS:
            return None
        until = self._start_deaths[0] + config.START_DEATHS_S
        return until if now < until else None

    # -- serving

    def greet(self, process: ProcessId, pid: int, now: float) -> Worker | None:
        """A worker said Hello. None if it is one that was told to end before."""
        worker = self.workers.get(process)
        if worker is None:
            return None
        worker.pid = pid
        if worker.phase is Phase.ENDING:
            return None
        if worker.phase is not Phase.STARTING:
            raise IllegalTransition(f"worker {pid}", "Hello", worker.phase)
        worker.phase, worker.since = Phase.IDLE, now
        return worker

    def idle_for(self, use: Use, command: str = "") -> Worker | None:
        """An idle worker for `use`: the one that was used last, whose caches are warm; else a fresh one of the interpreter."""
        idle = [
            worker
            for worker in self.in_phase(Phase.IDLE)
            if worker.use == use or (worker.use is None and worker.command == command)
        ]
        return max(idle, key=lambda worker: (worker.use is not None, worker.since), default=None)

    def fresh(self, command: str = "") -> Worker | None:
        """An idle worker of the interpreter that nobody has used."""
        return next((worker for worker in self.in_phase(Phase.IDLE) if worker.use is None and worker.command == command), None)

    def release(self, worker: Worker, now: float) -> None:
        """Its lease was returned."""
        worker.phase, worker.since, worker.lease, worker.blocked = Phase.IDLE, now, None, False

    # -- ending

    def kill(self, worker: Worker, reason: str, now: float, out: list[Effect], *, oom: bool = False) -> None:
        """SIGKILL. What the worker holds it holds until it is reaped. The first reason stays."""
        self._mark(worker, reason, now)
        worker.oom = worker.oom or oom
        worker.kill_at = None
        if not worker.killed:
            worker.killed = True
            out.append(KillWorker(worker.process, SIGKILL))

    def ask_to_end(self, worker: Worker, reason: str, now: float, patience_s: float | None, out: list[Effect]) -> None:
        """Let it finish what it was sent; after `patience_s` it is killed. None: it may take for ever."""
        self._mark(worker, reason, now)
        if patience_s is not None:
            worker.kill_at = now + patience_s
        out.append(Send(Address(self.node, worker.process), ExitWorker(reason)))

    def retire(self, worker: Worker, reason: str, now: float, out: list[Effect]) -> None:
        """Let it end once nobody needs what it owns: only from then on is its time counted."""
        self.ask_to_end(worker, reason, now, None if worker.keeps else config.ACTOR_EXIT_S, out)

    def keeps(self, worker: Worker, keeps: bool, now: float) -> None:
        """Whether its end would fail something."""
        worker.keeps = keeps
        if worker.phase is Phase.ENDING and worker.actor is None and not keeps and worker.kill_at is None and not worker.killed:
            worker.kill_at = now + config.ACTOR_EXIT_S

    @staticmethod
    def _mark(worker: Worker, reason: str, now: float) -> None:
        worker.ending = worker.ending or reason
        if worker.phase is not Phase.ENDING:
            worker.phase, worker.since = Phase.ENDING, now

    def retire_strangers(self, count: int, now: float, out: list[Effect]) -> None:
        """Make room for `count` workers that a new job needs, at the cost of idle ones that only others could use."""
        idle = (worker for worker in self._useless() if worker.use is not None or worker.command)
        used = sorted(idle, key=lambda worker: worker.since)
        for worker in used[:count]:
            self.ask_to_end(worker, "another job needs a fresh worker", now, config.KILL_S, out)

    def _useless(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.phase is Phase.IDLE and not worker.keeps]

    def reap_idle(self, now: float, out: list[Effect]) -> None:
        """Beyond one per CPU, idle workers end after WORKER_IDLE_S, the longest idle first."""
        idle = self._useless()
        if len(idle) <= self.cpus:
            return  # most of the time: after every event of the node this is asked
        idle.sort(key=lambda worker: worker.since)
        for worker in idle[: len(idle) - self.cpus]:
            if now >= worker.since + config.WORKER_IDLE_S:
                self.ask_to_end(worker, "idle", now, config.KILL_S, out)

    def kill_the_slow(self, now: float, out: list[Effect]) -> None:
        due = [worker for worker in self.workers.values() if worker.kill_at is not None and now >= worker.kill_at]
        for worker in due:
            if worker.phase is Phase.ENDING:
                self.kill(worker, worker.ending, now, out)

    def bury(self, process: ProcessId, now: float, death: Death) -> Worker | None:
        """Forget a worker that was reaped, or never forked. None if it is not ours."""
        worker = self.workers.pop(process, None)
        # An interpreter that somebody brought says nothing about those that are forked here.
        if worker is not None and worker.is_unused and not worker.ending and not worker.command:
            self._start_deaths.append(now)
            self.last_death = death
        return worker

    def deadline(self) -> float | None:
        """When `reap_idle` or `kill_the_slow` next has something to do."""
        times = [worker.kill_at for worker in self.in_phase(Phase.ENDING) if worker.kill_at is not None]
        idle = sorted(worker.since for worker in self._useless())
        if len(idle) > self.cpus:
            times.append(idle[0] + config.WORKER_IDLE_S)
        return min(times, default=None)
