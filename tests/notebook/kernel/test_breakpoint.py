"""`breakpoint()` inside a task opens in the cell that submitted it, and the task goes on with what is typed there."""

from __future__ import annotations

from typing import Any

Kernel = Any

STOPS = """%%remote
def total(rows):
    count = len(rows)
    breakpoint()
    return sum(rows) / count
total([1, 2, 6])"""


def answer(kernel: Kernel, line: str) -> str:
    """Type `line` at the next prompt; returns the prompt."""
    asked: list[Any] = []

    def prompted() -> bool:
        if kernel.client.stdin_channel.msg_ready():
            asked.append(kernel.client.get_stdin_msg(timeout=1))
        return bool(asked)

    kernel.until(prompted, "a prompt")
    kernel.client.input(line)
    return str(asked[0]["content"]["prompt"])


def finish(kernel: Kernel, cell: Any) -> Any:
    kernel.until(lambda: cell.idle and cell.reply is not None, "the end of the cell")
    return cell


def test_commands_are_typed_under_the_cell_and_change_what_the_task_does(kernel: Kernel) -> None:
    cell = kernel.start(STOPS)
    assert answer(kernel, "p rows").endswith("(nbray) ")
    answer(kernel, "!count = 9")
    answer(kernel, "next")
    answer(kernel, "where")
    answer(kernel, "continue")
    assert finish(kernel, cell).value == "1.0"
    assert "[1, 2, 6]" in cell.stdout
    assert "return sum(rows) / count" in cell.stdout


def test_stepping_off_the_end_of_the_task_ends_the_debugger(kernel: Kernel) -> None:
    cell = kernel.start("%%remote\nx = 1\nbreakpoint()\nx = 2")
    answer(kernel, "next")
    while not cell.idle:
        if kernel.client.stdin_channel.msg_ready():
            answer(kernel, "next")
        kernel._take(0.05)
    assert finish(kernel, cell).error is None, cell.traceback
    assert kernel.eval("x") == 2
    assert kernel.ok("%remote 2 + 2").value == "4"


def test_a_plain_task_and_rays_name_for_it_work_the_same(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote\ndef stops(n):\n    import nbray.util.rpdb\n    nbray.util.rpdb.set_trace()\n    return n + 1")
    cell = kernel.start("nbray.get(stops.remote(41))")
    answer(kernel, "p n")
    answer(kernel, "c")
    assert finish(kernel, cell).value == "42"
    assert "41" in cell.stdout


def test_the_stop_button_ends_a_task_that_waits_at_its_prompt(kernel: Kernel) -> None:
    cell = kernel.start(STOPS)
    answer(kernel, "p rows")
    kernel.until(kernel.client.stdin_channel.msg_ready, "the second prompt")
    kernel.client.get_stdin_msg(timeout=1)
    kernel.interrupt()
    finish(kernel, cell)
    assert cell.error["ename"] == "KeyboardInterrupt"
    job = kernel.eval("(lambda job: (job._settled.result(30), job.status)[1])(get_ipython().run_line_magic('nbray', 'last'))")
    assert job == "cancelled"
    assert kernel.ok("%remote 3 + 3").value == "6"


def test_without_a_front_end_that_takes_input_the_task_says_so_and_goes_on(kernel: Kernel) -> None:
    cell = type(kernel.ok("1"))(STOPS)
    kernel.cells[kernel.client.execute(STOPS, allow_stdin=False)] = cell
    kernel.until(lambda: cell.idle and cell.result is not None, "the end of the cell")
    assert cell.value == "3.0"
    assert "nobody can be asked" in cell.text


def test_input_of_the_notebook_itself_works_as_before(kernel: Kernel) -> None:
    cell = kernel.start("typed = input('name? ')")
    assert answer(kernel, "ada") == "name? "
    finish(kernel, cell)
    assert kernel.eval("typed") == "ada"
