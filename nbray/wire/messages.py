"""Every message that crosses a process boundary, grouped by edge. `docs/protocol.md` is generated from this file.

Messages are frozen msgspec structs, encoded as msgpack arrays whose first element is the tag. Payloads (pickled
arguments, results, functions) are opaque `bytes` with a crc32 beside them: head and node daemons pass them on and never
load them. Delivery between two live processes is in order and exactly once: the operating system sees to it on one host,
`wire/link.py` between hosts. What remains for the machines is death, and messages that were true when they were sent.

    owner     the process that called `.remote()` or `put`: a driver, or a worker whose task submits more
    node      the daemon of one machine: leases, workers, and the object store's ledger
    head      membership, actors, names, jobs, KV; lives in the first node's daemon, has a mailbox of its own
"""

from __future__ import annotations

from typing import Annotated, Any, Union

import msgspec
from msgspec import Meta

from nbray.ids import ActorId, Address, FunctionId, NodeId, ObjectId, ProcessId, TaskId

PROTOCOL_VERSION = 1

#: A concurrency group of one call at a time that every actor has (as in Ray): for what must come through while it is busy.
SYSTEM_GROUP = "_ray_system"

#: Resource amounts travel as integers of 1/10,000: {"CPU": 10_000} is one CPU. See sched/resources.py.
Amounts = dict[str, int]
Id8 = Annotated[bytes, Meta(min_length=8, max_length=8)]
Id16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Id20 = Annotated[bytes, Meta(min_length=20, max_length=20)]
Text = Annotated[str, Meta(max_length=65_536)]
#: Inline values are at most config.INLINE_LIMIT; functions and actor specs may be larger. 16 MiB bounds a whole message.
Payload = Annotated[bytes, Meta(max_length=16 * 2**20)]
#: What a node's labels must be, all of it: (label, condition) pairs. Conditions are those of sched/labels.py.
Selector = list[tuple[str, str]]


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all messages."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of the structures inside messages."""


# ---------------------------------------------------------------------------------------------- shared structures


class Location(Record, frozen=True, array_like=True, gc=False):
    """Where sealed bytes lie. `writer` is the process that wrote them: its SealObject may still be on its way."""

    node: Id8
    size: int
    writer: Id8


class Failure(Record, frozen=True, array_like=True, gc=False):
    """Why an object will never have a value. `kind` names a class in nbray/exceptions.py.

    `pickle` is the user's exception where there is one and it pickles; the texts are always there, so that an exception
    which cannot be loaded still explains itself. `fields` are the error's facts (pid, node, signal, attempt ...). `snapshot` is
    what worker/snapshots.py took of the frames, where that was asked for.
    """

    kind: Text
    type_name: Text = ""
    message: str = ""
    traceback: str = ""
    pickle: Payload = b""
    fields: dict[str, Any] = {}
    snapshot: Payload = b""


class Held(Record, frozen=True, array_like=True, gc=False):
    """A reference to an object, with its owner: what a pickled ObjectRef carries."""

    object: Id20
    owner: Address


class Value(Record, frozen=True, array_like=True, gc=False):
    """What is known of a finished object: exactly one of `inline` (with `crc`), `location`, `failure`.

    `contains` are the references pickled inside the value. Whoever receives a Value becomes a borrower of each of them,
    counted by the sender before it sends (see `AddBorrower`). `said` describes what lies at `location`, for people: its type and
    shape.
    """

    inline: Payload | None = None
    crc: int = 0
    location: Location | None = None
    failure: Failure | None = None
    contains: tuple[Held, ...] = ()  #: no list: an empty one would be another for each of a million results
    said: Text = ""


class Dependency(Record, frozen=True, array_like=True, gc=False):
    """A top-level argument that was a reference, resolved by the submitter. Argument i of the payload names entry i."""

    object: Id20
    owner: Address
    value: Value


class Streaming(Record, frozen=True, array_like=True, gc=False):
    """A task's results leave one by one, as a generator yields them: item i is return i + 1, and return 0 is the task's end.

    `have` items are with the owner already: they are not sent again. `taken` of them have been taken by whoever iterates;
    while `window` or more have not been, the generator does not go on (-1: it never waits). Each yield is `per_yield` items.
    `dynamic`: nobody iterates; return 0 is a collection of references to all items.
    """

    have: int = 0
    taken: int = 0
    window: int = -1
    per_yield: int = 1
    dynamic: bool = False


class Shape(Record, frozen=True, array_like=True):
    """What tasks must share to run under one lease: resources, placement, environment.

    With `group`, amounts come out of a bundle of that placement group: `bundle`, or whichever has room for -1. `selectors` are
    alternatives, the best first: nodes that match the first are taken before nodes that match the next, and no others.
    """

    amounts: Amounts
    strategy: Text = "DEFAULT"  #: DEFAULT, SPREAD, or NODE
    node: bytes = b""  #: for NODE: where
    soft: bool = False  #: for NODE: elsewhere is allowed when it cannot be there
    env: Text = ""  #: canonical JSON of the runtime environment
    group: bytes = b""  #: the placement group; empty: none
    bundle: int = -1
    capture: bool = False  #: what runs here submits into the same group, unless told otherwise
    selectors: list[Selector] = []  #: none: any labels will do


class Death(Record, frozen=True, array_like=True, gc=False):
    """How a process ended. Exactly one of `signal` and `exit_code` is not None, unless nothing is known."""

    process: Id8
    node: Id8
    pid: int = 0
    signal: int | None = None
    exit_code: int | None = None
    oom: bool = False
    reason: Text = ""  #: an intended end in words ("killed by nbray.kill", "exit_actor", "idle"), else empty
    log_tail: str = ""
    log_path: Text = ""


class BundleInfo(Record, frozen=True, array_like=True):
    """A part of a node that is set aside for a placement group, and what of it is free."""

    group: Id16
    index: int
    total: Amounts
    free: Amounts


class NodeInfo(Record, frozen=True, array_like=True):
    """What the cluster knows of a node. `gateway` is "host:port" or empty when the node cannot be dialled."""

    node: Id8
    host: Text
    pid: int
    total: Amounts
    available: Amounts
    labels: dict[str, str] = {}
    gateway: Text = ""
    alive: bool = True
    is_head: bool = False
    store_bytes: int = 0
    store_used: int = 0
    queued: list[QueuedDemand] = []
    suspect: bool = False  #: missed heartbeats: no new work goes there. Only the head knows, and says so in ClusterView
    placements: int = 0  #: PlaceActor and ReserveBundles taken so far in this life: those that `available` already reflects
    bundles: list[BundleInfo] = []


class QueuedDemand(Record, frozen=True, array_like=True, gc=False):
    """Lease requests of one shape waiting on a node, and why, in words for a person."""

    amounts: Amounts
    count: int
    why: Text


# -------------------------------------------------------------------- any process -> node, over the lifeline socket
# The lifeline is a SOCK_SEQPACKET unix socket. Hello is answered by Welcome with the arena's fd beside it (SCM_RIGHTS),
# or by Refused. Afterwards nothing is said on it: its end of file is how each side sees the other's death.


class Hello(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The first words of a process to its node daemon."""

    protocol: int
    nbray: Text
    python: Text
    cloudpickle: Text
    role: Text  #: "driver", "worker", "zygote" or "viewer" (CLI, panel)
    process: Id8
    pid: int
    job: Text = ""  #: drivers: the script's or notebook's name
    namespace: Text = ""
    submission: Text = ""  #: drivers: the submitted job (`nbray job submit`) that began this one


class Welcome(Message, frozen=True, array_like=True, tag=True):
    """Admission. `arena_bytes` is the size of the memfd that comes beside this message."""

    node: Id8
    head: Address
    arena_bytes: int
    session: Text
    log_directory: Text
    is_head_node: bool
    cpus_from: Text = ""  #: where the CPU count came from, in words
    caution: Text = ""  #: what differs between the process and the cluster without being refused, in words


class Refused(Message, frozen=True, array_like=True, tag=True, gc=False):
    reason: Text


# ---------------------------------------------------------------------------------------------- owner -> node: leases


class RequestLease(Message, frozen=True, array_like=True, tag=True):
    """Grant the sender one worker for tasks of `shape`. Answered by LeaseGranted, LeaseRedirected or, as a notice while
    the request stays queued, LeaseWaiting. `hops` counts redirections: a node does not redirect a request twice."""

    request: int
    owner: Address
    shape: Shape
    hops: int = 0
    near: list[tuple[Id8, int]] = []  #: nodes that hold arguments of the first task, with bytes
    retriable: bool = True
    job: Id8 = b"\x00" * 8  #: the driver's process id, for fairness and for clean-up


class CancelLeaseRequest(Message, frozen=True, array_like=True, tag=True, gc=False):
    request: int
    owner: Id8


class ReturnLease(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The owner is done with the worker. `broken`: end it now (a task was cancelled by force). `spent`: it has run a function
    as often as it may, serves nobody else, and ends when nobody needs what it owns."""

    lease: int
    owner: Id8
    broken: bool = False
    spent: bool = False


# ---------------------------------------------------------------------------------------------- node -> owner: leases


class LeaseGranted(Message, frozen=True, array_like=True, tag=True, gc=False):
    request: int
    lease: int  #: unique within the granting node's life
    worker: Address
    pid: int
    devices: list[int] = []  #: the numbers of the GPUs that it has


class LeaseRedirected(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Ask `to` instead; this node has forgotten the request."""

    request: int
    to: Id8


class LeaseWaiting(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The request stays queued, and why. `infeasible`: no node of the cluster could ever hold it."""

    request: int
    infeasible: bool
    why: Text


class LeaseRefused(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The request ended without a lease: hard affinity to a dead node, pool stopped after repeated start-up deaths."""

    request: int
    failure: Failure


class LeaseLost(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The worker under the lease died. Everything pushed to it that has not reported is lost with it."""

    lease: int
    worker: Address
    death: Death


class LeaseRecalled(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Others wait: give the lease back once its running task ends. The owner stops pushing and returns it."""

    lease: int
    node: Id8  #: the granting node: lease numbers are its own


# ---------------------------------------------------------------------------------------------- owner -> worker


class DefineJob(Message, frozen=True, array_like=True, tag=True):
    """Sent to a worker before anything else of this job: where the driver's modules are, and its namespace."""

    job: Address
    path: list[Text]  #: the driver's sys.path, absolute
    directory: Text  #: the driver's working directory
    namespace: Text
    logging: Text = ""  #: JSON of its LoggingConfig, if it has one


class DefineFunction(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Sent to a worker before the first task that uses `function`. `payload` is the cloudpickled function."""

    function: Id16
    name: Text
    payload: Payload
    crc: int


class PushTask(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Run `function`. `args` is the pickle of (args, kwargs), empty for none; references at top level of args and kwargs
    were replaced by `ArgRef(i)`, and `dependencies[i]` says what is known of each."""

    task: Id16
    attempt: int
    function: Id16
    returns: int  #: number of return values; 0: nothing is kept
    args: Payload
    crc: int
    owner: Address
    job: Address  #: the driver: output goes there
    cell: Text = ""  #: the unit that the output belongs to
    name: Text = ""
    dependencies: list[Dependency] = []
    contains: list[Held] = []  #: references pickled deeper inside args
    args_location: Location | None = None  #: args too large for a message: the object `task + 0xffffffff` in a store
    retry_exceptions: bool = False  #: the owner may retry on exceptions: ship them whole, print nothing
    env: Text = ""
    amounts: Amounts | None = None  #: what it holds while it runs; None: one CPU, which nearly all do
    max_calls: int = 0  #: runs of this function that a worker may have, then it ends; 0: any number
    stream: Streaming | None = None  #: a generator
    group: tuple[Id16, bool] | None = None  #: the placement group it runs in, and whether what it submits does too
    devices: list[int] = []  #: the numbers of the GPUs that its lease has


class PushCall(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Call a method of the actor that lives in the receiving worker. `sequence` counts this caller's calls to this
    `epoch` of the actor from 0; the receiver starts them in that order, and refuses calls of another epoch."""

    task: Id16
    attempt: int
    actor: Id16
    epoch: int
    sequence: int
    method: Text
    returns: int
    args: Payload
    crc: int
    owner: Address
    job: Address
    cell: Text = ""
    name: Text = ""
    dependencies: list[Dependency] = []
    contains: list[Held] = []
    args_location: Location | None = None
    group: Text = ""  #: concurrency group
    stream: Streaming | None = None  #: a generator


class ItemsTaken(Message, frozen=True, array_like=True, tag=True, gc=False):
    """`upto` items of a generator have been taken, or will never be: it may go on while fewer than its window are not."""

    task: Id16
    upto: int


class CancelTask(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Not begun: never runs. Running: KeyboardInterrupt in the main thread, asyncio.CancelledError in an async actor, the
    cancelled flag otherwise. `recursive`: also what the task submitted."""

    task: Id16
    recursive: bool = True


class RecallTasks(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Give back up to `count` tasks that have not begun, the latest first: another worker is idle."""

    owner: Id8
    count: int


# ---------------------------------------------------------------------------------------------- worker -> owner


class TaskDone(Message, frozen=True, array_like=True, tag=True, gc=False):
    """One attempt ended. `values` has one entry per return (one for a failure, whatever the number of returns).

    `borrows` are the references from the arguments that the worker still holds: the owner counts the worker as their
    borrower before it lets go of the arguments. Times are this worker's wall clock in nanoseconds.
    """

    task: Id16
    attempt: int
    worker: Id8
    values: list[Value]
    started_ns: int
    ended_ns: int
    borrows: list[Held] = []
    retriable: bool = False  #: failed with an exception (not cancelled, not a system failure)
    cpu_ns: int = 0
    spent: bool = False  #: the worker takes no more tasks (max_calls): what it was sent besides has not begun and never will there
    fetch_ns: int = 0  #: how long its arguments were on their way to the worker


class ItemYielded(Message, frozen=True, array_like=True, tag=True, gc=False):
    """A generator yielded item `index`, counted from 0. `tell`: answer with ItemsTaken when it is taken."""

    task: Id16
    attempt: int
    index: int
    value: Value
    tell: bool = False


class TasksReturned(Message, frozen=True, array_like=True, tag=True, gc=False):
    """These tasks were not begun and will not be. `blocked`: because the worker's task waits in `get`; push nothing more
    to it until that task is done."""

    worker: Id8
    tasks: list[Id16]
    blocked: bool = False


# ---------------------------------------------------------------------------------------------- worker -> driver


class Output(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Text that a task printed. `dropped` counts lines left out since the previous message (rate limit)."""

    cell: Text
    task: Id16
    name: Text  #: what a person calls the task: function, Class, or the actor's repr
    pid: int
    node: Id8
    stream: Text  #: "stdout" or "stderr"
    text: str
    dropped: int = 0


#: In place of a time of modification: the file was written at about the time at which it was imported.
UNSURE = -1


class ModulesLoaded(Message, frozen=True, array_like=True, tag=True):
    """These source files, which are no installed packages, were imported by tasks of the worker: (path, time of modification in
    ns or UNSURE, bytes). `generation` is that of its environment. Sent before the result of the task that imported them."""

    worker: Address
    generation: int
    files: list[tuple[Text, int, int]]


class Display(Message, frozen=True, array_like=True, tag=True):
    """A rich display made by a task: an IPython mimebundle, msgpack-able (bytes stay bytes)."""

    cell: Text
    task: Id16
    data: dict[str, Any]
    metadata: dict[str, Any] = {}
    transient: dict[str, Any] = {}
    update: bool = False


class Stuck(msgspec.Struct, frozen=True, array_like=True):
    """Tasks of a cell that have their arguments and no worker: the name of the first, and why, in words. `never`: no node of the
    cluster could ever run them."""

    name: str
    why: str
    never: bool = False


class CellNews(Message, frozen=True, array_like=True, tag=True):
    """How the tasks stand that this worker has submitted for a cell, all of them so far: name -> [submitted, done, failed,
    cancelled, running, queued until their arguments are there]; and encoded records (nbray/trace.py) of those that ended since its
    last word. Sent before the result of the task that submitted them, and while they run."""

    cell: Text
    worker: Address
    names: dict[str, list[int]]
    records: Payload = b""
    stuck: list[Stuck] = []


class InputWanted(Message, frozen=True, array_like=True, tag=True, gc=False):
    """A task that stopped at `breakpoint()` wants a line, or (`withdrawn`) no longer does. `number` counts in the worker."""

    cell: Text
    task: Id16
    name: Text
    worker: Address
    number: int
    prompt: Text
    withdrawn: bool = False


# ---------------------------------------------------------------------------------------------- driver -> worker


class InputGiven(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The line that was typed; None: nobody can be asked."""

    number: int
    text: str | None


# ---------------------------------------------------------------------------------------------- worker <-> node


class WorkerBlocked(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The worker's task waits in `get` or `wait`: its CPU is free for others."""

    worker: Id8


class WorkerUnblocked(Message, frozen=True, array_like=True, tag=True, gc=False):
    worker: Id8


class PrepareEnvironment(Message, frozen=True, array_like=True, tag=True, gc=False):
    """driver -> its node: a runtime environment (canonical JSON) that tasks will want: begin to make it (eager_install)."""

    env: Text
    job: Id8 = b"\x00" * 8  #: whose tasks


class WorkerKeeps(Message, frozen=True, array_like=True, tag=True, gc=False):
    """`keeps`: the worker has tasks of its own on their way, or owns objects that somebody holds. While it does, it is not
    ended for being idle: its end would fail them. Sent before the result of the task that changed it."""

    worker: Id8
    keeps: bool


class StartActor(Message, frozen=True, array_like=True, tag=True):
    """node -> a fresh worker: become this actor for life."""

    spec: ActorSpec
    epoch: int
    devices: list[int] = []  #: the numbers of the GPUs that it has


class ActorStarted(Message, frozen=True, array_like=True, tag=True, gc=False):
    """worker -> node -> head: `__init__` returned."""

    actor: Id16
    epoch: int
    worker: Address
    pid: int


class ActorFailed(Message, frozen=True, array_like=True, tag=True):
    """worker -> node -> head: `__init__` raised. The worker exits after sending this."""

    actor: Id16
    epoch: int
    failure: Failure


class ActorExiting(Message, frozen=True, array_like=True, tag=True, gc=False):
    """worker -> node: the actor ends on purpose (exit_actor, out of scope); do not restart it."""

    actor: Id16
    epoch: int
    reason: Text


class ExitWorker(Message, frozen=True, array_like=True, tag=True, gc=False):
    """node -> worker: finish what was pushed, then exit. `actor`: because the last handle went out of scope."""

    reason: Text


# ---------------------------------------------------------------------------------------------- object store
# owner or worker -> the ledger of its own node, and back.


class LoanRegion(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Lend the sender `size` bytes of the arena to carve into objects. Answered by RegionLoaned or StoreFull."""

    request: int
    process: Id8
    size: int


class RegionLoaned(Message, frozen=True, array_like=True, tag=True, gc=False):
    """`[offset, offset + size)` is the borrower's until it seals objects in it or returns it. `warm`: its pages are there."""

    request: int
    offset: int
    size: int
    warm: bool = False


class StoreFull(Message, frozen=True, array_like=True, tag=True):
    """No room, also after spilling. `holders`: (object, size, why it cannot go), the largest first."""

    request: int
    wanted: int
    capacity: int
    holders: list[tuple[Id20, int, Text]]
    reason: Text = ""  #: in words; names the disk when spilling is what failed
    disk_full: bool = False  #: the disk that takes spilled objects is full


class ReturnRegion(Message, frozen=True, array_like=True, tag=True, gc=False):
    """What is left of a loan comes back."""

    process: Id8
    offset: int
    size: int


class SealObject(Message, frozen=True, array_like=True, tag=True, gc=False):
    """`[offset, offset + size)` of a loan is now this object, immutable, the primary copy, kept until its owner frees it."""

    object: Id20
    owner: Address
    process: Id8
    offset: int
    size: int


class FetchObject(Message, frozen=True, array_like=True, tag=True):
    """Make the object present on this node and pin it for `process`: a wait for its seal, a restore, or a pull from
    another node. Answered by ObjectPinned or ObjectUnavailable. One pin per answer; give each back with Unpin."""

    object: Id20
    owner: Address
    process: Id8
    location: Location


class ObjectPinned(Message, frozen=True, array_like=True, tag=True, gc=False):
    object: Id20
    offset: int
    size: int


class ObjectUnavailable(Message, frozen=True, array_like=True, tag=True, gc=False):
    """`lost`: the copy at the location asked for is gone for good; the owner decides what then."""

    object: Id20
    lost: bool
    reason: Text


class Unpin(Message, frozen=True, array_like=True, tag=True, gc=False):
    process: Id8
    objects: list[Id20]


class FreeObjects(Message, frozen=True, array_like=True, tag=True, gc=False):
    """owner -> every node with a copy: nobody holds these any more. Memory is reused when the last pin goes."""

    objects: list[Id20]


class CopyMade(Message, frozen=True, array_like=True, tag=True, gc=False):
    """node -> owner: this node now has a secondary copy, evictable; free it too when the object is freed."""

    object: Id20
    node: Id8


# ---------------------------------------------------------------------------------------------- node <-> node: transfers
# Bulk bytes use connections of their own (store/transfer.py); these messages only arrange them.


class PullObject(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Send the object's bytes to `node`, in chunks, under this one-time `ticket`."""

    object: Id20
    node: Id8
    ticket: Id16


class PushChunk(Message, frozen=True, array_like=True, tag=True, gc=False):
    """One chunk. `total` is the object's size; crc32 of this chunk's bytes."""

    ticket: Id16
    object: Id20
    offset: int
    total: int
    crc: int
    data: Payload


class ChunkTaken(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Flow control: the sender keeps at most config.TRANSFER_WINDOW chunks that have not been taken."""

    ticket: Id16
    offset: int


class PullRefused(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The transfer under `ticket` ends early, said by either side. From the sending one `lost` says that it has no copy, and
    not merely no room to read it back now."""

    ticket: Id16
    object: Id20
    reason: Text
    lost: bool = True


# ---------------------------------------------------------------------------------------------- references: borrower <-> owner


class AskValue(Message, frozen=True, array_like=True, tag=True, gc=False):
    """A borrower wants to know. Answered by TellValue, at once or when the object is ready; asking twice is harmless."""

    object: Id20
    reader: Address


class TellValue(Message, frozen=True, array_like=True, tag=True):
    object: Id20
    value: Value


class AddBorrower(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The sender, who holds these objects, passed references to `borrower`: count it once for each listing.

    Sent before the sender lets go of its own hold, on the same ordered path, so the owner never sees the count at zero
    in between. A borrower that lets go says how many counts it gives back; counts may be below zero for a moment when
    paths race, and an object is free only when every process's count is exactly zero.
    """

    objects: list[Id20]
    borrower: Address


class RemoveBorrower(Message, frozen=True, array_like=True, tag=True, gc=False):
    """`counts[i]` listings of `objects[i]` are given back by `borrower`."""

    objects: list[Id20]
    counts: list[int]
    borrower: Id8


class ReportMissing(Message, frozen=True, array_like=True, tag=True, gc=False):
    """A borrower was told that the copy at `node` is gone. The owner finds another, makes it again, or fails the object."""

    object: Id20
    node: Id8
    reader: Address


class CancelObject(Message, frozen=True, array_like=True, tag=True, gc=False):
    """A borrower called `cancel` on a reference: the owner cancels the task."""

    object: Id20
    force: bool
    recursive: bool


class WatchProcess(Message, frozen=True, array_like=True, tag=True, gc=False):
    """any process -> the node daemon of `process`: answer ProcessDied when it dies, or at once if it already has.

    With `node`, to the daemon of the sender's own node: answer ProcessDied if the cluster has no such node. The daemon there
    cannot, and who was not here when that node died was not told.
    """

    process: Id8
    watcher: Address
    node: bytes = b""


class ProcessDied(Message, frozen=True, array_like=True, tag=True, gc=False):
    death: Death


# ---------------------------------------------------------------------------------------------- actors


class ActorSpec(Record, frozen=True, array_like=True):
    """Everything needed to make an actor, again after a crash too. Args as in PushTask."""

    actor: Id16
    owner: Address
    job: Address
    class_name: Text
    class_id: Id16
    class_payload: Payload
    class_crc: int
    args: Payload
    crc: int
    dependencies: list[Dependency]
    contains: list[Held]
    placement: Shape  #: what must be free to place it
    running: Amounts  #: what it holds while it lives
    max_restarts: int = 0  #: -1: for ever
    max_task_retries: int = 0
    max_concurrency: int = 1
    is_async: bool = False
    groups: dict[str, int] = {}
    name: Text = ""
    namespace: Text = ""
    detached: bool = False
    cell: Text = ""
    env: Text = ""
    methods: bytes = b""  #: pickled method table, opaque: what `get_actor` needs to build a handle
    unordered: bool = False  #: a call whose arguments are late does not hold back the caller's later ones
    path: list[Text] = []  #: as in DefineJob, which may come only after `__init__`
    directory: Text = ""
    window: int = -1  #: items of all its generators together that may wait to be taken; -1: any number
    line: Text = ""  #: where it was created: "script.py:40"


class RegisterActor(Message, frozen=True, array_like=True, tag=True):
    """owner -> head. Answered by ActorUpdate (PENDING), or ActorRejected when the name is taken. With `get_if_exists`
    the answer may be ActorFound for the actor that has the name."""

    spec: ActorSpec
    request: int
    get_if_exists: bool = False


class ActorRejected(Message, frozen=True, array_like=True, tag=True, gc=False):
    actor: Id16
    request: int
    reason: Text


class WatchActor(Message, frozen=True, array_like=True, tag=True, gc=False):
    """any process -> head: send ActorUpdate now, and at every change."""

    actor: Id16
    watcher: Address


class ActorUpdate(Message, frozen=True, array_like=True, tag=True):
    """head -> watchers. States: PENDING (being placed or in __init__), ALIVE (call `address`, with `epoch`),
    RESTARTING (the next epoch is on its way), DEAD (`failure` says why, for ever)."""

    actor: Id16
    state: Text
    epoch: int
    address: Address | None = None
    pid: int = 0
    failure: Failure | None = None
    waiting: Text = ""  #: PENDING: why it is not placed yet, in words


class FindActor(Message, frozen=True, array_like=True, tag=True, gc=False):
    """get_actor(name). Answered by ActorFound or ActorRejected."""

    request: int
    name: Text
    namespace: Text
    asker: Address


class ActorFound(Message, frozen=True, array_like=True, tag=True):
    request: int
    actor: Id16
    owner: Address
    class_name: Text
    methods: bytes
    max_task_retries: int


class ReleaseActor(Message, frozen=True, array_like=True, tag=True, gc=False):
    """owner -> head: no handle is left; pending calls finish, then the actor exits. `asked`: a person wants its end, with handles
    or without, and also if it is detached."""

    actor: Id16
    asked: bool = False


class KillActor(Message, frozen=True, array_like=True, tag=True, gc=False):
    """any process -> head: SIGKILL it now."""

    actor: Id16
    no_restart: bool


class PlaceActor(Message, frozen=True, array_like=True, tag=True):
    """head -> node: hold the resources, start a worker, send it StartActor. Answered by ActorStarted, ActorFailed or
    ActorLost; `ActorUnplaced` when the node's resources went elsewhere meanwhile."""

    spec: ActorSpec
    epoch: int


class ActorUnplaced(Message, frozen=True, array_like=True, tag=True, gc=False):
    actor: Id16
    epoch: int
    node: Id8


class ActorLost(Message, frozen=True, array_like=True, tag=True, gc=False):
    """node -> head: the actor's process ended. `intended`: ActorExiting, KillActor or ExitWorker came first."""

    actor: Id16
    epoch: int
    death: Death
    intended: bool


class EndActor(Message, frozen=True, array_like=True, tag=True, gc=False):
    """head -> node: end this epoch of the actor: at once (`kill`), or after its pending calls."""

    actor: Id16
    epoch: int
    kill: bool
    reason: Text


# ---------------------------------------------------------------------------------------------- placement groups


class GroupSpec(Record, frozen=True, array_like=True):
    """A placement group as it was asked for. `selectors[i]`, where there are any, is for bundle i."""

    group: Id16
    bundles: list[Amounts]
    strategy: Text  #: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD
    owner: Address
    job: Address
    name: Text = ""
    namespace: Text = ""
    detached: bool = False
    selectors: list[Selector] = []
    target: bytes = b""  #: the node to prefer; empty: none


class CreateGroup(Message, frozen=True, array_like=True, tag=True):
    """any process -> head, which tells the owner of every change by GroupUpdate. Where the group has a name, `request` is answered
    by Answer: with an error when the name is taken."""

    spec: GroupSpec
    request: int = 0


class RemoveGroup(Message, frozen=True, array_like=True, tag=True, gc=False):
    """any process -> head: what runs in the group ends, and its bundles are the nodes' own again."""

    group: Id16
    by: bytes = b""  #: the process that asks: if the group is its own, it needs no word of it


class WatchGroup(Message, frozen=True, array_like=True, tag=True, gc=False):
    """any process or node -> head: send GroupUpdate now, and at every change."""

    group: Id16
    watcher: Address


class GroupUpdate(Message, frozen=True, array_like=True, tag=True):
    """head -> its owner, the nodes with its bundles, and watchers. States: PENDING, CREATED (every bundle is set aside: use them),
    RESCHEDULING (some are lost and sought anew, the others stay in use), REMOVED (for ever; also for a group that never was: what
    runs in its bundles ends, and then they are the node's own again)."""

    group: Id16
    state: Text
    places: list[bytes] = []  #: the node of each bundle; empty where it has none
    bundles: list[Amounts] = []
    why: Text = ""  #: why it waits, or was removed, in words


class ReserveBundles(Message, frozen=True, array_like=True, tag=True):
    """head -> node: set these aside, all or none. Answered by BundlesReserved or BundlesRefused, with the same `round`."""

    group: Id16
    round: int
    bundles: list[tuple[int, Amounts]]


class BundlesReserved(Message, frozen=True, array_like=True, tag=True, gc=False):
    group: Id16
    round: int
    node: Id8


class BundlesRefused(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The node's resources went elsewhere meanwhile; nothing is set aside."""

    group: Id16
    round: int
    node: Id8


class ReleaseBundles(Message, frozen=True, array_like=True, tag=True):
    """head -> node: end what runs in these bundles of a group that lives on; then they are the node's own again. Harmless if it has
    none."""

    group: Id16
    indexes: list[int]
    reason: Text


# ---------------------------------------------------------------------------------------------- node <-> head


class RegisterNode(Message, frozen=True, array_like=True, tag=True):
    info: NodeInfo


class NodeAccepted(Message, frozen=True, array_like=True, tag=True, gc=False):
    node: Id8
    session: Text


class Heartbeat(Message, frozen=True, array_like=True, tag=True):
    """node -> head, every config.HEARTBEAT_S; the node's own view of what it has free and what waits there."""

    info: NodeInfo
    sent_s: float = 0.0  #: by the node's own clock; comes back in HeartbeatTaken
    astray: bool = False  #: a ClusterView was about changes to one that this node has not: send all of it


class HeartbeatTaken(Message, frozen=True, array_like=True, tag=True, gc=False):
    """head -> node: the lease on being alive is renewed, from when the heartbeat was sent."""

    node: Id8
    sent_s: float = 0.0


class NodeNews(Record, frozen=True, array_like=True):
    """What changes about a node while it works. The fields are those of NodeInfo."""

    node: Id8
    available: Amounts
    store_used: int
    queued: list[QueuedDemand]
    placements: int
    bundles: list[BundleInfo]
    suspect: bool


class ClusterView(Message, frozen=True, array_like=True, tag=True):
    """head -> nodes, when membership changes and about once a heartbeat: what redirection decides on.

    A node hears of the whole cluster once; after that of the nodes that have changed. Who leaves is told by NodeDied.
    """

    nodes: list[NodeInfo]
    serial: int = 0  #: of the head's views, from 1
    since: int = 0  #: the view that these are changes to; 0: these are all nodes
    news: list[NodeNews] = []  #: of nodes of which nothing else has changed; they are not among `nodes`


class NodeDied(Message, frozen=True, array_like=True, tag=True, gc=False):
    """head -> nodes -> every process on them: everything on `node` is gone."""

    node: Id8
    reason: Text


class JobStarted(Message, frozen=True, array_like=True, tag=True, gc=False):
    """node -> head: a driver attached."""

    driver: Address
    name: Text
    namespace: Text
    pid: int
    submission: Text = ""


class JobEnded(Message, frozen=True, array_like=True, tag=True, gc=False):
    """node -> head -> nodes: the driver is gone; what belongs to it ends, detached actors excepted."""

    driver: Address


class DrainNode(Message, frozen=True, array_like=True, tag=True, gc=False):
    """CLI or driver -> node: stop in order. On the head node the whole cluster stops."""

    reason: Text


# ---------------------------------------------------------------------------------------------- submitted jobs
# `nbray job submit`: a command line that a node runs. Submitting, stopping and looking are questions to the head; the log is
# asked of the node that has it ("job_log").


class RunEntrypoint(Message, frozen=True, array_like=True, tag=True):
    """head -> node: once `env` is made and `amounts` are free hold them, and run `command` in a shell. Answered by EntrypointBegun,
    then EntrypointEnded; EntrypointWaits is a notice. Said twice, it starts nothing twice: the node repeats what it said last."""

    submission: Text
    command: Text
    amounts: Amounts
    environment: dict[str, str]
    directory: Text = ""  #: to run in; "": the working_dir of `env`, else the daemon's own
    env: Text = ""  #: the runtime environment to run in, as canonical JSON; its variables are in `environment` already
    modules: list[str] = []  #: directories to import from, beside those of `env`


class EndEntrypoint(Message, frozen=True, array_like=True, tag=True, gc=False):
    """head -> node: SIGTERM to the entrypoint's process group, and SIGKILL to what is left after config.JOB_STOP_S.
    `forget`: it has ended, and its log goes too."""

    submission: Text
    forget: bool = False


class EntrypointWaits(Message, frozen=True, array_like=True, tag=True, gc=False):
    """node -> head: its resources are not free, or its environment is not made, in words."""

    submission: Text
    node: Id8
    why: Text


class EntrypointBegun(Message, frozen=True, array_like=True, tag=True, gc=False):
    submission: Text
    node: Id8
    pid: int


class EntrypointEnded(Message, frozen=True, array_like=True, tag=True, gc=False):
    """node -> head: nothing of the entrypoint is left. `exit_code` and `signal` are both None when it never began, or nobody saw
    how it ended: then `reason` says what is known."""

    submission: Text
    node: Id8
    exit_code: int | None
    signal: int | None
    reason: Text = ""
    log_tail: str = ""
    unmade: bool = False  #: it never began because its runtime environment could not be made


# ---------------------------------------------------------------------------------------------- questions to the head


class Ask(Message, frozen=True, array_like=True, tag=True):
    """A question with one answer, an Answer with the same `request`. What the head can be asked: head/questions.py,
    head/submissions.py.

    "everywhere" it hands on to every node, and a node "processes" to its processes: inquiry.py. What nodes tell of themselves:
    node/daemon.py; what processes do: engines/witness.py.
    """

    request: int
    asker: Address
    what: Text
    arguments: dict[str, Any] = {}


class Answer(Message, frozen=True, array_like=True, tag=True):
    request: int
    result: Any = None
    error: Text = ""


class TraceBatch(Message, frozen=True, array_like=True, tag=True, gc=False):
    """any process -> head, about once a second while there is something to tell: encoded records of nbray/trace.py."""

    process: Id8
    node: Id8
    records: Payload
    job: Id8 = b"\x00" * 8  #: the driver that `process` worked for


AnyMessage = Union[tuple(c for c in list(globals().values()) if isinstance(c, type) and issubclass(c, Message) and c is not Message)]  # type: ignore[valid-type]  # noqa: E501, UP007  # fmt: skip

__all__ = [
    "ActorId", "FunctionId", "NodeId", "ObjectId", "ProcessId", "TaskId",
    *(n for n, c in list(globals().items()) if isinstance(c, type) and issubclass(c, msgspec.Struct)),
]  # fmt: skip
