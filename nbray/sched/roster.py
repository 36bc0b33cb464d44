"""The nodes of a cluster, kept so that a place for work is found without looking at every one. Pure.

    rank of a node   below half full: (0, order of joining)      else: (load, order of joining)

`policy.choose` wants the first node below half full with room, else the emptiest with room: of those with room the first in the
order of ranks. The order is kept, and for every demand that was asked for lately how far down the order nobody has room for it:

    no room for it      | unknown
    --------------------+-----------------> ranks        a node that changes is looked at again, wherever it is
                     reached

So a choice looks at the nodes that have changed since the last one for the same demand, and at those that it passes for the first
time: over a thousand choices a few each, in a cluster of any size. Only work that asks for labels looks at all nodes.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterator, MutableMapping, Sequence

from nbray.ids import NodeId
from nbray.sched import policy
from nbray.sched.policy import HALF_FULL, load
from nbray.sched.resources import fits
from nbray.sched.rooms import could_hold, has_room
from nbray.wire.messages import Amounts, NodeInfo, Shape

Rank = tuple[float, int, NodeId]
LAST: Rank = (float("inf"), 0, b"")
#: Demands whose way down the order is remembered; a cluster has few at a time.
SEARCHES = 16

Near = Sequence[tuple[NodeId, int]]


class _Search:
    """How far a demand has looked. Below `reached` only nodes in `changed` and `back` may have room."""

    __slots__ = ("back", "changed", "reached")

    def __init__(self) -> None:
        self.reached: Rank = (-1.0, 0, b"")
        self.changed: set[NodeId] = set()
        self.back: list[Rank] = []  #: a heap: nodes below `reached` that have got room; some have lost it again


class Roster(MutableMapping[NodeId, NodeInfo]):
    """Nodes by id, in the order of joining. Answers as `policy.choose` would with all of them.

    `here` is the node that asks, as it knows itself: it comes before the others, and need not be among them.
    """

    def __init__(self) -> None:
        self._nodes: dict[NodeId, NodeInfo] = {}
        self._joined: dict[NodeId, int] = {}
        self._joins = 0
        self._ranks: dict[NodeId, Rank] = {}  #: of those that may be given work
        self._order: list[Rank] = []
        self._holders: dict[bytes, dict[NodeId, None]] = {}  #: placement group -> nodes with a bundle of it
        self._searches: dict[tuple[tuple[str, int], ...], _Search] = {}
        self._ring: list[NodeId] = []
        self._turned = 0

    # -- the mapping

    def __getitem__(self, node: NodeId) -> NodeInfo:
        return self._nodes[node]

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._nodes)

    def __contains__(self, node: object) -> bool:
        return node in self._nodes

    def __setitem__(self, node: NodeId, info: NodeInfo) -> None:
        known = self._nodes.get(node)
        if known == info:
            return
        if known is None:
            self._joins += 1
            self._joined[node] = self._joins
            self._ring.append(node)
        self._nodes[node] = info
        if info.bundles or (known is not None and known.bundles):
            self._hold(node, known, info)
        self._rank(node, info)
        for search in self._searches.values():
            search.changed.add(node)

    def __delitem__(self, node: NodeId) -> None:
        info = self._nodes.pop(node)
        self._hold(node, info, None)
        self._rank(node, None)
        del self._joined[node]
        self._ring.remove(node)

    def _hold(self, node: NodeId, old: NodeInfo | None, new: NodeInfo | None) -> None:
        for bundle in old.bundles if old is not None else ():
            holders = self._holders.get(bundle.group)
            if holders is not None:
                holders.pop(node, None)
                if not holders:
                    del self._holders[bundle.group]
        for bundle in new.bundles if new is not None else ():
            self._holders.setdefault(bundle.group, {})[node] = None

    def _rank(self, node: NodeId, info: NodeInfo | None) -> None:
        rank: Rank | None = None
        if info is not None and _is_healthy(info):
            full = load(info.total, info.available)
            rank = (0.0 if full < HALF_FULL else full, self._joined[node], node)
        old = self._ranks.get(node)
        if rank == old:
            return
        if old is not None:
            del self._ranks[node]
            del self._order[bisect.bisect_left(self._order, old)]
        if rank is not None:
            self._ranks[node] = rank
            bisect.insort(self._order, rank)

    # -- choosing

    def choose(self, shape: Shape, here: NodeInfo | None, near: Near = (), turn: int = 0) -> NodeId | None:
        """The node to run `shape`, with room or, if none has any, in a queue; None if no healthy node could ever hold it."""
        found = self.with_room(shape, here, near, turn)
        if found is not None:
            return found
        if _is_plain(shape) and here is not None and _is_healthy(here) and could_hold(here, shape):
            return here.node
        return policy.choose(shape, here.node if here is not None else None, self._among(shape, here), near, turn)

    def with_room(self, shape: Shape, here: NodeInfo | None, near: Near = (), turn: int = 0) -> NodeId | None:
        """The node to run `shape` at once, or None if none has room now."""
        if shape.strategy == "NODE":
            target = self._info(shape.node, here)
            if target is not None and _is_healthy(target) and could_hold(target, shape):
                return target.node if has_room(target, shape) else None
            if not shape.soft:
                return None
        if shape.selectors or shape.group:
            among = self._among(shape, here)
            found = policy.choose(shape, here.node if here is not None else None, among, near, turn)
            info = self._info(found, here) if found is not None else None
            return info.node if info is not None and has_room(info, shape) else None
        if shape.strategy == "SPREAD":
            return self._next(shape, here)
        return self._nearest(shape, here, near) or self._packed(shape, here)

    def _info(self, node: NodeId, here: NodeInfo | None) -> NodeInfo | None:
        return here if here is not None and here.node == node else self._nodes.get(node)

    def _among(self, shape: Shape, here: NodeInfo | None) -> list[NodeInfo]:
        """All that could matter to `shape`, as `policy.choose` wants them."""
        among: list[NodeInfo] = [here] if here is not None and here.node not in self._nodes else []
        if shape.group:
            holders = self._holders.get(shape.group, {})
            return among + [self._nodes[node] for node in sorted(holders, key=self._joined.__getitem__)]
        return among + list(self._nodes.values())

    def _nearest(self, shape: Shape, here: NodeInfo | None, near: Near) -> NodeId | None:
        best: tuple[int, int, NodeId] | None = None
        for node, size in dict(near).items():
            info = self._info(node, here)
            if size > 0 and info is not None and _is_healthy(info) and has_room(info, shape):
                best = max(best or (0, 0, b""), (size, -self._joined.get(node, 0), node))
        return best[2] if best is not None else None

    def _packed(self, shape: Shape, here: NodeInfo | None) -> NodeId | None:
        own = load(here.total, here.available) if here is not None and _is_healthy(here) and has_room(here, shape) else None
        if here is not None and own is not None and own < HALF_FULL:
            return here.node
        first = self._first(shape)
        if here is not None and own is not None and (first is None or own <= first[0]):
            return here.node
        return first[2] if first is not None else None

    def _first(self, shape: Shape) -> Rank | None:
        """The first in the order that has room for the amounts of `shape`."""
        search = self._search(shape)
        for node in search.changed:
            rank = self._ranks.get(node)
            if rank is not None and rank < search.reached and has_room(self._nodes[node], shape):
                heapq.heappush(search.back, rank)
        search.changed.clear()
        while search.back:
            rank = search.back[0]
            if self._ranks.get(rank[2]) == rank and has_room(self._nodes[rank[2]], shape):
                return rank
            heapq.heappop(search.back)
        for position in range(bisect.bisect_left(self._order, search.reached), len(self._order)):
            rank = self._order[position]
            if has_room(self._nodes[rank[2]], shape):
                search.reached = rank
                return rank
        search.reached = LAST
        return None

    def _search(self, shape: Shape) -> _Search:
        key = tuple(sorted(shape.amounts.items()))
        search = self._searches.pop(key, None) or _Search()
        self._searches[key] = search  # the latest last
        if len(self._searches) > SEARCHES:
            del self._searches[next(iter(self._searches))]
        return search

    def _next(self, shape: Shape, here: NodeInfo | None) -> NodeId | None:
        """In turns, each the next one with room."""
        extra = here is not None and here.node not in self._nodes
        count = len(self._ring) + extra
        for step in range(count):
            place = (self._turned + step) % count
            node = here.node if extra and place == 0 and here is not None else self._ring[place - extra]
            info = self._info(node, here)
            if info is not None and _is_healthy(info) and has_room(info, shape):
                self._turned = place + 1
                return node
        return None

    def likely(self, demands: Sequence[Amounts], most: int) -> list[NodeInfo]:
        """Up to `most` nodes that have room for one of `demands`, in the order of ranks; looks at a few times as many."""
        found = []
        for _, _, node in self._order[: 4 * most]:
            info = self._nodes[node]
            if any(fits(info.available, demand) for demand in demands):
                found.append(info)
                if len(found) >= most:
                    break
        return found


def _is_healthy(info: NodeInfo) -> bool:
    return info.alive and not info.suspect


def _is_plain(shape: Shape) -> bool:
    return shape.strategy not in ("SPREAD", "NODE") and not shape.group and not shape.selectors
