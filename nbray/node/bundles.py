"""Placement groups as one node knows them: the bundles set aside here, and where the others are. Pure.

    ReserveBundles -> reserved --GroupUpdate: CREATED--> in use --GroupUpdate: REMOVED--> ending --last worker gone--> free again
                          `------------ ReleaseBundles ------------'----------------------^

The desks ask here what a shape may draw from (`stocks`), why it waits (`why`) and whether no wait will help (`refusal`). Of a group
that this node does not know it asks the head once, and is told of every change from then on; processes here ask their node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from nbray.ids import Address, ProcessId
from nbray.node.ground import Ground
from nbray.node.stock import Bundle, Stock
from nbray.sched.resources import fits, give
from nbray.wire.messages import (
    Amounts,
    BundleInfo,
    BundlesRefused,
    BundlesReserved,
    GroupUpdate,
    ReleaseBundles,
    ReserveBundles,
    Shape,
    WatchGroup,
)

#: States of a group in which the bundles that have a place may be used.
OPEN = ("CREATED", "RESCHEDULING")
#: Removed groups that are remembered; the head knows the others.
REMOVED_KEPT = 1000


class Bundles:
    """The bundles of this node, and what it was told of groups."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.ending: list[Bundle] = []  #: released, while somebody still holds some of them
        self.groups: dict[bytes, GroupUpdate] = {}  #: those that live, as the head last told
        self.removed: dict[bytes, GroupUpdate] = {}
        self._asked: set[bytes] = set()
        self._watchers: dict[bytes, dict[Address, None]] = {}  #: processes here that want to hear of a group

    # -- what the head says

    def reserve(self, said: ReserveBundles) -> None:
        """All of it or nothing."""
        self.ground.placements += 1
        together: Amounts = {}
        for _, amounts in said.bundles:
            give(together, amounts)
        here = any((said.group, index) in self.ground.bundles for index, _ in said.bundles)
        if here or not self.ground.fits(together):
            self.ground.send(self.ground.head, BundlesRefused(said.group, said.round, self.ground.me.node))
            return
        for index, amounts in said.bundles:
            bundle = Bundle(said.group, index, self.ground.hold(amounts), self.ground.bundles_changed)
            self.ground.bundles[said.group, index] = bundle
        self.ground.bundles_changed()
        self.ground.send(self.ground.head, BundlesReserved(said.group, said.round, self.ground.me.node))

    def release(self, said: ReleaseBundles) -> list[Bundle]:
        """Nothing more comes out of these. Returns them, for what runs in them to be ended."""
        return self._let_go([(said.group, index) for index in said.indexes])

    def _let_go(self, keys: Iterable[tuple[bytes, int]]) -> list[Bundle]:
        found = [bundle for key in keys if (bundle := self.ground.bundles.pop(key, None)) is not None]
        if found:
            self.ending += found
            self.ground.bundles_changed()
        return found

    def settle(self) -> None:
        """What nobody holds any more is the node's own again."""
        if self.ending:
            for bundle in [bundle for bundle in self.ending if bundle.free == bundle.total]:
                self.ending.remove(bundle)
                self.ground.release(bundle.held)

    def updated(self, said: GroupUpdate) -> list[Bundle]:
        """Returns the bundles that are no more, for what runs in them to be ended."""
        self._asked.discard(said.group)
        for watcher in self._watchers.get(said.group, ()):
            self.ground.send(watcher, said)
        if said.state == "REMOVED":
            self.groups.pop(said.group, None)
            self._watchers.pop(said.group, None)
            self.removed[said.group] = said
            while len(self.removed) > REMOVED_KEPT:
                del self.removed[next(iter(self.removed))]
            return self._let_go([(said.group, index) for index in range(len(said.bundles))])
        self.groups[said.group] = said
        self._place_elsewhere(said)
        return []

    def view_changed(self) -> None:
        """A new ClusterView. It may be older than what the head told of a group."""
        for group in self.groups.values():
            self._place_elsewhere(group)

    def _place_elsewhere(self, said: GroupUpdate) -> None:
        """Other nodes' bundles, which their heartbeats will tell of as well, but later than the first request may come."""
        for index, node in enumerate(said.places):
            other = self.ground.others.get(node)
            if other is not None and all((b.group, b.index) != (said.group, index) for b in other.bundles):
                bundle = BundleInfo(said.group, index, said.bundles[index], said.bundles[index])
                self.ground.others[node] = msgspec.structs.replace(other, bundles=[*other.bundles, bundle])

    # -- what is asked of it

    def watch(self, said: WatchGroup) -> None:
        """A process of this node wants to hear of a group."""
        known = self.groups.get(said.group) or self.removed.get(said.group)
        if known is None or known.state != "REMOVED":
            self._watchers.setdefault(said.group, {})[said.watcher] = None
        if known is not None:
            self.ground.send(said.watcher, known)
        else:
            self.learn(said.group)

    def process_gone(self, process: ProcessId) -> None:
        for group, watchers in list(self._watchers.items()):
            for watcher in [watcher for watcher in watchers if watcher.process == process]:
                del watchers[watcher]
            if not watchers:
                del self._watchers[group]

    def learn(self, group: bytes) -> None:
        """Ask the head about a group, if nothing is known and nothing was asked."""
        if group not in self.groups and group not in self.removed and group not in self._asked:
            self._asked.add(group)
            self.ground.send(self.ground.head, WatchGroup(group, self.ground.me))

    def stocks(self, shape: Shape) -> Iterator[Stock]:
        """What `shape` may draw from on this node."""
        if not self.ground.has_labels(shape):
            return
        if not shape.group:
            yield self.ground
        elif self.is_open(shape.group):
            for (group, index), bundle in self.ground.bundles.items():
                if group == shape.group and shape.bundle in (-1, index):
                    yield bundle

    def room_for(self, shape: Shape, amounts: Amounts) -> Stock | None:
        """The first of them with that much free."""
        return next((stock for stock in self.stocks(shape) if fits(stock.free, amounts)), None)

    def is_open(self, group: bytes) -> bool:
        told = self.groups.get(group)
        return told is not None and told.state in OPEN

    def refusal(self, shape: Shape) -> str | None:
        """Why no wait could ever help: the group was removed. None while it lives, or is not known."""
        told = self.removed.get(shape.group) if shape.group else None
        return told.why if told is not None else None

    def why(self, shape: Shape) -> str | None:
        """Why work in a group that is not placed waits; None if that is not the reason."""
        if not shape.group or self.is_open(shape.group):
            return None
        told = self.groups.get(shape.group)
        return told.why if told is not None and told.why else "Waits for its placement group, which is being placed."

    def check(self) -> None:
        for key, bundle in self.ground.bundles.items():
            assert key == (bundle.group, bundle.index)
            assert bundle.held == bundle.total, "a bundle holds less of its node than it gives out"
            assert bundle not in self.ending
        assert not self.groups.keys() & self.removed.keys()
