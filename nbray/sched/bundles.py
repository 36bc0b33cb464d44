"""Which node each bundle of a placement group goes to. Pure.

    PACK           on as few nodes as it takes      STRICT_PACK    on one node, or not at all
    SPREAD         on as many nodes as there are    STRICT_SPREAD  each on a node of its own, or not at all

A search with backtracking: largest bundles first, the nodes of each in the order that the strategy likes. It finds a place for
every bundle whenever there is one, unless that takes many times as many steps as there are bundles; then the group waits as if
there were none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nbray.ids import NodeId, short
from nbray.sched.labels import in_words as labels_in_words
from nbray.sched.labels import matches
from nbray.sched.policy import load
from nbray.sched.resources import fits, give, in_words, shortfall, take
from nbray.wire.messages import Amounts, GroupSpec, NodeInfo

STEPS = 2_000
#: Bundles that a node is rated by when packing.
LOOK_AHEAD = 16

Places = dict[int, NodeId]


def place(spec: GroupSpec, nodes: Sequence[NodeInfo], fixed: Mapping[int, NodeId] | None = None) -> Places | None:
    """A node for every bundle that is not in `fixed`, out of what the nodes have free; None if there is none now.

    `fixed` are the bundles that have their place already, as when some of a group were lost with their node.
    """
    healthy = [node for node in nodes if node.alive and not node.suspect]
    if not _each_fits(spec, fixed or {}, [node.available for node in healthy]):
        return None
    return _Search(spec, {node.node: node for node in healthy}, fixed or {}, whole=False).run()


def feasible(spec: GroupSpec, nodes: Sequence[NodeInfo], fixed: Mapping[int, NodeId] | None = None) -> bool:
    """Whether the nodes that live could ever hold the group, all else ended."""
    alive = {node.node: node for node in nodes if node.alive}
    if not _each_fits(spec, fixed or {}, [node.total for node in alive.values()]):
        return False
    return _Search(spec, alive, fixed or {}, whole=True).run() is not None


def _each_fits(spec: GroupSpec, fixed: Mapping[int, NodeId], free: Sequence[Amounts]) -> bool:
    """Whether every bundle would fit somewhere if it were alone: quickly asked, and the usual reason why there is no place."""
    kinds: list[Amounts] = []
    for index, bundle in enumerate(spec.bundles):
        if index not in fixed and bundle not in kinds:
            kinds.append(bundle)
    return all(any(fits(amounts, bundle) for amounts in free) for bundle in kinds)


class _Search:
    """One attempt. `whole`: nodes are taken as if nothing was in use but the group's own bundles."""

    def __init__(self, spec: GroupSpec, nodes: Mapping[NodeId, NodeInfo], fixed: Mapping[int, NodeId], *, whole: bool) -> None:
        self._spec, self._nodes = spec, nodes
        self._free: dict[NodeId, Amounts] = {id_: dict(node.total if whole else node.available) for id_, node in nodes.items()}
        self._used: dict[NodeId, int] = dict.fromkeys(nodes, 0)
        for index, node in fixed.items():
            if node in nodes:
                self._used[node] += 1
                if whole:
                    take(self._free[node], spec.bundles[index], force=True)
        self._rest = [i for i in range(len(spec.bundles)) if i not in fixed]
        if len(self._rest) > 1:
            self._rest.sort(key=self._size, reverse=True)

    def _size(self, index: int) -> float:
        """How much of the largest node a bundle takes: large ones are hard to place, so they come first."""
        shares = []
        for name, units in self._spec.bundles[index].items():
            most = max((node.total.get(name, 0) for node in self._nodes.values()), default=0)
            shares.append(units / most if most else float("inf"))
        return max(shares, default=0.0)

    def run(self) -> Places | None:
        if self._spec.strategy == "STRICT_PACK":
            return self._on_one()
        return self._every_one() if self._is_enough() else None

    def _allowed(self, index: int, node: NodeId) -> bool:
        selectors = self._spec.selectors
        return not selectors or matches(self._nodes[node].labels, selectors[index])

    def _on_one(self) -> Places | None:
        together: Amounts = {}
        for index in self._rest:
            give(together, self._spec.bundles[index])
        tied = {node for node, count in self._used.items() if count}
        able = [
            node
            for node, free in self._free.items()
            if fits(free, together) and tied <= {node} and all(self._allowed(index, node) for index in self._rest)
        ]
        if not able:
            return None
        best = min(able, key=lambda node: (node != self._spec.target, self._load(node)))
        return dict.fromkeys(self._rest, best)

    def _is_enough(self) -> bool:
        """Whether all the nodes together have as much: quickly asked, too."""
        wanted: Amounts = {}
        there: Amounts = {}
        for index in self._rest:
            give(wanted, self._spec.bundles[index])
        for free in self._free.values():
            give(there, {name: max(0, units) for name, units in free.items()})
        return fits(there, wanted)

    def _every_one(self) -> Places | None:
        """Depth first; a stack of our own, because a group may have more bundles than Python has frames."""
        levels: list[Iterator[NodeId]] = []
        chosen: list[NodeId] = []
        for _ in range(STEPS + 2 * len(self._rest)):
            if len(chosen) == len(self._rest):
                return dict(zip(self._rest, chosen, strict=True))
            if len(levels) == len(chosen):
                levels.append(self._candidates(len(chosen)))
            node = next(levels[-1], None)
            if node is not None:
                take(self._free[node], self._spec.bundles[self._rest[len(chosen)]])
                self._used[node] += 1
                chosen.append(node)
                continue
            levels.pop()
            if not chosen:
                return None
            last = chosen.pop()
            give(self._free[last], self._spec.bundles[self._rest[len(chosen)]])
            self._used[last] -= 1
        return None

    def _candidates(self, position: int) -> Iterator[NodeId]:
        """The nodes that could take the next bundle, what the strategy likes first. Of nodes alike in all that matters only one."""
        index = self._rest[position]
        bundle, alone = self._spec.bundles[index], self._spec.strategy == "STRICT_SPREAD"
        able = [
            node
            for node, free in self._free.items()
            if fits(free, bundle) and not (alone and self._used[node]) and self._allowed(index, node)
        ]
        seen: set[tuple[object, ...]] = set()
        for node in sorted(able, key=lambda node: self._rank(node, position)):
            kind = (
                self._used[node],
                *self._free[node].items(),
                *(self._nodes[node].labels.items() if self._spec.selectors else ()),
            )
            if kind not in seen:
                seen.add(kind)
                yield node

    def _rank(self, node: NodeId, position: int) -> tuple[float, ...]:
        """What the strategy likes comes first."""
        if self._spec.strategy in ("SPREAD", "STRICT_SPREAD"):
            return self._used[node], self._load(node)
        # The node that could take most of what is left, so that few are needed; of equal ones the fuller, to leave others whole.
        return -self._takes(node, position), not self._used[node], -self._load(node)

    def _takes(self, node: NodeId, position: int) -> int:
        free, count = dict(self._free[node]), 0
        for index in self._rest[position : position + LOOK_AHEAD]:
            if fits(free, self._spec.bundles[index]) and self._allowed(index, node):
                take(free, self._spec.bundles[index])
                count += 1
        return count

    def _load(self, node: NodeId) -> float:
        return load(self._nodes[node].total, self._free[node])


def explain(spec: GroupSpec, nodes: Sequence[NodeInfo], fixed: Mapping[int, NodeId] | None = None) -> str:
    """Say why the group is not placed, in words for a person."""
    alive = [node for node in nodes if node.alive]
    asked = f"{_bundles_in_words(spec.bundles)} ({spec.strategy})"
    if not alive:
        return f"Needs {asked}; no node of the cluster is alive. Add one: nbray start --address ..."
    if feasible(spec, nodes, fixed):
        return f"Needs {asked}; too much of it is in use. Starts when running work ends, or sooner with another node."
    advice = "Ask for less, or add a node: nbray start --address ..."
    for index, bundle in enumerate(spec.bundles):
        among = [node for node in alive if not spec.selectors or matches(node.labels, spec.selectors[index])]
        if not among:
            return f"Needs {asked}; no node has the labels of bundle {index}: {labels_in_words([spec.selectors[index]])}. {advice}"
        lack = shortfall([node.total for node in among], bundle, [short(node.node) for node in among])
        if lack:
            return f"Needs {asked}; bundle {index} needs {lack}. {advice}"
    together = {
        "STRICT_PACK": "no node could hold all of it",
        "STRICT_SPREAD": f"not enough nodes could hold a bundle each ({len(alive)} in the cluster)",
    }
    return f"Needs {asked}; {together.get(spec.strategy, 'the nodes together could not hold it')}. {advice}"


def _bundles_in_words(bundles: Sequence[Amounts]) -> str:
    """As in "3 bundles: 2 of num_cpus=1 and 1 of num_gpus=1"."""
    counts: dict[str, int] = {}
    for bundle in bundles:
        said = in_words(bundle)
        counts[said] = counts.get(said, 0) + 1
    parts = [f"{count} of {said}" for said, count in counts.items()]
    shown = " and ".join(parts[:3]) + (f" and {len(parts) - 3} more kinds" if len(parts) > 3 else "")
    return f"{len(bundles)} bundle{'s' if len(bundles) > 1 else ''}: {shown}"
