"""Placement groups: resources set aside on one or several nodes, all of them or none.

pg = nbray.util.placement_group([{"CPU": 1}, {"CPU": 1}], strategy="SPREAD")
nbray.get(pg.ready())
f.options(scheduling_strategy=PlacementGroupSchedulingStrategy(pg, 0)).remote()
nbray.util.remove_placement_group(pg)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from nbray import connection, session, shown
from nbray.connection import attached
from nbray.engines.port import GroupOptions
from nbray.exceptions import TaskPlacementGroupRemoved
from nbray.refs import ObjectRef
from nbray.sched.resources import to_amounts, to_floats
from nbray.strategies import selector

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroup:
    """A handle of a placement group; equal to every other handle of it. Pass it anywhere."""

    def __init__(self, key: bytes, bundle_cache: list[dict[str, float]] | None = None) -> None:
        """`key` is the group's id as bytes; empty for no group."""
        self._key = key
        self.bundle_cache = bundle_cache
        self._is_confirmed = not key  #: whoever else is told of it may use it at once: the head has heard of it

    @staticmethod
    def empty() -> PlacementGroup:
        """A handle of no group at all."""
        return PlacementGroup(b"", [])

    @property
    def id(self) -> bytes:
        self._confirm()
        return self._key

    @property
    def key(self) -> bytes:
        return self.id

    def _confirm(self) -> None:
        engine = session.engine
        if engine is not None and not self._is_confirmed:
            engine.groups.confirm(self._key)
            self._is_confirmed = True

    def __reduce__(self) -> tuple[Any, ...]:
        self._confirm()
        return PlacementGroup, (self._key, self.bundle_cache)

    @property
    def is_empty(self) -> bool:
        return not self._key

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A reference whose value is this handle, once every bundle has its place. Raises TaskPlacementGroupRemoved, when it is
        fetched, if the group is removed."""
        engine = connection.engine()
        if self.is_empty:
            return engine.put(self)
        value = PlacementGroup(self._key, self.bundle_cache)
        value._is_confirmed = True  # by the time that somebody has it
        return engine.groups.ready(self._key, value)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait until every bundle has its place; False if that takes longer. Raises TaskPlacementGroupRemoved if it is removed."""
        engine = connection.engine()
        if engine.groups.is_placed(self._key):
            return True
        ref = self.ready()
        ready, _ = engine.wait([ref], 1, max(0.0, float(timeout_seconds)), True)
        if not ready:
            return False
        engine.get([ref], None)
        return True

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What each bundle has: [{"CPU": 1.0}, ...]."""
        if self.bundle_cache is None:
            told = attached("util.placement_group_table").ask("groups", group=self._key)
            if not told:
                raise TaskPlacementGroupRemoved(f"This cluster has no placement group {self._key.hex()}.")
            self.bundle_cache = [to_floats(bundle) for bundle in told[0]["bundles"]]
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        return len(self.bundle_specs)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> shown.Bundle:
        """What a notebook shows: whether it is placed, and its bundles."""
        del include, exclude
        if self.is_empty:
            return shown.bundle(repr(self), None, ("no group",))
        known = None if session.engine is None else session.engine.looks.group(self._key)
        return shown.of_group(repr(self), known, self.bundle_cache or (known or {}).get("bundles"))

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, PlacementGroup) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"PlacementGroup({self._key.hex()})"


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
) -> PlacementGroup:
    """Set resources aside, one bundle for each dict. Returns at once; `ready()` and `wait()` tell when all have their place.

    PACK: on few nodes; SPREAD: on many; STRICT_PACK: on one; STRICT_SPREAD: each on its own. A group ends with its job, unless
    lifetime="detached". `bundle_label_selector` has one selector per bundle. Raises ValueError for what makes no sense, and when a
    group in this namespace has the name already.
    """
    strategy = "PACK" if strategy is None else strategy
    if strategy not in STRATEGIES:
        raise ValueError(f"Invalid placement group strategy {strategy}. Supported strategies are: {', '.join(STRATEGIES)}.")
    if lifetime not in (None, "detached"):
        raise ValueError(f"Placement group `lifetime` argument must be either `None` or 'detached'. Got {lifetime}.")
    if not isinstance(name, str):
        raise TypeError(f"the name of a placement group is a str, not {type(name)}")
    target = b""
    if _soft_target_node_id:
        if strategy != "STRICT_PACK":
            raise ValueError(f"_soft_target_node_id currently only works with STRICT_PACK but got {strategy}")
        target = _node(_soft_target_node_id)
    amounts = _checked(bundles)
    selectors = _selectors(bundle_label_selector, len(amounts))
    options = GroupOptions(amounts, strategy, name, lifetime == "detached", selectors, target)
    key = connection.engine().groups.create(options)
    return PlacementGroup(key, [{resource: float(number) for resource, number in bundle.items()} for bundle in bundles])


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give a group's resources back: what runs in it is ended. Does nothing to a group that is gone."""
    if not isinstance(placement_group, PlacementGroup):
        raise TypeError(f"remove_placement_group() takes a placement group, not {placement_group!r:.100}")
    if not placement_group.is_empty:
        attached("util.remove_placement_group").groups.remove(placement_group._key)


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of this namespace with that name. Raises ValueError when there is none."""
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    engine = connection.engine()
    key = engine.ask("named_group", name=placement_group_name, namespace=engine.facts().namespace)
    if key is None:
        raise ValueError(
            f"Failed to look up placement group with name: {placement_group_name}. No group in namespace "
            f"{engine.facts().namespace!r} has that name, or it was removed."
        )
    return PlacementGroup(key)


def get_current_placement_group() -> PlacementGroup | None:
    """The group that the calling task or actor runs in; None for a driver, and outside of groups."""
    engine = session.engine
    group = b"" if engine is None else engine.facts().group
    return PlacementGroup(group) if group else None


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """What the cluster knows of one group; {} if nothing. Without a group: of all, by id.

    States are PENDING, CREATED, RESCHEDULING (a node died; its bundles are placed anew) and REMOVED. `why` says what it waits for.
    """
    engine = attached("util.placement_group_table")
    if placement_group is not None:
        told = engine.ask("groups", group=placement_group._key)
        return _row(told[0]) if told else {}
    return {told["group"].hex(): _row(told) for told in engine.ask("groups")}


def _row(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "placement_group_id": told["group"].hex(),
        "name": told["name"],
        "bundles": {index: to_floats(bundle) for index, bundle in enumerate(told["bundles"])},
        "bundles_to_node_id": dict(enumerate(told["nodes"])),
        "strategy": told["strategy"],
        "state": told["state"],
        "why": told["why"],
    }


def _checked(bundles: object) -> list[dict[str, int]]:
    """Amounts of the bundles. Raises ValueError."""
    form = 'For example: `[{"CPU": 1.0}, {"GPU": 1.0}]`.'
    if not isinstance(bundles, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(bundles)}.")
    if not bundles:
        raise ValueError(f"Bundles must be a non-empty list of resource dictionaries. {form} Got empty list instead.")
    for bundle in bundles:
        if not isinstance(bundle, dict) or not all(isinstance(k, str) and isinstance(v, Real) for k, v in bundle.items()):
            raise ValueError(f"Bundles must be a non-empty list of resource dictionaries. {form}")
        if not any(bundle.values()):
            raise ValueError(f"Bundles cannot be an empty dictionary or resources with only 0 values. Bundles: {bundles}")
        if "object_store_memory" in bundle:
            warnings.warn(
                "'object_store_memory' in a bundle reserves no room in the object store; leave it out",
                DeprecationWarning,
                stacklevel=3,
            )
    return [to_amounts(bundle) for bundle in bundles]


def _selectors(given: Sequence[Mapping[str, str]] | None, bundles: int) -> list[list[tuple[str, str]]]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise ValueError(f"Placement group bundle_label_selector must be a list, got {type(given)}.")
    if given and len(given) != bundles:
        raise ValueError(
            f"Invalid bundle label selector {given}. The length of `bundle_label_selector` should equal the length of `bundles`."
        )
    form = 'For example: `[{"ray.io/market_type": "spot"}, {"ray.io/accelerator-type": "A100"}]`.'
    for one in given:
        if not isinstance(one, dict) or not all(isinstance(word, str) for pair in one.items() for word in pair):
            raise ValueError(f"Bundle label selector must be a list of string dictionary label selectors. {form}")
    try:
        return [selector(one) for one in given]
    except ValueError as error:
        raise ValueError(f"Invalid label selector provided in bundle_label_selector list. Detailed error: '{error}'") from None


def _node(given: str) -> bytes:
    try:
        return bytes.fromhex(given)
    except (TypeError, ValueError):
        raise ValueError(f"Invalid hex ID of _soft_target_node_id, got {given}") from None
