"""Generators under faults: histories in which workers and nodes die while items are on their way."""

from __future__ import annotations

import pytest

from nbray.owner.streams import StreamTable
from nbray.testing import Program, Simulation, Violation, simulate
from nbray.testing.process import Process
from nbray.testing.streams import random_streams

SEEDS, CHUNK = 200, 50
#: A breakage that is not seen in so many runs would not be seen by the suite either.
SEEN_WITHIN = 200


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_no_history_of_generators_breaks_a_promise(start: int) -> None:
    for seed in range(start, start + CHUNK):
        simulate(seed, workload=random_streams)


def test_a_generator_that_crashes_half_way_yields_every_item_once() -> None:
    def script(driver: Process):
        end = driver.submit(Program(number=10, yields=6, crashes=2, retries=2))
        items = []
        while (item := (yield from driver.take_item(end))) is not None:
            items.append(item)
        assert [each.number for each in (yield from driver.get(items))] == [11, 12, 13, 14, 15, 16]
        driver.drop(end, *items)

    Simulation(7).run(script)


def _seen() -> bool:
    for seed in range(SEEN_WITHIN):
        try:
            simulate(seed, workload=random_streams)
        except Violation:
            return True
    return False


def test_items_that_nobody_can_take_and_that_are_kept_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamTable, "drop", lambda _self, _task: None)
    assert _seen()


def test_an_attempt_that_is_not_told_what_is_here_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner takes what it sends for more."""
    terms = StreamTable.terms

    def forgetful(self: StreamTable, task):
        self.streams[task.id].known = 0 if task.push.attempt else self.streams[task.id].known
        return terms(self, task)

    monkeypatch.setattr(StreamTable, "terms", forgetful)
    assert _seen()


def test_what_a_dead_worker_sealed_and_nobody_lets_go_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamTable, "_refuse", lambda self, _each, value: self.objects.give_back(value.contains))
    assert _seen()
