"""A large value that one function is given again and again is worth one word, and nothing else is."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nbray.owner.repeats import TIMES, Repeats

BIG = 8 * 10**6
WHAT = "argument of fit"


def ship(repeats: Repeats, value: object, times: int, size: int = BIG, what: str = WHAT) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(times):
            repeats.shipped(what, "args[0]", value, size)
    return [str(each.message) for each in said]


def again_and_again(table: object) -> None:
    repeats = Repeats()
    for _ in range(100):
        repeats.shipped(WHAT, "args[0]", table, BIG)


def test_the_same_value_is_worth_one_word_with_its_name_size_and_remedy() -> None:
    table = np.zeros(10**6)
    with pytest.warns(UserWarning, match=r"table \(8\.0 MB, ndarray\).*call of fit.*table_ref = nbray\.put\(table\)") as said:
        again_and_again(table)
    assert len(said) == 1
    assert said[0].filename == __file__


def test_a_value_shipped_once_or_twice_is_worth_none() -> None:
    assert ship(Repeats(), np.zeros(10), TIMES - 1) == []


def test_new_values_in_the_place_of_old_ones_are_not_the_same() -> None:
    repeats = Repeats()
    said = []
    for i in range(50):
        said += ship(repeats, np.full(10, i), 1)  # freed at once, so the next one often has its address
    assert said == []


def test_small_values_are_worth_none() -> None:
    assert ship(Repeats(), np.zeros(10), 10, size=200_000) == []


def test_each_function_has_its_own_word() -> None:
    repeats, table = Repeats(), [1, 2, 3]
    assert len(ship(repeats, table, 5)) == 1
    assert len(ship(repeats, table, 5, what="argument of score")) == 1
