"""The lineage as a graph and in words: what is grouped, what opens, what comes of what."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from nbray.cards import lineage_text
from nbray.cards.lineage import (
    MOST_NODES,
    MOST_OPEN,
    CellNote,
    Group,
    Lineage,
    Notes,
    Unfinished,
    VariableNote,
    View,
)
from nbray.cards.saved import kept_lineage
from nbray.engines.port import UnfinishedTask
from nbray.trace import TraceRecord

S = 10**9
EVIL = "<img src=x onerror=alert(1)>"


def task(number: int) -> bytes:
    return number.to_bytes(16, "big")


def record(number: int, name: str = "f", needs: Iterable[int] = (), parent: int = 0, state: str = "FINISHED") -> TraceRecord:
    above = task(parent) if parent else b""
    return TraceRecord(
        "task", task(number), name, state, "cell", above, b"n" * 8, b"w" * 8, 0, S, 0, S, 2 * S, 2 * S, 0,
        [task(n) + b"\0\0\0\0" for n in needs], 1,
    )  # fmt: skip


def notebook() -> tuple[Lineage, Notes]:
    """data -> load ×100 -> fit ×3 -> best; and a cell beside it."""
    lineage = Lineage()
    lineage.add("In[2]", [record(1000 + i, "load", [1]) for i in range(100)], "b")
    lineage.add("In[3]", [record(2000 + i, "fit", [1000 + i]) for i in range(3)], "c")
    lineage.add("In[4]", [record(3000, "other")], "d")
    cells = [
        CellNote(1, "a", "In[1]", "id-a", "data = nbray.put(...)"),
        CellNote(2, "b", "In[2]", "id-b", "parts = ...", {"data": 1}),
        CellNote(3, "c", "In[3]", "id-c", "best = ...", {"parts": 2}),
        CellNote(4, "d", "In[4]", "id-d", "other.remote()"),
    ]
    variables = [
        VariableNote("data", 1, "reference", "", [task(1)]),
        VariableNote("parts", 2, "list of 100", "", [task(1000 + i) for i in range(100)]),
        VariableNote("best", 3, "float", "data was changed by In[9] after In[2] had read it"),
        VariableNote("unrelated", 0, "int"),
    ]
    return lineage, Notes(cells, variables)


def labels(graph: dict[str, Any]) -> list[str]:
    return [node["label"] for node in graph["nodes"]]


def edges(graph: dict[str, Any]) -> set[tuple[str, str, str]]:
    at = labels(graph)
    return {(at[a], at[b], kind) for a, b, kind in graph["edges"]}


def test_the_graph_has_cells_tasks_and_variables_and_what_came_of_what() -> None:
    lineage, notes = notebook()
    graph = lineage.graph(notes)
    assert set(labels(graph)) == {
        "In[1]", "In[2]", "In[3]", "In[4]", "load ×100", "fit #0", "fit #1", "fit #2", "other", "data", "parts", "best",
    }  # fmt: skip
    assert edges(graph) >= {
        ("In[1]", "data", "data"),
        ("data", "In[2]", "data"),
        ("data", "load ×100", "data"),
        ("In[2]", "load ×100", "submits"),
        ("load ×100", "parts", "data"),
        ("load ×100", "fit #0", "data"),
        ("parts", "In[3]", "data"),
        ("In[3]", "fit #0", "submits"),
        ("In[3]", "best", "data"),
    }
    assert not any("other" in (a, b) for a, b, _ in edges(graph) if "In[4]" not in (a, b))


def test_a_cells_own_graph_has_its_ancestors_and_descendants_only() -> None:
    lineage, notes = notebook()
    assert "In[4]" not in labels(lineage.graph(notes, View(focus="c")))
    assert set(labels(lineage.graph(notes, View(focus="d")))) == {"In[4]", "other"}


def test_groups_open_and_shut() -> None:
    lineage, notes = notebook()
    (group,) = [node for node in lineage.graph(notes)["nodes"] if node["label"] == "load ×100"]
    opened = lineage.graph(notes, View(opened=frozenset({group["key"]})))
    assert {f"load #{i}" for i in range(100)} <= set(labels(opened))
    assert ("load #2", "fit #2", "data") in edges(opened)
    assert ("load #2", "fit #1", "data") not in edges(opened)
    fit = next(node for node in opened["nodes"] if node["label"] == "fit #0")
    shut = lineage.graph(notes, View(shut=frozenset({fit["group"]})))
    assert "fit ×3" in labels(shut)
    cell = lineage.graph(notes, View(shut=frozenset({"c:b"})))
    assert "load ×100" not in labels(cell)
    assert ("In[2]", "parts", "data") in edges(cell)


def test_ten_thousand_tasks_are_a_few_nodes_made_at_once_and_open_to_a_bound() -> None:
    lineage = Lineage()
    lineage.add("In[1]", [record(i, "a") for i in range(1, 5001)], "x")
    lineage.add("In[2]", [record(5000 + i, "b", [i]) for i in range(1, 5001)], "y")
    began = time.process_time()
    assert labels(lineage.graph()) == ["In[1]", "In[2]", "a ×5,000", "b ×5,000"]
    opened = lineage.graph(view=View(opened=frozenset({"g:x:In[1]:a", "g:y:In[2]:b"})))
    spent = time.process_time() - began
    assert len(opened["nodes"]) == 2 + 2 * (MOST_OPEN + 1)
    assert {"a: 4,800 more", "b: 4,800 more"} <= set(labels(opened))
    assert ("a #7", "b #7", "data") in edges(opened)
    assert spent < 5, "a page waits for it"


def test_many_cells_are_shown_as_cells_the_latest_first_to_stay() -> None:
    lineage = Lineage()
    cells = [CellNote(i, f"t{i}", f"In[{i}]") for i in range(1, 301)]
    for i in range(1, 301):
        lineage.add(f"In[{i}]", [record(i, "f", [i - 1] if i > 1 else [])], f"t{i}")
    graph = lineage.graph(Notes(cells))
    assert graph["coarse"]
    assert len(graph["nodes"]) == MOST_NODES
    assert labels(graph)[-1] == "In[300]"
    assert graph["hidden"] == 100
    opened = lineage.graph(Notes(cells), View(opened=frozenset({"c:t300"})))
    assert "f" in labels(opened)


def test_a_run_that_was_superseded_goes_once_nothing_is_left_of_it() -> None:
    lineage, notes = notebook()
    cells = [*notes.cells[:3], notes.cells[3]._replace(again="In[5]"), CellNote(5, "e", "In[5]", "id-d")]
    assert "In[4]" not in labels(lineage.graph(notes._replace(cells=cells)))
    assert "In[4]" in labels(lineage.graph(notes._replace(cells=cells), View(focus="d")))
    used = [notes.cells[0], notes.cells[1]._replace(again="In[6]"), *notes.cells[2:]]
    assert "load ×100" in labels(lineage.graph(notes._replace(cells=used)))


def test_tasks_of_tasks_hang_on_the_tasks_that_submitted_them() -> None:
    lineage = Lineage()
    lineage.add("In[1]", [record(10 + i, "leaf", parent=1) for i in range(20)], "a")
    lineage.add("In[1]", [record(1, "top")], "a")
    assert edges(lineage.graph()) == {("In[1]", "top", "submits"), ("top", "leaf ×20", "submits")}


def test_an_old_version_of_a_variable_is_what_the_cell_that_read_it_came_from() -> None:
    lineage, notes = notebook()
    cells = [*notes.cells, CellNote(9, "z", "In[9]", reads={})]
    variables = [notes.variables[0]._replace(maker=9), *notes.variables[1:]]
    graph = lineage.graph(Notes(cells, variables))
    assert ("In[1]", "In[2]", "data") not in edges(graph), "the first cell is not among what is shown any more"
    assert ("data", "In[2]", "data") not in edges(graph)


def test_the_words_say_what_the_graph_says() -> None:
    lineage, notes = notebook()
    graph = lineage.graph(notes)
    best = lineage_text.find(graph, "best")
    assert best is not None
    lines = lineage_text.told(graph, best)
    assert lines[:3] == [
        "best · float · from In[3]",
        "  ↻ stale: data was changed by In[9] after In[2] had read it",
        "  comes from 3 cells, 100 tasks and 2 variables",
    ]
    assert lines[-1] == "  used by nothing"
    data = lineage_text.find(graph, "data")
    assert data is not None
    assert "  used by 2 cells, 103 tasks and 2 variables" in lineage_text.told(graph, data)
    assert lineage_text.find(graph, "In[3]") == lineage_text.find(graph, "3")
    assert lineage_text.find(graph, "nothing like it") is None


def test_what_a_saved_notebook_keeps_is_small() -> None:
    lineage = Lineage()
    lineage.add("In[1]", [record(i, EVIL * 20, [i - 1]) for i in range(1, 2000)], "x")
    small = kept_lineage(lineage.graph(view=View(opened=frozenset({f"g:x:In[1]:{EVIL * 20}"}))), 60, "x")
    assert len(small["nodes"]) == 60
    assert len(msgspec.json.encode(small)) < 40_000


def unfinished(number: int, name: str, state: str, needs: Iterable[int] = (), tag: str = "x") -> UnfinishedTask:
    return UnfinishedTask(task(number), name, tag, state, tuple(task(n) for n in needs))


def node(graph: dict[str, Any], label: str) -> dict[str, Any]:
    return next(each for each in graph["nodes"] if each["label"] == label)


def test_what_runs_and_what_waits_is_in_the_graph_with_its_state_and_what_it_needs() -> None:
    lineage = Lineage()
    lineage.add("In[1]", [record(i, "load") for i in range(1, 11)], "x")
    load, fit = Group("x", "In[1]", "load"), Group("x", "In[1]", "fit")
    tasks = {
        load: [unfinished(11, "load", "RUNNING"), unfinished(12, "load", "QUEUED")],
        fit: [unfinished(20, "fit", "WAITING", [12]), unfinished(21, "fit", "RUNNING", [3])],
    }
    now = Unfinished({load: (2, 88), fit: (1, 1)}, tasks)
    graph = lineage.graph(Notes(variables=[VariableNote("parts", tasks=[task(12)])]), unfinished=now)
    assert {"In[1]", "load ×100", "fit #0", "fit #1", "parts"} == set(labels(graph))
    assert node(graph, "load ×100")["detail"].startswith("▸ 2 running, 88 queued · In[1]")
    assert (node(graph, "load ×100")["running"], node(graph, "load ×100")["queued"]) == (2, 88)
    assert node(graph, "fit #0")["detail"].startswith("○ waits for its arguments")
    assert node(graph, "fit #1")["detail"].startswith("▸ running")
    assert node(graph, "In[1]")["detail"].startswith("▸ 3 running, 89 queued")
    assert edges(graph) >= {("load ×100", "fit #0", "data"), ("load ×100", "fit #1", "data"), ("load ×100", "parts", "data")}


def test_tasks_that_have_ended_are_no_part_of_what_has_not() -> None:
    lineage = Lineage()
    load = Group("x", "In[1]", "load")
    now = Unfinished({load: (1, 1)}, {load: [unfinished(1, "load", "RUNNING"), unfinished(2, "load", "QUEUED")]})
    before = lineage.graph(unfinished=now)
    assert {"load #0", "load #1"} <= set(labels(before))
    lineage.add("In[1]", [record(1, "load"), record(2, "load")], "x")
    after = lineage.graph()
    assert {"load #0", "load #1"} <= set(labels(after))
    assert "running" not in str(after)


def test_an_open_group_shows_what_runs_before_what_waits() -> None:
    lineage = Lineage()
    group = Group("x", "In[1]", "f")
    some = [*(unfinished(i, "f", "QUEUED") for i in range(500)), unfinished(900, "f", "RUNNING")]
    now = Unfinished({group: (1, 9_999)}, {group: some})
    opened = lineage.graph(view=View(opened=frozenset({group.key})), unfinished=now)
    assert sum(each["detail"].startswith("▸ running") for each in opened["nodes"]) == 1
    rest = node(opened, "f: 9,800 more")
    assert rest["queued"] == 9_800


def test_tasks_with_a_name_each_are_one_group_beyond_a_bound() -> None:
    lineage = Lineage()
    lineage.add("In[1]", [record(i, f"f{i}") for i in range(1, 2001)], "x")
    assert len(lineage.groups) == 501
    assert lineage.groups[Group("x", "In[1]", "(other names)")].count == 1500


def test_a_variable_that_is_asked_for_is_there_with_all_that_it_came_from() -> None:
    lineage, notes = notebook()
    cells = [*notes.cells, CellNote(5, "e", "In[5]", reads={"best": 3}), CellNote(6, "f", "In[6]", reads={"mean": 5})]
    variables = [*notes.variables, VariableNote("mean", 5, "float"), VariableNote("said", 6, "str")]
    far = Notes(cells, variables)
    assert "said" not in labels(lineage.graph(far))
    graph = lineage.graph(far, View(named="said"))
    assert {("best", "In[5]", "data"), ("In[5]", "mean", "data"), ("mean", "In[6]", "data"), ("In[6]", "said", "data")} <= edges(
        graph
    )
    found = lineage_text.find(graph, "said")
    assert found is not None
    assert "tasks" in lineage_text.told(graph, found)[1]
    assert "unrelated" not in labels(graph)


def test_a_value_that_was_fetched_leads_to_the_tasks_it_came_from() -> None:
    lineage, notes = notebook()
    best = VariableNote("best", 4, "list", got=[task(2000), task(2001)])
    made = VariableNote("made", 3, "int", called={"fit"})
    graph = lineage.graph(notes._replace(variables=[*notes.variables[:2], best, made]))
    assert edges(graph) >= {("fit #0", "best", "data"), ("fit #1", "best", "data"), ("In[4]", "best", "data")}
    assert {("fit #0", "made", "data"), ("fit #2", "made", "data")} <= edges(graph)
    assert ("In[3]", "made", "data") not in edges(graph), "its tasks are between"


def test_what_a_cell_read_for_its_tasks_has_no_line_past_them() -> None:
    """`best = get([fit.remote(p) for p in parts])` reads `parts`: load -> fit -> best, and no load -> best beside it."""
    lineage, notes = notebook()
    best = VariableNote("best", 3, "list of 3", got=[*(task(1000 + i) for i in range(3)), *(task(2000 + i) for i in range(3))])
    graph = lineage.graph(
        Notes(notes.cells, [notes.variables[0], notes.variables[1], best]), View(shut=frozenset({"g:c:In[3]:fit"}))
    )
    names = [node["label"] for node in graph["nodes"]]
    assert {names[a] for a, b, _ in graph["edges"] if names[b] == "best"} == {"fit ×3"}


def test_a_variable_whose_results_tasks_took_is_not_said_to_be_used_by_nothing() -> None:
    lineage, notes = notebook()
    held = Notes(notes.cells, [each for each in notes.variables if each.name == "parts"])
    graph = lineage.graph(Notes([notes.cells[1], notes.cells[3]], held.variables))
    parts = lineage_text.find(graph, "parts")
    assert parts is not None
    lines = lineage_text.told(graph, parts)
    assert "used by nothing" not in "".join(lines)
    assert any("the same results went to 3 tasks" in line for line in lines)
