"""What is built on tasks and actors: pools, queues, executors, collectives, metrics. As Ray's `ray.util`.

Names and modules are imported at their first use, so that `import nbray` and a worker's start pay for none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbray.absent import missing

# Not at its first use: the function has the name of its module, which would take its place here once it is imported.
from nbray.util.placement_group import placement_group

if TYPE_CHECKING:
    from nbray.experimental.tqdm_ray import tqdm
    from nbray.util.actor_pool import ActorPool
    from nbray.util.check_serialize import inspect_serializability
    from nbray.util.debug import disable_log_once_globally, enable_periodic_logging, log_once
    from nbray.util.helpers import as_completed, map_unordered
    from nbray.util.names import get_node_ip_address, list_named_actors
    from nbray.util.placement_group import (
        get_current_placement_group,
        get_placement_group,
        placement_group_table,
        remove_placement_group,
    )
    from nbray.util.serialization import deregister_serializer, register_serializer

#: Where each public name lives.
_HOMES = {
    "ActorPool": "nbray.util.actor_pool",
    "as_completed": "nbray.util.helpers",
    "deregister_serializer": "nbray.util.serialization",
    "disable_log_once_globally": "nbray.util.debug",
    "enable_periodic_logging": "nbray.util.debug",
    "get_current_placement_group": "nbray.util.placement_group",
    "get_node_ip_address": "nbray.util.names",
    "get_placement_group": "nbray.util.placement_group",
    "inspect_serializability": "nbray.util.check_serialize",
    "list_named_actors": "nbray.util.names",
    "log_once": "nbray.util.debug",
    "map_unordered": "nbray.util.helpers",
    "placement_group_table": "nbray.util.placement_group",
    "register_serializer": "nbray.util.serialization",
    "remove_placement_group": "nbray.util.placement_group",
    "tqdm": "nbray.experimental.tqdm_ray",
}
_MODULES = (
    "accelerators",
    "actor_pool",
    "annotations",
    "check_serialize",
    "collective",
    "dask",
    "debug",
    "futures",
    "helpers",
    "iter",
    "joblib",
    "metrics",
    "multiprocessing",
    "names",
    "pdb",
    "queue",
    "rpdb",
    "scheduling_strategies",
    "serialization",
    "state",
)

__all__ = [
    "ActorPool",
    "as_completed",
    "deregister_serializer",
    "disable_log_once_globally",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
    "tqdm",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    if name in _MODULES:
        return importlib.import_module(f"nbray.util.{name}")
    raise missing(__name__, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
