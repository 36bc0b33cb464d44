"""Output finds its cell, errors show, and the stop button stops, on the oldest ipykernel that we promise and on one in between."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.notebook.kernel.conftest import started

Kernel = Any
#: 7.0 loses the cell that output from a thread belongs to; every other test runs on the newest.
VERSIONS = ("6.29.5", "7.1.0")

GATE = """
import pathlib, tempfile
gate = pathlib.Path(tempfile.mkdtemp())
def wait_for(name):
    import time
    while not (gate / name).exists():
        time.sleep(0.01)
@nbray.remote
def late():
    wait_for('late')
    print('late words')
    display('late display')
"""


@pytest.fixture(scope="module", params=VERSIONS)
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel of that version, from a folder of its own in front of what is installed."""
    folder = tmp_path_factory.mktemp(f"ipykernel-{request.param}")
    wanted = [f"ipykernel=={request.param}", "nest-asyncio"]  # what 6.29 needs and 7 does not
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *wanted]
    subprocess.run(command, check=True, timeout=300)
    with started(tmp_path_factory.mktemp("kernel"), folder) as kernel:
        assert kernel.eval("__import__('ipykernel').__version__") == request.param
        kernel.ok("%load_ext nbray")
        kernel.ok("import nbray, time, os; nbray.init(num_cpus=2)")
        kernel.ok(GATE)
        yield kernel


def test_prints_and_displays_are_under_the_cell_that_they_belong_to(older: Kernel) -> None:
    cell = older.ok("%%remote\nprint('to out')\ndisplay('shown')\n6 * 7")
    assert cell.stdout == "to out\n"
    assert "'shown'" in [data["text/plain"] for data in cell.displays]
    assert cell.value == "42"
    plain = older.ok("@nbray.remote\ndef say(x):\n    print('said', x)\n\nnbray.get(say.remote(1))\nprint('own')")
    assert sorted(plain.stdout.splitlines()) == ["own", "said 1"]


def test_late_output_lands_in_the_cell_that_submitted_it(older: Kernel) -> None:
    issuing = older.ok("ref = late.remote()")
    other = older.ok("(gate / 'late').touch(); nbray.get(ref); print('other')")
    older.until(lambda: "late words" in issuing.text and issuing.displays, "the late output")
    assert other.text == "other\n"
    assert other.displays == []


def test_a_failure_is_shown_once_with_the_line_of_the_cell(older: Kernel) -> None:
    cell = older.run("%%remote\nvalue = 0\n1 / value")
    assert "ZeroDivisionError" in cell.reply["ename"]
    assert "1 / value" in cell.traceback
    assert "nbray/notebook" not in cell.traceback


def test_the_stop_button_stops_the_cell_and_nothing_else(older: Kernel) -> None:
    cell = older.start("%%remote\nprint('on')\nwait_for('never')")
    older.until(lambda: "on" in cell.stdout, "the cell to begin")
    older.interrupt()
    older.until(lambda: cell.idle and cell.reply is not None, "the prompt")
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert older.ok("%%remote --num-cpus 2\n'free'").value == "'free'"


def test_what_cannot_be_done_while_a_cell_blocks_is_said_when_the_extension_is_loaded(older: Kernel) -> None:
    said = older.ok("%reload_ext nbray").displays[0]["text/plain"]
    assert ("no subshells" in said) is (older.eval("__import__('ipykernel').__version__") < "7")
