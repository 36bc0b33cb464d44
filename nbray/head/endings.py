"""Epochs that were told to end and have not been reported ended.

The order may be lost with the head that gave it, and the head that follows has given the epoch up: without this list its
process would stay on its node for ever. So the order is kept in the journal, and given again when the node is heard of.
"""

from __future__ import annotations

import msgspec

from nbray.head.members import Members
from nbray.head.records import Persist
from nbray.ids import ActorId, NodeId
from nbray.machine import Effect
from nbray.wire.messages import EndActor

TABLE = "endings"
_EPOCH_BYTES = 4


class Endings:
    """The orders that are open, by (actor, epoch), with the node that each went to."""

    def __init__(self, members: Members, out: list[Effect]) -> None:
        self.members = members
        self.out = out
        self.open: dict[tuple[ActorId, int], tuple[NodeId, EndActor]] = {}

    def order(self, node: NodeId, order: EndActor) -> None:
        """Send it; nothing if the node is dead, and the epoch with it."""
        if node in self.members.nodes:
            self.open[order.actor, order.epoch] = (node, order)
            self.out.append(Persist(TABLE, _key(order.actor, order.epoch), msgspec.msgpack.encode((node, order))))
            self.members.send(node, order)

    def done(self, actor: ActorId, epoch: int) -> None:
        """The node says that the epoch is over."""
        if self.open.pop((actor, epoch), None) is not None:
            self.out.append(Persist(TABLE, _key(actor, epoch), None))

    def node_died(self, node: NodeId) -> None:
        for actor, epoch in [key for key, (where, _) in self.open.items() if where == node]:
            self.done(actor, epoch)

    def repeat(self, node: NodeId) -> None:
        """Give the node its orders again: it drops those that it has carried out."""
        for where, order in self.open.values():
            if where == node:
                self.members.send(node, order)

    def restore(self, saved: dict[bytes, bytes]) -> None:
        for value in saved.values():
            node, order = msgspec.msgpack.decode(value, type=tuple[bytes, EndActor])
            if node in self.members.nodes:
                self.open[order.actor, order.epoch] = (node, order)

    def check(self) -> None:
        assert all(node in self.members.nodes for node, _ in self.open.values()), "an order is open on a dead node"


def _key(actor: ActorId, epoch: int) -> bytes:
    return actor + epoch.to_bytes(_EPOCH_BYTES, "big")
