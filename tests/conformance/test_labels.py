"""Labels of nodes, and the tasks and actors that ask for them, on one node."""

from __future__ import annotations

import pytest

from tests.conformance.subject import ray

CLUSTER = {"num_cpus": 2, "labels": {"zone": "a", "disk": "ssd"}}


def strategies():
    import importlib

    return importlib.import_module(f"{ray.__name__}.util.scheduling_strategies")


@ray.remote
def here():
    return "here"


@ray.remote
class Actor:
    def here(self):
        return "here"


def test_a_node_has_its_labels_and_one_with_its_id():
    (node,) = ray.nodes()
    assert node["Labels"] == {"zone": "a", "disk": "ssd", "ray.io/node-id": node["NodeID"]}


@pytest.mark.parametrize(
    "selector",
    [
        {"zone": "a"},
        {"zone": "!b"},
        {"zone": "in(a, b)"},
        {"zone": "!in(b,c)", "disk": "ssd"},
        {"other": "!b"},
        {"other": "!in(b)"},
    ],
)
def test_what_the_node_matches_runs_there(selector):
    assert ray.get(here.options(label_selector=selector).remote(), timeout=30) == "here"
    assert ray.get(Actor.options(label_selector=selector).remote().here.remote(), timeout=30) == "here"


@pytest.mark.parametrize("selector", [{"zone": "b"}, {"zone": "!a"}, {"zone": "in(b, c)"}, {"other": "a"}, {"zone": "a", "disk": "hdd"}])
def test_what_it_does_not_match_waits(selector):
    waiting = here.options(label_selector=selector).remote()
    assert ray.wait([waiting], timeout=0.3) == ([], [waiting])
    ray.cancel(waiting)


def test_a_fallback_is_taken_when_nothing_matches():
    options = {"label_selector": {"zone": "b"}, "fallback_strategy": [{"label_selector": {"zone": "c"}}, {"label_selector": {"disk": "ssd"}}]}
    assert ray.get(here.options(**options).remote(), timeout=30) == "here"
    assert ray.get(Actor.options(**options).remote().here.remote(), timeout=30) == "here"


def test_expressions_say_the_same():
    s = strategies()
    for hard in ({"zone": s.In("a", "b")}, {"zone": s.NotIn("b")}, {"zone": s.Exists()}, {"other": s.DoesNotExist()}):
        strategy = s.NodeLabelSchedulingStrategy(hard, soft={"disk": s.In("hdd")})
        assert ray.get(here.options(scheduling_strategy=strategy).remote(), timeout=30) == "here"


def test_hard_expressions_that_no_node_meets_wait():
    s = strategies()
    waiting = here.options(scheduling_strategy=s.NodeLabelSchedulingStrategy({"zone": s.In("b")})).remote()
    assert ray.wait([waiting], timeout=0.3) == ([], [waiting])
    ray.cancel(waiting)


def test_bundles_can_ask_for_labels():
    group = ray.util.placement_group([{"CPU": 1}], bundle_label_selector=[{"zone": "a"}])
    assert group.wait(30)
    ray.util.remove_placement_group(group)
    never = ray.util.placement_group([{"CPU": 1}], bundle_label_selector=[{"zone": "b"}])
    assert not never.wait(0.3)
    ray.util.remove_placement_group(never)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"label_selector": {"zone": "in()"}}, ValueError, "Invalid label selector value"),
        ({"label_selector": {"-zone": "a"}}, ValueError, "Invalid label key name"),
        ({"label_selector": "a"}, TypeError, "label_selector"),
        ({"fallback_strategy": [{}]}, ValueError, "Empty dictionary"),
        ({"fallback_strategy": [{"num_cpus": 1}]}, ValueError, "Unsupported option found: 'num_cpus'"),
        ({"fallback_strategy": {"a": 1}}, TypeError, "fallback_strategy"),
        ({"scheduling_strategy": "PACK"}, ValueError, "Invalid scheduling_strategy value PACK"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, said):
    with pytest.raises(error, match=said):
        here.options(**options).remote()


def test_expressions_that_make_no_sense_are_refused():
    s = strategies()
    for wrong, said in [
        (lambda: s.In(), "non-empty tuple"),
        (lambda: s.NotIn(1), "must be str"),
        (lambda: s.NodeLabelSchedulingStrategy({}), "cannot both be empty"),
        (lambda: s.NodeLabelSchedulingStrategy({"zone": "a"}), "must be one of the `In`"),
        (lambda: s.NodeLabelSchedulingStrategy(["zone"]), "must be a map"),
        (lambda: s.NodeAffinitySchedulingStrategy("no id", soft=False), "Invalid node_id"),
    ]:
        with pytest.raises(ValueError, match=said):
            wrong()
