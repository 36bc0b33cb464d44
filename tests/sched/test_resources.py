"""Amounts: conversion, the sums, and the words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbray.sched.resources import LARGEST, UNIT, fits, give, in_words, number_in_words, shortfall, take, to_amounts, to_floats

amounts = st.dictionaries(st.sampled_from(["CPU", "GPU", "memory", "alice"]), st.integers(0, 100 * UNIT))


def test_one_cpu_is_ten_thousand_units() -> None:
    assert to_amounts({"CPU": 1, "alice": 0.5}) == {"CPU": 10_000, "alice": 5_000}


def test_zero_amounts_are_left_out_so_that_equal_demands_compare_equal() -> None:
    assert to_amounts({"CPU": 0, "GPU": 0.0}) == {}


def test_noise_of_floating_point_is_forgiven() -> None:
    assert to_amounts({"CPU": 0.1 + 0.2}) == {"CPU": 3_000}


def test_bytes_of_memory_keep_every_digit() -> None:
    assert to_amounts({"memory": 2**39 + 1}) == {"memory": (2**39 + 1) * UNIT}


@pytest.mark.parametrize("number", [-1, -0.5, math.nan, math.inf, -math.inf, 1e-9, 0.00001, 1.00005, 10**400, float(LARGEST) * 2])
def test_an_amount_that_makes_no_sense_is_refused_by_the_name_of_its_resource(number: float) -> None:
    with pytest.raises(ValueError, match="alice"):
        to_amounts({"CPU": 1, "alice": number})


@given(amounts)
def test_amounts_survive_the_way_to_floats_and_back(given_amounts: dict[str, int]) -> None:
    assert to_amounts(to_floats(given_amounts)) == {name: units for name, units in given_amounts.items() if units}


def test_a_demand_for_what_a_node_does_not_have_never_fits() -> None:
    assert not fits({"CPU": 8 * UNIT}, {"alice": 1})
    assert fits({"CPU": 0}, {"CPU": 0, "alice": 0})


def test_an_idle_demand_fits_an_oversubscribed_node() -> None:
    assert fits({"CPU": -UNIT}, {})


@given(amounts, amounts)
def test_what_is_taken_and_given_back_leaves_no_difference(total: dict[str, int], demand: dict[str, int]) -> None:
    free = dict(total)
    if fits(free, demand):
        take(free, demand)
        assert all(units >= 0 for units in free.values())
        give(free, demand, total)
        assert free == total
    else:
        with pytest.raises(ValueError, match="cannot take"):
            take(free, demand)
        assert free == total


def test_only_force_makes_a_node_oversubscribed() -> None:
    free = {"CPU": 0}
    take(free, {"CPU": UNIT}, force=True)
    assert free == {"CPU": -UNIT}


def test_giving_the_same_back_twice_is_noticed_and_changes_nothing() -> None:
    total, free = {"CPU": 2 * UNIT, "GPU": UNIT}, {"CPU": 2 * UNIT, "GPU": 0}
    with pytest.raises(ValueError, match="exceeds the total"):
        give(free, {"GPU": UNIT, "CPU": UNIT}, total)
    assert free == {"CPU": 2 * UNIT, "GPU": 0}


def test_a_shortfall_names_the_resource_and_the_largest_node() -> None:
    totals = [{"CPU": 8 * UNIT}, {"CPU": 4 * UNIT, "GPU": UNIT}]
    assert shortfall(totals, to_amounts({"CPU": 1, "GPU": 2}), ["aaaa", "b71e"]) == "num_gpus=2; the largest node (b71e) has 1"
    assert shortfall(totals, to_amounts({"alice": 1})) == "alice=1; no node has any"
    assert shortfall([], to_amounts({"CPU": 1})) == "num_cpus=1; there is no node"


def test_a_shortfall_of_a_combination_says_that_no_node_has_all_of_it() -> None:
    totals = [{"CPU": 8 * UNIT}, {"CPU": 4 * UNIT, "GPU": UNIT}]
    assert "no node has all of them together" in shortfall(totals, to_amounts({"CPU": 8, "GPU": 1}))


def test_there_is_no_shortfall_where_a_node_could_hold_the_demand() -> None:
    assert shortfall([{"CPU": UNIT}], {"CPU": UNIT}) == ""


def test_amounts_read_as_they_are_written_in_options() -> None:
    assert in_words(to_amounts({"CPU": 0.5, "memory": 2**31, "alice": 2})) == "num_cpus=0.5, memory=2147483648 (2 GiB), alice=2"
    assert in_words({}) == "nothing"
    assert number_in_words(-15_000) == "-1.5"
