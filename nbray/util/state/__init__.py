"""`ray.util.state`: what is in a cluster, asked of those who know. See api.py."""

from nbray.util.state.api import (
    get_actor,
    get_job,
    get_node,
    get_objects,
    get_task,
    get_worker,
    list_actors,
    list_cluster_events,
    list_jobs,
    list_nodes,
    list_objects,
    list_runtime_envs,
    list_tasks,
    list_workers,
    summarize_actors,
    summarize_objects,
    summarize_tasks,
)
from nbray.util.state.exception import RayStateApiException
from nbray.util.state.logs import get_log, list_logs

__all__ = [
    "RayStateApiException",
    "get_actor",
    "get_job",
    "get_log",
    "get_node",
    "get_objects",
    "get_task",
    "get_worker",
    "list_actors",
    "list_cluster_events",
    "list_jobs",
    "list_logs",
    "list_nodes",
    "list_objects",
    "list_runtime_envs",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]
