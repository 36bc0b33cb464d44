"""Where one lease or one actor goes. Pure: nodes ask it to redirect, the head asks it to place.

    DEFAULT   the node that holds most of the arguments, if it has room; else pack: the first node below half full, the
              local one before others; else spread: the emptiest. Packing keeps results near each other and leaves whole
              nodes free for demands that need one; beyond half full, queues cost more than distance.
    SPREAD    round robin over the nodes that have room.
    NODE      that node; if `soft`, as DEFAULT when it cannot be there.

Work in a placement group has its bundles in place of nodes; work with label selectors has only the nodes that match one, and of
those with room the ones that match the earliest.

Only nodes that are alive and not suspect are chosen. A node without room is an answer only when none has room: queueing there
beats moving the task twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from nbray.ids import NodeId, short
from nbray.sched import labels
from nbray.sched.resources import fits, in_words, number_in_words, shortfall
from nbray.sched.rooms import bundles_for, could_hold, has_labels, has_room
from nbray.wire.messages import Amounts, NodeInfo, Shape

#: Below this share of its fullest resource a node is packed before others are touched.
HALF_FULL = 0.5


def choose(
    shape: Shape, local: NodeId | None, nodes: Sequence[NodeInfo], near: Sequence[tuple[NodeId, int]], turn: int
) -> NodeId | None:
    """Return the node to run one lease of `shape`, or None if no healthy node could ever hold it.

    `local` is the node that is asking, `nodes` the cluster in an order that stays the same, `near` the nodes that hold
    arguments with their bytes, `turn` a counter that the caller advances for SPREAD.
    """
    able = [node for node in nodes if node.alive and not node.suspect and could_hold(node, shape)]
    if shape.strategy == "NODE":
        if any(node.node == shape.node for node in able):
            return shape.node
        if not shape.soft:
            return None
    if not able:
        return None
    roomy = [node for node in able if has_room(node, shape)]
    if shape.selectors:
        roomy, able = _best_matching(roomy, shape), _best_matching(able, shape)
    if shape.strategy == "SPREAD" or (shape.group and shape.bundle < 0):
        among = roomy or able
        return among[turn % len(among)].node
    if roomy:
        return _nearest(roomy, near) or _packed(roomy, local)
    return _shortest_queue(able, local)


def _best_matching(nodes: Sequence[NodeInfo], shape: Shape) -> list[NodeInfo]:
    ranks = [labels.best_rank(node.labels, shape.selectors) for node in nodes]
    best = min((rank for rank in ranks if rank is not None), default=None)
    return [node for node, rank in zip(nodes, ranks, strict=True) if rank == best]


def feasible(shape: Shape, nodes: Sequence[NodeInfo]) -> bool:
    """Whether a node that lives could ever hold `shape`. A suspect node counts: it may be back in a moment."""
    held_by = [node for node in nodes if node.alive and could_hold(node, shape)]
    if shape.strategy == "NODE" and not shape.soft:
        return any(node.node == shape.node for node in held_by)
    return bool(held_by)


def _nearest(roomy: Sequence[NodeInfo], near: Sequence[tuple[NodeId, int]]) -> NodeId | None:
    bytes_at = dict(near)
    best = max(roomy, key=lambda node: bytes_at.get(node.node, 0))
    return best.node if bytes_at.get(best.node, 0) > 0 else None


def _packed(roomy: Sequence[NodeInfo], local: NodeId | None) -> NodeId:
    half_empty = [node for node in roomy if load(node.total, node.available) < HALF_FULL]
    for node in half_empty:
        if node.node == local:
            return node.node
    if half_empty:
        return half_empty[0].node
    return min(roomy, key=lambda node: (load(node.total, node.available), node.node != local)).node


def _shortest_queue(able: Sequence[NodeInfo], local: NodeId | None) -> NodeId:
    if any(node.node == local for node in able):
        return local  # type: ignore[return-value]  # some node equals it, so it is one
    return min(able, key=queued).node


def load(total: Amounts, available: Amounts) -> float:
    """How full the fullest resource is: 0 is idle, 1 is full, more is oversubscribed."""
    return max(((all_of - available.get(name, 0)) / all_of for name, all_of in total.items() if all_of > 0), default=0.0)


def queued(node: NodeInfo) -> int:
    """Lease requests that wait on the node."""
    return sum(demand.count for demand in node.queued)


def explain(shape: Shape, nodes: Sequence[NodeInfo]) -> str:
    """Say why nothing of `shape` starts now, in words for a person: the demand, the best node for it, and what to do."""
    demand = in_words(shape.amounts)
    alive = [node for node in nodes if node.alive]
    if not alive:
        return "No node of the cluster is alive. Add one: nbray start --address ..."
    if shape.strategy == "NODE" and not shape.soft:
        return _explain_affinity(shape, nodes)
    if shape.group:
        return _explain_group(shape, alive)
    if shape.selectors:
        alive = [node for node in alive if has_labels(node, shape)]
        demand = f"{demand} on a node with {labels.in_words(shape.selectors)}"
        if not alive:
            return f"Needs {demand}; no node has such labels. Ask for others, or add a node: nbray start --address ... --labels ..."
    if not feasible(shape, nodes):
        lack = shortfall([node.total for node in alive], shape.amounts, [short(node.node) for node in alive])
        return f"Needs {lack}. Lower the demand, or add a node: nbray start --address ..."
    able = [node for node in alive if fits(node.total, shape.amounts)]
    healthy = [node for node in able if not node.suspect]
    if not healthy:
        only = f"the only node with that much ({short(able[0].node)}) has missed its heartbeats"
        return f"Needs {demand}; {only}. Starts when it is heard of again."
    roomy = [node for node in healthy if has_room(node, shape)]
    if roomy:
        return f"Needs {demand}; node {short(roomy[0].node)} has that free and is about to start it."
    freest = min(healthy, key=lambda node: load(node.total, node.available))
    freest_has = f"the freest node ({short(freest.node)}) has {_in_use(freest, shape.amounts)}"
    return f"Needs {demand}; {freest_has}. Starts when running work ends, or sooner with another node."


def _explain_group(shape: Shape, alive: Sequence[NodeInfo]) -> str:
    where = "its placement group" if shape.bundle < 0 else f"bundle {shape.bundle} of its placement group"
    demand = f"{in_words(shape.amounts)} in {where} {short(shape.group)}"
    bundles = [bundle for node in alive for bundle in bundles_for(node, shape)]
    if not bundles:
        return f"Needs {demand}, which is on no node that lives. Starts when it has been placed."
    lack = shortfall([bundle.total for bundle in bundles], shape.amounts, [f"bundle {bundle.index}" for bundle in bundles])
    if lack:
        return f"Needs {demand}; no bundle is that large. Lower the demand, or make a group with larger bundles."
    if any(fits(bundle.free, shape.amounts) for bundle in bundles):
        return f"Needs {demand}, which has that free and is about to start it."
    return f"Needs {demand}, where all of it is in use. Starts when work in the group ends."


def _explain_affinity(shape: Shape, nodes: Sequence[NodeInfo]) -> str:
    target = next((node for node in nodes if node.node == shape.node), None)
    name, demand = short(shape.node), in_words(shape.amounts)
    advice = "Name another node, or allow others with soft=True."
    if target is None or not target.alive:
        return f"Must run on node {name}, which is {'not in the cluster' if target is None else 'dead'}. {advice}"
    if not fits(target.total, shape.amounts):
        return f"Must run on node {name} and needs {shortfall([target.total], shape.amounts, [name])}. {advice}"
    if target.suspect:
        return f"Must run on node {name}, which has missed its heartbeats. Starts when it is heard of again. {advice}"
    if fits(target.available, shape.amounts):
        return f"Needs {demand} on node {name}, which has that free and is about to start it."
    return f"Needs {demand} on node {name}, which has {_in_use(target, shape.amounts)}. Starts when running work ends there."


def _in_use(node: NodeInfo, demand: Amounts) -> str:
    """How much of the resource that is short `node` has: "1 of num_cpus=8 free, and 3 requests wait there"."""
    name = next(name for name, units in demand.items() if node.available.get(name, 0) < units)
    free = number_in_words(max(node.available.get(name, 0), 0))
    waiting = queued(node)
    line = f", and {waiting} request{'s wait' if waiting > 1 else ' waits'} there" if waiting else ""
    return f"{free} of {in_words({name: node.total.get(name, 0)})} free{line}"
