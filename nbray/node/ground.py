"""What leases and actors of a node stand on: its resources, its workers, its picture of the cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nbray.ids import Address, NodeId
from nbray.machine import Effect, Send
from nbray.node.environments import Environments
from nbray.node.pool import WorkerPool
from nbray.sched.resources import fits, give, take
from nbray.wire.messages import Amounts, Message, NodeInfo, QueuedDemand

CPU = "CPU"


class Ground:
    """One node's resources and surroundings. `out` collects the effects of the event that is being handled."""

    def __init__(self, info: NodeInfo, head: Address, pool: WorkerPool) -> None:
        self.me = Address(info.node, info.node)
        self.head = head
        self.total: Amounts = dict(info.total)
        self.free: Amounts = dict(info.total)
        self.pool = pool
        self.environments = Environments()
        self.out: list[Effect] = []
        self.others: dict[NodeId, NodeInfo] = {}  #: the rest of the cluster, as the head last told
        self.dead: set[NodeId] = set()  #: nodes that died while this one lived
        self.queued: list[QueuedDemand] = []  #: for the next heartbeat
        self.store_used = 0
        self.placements = 0  #: PlaceActor messages taken
        self._info = info
        self._pool = pool

    def send(self, to: Address, message: Message) -> None:
        self.out.append(Send(to, message))

    def fits(self, amounts: Mapping[str, int]) -> bool:
        return fits(self.free, amounts)

    def hold(self, amounts: Mapping[str, int], *, force: bool = False) -> Amounts:
        """Take `amounts` from what is free; returns what to give back to `release`."""
        take(self.free, amounts, force=force)
        return dict(amounts)

    def release(self, held: Amounts) -> None:
        """Give back what `hold` returned, once: it is empty afterwards."""
        give(self.free, held, self.total)
        held.clear()

    def lend_cpu(self, held: Amounts) -> None:
        """The holder waits in `get`: others may have its CPU, and nothing else of it."""
        if units := held.pop(CPU, 0):
            give(self.free, {CPU: units}, self.total)

    def take_cpu_back(self, held: Amounts, amounts: Mapping[str, int]) -> None:
        """The holder goes on. The CPU may be taken: then the node is over its CPUs until something ends."""
        if units := amounts.get(CPU, 0) - held.get(CPU, 0):
            take(self.free, {CPU: units}, force=True)
            held[CPU] = amounts[CPU]

    def info(self) -> NodeInfo:
        """This node as it tells others. What is over-used counts as not available."""
        return msgspec.structs.replace(
            self._info,
            available={name: max(0, units) for name, units in self.free.items()},
            store_used=self.store_used,
            queued=self.queued,
            placements=self.placements,
        )

    def nodes(self) -> list[NodeInfo]:
        """The cluster, this node first."""
        return [self.info(), *self.others.values()]
