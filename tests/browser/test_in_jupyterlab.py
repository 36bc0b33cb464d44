"""What a person sees in JupyterLab: output under its cell, errors that point at the cell, and a stop button that stops."""

from __future__ import annotations

import pytest

from .conftest import Lab

pytestmark = pytest.mark.browser


def test_a_remote_cell_prints_shows_and_fails_under_itself(lab: Lab) -> None:
    notebook = lab.open(
        "first.ipynb",
        ["%load_ext nbray", "%%remote\nprint('hello from a worker')\n6 * 7", "%%remote\n1 / 0", "'and the notebook ' + 'goes on'"],
    )
    notebook.run(0)
    notebook.sees(0, "nbray")
    notebook.run(1)
    notebook.sees(1, "hello from a worker")
    notebook.sees(1, "42")
    notebook.run(2)
    notebook.sees(2, "ZeroDivisionError")
    notebook.run(3)
    notebook.sees(3, "and the notebook goes on")


def test_the_stop_button_ends_a_running_cell_and_the_next_one_runs(lab: Lab) -> None:
    notebook = lab.open(
        "stop.ipynb",
        [
            "%load_ext nbray",
            "%%remote\nimport time\nprint('begun')\nfor _ in range(6000):\n    time.sleep(0.1)",
            "%%remote\n'still ' + 'here'",
        ],
    )
    notebook.run(0)
    notebook.sees(0, "nbray")
    notebook.run(1)
    notebook.sees(1, "begun")
    notebook.stop()
    notebook.sees(1, "KeyboardInterrupt")
    notebook.idle()
    notebook.run(2)
    notebook.sees(2, "still here")
