"""What tasks print and display, by the cell under which the page shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

Kernel = Any

GATE = """
import os, pathlib, tempfile
gate = tempfile.mkdtemp()
def wait_for(name):
    import os, time
    while not os.path.exists(f"{gate}/{name}"):
        time.sleep(0.005)
def let_go(name):
    pathlib.Path(gate, name).touch()
@nbray.remote
def say(x):
    print('said', x)
"""


@pytest.fixture(scope="module", autouse=True)
def gate(kernel: Kernel) -> Path:
    """Where a file lets a waiting task go on."""
    kernel.ok(GATE)
    return Path(kernel.eval("gate"))


def test_prints_of_a_remote_cell_are_under_it_and_before_its_end(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote\nimport sys\nprint('to out')\nprint('to err', file=sys.stderr)")
    assert cell.stdout == "to out\n"
    assert "to err\n" in cell.stderr


def test_prints_of_plain_api_tasks_are_under_the_cell_that_submitted_them(kernel: Kernel) -> None:
    cell = kernel.ok("nbray.get(say.remote(1))")
    assert cell.stdout == "said 1\n"


def test_lines_of_several_tasks_say_whose_they_are(kernel: Kernel) -> None:
    cell = kernel.ok("_ = nbray.get([say.remote(i) for i in range(3)])")
    assert sorted(re.sub(r"pid=\d+", "pid=N", line) for line in cell.stdout.splitlines()) == [
        f"(say pid=N) said {i}" for i in range(3)
    ]


def test_late_output_lands_in_the_cell_that_submitted_it(kernel: Kernel) -> None:
    kernel.ok(
        "@nbray.remote\ndef late():\n    wait_for('late')\n    print('late words')\n    display('late display')\n    return 1"
    )
    issuing = kernel.ok("ref = late.remote()")
    other = kernel.ok("let_go('late'); print(nbray.get(ref))")
    kernel.until(lambda: "late words" in issuing.text and issuing.displays, "the late output")
    assert other.text == "1\n"
    assert not other.displays


def test_late_output_of_a_background_cell_lands_in_it_and_its_line_is_brought_up_to_date(kernel: Kernel) -> None:
    issuing = kernel.ok("%%remote --bg --handle job\nwait_for('bg')\nprint('from behind')\nbehind = 7")
    assert "running" in issuing.displays[-1]["text/plain"]
    other = kernel.ok("let_go('bg'); job.result(); (behind, job.status)")
    assert other.value == "(7, 'done')"
    kernel.until(lambda: "from behind" in issuing.text and issuing.updates, "the update of the line")
    assert "done" in issuing.updates[-1]["text/plain"]
    assert other.text == ""


def test_rich_displays_and_their_updates_arrive_with_every_form(kernel: Kernel, gate: Path) -> None:
    cell = kernel.start(
        "%%remote\nfrom IPython.display import HTML, display\n"
        "shown = display(HTML('<b>one</b>'), display_id='it')\nwait_for('seen')\nshown.update(HTML('<b>two</b>'))"
    )
    kernel.until(lambda: "<b>one</b>" in html_of(cell.displays), "the display")  # its card may be there as well
    (gate / "seen").touch()
    kernel.until(lambda: cell.idle, "the end")
    assert "<b>two</b>" in html_of(cell.updates)


def html_of(bundles: list[dict[str, Any]]) -> list[str]:
    return [str(data.get("text/html")) for data in bundles]


def test_a_picture_arrives_as_base64(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote\nclass Picture:\n    def _repr_png_(self):\n        return b'\\x89PNG\\r\\n'\ndisplay(Picture())")
    assert cell.displays[0]["image/png"].strip() == "iVBORw0K"


def test_a_flood_is_bounded_and_says_what_is_missing(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --max-output 10kB\nfor i in range(100_000):\n    print('line', i)")
    assert len(cell.stdout) < 20_000
    assert "left out" in cell.stdout
    assert cell.messages < 100


def test_long_output_shows_its_head_and_its_tail(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --max-output 1kB\nfor i in range(150):\n    print('number', i)")
    assert "number 0\n" in cell.stdout
    assert cell.stdout.endswith("number 149\n")
    assert "number 75\n" not in cell.stdout
    assert re.search(r"number \d+\n… \d+ lines \([\d,]+ characters\) left out.*…\nnumber \d+\n", cell.stdout), "between the two"


def test_prints_of_many_tasks_in_the_order_of_the_tasks(kernel: Kernel) -> None:
    code = "import time\nprint('begins', i)\nwait_for(f'order{i + 1}') if i == 0 else let_go(f'order{i}')\nprint('ends', i)"
    cell = kernel.ok(f"%%remote --group order --each i=range(2)\n{code}")
    assert re.findall(r"\w+ \d(?=\n)", cell.stdout) == ["begins 0", "ends 0", "begins 1", "ends 1"]


def test_prints_of_many_tasks_by_worker(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --group worker --each i=range(8) --chunk 1\nprint('of', i)")
    pids = re.findall(r"pid=(\d+)", cell.stdout)
    assert len(pids) == 8
    assert len([i for i in range(1, 8) if pids[i] != pids[i - 1]]) == len(set(pids)) - 1, "each worker's lines in one place"


def test_output_held_back_comes_when_the_cell_ends(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --no-stream --each i=range(3)\nprint('held', i)")
    assert sorted(re.findall(r"held \d", cell.stdout)) == ["held 0", "held 1", "held 2"]


def test_bytes_that_are_no_text_and_control_characters_survive(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote\nprint('\\x00 \\x1b[1mbold\\x1b[0m \\r over \\ud800')")
    assert "\x1b[1mbold" in cell.stdout


def test_many_displays_are_bounded(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --view none\nfor i in range(500):\n    display(i)")
    assert len(cell.displays) == 100
    assert "400 displays left out" in cell.stderr


def test_figures_left_open_show_at_the_end_of_the_cell(kernel: Kernel) -> None:
    stand_in = """%%remote -o done
import sys, types
class Figure:
    def _repr_png_(self):
        return b'picture'
pyplot = types.ModuleType('matplotlib.pyplot')
open_ones = [1, 2]
pyplot.get_fignums = lambda: list(open_ones)
pyplot.figure = lambda number: Figure()
pyplot.close = lambda which: open_ones.clear()
sys.modules['matplotlib.pyplot'] = pyplot
done = 1
"""
    cell = kernel.ok(stand_in)
    assert ["image/png" in data for data in cell.displays[:2]] == [True, True]
    assert len(kernel.ok("%%remote --each i=range(4)\nimport sys\nsys.modules.pop('matplotlib.pyplot', None)\ni;").displays) == 1


def test_a_progress_bar_inside_a_task_is_one_display_under_its_cell(kernel: Kernel) -> None:
    loop = "from nbray.experimental.tqdm_ray import tqdm\nfor _ in tqdm(range(500), desc='inside', flush_interval_s=0):\n    pass"
    cell = kernel.ok(f"%%remote\n{loop}")
    (shown,) = [data for data in cell.displays if "inside" in data.get("text/plain", "")]
    assert "<progress" in shown["text/html"]
    own = kernel.ok(loop)
    assert len([data for data in own.displays if "inside" in data.get("text/plain", "")]) == 1


def test_what_a_cell_captures_is_not_on_the_page(kernel: Kernel) -> None:
    for magics in ("%%capture out\n%%remote", "%%remote\n%%capture out"):
        cell = kernel.ok(f"{magics}\nprint('to out')\ndisplay('shown')\nassigned = 5")
        assert (cell.text, cell.displays) == ("", [])
        assert kernel.eval("(out.stdout, [o.data['text/plain'] for o in out.outputs], assigned)") == ("to out\n", ["'shown'"], 5)


def test_lines_below_a_capture_keep_their_numbers(kernel: Kernel) -> None:
    assert "line 4" in kernel.run("%%remote\n%%capture out\nx = 1\n1 / 0").traceback


def test_what_tasks_print_while_stdout_is_redirected_goes_there(kernel: Kernel) -> None:
    cell = kernel.ok(
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as kept:\n    nbray.get(say.remote(1))\n"
        "    get_ipython()._nbray_extension.notebook.router.flush(get_ipython()._nbray_extension.notebook.tag)"
    )
    assert cell.stdout == ""
    assert "said 1" in kernel.eval("kept.getvalue()")


def test_the_handle_shown_as_out_says_when_it_was_so(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --bg\nwait_for('out')")
    kernel.ok("let_go('out')")
    assert re.search(r"running · In\[\d+\] · 1 task · .* after its beginning, at \d\d:\d\d:\d\d", cell.value)


def test_what_stays_of_a_background_cell_is_said_when_it_is_asked_for(kernel: Kernel) -> None:
    issuing = kernel.ok("%%remote --bg --handle job --max-fetch 1kB\nimport numpy as np\nstays = np.ones(10_000)")
    kernel.ok("job.result()")
    kernel.until(lambda: "stays in the cluster as a reference" in issuing.notes, "the note")


def test_children_and_c_code_are_heard_under_the_cell_that_started_them(kernel: Kernel) -> None:
    kernel.ok("%%remote\n1")
    cell = kernel.ok(
        "%%remote\nimport os, subprocess\nsubprocess.run(['echo', 'from a child'])\nprint('then')\nos.write(2, b'from C\\n')"
    )
    assert "from a child\nthen\nfrom C\n" in cell.stdout
