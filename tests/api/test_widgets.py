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
from nbray.widgets import Cluster, Progress, Timeline
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
    for view in (Cluster(), Timeline()):
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


def test_lanes_say_when_each_worker_was_busy() -> None:
    spans = Spans()
    for row, (start, end) in enumerate([(0, 4), (2, 4), (3, 4)]):
        record = TraceRecord("task", bytes(16), "f", "FINISHED", node=b"n" * 8, worker=bytes([row // 2]) * 8, submitted_ns=1)
        record.started_ns, record.ended_ns = 1 + start * S, 1 + end * S
        spans.add(record, 1)
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
