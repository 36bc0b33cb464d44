"""What a node knows of its workers, leases and actors, what happens to it, and what it orders done."""

from __future__ import annotations

from enum import Enum

import msgspec

from nbray.ids import ActorId, Address, NodeId, ProcessId
from nbray.machine import Effect
from nbray.node.stock import Stock
from nbray.wire.messages import ActorSpec, Amounts, Death, RequestLease, RunEntrypoint, Shape

SIGKILL = 9
ShapeKey = tuple[object, ...]
#: What a worker has been used for: (job, environment). One that has loaded a job's modules serves no other job.
#: (job, environment, whether it may have devices): a process that has seen no device is not given one later, nor the other way.
Use = tuple[bytes, str, bool]


def shape_key(shape: Shape) -> ShapeKey:
    """Equal exactly for shapes whose tasks could share a lease."""
    key = (tuple(sorted(shape.amounts.items())), shape.strategy, shape.node, shape.soft, shape.env)
    if not shape.group and not shape.selectors:
        return key
    return (*key, shape.group, shape.bundle, shape.capture, tuple(map(tuple, shape.selectors)))


class Phase(Enum):
    """Where a worker is in its life. GONE has no record."""

    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"
    ACTOR = "actor"
    ENDING = "ending"  #: told or made to end, and not reaped yet; what it holds is still held


class Worker(msgspec.Struct, gc=False):
    """One worker process. `use` is None until its first lease: only then can it become an actor or serve any job."""

    process: ProcessId
    phase: Phase
    since: float  #: when `phase` began
    command: str = ""  #: of the interpreter that it was started with; empty: a fork of the zygote
    pid: int = 0
    use: Use | None = None
    lease: int | None = None
    actor: tuple[ActorId, int] | None = None
    blocked: bool = False
    keeps: bool = False  #: it owns what others wait for (WorkerKeeps): idle is not useless
    ending: str = ""  #: why it was told to end, in words: what its Death will say
    oom: bool = False  #: ended by us because memory ran out
    killed: bool = False  #: KillWorker was ordered
    kill_at: float | None = None  #: when patience with a polite end is over

    @property
    def is_unused(self) -> bool:
        return self.use is None and self.actor is None


class Lease(msgspec.Struct, gc=False):
    """A worker given to an owner. `held` is what it takes from `stock` now: its CPU is given back while it is blocked."""

    id: int
    owner: Address
    job: bytes
    key: ShapeKey
    amounts: Amounts
    held: Amounts
    worker: ProcessId
    retriable: bool
    since: float
    stock: Stock
    devices: list[int]  #: the GPUs that it has
    recalled: bool = False


class Request(msgspec.Struct, gc=False):
    """A RequestLease in the queue."""

    said: RequestLease
    key: ShapeKey
    since: float
    told: str = ""  #: the last LeaseWaiting sent for it

    @property
    def id(self) -> tuple[ProcessId, int]:
        return self.said.owner.process, self.said.request


class ActorLife(msgspec.Struct, gc=False):
    """One epoch of an actor on this node. `worker` is None until a fresh worker is there for it."""

    spec: ActorSpec
    epoch: int
    held: Amounts
    stock: Stock
    devices: list[int]  #: the GPUs that it has
    worker: ProcessId | None = None
    intended: str = ""  #: why its end, when it comes, is on purpose
    failed: bool = False  #: `__init__` raised, and the head knows


class Entrypoint(msgspec.Struct):
    """A submitted job on this node. `held` is None until it has its resources."""

    said: RunEntrypoint
    held: Amounts | None = None
    devices: list[int] = []  #: the GPUs that it has
    pid: int = 0  #: not 0 once it runs
    kill_at: float | None = None  #: it was told to end; what is left then is killed
    told: str = ""  #: the last EntrypointWaits sent for it


class Driver(msgspec.Struct, frozen=True, gc=False):
    process: ProcessId
    pid: int
    job: str
    namespace: str


# ----------------------------------------------------------------------------------------------------------------- events


class Begun(msgspec.Struct, frozen=True, gc=False):
    """The daemon listens: register with the head, start the first workers."""


class HeadMoved(msgspec.Struct, frozen=True, gc=False):
    """Another head answers at the address of the one that this node had joined."""

    head: NodeId


class WorkerHello(msgspec.Struct, frozen=True, gc=False):
    """A worker said Hello on the lifeline; its mailbox is there."""

    process: ProcessId
    pid: int


class WorkerExited(msgspec.Struct, frozen=True, gc=False):
    """A worker was reaped. `death` has what the system knows; the machine adds what was intended."""

    process: ProcessId
    death: Death


class DriverHello(msgspec.Struct, frozen=True, gc=False):
    process: ProcessId
    pid: int
    job: str
    namespace: str
    submission: str = ""


class ProcessLost(msgspec.Struct, frozen=True, gc=False):
    """The lifeline of a process other than a worker ended."""

    process: ProcessId
    role: str
    pid: int


class StartFailed(msgspec.Struct, frozen=True, gc=False):
    """A worker could not even be forked."""

    process: ProcessId
    reason: str


class EnvironmentMade(msgspec.Struct, frozen=True, gc=False):
    """MakeEnvironment is done. `command` starts a worker in it; empty: a worker forked from the zygote can enter it."""

    setup: str
    command: str


class EnvironmentFailed(msgspec.Struct, frozen=True, gc=False):
    """MakeEnvironment could not be done. `reason` has the installer's own words."""

    setup: str
    reason: str


class EntrypointStarted(msgspec.Struct, frozen=True, gc=False):
    """The command line of a submitted job runs."""

    submission: str
    pid: int


class EntrypointExited(msgspec.Struct, frozen=True, gc=False):
    """Nothing of it is left. Both None when it never began, or nobody saw how it ended: then `reason` says what is known."""

    submission: str
    exit_code: int | None
    signal: int | None
    reason: str
    log_tail: str


class MemoryPressure(msgspec.Struct, frozen=True, gc=False):
    """Memory in use is over config.MEMORY_KILL of the limit; both in bytes."""

    used: int
    limit: int


class StoreUsed(msgspec.Struct, frozen=True, gc=False):
    """The ledger's use of the arena, in bytes: goes into heartbeats."""

    used: int


# ---------------------------------------------------------------------------------------------------------------- effects


class StartWorker(Effect, frozen=True, gc=False):
    """Fork a worker with this id; with a command, let it become that interpreter. What comes back is WorkerHello, WorkerExited
    or StartFailed."""

    process: ProcessId
    command: str = ""


class KillWorker(Effect, frozen=True, gc=False):
    """Signal the worker; SIGKILL also its process group. What comes back is WorkerExited."""

    process: ProcessId
    signal: int


class MakeEnvironment(Effect, frozen=True, gc=False):
    """Make everything that `setup` (wire/environment.py) names, beside the daemon. What comes back is EnvironmentMade or
    EnvironmentFailed."""

    setup: str


class EndEnvironment(Effect, frozen=True, gc=False):
    """Stop making it, or let go of what it is made of."""

    setup: str


class StartEntrypoint(Effect, frozen=True, gc=False):
    """Run the command line. What comes back is EntrypointStarted, then EntrypointExited; or only the latter."""

    said: RunEntrypoint
    interpreter: str = ""  #: the command that starts the Python of its environment; empty: ours
    devices: list[int] = []  #: the GPUs that it has


class SignalEntrypoint(Effect, frozen=True, gc=False):
    """Signal the entrypoint's process group; SIGKILL everything that came of it. What comes back is EntrypointExited."""

    submission: str
    signal: int


class LogEntrypoint(Effect, frozen=True, gc=False):
    """It never began, and this is why: all that its log will have."""

    submission: str
    text: str


class ForgetEntrypoint(Effect, frozen=True, gc=False):
    """It has ended, and its log is not wanted any more."""

    submission: str


class Stop(Effect, frozen=True, gc=False):
    """End the daemon in order: workers first, then the directory. `rejoin`: begin a new life under a new id afterwards."""

    reason: str
    rejoin: bool = False
