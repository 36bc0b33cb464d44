"""What leases and actors of a node stand on: its resources, its workers, its picture of the cluster. Pure.

The picture is what the head last told, less what has been sent to other nodes since. A node that we sent something reports it, and
then the head tells; if it does not come about (the asker no longer wanted it), what the head told is true again after PROMISE_S.
"""

from __future__ import annotations

import msgspec

from nbray import config
from nbray.ids import Address, NodeId
from nbray.machine import Effect, Send
from nbray.node.devices import Devices
from nbray.node.environments import Environments
from nbray.node.pool import WorkerPool
from nbray.node.stock import Bundle, Stock
from nbray.sched.labels import best_rank
from nbray.sched.rooms import with_news, without
from nbray.sched.roster import Roster
from nbray.wire.messages import BundleInfo, ClusterView, Message, NodeInfo, QueuedDemand, Shape

#: So long it takes at most until what another node gave away has come back to us by way of the head.
PROMISE_S = 2 * config.HEARTBEAT_S


class Ground(Stock):
    """One node's resources and surroundings. `out` collects the effects of the event that is being handled."""

    def __init__(self, info: NodeInfo, head: Address, pool: WorkerPool) -> None:
        super().__init__(info.total)
        self.me = Address(info.node, info.node)
        self.head = head
        self.pool = pool
        self.environments = Environments()
        self.out: list[Effect] = []
        self.others = Roster()  #: the rest of the cluster
        self.astray = False  #: the head spoke of a view that this node has not: it is to send all of it
        self._serial = 0  #: of the last view
        self._promised: dict[NodeId, tuple[NodeInfo, float]] = {}  #: what the head told of nodes that we sent work to, and when
        self.dead: set[NodeId] = set()  #: nodes that died while this one lived
        self.queued: list[QueuedDemand] = []  #: for the next heartbeat
        self.store_used = 0
        self.devices = Devices(info.total)
        self.closed = ""  #: why nothing new begins here, while nothing does
        self.placements = 0  #: PlaceActor and ReserveBundles taken
        self.bundles: dict[tuple[bytes, int], Bundle] = {}  #: set aside for placement groups, by (group, index)
        self._bundles_told: list[BundleInfo] | None = None
        self._info = info
        self._pool = pool

    def send(self, to: Address, message: Message) -> None:
        self.out.append(Send(to, message))

    def resize(self, name: str, units: int) -> None:
        """There is another amount of a resource. What is held stays held: less may be free than nothing for a while."""
        more = units - self.total.get(name, 0)
        self.total[name] = units
        self.free[name] = self.free.get(name, 0) + more
        self._info = msgspec.structs.replace(self._info, total=dict(self.total))

    def has_labels(self, shape: Shape) -> bool:
        """Whether this node is one that `shape` may run on, as far as labels go."""
        return not shape.selectors or best_rank(self._info.labels, shape.selectors) is not None

    def info(self) -> NodeInfo:
        """This node as it tells others. What is over-used counts as not available."""
        return msgspec.structs.replace(
            self._info,
            available={name: max(0, units) for name, units in self.free.items()},
            store_used=self.store_used,
            queued=self.queued,
            placements=self.placements,
            bundles=self._told_of_bundles(),
        )

    def learn(self, said: ClusterView) -> None:
        """The cluster as the head sees it, or what has changed."""
        if said.since and said.since != self._serial:
            self.astray = True
            return
        self._serial, self.astray = said.serial, False
        if not said.since:
            told = {info.node for info in said.nodes}
            for gone in [node for node in self.others if node not in told]:
                self.forget(gone)
        for info in said.nodes:
            self._promised.pop(info.node, None)
            if info.node == self.me.node:
                continue
            if info.alive:
                self.others[info.node] = info
            else:
                self.forget(info.node)
        for news in said.news:
            self._promised.pop(news.node, None)
            if news.node in self.others:
                self.others[news.node] = with_news(self.others[news.node], news)

    def forget(self, node: NodeId) -> None:
        """It has left the cluster."""
        self.others.pop(node, None)
        self._promised.pop(node, None)

    def promise(self, node: NodeId, shape: Shape, now: float) -> None:
        """Work of `shape` was sent to another node: until the head tells anew this is all that is known of it; without it every
        request of a burst would go to one free CPU."""
        known = self.others[node]
        self._promised.setdefault(node, (known, now))
        self.others[node] = without(known, shape, shape.amounts)

    def settle_promises(self, now: float) -> bool:
        """What the head told is true again where nothing came of what was sent. Returns whether that was so anywhere."""
        settled = False
        while self._promised:
            node, (told, since) = next(iter(self._promised.items()))
            if now < since + PROMISE_S:
                break
            settled = True
            del self._promised[node]
            if node in self.others:
                known = {(bundle.group, bundle.index) for bundle in told.bundles}
                since_then = [b for b in self.others[node].bundles if (b.group, b.index) not in known]
                self.others[node] = msgspec.structs.replace(told, bundles=[*told.bundles, *since_then])
        return settled

    def bundles_changed(self) -> None:
        """What `info` says of them is to be made anew."""
        self._bundles_told = None

    def _told_of_bundles(self) -> list[BundleInfo]:
        if self._bundles_told is None:
            self._bundles_told = [bundle.info() for bundle in self.bundles.values()]
        return self._bundles_told

    def nodes(self) -> list[NodeInfo]:
        """The cluster, this node first."""
        return [self.info(), *self.others.values()]
