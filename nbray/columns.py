"""What the State API tells of each kind of thing, in Ray's names, and which of it can be filtered by. Pure.

Whoever has the facts filters, counts and cuts them before it answers, so that a million queued tasks travel as a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Filter = tuple[str, str, Any]  #: (column, "=" or "!=", value)


class Column(NamedTuple):
    """`detail`: told only when details are asked for."""

    name: str
    filterable: bool = True
    detail: bool = False


def _columns(plain: str, detailed: str = "", unfilterable: str = "") -> tuple[Column, ...]:
    fixed = set(unfilterable.split())
    return tuple(
        [Column(name, name not in fixed) for name in plain.split()]
        + [Column(name, name not in fixed, detail=True) for name in detailed.split()]
    )


#: By the name of the kind, as `nbray list` spells it.
COLUMNS: dict[str, tuple[Column, ...]] = {
    "tasks": _columns(
        "task_id attempt_number name state job_id actor_id type func_or_class_name parent_task_id node_id worker_id worker_pid "
        "error_type",
        "language required_resources runtime_env_info placement_group_id creation_time_ms start_time_ms end_time_ms cpu_time_ms "
        "error_message call_site cell",
        "required_resources runtime_env_info creation_time_ms start_time_ms end_time_ms cpu_time_ms error_message call_site",
    ),
    "actors": _columns(
        "actor_id class_name state job_id name node_id pid ray_namespace",
        "serialized_runtime_env required_resources death_cause is_detached placement_group_id num_restarts call_site waiting_for",
        "serialized_runtime_env required_resources death_cause is_detached num_restarts call_site waiting_for",
    ),
    "objects": _columns("object_id object_size task_status attempt_number reference_type call_site type pid ip"),
    "nodes": _columns(
        "node_id node_ip is_head_node state state_message node_name resources_total labels",
        "resources_available object_store_bytes object_store_used pid",
        "state_message resources_total labels resources_available object_store_bytes object_store_used",
    ),
    "workers": _columns(
        "worker_id is_alive worker_type exit_type node_id ip pid",
        "exit_detail state actor_id job_id",
        "exit_detail",
    ),
    "jobs": _columns(
        "job_id submission_id entrypoint type status message error_type driver_info",
        "metadata runtime_env start_time end_time driver_node_id driver_exit_code",
        "message error_type driver_info entrypoint metadata runtime_env start_time end_time",
    ),
    "placement_groups": _columns(
        "placement_group_id name creator_job_id state",
        "bundles is_detached strategy ray_namespace waiting_for",
        "bundles waiting_for",
    ),
    "runtime_envs": _columns("runtime_env success node_id", "ref_cnt error state", "ref_cnt"),
    "cluster_events": _columns("severity time source_type message event_id", "custom_fields", "time message custom_fields"),
}
#: What a task is called that runs: as it is, or waiting in `get` or `wait`.
RUNNING = ("RUNNING", "RUNNING_IN_RAY_GET", "RUNNING_IN_RAY_WAIT")
#: What names one thing of each kind.
ID_COLUMN = {
    "tasks": "task_id",
    "actors": "actor_id",
    "objects": "object_id",
    "nodes": "node_id",
    "workers": "worker_id",
    "jobs": "job_id",
    "placement_groups": "placement_group_id",
}


def told(kind: str, *, detail: bool) -> list[str]:
    """The columns of an answer."""
    return [column.name for column in COLUMNS[kind] if detail or not column.detail]


def checked_filters(kind: str, filters: Sequence[Any] | None) -> list[Filter]:
    """`filters` as they can be sent. Raises ValueError for what is no filter of this kind."""
    known = {column.name: column for column in COLUMNS[kind]}
    good: list[Filter] = []
    for each in filters or ():
        if isinstance(each, str) or len(each) != 3:
            raise ValueError(f"a filter is (column, '=' or '!=', value), not {each!r}")
        name, relation, value = each
        name = str(name).lower()
        if relation not in ("=", "!="):
            raise ValueError(f"Unsupported filter predicate {relation!r} in {each!r}. Available predicates: =, !=.")
        if name not in known or not known[name].filterable:
            can = ", ".join(column.name for column in COLUMNS[kind] if column.filterable)
            raise ValueError(f"The given filter column {name} is not supported for {kind}. Supported filter columns: {can}")
        if (kind, name) == ("tasks", "state") and str(value).upper() == RUNNING[0]:
            value = list(RUNNING)  # in Ray's lists a task that waits in `get` is RUNNING, too
        good.append((name, relation, value))
    return good


def matches(filters: Sequence[Filter], value_of: Callable[[str], Any]) -> bool:
    """Whether a thing passes. `value_of` gives its value in a column; it is asked for no more columns than needed."""
    return all(_equal(value_of(name), wanted) == (relation == "=") for name, relation, wanted in filters)


def _equal(value: Any, wanted: Any) -> bool:
    """As Ray compares: texts without regard to case, and a text as the number or truth value that it spells."""
    if isinstance(wanted, list):  # one of several: no filter that a person writes, but what becomes of one
        return any(_equal(value, each) for each in wanted)
    if isinstance(wanted, str) and not isinstance(value, str) and value is not None:
        if isinstance(value, bool):
            return wanted.lower() in (("true", "1") if value else ("false", "0"))
        return str(value) == wanted.strip()
    if isinstance(wanted, str) and isinstance(value, str):
        return value.lower() == wanted.lower()
    return bool(value == wanted)
