"""What a card leaves in the notebook's file: never more than its bound, and always said how much of how much."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import nbformat
import pytest

from nbray.cards import saved
from nbray.cards.flame import Flame
from nbray.cards.printed import Printed
from nbray.cards.run import Run
from nbray.cards.saved import MIME, MOST_BYTES, MOST_SPANS, Extras, bundle, kept_lineage
from nbray.cards.spans import OTHERS, SPAN_BYTES
from nbray.engines.port import CellProgress, NameCount
from nbray.trace import TraceRecord

S = 10**9
LONG = '<b>é\x1b"\\' * 60  #: 360 characters, of those that take more room in a file than on the page


@cache
def run_of(count: int, name: str = "f", detail: str = "", kinds: int = 1) -> Run:
    run = Run(name, S)
    failed = 0
    records = []
    for i in range(count):
        bad = detail and i % 7 == 0
        failed += bool(bad)
        state, said = ("FAILED", f"RayTaskError E{i % 90}: {detail}") if bad else ("FINISHED", "")
        began = S + i * S // 1000
        records.append(
            TraceRecord(
                "task", i.to_bytes(16, "big"), f"{i % kinds}{name}", state, "c", b"", b"n" * 8, (i % 300).to_bytes(8, "big"), 0, S,
                0, began, began + (i % 100 + 1) * S // 50, 0, 0, [], 1, said,
            )
        )  # fmt: skip
    names = {f"{k}{name}": NameCount(count // kinds, count // kinds) for k in range(min(kinds, 500))}
    run.take(CellProgress(names, records))
    run.end(10 * S)
    return run


def rows(count: int, text: str) -> dict[str, Any]:
    row = {"names": text, "release": [text], "type": text, "size": 1, "state": text, "where": text, "line": text, "holders": text}
    return {"rows": [{**row, "stale": text} for _ in range(count)], "objects": count, "size": count, "only_shown": 0, "more": 7}


def graph(count: int, text: str) -> dict[str, Any]:
    nodes = [
        {
            "key": str(i),
            "kind": "task",
            "label": text,
            "detail": text,
            "title": text,
            "cell": "c" * 36,
            "stale": text,
            "tasks": 1,
            "tag": "x",
        }
        for i in range(count)
    ]
    return {"nodes": nodes, "edges": [[i, j, "submits"] for i in range(count) for j in range(i)], "coarse": False, "hidden": 3}


def in_file(made: dict[str, Any]) -> int:
    """Bytes that it takes of a notebook's file."""

    def written(data: dict[str, Any]) -> int:
        output = nbformat.v4.new_output("display_data", data=data)
        cell = nbformat.v4.new_code_cell("1", outputs=[output], id="a")
        return len(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])).encode())

    return written({"text/plain": "", MIME: made}) - written({"text/plain": ""})


def printed(characters: int) -> Printed:
    made = Printed()
    for i in range(characters):
        made.add("f", i.to_bytes(2, "big"), "stdout", "\x1b")
    return made


def test_a_run_of_100_000_tasks_with_the_worst_of_everything_stays_within_the_bound() -> None:
    run = run_of(100_000, LONG, LONG, kinds=700)
    flame = Flame("cpu", 100)
    for i in range(2000):
        flame.add([f"{LONG}{i}", f"{LONG}{i}b"], i)
    lineage = graph(150, LONG)
    extras = Extras(lambda most: kept_lineage(lineage, most), rows(300, LONG), {"cores": [1], "nodes": [1], "seconds": [[1.0]]})
    made = bundle(run, run.snapshot(0), printed(4000), flame, extras)
    assert in_file(made) <= MOST_BYTES
    assert len(base64.b64decode(made["span_data"])) // SPAN_BYTES >= saved.LEAST_SPANS
    assert made["ran"] == 100_000
    assert sum(row["submitted"] for row in made["names"]) == sum(count.submitted for count in run.names.values())
    assert sum(error["count"] for error in made["errors"]) == run.errors.total()
    assert made["objects"]["more"] + len(made["objects"]["rows"]) == 307
    assert made["lineage"]["hidden"] + len(made["lineage"]["nodes"]) == 153


def test_an_ordinary_run_of_100_000_tasks_keeps_the_most_spans_and_all_the_rest() -> None:
    run = run_of(100_000, "simulate")
    made = bundle(run, run.snapshot(0), printed(0), None, Extras(objects=rows(5, "df")))
    assert in_file(made) <= MOST_BYTES
    assert len(base64.b64decode(made["span_data"])) == MOST_SPANS * SPAN_BYTES
    assert made["span_names"] == ["0simulate"]
    assert made["worker_count"] == 300
    assert len(made["tasks"]) == saved.TASKS
    assert len(made["objects"]["rows"]) == 5
    assert "release" not in made["objects"]["rows"][0]


def test_a_small_run_is_kept_whole() -> None:
    run = run_of(12, kinds=3)
    made = bundle(run, run.snapshot(0), printed(0), None, Extras())
    assert made["ran"] == 12
    assert len(base64.b64decode(made["span_data"])) == 12 * SPAN_BYTES
    assert made["names"] == run.snapshot(0)["names"]
    assert "objects" not in made


def test_spans_of_names_that_are_not_kept_are_the_others() -> None:
    run = run_of(900, kinds=90)
    made = bundle(run, run.snapshot(0), printed(0), None, Extras())
    assert len(made["span_names"]) == saved.NAMES
    assert made["span_names"][-1] == made["names"][-1]["name"] == OTHERS
    columns = base64.b64decode(made["span_data"])
    names = memoryview(columns)[14 * 900 : 16 * 900].cast("H")
    assert max(names) == saved.NAMES - 1


def test_a_timeline_tells_500_names_apart_and_no_more() -> None:
    run = run_of(2000, kinds=2000)
    assert len(run.spans.names) == 500
    assert list(run.spans.names)[-1] == OTHERS


def test_of_a_large_lineage_what_is_near_to_the_cell_is_kept() -> None:
    nodes = [
        {"kind": "task", "label": str(i), "detail": "", "title": "", "tag": "mine" if i == 50 else "", "colour": 0}
        for i in range(100)
    ]
    chain = {"nodes": nodes, "edges": [[i, i + 1, "data"] for i in range(99)]}
    small = kept_lineage(chain, 5, "mine")
    assert [node["label"] for node in small["nodes"]] == ["48", "49", "50", "51", "52"]
    assert small["edges"] == [[i, i + 1, "data"] for i in range(4)]
    assert small["hidden"] == 95
    assert small["nodes"][0]["colour"] == 0


@pytest.mark.parametrize("most", [0, 1, 3])
def test_what_is_given_no_room_is_empty_and_says_so(most: int) -> None:
    assert len(kept_lineage(graph(4, "x"), most)["nodes"]) == most
    made, _ = saved.fitted({}, {"tasks": saved.Part(lambda n: ["x" * 100] * n, 8)}, 0)
    assert made == {"tasks": []}
