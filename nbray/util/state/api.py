# ruff: noqa: A002 -- `id` is what Ray calls it, and programs say get_task(id=...)
"""The State API: lists, single things and summaries of what is in a cluster.

    from nbray.util.state import list_tasks
    for task in list_tasks(filters=[("state", "=", "RUNNING")], detail=True):
        print(task.name, task.worker_pid, task.call_site)

`filters` are (column, "=" or "!=", value), all of which must hold; texts are compared without regard to case. At most `limit`
entries come back, and a warning says how many there are when that is fewer than match. An answer that lacks what somebody did
not tell within `timeout` seconds raises RayStateApiException, unless `raise_on_missing_output=False`: then it warns.
`detail=True` adds columns. `address` asks another cluster than the one that this process is attached to.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from nbray.columns import ID_COLUMN, Filter, checked_filters
from nbray.exceptions import RayError
from nbray.util.state import summaries
from nbray.util.state.asking import Asker, asking
from nbray.util.state.common import (
    ActorState,
    ClusterEventState,
    Entry,
    JobState,
    Listing,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    TaskState,
    WorkerState,
)
from nbray.util.state.exception import RayStateApiException, ServerUnavailable
from nbray.util.state.listing import SOURCES, Query, listing

Filters = Sequence[Filter] | None
LIMIT = 100
TIMEOUT_S = 30
#: More than this of one kind in one answer is refused: it would not fit into one.
MOST = 10_000


def entries(
    kind: str,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: float = TIMEOUT_S,
    *,
    detail: bool = False,
    address: str | None = None,
) -> Listing:
    """The entries of a kind ("tasks", "actors" ...), with their `total` and `problems`; raises nothing about what is missing.

    Raises ValueError for filters and limits that make no sense, ServerUnavailable without a cluster.
    """
    if kind not in SOURCES:
        raise ValueError(f"there are no {kind!r} to list; there are {', '.join(SOURCES)}")
    if not 0 <= limit <= MOST:
        raise ValueError(f"limit={limit} is not between 0 and {MOST:,}; narrow the question with filters")
    query = Query(kind, checked_filters(kind, filters), limit, detail)
    found: Listing = _asked(address, timeout, lambda asker: listing(asker, query))
    return found


def _asked(address: str | None, timeout: float, question: Callable[[Asker], Any]) -> Any:
    try:
        with asking(address, timeout) as asker:
            return question(asker)
    except ServerUnavailable:
        raise
    except (RayError, ConnectionError) as error:
        raise RayStateApiException(str(error)) from error


def _list(kind: str, address: str | None, filters: Filters, limit: int, timeout: float, detail: bool, complete: bool) -> Listing:
    found = entries(kind, filters, limit, timeout, detail=detail, address=address)
    _judge(kind, found.problems, complete)
    if len(found) < found.total:
        warnings.warn(
            f"{len(found):,} of {found.total:,} {kind} are listed: raise `limit`, or narrow the question with `filters`",
            UserWarning,
            stacklevel=3,
        )
    return found


def _judge(kind: str, problems: list[str], complete: bool) -> None:
    """Raise or warn for what is missing."""
    if problems:
        said = f"Failed to retrieve all {kind} from the cluster: {'; '.join(problems)}."
        if complete:
            raise RayStateApiException(f"{said} To get what there is, set `raise_on_missing_output=False`.")
        warnings.warn(said, UserWarning, stacklevel=4)


def one(kind: str, id: str, timeout: float = TIMEOUT_S, address: str | None = None) -> Listing:
    """The entries of one id, in detail. A job has two ids, when it was submitted."""
    if kind == "jobs" and (submitted := entries(kind, [("submission_id", "=", id)], MOST, timeout, detail=True, address=address)):
        return submitted
    return entries(kind, [(ID_COLUMN[kind], "=", id)], MOST, timeout, detail=True, address=address)


def _get(kind: str, address: str | None, id: str, timeout: float) -> Any:
    found = one(kind, id, timeout, address)
    if not found:
        _judge(kind, found.problems, complete=True)
    return found[0] if found else None


# ------------------------------------------------------------------------------------------------------- lists


def list_actors(
    address: str | None = None,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: int = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[ActorState]:
    """Actors, dead ones included."""
    return _list("actors", address, filters, limit, timeout, detail, raise_on_missing_output)  # type: ignore[return-value]


def list_tasks(
    address: str | None = None,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: int = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[TaskState]:
    """Tasks of every job: first those that are not over, then those that are, the latest first."""
    return _list("tasks", address, filters, limit, timeout, detail, raise_on_missing_output)  # type: ignore[return-value]


def list_objects(
    address: str | None = None,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: int = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[ObjectState]:
    """Objects that some process refers to: one entry for each object and process."""
    return _list("objects", address, filters, limit, timeout, detail, raise_on_missing_output)  # type: ignore[return-value]


def list_nodes(
    address: str | None = None,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: int = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[NodeState]:
    """Nodes, dead ones included."""
    return _list("nodes", address, filters, limit, timeout, detail, raise_on_missing_output)  # type: ignore[return-value]


def list_workers(
    address: str | None = None,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: int = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[WorkerState]:
    """Worker and driver processes, the latest thousand dead ones of each node included."""
    return _list("workers", address, filters, limit, timeout, detail, raise_on_missing_output)  # type: ignore[return-value]


def list_jobs(
    address: str | None = None,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: int = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[JobState]:
    """Submitted jobs, and drivers that are or were attached."""
    return _list("jobs", address, filters, limit, timeout, detail, raise_on_missing_output)  # type: ignore[return-value]


def list_placement_groups(
    address: str | None = None,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: int = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[PlacementGroupState]:
    """Placement groups, the latest thousand removed ones included."""
    return _list("placement_groups", address, filters, limit, timeout, detail, raise_on_missing_output)  # type: ignore[return-value]


def list_runtime_envs(
    address: str | None = None,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: int = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[RuntimeEnvState]:
    """Runtime environments, by node: made, in the making, or failed with the `error`."""
    return _list("runtime_envs", address, filters, limit, timeout, detail, raise_on_missing_output)  # type: ignore[return-value]


def list_cluster_events(
    address: str | None = None,
    filters: Filters = None,
    limit: int = LIMIT,
    timeout: int = TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[ClusterEventState]:
    """Deaths of nodes, workers and actors that the cluster remembers."""
    return _list("cluster_events", address, filters, limit, timeout, detail, raise_on_missing_output)  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------------- one thing


def get_actor(id: str, address: str | None = None, timeout: int = TIMEOUT_S) -> ActorState | None:
    """The actor with this id (hex), in detail; None when there is none."""
    found: ActorState | None = _get("actors", address, id, timeout)
    return found


def get_task(id: Any, address: str | None = None, timeout: int = TIMEOUT_S) -> Any:
    """The task with this id (hex), or the one that makes an ObjectRef, in detail; None when there is none."""
    return _get("tasks", address, id if isinstance(id, str) else id.task_id().hex(), timeout)


def get_objects(id: str, address: str | None = None, timeout: int = TIMEOUT_S) -> list[Entry]:
    """Every reference to the object with this id (hex)."""
    found = one("objects", id, timeout, address)
    _judge("objects", found.problems, complete=not found)
    return found


def get_node(id: str, address: str | None = None, timeout: int = TIMEOUT_S) -> NodeState | None:
    found: NodeState | None = _get("nodes", address, id, timeout)
    return found


def get_worker(id: str, address: str | None = None, timeout: int = TIMEOUT_S) -> WorkerState | None:
    found: WorkerState | None = _get("workers", address, id, timeout)
    return found


def get_job(id: str, address: str | None = None, timeout: int = TIMEOUT_S) -> JobState | None:
    """The submitted job with this submission id, or the driver with this job id; None when there is none."""
    found: JobState | None = _get("jobs", address, id, timeout)
    return found


def get_placement_group(id: str, address: str | None = None, timeout: int = TIMEOUT_S) -> PlacementGroupState | None:
    found: PlacementGroupState | None = _get("placement_groups", address, id, timeout)
    return found


# ------------------------------------------------------------------------------------------------------- summaries


def summary(kind: str, timeout: float = TIMEOUT_S, address: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """The summary of "tasks", "actors" or "objects", and what is missing from it."""
    summarise = {"tasks": summaries.tasks, "actors": summaries.actors, "objects": summaries.objects}[kind]

    def question(asker: Asker) -> tuple[dict[str, Any], list[str]]:
        result, problems = summarise(asker)
        return result, [*asker.say_who(), *problems]

    found: tuple[dict[str, Any], list[str]] = _asked(address, timeout, question)
    return found


def _summarize(kind: str, address: str | None, timeout: float, complete: bool) -> dict[str, Any]:
    result, problems = summary(kind, timeout, address)
    _judge(kind, problems, complete)
    return {"cluster": result}


def summarize_tasks(address: str | None = None, timeout: int = TIMEOUT_S, raise_on_missing_output: bool = True) -> dict[str, Any]:
    """{"cluster": {"summary": {name: {"type", "state_counts"}}, "total_tasks", "total_actor_tasks" ...}}."""
    return _summarize("tasks", address, timeout, raise_on_missing_output)


def summarize_actors(address: str | None = None, timeout: int = TIMEOUT_S, raise_on_missing_output: bool = True) -> dict[str, Any]:
    """{"cluster": {"summary": {class: {"state_counts"}}, "total_actors"}}."""
    return _summarize("actors", address, timeout, raise_on_missing_output)


def summarize_objects(address: str | None = None, timeout: int = TIMEOUT_S, raise_on_missing_output: bool = True) -> dict[str, Any]:
    """{"cluster": {"summary": {call site: {"total_objects", "total_size_mb", "ref_type_counts" ...}}, "total_objects" ...}}."""
    return _summarize("objects", address, timeout, raise_on_missing_output)
