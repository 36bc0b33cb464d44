"""Filters as Ray compares, and refusals that name what there is."""

from __future__ import annotations

import pytest

from nbray.columns import checked_filters, matches, told

TASK = {"name": "Load", "state": "RUNNING", "attempt_number": 2, "worker_pid": None}


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ([], True),
        ([("name", "=", "load")], True),
        ([("name", "!=", "load")], False),
        ([("name", "=", "loa")], False),
        ([("attempt_number", "=", "2")], True),
        ([("attempt_number", "=", 2)], True),
        ([("attempt_number", "!=", "2")], False),
        ([("worker_pid", "=", "7")], False),
        ([("worker_pid", "!=", "7")], True),
        ([("state", "=", "RUNNING"), ("name", "=", "other")], False),
        ([("state", "=", ["FAILED", "running"])], True),
    ],
)
def test_a_thing_passes_when_every_filter_holds(filters: list[tuple[str, str, object]], passes: bool) -> None:
    assert matches(filters, TASK.get) is passes


@pytest.mark.parametrize(("value", "text", "passes"), [(True, "true", True), (True, "0", False), (False, "False", True)])
def test_truth_values_may_be_spelt(value: bool, text: str, passes: bool) -> None:
    assert matches([("is_alive", "=", text)], {"is_alive": value}.get) is passes


def test_no_more_columns_are_worked_out_than_needed() -> None:
    asked = []
    assert not matches([("state", "=", "FAILED"), ("name", "=", "Load")], lambda name: asked.append(name) or TASK[name])
    assert asked == ["state"]


def test_a_filter_that_makes_no_sense_is_refused_with_what_would() -> None:
    with pytest.raises(ValueError, match="Unsupported filter predicate"):
        checked_filters("tasks", [("state", ">", 1)])
    with pytest.raises(ValueError, match=r"column colour is not supported for actors.*class_name"):
        checked_filters("actors", [("colour", "=", "red")])
    with pytest.raises(ValueError, match="a filter is"):
        checked_filters("actors", ["state=ALIVE"])
    assert checked_filters("tasks", [("STATE", "=", "x")]) == [("state", "=", "x")]


def test_details_are_told_only_when_asked_for() -> None:
    assert "error_message" not in told("tasks", detail=False)
    assert set(told("tasks", detail=False)) < set(told("tasks", detail=True))
