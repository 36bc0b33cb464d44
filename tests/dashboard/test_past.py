"""A job's past as a page is told it: piece by piece, bounded, and what cannot be known left out. No cluster is needed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest

from nbray.cards.lineage import EVERYTHING, View
from nbray.cards.spans import COLUMNS
from nbray.dashboard import past
from nbray.dashboard.past import NOTHING_KNOWN, Drawing, Past, events, job_of, known, of_cell
from nbray.dashboard.plans import Plans, What
from nbray.head.questions import TraceStore
from nbray.sched.resources import UNIT
from nbray.trace import TraceRecord
from nbray.wire.messages import TraceBatch

S = 10**9
JOB, OTHER = b"j" * 8, b"o" * 8
EVIL = "<img src=x onerror=alert(1)>"


class Head:
    """What a viewer asks, of a head that remembers a trace."""

    def __init__(self) -> None:
        self.trace = TraceStore()
        self.asked: list[int] = []
        self.jobs = [
            {"job_id": JOB.hex(), "name": "analysis.ipynb", "submission_id": "", "pid": 7, "state": "RUNNING"},
            {"job_id": OTHER.hex(), "name": "train.py", "submission_id": "nightly", "pid": 8, "state": "ENDED"},
        ]

    def ask(self, what: str, **arguments: Any) -> Any:
        if what == "jobs":
            return self.jobs
        assert what == "trace_since"
        self.asked.append(arguments["number"])
        return self.trace.since(arguments)

    def tell(self, *records: TraceRecord, job: bytes = JOB) -> None:
        self.trace.add(TraceBatch(job, b"n" * 8, msgspec.msgpack.encode(list(records)), job))


def task(number: int) -> bytes:
    return JOB + number.to_bytes(8, "big")


def ended(
    number: int, name: str = "f", *, cell: str = "a", line: str = "In[3] line 2", at: float = 10.0, needs: Iterable[int] = (),
    parent: int = 0, state: str = "FINISHED",
) -> TraceRecord:  # fmt: skip
    begun = int(at * S)
    return TraceRecord(
        "task", task(number), name, state, cell, task(parent) if parent else b"", b"n" * 8, b"w" * 8, 0, begun, 0, begun, begun + S,
        begun + S, 0, [task(each) + bytes(4) for each in needs], 1, line=line, demand={"CPU": UNIT},
    )  # fmt: skip


def drawing(seen: Past, job: bytes = JOB) -> Drawing:
    found = seen.drawing(job)
    assert found is not None
    return found


def names(told: dict[bytes, list[str]]) -> dict[str, Any]:
    """What a driver answers of whose tasks all have ended."""
    return {**NOTHING_KNOWN, "names": told}


def columns(part: dict[str, Any]) -> dict[str, Any]:
    data = base64.b64decode(part["data"])
    size, at, found = len(data) // 23, 0, {}
    for name, code in COLUMNS:
        kind = np.dtype(code)
        found[name] = np.frombuffer(data, kind, size, at)
        at += size * kind.itemsize
    return found


def test_only_what_is_new_is_asked_of_the_head_and_a_long_past_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "ROOM_BYTES", 1)  # one batch is the least
    head, seen = Head(), Past()
    for number in range(6):
        head.tell(ended(number, at=10 + number))
    seen.read(head)
    assert drawing(seen).told()["spans"] == past.ASKS
    seen.read(head)
    assert drawing(seen).told()["spans"] == 6
    seen.read(head)
    assert head.asked == [0, 1, 2, 3, 4, 5, 6]


def test_a_page_is_given_the_spans_that_it_lacks_and_all_of_them_once_they_are_others() -> None:
    head, seen = Head(), Past()
    head.tell(ended(1, at=10), ended(2, at=11))
    seen.read(head)
    told = seen.look(head, JOB)
    assert (told["spans"], told["span_names"], told["counts"]["done"]) == (2, ["f"], 2)
    whole = drawing(seen).part(told["edition"], 0)
    assert columns(whole)["start"].tolist() == [0.0, 1000.0]
    head.tell(ended(3, "g", at=12))
    seen.read(head)
    rest = drawing(seen).part(told["edition"], 2)
    assert (rest["first"], columns(rest)["start"].tolist(), columns(rest)["name"].tolist()) == (2, [2000.0], [1])
    head.tell(ended(4, at=5))  # it began before all others, and has ended only now
    seen.read(head)
    again = drawing(seen).part(told["edition"], 3)
    assert (again["first"], again["edition"] > told["edition"]) == (0, True)
    assert columns(again)["start"].tolist() == [5000.0, 6000.0, 7000.0, 0.0]


def test_a_head_that_has_begun_anew_is_believed() -> None:
    head, seen = Head(), Past()
    for number in range(3):
        head.tell(ended(number))
    seen.read(head)
    head.trace = TraceStore()
    head.tell(ended(9, "after"))
    seen.read(head)
    assert seen.look(head, JOB)["span_names"] == ["after"]


def test_the_oldest_makes_way_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    head, seen = Head(), Past()
    head.tell(ended(1), job=OTHER)
    seen.read(head)
    assert not seen.look(head, JOB)["lost"]
    monkeypatch.setattr(past, "KEPT_BYTES", len(head.trace.batches[0].records) + 10)
    head.tell(ended(2))
    seen.read(head)
    told = seen.look(head, OTHER)
    assert ([each["id"] for each in told["jobs"]], told["job"], told["lost"]) == ([JOB.hex()], JOB.hex(), True)


def test_jobs_are_called_by_the_notebook_or_submission_and_the_one_active_last_is_first() -> None:
    head, seen = Head(), Past()
    assert seen.look(head, b"") == {"job": "", "jobs": [], "lost": False}
    head.tell(ended(1), job=OTHER)
    head.tell(ended(2), job=JOB)
    head.tell(ended(3), job=b"x" * 8)
    seen.read(head)
    told = seen.look(head, b"")
    assert [each["name"] for each in told["jobs"]] == ["job 78787878", "analysis.ipynb (pid 7)", "nightly (pid 8)"]
    assert [each["notebook"] for each in told["jobs"]] == ["", "analysis.ipynb", ""]
    assert told["job"] == (b"x" * 8).hex()
    assert seen.look(head, OTHER)["job"] == OTHER.hex()


def test_a_cell_is_called_by_its_number_though_its_tasks_tasks_do_not_know_it() -> None:
    head, seen = Head(), Past()
    head.tell(ended(2, "inner", parent=1, line="3840231.py:4"), ended(3, cell="a#1"))
    head.tell(ended(1, "outer"), ended(4, cell="", line="train.py:12"), ended(5, cell="", line=""))
    seen.read(head)
    cells = seen.look(head, JOB)["cells"]
    assert [(each["title"], each["tasks"]) for each in cells] == [("program", 1), ("train.py", 1), ("In[3]", 3)]


def test_names_are_short_and_few_whatever_people_call_their_tasks() -> None:
    head, seen = Head(), Past()
    head.tell(*(ended(number, f"task {number} " + "x" * 5000, at=10) for number in range(1500)))
    seen.read(head)
    told = seen.look(head, JOB)
    assert max(map(len, told["span_names"])) <= 160
    assert len(told["span_names"]) <= 1001
    assert len(json.dumps(told)) < 400_000


def test_the_graph_knows_arguments_parents_and_the_names_of_results() -> None:
    head, seen = Head(), Past()
    head.tell(
        *(ended(number, "load") for number in range(10, 20)), ended(30, "fit", cell="b", line="In[4] line 1", needs=range(10, 20))
    )
    seen.read(head)
    graph = seen.graph(JOB, drawing(seen), EVERYTHING, names({task(30) + bytes(4): ["best[0]", "best['a']"]}))
    head.tell(ended(31, "fit", cell="b", line="In[4] line 1"))  # once it is drawn it grows
    seen.read(head)
    labels = [node["label"] for node in graph["nodes"]]
    edges = {(labels[a], labels[b], kind) for a, b, kind in graph["edges"]}
    assert edges == {
        ("In[3]", "load ×10", "submits"),
        ("load ×10", "fit", "data"),
        ("In[4]", "fit", "submits"),
        ("fit", "best", "data"),
    }
    assert {node["title"] for node in graph["nodes"] if node["kind"] != "object"} == {"In[3]", "In[4]"}
    assert "In[3] · 10.0 s" in [node["detail"] for node in graph["nodes"]]
    around = seen.graph(JOB, drawing(seen), View("a"), NOTHING_KNOWN)
    assert "In[4]" not in [node["label"] for node in around["nodes"]]
    again = seen.graph(JOB, drawing(seen), EVERYTHING, NOTHING_KNOWN)
    assert "2 tasks" in [node["detail"] for node in again["nodes"] if node["label"] == "In[4]"]


def test_what_has_not_ended_is_in_the_graph_by_what_the_driver_says_of_it() -> None:
    head, seen = Head(), Past()
    head.tell(ended(1, "load"), ended(9, "of a script", cell="", line="train.py:3"))
    seen.read(head)
    now = {
        "names": {task(5) + bytes(4): ["soon"]},
        "counts": [
            ["a", "load", 1, 2, "In[3] line 2"],
            ["b", "fit", 0, 1, "In[4] line 1"],
            ["b", "x" * 5000, 0, 1, "In[4] line 1"],
            ["", "of a script", 1, 0, "train.py:3"],
        ],
        "tasks": [[task(5), "fit", "b", "WAITING", [task(1)], b""], [task(2), "load", "a", "RUNNING", [], b""]],
    }
    graph = seen.graph(JOB, drawing(seen), EVERYTHING, now)
    by_label = {node["label"]: node for node in graph["nodes"]}
    assert (by_label["In[3]"]["running"], by_label["In[3]"]["queued"]) == (1, 2)
    assert "waits" in by_label["fit"]["detail"]
    assert by_label["fit"]["title"] == "In[4]"
    assert by_label["train.py"]["running"] == 1
    labels = [node["label"] for node in graph["nodes"]]
    assert ("fit", "soon") in {(labels[a], labels[b]) for a, b, _ in graph["edges"]}
    assert max(map(len, labels)) <= 160


def test_texts_of_a_graph_are_short() -> None:
    head, seen = Head(), Past()
    head.tell(ended(1, EVIL * 400, line=f"{EVIL * 400}:3", cell=""))
    seen.read(head)
    graph = seen.graph(JOB, drawing(seen), EVERYTHING, names({task(1) + bytes(4): [EVIL * 400]}))
    assert len(graph["nodes"]) == 3
    assert max(len(node[name]) for node in graph["nodes"] for name in ("label", "detail", "title")) <= 160


def test_the_trace_for_perfetto_is_one_list_however_many_pieces_it_comes_in() -> None:
    head, seen = Head(), Past()
    head.tell(ended(1), ended(2, "never", state="CANCELLED", at=0))
    head.tell(ended(3, "never", state="CANCELLED", at=0))
    head.tell(ended(4))
    seen.read(head)
    told = json.loads("".join(events(seen.batches(JOB))))
    assert [(each["ph"], each["tid"]) for each in told] == [("M", 1), ("X", 1), ("X", 1)]
    assert json.loads("".join(events([]))) == []


def test_a_plan_is_of_one_cell_and_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    head, seen = Head(), Past()
    head.tell(*(ended(number, at=10) for number in range(1, 5)), *(ended(number, cell="b", at=100) for number in range(5, 7)))
    seen.read(head)
    plans, batches = Plans(), seen.batches(JOB)
    made = plans.plan(What("c", JOB, "a", 0), batches)
    assert 3.9 < made["seconds"][0][0] < 4.5  # four seconds of work on one core
    assert plans.plan(What("c", JOB, "a", 0), []) is made
    assert len(of_cell(batches, "", 100)) == 6
    assert [record.id for record in of_cell(batches, "", 2)] == [task(5), task(6)]
    with pytest.raises(ValueError, match="nothing to plan with"):
        plans.plan(What("c", JOB, "nobody's", 0), batches)
    monkeypatch.setattr("nbray.dashboard.plans.WAIT_S", 0.0)
    with plans._one, pytest.raises(RuntimeError, match="ask again"):
        plans.plan(What("c", JOB, "b", 0), batches)


@pytest.mark.parametrize(("view", "is_one"), [("past", True), (f"past/{JOB.hex()}", True), ("past/", False), ("past/../x", False)])
def test_a_view_of_a_past_names_a_job_or_none(view: str, is_one: bool) -> None:
    assert known(view) == is_one
    assert job_of(view) == (JOB if view.endswith(JOB.hex()) else b"")
