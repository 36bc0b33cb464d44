"""One life of a node daemon: directory, arena, machines, sockets; then the loop; then everything away again, in order."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from nbray.ids import HEAD, Address, NodeId, new_process_id
from nbray.node.daemon import Daemon
from nbray.node.forking import WorkerBoot
from nbray.node.lifelines import Lifelines
from nbray.node.loop import Loop
from nbray.node.making import Making
from nbray.node.records import DriverHello, HeadMoved, Phase, Stop, WorkerHello
from nbray.node.settings import Capacity, NodeSettings, Started, capacity, named_by
from nbray.node.state import NodeState
from nbray.node.supervision import Supervision
from nbray.node.workers import Workers
from nbray.sched.labels import NODE_ID
from nbray.store.arena import Arena, create_arena
from nbray.store.ledger import Ledger
from nbray.wire import lifeline, rundir
from nbray.wire.messages import DrainNode, Hello, NodeInfo, Welcome

#: Workers that were killed are gone within this time, or something holds them that we cannot end.
END_S = 3.0
#: What submitted jobs have to end in when their node does.
JOBS_END_S = 1.0


def live(settings: NodeSettings, zygote: tuple[int, socket.socket], started: Callable[[Started], None]) -> Stop:
    """Run one life of a node to its end. `started` is called once processes can attach. Raises what kept it from starting."""
    rundir.clean_stale(settings.root)
    place = rundir.create(settings.root)
    try:
        node = _Node(settings, capacity(settings), place)
        try:
            return node.live(zygote, started)
        finally:
            node.close()
    finally:
        place.remove()


class _Node:
    """Everything that one life needs, in the order in which it is made and the reverse in which it is let go."""

    def __init__(self, settings: NodeSettings, has: Capacity, place: rundir.RunDirectory) -> None:
        self._place = place
        self._open = contextlib.ExitStack()
        self._settings = settings
        self.id = new_process_id()
        self._hello = lifeline.hello("node", self.id)
        self._cpus_from = has.cpus_from
        self._arena_bytes = has.store_bytes
        self._arena_fd = create_arena(has.store_bytes)
        self._open.callback(os.close, self._arena_fd)
        self._loop = Loop()
        self._open.callback(self._loop.close)
        self._session = settings.session or new_process_id().hex()
        self._network: Any = None
        self._head_address, gateway_address = self._join_or_found()
        total = has.total | named_by(settings, is_head=self._is_head)
        info = NodeInfo(
            node=self.id,
            host=settings.host or platform.node(),
            pid=os.getpid(),
            total=total,
            available=total,
            labels={**settings.labels, NODE_ID: self.id.hex()},
            gateway=gateway_address,
            is_head=self._is_head,
            store_bytes=has.store_bytes,
        )
        state = NodeState(info, self._head_address, embedded=not settings.keep)
        head = self._head()
        self._state = state
        arena = Arena(self._arena_fd, has.store_bytes)
        self._daemon = Daemon(self._loop, place.path, state, Ledger(self.id, has.store_bytes), head, arena)
        self._open.callback(self._daemon.close)
        self._workers = self._make_workers()
        self._making = Making(self._loop, place.path, place.environments, f"{place.logs}/environments.log", self._daemon.tell_node)
        self._open.callback(self._making.close)
        self._jobs = Supervision(self._loop, place.path, place.logs, place.environments, self._daemon.tell_node)
        self._open.callback(self._jobs.close)

    @property
    def _is_head(self) -> bool:
        return self._head_address.node == self.id

    def _join_or_found(self) -> tuple[Address, str]:
        """(the head's address, our gateway's address for others), after joining if this node joins."""
        settings = self._settings
        if settings.network is None:
            if settings.role != "head":
                raise ValueError(f"a node in the role {settings.role!r} needs network settings: whom to join, and the secret")
            return Address(self.id, HEAD), ""
        # Loaded only where there is a network: a local cluster has no use for it.
        network = importlib.import_module("nbray.node.network").Network(
            settings.network, self._place.path, self.id, self._later(self._cut_off), self._later(self._head_moved)
        )
        self._network = network
        self._open.callback(network.close)
        head = network.join()
        bind = settings.network.bind
        address = "" if bind is None else f"{settings.host or bind[0]}:{network.port}"
        return Address(head if head is not None else self.id, HEAD), address

    def _later(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """For the gateway's thread: run it in the loop."""
        return lambda word: self._loop.call_from_thread(lambda: callback(word))

    def _head_moved(self, head: NodeId) -> None:
        self._daemon.tell_node(HeadMoved(head))

    def _cut_off(self, reason: str) -> None:
        self._daemon.tell_node(DrainNode(reason))

    def _head(self) -> Any:
        """The head, if it lives here. By name, because roles do not know each other; and a node that joins loads none."""
        if not self._is_head:
            return None
        host = importlib.import_module("nbray.head.host").HeadHost(
            self._head_address, self._session, self._settings.state_path, self._loop.now()
        )
        self._open.callback(host.close)
        return host

    def _make_workers(self) -> Workers:
        boot = WorkerBoot(
            directory=self._place.path,
            node=self.id,
            process=bytes(8),
            head=self._head_address,
            session=self._session,
            arena_bytes=self._arena_bytes,
            log_directory=self._place.logs,
        )
        return Workers(self._loop, self.id, boot, self._arena_fd, self._settings.entry, self._daemon.worker_ended)

    def live(self, zygote: tuple[int, socket.socket], started: Callable[[Started], None]) -> Stop:
        self._workers.adopt(*zygote)
        self._daemon.connect(
            start_worker=self._workers.start,
            signal_worker=self._workers.signal,
            trim_logs=self._workers.trim_logs,
            making=self._making,
            spill_directory=self._place.spill,
            log_directory=self._place.logs,
            jobs=self._jobs,
            network=self._network,
        )
        self._lifelines = Lifelines(
            self._loop, self._place.path, self._arena_fd, admit=self._admit, joined=self._joined, lost=self._lost
        )
        port = self._network.port if self._network is not None else None
        started(Started(self._place.path, os.getpid(), self.id, self._session, port))
        _write_to(f"{self._place.logs}/node.log")
        stop = self._daemon.run()
        print(f"stopping: {stop.reason}", file=sys.stderr, flush=True)
        self._end_jobs()
        self._end_workers()
        self._lifelines.close()
        return stop

    def _end_jobs(self) -> None:
        """Tell submitted jobs to end, and end what has not done so."""
        for number, patience_s in ((signal.SIGTERM, JOBS_END_S), (signal.SIGKILL, END_S)):
            self._jobs.end_all(number)
            deadline = self._loop.now() + patience_s
            while self._jobs.running and self._loop.now() < deadline:
                self._loop.step(deadline)

    def _end_workers(self) -> None:
        """Kill them, each with what it has started, and wait until they are gone."""
        self._workers.kill_all()
        deadline = self._loop.now() + END_S
        while self._workers.running and self._loop.now() < deadline:
            self._loop.step(deadline)
        self._workers.end()

    def close(self) -> None:
        self._open.close()

    # -- who comes and goes

    def _admit(self, guest: lifeline.Guest, hello: Hello) -> Welcome | str:
        if reason := lifeline.mismatch(hello, self._hello):
            return reason
        if hello.role == "worker":
            worker = self._state.pool.get(hello.process)
            if worker is None or worker.phase not in (Phase.STARTING, Phase.ENDING):
                return "no worker of this id was started here"
        elif hello.role not in ("driver", "viewer"):
            return f"there is no role {hello.role!r}"
        if hello.process in self._lifelines.members or hello.process in (self.id, HEAD):
            return f"process id {hello.process.hex()} is taken; every process draws its own"
        return Welcome(
            node=self.id,
            head=self._head_address,
            arena_bytes=self._arena_bytes,
            session=self._session,
            log_directory=self._place.logs,
            is_head_node=self._is_head,
            cpus_from=self._cpus_from,
            caution=lifeline.caution(hello, self._workers.cloudpickle),
        )

    def _joined(self, hello: Hello, pid: int) -> None:
        if hello.role == "worker":
            self._daemon.tell_node(WorkerHello(hello.process, pid))
        elif hello.role == "driver":
            self._daemon.tell_node(DriverHello(hello.process, pid, hello.job, hello.namespace, hello.submission))

    def _lost(self, hello: Hello, pid: int) -> None:
        if hello.role != "worker":
            self._daemon.left(hello.process, hello.role, pid)
            return
        # Usually it is being reaped this moment, with its true end. One that only closed its descriptors is of no use any more.
        self._loop.call_later(1.0, lambda: self._workers.signal(hello.process, 9))


def _write_to(path: str) -> None:
    """From now on what this process says goes to its log: whoever started it has heard what it needed to hear."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
