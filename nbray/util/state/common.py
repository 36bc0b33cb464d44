"""What the State API returns: dicts whose keys are attributes too, so that every form in which Ray's was ever read works."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nbray.columns import COLUMNS


class Entry(dict[str, Any]):
    """One thing of the cluster. A column that was not asked for (`detail`) is None as an attribute, and no key."""

    KIND = ""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if any(column.name == name for column in COLUMNS.get(self.KIND, ())):
            return None
        raise AttributeError(f"{type(self).__name__} has no {name!r}, only {', '.join(self)}")

    def asdict(self) -> dict[str, Any]:
        return dict(self)


class TaskState(Entry):
    """A task, actor call or actor creation. `attempt_number` counts from 0, as in Ray (texts for people say
    "attempt 1" of it); times are ms since the epoch."""

    KIND = "tasks"


class ActorState(Entry):
    """An actor, dead ones included."""

    KIND = "actors"


class ObjectState(Entry):
    """One process's references to one object. `object_size` is in bytes, -1 while nobody knows it."""

    KIND = "objects"


class NodeState(Entry):
    """A node that is or was in the cluster."""

    KIND = "nodes"


class WorkerState(Entry):
    """A worker or driver process, dead ones included."""

    KIND = "workers"


class JobState(Entry):
    """A submitted job, or a driver that is or was attached."""

    KIND = "jobs"


class PlacementGroupState(Entry):
    KIND = "placement_groups"


class RuntimeEnvState(Entry):
    """A runtime environment in use on a node."""

    KIND = "runtime_envs"


class ClusterEventState(Entry):
    """A death that the cluster remembers."""

    KIND = "cluster_events"


ENTRIES: dict[str, type[Entry]] = {cls.KIND: cls for cls in Entry.__subclasses__()}


class Listing(list[Entry]):
    """The entries of an answer. `total` is how many there are; `problems` says who could not be asked and what is missing."""

    def __init__(self, entries: Iterable[Entry] = (), total: int = 0, problems: Iterable[str] = ()) -> None:
        super().__init__(entries)
        self.total = total
        self.problems = list(problems)
