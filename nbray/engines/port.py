"""The port: all that the API and the notebook know of whatever runs their tasks. Nothing above it asks which engine it has.

Task and actor options arrive checked (`options.py`), functions and classes pickled once (`functions.py`, `actors.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from nbray.refs import ObjectRef
from nbray.trace import TraceRecord
from nbray.wire.messages import InputWanted, Streaming, Stuck


class FunctionSpec(msgspec.Struct, frozen=True):
    """A function or class, pickled. `id` is the blake2b-16 of `payload`; `name` is what a person calls it."""

    id: bytes
    name: str
    payload: bytes
    crc: int


class GroupChoice(msgspec.Struct, frozen=True):
    """Which placement group work goes to. `inherits`: the one that the submitting task runs in, if that captures its children."""

    inherits: bool = True
    group: bytes = b""
    bundle: int = -1
    capture: bool | None = None  #: None: as the submitting task


INHERITED = GroupChoice()


class GroupOptions(msgspec.Struct, frozen=True):
    """A placement group as it is asked for. Amounts are integers of 1/10,000."""

    bundles: list[dict[str, int]]
    strategy: str = "PACK"
    name: str = ""
    detached: bool = False
    selectors: list[list[tuple[str, str]]] = []  #: one per bundle, or none at all
    target: bytes = b""  #: the node to prefer


class TaskOptions(msgspec.Struct, frozen=True):
    """What `f.options(...)` and defaults came to. Amounts are integers of 1/10,000 (sched/resources.py)."""

    amounts: dict[str, int]
    returns: int = 1
    max_retries: int = 3  #: -1: for ever. Crashes only, unless retry_exceptions
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    strategy: str = "DEFAULT"  #: DEFAULT, SPREAD, NODE
    node: bytes = b""
    soft: bool = False
    name: str = ""
    env: str = ""  #: canonical JSON of the runtime environment
    max_calls: int = 0  #: runs of the function that one worker may have; 0: any number
    traced: bool = True  #: listed among the tasks, and in the timeline
    stream: Streaming | None = None  #: results come one by one; the one return is the task's end
    group: GroupChoice = INHERITED
    selectors: list[list[tuple[str, str]]] = []  #: labels of the node, as alternatives (wire.messages.Shape)


class ActorOptions(msgspec.Struct, frozen=True):
    """What an actor class's options came to."""

    placement: dict[str, int]
    running: dict[str, int]
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int = 1
    is_async: bool = False
    groups: dict[str, int] = {}  #: concurrency group -> calls at once
    max_pending_calls: int = -1
    name: str = ""
    namespace: str | None = None
    detached: bool = False
    get_if_exists: bool = False
    strategy: str = "DEFAULT"
    node: bytes = b""
    soft: bool = False
    env: str = ""
    unordered: bool = False  #: a call whose arguments are late does not hold back later ones
    traced: bool = True  #: its calls are, unless a method says otherwise
    window: int = -1  #: items of all its generators that may wait to be taken; -1: any number
    group: GroupChoice = INHERITED
    selectors: list[list[tuple[str, str]]] = []


class CallOptions(msgspec.Struct, frozen=True):
    """Options of one actor method call."""

    returns: int = 1
    name: str = ""
    max_task_retries: int = 0
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    group: str = ""
    traced: bool = True
    unordered: bool = False  #: the actor's: set by its handle
    stream: Streaming | None = None  #: as in TaskOptions


class ActorToken(msgspec.Struct, frozen=True):
    """What a handle holds: the actor, its creator, and a reference whose count is the count of handles.

    `alive` is None in a weak handle (get_actor, self): it does not keep the actor.
    """

    actor: bytes
    class_name: str
    methods: bytes  #: pickled method table
    max_task_retries: int = 0
    alive: ObjectRef[Any] | None = None


class OutputEvent(msgspec.Struct, frozen=True):
    """Something a task printed or displayed, for the process that owns the notebook. `mime` is None for text."""

    cell: str
    task: bytes
    name: str
    pid: int
    node: bytes
    stream: str = "stdout"
    text: str = ""
    dropped: int = 0
    mime: dict[str, Any] | None = None
    metadata: dict[str, Any] = {}
    transient: dict[str, Any] = {}
    update: bool = False


class RuntimeFacts(msgspec.Struct, frozen=True):
    """Where the calling thread is: driver or worker, and in which task or actor."""

    job: bytes
    node: bytes
    process: bytes
    namespace: str
    session: str
    task: bytes | None = None
    task_name: str | None = None
    actor: bytes | None = None
    actor_name: str | None = None
    amounts: dict[str, int] = {}
    attempt: int = 0
    cancelled: bool = False
    restarted: bool = False
    in_async_actor: bool = False
    group: bytes = b""  #: the placement group that it runs in
    captures: bool = False  #: what it submits goes there too
    devices: tuple[int | str, ...] = ()  #: the GPUs that it has
    function_name: str | None = None  #: what runs, with its module
    temp_dir: str = ""  #: where the node keeps its files


class NameCount(msgspec.Struct):
    """Tasks of one name in one cell."""

    submitted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    running: int = 0
    inputs: int = 0  #: of those that are queued, how many wait for their arguments; the others wait for a worker

    @property
    def queued(self) -> int:
        return max(0, self.submitted - self.done - self.failed - self.cancelled - self.running)


class CellProgress(msgspec.Struct, frozen=True):
    """How a cell stands: counts by the tasks' name, and records of those that ended since the last question."""

    names: dict[str, NameCount]
    records: list[TraceRecord]
    nested: int = 0  #: of all submitted, those that tasks submitted
    sent: int = 0  #: bytes: arguments of the tasks that ended, and values put into the store
    received: int = 0  #: bytes of their results
    stuck: list[Stuck] = []  #: what waits for a worker that no node has now
    packing_s: float = 0.0  #: time in which the notebook pickled large values and wrote them into the store


class UnfinishedTask(msgspec.Struct, frozen=True, gc=False):
    """A task that this process submitted and that has not ended."""

    id: bytes
    name: str
    cell: str
    state: str  #: RUNNING, QUEUED, or WAITING for its arguments
    needs: tuple[bytes, ...] = ()  #: the tasks (or puts) whose results it takes; of very many the first
    parent: bytes = b""


class GroupEngine(Protocol):
    """The part of an engine that is about placement groups."""

    def create(self, options: GroupOptions) -> bytes:
        """The id of a new group, which is being placed. Raises ValueError when its name is taken."""
        ...

    def remove(self, group: bytes) -> None:
        """What runs in it ends. Does nothing to a group that is gone."""
        ...

    def confirm(self, group: bytes) -> None:
        """Before others are told of a group: `create` may return before the head has heard of it."""
        ...

    def is_placed(self, group: bytes) -> bool:
        """Whether it is one that this process made, and every bundle is known to have its place. Asks nobody."""
        ...

    def ready(self, group: bytes, value: Any) -> ObjectRef[Any]:
        """A reference that has `value` once the group is placed, and fails with TaskPlacementGroupRemoved when it is removed."""
        ...


class Looks(Protocol):
    """What this process knows already, for whoever shows it: no question is asked."""

    def object(self, ref: ObjectRef[Any]) -> dict[str, Any]:
        """As `facts_of`, with `mine`, `copies` (nodes) and `here`."""
        ...

    def actor(self, actor: bytes) -> dict[str, Any]:
        """`state`, empty where it is not known here; then also `why`, `node`, `restarts`, `running` and `waiting` calls."""
        ...

    def stream(self, end: bytes) -> dict[str, Any]:
        """`ended`, `failed`, `came` and `taken` items (None where they are not counted here)."""
        ...

    def running(self) -> set[bytes]:
        """The tasks of this process that workers have begun, as far as is known here."""
        ...

    def group(self, group: bytes) -> dict[str, Any]:
        """`state`, empty where nobody says it, and `why` it waits; `bundles` where the head was asked, for a moment at most."""
        ...


class Engine(Protocol):
    """One running cluster, as seen from this process."""

    is_driver: bool
    #: `show_here(data, metadata, transient, update)`: a rich display of the calling code, in the driver under its cell.
    show_here: Callable[[dict[str, Any], dict[str, Any], dict[str, Any], bool], None] | None

    @property
    def groups(self) -> GroupEngine: ...

    @property
    def looks(self) -> Looks: ...

    # -- work
    def submit(
        self, function: FunctionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: TaskOptions
    ) -> list[ObjectRef[Any]]:
        """Queue one task. Raises TypeError naming the path to an argument that does not pickle. Never blocks on the cluster."""
        ...

    def create_actor(
        self, cls: FunctionSpec, methods: bytes, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: ActorOptions
    ) -> ActorToken:
        """Register and place an actor. With a name this waits for the head's word: ValueError when it is taken."""
        ...

    def call_actor(
        self, actor: ActorToken, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: CallOptions
    ) -> list[ObjectRef[Any]]: ...

    def pending_calls(self, actor: ActorToken, limit: int) -> None:
        """Raises PendingCallsLimitExceeded when this process has `limit` calls to the actor that have not reported."""
        ...

    def find_actor(self, name: str, namespace: str | None) -> ActorToken:
        """Raises ValueError when there is none."""
        ...

    def self_actor(self) -> ActorToken | None:
        """The actor that the calling code runs in, weakly; None outside actors."""
        ...

    def kill_actor(self, actor: ActorToken, no_restart: bool) -> None: ...

    def exit_actor(self) -> None:
        """Raises inside the calling actor task; TypeError outside one."""
        ...

    # -- objects
    def put(self, value: Any) -> ObjectRef[Any]: ...

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """Values in order. The first failing ref raises without waiting for others; GetTimeoutError after `timeout` s."""
        ...

    def wait(
        self, refs: Sequence[ObjectRef[Any]], count: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]: ...

    def on_ready(self, ref: ObjectRef[Any], callback: Callable[[], None], local: bool = True) -> None:
        """Call `callback` once from any thread when the ref has a value or an error; at once if it has already. `local`: and
        when its bytes are on this node."""
        ...

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None: ...

    def facts_of(self, ref: ObjectRef[Any]) -> dict[str, Any]:
        """State, size, place, task, cell of a ref, as known here; "type" says type and shape of what lies in the store."""
        ...

    def facts_of_all(self, refs: Sequence[ObjectRef[Any]]) -> list[dict[str, Any]]:
        """The same of many, looked at in one pass."""
        ...

    def holders_of(self, groups: Sequence[Collection[bytes]], known: Sequence[int]) -> list[dict[str, int]]:
        """For each group of object ids: who holds any of them, in words, and how often; `known` references of each are left out."""
        ...

    def unnamed(self, named: Collection[bytes]) -> list[dict[str, Any]]:
        """Objects that this process refers to, without `named`, by where they were made: "line", "state", "objects", "size"."""
        ...

    # -- generators: a stream of items is named by the reference to its task's end
    def take_item(self, end: ObjectRef[Any]) -> ObjectRef[Any] | None:
        """The next item, which is given once; None when it has not come, and when there is none any more."""
        ...

    def peek_item(self, end: ObjectRef[Any]) -> ObjectRef[Any] | None:
        """The next item, here or on its way, without taking it. None when the stream has ended and all is taken.

        What is on its way may turn out to be the end: it is ready then, and `peek_item` gives None.
        """
        ...

    def drop_stream(self, end: ObjectRef[Any]) -> None:
        """Nobody will take anything more. From anywhere, also from `__del__`."""
        ...

    # -- the cluster
    lost: str  #: why its cluster is gone for good; empty while it is there, or another is being started

    def nodes(self, patience_s: float | None = None) -> list[dict[str, Any]]:
        """One dict per node in Ray's form (NodeID, Alive, Resources, NodeManagerHostname, Labels ...), plus `Available`
        and `Queued`: [{"resources", "count", "why"}]. Raises HeadUnavailableError when no answer comes within `patience_s`."""
        ...

    def facts(self) -> RuntimeFacts: ...

    def environment_here(self) -> str:
        """The runtime environment of the calling code: canonical JSON (wire/environment.py), empty for none."""
        ...

    def description(self) -> dict[str, Any]:
        """What this engine is attached to: "address", "session", "cpus_from", "version", "pid", "log_directory", "embedded"."""
        ...

    def ask(self, what: str, **arguments: Any) -> Any:
        """A question to the head: "actors", "jobs", "everywhere" ... (head/questions.py, inquiry.py)."""
        ...

    def trace(self) -> list[dict[str, Any]]:
        """Every record of nbray/trace.py that this job has, oldest first."""
        ...

    def shutdown(self) -> None:
        """Leave; an embedded cluster ends with its driver. Idempotent. The driver process itself is never touched."""
        ...

    # -- cells
    def cell(self, tag: str) -> AbstractContextManager[None]:
        """Tasks submitted by this thread inside the block belong to `tag`; tasks that they submit do too."""
        ...

    def packing(self) -> AbstractContextManager[None]:
        """What this thread does inside the block is told as packing of values for its cell."""
        ...

    def set_default_cell(self, tag: str) -> None:
        """What is submitted outside any `cell` block belongs to this tag (the notebook calls it before each cell)."""
        ...

    def send_to_background(self, tag: str) -> bool:
        """End the wait of the cell's code, in this process's main thread: the one that goes on, else the next one, with
        SentToBackground. Whether it waited. Raises LookupError where that code does not run."""
        ...

    def cell_ended(self) -> list[Any] | None:
        """The code of the default cell has ended. What it awaited, if it was sent to the background; else None."""
        ...

    def awaited_in_vain(self, what: Any) -> None:
        """Code of this process that awaited `what`, a reference or a generator, was cancelled."""
        ...

    def cancel_cell(self, tag: str, force: bool) -> int:
        """Cancel what `tag` submitted and has not finished. Returns how many tasks that were; never blocks."""
        ...

    def calls_under_way(self, tag: str) -> int:
        """How many calls of actors that `tag` made have begun, as far as is known here: unless the actor is async, they go on when
        they are cancelled."""
        ...

    def cell_counts(self, tag: str) -> dict[str, int]:
        """{"queued", "running", "done", "failed", "cancelled"} of a tag."""
        ...

    def on_new_cell(self, callback: Callable[[str], bool]) -> None:
        """`callback(tag)` at the first task of a cell, in the thread that submits it: whether to keep its records."""
        ...

    def cell_progress(self, tag: str) -> CellProgress:
        """Counts by name, and records of tasks that ended since the last question. Costs what is new, not what is queued."""
        ...

    def unfinished(self, tasks: Iterable[bytes] = ()) -> list[UnfinishedTask]:
        """Tasks that have not ended, all where they are few: of very many those that run, those of `tasks`, the first, the last,
        some between, and what these need, as far as it has not ended. A bounded number, whatever is queued."""
        ...

    def forget_cell(self, tag: str) -> None:
        """Nobody asks for the cell's progress any more."""
        ...

    def on_output(self, callback: Callable[[OutputEvent], None]) -> None:
        """Where the output of tasks goes in this driver; the default prints `(name pid=N) text`. Called from the I/O thread,
        in the order in which each task wrote, and for a task's output before its refs become ready."""
        ...

    def on_notice(self, callback: Callable[[str, str, str], None]) -> None:
        """`callback(cell, kind, text)` for what a person should know while waiting: "waiting" (why a demand is not
        granted), "restarted" (the cluster died and was started again), "unhandled" (an error nobody fetched)."""
        ...

    def on_input(self, ask: Callable[[InputWanted, Callable[[], bool]], str | None]) -> None:
        """Who answers tasks that stop at `breakpoint()`; the default asks the terminal. `ask(question, still_stands)` returns the
        line, or None where nobody can be asked. Called from a thread of its own, one question at a time."""
        ...

    def on_names(self, callback: Callable[[], dict[bytes, list[str]]]) -> None:
        """Who says which variables hold which objects when a page asks: {object id: names}. Called from a thread of its own; it
        runs no code of the user's."""
        ...

    def references(self) -> Iterator[ObjectRef[Any]]:
        """References alive in this process."""
        ...
