"""What a script's terminal shows of lines that several processes print alike: the first, the last, and how many."""

from __future__ import annotations

import re
import time

import pytest

from nbray.driver.folding import Fold, Rules
from nbray.driver.showing import Terminal, rules_from_environment
from nbray.engines.port import OutputEvent


def fold(**rules: object) -> Fold:
    return Fold(Rules(**rules), " (how to turn it off)")  # type: ignore[arg-type]


def test_the_first_line_is_shown_at_once_and_the_rest_folded_with_their_number() -> None:
    lines = fold()
    assert lines.take("a", "(f pid=1) ", ["hello"], 0.0) == ["(f pid=1) hello"]
    for pid in (2, 3, 4):
        assert lines.take(pid, f"(f pid={pid}) ", ["hello"], 1.0) == []
    assert lines.due(4.9) == []
    assert lines.due(5.0) == ["(f pid=4) hello [repeated 3x across cluster] (how to turn it off)"]


def test_the_notice_is_said_once() -> None:
    lines = fold()
    for word in ("hello", "bye"):
        for pid in (1, 2, 3):
            lines.take(pid, "", [word], 0.0)
    assert [line.count("how to turn it off") for line in lines.flush(1.0)] == [1, 0]


def test_what_one_process_repeats_is_all_shown() -> None:
    lines = fold()
    assert [lines.take("a", "", ["again"], i * 0.1) for i in range(5)] == [["again"]] * 5


def test_one_line_that_was_held_back_is_shown_as_it_was() -> None:
    lines = fold()
    lines.take("a", "(f pid=1) ", ["hello"], 0.0)
    lines.take("b", "(f pid=2) ", ["hello"], 0.0)
    assert lines.flush(0.1) == ["(f pid=2) hello"]


def test_words_with_digits_make_no_difference_and_lines_of_figures_are_all_shown() -> None:
    lines = fold()
    assert lines.take("a", "", ["step 1 done", "17"], 0.0) == ["step 1 done", "17"]
    assert lines.take("b", "", ["step 2 done", "17"], 0.0) == ["17"]
    assert lines.flush(1.0) == ["step 2 done"]


def test_what_is_held_back_names_its_deadline_and_nothing_is_held_for_ever() -> None:
    lines = fold(window_s=2.0)
    lines.take("a", "", ["hello"], 0.0)
    assert lines.next_deadline() is None
    lines.take("b", "", ["hello"], 1.0)
    assert lines.next_deadline() == 2.0
    assert lines.due(2.0) == ["hello"]
    assert lines.next_deadline() is None


def test_every_line_counts_whatever_the_order() -> None:
    lines = fold(window_s=1.0)
    shown = []
    for i in range(100):
        shown += lines.take(i % 7, "", ["same"], i * 0.05)
    shown += lines.flush(100.0)
    counted = sum(int(m[1]) if (m := re.search(r"repeated (\d+)x", line)) else 1 for line in shown)
    assert counted == 100


def test_some_are_never_folded_and_some_never_shown() -> None:
    lines = fold(shown=re.compile("keep"), left_out=re.compile("noise|keep"))
    for pid in (1, 2, 3):
        assert lines.take(pid, "", ["keep me", "noise"], 0.0) == ["keep me"]
    assert lines.flush(1.0) == []


def test_a_terminal_shows_what_it_held_back_when_the_window_ends_though_nobody_prints_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal(True, here=lambda: b"home", rules=Rules(window_s=0.05))
    for pid in (1, 2, 3):
        terminal.output(OutputEvent("", b"task", "f", pid, b"home", text="hello\n"))
    shown = capsys.readouterr().out
    deadline = time.monotonic() + 20
    while "repeated" not in shown:
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)
        shown += capsys.readouterr().out
    assert shown.splitlines()[0] == "(f pid=1) hello"
    assert shown.splitlines()[1].startswith("(f pid=3) hello [repeated 2x across cluster]")


def test_a_terminal_names_another_node_and_keeps_the_streams_apart(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(True, here=lambda: b"home", rules=Rules())
    terminal.output(OutputEvent("", b"task", "f", 1, bytes.fromhex("b71e0000"), stream="stderr", text="hello\n"))
    assert capsys.readouterr() == ("", "(f pid=1, node=b71e) hello\n")


@pytest.mark.parametrize("prefix", ["NBRAY", "RAY"])
def test_the_environment_turns_it_off(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv(f"{prefix}_DEDUP_LOGS", "0")
    monkeypatch.setenv(f"{prefix}_DEDUP_LOGS_SKIP_REGEX", "x+")
    rules = rules_from_environment()
    assert not rules.folds
    assert rules.left_out is not None
    assert rules.left_out.search("axx")
