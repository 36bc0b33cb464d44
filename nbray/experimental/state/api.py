"""`ray.experimental.state.api`, where older Ray had its State API."""

from __future__ import annotations

from nbray.state import list_actors, list_jobs, list_nodes, list_tasks

__all__ = ["list_actors", "list_jobs", "list_nodes", "list_tasks"]
