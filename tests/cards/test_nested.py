"""Tasks that tasks submit, counted for their cell: what a worker says of them, and what the driver makes of that."""

from __future__ import annotations

import pytest

from nbray.engines import nested
from nbray.engines.cells import Cells, Standing
from nbray.engines.nested import Nested, Tally
from nbray.engines.port import CellProgress, NameCount
from nbray.ids import Address
from nbray.trace import TraceRecord, decode_records
from nbray.wire.messages import CellNews, Stuck

WORKER = Address(b"n" * 8, b"w" * 8)
OTHER = Address(b"n" * 8, b"v" * 8)


def ended(number: int, state: str = "FINISHED") -> TraceRecord:
    return TraceRecord("task", number.to_bytes(16, "big"), "f", state, "cell")


class Told:
    """A tally whose words are kept, and whose timer never rings: the test tells it when to speak."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tally, "_arm", lambda _self, _seconds: None)
        self.said: list[CellNews] = []
        self.running: dict[str, int] = {}
        self.tally = Tally(lambda _tag: Standing(self.running, {}, []), self._send)

    def _send(self, tag: str, names: dict[str, list[int]], records: bytes, stuck: list[Stuck]) -> None:
        self.said.append(CellNews(tag, WORKER, names, records, stuck))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


def test_a_worker_says_what_it_has_submitted_once(told: Told) -> None:
    told.tally.submitted("cell", "f")
    told.tally.submitted("cell", "f")
    told.tally.tell()
    told.tally.tell()
    assert [news.names for news in told.said] == [{"f": [2, 0, 0, 0, 0, 0]}]


def test_records_come_once_and_counts_come_whole(told: Told) -> None:
    told.tally.submitted("cell", "f")
    told.tally.submitted("cell", "f")
    told.tally.ended("cell", "f", ended(1))
    told.tally.tell()
    told.tally.ended("cell", "f", ended(2, "FAILED"))
    told.tally.tell()
    assert [news.names["f"] for news in told.said] == [[2, 1, 0, 0, 0, 0], [2, 1, 1, 0, 0, 0]]
    assert [[int.from_bytes(each.id, "big") for each in decode_records(news.records)] for news in told.said] == [[1], [2]]


def test_what_a_script_submits_has_no_cell_and_is_not_told(told: Told) -> None:
    told.tally.submitted("", "f")
    assert not told.tally.fresh
    told.tally.tell()
    assert told.said == []


def test_a_task_that_begins_to_run_is_told_though_nothing_else_happens(told: Told) -> None:
    told.tally.submitted("cell", "f")
    told.tally.tell()
    told.running = {"f": 1}
    told.tally._due()
    told.tally._due()
    assert [news.names["f"] for news in told.said] == [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0]]


def test_many_records_travel_in_several_messages(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "RECORDS_AT_ONCE", 2)
    for i in range(5):
        told.tally.submitted("cell", "f")
        told.tally.ended("cell", "f", ended(i))
    told.tally.tell()
    assert [len(decode_records(news.records)) for news in told.said] == [2, 2, 1]


def driver(dead: Address | None = None) -> Nested:
    side = Nested(lambda worker: worker == dead, lambda _worker: None)
    side.take(CellNews("cell", WORKER, {"f": [3, 1, 0, 0, 1]}), keep=True)
    side.take(CellNews("cell", OTHER, {"f": [1, 1, 0, 0, 0], "g": [1, 0, 1, 0, 0]}), keep=True)
    return side


def test_the_driver_adds_what_workers_say_to_its_own() -> None:
    cells = Cells()
    cells.submitted("cell", "f")
    progress = driver().together("cell", cells.progress("cell", Standing({}, {}, [])))
    assert progress.names == {"f": NameCount(5, 2, 0, 0, 1), "g": NameCount(1, 0, 1)}
    assert progress.nested == 5


def test_a_cell_without_nested_tasks_is_as_it_was() -> None:
    own = CellProgress({"f": NameCount(1)}, [])
    assert driver().together("another", own) is own


def test_what_a_dead_worker_had_submitted_will_not_end() -> None:
    assert driver(WORKER).counts("cell")["f"] == NameCount(4, 2, 0, 2, 0)


def test_the_driver_asks_to_hear_of_a_workers_death_when_it_first_speaks() -> None:
    asked: list[Address] = []
    side = Nested(lambda _worker: False, asked.append)
    for _ in range(2):
        side.take(CellNews("cell", WORKER, {"f": [1, 0, 0, 0, 0]}), keep=False)
    assert asked == [WORKER]


def test_a_cell_that_nobody_draws_any_more_keeps_its_counts() -> None:
    side = driver()
    side.forget("cell")
    assert side.counts("cell")["f"] == NameCount(4, 2, 0, 0, 1)
    assert side.records("cell") == []


def test_what_waits_for_inputs_and_what_can_never_run_is_told_too(told: Told) -> None:
    stuck = [Stuck("f", "Needs num_cpus=77; the largest node has 2.", True)]
    told.tally._standing = lambda _tag: Standing({}, {"f": 2}, stuck)
    for _ in range(3):
        told.tally.submitted("cell", "f")
    told.tally.tell()
    side = driver()
    side.take(told.said[0], keep=True)
    together = side.together("cell", CellProgress({"f": NameCount(1)}, []))
    assert (together.names["f"].queued, together.names["f"].inputs, together.stuck) == (4, 2, stuck)
