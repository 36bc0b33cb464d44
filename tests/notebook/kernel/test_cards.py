"""Run cards over a real kernel: when one appears, what its page is told and may ask for, and what it leaves in the notebook."""

from __future__ import annotations

import json
from typing import Any

import pytest

Kernel = Any
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT = "application/vnd.nbray.run.v1+json"

HELD = """
import pathlib, tempfile
gates = pathlib.Path(tempfile.mkdtemp())
def passes(name):
    while not (gates / name).exists():
        time.sleep(0.02)
    return name
gated = nbray.remote(passes)
"""


@pytest.fixture(scope="module")
def cards(kernel: Kernel) -> Kernel:
    kernel.ok(HELD)
    kernel.ok("nbray.get(nbray.remote(lambda: 1).remote())")
    kernel.subshell = kernel.create_subshell()
    return kernel


def shown_live(kernel: Kernel, cell: Any) -> str:
    """Wait for the live card under a cell; the id of its model."""
    kernel.until(lambda: any(WIDGET in data for data in cell.displays), "a live card")
    (data,) = (data for data in cell.displays if WIDGET in data)
    return str(data[WIDGET]["model_id"])


def drawn(kernel: Kernel, model: str) -> list[dict[str, Any]]:
    said = [c["data"].get("content", {}) for c in kernel.comms if c["type"] == "comm_msg" and c["comm_id"] == model]
    return [content for content in said if "snapshot" in content]


def open_gate(kernel: Kernel, name: str, gates: Any) -> None:
    (gates / name).touch()


@pytest.fixture(scope="module")
def gates(cards: Kernel) -> Any:
    from pathlib import Path

    return Path(cards.eval("str(gates)"))


def test_a_short_cell_shows_no_card_and_a_remote_one_its_line(cards: Kernel) -> None:
    assert cards.ok("nbray.get(nbray.remote(lambda: 1).remote())").displays == []
    (line,) = cards.ok("%%remote\n1").displays
    assert KEPT not in line
    assert line["text/plain"].startswith("✓ done")


def test_a_plain_cell_gets_a_live_card_and_keeps_a_static_one(cards: Kernel, gates: Any) -> None:
    cell = cards.start("ones = [gated.options(name='hold').remote('plain') for _ in range(3)]\nnbray.get(ones)")
    model = shown_live(cards, cell)
    assert "text/html" in cell.displays[0], "what a front end without widgets shows"
    cards.until(lambda: any(s["snapshot"]["counts"]["running"] == 2 for s in drawn(cards, model)), "two running tasks on the card")
    open_gate(cards, "plain", gates)
    cards.until(lambda: cell.idle and cell.reply is not None, "the end of the cell")
    kept = cell.updates[-1]
    assert WIDGET not in kept
    assert kept[KEPT]["state"] == "done"
    assert kept[KEPT]["counts"] == {"submitted": 3, "queued": 0, "inputs": 0, "running": 0, "done": 3, "failed": 0, "cancelled": 0}
    assert kept["text/plain"].startswith("✓ done · In[")
    assert "<svg" in kept["text/html"]
    assert any(c["type"] == "comm_close" and c["comm_id"] == model for c in cards.comms), "no model outlives its card"


def test_the_cancel_button_acts_while_the_cell_blocks(cards: Kernel) -> None:
    cell = cards.start("nbray.get([gated.remote('never') for _ in range(5)])")
    model = shown_live(cards, cell)
    assert cards.command(model, cards.subshell, "cancel")["result"] == 5
    cards.until(lambda: cell.idle and cell.reply is not None, "the end of the cell")
    assert cell.error["ename"] == "TaskCancelledError"
    assert cell.updates[-1][KEPT]["state"] == "cancelled"
    assert cell.updates[-1][KEPT]["counts"]["cancelled"] == 5


def test_the_background_button_gives_the_prompt_back(cards: Kernel, gates: Any) -> None:
    cell = cards.start("%%remote -o late\nlate = passes('bg')")
    model = shown_live(cards, cell)
    cards.command(model, cards.subshell, "background")
    cards.until(lambda: cell.idle and cell.reply is not None, "the prompt")
    assert cell.error is None
    assert cell.stderr == ""
    assert "goes on in the background" in cell.notes
    open_gate(cards, "bg", gates)
    cards.until(lambda: any(KEPT in data for data in cell.updates), "the static card")
    assert cards.eval("get_ipython()._nbray_extension.notebook.jobs[-1].result() or late") == "bg"


STREAMS = """
def streams():
    yield 1
    yield passes('next')
"""


def sent_to_background(kernel: Kernel, code: str, gates: Any, name: str) -> Any:
    """Press Background on the card of `code`, and open its gate when the prompt is back."""
    cell = kernel.start(code)
    model = shown_live(kernel, cell)
    answer = kernel.command(model, kernel.subshell, "background")
    kernel.until(lambda: cell.idle and cell.reply is not None, "the prompt")
    assert answer["result"] == "now"
    assert (cell.error, cell.stderr, cell.reply["status"]) == (None, "", "error"), "quiet, and what is queued behind does not run"
    kernel.ok("left = %nbray last")
    assert kernel.eval("left.done()") is False
    open_gate(kernel, name, gates)
    kernel.until(lambda: any(KEPT in data for data in cell.updates), "the static card")
    assert cell.updates[-1][KEPT]["state"] == "done"
    assert cell.updates[-1][KEPT]["counts"]["cancelled"] == 0
    return cell


@pytest.mark.parametrize(
    ("name", "code", "line", "value"),
    [
        ("get", "several = 3\nnbray.get([gated.remote('get') for _ in range(several)])", 2, ["get"] * 3),
        ("one", "def inner():\n    return nbray.get(gated.remote('one'))\ninner()", 2, "one"),
        ("wait", "nbray.wait([gated.remote('wait')])", 1, ["wait"]),
        ("next", "for ref in nbray.remote(streams).remote():\n    nbray.get(ref)", 1, ["next"]),
        ("await", "await gated.remote('await')", 1, "await"),
        (
            "gather",
            "import asyncio\nasync def f(ref):\n    return await ref\nawait asyncio.gather(*map(f, [gated.remote('gather')] * 2))",
            3,
            ["gather"] * 2,
        ),
    ],
)
def test_a_plain_cell_that_waits_goes_to_the_background(
    cards: Kernel, gates: Any, name: str, code: str, line: int, value: object
) -> None:
    cards.ok(STREAMS)
    cell = sent_to_background(cards, code, gates, name)
    several = 3 if name == "get" else 1
    going_on = "1 task goes on" if several == 1 else f"{several} tasks go on"
    assert f"is in the background: {going_on}, and its code stopped at line {line}. %nbray last has" in cell.notes
    assert cards.eval("left.result(timeout=60)") == value


def test_a_cell_that_computes_goes_to_the_background_at_its_next_wait(cards: Kernel, gates: Any) -> None:
    body = "ref = gated.remote('later')\nwhile not (gates / 'computed').exists():\n    time.sleep(0.01)\nnbray.get(ref)"
    cell = cards.start(body)
    model = shown_live(cards, cell)
    assert cards.command(model, cards.subshell, "background")["result"] == "later"
    cards.until(lambda: any(message["snapshot"]["leaves_later"] for message in drawn(cards, model)), "the card to say so")
    assert not drawn(cards, model)[-1]["snapshot"]["can_background"]
    open_gate(cards, "computed", gates)
    cards.until(lambda: cell.idle and cell.reply is not None, "the prompt")
    assert "its code stopped at line 4" in cell.notes
    assert "in the background" in cards.ok("%nbray last").value
    open_gate(cards, "later", gates)
    assert cards.eval("nbray.get(ref)") == "later"


def test_a_page_can_ask_for_everything_again_and_for_what_is_held(cards: Kernel, gates: Any) -> None:
    cell = cards.start("first = gated.remote('again')\nsecond = nbray.put('x' * 10)\nnbray.get(first)")
    model = shown_live(cards, cell)
    before = len(drawn(cards, model))
    cards.command(model, cards.subshell, "resync")
    cards.until(lambda: len(drawn(cards, model)) > before, "another snapshot")
    assert drawn(cards, model)[-1]["first"] == 0
    held = cards.command(model, cards.subshell, "objects")["result"]
    assert {row["names"] for row in held["rows"]} >= {"first", "second"}
    released = cards.command(model, cards.subshell, "release", names=["second"])["result"]
    assert released == "second released; nothing holds it any more"
    assert "ValueError" not in cards.command(model, cards.subshell, "lineage").get("error", "")
    refused = cards.command(model, cards.subshell, "no such thing")
    assert "KeyError" in refused["error"]
    open_gate(cards, "again", gates)
    cards.until(lambda: cell.idle and cell.reply is not None, "the end of the cell")
    assert cards.eval("'second' in globals()") is False


def test_the_lineage_of_a_running_cell_has_what_runs_and_what_waits(cards: Kernel, gates: Any) -> None:
    named = "gated.options(name='runs').remote('lineage')"
    cell = cards.start(
        f"held = {named}\nmore = [gated.options(name='waits').remote(held) for _ in range(8)]\nnbray.get(held); nbray.get(more)"
    )
    model = shown_live(cards, cell)
    cards.until(lambda: any(m["snapshot"]["counts"]["running"] for m in drawn(cards, model)), "a task that runs")
    graph = cards.command(model, cards.subshell, "lineage")["result"]
    found = {node["label"]: node for node in graph["nodes"]}
    assert found["runs"]["detail"].startswith("▸ running")
    assert found["waits ×8"]["detail"].startswith("○ 8 queued")
    pairs = {(graph["nodes"][a]["label"], graph["nodes"][b]["label"]) for a, b, _ in graph["edges"]}
    assert {("runs", "waits ×8"), ("runs", "held"), ("waits ×8", "more")} <= pairs
    open_gate(cards, "lineage", gates)
    cards.until(lambda: cell.idle and cell.reply is not None, "the end of the cell")


def test_what_the_names_held_at_the_end_stays_with_the_card(cards: Kernel, gates: Any) -> None:
    cell = cards.start("kept_ref = nbray.put('x' * 300_000); end = gated.remote('objects'); nbray.get(end)")
    shown_live(cards, cell)
    open_gate(cards, "objects", gates)
    cards.until(lambda: any((data.get(KEPT) or {}).get("objects") for data in cell.updates), "the objects on the card that stays")
    kept = cell.updates[-1][KEPT]
    (row,) = [row for row in kept["objects"]["rows"] if row["names"] == "kept_ref"]
    assert row["type"] == "str of 300,000"
    assert "release" not in row
    assert kept["objects"]["size"] >= 300_000
    assert kept["objects"]["at_ms"] >= kept["begun_ms"]
    assert kept["ran"] == 1


def test_a_failure_heads_its_card_and_the_error_follows(cards: Kernel) -> None:
    cell = cards.run("%%remote --each i=range(4)\nimport time\ntime.sleep(0.4)\n1 / (i - 2)")
    kept = cell.updates[-1]
    assert kept[KEPT]["state"] == "failed"
    assert kept[KEPT]["errors"] == [{"text": "ZeroDivisionError: division by zero", "count": 1}]
    assert "ZeroDivisionError" in kept["text/plain"]
    assert cell.error["ename"].endswith("ZeroDivisionError)") or cell.error["ename"] == "ZeroDivisionError"


def test_many_tasks_are_counted_exactly_in_a_bounded_number_of_messages(cards: Kernel) -> None:
    before = len(cards.comms)
    cell = cards.ok("@nbray.remote\ndef tiny(i):\n    return i\nsum(nbray.get([tiny.remote(i) for i in range(20_000)]))")
    assert cell.value == str(sum(range(20_000)))
    cards.until(lambda: any(KEPT in data for data in cell.updates), "the static card")
    seconds = cell.updates[-1][KEPT]["elapsed_s"]
    assert cell.updates[-1][KEPT]["counts"]["done"] == 20_000
    messages = [c for c in cards.comms[before:] if c["type"] == "comm_msg"]
    assert len(messages) <= 10 * (seconds + 1)
    assert len(json.dumps(cell.updates[-1][KEPT])) < 100_000


def test_cards_can_be_switched_off(cards: Kernel) -> None:
    cards.ok("%nbray config --view line")
    try:
        assert cards.ok("nbray.get(nbray.remote(time.sleep).remote(0.5))").displays == []
        (line,) = cards.ok("%%remote\nimport time\ntime.sleep(0.5)").displays
        assert KEPT not in line
    finally:
        cards.ok("%nbray config --reset")


def test_a_plan_is_asked_for_while_the_cell_runs_kept_with_its_card_and_told_by_a_magic(cards: Kernel, gates: Any) -> None:
    first = "first = [nbray.remote(lambda: time.sleep(0.2)).remote() for _ in range(2)]; nbray.get(first)"
    cell = cards.start(f"{first}; planned = gated.remote('planned'); nbray.get(planned)")
    model = shown_live(cards, cell)
    cards.until(lambda: any(m["snapshot"]["counts"]["done"] == 2 for m in drawn(cards, model)), "two tasks that are done")
    live = cards.command(model, cards.subshell, "plan")
    assert live["result"]["seconds"][0][0] == pytest.approx(0.4, rel=0.3)
    open_gate(cards, "planned", gates)
    cards.until(lambda: cell.idle and cell.reply is not None, "the end of the cell")
    cards.until(lambda: any((data.get(KEPT) or {}).get("plan") for data in cell.updates), "the plan on the card that stays")
    kept = cell.updates[-1]
    assert "the critical path alone is" in kept["text/plain"]
    assert "Plan: how long it would take elsewhere" in kept["text/html"]
    (told,) = cards.ok("%nbray plan --cores 1,4").displays
    assert "4 cores: " in told["text/plain"]
    assert "the critical path alone is" in told["text/html"]


def test_the_verdict_says_how_much_of_the_time_went_into_packing_inputs(cards: Kernel) -> None:
    cards.ok("class Slow:\n    def __reduce__(self):\n        time.sleep(0.5)\n        return int, ()")
    cards.ok("import time\ndef slept(*_):\n    time.sleep(0.5)")
    for line in ("%%remote --in slow,slept\nslept(slow)", "nbray.get(nbray.remote(slept).remote(slow, bytes(10**6)))"):
        cards.ok("slow = Slow()")
        cell = cards.ok(line)
        cards.until(lambda cell=cell: any(KEPT in data for data in (*cell.updates, *cell.displays)), "the static card")
        (kept,) = [data[KEPT] for data in (*cell.updates, *cell.displays) if KEPT in data][-1:]
        assert "of the time the notebook packed data to send" in kept["verdict"]
        assert kept["elapsed_s"] >= 0.5


def test_a_plan_of_an_unknown_cell_says_which_there_are(cards: Kernel) -> None:
    assert "cells that are: In[" in cards.run("%nbray plan 9999").stderr


NESTING = """
@nbray.remote
def leaf(i):
    if i == 3:
        raise ValueError('the third')
    return i
@nbray.remote
def middle(n):
    return sum(nbray.get([leaf.remote(2) for _ in range(n)]))
@nbray.remote
def top(n):
    import time; time.sleep(0.4)
    nbray.wait([leaf.remote(3)])
    return sum(nbray.get([middle.remote(n) for _ in range(2)]))
"""


def test_tasks_of_tasks_are_on_the_card_exactly(cards: Kernel) -> None:
    cards.ok(NESTING)
    cell = cards.ok("nbray.get([top.remote(5) for _ in range(3)])")
    assert cell.value == "[20, 20, 20]"
    cards.until(lambda: any(KEPT in data for data in cell.updates), "the static card")
    kept = cell.updates[-1][KEPT]
    assert kept["counts"] == {"submitted": 42, "queued": 0, "inputs": 0, "running": 0, "done": 39, "failed": 3, "cancelled": 0}
    assert kept["nested"] == 39
    assert kept["spans"] == 42
    assert {row["name"]: row["submitted"] for row in kept["names"]} == {"top": 3, "middle": 6, "leaf": 33}
    assert kept["errors"] == [{"text": "ValueError: the third", "count": 3}]
    assert "42 tasks" in cell.updates[-1]["text/plain"] or "of 42 tasks done" in cell.updates[-1]["text/plain"]
    assert "(39 submitted by tasks)" in cell.updates[-1]["text/plain"]


def test_a_task_that_outlives_the_one_that_submitted_it_keeps_the_card(cards: Kernel, gates: Any) -> None:
    cards.ok("@nbray.remote\ndef leaves():\n    globals()['kept'] = gated.options(name='left').remote('left')")
    cell = cards.ok("nbray.get(leaves.remote())")
    model = shown_live(cards, cell)
    cards.until(lambda: any(m["snapshot"]["counts"]["running"] == 1 for m in drawn(cards, model)), "the task that was left")
    open_gate(cards, "left", gates)
    cards.until(lambda: any(KEPT in data for data in cell.updates), "the static card")
    assert cell.updates[-1][KEPT]["counts"]["done"] == 2


def test_what_tasks_print_is_on_the_card_by_task_live_and_kept(cards: Kernel, gates: Any) -> None:
    cards.ok(
        "@nbray.remote\ndef chats(i):\n    import sys\n    print('out', i)\n    print('err', i, file=sys.stderr)\n"
        "    return passes('chats')"
    )
    cell = cards.start("nbray.get([chats.remote(i) for i in range(2)])")
    model = shown_live(cards, cell)
    cards.until(lambda: any(m["snapshot"]["printed"] == 4 for m in drawn(cards, model)), "four lines")
    live = cards.command(model, cards.subshell, "output")["result"]
    assert sorted((piece["stream"], piece["text"]) for piece in live["pieces"]) == [
        ("stderr", "err 0\n"), ("stderr", "err 1\n"), ("stdout", "out 0\n"), ("stdout", "out 1\n"),
    ]  # fmt: skip
    assert {piece["who"] for piece in live["pieces"]} == {"chats"}
    open_gate(cards, "chats", gates)
    cards.until(lambda: any(KEPT in data for data in cell.updates), "the static card")
    assert cell.updates[-1][KEPT]["output"] == live


def test_the_timeline_of_a_cell_is_a_card_that_says_who_was_busy_when_and_a_file_for_perfetto(cards: Kernel) -> None:
    cards.ok("%%remote --name busy_cell --each i=range(2)\nimport time\ntime.sleep(0.1)")
    (shown,) = cards.ok("%nbray timeline busy_cell").displays
    assert " busy, " in shown["text/plain"]
    assert KEPT in shown
    said = cards.ok("%nbray timeline busy_cell --save trace.json").stdout
    assert "of busy_cell in trace.json" in said
    assert cards.eval("len([e for e in __import__('json').load(open('trace.json')) if e['ph'] == 'X'])") == 2
    for line in ("timeline no_such_cell", "timeline --save /nowhere/at/all", "attach /nowhere"):
        assert "UsageError" in cards.run(f"%nbray {line}").stderr


def test_a_card_says_how_many_items_its_tasks_have(cards: Kernel) -> None:
    cell = cards.ok("%%remote --each i=range(7) --chunk 3\nimport time\ntime.sleep(0.2)")
    assert "7 items in 3 tasks" in cell.updates[-1]["text/plain"]


def test_the_reason_for_waiting_is_under_the_cell_unless_a_page_draws_the_card(cards: Kernel) -> None:
    cell = cards.start("%%remote --num-cpus 77\n1")
    model = shown_live(cards, cell)
    cards.until(lambda: "num_cpus=77" in cell.notes, "the reason")
    cards.until(lambda: any("can never run here" in m["snapshot"]["notice"] for m in drawn(cards, model)), "it on the card too")
    cards.command(model, cards.subshell, "cancel")
    cards.until(lambda: cell.idle and cell.reply is not None, "the end of the cell")


def test_what_a_task_submitted_and_no_node_can_run_is_on_the_card_of_its_cell(cards: Kernel) -> None:
    cards.ok("@nbray.remote\ndef asks():\n    return nbray.get(gated.options(num_cpus=55, name='wide').remote('never'))")
    cell = cards.start("nbray.get(asks.remote())")
    model = shown_live(cards, cell)
    said = "A task of wide can never run here as things are. Needs num_cpus=55"
    cards.until(lambda: any(said in m["snapshot"]["notice"] for m in drawn(cards, model)), "the reason")
    cards.command(model, cards.subshell, "cancel")
    cards.until(lambda: cell.idle and cell.reply is not None, "the end of the cell")


def test_tasks_in_the_background_are_cancelled_as_those_of_a_job(cards: Kernel) -> None:
    cards.ok("import time")  # which an --each cell may have made a list
    cell = cards.start("nbray.get([gated.remote('not opened') for _ in range(4)])")
    model = shown_live(cards, cell)
    cards.command(model, cards.subshell, "background")
    cards.until(lambda: cell.idle and cell.reply is not None, "the prompt")
    assert "tasks cancelled: 4" in cards.ok("%nbray cancel").stdout
    cards.until(lambda: any(KEPT in data for data in cell.updates), "the static card")
    assert cell.updates[-1][KEPT]["counts"]["cancelled"] == 4
