"""What an owner keeps: one record per object, task, lease, actor. Hot ones are msgspec structs without garbage collection.

A queued task with its returned object, its ids and a small argument comes to about 1 KiB (benchmarks/ measures it), because a
million of them is a normal day. None of these records forms a cycle that outlives its task.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from nbray.ids import ActorId, Address, NodeId, ObjectId, ProcessId, TaskId
from nbray.machine import Effect, Send
from nbray.wire.messages import (
    Amounts,
    CreateGroup,
    Death,
    Dependency,
    Failure,
    Held,
    Location,
    PushCall,
    PushTask,
    Shape,
    Value,
)
from nbray.wire.values import checksum

# -- states of a task (docs/architecture.md has the table)
WAITING, QUEUED, PUSHED, DONE, FAILED, CANCELLED = "WAITING", "QUEUED", "PUSHED", "DONE", "FAILED", "CANCELLED"

FORGOTTEN = "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED"  #: of a result whose task might run again, were it still known
NOTHING = Value(inline=b"\x80\x05N.", crc=checksum(b"\x80\x05N."))  #: the pickle of None


class OwnedObject(msgspec.Struct, gc=False):
    """An object that this process owns or borrows. `value` is None while PENDING (owner) or not yet told (borrower)."""

    id: ObjectId
    owner: Address
    count: int = 1  #: this process's holds: local references, tasks that need it, containers that hold it
    value: Value | None = None
    task: OwnedTask | None = None  #: what makes it, kept while it may have to be made again
    holders: dict[ProcessId, int] | None = None  #: owner: other processes' counts; may be negative for a moment
    credits: int = 0  #: borrower: how often the owner counted us
    copies: set[NodeId] | None = None  #: owner: nodes with a sealed copy
    readers: list[Address] | None = None  #: owner: borrowers to be told
    dependents: list[OwnedTask] | None = None  #: tasks that wait for the value
    watched: bool = False  #: the shell wants `Ready`
    asked: bool = False  #: borrower: AskValue is on its way
    fetching: Location | None = None  #: FetchObject, of the copy that was there, is on its way to our node
    wanted_local: bool = False  #: `Ready` only once the bytes are here
    pinned: tuple[int, int] | None = None  #: (offset, size) in our node's arena, while we hold a pin
    views: int = 0  #: live views over the pinned bytes
    seen: bool = False  #: somebody fetched it or passed it on: its failure is not unhandled
    cell: str = ""
    line: str = ""  #: where it was made: "In[12] line 3" or "script.py:40"
    once: str = ""  #: owner, stored: why it could not be made again, a key of REASON_MESSAGES; "": `task` might


class OwnedTask(msgspec.Struct, gc=False):
    """One task or actor call that this process submitted. A new attempt is a new `push`, never a wiped record."""

    push: PushTask | PushCall
    retries: int  #: crashes still forgiven; -1: for ever
    state: str = WAITING
    shape: Shape | None = None  #: None for actor calls
    key: str = ""  #: names the shape; made once per set of options, so that no task computes it
    missing: int = 0  #: dependencies without a value
    needs: list[Held] | None = None  #: references at top level, in the order of `push.dependencies`
    pins: list[ObjectId] | None = None  #: everything held until the task is over
    lease: Any = None  #: the Lease it was pushed under; None otherwise
    retry_exceptions: int = 0  #: exceptions still forgiven (-1 for ever), when the owner retries on exceptions
    retry_types: Any = None  #: opaque here; the shell decides whether an exception matches
    parent: TaskId = b""  #: the task that submitted it, in a worker
    retain: bool = False  #: arguments stay pinned after the task is done: a stored result may need another run
    cancelled: bool = False
    submitted_ns: int = 0
    pushed_ns: int = 0
    traced: bool = True  #: told to the trace when it ends
    line: str = ""  #: where it was submitted; every task of one place has the same text
    ran_on: NodeId = b""  #: the node of the worker that reported it

    @property
    def id(self) -> TaskId:
        return self.push.task

    def unrepeatable(self) -> str:
        """Why it may not run again for the sake of a lost result, a key of REASON_MESSAGES; "" if it may."""
        if self.cancelled:
            return "OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED"
        if self.shape is None:
            return "OBJECT_UNRECONSTRUCTABLE_ACTOR_TASK"
        if self.retries == 0:
            used = "MAX_ATTEMPTS_EXCEEDED" if self.push.attempt else "RETRIES_DISABLED"
            return f"OBJECT_UNRECONSTRUCTABLE_{used}"
        return ""

    def use_retry(self) -> None:
        """One more attempt: N retries are N + 1 runs, whether crashes or exceptions end them."""
        if self.retries > 0:
            self.retries -= 1
        if self.retry_exceptions > 0:
            self.retry_exceptions -= 1


class Lease(msgspec.Struct, gc=False):
    """One worker, ours until we give it back."""

    id: int
    node: NodeId
    worker: Address
    pid: int
    pool: Any  #: the LeasePool it serves
    running: dict[TaskId, OwnedTask]  #: pushed and not reported, in the order pushed: the first one runs
    load_s: float = 0.0  #: estimated work pushed
    idle_since: float | None = None
    busy_since: float = 0.0
    blocked: bool = False
    recalled: bool = False  #: the node wants it back
    asked_back: bool = False  #: a RecallTasks is on its way
    devices: list[int] = []  #: the GPUs that it has


class LeasePool:
    """Tasks of one shape and the leases that serve them."""

    __slots__ = ("idle", "key", "leases", "never", "queue", "requests", "shape", "waiting")

    def __init__(self, key: str, shape: Shape) -> None:
        self.key = key
        self.shape = shape
        self.queue: deque[OwnedTask] = deque()
        self.leases: dict[tuple[NodeId, int], Lease] = {}
        self.requests: dict[int, NodeId] = {}  #: request -> the node that was asked
        self.idle: dict[tuple[NodeId, int], Lease] = {}  #: those with nothing pushed, oldest first
        self.waiting = ""  #: why the node does not grant, in words
        self.never = False  #: and no node of the cluster ever could


class ActorClient:
    """One actor as its callers in this process know it."""

    __slots__ = (
        "actor", "address", "class_name", "epoch", "failure", "killed", "lines", "owned", "running", "sequence", "state",
        "unordered", "waiting", "watched", "why",
    )  # fmt: skip

    def __init__(self, actor: ActorId, class_name: str) -> None:
        self.actor = actor
        self.class_name = class_name
        self.why = ""  #: PENDING: why it is not placed, in words
        self.state = "UNKNOWN"  #: UNKNOWN, PENDING, ALIVE, RESTARTING, DEAD
        self.epoch = -1
        self.address: Address | None = None
        self.failure: Failure | None = None
        self.killed: Failure | None = None  #: this process killed it for good, and the head's word of its death is on the way
        self.sequence = 0  #: of the next call in this epoch
        self.unordered = False  #: a call that waits for its arguments does not hold back those behind it
        #: By concurrency group, all in one where order is not kept: calls in their order, of which only the first may be sent.
        self.lines: dict[str, deque[OwnedTask]] = {"": deque()}
        self.waiting: dict[TaskId, OwnedTask] = {}  #: calls out of order that wait for their arguments
        self.running: dict[TaskId, OwnedTask] = {}
        self.owned = False
        self.watched = False

    def line(self, task: OwnedTask) -> deque[OwnedTask]:
        """Where the call waits for its turn."""
        assert isinstance(task.push, PushCall)
        group = "" if self.unordered else task.push.group
        line = self.lines.get(group)
        if line is None:
            line = self.lines[group] = deque()
        return line

    def under_way(self) -> Iterator[OwnedTask]:
        """What it is busy with, as far as a caller knows: the first that it was sent, or all where order is not kept."""
        return itertools.islice(self.running.values(), None if self.unordered else 1)

    @property
    def pending(self) -> int:
        """Calls that have not ended. Some in the lines may have: they leave when it is their turn."""
        queued = sum(task.state in (WAITING, QUEUED) for line in self.lines.values() for task in line)
        return queued + len(self.waiting) + len(self.running)


# ---------------------------------------------------------------------------------------------- events of this process


class Submitted(msgspec.Struct, gc=False):
    """A task was submitted. Its return objects get one hold each: the references that the caller receives.

    `objects` are their ids, if the caller has them already: then they are in memory once, not twice.
    """

    task: OwnedTask
    objects: list[ObjectId] | None = None


class ActorCreated(msgspec.Struct, gc=False):
    """An actor was asked for. `task` carries its arguments as a PushTask of the creation; `register` goes when they are ready."""

    task: OwnedTask
    register: Any  #: RegisterActor without resolved dependencies


class Called(msgspec.Struct, gc=False):
    """An actor method was called."""

    task: OwnedTask
    actor: ActorId
    class_name: str
    unordered: bool = False  #: the actor runs its calls out of order
    alive: ObjectId = b""  #: what stands for the actor's handles: the call holds it until it has reported
    objects: list[ObjectId] | None = None  #: as in Submitted


class ActorKilled(msgspec.Struct, gc=False):
    """This process asked for an actor's end. Without a restart nothing that it calls from now on reaches the actor."""

    actor: ActorId
    class_name: str
    no_restart: bool


class WasPut(msgspec.Struct, gc=False):
    """A value was put by this process; its bytes are inline or sealed already."""

    object: ObjectId
    value: Value
    line: str = ""


class GroupMade(msgspec.Struct, gc=False):
    """This process asks for a placement group: it is told how that goes, before anybody waits for it."""

    create: CreateGroup


class GroupGivenUp(msgspec.Struct, gc=False):
    """This process removes a placement group, one of its own or another's."""

    group: bytes


class GroupAwaited(msgspec.Struct, gc=False):
    """`object` is to have `value` when the placement group has been placed."""

    object: ObjectId
    group: bytes
    value: Value
    cell: str = ""


class Received(msgspec.Struct, gc=False):
    """A reference was unpickled here: one more hold. `credits`: how often the owner counted us for it already."""

    object: ObjectId
    owner: Address
    credits: int = 0


class Dropped(msgspec.Struct, gc=False):
    """Holds of this process ended (references collected)."""

    objects: list[ObjectId]


class ViewsReleased(msgspec.Struct, gc=False):
    """Views over pinned bytes died."""

    objects: list[ObjectId]


class ItemAsked(msgspec.Struct, gc=False):
    """Somebody takes the next item of a stream. Answered by NextItem."""

    task: TaskId


class ItemMissed(msgspec.Struct, gc=False):
    """Who asked for the next item did not get the answer: an interrupt came first."""

    answer: NextItem


class StreamDropped(msgspec.Struct, gc=False):
    """Nobody will take an item of this stream any more."""

    task: TaskId


class Wanted(msgspec.Struct, gc=False):
    """Somebody waits for these objects; `local`: until their bytes are on this node. Answered by Ready, at once if so."""

    objects: list[ObjectId]
    local: bool = True


class ValuesTold(msgspec.Struct, gc=False):
    """A worker's shell was handed dependencies' values beside a task; the submitter holds them until the task is done."""

    dependencies: list[Dependency]


class DeathAwaited(msgspec.Struct, gc=False):
    """The shell wants to know when this process dies: `ObjectTable.is_dead` tells."""

    process: Address


class Passed(msgspec.Struct, gc=False):
    """This process sends references away in a result to `to`: count it as their holder before the result leaves."""

    held: Sequence[Held]
    to: Address


class Reported(msgspec.Struct, gc=False):
    """A worker told a submitter that it still holds these borrowed references: the submitter counts us once for each."""

    objects: list[ObjectId]


class CancelAsked(msgspec.Struct, gc=False):
    """`cancel(ref)`; also with `task` and no object, for a whole task (recursive cancels)."""

    object: ObjectId
    force: bool = False
    recursive: bool = True


class CellCancelled(msgspec.Struct, gc=False):
    """Everything of this cell that has not finished is cancelled; with `parent`, everything that this task submitted."""

    cell: str = ""
    parent: TaskId = b""
    force: bool = False


class RetryDecided(msgspec.Struct, gc=False):
    """The shell looked at an exception that might be retried (it alone can load it)."""

    task: TaskId
    attempt: int
    retry: bool
    values: list[Value]


class NodeLost(msgspec.Struct, gc=False):
    """Our own node daemon is gone, and with it every process and object on the node."""

    node: NodeId
    failure: Failure


class Attached(msgspec.Struct, gc=False):
    """A node daemon answered our Hello (first, or again after NodeLost): work goes through it from now on."""

    node: NodeId
    head: Address


# ---------------------------------------------------------------------------------------------- effects


class Ready(Effect, frozen=True, gc=False):
    """A watched object has its value (and its bytes, if wanted here)."""

    object: ObjectId


class NextItem(Effect, frozen=True, gc=False):
    """The next item of a stream. TAKEN: the hold on `object` is the asker's. PENDING: it has not come. OVER: there is none."""

    object: ObjectId
    state: str


class CopyLost(Effect, frozen=True, gc=False):
    """An object that had a value has none for now: it may have to be made again, which takes a CPU and time."""

    object: ObjectId


class JudgeException(Effect, frozen=True, gc=False):
    """Load the failure and see whether the task's retry_exceptions covers it; answer with RetryDecided."""

    task: OwnedTask
    values: list[Value]


class Unhandled(Effect, frozen=True, gc=False):
    """A failed object was dropped and nobody had looked."""

    failure: Failure
    cell: str


class Finished(Effect, frozen=True, gc=False):
    """A task ended; for the trace and for the cell's counts."""

    task: OwnedTask
    state: str
    started_ns: int
    ended_ns: int
    cpu_ns: int
    worker: ProcessId
    node: NodeId
    failure: Failure | None = None
    attempt: int = 0  #: the task itself may be at the next one already, for the sake of a result that was lost
    fetch_ns: int = 0


class Notice(Effect, frozen=True, gc=False):
    """Words for a person who waits: kind "waiting", with the cell it concerns."""

    cell: str
    kind: str
    text: str


class ActorKnown(Effect, frozen=True, gc=False):
    """An actor's state changed (the shell may be waiting for a name to be granted)."""

    actor: ActorId
    state: str


__all__ = [
    "CANCELLED", "DONE", "FAILED", "FORGOTTEN", "NOTHING", "PUSHED", "QUEUED", "WAITING", "Amounts", "Death", "Send",
    *(n for n, c in list(globals().items()) if isinstance(c, type) and c.__module__ == __name__),
]  # fmt: skip
