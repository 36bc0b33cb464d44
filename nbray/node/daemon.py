"""The node daemon: one loop around the machines of a node. It carries out what they order and decides nothing.

    mailbox, HEAD's mailbox --\\                   / NodeState   leases, workers, actors
    lifelines, zygote ---------> events by type --<  Ledger      objects                 --> effects
    spill thread, gateway -----/                   \\ HeadState   members, actors (first node only)

What the machines of this process say to each other does not leave it: it is queued and handled after the present event.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from nbray import config
from nbray.ids import HEAD, Address
from nbray.machine import Effect, IllegalTransition, Send, Tick
from nbray.node import logs, monitor
from nbray.node.load import Load
from nbray.node.loop import Loop
from nbray.node.making import Making
from nbray.node.records import (
    Begun,
    EndEnvironment,
    ForgetEntrypoint,
    KillWorker,
    LogEntrypoint,
    MakeEnvironment,
    MemoryPressure,
    ProcessLost,
    SignalEntrypoint,
    StartEntrypoint,
    StartFailed,
    StartWorker,
    Stop,
    StoreUsed,
    WorkerExited,
)
from nbray.node.state import NodeState
from nbray.node.supervision import Supervision
from nbray.sched.resources import UNIT
from nbray.store.arena import Arena
from nbray.store.ledger import Ledger
from nbray.store.orders import Fact, ProcessExited, RemoveSpilled, Restore, SendChunk, Spill, WriteChunk
from nbray.store.spill import Spiller
from nbray.store.transfer import move_chunk
from nbray.wire.codec import encode
from nbray.wire.mailbox import Mailbox
from nbray.wire.messages import Answer, Ask, ClusterView, DrainNode, Heartbeat, Message, NodeInfo, ProcessDied

#: Messages handled before the loop looks at anything else.
BATCH = 512
#: A worker's last words travel another way than the news of its end; after an orderly exit they get this long.
LAST_WORDS_S = 0.02
#: Questions that the node answers itself; the others are the head's.
NODE_QUESTIONS = ("workers", "objects", "store", "job_log")


class Hosted(Protocol):
    """The head as its node's daemon sees it: a machine whose effects need nothing but carrying out."""

    resumed: list[Effect]

    def handle(self, event: Any, now: float) -> list[Effect]: ...

    def next_deadline(self) -> float | None: ...


class Reach(Protocol):
    """The network as the daemon sees it."""

    def learn(self, nodes: Sequence[NodeInfo]) -> None: ...

    def forget(self, process: bytes) -> None: ...


class Daemon:
    """The machines of one node life and the loop around them. Built by `node/life.py`."""

    def __init__(self, loop: Loop, directory: str, state: NodeState, ledger: Ledger, head: Hosted | None, arena: Arena) -> None:
        self.loop = loop
        self.state, self.ledger, self.head = state, ledger, head
        self.stopped: Stop | None = None
        self.me = state.ground.me
        self._head_address = state.ground.head
        self._arena = arena
        self._local: deque[tuple[Address, Any]] = deque()
        self._encoded: tuple[Message | None, bytes] = None, b""  #: the last that went to another node
        self._mailbox = Mailbox(self.me, directory)
        self._mailboxes = [self._mailbox]
        if head is not None:
            # A mailbox of its own, because some messages go to nodes and to heads, and mean different things there.
            self._mailboxes.append(Mailbox(Address(self.me.node, HEAD), directory))
        for mailbox in self._mailboxes:
            loop.watch(mailbox.fd, lambda: None)  # it only ends the wait: mail is fetched before every wait
        self._store_used = 0
        self._load = Load(self.state.ground.total.get("GPU", 0) // UNIT)
        self._look_due: float | None = None
        self._spiller: Spiller | None = None
        self._start_worker: Callable[[bytes, str], None]
        self._signal_worker: Callable[[bytes, int], None]
        self._trim_logs: Callable[[], None]
        self._making: Making
        self._network: Reach | None = None
        self._log_directory = ""
        self._jobs: Supervision
        self._carry: dict[type, Callable[[Any], None]] = {
            Send: lambda e: self.send(e.to, e.message),
            StartWorker: lambda e: self._start_worker(e.process, e.command),
            KillWorker: lambda e: self._signal_worker(e.process, e.signal),
            MakeEnvironment: lambda e: self._making.make(e.setup),
            EndEnvironment: lambda e: self._making.end(e.setup),
            Stop: self._stop,
            Spill: self._to_disk,
            Restore: self._to_disk,
            RemoveSpilled: self._to_disk,
            WriteChunk: lambda e: move_chunk(self._arena, e, self.send),
            SendChunk: lambda e: move_chunk(self._arena, e, self.send),
        }

    def connect(
        self,
        *,
        start_worker: Callable[[bytes, str], None],
        signal_worker: Callable[[bytes, int], None],
        trim_logs: Callable[[], None],
        making: Making,
        spill_directory: str,
        log_directory: str,
        jobs: Supervision,
        network: Reach | None,
    ) -> None:
        """What carries orders out. `network` is None where there are no other nodes."""
        self._start_worker, self._signal_worker, self._trim_logs = start_worker, signal_worker, trim_logs
        self._making = making
        self._spiller = Spiller(self._arena, Path(spill_directory), self._spill_told)
        self._jobs = jobs
        self._carry |= {
            StartEntrypoint: jobs.start,
            SignalEntrypoint: jobs.signal,
            LogEntrypoint: jobs.write,
            ForgetEntrypoint: jobs.forget,
        }
        self._network = network
        self._log_directory = log_directory

    # -- running

    def run(self) -> Stop:
        """Until some event orders the end of this node; what is left to clean up is the caller's."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, lambda name=number.name: self.tell_node(DrainNode(name)))  # type: ignore[misc]
        if self.head is not None:
            self._carry_all(self.head.resumed)
        self.tell_node(Begun())
        while self.stopped is None:
            busy = self.fetch_mail()
            self._tick()
            self._look_around()
            if self.stopped is None:
                self.loop.step(self.loop.now() if busy else self._deadline())
        return self.stopped

    def _deadline(self) -> float | None:
        machines = [self.state.next_deadline(), self.ledger.next_deadline(), self._look_due]
        if self.head is not None:
            machines.append(self.head.next_deadline())
        return min((due for due in machines if due is not None), default=None)

    def _tick(self) -> None:
        now = self.loop.now()
        machines: list[tuple[Any, Callable[[Any], None]]] = [(self.state, self.tell_node), (self.ledger, self.tell_ledger)]
        if self.head is not None:
            machines.append((self.head, self.tell_head))
        for machine, tell in machines:
            due = machine.next_deadline()
            if due is not None and due <= now:
                tell(Tick())
        if self.ledger.used != self._store_used:
            self._store_used = self.ledger.used
            self.tell_node(StoreUsed(self._store_used))

    def _look_around(self) -> None:
        """At memory and logs every MEMORY_CHECK_S while something runs, and never else."""
        now = self.loop.now()
        if not self.state.is_working:
            self._look_due = None
        elif self._look_due is None:
            self._look_due = now + config.MEMORY_CHECK_S
        elif now >= self._look_due:
            self._look_due = now + config.MEMORY_CHECK_S
            self._trim_logs()
            usage = monitor.memory_usage()
            if usage.used > usage.limit * config.MEMORY_KILL:
                self.tell_node(MemoryPressure(usage.used, usage.limit))

    def fetch_mail(self) -> bool:
        """Handle what has arrived, of each mailbox in its turn: a flood for the node does not hold up the head. True if there may
        be more."""
        more = False
        for mailbox in self._mailboxes:
            for _ in range(BATCH):
                message = mailbox.receive_nowait()
                if message is None:
                    break
                self._arrived(mailbox.address, message)
            else:
                more = True
        return more

    # -- events

    def _arrived(self, at: Address, message: Message) -> None:
        """Sort one message by the mailbox it came to and by its type."""
        if at.process == HEAD:
            self._for_head(message)
        elif isinstance(message, Ask):
            self._answer(message)
        else:
            known = False
            if self.ledger.handles(type(message)):
                self.tell_ledger(message)
                known = True
            if isinstance(message, ProcessDied):
                self.tell_ledger(ProcessExited(message.death.process))
            if self.state.handles(message):
                self.tell_node(message)
            elif not known:
                self._complain(f"a {type(message).__name__} came to a node, which has no use for it")

    def _for_head(self, message: Message) -> None:
        if isinstance(message, Ask) and message.what in NODE_QUESTIONS:
            self._answer(message)
            return
        if isinstance(message, Ask):
            # A heartbeat may be 50 ms behind; whoever asks right after a task is told of now, at least for this node.
            self.tell_head(Heartbeat(self.state.ground.info()))
        self.tell_head(message)

    def _answer(self, ask: Ask) -> None:
        match ask.what:
            case "workers":
                result: Any = self.state.workers()
            case "objects":
                result = self.ledger.objects()
            case "store":
                result = self.ledger.stats()
            case "environments":
                result = self.state.ground.environments.listing()
            case "vitals":
                alive = [row for row in self.state.workers() if row["state"] != "GONE"]
                pids = [row["pid"] for row in alive if row["pid"]]
                result = {"workers": alive, "store": self.ledger.stats(), "load": self._load.reading(pids)}
            case "processes" | "scale":
                self.tell_node(ask)
                return
            case "logs" | "log":
                self.send(ask.asker, logs.answer(self._log_directory, ask))
                return
            case "job_log":
                self._jobs.read_log(ask.arguments, lambda part: self.send(ask.asker, Answer(ask.request, part)))
                return
            case _:
                self.send(ask.asker, Answer(ask.request, error=f"a node does not know about {ask.what!r}; ask the head"))
                return
        self.send(ask.asker, Answer(ask.request, result))

    def tell_node(self, event: Any) -> None:
        self._step(self.state.handle, event)
        if isinstance(event, ClusterView) and self._network is not None:
            self._network.learn(event.nodes)

    def tell_ledger(self, event: Any) -> None:
        self._step(self.ledger.handle, event)

    def tell_head(self, event: Any) -> None:
        if self.head is not None:
            self._step(self.head.handle, event)

    def worker_ended(self, event: WorkerExited | StartFailed) -> None:
        """A worker was reaped. Its last messages come first, if they can be had."""
        if isinstance(event, WorkerExited) and event.death.exit_code == 0:
            self.loop.call_later(LAST_WORDS_S, lambda: self._bury(event))
        else:
            self._bury(event)

    def _bury(self, event: WorkerExited | StartFailed) -> None:
        self.fetch_mail()
        self.tell_node(event)
        self.process_ended(event.process)

    def process_ended(self, process: bytes) -> None:
        """Any process of this node is gone: its pins, loans and mail."""
        self.tell_ledger(ProcessExited(process))
        self._mailbox.forget(process)
        if self._network is not None:
            self._network.forget(process)

    def left(self, process: bytes, role: str, pid: int) -> None:
        """The lifeline of a driver or viewer ended."""
        self.fetch_mail()
        self.tell_node(ProcessLost(process, role, pid))
        self.process_ended(process)

    def _spill_told(self, fact: Fact) -> None:
        self.loop.call_from_thread(lambda: self.tell_ledger(fact))

    # -- effects

    def _step(self, handle: Callable[[Any, float], list[Effect]], event: Any) -> None:
        """One event and its effects; then, at the outermost level, what they said to machines of this process."""
        try:
            effects = handle(event, self.loop.now())
        except IllegalTransition as wrong:
            # Some process said what cannot be. It is refused; the node serves the others.
            self._complain(str(wrong))
            return
        self._carry_all(effects)

    def _carry_all(self, effects: list[Effect]) -> None:
        outermost = not self._local
        for effect in effects:
            self._carry[type(effect)](effect)
        while outermost and self._local:
            to, message = self._local[0]
            self._arrived(to, message)
            self._local.popleft()

    def send(self, to: Address, message: Message) -> None:
        """To a mailbox of this process, or by mail."""
        if to.node == self.me.node and to.process in (self.me.process, HEAD):
            self._local.append((to, message))
        elif to.node != self.me.node:
            # What the head tells all nodes comes here once for each of them.
            if self._encoded[0] is not message:
                self._encoded = message, encode(message)
            self._mailbox.send_frame(to, self._encoded[1])
        elif self.stopped is None:
            # Once stopped, this node's processes learn it from their lifelines, and mail for those that are gone would hold up
            # the end for as long as mailboxes linger.
            self._mailbox.send(to, message)

    def _to_disk(self, order: Spill | Restore | RemoveSpilled) -> None:
        assert self._spiller is not None
        self._spiller.submit(order)

    def _stop(self, order: Stop) -> None:
        self.stopped = self.stopped or order

    @staticmethod
    def _complain(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} refused: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Send what is queued, and let go of everything."""
        if self._spiller is not None:
            self._spiller.close()
        if self._network is not None:
            self._mailbox.pass_on()
        for mailbox in reversed(self._mailboxes):
            self.loop.unwatch(mailbox.fd)
            mailbox.close()
