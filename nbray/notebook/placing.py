"""`--on WHERE`: an actor, a node or a custom resource, found by what the user calls it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from IPython.core.error import UsageError

from nbray.actors import ActorHandle
from nbray.engines.port import Engine
from nbray.strategies import NodeAffinitySchedulingStrategy

SHARE = 0.001  #: of a custom resource: naming it places the cell, and hardly uses it up
NODE_ID_LETTERS = 4  #: at least this many of a node's id


class Place(NamedTuple):
    """Where the tasks of a cell go. At most one field is set."""

    actor: ActorHandle | None = None
    node: NodeAffinitySchedulingStrategy | None = None
    resource: str | None = None

    def options(self) -> dict[str, Any]:
        """As task options, resources left out."""
        return {} if self.node is None else {"scheduling_strategy": self.node}


def find_place(where: str, namespace: Mapping[str, Any], engine: Engine) -> Place:
    """What `where` means: a variable that holds an actor, a named actor, a node's id or host, a resource, in this order.

    Raises UsageError that lists what there is.
    """
    value = namespace.get(where)
    if isinstance(value, ActorHandle):
        return Place(actor=value)
    try:
        return Place(actor=ActorHandle(engine, engine.find_actor(where, None)))
    except ValueError:  # no actor of that name
        pass
    alive = [node for node in engine.nodes() if node.get("Alive", True)]
    if len(where) >= NODE_ID_LETTERS:
        for node in alive:
            if str(node["NodeID"]).startswith(where.lower()):
                return Place(node=NodeAffinitySchedulingStrategy(str(node["NodeID"]), soft=False))
    for node in alive:
        if node.get("NodeManagerHostname") == where:
            return Place(node=NodeAffinitySchedulingStrategy(str(node["NodeID"]), soft=False))
    resources = {name for node in alive for name in node.get("Resources", {})}
    if where in resources - {"CPU", "GPU", "memory", "object_store_memory"}:
        return Place(resource=where)
    raise UsageError(unknown_place(where, namespace, alive, resources))


def unknown_place(where: str, namespace: Mapping[str, Any], alive: list[dict[str, Any]], resources: set[str]) -> str:
    actors = [name for name, value in namespace.items() if isinstance(value, ActorHandle) and not name.startswith("_")]
    hosts = [str(node.get("NodeManagerHostname")) for node in alive]
    nodes = [f"{str(node['NodeID'])[:8]} ({host})" for node, host in zip(alive, hosts, strict=True)]
    custom = sorted(r for r in resources - {"CPU", "GPU", "memory", "object_store_memory"} if not r.startswith("node:"))
    near = difflib.get_close_matches(where, [*actors, *hosts, *custom], n=1)
    hint = f"; did you mean {near[0]}" if near else ""
    return (
        f"--on {where}: no actor, node or resource is called that{hint}. "
        f"Actors here: {', '.join(actors) or 'none'}. Nodes: {', '.join(nodes) or 'none'}. "
        f"Resources: {', '.join(custom) or 'none'}."
    )
