"""What is built on tasks and actors: pools, queues, executors, collectives, metrics. As Ray's `ray.util`.

Names and modules are imported at their first use, so that `import nbray` and a worker's start pay for none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not at its first use: the function has the name of its module, which would take its place here once it is imported.
from nbray.util.placement_group import placement_group

if TYPE_CHECKING:
    from nbray.util.actor_pool import ActorPool
    from nbray.util.helpers import as_completed, map_unordered
    from nbray.util.placement_group import (
        get_current_placement_group,
        get_placement_group,
        placement_group_table,
        remove_placement_group,
    )

#: Where each public name lives.
_HOMES = {
    "ActorPool": "nbray.util.actor_pool",
    "as_completed": "nbray.util.helpers",
    "get_current_placement_group": "nbray.util.placement_group",
    "get_placement_group": "nbray.util.placement_group",
    "map_unordered": "nbray.util.helpers",
    "placement_group_table": "nbray.util.placement_group",
    "remove_placement_group": "nbray.util.placement_group",
}
_MODULES = (
    "actor_pool",
    "dask",
    "futures",
    "helpers",
    "joblib",
    "metrics",
    "multiprocessing",
    "queue",
    "scheduling_strategies",
    "state",
)

__all__ = [
    "ActorPool",
    "as_completed",
    "get_current_placement_group",
    "get_placement_group",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    if name in _MODULES:
        return importlib.import_module(f"nbray.util.{name}")
    raise AttributeError(f"module 'nbray.util' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
