"""Plans: graphs with known answers, and what is read out of the records of a run."""

from __future__ import annotations

import pytest

from nbray.planning import Graph, Task, critical_path, folded, forecast, graph_of, grid
from nbray.sched.resources import UNIT
from nbray.trace import TraceRecord

S = 10**9
BEGUN = 1_000 * S
OVERHEAD_S = 0.02  #: of a whole run: a few messages one after the other


def record(
    number: int, start: float, end: float, name: str = "f", submitted: float = 0.0, needs: tuple[int, ...] = (), **others: object
) -> TraceRecord:
    made = TraceRecord(
        "task", number.to_bytes(16, "big"), name, "FINISHED", node=b"n" * 8, worker=b"w" * 8,
        submitted_ns=BEGUN + round(submitted * S),
        started_ns=BEGUN + round(start * S), ended_ns=BEGUN + round(end * S), done_ns=BEGUN + round(end * S),
        needs=[each.to_bytes(16, "big") + bytes(4) for each in needs], demand={"CPU": UNIT},
    )  # fmt: skip
    for field, value in others.items():
        setattr(made, field, value)
    return made


def seconds(tasks: list[Task], cores: int, nodes: int = 1) -> float:
    (told,) = forecast(Graph(tasks), [cores], nodes).seconds
    assert told is not None
    return told


@pytest.mark.parametrize(("cores", "wanted"), [(1, 8.0), (2, 4.0), (3, 3.0), (8, 1.0), (16, 1.0)])
def test_independent_tasks_are_spread_over_the_cores(cores: int, wanted: float) -> None:
    assert seconds([Task("f", 1.0)] * 8, cores) == pytest.approx(wanted, abs=OVERHEAD_S)


def test_cores_of_several_nodes_add_up() -> None:
    assert seconds([Task("f", 1.0)] * 16, 4, nodes=2) == pytest.approx(2.0, abs=0.1)


def test_a_chain_is_as_long_on_many_cores_as_on_one() -> None:
    chain = [Task("f", 0.5, (i - 1,) if i else ()) for i in range(6)]
    assert seconds(chain, 1) == pytest.approx(3.0, abs=OVERHEAD_S)
    assert seconds(chain, 8) == pytest.approx(3.0, abs=OVERHEAD_S)


def test_a_diamond_takes_its_longer_side() -> None:
    diamond = [Task("load", 1.0), Task("left", 2.0, (0,)), Task("right", 3.0, (0,)), Task("total", 1.0, (1, 2))]
    assert seconds(diamond, 2) == pytest.approx(5.0, abs=OVERHEAD_S)
    assert seconds(diamond, 1) == pytest.approx(7.0, abs=OVERHEAD_S)
    assert [step.label for step in critical_path(Graph(diamond))] == ["load", "right", "total"]
    assert forecast(Graph(diamond), [2]).path_s == pytest.approx(5.0)


def test_a_task_of_two_cpus_takes_two_cores() -> None:
    assert seconds([Task("f", 1.0, cpus=2.0)] * 4, 4) == pytest.approx(2.0, abs=OVERHEAD_S)
    assert forecast(Graph([Task("f", 1.0, cpus=2.0)]), [1, 2]).seconds[0] is None


def test_an_actors_calls_stay_one_after_the_other() -> None:
    calls = [Task("A.f", 0.5, cpus=0.0, actor=b"a" * 16)] * 4
    assert seconds(calls, 8) == pytest.approx(2.0, abs=OVERHEAD_S)
    assert forecast(Graph(calls), [8]).path_s == pytest.approx(2.0)
    together = Graph(calls, lanes={b"a" * 16: 4})
    assert forecast(together, [8]).seconds[0] == pytest.approx(0.5, abs=OVERHEAD_S)


def test_what_the_notebook_waits_for_and_does_itself_is_part_of_the_time() -> None:
    waits = [Task("f", 1.0), Task("f", 1.0), Task("g", 1.0, after=2, think_s=0.5)]
    assert seconds(waits, 2) == pytest.approx(2.5, abs=OVERHEAD_S)
    assert [(step.label, step.seconds) for step in critical_path(Graph(waits))] == [("f", 1.0), ("", 0.5), ("g", 1.0)]


def test_a_window_of_two_keeps_two_at_work() -> None:
    window = [Task("f", 1.0, after=max(0, i - 1)) for i in range(6)]
    assert seconds(window, 8) == pytest.approx(3.0, abs=OVERHEAD_S)


def test_a_graph_is_read_from_the_records_of_a_run() -> None:
    records = [record(1, 0.0, 1.0, "load"), record(2, 0.0, 2.0, "load"), record(3, 2.1, 4.1, "fit", needs=(2, 77))]
    graph = graph_of(records)
    assert [task.label for task in graph.tasks] == ["load#1", "load#2", "fit"]
    assert [task.needs for task in graph.tasks] == [(), (), (1,)]
    assert graph.took_s == pytest.approx(4.1)
    told = forecast(graph, [2])
    assert told.seconds[0] == pytest.approx(4.0, abs=OVERHEAD_S)
    assert told.notes()[0] == "the critical path alone is 4.0 s: load#2 -> fit"


def test_a_pause_that_ends_with_a_task_was_a_wait_and_any_other_is_work_of_the_notebook() -> None:
    waited = graph_of([record(1, 0, 1.0), record(2, 0, 2.0), record(3, 2.5, 3.0, submitted=2.4)])
    assert waited.tasks[2].after == 2
    assert waited.tasks[2].think_s == pytest.approx(0.4)
    worked = graph_of([record(1, 0, 1.0), record(2, 0, 3.0), record(3, 3, 4, submitted=1.5)])
    assert worked.tasks[2].after == 0
    assert worked.tasks[2].think_s == pytest.approx(1.5)
    first_of_two = graph_of([record(1, 0, 1.0), record(2, 0, 3.0), record(3, 1.1, 4, submitted=1.01)])
    assert first_of_two.tasks[2].after == 1


def test_calls_that_overlapped_may_overlap_again() -> None:
    calls = [record(i, 0.0, 1.0, "A.f", actor=b"a" * 16, demand={}) for i in (1, 2)]
    assert graph_of(calls).lanes == {b"a" * 16: 2}


def test_a_hundred_thousand_tasks_are_folded_and_their_path_is_that_of_single_ones() -> None:
    tasks = []
    for i in range(50_000):
        tasks += [Task("load", 0.01, label=f"load#{i}"), Task("fit", 0.03, (2 * i,), label=f"fit#{i}")]
    small = folded(Graph(tasks), 400)
    assert len(small.tasks) <= 400
    assert small.total == 100_000
    assert small.work_s == pytest.approx(2000.0)
    assert all(need < place for place, task in enumerate(small.tasks) for need in task.needs)
    told = forecast(small, [4])
    assert told.seconds[0] == pytest.approx(500.0, rel=0.05)
    assert told.path_s == pytest.approx(0.04)
    assert "100,000 tasks taken together" in " ".join(told.notes())


def test_a_chain_longer_than_any_rehearsal_folds_into_a_shorter_chain() -> None:
    small = folded(Graph([Task("f", 0.1, (i - 1,) if i else ()) for i in range(5_000)]), 100)
    assert len(small.tasks) <= 100
    assert forecast(small, [8]).seconds[0] == pytest.approx(500.0, rel=0.01)


def test_a_plan_kept_with_a_card_has_more_cores_and_more_nodes() -> None:
    kept = grid(Graph([Task("f", 0.25)] * 64))
    assert kept["seconds"][0][0] == pytest.approx(16.0, rel=0.02)
    assert kept["seconds"][1][2] == pytest.approx(2.0, rel=0.1)  # two nodes of four cores


@pytest.mark.parametrize(("cores", "nodes"), [([], 1), ([0], 1), ([4], 0), ([64], 8)])
def test_clusters_that_cannot_be_are_refused(cores: list[int], nodes: int) -> None:
    with pytest.raises(ValueError, match="cores and nodes are at least 1"):
        forecast(Graph([Task("f", 1.0)]), cores, nodes)


def test_a_cell_without_tasks_has_no_plan() -> None:
    with pytest.raises(ValueError, match="no task of this cell has run"):
        forecast(graph_of([]))
