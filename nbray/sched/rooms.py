"""What of a node work of one shape may draw from: the node's own amounts, or the bundles of its placement group. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from nbray.sched.labels import best_rank
from nbray.sched.resources import fits, take
from nbray.wire.messages import Amounts, BundleInfo, NodeInfo, NodeNews, Shape


def bundles_for(node: NodeInfo, shape: Shape) -> Iterator[BundleInfo]:
    """The bundles on the node that `shape` may use."""
    for bundle in node.bundles:
        if bundle.group == shape.group and shape.bundle in (-1, bundle.index):
            yield bundle


def _totals(node: NodeInfo, shape: Shape) -> Iterator[Amounts]:
    if shape.group:
        yield from (bundle.total for bundle in bundles_for(node, shape))
    else:
        yield node.total


def _free(node: NodeInfo, shape: Shape) -> Iterator[Amounts]:
    if shape.group:
        yield from (bundle.free for bundle in bundles_for(node, shape))
    else:
        yield node.available


def could_hold(node: NodeInfo, shape: Shape) -> bool:
    """Whether the node has enough for `shape` in all, and the labels that it asks for."""
    return any(fits(total, shape.amounts) for total in _totals(node, shape)) and has_labels(node, shape)


def has_room(node: NodeInfo, shape: Shape) -> bool:
    """Whether enough of it is free."""
    return any(fits(free, shape.amounts) for free in _free(node, shape)) and has_labels(node, shape)


def has_labels(node: NodeInfo, shape: Shape) -> bool:
    return not shape.selectors or best_rank(node.labels, shape.selectors) is not None


def without(node: NodeInfo, shape: Shape, amounts: Amounts) -> NodeInfo:
    """The node as it is once `amounts` of what `shape` may use are taken, which may be more than there was."""
    if not shape.group:
        return msgspec.structs.replace(node, available=_less(node.available, amounts))
    mine = list(bundles_for(node, shape))
    if not mine:
        return node
    chosen = next((bundle for bundle in mine if fits(bundle.free, amounts)), mine[0])
    smaller = msgspec.structs.replace(chosen, free=_less(chosen.free, amounts))
    return msgspec.structs.replace(node, bundles=[smaller if bundle is chosen else bundle for bundle in node.bundles])


def with_news(node: NodeInfo, news: NodeNews) -> NodeInfo:
    """The node as it is now."""
    return msgspec.structs.replace(
        node, available=news.available, store_used=news.store_used, queued=news.queued, placements=news.placements,
        bundles=news.bundles, suspect=news.suspect,
    )  # fmt: skip


def _less(free: Amounts, amounts: Amounts) -> Amounts:
    left = dict(free)
    take(left, amounts, force=True)
    return left
