"""What the head makes of the metrics that processes report: sums, last values, and what goes with a process."""

from __future__ import annotations

from typing import Any

import pytest

from nbray.head import metrics
from nbray.head.metrics import Metrics
from nbray.head.state import HeadState
from nbray.ids import HEAD, Address
from nbray.machine import Send
from nbray.wire.messages import Answer, Ask, Death, ProcessDied, WatchProcess

A, B = Address(b"node---1", b"worker-a"), Address(b"node---2", b"worker-b")


def counter(value: float, **tags: str) -> dict[str, Any]:
    return {"kind": "counter", "name": "hits", "help": "hits", "tags": tags, "value": value}


def gauge(value: float) -> dict[str, Any]:
    return {"kind": "gauge", "name": "depth", "value": value}


def histogram(value: float, buckets: list[int], boundaries: list[float] | None = None) -> dict[str, Any]:
    return {"kind": "histogram", "name": "took", "value": value, "boundaries": boundaries or [1.0, 2.0], "buckets": buckets}


def listed(book: Metrics, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(series[field] for field in fields) for series in book.listing({})]


def test_counters_and_histograms_are_summed_over_processes_and_outlive_them() -> None:
    book = Metrics()
    book.report(A, {"changes": [counter(1, path="/"), histogram(1.5, [0, 1, 0])]})
    book.report(B, {"changes": [counter(2, path="/"), counter(5, path="/x"), histogram(9.0, [1, 0, 2])]})
    book.forget(A.process)
    book.forget(B.process)
    assert listed(book, "name", "tags", "value", "buckets") == [
        ("hits", {"path": "/"}, 3, []),
        ("hits", {"path": "/x"}, 5, []),
        ("took", {}, 10.5, [1, 1, 2]),
    ]


def test_a_gauge_is_the_last_value_of_each_process_and_goes_with_it() -> None:
    book = Metrics()
    for reporter, value in ((A, 1), (B, 5), (A, 2)):
        assert book.report(reporter, {"changes": [gauge(value)]}) == 0
    assert listed(book, "value", "process", "node") == [
        (2, A.process.hex(), A.node.hex()),
        (5, B.process.hex(), B.node.hex()),
    ]
    book.forget(A.process)
    assert listed(book, "value") == [(5,)]
    book.forget_node(B.node)
    assert listed(book, "value") == []
    assert book.reporters == {}


def test_what_does_not_fit_its_name_is_refused_and_counted() -> None:
    book = Metrics()
    book.report(A, {"changes": [counter(1), histogram(1, [1, 0, 0])]})
    odd = {**gauge(1), "name": "hits"}
    short = histogram(1, [1, 0])
    other = histogram(1, [1, 0], [5.0])
    assert book.report(A, {"changes": [odd, short, other, {**counter(1), "kind": "nonsense"}]}) == 4
    assert listed(book, "name", "value") == [("hits", 1), ("took", 1)]


def test_tags_with_too_many_values_stop_at_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SERIES_MOST", 3)
    book = Metrics()
    assert book.report(A, {"changes": [counter(1, user=str(i)) for i in range(5)]}) == 2
    assert book.report(A, {"changes": [counter(1, user="0")]}) == 0


def test_the_head_watches_who_has_gauges_and_answers_every_report() -> None:
    head = HeadState(Address(b"node---1", HEAD), "session")
    effects = head.handle(Ask(7, A, "metrics_report", {"changes": [gauge(3), counter(1)]}), 0.0)
    assert Send(A, Answer(7, 0)) in effects
    assert head.watched == {A.process}
    assert not [
        e for e in head.handle(Ask(8, A, "metrics_report", {"changes": [gauge(4)]}), 0.0) if isinstance(e.message, WatchProcess)
    ]
    head.handle(ProcessDied(Death(A.process, A.node, signal=9)), 1.0)
    assert listed(head.questions.metrics, "name") == [("hits",)]
    # A report that the network brought after the news of the death.
    head.handle(Ask(9, A, "metrics_report", {"changes": [gauge(5), counter(1)]}), 1.0)
    assert listed(head.questions.metrics, "name", "value") == [("hits", 2)]
    head.check()


def test_what_is_no_report_is_answered_with_why() -> None:
    head = HeadState(Address(b"node---1", HEAD), "session")
    for arguments in ({}, {"changes": 3}, {"changes": [{"kind": 1}]}):
        (effect,) = head.handle(Ask(1, A, "metrics_report", arguments), 0.0)
        assert effect.message.error.startswith("this is no report of metrics")
