"""A cell at work, as a model: what its counts, times, verdict and pages come to from the facts it is given."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable

import msgspec
import pytest

from nbray.cards import page, words
from nbray.cards.run import Run, error_text
from nbray.cards.spans import COLUMNS, Spans
from nbray.engines.port import CellProgress, NameCount
from nbray.trace import TraceRecord
from nbray.wire.messages import Stuck

S = 10**9
BEGUN = 1_000 * S
EVIL = "<img src=x onerror=alert(1)>"


def record(
    number: int,
    start: float,
    end: float,
    name: str = "f",
    worker: int = 0,
    state: str = "FINISHED",
    detail: str = "",
    needs: Iterable[int] = (),
) -> TraceRecord:
    """A task that ran from `start` to `end` seconds after the run began; submitted at its beginning."""
    return TraceRecord(
        "task", task(number), name, state, "cell", b"", b"n" * 8, worker.to_bytes(8, "big"), 0, BEGUN, 0,
        BEGUN + round(start * S) if end else 0, BEGUN + round(end * S), BEGUN + round(end * S), 0,
        [task(n) + b"\0\0\0\0" for n in needs], 1, detail,
    )  # fmt: skip


def task(number: int) -> bytes:
    return number.to_bytes(16, "big")


def run_of(records: list[TraceRecord], queued: int = 0, running: int = 0) -> Run:
    run = Run("In[7]", BEGUN)
    names: dict[str, NameCount] = {}
    for each in records:
        count = names.setdefault(each.name, NameCount())
        count.submitted += 1
        count.done += each.state == "FINISHED"
        count.failed += each.state == "FAILED"
        count.cancelled += each.state == "CANCELLED"
    if queued or running:
        count = names.setdefault("f", NameCount())
        count.submitted += queued + running
        count.running += running
    run.take(CellProgress(names, records))
    return run


def test_a_running_cell_tells_counts_time_and_what_is_left() -> None:
    run = run_of([record(0, 0, 1), record(1, 0, 1, worker=1)], queued=4, running=2)
    shot = run.snapshot(BEGUN + S)
    assert shot["counts"] == {"submitted": 8, "queued": 4, "inputs": 0, "running": 2, "done": 2, "failed": 0, "cancelled": 0}
    assert shot["left_s"] == pytest.approx(2.5)  # 4 waiting and half of 2 running, 1 s each, on 2 workers
    assert shot["speed_up"] == pytest.approx(2.0)
    assert words.line(shot) == "▸ running · In[7] · 2 of 8 tasks done, 2 running, 4 queued · 1.0 s, about 2.5 s left · 2 workers"


def test_an_estimate_is_a_lower_bound_while_tasks_are_being_submitted() -> None:
    run = run_of([record(0, 0, 1)], queued=2)
    assert ", about 2.0 s left" in words.line(run.snapshot(BEGUN + S))
    run.take(CellProgress({"f": NameCount(6, done=1)}, []))
    assert "at least 5.0 s left (more tasks are being submitted)" in words.line(run.snapshot(BEGUN + S))
    run.take(CellProgress({"f": NameCount(6, done=1)}, []))
    assert ", about 5.0 s left" in words.line(run.snapshot(BEGUN + S))


def test_before_a_task_has_ended_it_is_known_that_none_takes_less_than_the_first_has_so_far() -> None:
    run = run_of([], queued=3)
    assert run.snapshot(BEGUN + S)["left_s"] is None
    run.take(CellProgress({"f": NameCount(5, running=2)}, []), BEGUN + S)
    assert run.snapshot(BEGUN + S)["left_s"] is None
    assert run.snapshot(BEGUN + 3 * S)["left_s"] == pytest.approx(3)  # 3 queued, 2 s at least each, on 2 workers
    assert "at least 3.0 s left (nothing of f has ended yet)" in words.line(run.snapshot(BEGUN + 3 * S))


def test_what_is_left_of_short_tasks_goes_by_their_pace_and_of_long_ones_by_their_work() -> None:
    short = [record(i, i / 1000, i / 1000 + 0.0001) for i in range(1000)]
    assert run_of(short, queued=500).snapshot(BEGUN + S)["left_s"] == pytest.approx(0.5)
    long = [record(i, i, i + 0.01) for i in range(200)]
    assert run_of(long, queued=100).snapshot(BEGUN + 200 * S)["left_s"] == pytest.approx(1.0)


def test_the_verdict_names_the_gain_and_what_the_workers_waited_for() -> None:
    run = run_of([record(0, 0, 1, "load"), record(1, 0, 1, "load", 1), record(2, 1, 5, "fit")])
    run.end(BEGUN + 5 * S)
    assert run.state == "done"
    assert run.verdict() == "1.2x faster than one core; 40% of the time workers waited for fit"


def test_a_gap_in_which_nothing_ran_is_the_notebooks() -> None:
    run = run_of([record(0, 0, 1, worker=0), record(1, 0, 1, worker=1), record(2, 2, 3, worker=0), record(3, 2, 3, worker=1)])
    run.end(BEGUN + 3 * S)
    assert run.verdict() == "1.3x faster than one core; 33% of the time workers waited for the notebook to submit more"


def test_a_tail_of_one_function_is_called_the_last_tasks() -> None:
    run = run_of([record(0, 0, 1), record(1, 0, 3, worker=1)])
    run.end(BEGUN + 3 * S)
    assert run.verdict() == "1.3x faster than one core; 33% of the time workers waited for the last tasks to end"


def test_short_tasks_are_told_to_be_mostly_overhead() -> None:
    run = run_of([record(i, i / 1000, i / 1000 + 0.0002, worker=i % 2) for i in range(100)])
    run.end(BEGUN + S // 10)
    assert run.verdict() == "no faster than one core: tasks of 0.2 ms are mostly overhead; more work per task (--chunk) helps"


def test_identical_failures_are_folded_and_head_the_verdict() -> None:
    failed = [record(i, 0, 1, state="FAILED", detail="RayTaskError ZeroDivisionError: division by zero\nmore") for i in range(3)]
    run = run_of([*failed, record(4, 0, 1, state="FAILED", detail="WorkerCrashedError : gone"), record(5, 0, 1)])
    run.end(BEGUN + S)
    assert run.state == "failed"
    assert run.verdict() == "ZeroDivisionError: division by zero ×3, and 1 other kind of error"
    assert run.snapshot(0)["errors"] == [
        {"text": "ZeroDivisionError: division by zero", "count": 3},
        {"text": "WorkerCrashedError: gone", "count": 1},
    ]


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ("", "an error"),
        ("RayTaskError ValueError: a\nb", "ValueError: a"),
        ("NodeDiedError : it went", "NodeDiedError: it went"),
        ("RayTaskError X: " + "y" * 500, "X: " + "y" * 196 + "…"),
    ],
)
def test_one_line_stands_for_a_failure(detail: str, said: str) -> None:
    assert error_text(detail) == said


def test_a_task_that_never_began_has_no_span_and_is_counted() -> None:
    run = run_of([record(0, 0, 0, state="CANCELLED"), record(1, 0, 1)])
    run.end(BEGUN + S)
    assert (len(run.spans), run.total().cancelled, run.state) == (1, 1, "cancelled")


def test_spans_travel_as_twenty_three_bytes_each_column_after_column() -> None:
    spans = Spans()
    spans.add([record(0, 0.5, 1)], BEGUN)
    late = msgspec.structs.replace(record(1, 1, 2, "g", 3, "FAILED"), fetch_ns=S // 4)
    spans.add([late], BEGUN)
    packed = spans.packed(0, 2)
    assert struct.unpack("<2f2f2f2H2H2H2B2f", packed) == (0, 0, 500, 1000, 1000, 2000, 0, 1, 0, 1, 0, 0, 0, 1, 0, 250)
    assert len(packed) == 2 * 23
    assert spans.packed(1, 2) == struct.pack("<fffHHHBf", 0, 1000, 2000, 1, 1, 0, 1, 250)
    assert [code for _, code in COLUMNS] == list("fffHHHBf")


def test_a_kept_card_has_every_failed_task_and_the_longest_others() -> None:
    spans = Spans()
    for i in range(100):
        spans.add([record(i, i, i + 0.1 + i / 1000, state="FAILED" if i == 3 else "FINISHED")], BEGUN)
    kept = base64.b64decode(spans.chosen(10))
    starts = struct.unpack("<10f", kept[40:80])
    assert starts[0] == 3000
    assert starts[1:] == tuple(1000.0 * i for i in range(91, 100))


def test_what_users_name_things_is_text_on_the_page() -> None:
    run = run_of([record(0, 0, 1, EVIL, state="FAILED", detail=f"RayTaskError ValueError: {EVIL}"), record(1, 0, 1, "g", 1)])
    run.title = EVIL
    run.end(BEGUN + S)
    html = page.page(run.snapshot(0), run.spans)
    assert "<img" not in html
    assert "&lt;img" in html
    assert html.count("<rect") >= 4


def test_the_text_says_what_the_picture_says() -> None:
    run = run_of([record(0, 0, 1, "load"), record(1, 1, 3, "fit", 1)])
    run.end(BEGUN + 3 * S)
    assert words.text(run.snapshot(0)).splitlines() == [
        "✓ done · In[7] · 2 tasks · 3.0 s · 2 workers · no faster than one core; 50% of the time workers waited for fit",
        "  load  1 task, 1.0 s each",
        "  fit   1 task, 2.0 s each",
    ]


def test_snapshots_are_small_whatever_ran() -> None:
    run = run_of([record(i, i, i + 1, worker=i % 8) for i in range(5000)])
    run.end(BEGUN + S)
    assert len(msgspec.json.encode(run.snapshot(0))) < 2000
    assert len(page.page(run.snapshot(0), run.spans)) < 60_000


def test_a_task_that_waits_for_tasks_of_its_own_does_no_work_meanwhile() -> None:
    above = msgspec.structs.replace
    children = [above(record(10 + i, 1 + i, 2 + i, "leaf", 1), parent=task(1)) for i in range(3)]
    run = run_of([*children, record(1, 0, 5, "top")])
    run.end(BEGUN + 5 * S)
    assert run.busy_s() == pytest.approx(5)
    assert run.verdict().startswith("no faster than one core")


def test_what_is_left_is_a_lower_bound_while_some_function_has_not_ended_once() -> None:
    run = run_of([record(0, 0, 1), record(1, 0, 1, worker=1)], queued=4)
    run.names["fit"] = NameCount(3, running=1)
    shot = run.snapshot(BEGUN + S)
    assert shot["left_s"] == pytest.approx(2)
    assert "1.0 s, at least 2.0 s left (nothing of fit has ended yet)" in words.line(shot)
    assert "left" not in words.line({**shot, "left_s": 0.02})
    assert "1.0 s, nothing of fit has ended yet" in words.line({**shot, "left_s": 0.02})
    run.names["score"] = NameCount(1)
    assert "(nothing of fit and 1 other function has ended yet)" in words.line(run.snapshot(BEGUN + S))
    run.take(
        CellProgress(
            {**run.names, "fit": NameCount(3, 1), "score": NameCount(1, 1)}, [record(2, 1, 3, "fit"), record(3, 1, 2, "score")]
        )
    )
    assert run.snapshot(BEGUN + S)["left_note"] == ""


@pytest.mark.parametrize(
    ("inputs", "said"),
    [(0, "36 queued"), (6, "36 queued (6 wait for inputs, 30 for a worker)"), (36, "36 queued (waiting for inputs)")],
)
def test_what_is_queued_says_what_it_waits_for(inputs: int, said: str) -> None:
    run = Run("In[7]", BEGUN)
    run.take(CellProgress({"f": NameCount(40, 2, running=2, inputs=inputs)}, []))
    assert f"2 of 40 tasks done, 2 running, {said} · " in words.line(run.snapshot(BEGUN + S))


def test_what_can_never_run_stays_on_the_card_while_other_tasks_end() -> None:
    run = run_of([], queued=2)
    stuck = [Stuck("huge", "Needs num_cpus=77; the largest node has 2.", True), Stuck("later", "Needs num_cpus=2; all is in use.")]
    run.take(CellProgress({"f": NameCount(2, 1), "huge": NameCount(1)}, [record(0, 0, 1)], stuck=stuck))
    said = f"A task of huge can never run here as things are. {stuck[0].why} {stuck[1].why}"
    assert run.snapshot(BEGUN + S)["notice"] == said
    assert words.line(run.snapshot(BEGUN + S)).endswith(said)
    run.take(CellProgress({"f": NameCount(2, 1), "huge": NameCount(1)}, []))
    assert run.snapshot(BEGUN + S)["notice"] == ""


def test_the_verdict_says_when_time_went_into_moving_inputs() -> None:
    slow = [msgspec.structs.replace(record(i, 3, 4, worker=i), fetch_ns=3 * S) for i in range(2)]
    run = run_of(slow)
    run.end(BEGUN + 4 * S)
    assert run.verdict() == "no faster than one core; 75% of the time workers waited for their inputs to arrive"
    # Inputs that travel while the worker runs another task cost nothing.
    busy = [record(0, 0, 4), msgspec.structs.replace(record(1, 4, 5), fetch_ns=4 * S)]
    run = run_of(busy)
    run.end(BEGUN + 5 * S)
    assert run.verdict() == "no faster than one core: one worker ran everything"


def test_the_verdict_says_when_time_went_into_packing() -> None:
    run = run_of([record(0, 3, 4), record(1, 3, 4, worker=1)])
    run.packing_s = 2.4
    run.end(BEGUN + 4 * S)
    said = "no faster than one core; 60% of the time the notebook packed data to send: nbray.put what several tasks need once"
    assert run.verdict().startswith(said)
