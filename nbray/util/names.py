"""What is called what in the cluster: named actors, and this node's address."""

from __future__ import annotations

from typing import Any

from nbray import connection, session
from nbray.wire.addresses import SOMEWHERE, facing


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Names of the living named actors of this namespace; of all of them as {"name", "namespace"} with `all_namespaces`."""
    engine = connection.engine()
    found = engine.ask("named_actors", namespace=engine.facts().namespace, all_namespaces=all_namespaces)
    return found if all_namespaces else [entry["name"] for entry in found]


def get_node_ip_address(address: str = SOMEWHERE) -> str:
    """The address of this node: as the cluster knows it, or outside of one the address that faces `address`."""
    engine = session.engine
    if engine is not None:
        here = engine.facts().node.hex()
        for node in engine.nodes():
            if node["NodeID"] == here:
                return str(node["NodeManagerAddress"])
    return facing(address)
