"""Questions about the cluster, as `ray.state` and `ray.experimental.state.api` answered them.

    from nbray.experimental.state.api import list_actors
    for actor in list_actors(filters=[("state", "=", "ALIVE")]): ...

Entries are dicts whose keys are attributes too, so that both Ray's older and its newer form read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbray.connection import attached

Filter = tuple[str, str, Any]  #: (key, "=" or "!=", value)


class Entry(dict[str, Any]):
    """One actor, node, job, task or object."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r} here, only {', '.join(self)}") from None


def list_actors(*, filters: Sequence[Filter] | None = None, limit: int = 100, detail: bool = False) -> list[Entry]:
    """Actors, dead ones included: actor_id, class_name, state, name, pid, node_id, job_id ... `detail` is always there."""
    del detail
    return _chosen(attached("list_actors").ask("actors"), filters, limit)


def list_tasks(*, filters: Sequence[Filter] | None = None, limit: int = 100, detail: bool = False) -> list[Entry]:
    """Tasks of this job that have ended, as the trace has them."""
    del detail
    return _chosen([r for r in attached("list_tasks").trace() if r["kind"] == "task"], filters, limit)


def list_nodes(*, filters: Sequence[Filter] | None = None, limit: int = 100, detail: bool = False) -> list[Entry]:
    """Nodes: node_id, state (ALIVE or DEAD), node_name, resources_total."""
    del detail
    found = [
        {
            "node_id": node["NodeID"],
            "state": "ALIVE" if node["Alive"] else "DEAD",
            "node_name": node["NodeManagerHostname"],
            "resources_total": node["Resources"],
        }
        for node in attached("list_nodes").nodes()
    ]
    return _chosen(found, filters, limit)


def list_jobs(*, filters: Sequence[Filter] | None = None, limit: int = 100, detail: bool = False) -> list[Entry]:
    """Drivers that are or were attached."""
    del detail
    return _chosen(attached("list_jobs").ask("jobs"), filters, limit)


def actors(actor_id: str | None = None) -> dict[str, Any]:
    """Older Ray's form: {actor id: facts}, or the facts of one actor ({} when there is none)."""
    known = {entry["actor_id"]: dict(entry) for entry in list_actors(limit=1_000_000)}
    return known if actor_id is None else known.get(actor_id, {})


def _chosen(found: Sequence[dict[str, Any]], filters: Sequence[Filter] | None, limit: int) -> list[Entry]:
    if limit < 0:
        raise ValueError(f"limit={limit} is negative")
    kept = [Entry(one) for one in found]
    for key, relation, value in filters or ():
        if relation not in ("=", "!="):
            raise ValueError(f"a filter is (key, '=' or '!=', value), not {(key, relation, value)!r}")
        kept = [e for e in kept if (str(e.get(key, "")).lower() == str(value).lower()) == (relation == "=")]
    return kept[:limit]
