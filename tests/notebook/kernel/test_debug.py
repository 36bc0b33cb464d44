"""`%nbray debug`: what a person sees of a task that failed, after the worker has long gone on to other work."""

from __future__ import annotations

import re
from typing import Any

import pytest

Kernel = Any

FAILING = """%%remote --handle lost
import threading
table = [3, 1, 2]
lock = threading.Lock()
def pick(rows, at):
    half = at // 2
    return rows[at] + half
pick(table, 7)"""


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture(scope="module")
def failed(kernel: Kernel) -> Kernel:
    """A kernel in which a cell has failed, and its worker has done other work since."""
    assert "IndexError" in kernel.run(FAILING).error["ename"]
    kernel.ok("%remote 1 + 1")
    return kernel


def test_where_shows_the_users_frames_and_none_of_ours(failed: Kernel) -> None:
    shown = failed.ok("%nbray debug where").stdout
    assert re.search(r"<cell In\[\d+\]>\(8\)<module>\(\)", shown)
    assert re.search(r"> <cell In\[\d+\]>\(7\)pick\(\)", shown)
    assert "return rows[at] + half" in shown
    assert "nbray/" not in shown


def test_variables_are_values_and_expressions_work_on_them(failed: Kernel) -> None:
    assert failed.ok("%nbray debug p half").stdout == "3\n"
    assert failed.ok('%nbray debug -c "p [row * at for row in rows]"').stdout == "[21, 7, 14]\n"
    assert failed.ok('%nbray debug lost -c "up" -c "p sorted(table)"').stdout.endswith("[1, 2, 3]\n")
    assert failed.ok('%nbray debug -c "!half += 1 ;; half"').stdout == "4\n"


def test_locals_lists_them_with_what_stayed_behind(failed: Kernel) -> None:
    shown = failed.ok('%nbray debug -c "locals" -c "up" -c "locals"').stdout
    assert "at = 7" in shown
    assert re.search(r"lock = <unlocked .*repr only: it does not pickle", shown)


def test_list_marks_the_line(failed: Kernel) -> None:
    assert re.search(r"7 ->     return rows\[at\] \+ half", failed.ok("%nbray debug list").stdout)


def test_what_would_run_on_is_refused_with_what_to_do(failed: Kernel) -> None:
    assert "the task has ended" in failed.ok("%nbray debug continue").stdout
    assert "--rerun" in failed.ok("%nbray debug next").stdout


def test_without_input_the_prompt_says_what_it_can(failed: Kernel) -> None:
    cell = type(failed.ok("1"))("%nbray debug")
    failed.cells[failed.client.execute("%nbray debug", allow_stdin=False)] = cell
    failed.until(lambda: cell.idle, "the debugger without input")
    assert "takes no input" in cell.stdout
    assert "at = 7" in cell.stdout


def test_at_a_prompt_commands_are_asked_for_until_quit(failed: Kernel) -> None:
    cell = failed.start("%nbray debug")
    for line in ("p at", "up", "p table", "quit"):
        asked: list[Any] = []

        def prompted(asked: list[Any] = asked) -> bool:
            if failed.client.stdin_channel.msg_ready():
                asked.append(failed.client.get_stdin_msg(timeout=1))
            return bool(asked)

        failed.until(prompted, "the prompt")
        assert asked[0]["content"]["prompt"] == "(nbray) "
        failed.client.input(line)
    failed.until(lambda: cell.idle and cell.reply is not None, "the end of the debugger")
    assert "7\n" in cell.stdout
    assert "[3, 1, 2]" in cell.stdout


def test_one_of_many_items_is_chosen_by_its_number(kernel: Kernel) -> None:
    kernel.run("%%remote --each i=range(6) --handle many\nj = 1 / (i % 3)")
    assert kernel.ok("%nbray debug many --item 3 p i").stdout == "3\n"
    assert kernel.ok("%nbray debug p i").stdout == "0\n"
    said = kernel.run("%nbray debug many --item 4 p i").text
    assert "item 4" in said
    assert "these did: 0, 3" in said
    kernel.run("%%remote --each i=range(6) --chunk 6 --handle chunked\nj = 1 / (i % 3)")
    assert kernel.ok("%nbray debug chunked --item 3 p i").stdout == "3\n"


def test_rerun_stops_at_the_first_line_and_where_it_raises(kernel: Kernel) -> None:
    kernel.ok("base = 10")
    kernel.run("%%remote --each k=[2,1,0] --handle again\nx = base - 10 + k\ny = 1 / x")
    kernel.ok("base = 99")  # the inputs are those of the failure
    shown = kernel.ok('%nbray debug again --rerun -c "next" -c "p x" -c "continue" -c "p (x, k)"').stdout
    shown = plain(shown)
    assert "(2)<module>()" in shown
    assert "ZeroDivisionError: division by zero" in shown
    assert "(0, 0)" in shown
    assert kernel.eval("'x' in globals()") is False


def test_plain_keeps_nothing_and_says_what_helps(kernel: Kernel) -> None:
    kernel.run("%%remote --on-error plain\n1 / 0")
    assert "--on-error plain" in kernel.run("%nbray debug where").text
    assert "ZeroDivisionError" in kernel.ok('%nbray debug --rerun -c "continue"').stdout


def test_a_plain_task_keeps_frames_unless_its_environment_says_otherwise(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote\ndef bad(n):\n    inside = n + 1\n    return inside / 0")
    kernel.run("nbray.get(bad.remote(4))")
    assert kernel.ok("%nbray debug p inside").stdout == "5\n"
    kernel.run("nbray.get(bad.options(runtime_env={'env_vars': {'NBRAY_ON_ERROR': 'plain'}}).remote(4))")
    assert "NBRAY_ON_ERROR=snapshot" in kernel.run("%nbray debug where").text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("%nbray debug frobnicate", "no command"),
        ("%nbray debug --item 1", "has no --each"),
        ("fine = get_ipython().run_line_magic('nbray', 'last')", None),
        ("%nbray debug --itme 2", "did you mean --item?"),
    ],
)
def test_a_mistake_is_one_clear_error(kernel: Kernel, code: str, said: str | None) -> None:
    cell = kernel.run(code)
    if said is not None:
        assert cell.text.startswith("UsageError")
        assert said in cell.text
