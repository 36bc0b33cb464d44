"""What leases and actors of a node stand on: its resources, its workers, its picture of the cluster. Pure."""

from __future__ import annotations

import msgspec

from nbray.ids import Address, NodeId
from nbray.machine import Effect, Send
from nbray.node.devices import Devices
from nbray.node.environments import Environments
from nbray.node.pool import WorkerPool
from nbray.node.stock import Bundle, Stock
from nbray.sched.labels import best_rank
from nbray.wire.messages import BundleInfo, Message, NodeInfo, QueuedDemand, Shape


class Ground(Stock):
    """One node's resources and surroundings. `out` collects the effects of the event that is being handled."""

    def __init__(self, info: NodeInfo, head: Address, pool: WorkerPool) -> None:
        super().__init__(info.total)
        self.me = Address(info.node, info.node)
        self.head = head
        self.pool = pool
        self.environments = Environments()
        self.out: list[Effect] = []
        self.others: dict[NodeId, NodeInfo] = {}  #: the rest of the cluster, as the head last told
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
