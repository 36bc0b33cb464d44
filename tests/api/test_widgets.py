"""nbray.widgets where there is no notebook: their repr is the text form, and they never start a cluster by being looked at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbray
from nbray.cards.spans import Spans
from nbray.trace import TraceRecord, as_dict, from_dict
from nbray.widgets import Cluster, Lineage, Objects, Progress, Timeline
from nbray.widgets.lineage import around
from nbray.widgets.timeline import lanes

EVIL = "<img src=x onerror=alert(1)>"
S = 10**9


@nbray.remote
def passes(path: str, value: int = 1) -> int:
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)
    if value < 0:
        raise ValueError(value)
    return value


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    nbray.init(num_cpus=2)
    yield
    nbray.shutdown()


def html_of(view: Any) -> str:
    return str(view._repr_mimebundle_()["text/html"])


def test_looking_starts_no_cluster() -> None:
    for view in (Cluster(), Timeline(), Lineage(), Objects()):
        assert repr(view)
        assert html_of(view)
    assert "not attached to a cluster" in repr(Cluster())
    assert repr(Timeline()) == "No tasks have run yet."
    assert not nbray.is_initialized()


def test_importing_the_views_brings_no_front_end_with_it() -> None:
    heavy = ("IPython", "anywidget", "ipywidgets", "traitlets")
    code = f"import sys, nbray.widgets; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.usefixtures("cluster")
def test_progress_counts_what_ends_and_lets_it_go(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    refs = [passes.remote(str(first)), passes.remote(str(first), -1), passes.remote(str(second))]
    view = Progress(refs)
    assert "0 of 3 tasks done" in repr(view)
    first.touch()
    nbray.wait(refs, num_returns=2, timeout=60)
    assert "1 of 3 tasks done, 1 failed" in repr(view)
    assert "left" in repr(view)
    second.touch()
    nbray.wait(refs, num_returns=3, timeout=60)
    assert repr(view).startswith("✗ failed · [")
    assert "2 of 3 tasks done, 1 failed" in html_of(view)
    assert not view._pending, "what is ready is held by whoever wants it, not by the view"


@pytest.mark.usefixtures("cluster")
def test_progress_takes_generators_and_one_reference_and_nothing_else() -> None:
    def three() -> Iterator[int]:
        yield from range(3)

    items = nbray.remote(three).remote()
    nbray.get(items.completed())
    assert "1 of 1 task done" in repr(Progress(items))
    assert "1 of 1 task done" in repr(Progress(nbray.put(1)))
    assert "0 of 0 tasks done" in repr(Progress([]))
    for wrong in ([1], 3, "refs"):
        with pytest.raises(TypeError, match="takes references, generators or a handle"):
            Progress(wrong)


@pytest.mark.usefixtures("cluster")
def test_a_timeline_without_a_notebook_has_everything_that_ran(tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    nbray.get([passes.options(name=EVIL).remote(str(tmp_path / "open")) for _ in range(3)])
    view = Timeline()
    assert EVIL in repr(view)
    assert "busy" in repr(view)
    assert EVIL not in html_of(view)
    assert "<svg" in html_of(view)
    with pytest.raises(LookupError, match="nothing is known of the tasks of 7"):
        Timeline(7)


@pytest.mark.usefixtures("cluster")
def test_the_cluster_says_the_same_as_text_and_as_html() -> None:
    view = Cluster()
    for said in (repr(view), html_of(view)):
        assert "1 node" in said
        assert "2 CPUs" in said
        assert "object store" in said


@pytest.mark.usefixtures("cluster")
def test_lineage_says_what_a_reference_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").touch()
    source = passes.options(name=EVIL).remote(str(tmp_path / "open"))
    result = passes.options(name="last").remote(str(tmp_path / "open"), source)
    nbray.get(result)
    monkeypatch.setattr(sys.modules["__main__"], "scores", result, raising=False)
    for what in ("last", result, "scores"):
        said = repr(Lineage(what))
        assert "last" in said.splitlines()[0] or "scores" in said.splitlines()[0]
        assert EVIL in said
        assert EVIL not in html_of(Lineage(what))
    assert EVIL in repr(Lineage())
    assert "is not in the lineage yet; there is: " in repr(Lineage("nonsense"))
    with pytest.raises(TypeError, match="a name, a cell's number or a reference"):
        Lineage([result])


def test_what_lies_around_a_node_is_what_it_came_from_and_what_came_of_it() -> None:
    nodes = [{"key": key} for key in "abcdx"]
    graph = {"nodes": nodes, "edges": [[0, 1, "data"], [1, 2, "data"], [4, 2, "data"], [3, 3, "data"]], "coarse": False}
    found = around(graph, "b")
    assert [node["key"] for node in found["nodes"]] == ["a", "b", "c"]
    assert found["edges"] == [[0, 1, "data"], [1, 2, "data"]]
    assert found["coarse"] is False


@pytest.mark.usefixtures("cluster")
def test_objects_are_listed_by_the_names_that_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "small_one", nbray.put(1), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "large_one", nbray.put(b"x" * 1_000_000), raising=False)
    said = repr(Objects())
    assert said.index("large_one") < said.index("small_one")
    assert "1.0 MB" in said
    assert "large_one" in html_of(Objects())
    assert Objects()._commands()["release"](["large_one"]).startswith("large_one released")
    assert "large_one" not in repr(Objects())
    vars(sys.modules["__main__"])["large_one"] = None  # for monkeypatch to take away


def test_lanes_say_when_each_worker_was_busy() -> None:
    spans = Spans()
    for row, (start, end) in enumerate([(0, 4), (2, 4), (3, 4)]):
        record = TraceRecord("task", bytes(16), "f", "FINISHED", node=b"n" * 8, worker=bytes([row // 2]) * 8, submitted_ns=1)
        record.started_ns, record.ended_ns = 1 + start * S, 1 + end * S
        spans.add([record], 1)
    both, last = lanes(spans)
    assert "100% busy, 2 tasks" in both
    assert "25% busy, 1 task" in last
    assert lanes(Spans()) == []


def test_a_record_is_what_it_was_after_a_way_through_json() -> None:
    record = TraceRecord("task", b"i" * 16, "f", "FINISHED", parent=b"p" * 16, node=b"n" * 8, needs=[b"x" * 20], demand={"CPU": 1})
    assert from_dict(as_dict(record)) == record


def test_what_was_asked_of_a_session_that_has_ended_says_so() -> None:
    nbray.shutdown()
    nbray.init(num_cpus=1)
    view = Progress([nbray.remote(num_cpus=2)(lambda: 1).remote()])
    nbray.shutdown()
    assert "belong to a session that has ended" in repr(view)
    assert "not attached" in repr(Cluster())
