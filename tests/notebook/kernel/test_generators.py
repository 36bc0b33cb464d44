"""Generators in a notebook: called by cells and by `%%remote` cells, shown as one line, stopped by the stop button."""

from __future__ import annotations

from typing import Any

import pytest

Kernel = Any


@pytest.fixture(scope="module", autouse=True)
def generators(kernel: Kernel) -> None:
    kernel.ok(
        "@nbray.remote\ndef numbers(n):\n    for i in range(n):\n        print('making', i)\n        yield i\n"
        "@nbray.remote\ndef endless(mark):\n    import pathlib, time\n    yield 1\n    pathlib.Path(mark).touch()\n"
        "    while True:\n        time.sleep(0.01)"
    )


def test_a_cell_iterates_and_a_remote_cell_does_too(kernel: Kernel) -> None:
    assert kernel.ok("[nbray.get(r) for r in numbers.remote(3)]").value == "[0, 1, 2]"
    assert kernel.ok("%%remote\ntotal = sum(nbray.get(r) for r in numbers.remote(4))\ntotal").value == "6"
    assert kernel.ok("taken = []\nasync for r in numbers.remote(2):\n    taken.append(await r)\ntaken").value == "[0, 1]"


def test_a_generator_is_one_line_and_its_tasks_are_in_the_timeline(kernel: Kernel) -> None:
    shown = kernel.ok("g = numbers.remote(1)\ng")
    assert shown.value.startswith("ObjectRefGenerator(numbers, task ")
    assert "\n" not in shown.value
    kernel.ok("nbray.get(next(g))")
    assert kernel.eval("sum(e['name'] == 'numbers' for e in nbray.timeline())") >= 1


def test_a_generator_cannot_be_an_input_and_the_error_says_why(kernel: Kernel) -> None:
    kernel.ok("g = numbers.remote(1)")
    failed = kernel.run("%%remote\nh = g")
    assert "You cannot return or pass a generator" in str(failed.error)


def test_the_stop_button_ends_a_cell_that_waits_for_the_next_item(kernel: Kernel, tmp_path: Any) -> None:
    mark = tmp_path / "waits"
    cell = kernel.start(f"for ref in endless.remote({str(mark)!r}):\n    pass")
    kernel.until(mark.exists, "the generator to be at its second item")
    kernel.interrupt()
    kernel.until(lambda: cell.idle and cell.reply is not None, "the prompt")
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert kernel.ok("[nbray.get(r) for r in numbers.remote(1)]").value == "[0]"
