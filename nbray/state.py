"""`ray.state`, where older Ray had what `ray.util.state` has today, and `actors()`."""

from __future__ import annotations

from typing import Any

from nbray.connection import attached
from nbray.util.state import list_actors, list_jobs, list_nodes, list_objects, list_tasks, list_workers
from nbray.util.state.api import MOST, entries


def actors(actor_id: str | None = None) -> dict[str, Any]:
    """Older Ray's form: {actor id: facts}, or the facts of one actor ({} when there is none)."""
    attached("state.actors")
    known = {entry["actor_id"]: dict(entry) for entry in entries("actors", limit=MOST, detail=True)}
    return known if actor_id is None else known.get(actor_id, {})


__all__ = ["actors", "list_actors", "list_jobs", "list_nodes", "list_objects", "list_tasks", "list_workers"]
