"""Where work may go, as a person says it: scheduling strategies and label selectors, and what the engine port makes of them.

`nbray.util.scheduling_strategies` has the classes under Ray's path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbray.engines.port import INHERITED, GroupChoice
from nbray.sched import labels
from nbray.sched.resources import fits, to_amounts, to_floats

Selector = list[tuple[str, str]]


class PlacementGroupSchedulingStrategy:
    """Run in a bundle of `placement_group`: the one with that index, or any for -1. None: in no group, whatever the parent's.

    `placement_group_capture_child_tasks`: what the task or actor submits goes to the same group. None: as where it is submitted.
    """

    def __init__(
        self,
        placement_group: Any,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks

    def __repr__(self) -> str:
        return f"PlacementGroupSchedulingStrategy({self.placement_group!r}, {self.placement_group_bundle_index})"


class NodeAffinitySchedulingStrategy:
    """Run on the node `node_id` (hex). `soft`: elsewhere is allowed when it cannot be there. Raises ValueError for no node id."""

    def __init__(self, node_id: str, soft: bool) -> None:
        self.node_id = node_id if isinstance(node_id, str) else node_id.hex()
        self.soft = soft
        try:
            self.node = bytes.fromhex(self.node_id)
        except ValueError:
            self.node = b""
        if len(self.node) != 8 or not any(self.node):
            raise ValueError(
                f"Invalid node_id '{self.node_id}'. Node ID must be a valid hex string, and it is no node id. To get a list of all "
                "nodes and their IDs in your cluster, use nbray.nodes(): 'NodeID'."
            )

    def __repr__(self) -> str:
        return f"NodeAffinitySchedulingStrategy({self.node_id!r}, soft={self.soft})"


class _Among:
    """Conditions that name values. Raises ValueError for none, and for what is no label's value."""

    def __init__(self, *values: str) -> None:
        name = type(self).__name__
        if not values:
            raise ValueError(
                f'The variadic parameter of the {name} operator must be a non-empty tuple: e.g. {name}("value1", "value2").'
            )
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise ValueError(
                    f'Type of value in position {index} for the {name} operator must be str (e.g. {name}("value1", "value2")) but '
                    f"got {value} of type {type(value)}."
                )
            labels.check_value(value)
        self.values = list(values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.values))})"


class In(_Among):
    """The label has one of these values."""


class NotIn(_Among):
    """The label has none of these values, or is not there."""


class Exists:
    """The label is there."""


class DoesNotExist:
    """The label is not there."""


Expression = In | NotIn | Exists | DoesNotExist


class NodeLabelSchedulingStrategy:
    """Run on a node with labels that meet all of `hard`, and if such a one can be had all of `soft`."""

    def __init__(self, hard: Mapping[str, Expression] | None, *, soft: Mapping[str, Expression] | None = None) -> None:
        self.hard, self.soft = _conditions(hard, "hard"), _conditions(soft, "soft")
        if not (self.hard or self.soft):
            raise ValueError("The `hard` and `soft` parameter of NodeLabelSchedulingStrategy cannot both be empty.")

    @property
    def selectors(self) -> list[Selector]:
        return [[*self.hard, *self.soft], self.hard] if self.soft else [self.hard]


def _conditions(given: Mapping[str, Expression] | None, param: str) -> Selector:
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise ValueError(f'The {param} parameter must be a map (e.g. {{"key1": In("value1")}}) but got type {type(given)}.')
    return [(_key(key, param), _condition(key, value, param)) for key, value in given.items()]


def _key(key: object, param: str) -> str:
    if not isinstance(key, str):
        raise ValueError(
            f'The map key of the {param} parameter must be of type str (e.g. {{"key1": In("value1")}}) but got {key} of type '
            f"{type(key)}."
        )
    return labels.check_key(key)


def _condition(key: object, value: object, param: str) -> str:
    match value:
        case In(values=values):
            return f"in({', '.join(values)})"
        case NotIn(values=values):
            return f"!in({', '.join(values)})"
        case Exists():
            return "exists()"
        case DoesNotExist():
            return "!exists()"
    raise ValueError(
        f"The map value for key {key} of the {param} parameter must be one of the `In`, `NotIn`, `Exists` or `DoesNotExist` "
        f'operator (e.g. {{"key1": In("value1")}}) but got {value} of type {type(value)}.'
    )


def selector(given: Mapping[str, str]) -> Selector:
    """A label selector as a person wrote it: {"zone": "in(a, b)"}. Raises TypeError or ValueError."""
    return [(labels.check_key(key), labels.check_condition(condition)) for key, condition in given.items()]


# ------------------------------------------------------------------------------------------------------- what the port takes


def placing(options: Mapping[str, Any], demands: Sequence[Mapping[str, int]], name: str) -> dict[str, Any]:
    """The fields of TaskOptions and ActorOptions that say where, from checked options. `demands` are the amounts that must fit.

    Raises ValueError when a placement group has no such bundle, or none that is large enough.
    """
    strategy = options.get("scheduling_strategy")
    where: dict[str, Any] = {}
    selectors = [options["label_selector"]] if options.get("label_selector") else []
    if isinstance(strategy, str):
        # Said aloud, also "DEFAULT" leaves the parent's group.
        where = {"strategy": strategy, "group": GroupChoice(inherits=False)}
    elif isinstance(strategy, NodeAffinitySchedulingStrategy):
        where = {"strategy": "NODE", "node": strategy.node, "soft": bool(strategy.soft), "group": GroupChoice(inherits=False)}
    elif isinstance(strategy, NodeLabelSchedulingStrategy):
        where = {"group": GroupChoice(inherits=False)}
        selectors = [[*one, *more] for one in strategy.selectors for more in (selectors or [[]])]
    elif isinstance(strategy, PlacementGroupSchedulingStrategy):
        where = {"group": _group_choice(strategy, demands, name)}
    elif "placement_group" in options:
        older = PlacementGroupSchedulingStrategy(
            options["placement_group"],
            options.get("placement_group_bundle_index", -1),
            options.get("placement_group_capture_child_tasks"),
        )
        where = {"group": _group_choice(older, demands, name)}
    elif options.get("placement_group_bundle_index", -1) != -1:
        raise ValueError("If placement group is not set, the value of bundle index must be -1.")
    if options.get("fallback_strategy"):
        selectors = [*(selectors or [[]]), *options["fallback_strategy"]]
    return where | {"selectors": selectors} if selectors else where


def _group_choice(strategy: PlacementGroupSchedulingStrategy, demands: Sequence[Mapping[str, int]], name: str) -> GroupChoice:
    group, index = strategy.placement_group, strategy.placement_group_bundle_index
    capture = strategy.placement_group_capture_child_tasks
    if group == "default":
        return INHERITED
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"placement_group_bundle_index is the number of a bundle, or -1 for any, not {index!r}")
    if group is None or group.is_empty:
        if index != -1:
            raise ValueError("If placement group is not set, the value of bundle index must be -1.")
        return GroupChoice(inherits=False, capture=False)
    bundles = group.bundle_cache  # None in a handle that came from the name alone: then the cluster says what does not fit
    if index < -1 or (bundles is not None and index >= len(bundles)):
        valid = f"Valid placement group indexes: 0-{len(bundles) - 1}, and -1 for any." if bundles else "-1 means any."
        raise ValueError(f"placement group bundle index {index} is invalid. {valid}")
    for demand in demands if bundles is not None else ():
        among = bundles if index < 0 else [bundles[index]]
        if not any(fits(to_amounts(bundle), demand) for bundle in among):
            raise ValueError(
                f"Cannot schedule {name} with the placement group because the resource request {to_floats(demand)} cannot fit into "
                f"any bundles for the placement group, {among}."
            )
    return GroupChoice(False, group.id, index, capture)
