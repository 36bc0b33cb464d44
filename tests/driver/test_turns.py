"""The interpreter's switch interval while a process drives a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from nbray.driver import turns


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(turns.USUAL_S)
    yield
    sys.setswitchinterval(before)


def test_turns_are_short_while_a_cluster_is_driven_and_usual_again_afterwards() -> None:
    turns.shorten()
    assert sys.getswitchinterval() == turns.TURN_S
    turns.shorten()
    turns.restore()
    assert sys.getswitchinterval() == turns.USUAL_S


@pytest.mark.parametrize("chosen", [0.02, 0.0001])
def test_who_has_chosen_another_interval_keeps_it(chosen: float) -> None:
    sys.setswitchinterval(chosen)
    turns.shorten()
    assert sys.getswitchinterval() == pytest.approx(chosen)
    turns.restore()
    assert sys.getswitchinterval() == pytest.approx(chosen)
