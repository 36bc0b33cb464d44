"""A large value that one function is given again and again is worth one word, and nothing else is."""

from __future__ import annotations

import numpy as np

from nbray.owner.repeats import TIMES, Repeats

BIG = 8 * 10**6
WHAT = "argument of fit"


class Said(list[str]):
    """A Repeats, and what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats = Repeats(self.append)

    def ship(self, value: object, times: int, size: int = BIG, what: str = WHAT) -> None:
        for _ in range(times):
            self.repeats.shipped(what, "args[0]", value, size)


def test_the_same_value_is_worth_one_word_with_its_name_size_and_remedy() -> None:
    table, said = np.zeros(10**6), Said()
    for _ in range(100):
        said.repeats.shipped(WHAT, "args[0]", table, BIG)
    assert len(said) == 1
    assert said[0].startswith("table (8.0 MB, ndarray) is shipped again with every call of fit.")
    assert "table_ref = nbray.put(table)" in said[0]


def test_a_value_shipped_once_or_twice_is_worth_none() -> None:
    said = Said()
    said.ship(np.zeros(10), TIMES - 1)
    assert said == []


def test_new_values_in_the_place_of_old_ones_are_not_the_same() -> None:
    said = Said()
    for i in range(50):
        said.ship(np.full(10, i), 1)  # freed at once, so the next one often has its address
    assert said == []


def test_small_values_are_worth_none() -> None:
    said = Said()
    said.ship(np.zeros(10), 10, size=200_000)
    assert said == []


def test_each_function_has_its_own_word() -> None:
    said, table = Said(), [1, 2, 3]
    said.ship(table, 5)
    said.ship(table, 5, what="argument of score")
    assert len(said) == 2
