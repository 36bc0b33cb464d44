from __future__ import annotations

import decimal
import json
from typing import Any

import numpy as np
import pytest

import nbray
from nbray.config import TASK_MAX_RETRIES
from nbray.options import (
    ACTOR,
    METHOD,
    OPTIONS,
    TABLES,
    TASK,
    actor_options,
    call_options,
    checked,
    task_options,
)
from nbray.strategies import (
    DoesNotExist,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

RAYS_TASK = [
    "num_cpus",
    "num_gpus",
    "resources",
    "memory",
    "accelerator_type",
    "runtime_env",
    "scheduling_strategy",
    "name",
    "label_selector",
    "fallback_strategy",
    "enable_task_events",
    "object_store_memory",
    "placement_group",
    "placement_group_bundle_index",
    "placement_group_capture_child_tasks",
    "_labels",
    "num_returns",
    "max_retries",
    "retry_exceptions",
    "max_calls",
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
]
RAYS_ACTOR = [
    "num_cpus",
    "num_gpus",
    "resources",
    "memory",
    "accelerator_type",
    "runtime_env",
    "scheduling_strategy",
    "name",
    "label_selector",
    "fallback_strategy",
    "enable_task_events",
    "object_store_memory",
    "placement_group",
    "placement_group_bundle_index",
    "placement_group_capture_child_tasks",
    "_labels",
    "namespace",
    "lifetime",
    "get_if_exists",
    "max_concurrency",
    "max_restarts",
    "max_task_retries",
    "concurrency_groups",
    "max_pending_calls",
    "allow_out_of_order_execution",
    "enable_tensor_transport",
    "_actor_generator_backpressure_num_objects",
]
RAYS_METHOD = [
    "num_returns",
    "name",
    "concurrency_group",
    "max_task_retries",
    "retry_exceptions",
    "enable_task_events",
    "tensor_transport",
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
]


@pytest.mark.parametrize(("kind", "names"), [(TASK, RAYS_TASK), (ACTOR, RAYS_ACTOR), (METHOD, RAYS_METHOD)])
def test_the_table_has_every_option_of_ray_and_no_other(kind: str, names: list[str]) -> None:
    assert sorted(TABLES[kind]) == sorted(names)


@pytest.mark.parametrize("option", [o for o in OPTIONS if not o.takes_none], ids=lambda o: o.name)
def test_none_means_the_default(option: Any) -> None:
    assert checked(option.kinds[0], {option.name: None}) == {}


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.default not in (None, "")], ids=lambda o: o.name)
def test_every_default_is_a_value_that_its_own_rule_accepts(option: Any) -> None:
    for kind in option.kinds:
        checked(kind, {option.name: option.default})


def test_defaults_are_rays() -> None:
    task, actor = task_options({}), actor_options({})
    assert (task.amounts, task.returns, task.max_retries, task.retry_exceptions) == ({"CPU": 10_000}, 1, TASK_MAX_RETRIES, False)
    assert (actor.placement, actor.running) == ({"CPU": 10_000}, {})
    assert (actor.max_restarts, actor.max_task_retries, actor.max_concurrency, actor.max_pending_calls) == (0, 0, 1, -1)
    assert actor_options({}, is_async=True).max_concurrency == 1000
    assert (call_options({}).returns, call_options({}, max_task_retries=2).max_task_retries) == (1, 2)
    assert call_options({"max_task_retries": 0}, max_task_retries=2).max_task_retries == 0


@pytest.mark.parametrize(
    ("options", "placement", "running"),
    [
        ({}, {"CPU": 10_000}, {}),
        ({"num_cpus": 0}, {}, {}),
        ({"num_cpus": 2}, {"CPU": 20_000}, {"CPU": 20_000}),
        ({"num_gpus": 1}, {"CPU": 10_000, "GPU": 10_000}, {"CPU": 10_000, "GPU": 10_000}),
        ({"resources": {"alice": 1}, "num_cpus": 0}, {"alice": 10_000}, {"alice": 10_000}),
        ({"memory": 10}, {"CPU": 10_000, "memory": 100_000}, {"CPU": 10_000, "memory": 100_000}),
    ],
)
def test_an_actor_that_names_no_resource_holds_none(options: dict[str, Any], placement: Any, running: Any) -> None:
    made = actor_options(checked(ACTOR, options))
    assert (made.placement, made.running) == (placement, running)


@pytest.mark.parametrize(
    ("options", "amounts"),
    [
        ({"num_cpus": 0.5}, {"CPU": 5_000}),
        ({"num_cpus": 0.1 + 0.2}, {"CPU": 3_000}),
        ({"num_cpus": np.int64(2)}, {"CPU": 20_000}),
        ({"num_cpus": np.float32(0.5)}, {"CPU": 5_000}),
        ({"num_cpus": 0, "num_gpus": 1}, {"GPU": 10_000}),
        ({"resources": {"alice": 0.25, "ünïcode": 1}}, {"CPU": 10_000, "alice": 2_500, "ünïcode": 10_000}),
        ({"accelerator_type": "A100"}, {"CPU": 10_000, "accelerator_type:A100": 10}),
    ],
)
def test_resources_become_amounts(options: dict[str, Any], amounts: dict[str, int]) -> None:
    assert task_options(checked(TASK, options)).amounts == amounts


@pytest.mark.parametrize("value", [-1, 1e-9, float("nan"), float("inf"), 10**400, 0.12345])
@pytest.mark.parametrize("name", ["num_cpus", "num_gpus", "memory"])
def test_amounts_that_mean_nothing_are_value_errors(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"num_cpus|num_gpus|memory"):
        checked(TASK, {name: value})


@pytest.mark.parametrize("value", [True, "2", decimal.Decimal(1), [1], 1j])
def test_amounts_that_are_no_numbers_are_type_errors(value: object) -> None:
    with pytest.raises(TypeError, match=r"The type of keyword 'num_cpus' must be \(.*\), but received type"):
        checked(TASK, {"num_cpus": value})


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        ({"CPU": 1}, ValueError, "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU'"),
        ({"GPU": 1}, ValueError, "Use the 'num_cpus' and 'num_gpus' keyword"),
        ({"memory": 1}, ValueError, "'memory' keyword"),
        ({"": 1}, ValueError, "not empty"),
        ({"x" * 2**20: 1}, ValueError, "1,048,576 characters"),
        ({3: 1}, ValueError, "string"),
        ({"alice": -1}, ValueError, "alice"),
        ({"alice": 0.00001}, ValueError, "0.0001"),
        ({"alice": "1"}, TypeError, "alice"),
        ([("alice", 1)], TypeError, "resources"),
    ],
)
def test_resources_that_cannot_be_are_refused_by_name(value: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        checked(TASK, {"resources": value})


@pytest.mark.parametrize(
    ("kind", "name"), [(TASK, "max_retries"), (ACTOR, "max_restarts"), (ACTOR, "max_task_retries"), (METHOD, "max_task_retries")]
)
def test_counts_of_repetition_take_minus_one_for_ever(kind: str, name: str) -> None:
    assert [checked(kind, {name: n})[name] for n in (-1, 0, 7)] == [-1, 0, 7]
    with pytest.raises(ValueError, match="only accepts None, 0, -1 or a positive integer, where -1 represents infinity"):
        checked(kind, {name: -2})
    with pytest.raises(TypeError, match=f"The type of keyword '{name}' must be"):
        checked(kind, {name: 1.5})


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (10**9, ValueError), (True, TypeError), (1.0, TypeError), ("many", ValueError)]
)
def test_a_number_of_returns_is_a_count(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="num_returns"):
        checked(TASK, {"num_returns": value})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TASK, "_labels", {"a": "b"}),
        (TASK, "object_store_memory", 100),
        (TASK, "runtime_env", {"container": {"image": "x"}}),
        (METHOD, "tensor_transport", "nccl"),
    ],
)
def test_what_is_not_built_says_so_by_name_and_what_to_use_instead(kind: str, name: str, value: object) -> None:
    with pytest.raises(NotImplementedError, match=rf"{name}.* not built yet; \w+"):
        checked(kind, {name: value})


@pytest.mark.parametrize(("kind", "name"), [(TASK, "max_calls"), (ACTOR, "concurrency_groups")])
def test_some_options_belong_to_the_decorator_only(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"Setting '{name}' is not supported in '.options\(\)'."):
        checked(kind, {name: 1}, in_options=True) if name == "max_calls" else checked(kind, {name: {}}, in_options=True)


@pytest.mark.parametrize(
    ("kind", "typo", "meant"),
    [
        (TASK, "num_cpu", "num_cpus"),
        (TASK, "max_retry", "max_retries"),
        (ACTOR, "max_restart", "max_restarts"),
        (METHOD, "num_return", "num_returns"),
    ],
)
def test_a_typo_is_told_what_was_meant(kind: str, typo: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"Invalid option keyword {typo} for {kind}. Did you mean {meant}\?"):
        checked(kind, {typo: 1})


def test_an_option_of_something_else_says_of_what() -> None:
    with pytest.raises(ValueError, match="It is an option of actors"):
        checked(TASK, {"lifetime": "detached"})


def test_older_spellings_work_and_show_todays() -> None:
    with pytest.warns(DeprecationWarning, match=r"num_return_vals is called num_returns today: @nbray.remote\(num_returns=...\)"):
        assert checked(TASK, {"num_return_vals": 3}) == {"num_returns": 3}


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"name": ""}, ValueError, "empty string"),
        ({"name": 3}, TypeError, "name"),
        ({"lifetime": "for ever"}, ValueError, "detached"),
        ({"max_concurrency": 0}, ValueError, "positive integer"),
        ({"max_pending_calls": 0}, ValueError, "max_pending_calls"),
        ({"get_if_exists": 1}, TypeError, "get_if_exists"),
        ({"scheduling_strategy": "PACK"}, ValueError, "Invalid scheduling_strategy value PACK"),
        ({"scheduling_strategy": 3}, TypeError, "scheduling_strategy"),
        ({"label_selector": {"zone": "in()"}}, ValueError, r"Invalid label selector value `in\(\)`"),
        ({"label_selector": {"-zone": "a"}}, ValueError, "Invalid label key name `-zone`"),
        ({"label_selector": {"zone": 1}}, TypeError, "condition"),
        ({"label_selector": "zone"}, TypeError, "label_selector"),
        ({"fallback_strategy": {}}, TypeError, "fallback_strategy"),
        ({"fallback_strategy": [{}]}, ValueError, "Empty dictionary"),
        ({"fallback_strategy": [{"num_cpus": 1}]}, ValueError, "Unsupported option found: 'num_cpus'"),
        ({"placement_group": "pg"}, TypeError, "placement_group"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError, r"Dict\[str, str\]"),
        ({"runtime_env": "pip"}, TypeError, "runtime_env"),
    ],
)
def test_actor_options_that_cannot_be_are_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        checked(ACTOR, options)


def test_get_if_exists_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name must be specified to use `get_if_exists`"):
        actor_options(checked(ACTOR, {"get_if_exists": True}))


@pytest.mark.parametrize("value", [[ValueError], (ValueError, KeyError), True, False, []])
def test_retry_exceptions_are_all_none_or_some(value: Any) -> None:
    made = task_options(checked(TASK, {"retry_exceptions": value})).retry_exceptions
    assert made == (tuple(value) or False if isinstance(value, list | tuple) else value)


@pytest.mark.parametrize("value", [ValueError, [int], ["ValueError"], 1])
def test_retry_exceptions_that_are_no_classes_are_type_errors(value: object) -> None:
    with pytest.raises(TypeError, match="retry_exceptions"):
        checked(TASK, {"retry_exceptions": value})


def test_a_strategy_is_translated_for_the_engine() -> None:
    node = NodeAffinitySchedulingStrategy("b71e000000000000", soft=True)
    placed = task_options(checked(TASK, {"scheduling_strategy": node}))
    assert (placed.strategy, placed.node, placed.soft) == ("NODE", bytes.fromhex("b71e000000000000"), True)
    assert task_options(checked(TASK, {"scheduling_strategy": "SPREAD"})).strategy == "SPREAD"
    with pytest.raises(ValueError, match="Invalid node_id 'zz'"):
        NodeAffinitySchedulingStrategy("zz", soft=False)


def test_only_work_that_says_nothing_about_where_follows_its_parents_group() -> None:
    assert task_options(checked(TASK, {"label_selector": {"zone": "a"}})).group.inherits
    for said in ("DEFAULT", "SPREAD", NodeLabelSchedulingStrategy({"zone": In("a")}), PlacementGroupSchedulingStrategy(None)):
        assert not task_options(checked(TASK, {"scheduling_strategy": said})).group.inherits


def test_labels_become_alternatives_the_best_first() -> None:
    strategy = NodeLabelSchedulingStrategy({"zone": In("a", "b"), "old": DoesNotExist()}, soft={"disk": NotIn("hdd")})
    hard = [("zone", "in(a, b)"), ("old", "!exists()")]
    assert task_options(checked(TASK, {"scheduling_strategy": strategy})).selectors == [[*hard, ("disk", "!in(hdd)")], hard]
    wished = {"label_selector": {"zone": "a"}, "fallback_strategy": [{"label_selector": {"zone": "b"}}]}
    assert task_options(checked(TASK, wished)).selectors == [[("zone", "a")], [("zone", "b")]]
    with pytest.raises(ValueError, match="cannot both be empty"):
        NodeLabelSchedulingStrategy({})


def test_equal_environments_are_equal_text() -> None:
    one = task_options(checked(TASK, {"runtime_env": {"env_vars": {"A": "1", "B": "2"}}})).env
    other = task_options(checked(TASK, {"runtime_env": {"env_vars": {"B": "2", "A": "1"}}})).env
    assert one == other
    assert json.loads(one) == {"env_vars": {"A": "1", "B": "2"}}
    assert task_options(checked(TASK, {"runtime_env": {}})).env == ""


def test_more_than_one_gpu_is_a_whole_number_of_them() -> None:
    with pytest.raises(ValueError, match="whole number"):
        nbray.remote(num_gpus=1.5)(lambda: None)
    nbray.remote(num_gpus=0.5)(lambda: None)
    nbray.remote(num_gpus=2.0)(lambda: None)
