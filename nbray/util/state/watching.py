"""The one way to look at a whole cluster: what the side panel, the Cluster widget and `%nbray status` show comes from here.

Four questions, whatever runs there: what the head knows of nodes and of actors, the nodes' vitals, and their processes' pulses.
"""

from __future__ import annotations

import time
from typing import Any

from nbray.cards.cluster import Facts, Watch
from nbray.util.state.asking import SHARE, Asker, Source

#: A process that holds the interpreter in C code does not answer; the others are not kept waiting for long.
PATIENCE_S = 1.0


class Lookout:
    """Looks at a cluster again and again; one thread at a time."""

    def __init__(self) -> None:
        self._watch = Watch()

    def look(self, source: Source) -> dict[str, Any]:
        """A snapshot (cards/cluster.py). Raises ConnectionError or RayError when the head does not answer."""
        asker = Asker(source, PATIENCE_S / SHARE)
        nodes, actors = asker.nodes(), asker.head("actors")
        vitals = {node.hex(): told for node, _, told in asker.said_by_nodes("vitals")}
        pulses = {process.hex(): told for process, told in asker.each_process("pulse").items()}
        facts = Facts(nodes, vitals, pulses, actors, asker.say_who())
        return self._watch.take(facts, time.monotonic(), time.time_ns())


def scale(source: Source, node: str, cpus: int) -> dict[str, Any]:
    """Give the node with that id (hex, or its beginning; "": the only one that has CPUs) so many CPUs: {"cpus", "was", "node"}.

    Raises ValueError when no node, or more than one, is meant, or the node refuses.
    """
    running = [each for each in source.ask("nodes") if each["alive"] and each["total"].get("CPU")]
    meant = [each for each in running if each["node_id"].startswith(node)]
    if len(meant) != 1:
        names = ", ".join(f"{each['node_id'][:4]} on {each['host']}" for each in running)
        asked = f"{len(meant)} nodes begin with {node!r}" if node else f"this cluster has {len(running)} nodes"
        raise ValueError(f"{asked}; say which one is meant: {names}")
    (one,) = meant
    said = source.ask("everywhere", of="scale", arguments={"cpus": cpus}, node=one["node_id"])
    for _, _, why in said["silent"]:
        raise ValueError(f"node {one['node_id'][:4]} on {one['host']}: {why}")
    (_, _, result), *_ = said["answers"]
    return {**result, "node": one["node_id"]}
