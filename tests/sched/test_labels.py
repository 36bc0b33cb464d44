"""Conditions on the labels of nodes."""

from __future__ import annotations

import pytest

from nbray.sched.labels import best_rank, check_condition, check_key, check_labels, in_words, matches
from nbray.sched.policy import choose, explain, feasible
from nbray.sched.resources import to_amounts
from nbray.wire.messages import NodeInfo, Shape

A, B, C = b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"


@pytest.mark.parametrize(
    ("condition", "of_a", "of_none"),
    [
        ("a", True, False),
        ("b", False, False),
        ("!a", False, True),
        ("!b", True, True),
        ("in(a, b)", True, False),
        ("in(b,c)", False, False),
        ("!in(a,b)", False, True),
        ("!in(b)", True, True),
        ("exists()", True, False),
        ("!exists()", False, True),
    ],
)
def test_a_condition_holds_for_a_value_and_for_no_label_at_all(condition, of_a, of_none):
    assert check_condition(condition) == condition
    assert matches({"zone": "a"}, [("zone", condition)]) is of_a
    assert matches({}, [("zone", condition)]) is of_none


def test_all_conditions_of_a_selector_must_hold_and_the_first_selector_that_does_counts():
    labels = {"zone": "a", "disk": "ssd"}
    assert matches(labels, [("zone", "a"), ("disk", "!hdd")])
    assert not matches(labels, [("zone", "a"), ("disk", "hdd")])
    assert best_rank(labels, []) == 0
    assert best_rank(labels, [[("zone", "b")], [("zone", "a")], []]) == 1
    assert best_rank(labels, [[("zone", "b")]]) is None
    assert in_words([[("zone", "a"), ("disk", "!hdd")], []]) == "zone=a and disk=!hdd, or any"


@pytest.mark.parametrize("condition", ["in()", "in(a", "a b", "!!a", "-a", "a-", "in(a,!b)", "x" * 64])
def test_what_is_no_condition_is_refused(condition):
    with pytest.raises(ValueError, match="Invalid label selector value"):
        check_condition(condition)


@pytest.mark.parametrize("key", ["", "-a", "a_", "x" * 64, "/a", "a../b", "a b"])
def test_what_is_no_label_is_refused(key):
    with pytest.raises(ValueError, match="Invalid label key"):
        check_key(key)


def test_own_labels_do_not_take_the_runtimes_names():
    assert check_labels({"zone": "a", "example.org/disk": ""}) == {"zone": "a", "example.org/disk": ""}
    with pytest.raises(ValueError, match="cannot start with the prefix"):
        check_labels({"ray.io/node-id": "mine"})
    with pytest.raises(ValueError, match="Invalid label key value `a b`"):
        check_labels({"zone": "a b"})


def node(name: bytes, free: float = 4, **labels: str) -> NodeInfo:
    return NodeInfo(name, "h", 1, to_amounts({"CPU": 4}), to_amounts({"CPU": free}), labels)


def test_work_goes_to_the_best_match_that_has_room():
    wanted = Shape(to_amounts({"CPU": 1}), selectors=[[("zone", "b")], [("zone", "c")]])
    nodes = [node(A, zone="a"), node(B, zone="b"), node(C, zone="c")]
    assert choose(wanted, A, nodes, [], 0) == B
    assert choose(wanted, A, [nodes[0], node(B, 0, zone="b"), nodes[2]], [], 0) == C
    # None has room: the queue is at the best match.
    assert choose(wanted, A, [nodes[0], node(B, 0, zone="b"), node(C, 0, zone="c")], [], 0) == B
    assert choose(wanted, A, nodes[:1], [], 0) is None
    assert not feasible(wanted, nodes[:1])
    assert "no node has such labels" in explain(wanted, nodes[:1])
    assert "zone=b, or zone=c" in explain(wanted, nodes[:1])
