"""The nouns of the head: what it keeps about nodes, actors and jobs, and the events and orders that are its own."""

from __future__ import annotations

import msgspec

from nbray.ids import ActorId, Address, NodeId
from nbray.machine import Effect
from nbray.sched.resources import give, take
from nbray.sched.rooms import has_room, with_news, without
from nbray.wire.messages import ActorSpec, ActorUpdate, Amounts, BundleInfo, Failure, NodeInfo, NodeNews, Shape

PENDING, ALIVE, RESTARTING, DEAD = "PENDING", "ALIVE", "RESTARTING", "DEAD"

#: A demand that draws from the node itself.
ANYWHERE = Shape({})

#: A story is for a person: the beginning of an actor's life says less than its last turns.
STORY_LINES = 12


class Persist(Effect, frozen=True, gc=False):
    """Write `value` (None: delete) under `key` durably before any Send of the same `handle`. Tables: see `Tables`."""

    table: str
    key: bytes
    value: bytes | None


#: What the journal gives back: table -> key -> value. Tables: "nodes", "jobs", "actors" (specs), "lives", "endings", "groups",
#: "submissions", "kv".
Tables = dict[str, dict[bytes, bytes]]


class NodeGone(msgspec.Struct, frozen=True, gc=False):
    """Event of the shell: the node's daemon certainly ended (its process died, or it left in order)."""

    node: NodeId
    reason: str


class Life(msgspec.Struct, frozen=True, array_like=True):
    """The part of an actor that changes: what is persisted at each turn, apart from its (large, constant) spec."""

    state: str
    epoch: int
    restarts: int
    node: bytes | None
    worker: Address | None
    pid: int
    released: bool
    failure: Failure | None


class ActorRecord:
    """One actor. `node` is where the present epoch was placed; None while it waits in the queue, and when dead."""

    __slots__ = (
        "epoch",
        "failure",
        "node",
        "pid",
        "released",
        "restarts",
        "spec",
        "state",
        "story",
        "waiting",
        "watchers",
        "worker",
    )

    def __init__(self, spec: ActorSpec) -> None:
        self.spec = spec
        self.state = PENDING
        self.epoch = 0
        self.restarts = 0  #: how many of spec.max_restarts are used
        self.node: NodeId | None = None
        self.worker: Address | None = None  #: not None exactly while ALIVE
        self.pid = 0
        self.released = False  #: no handle is left: the process ends after its pending calls
        self.failure: Failure | None = None  #: not None exactly while DEAD
        self.waiting = ""  #: why it is not placed, as last told
        self.watchers: dict[Address, None] = {}
        self.story: list[object] = []

    @property
    def actor(self) -> ActorId:
        return self.spec.actor

    @property
    def can_restart(self) -> bool:
        return self.spec.max_restarts < 0 or self.restarts < self.spec.max_restarts

    def tell(self, line: str) -> None:
        self.story.append(line)
        del self.story[:-STORY_LINES]

    def update(self) -> ActorUpdate:
        return ActorUpdate(
            self.actor, self.state, self.epoch, self.worker, self.pid, self.failure, self.waiting if self.node is None else ""
        )

    def life(self) -> Life:
        return Life(self.state, self.epoch, self.restarts, self.node, self.worker, self.pid, self.released, self.failure)

    def resume(self, life: Life) -> None:
        """Continue a life that the journal kept."""
        self.state, self.epoch, self.restarts = life.state, life.epoch, life.restarts
        self.node, self.worker, self.pid = life.node, life.worker, life.pid
        self.released, self.failure = life.released, life.failure
        self.tell(f"restored as {life.state}, epoch {life.epoch}")


class Hold:
    """What one epoch of an actor, or the bundles of a group, take on a node. `counted`: the node's last report of what it has free
    includes it."""

    __slots__ = ("amounts", "counted", "index", "placed_at", "shape", "started")

    def __init__(self, amounts: Amounts, index: int, placed_at: float, shape: Shape) -> None:
        self.amounts = amounts
        self.shape = shape  #: says what the amounts come out of: the node, or a bundle
        self.index = index  #: this was the index-th PlaceActor or ReserveBundles to the node, from 1
        self.placed_at = placed_at
        self.started = False  #: the node answered, so its next report counts it
        self.counted = False


class NodeRecord:
    """One life of one node. What is free is what it reported, less what the head has placed there since."""

    __slots__ = (
        "_moved",
        "_open",
        "_said",
        "_view",
        "alive",
        "cause",
        "full",
        "heard_at",
        "holds",
        "info",
        "placed",
        "restored",
        "suspect",
        "told",
    )

    def __init__(self, info: NodeInfo, now: float, *, restored: bool = False, moved: dict[NodeId, None] | None = None) -> None:
        """`moved` gets the node's id whenever something about it has changed."""
        self.info = info
        self._moved: dict[NodeId, None] = {} if moved is None else moved
        self.told = False  #: it has a view of the cluster, and needs to hear of changes only
        self._said: NodeInfo | None = None  #: as all others were last told of it
        self.alive = info.alive
        self.suspect = restored
        self.restored = restored  #: known from the journal and not heard of yet
        self.heard_at = now
        self.cause = ""  #: of death
        self.full = False  #: it refused a placement since its last report
        self.placed = 0
        self.holds: dict[tuple[ActorId, int], Hold] = {}
        self._open: dict[tuple[ActorId, int], Hold] = {}  #: those of them that are not counted: few, however many actors there are
        self._view: NodeInfo | None = None
        self.changed()

    @property
    def free(self) -> Amounts:
        return self.view().available

    def view(self) -> NodeInfo:
        """The node as the scheduler should see it now."""
        if self._view is None:
            available, grouped = dict(self.info.available), []
            for hold in self._open.values():
                if hold.shape.group:
                    grouped.append(hold)
                else:
                    take(available, hold.amounts, force=True)
            view = msgspec.structs.replace(self.info, available=available, alive=self.alive, suspect=self.suspect)
            for hold in grouped:
                view = without(view, hold.shape, hold.amounts)
            self._view = view
        return self._view

    def news(self) -> NodeNews | NodeInfo:
        """What to tell those who were told of it before: little, unless more than usual has changed. To be said to all."""
        view, said = self.view(), self._said
        self._said = view
        news = NodeNews(
            view.node, view.available, view.store_used, view.queued, view.placements, view.bundles, view.suspect,
        )  # fmt: skip
        return news if said is not None and with_news(said, news) == view else view

    def bury(self, cause: str) -> None:
        """It is dead, and holds nothing."""
        self.alive, self.cause = False, cause
        self.holds.clear()
        self._open.clear()
        self.changed()

    def check(self) -> None:
        assert all(hold.index <= self.placed for hold in self.holds.values())
        assert self._open == {key: hold for key, hold in self.holds.items() if not hold.counted}
        told, self._view = self.view(), None
        assert told == self.view(), "what was added up is not what there is"

    def changed(self) -> None:
        self._view = None
        self.moved()

    def moved(self) -> None:
        """The scheduler should look at it again."""
        self._moved[self.info.node] = None

    def reported(self, info: NodeInfo, now: float, forget_after_s: float) -> bool:
        """Take a report. Holds are counted once the report must include them; returns whether anything is new."""
        new = info != self.info or self.full or self.suspect
        for key, hold in list(self._open.items()):
            if hold.started or info.placements >= hold.index or now - hold.placed_at >= forget_after_s:
                hold.counted = new = True
                del self._open[key]
        self.info, self.heard_at, self.full, self.suspect, self.restored = info, now, False, False, False
        if new:
            self.changed()
        return new

    def hold(self, actor: ActorId, epoch: int, amounts: Amounts, now: float, shape: Shape = ANYWHERE) -> None:
        """`amounts` are taken for an epoch of an actor, or for a try to place a group, out of what `shape` may use here."""
        view = self.view()
        self.placed += 1
        self.holds[actor, epoch] = self._open[actor, epoch] = Hold(amounts, self.placed, now, shape)
        self._view = without(view, shape, amounts)
        self.moved()

    def release(self, actor: ActorId, epoch: int) -> None:
        """The epoch ended: what it held is free now, ahead of the node's next report."""
        hold = self.holds.pop((actor, epoch), None)
        self._open.pop((actor, epoch), None)
        self.changed()
        if hold is None or not hold.counted:
            return
        if hold.shape.group:
            return  # which of its bundles the node has taken it from only the node knows: its report is awaited
        available = dict(self.info.available)
        give(available, hold.amounts)
        total = self.info.total
        self.info = msgspec.structs.replace(self.info, available={n: min(u, total.get(n, u)) for n, u in available.items()})

    def has_room(self, shape: Shape) -> bool:
        return self.alive and not self.suspect and not self.full and has_room(self.view(), shape)

    def add_bundles(self, group: bytes, round_: int, bundles: list[BundleInfo]) -> None:
        """The node has set these aside, and will report them, unless its last report did already."""
        hold = self.holds.get((group, round_))
        if hold is not None and not hold.counted:
            view = self.view()
            self.info = msgspec.structs.replace(self.info, bundles=[*self.info.bundles, *bundles])
            self._view = msgspec.structs.replace(view, bundles=[*view.bundles, *bundles])
            self.moved()

    def drop_bundles(self, group: bytes, indexes: list[int]) -> None:
        """The node is told to release these, of which nothing is known here."""
        left = [b for b in self.info.bundles if b.group != group or b.index not in indexes]
        self.info = msgspec.structs.replace(self.info, bundles=left)
        self.changed()

    def drop_group(self, group: bytes, rounds: int) -> None:
        """The group, which was tried to be placed so many times, is gone. That its amounts are free the node reports once nothing
        runs in its bundles any more, if it has reported already that they are not."""
        back: Amounts = {}
        view = self.view()
        for key in [(group, round_) for round_ in range(1, rounds + 1)]:
            hold = self.holds.pop(key, None)
            if hold is not None and self._open.pop(key, None) is not None:
                give(back, hold.amounts)
        self.info = msgspec.structs.replace(self.info, bundles=[b for b in self.info.bundles if b.group != group])
        # Not added up anew: on a node with very many holds that takes longer than everything else.
        available = {name: units + back.get(name, 0) for name, units in view.available.items()}
        self._view = msgspec.structs.replace(view, available=available, bundles=[b for b in view.bundles if b.group != group])
        self.moved()


class JobRecord(msgspec.Struct, array_like=True):
    """A driver, while it is attached and, for the listing, for some time after."""

    driver: Address
    name: str
    namespace: str
    pid: int
    ended: bool = False
    submission: str = ""  #: the submitted job that began it, if one did
    metadata: dict[str, str] = {}  #: JobConfig's
    started_ms: int = 0  #: Unix milliseconds
    ended_ms: int = 0
