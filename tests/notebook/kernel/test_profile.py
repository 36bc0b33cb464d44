"""`--profile`: a flame graph on the card, in the saved card and on the handle, of the cell's tasks alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

Kernel = Any
KEPT = "application/vnd.nbray.run.v1+json"
BUSY = """
def busy(seconds):
    import time
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))
"""
HIDE = """%%remote --on bare
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == 'memray':
            raise ImportError(name)
sys.modules.pop('memray', None)
sys.meta_path.insert(0, Hidden())
"""
KILLED = """%%remote --profile cpu
import os, signal
open(mark, 'w').write(str(os.getpid()))
busy(0.1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def profiling(kernel: Kernel) -> Kernel:
    kernel.ok(BUSY)
    return kernel


def kept(cell: Any) -> Any:
    return next(data for data in reversed(cell.displays + cell.updates) if KEPT in data)


def test_where_the_time_went_is_on_the_card_however_it_is_shown(profiling: Kernel) -> None:
    cell = profiling.ok("%%remote --profile cpu\nx = 1\nbusy(0.5)")
    card = kept(cell)
    assert "busy (In[" in card["text/plain"]
    assert "CPU time: " in card["text/plain"]
    assert "flame graph" in card["text/html"]
    assert "<script" not in card["text/html"]
    saved = card[KEPT]["profile"]
    assert saved["labels"][0].endswith(" line 3")
    assert saved["kind"] == "cpu"


def test_each_task_that_ends_adds_to_it(profiling: Kernel) -> None:
    cell = profiling.ok("%%remote --profile cpu --each i=range(4) --view line\nbusy(0.1)")
    assert "in 4 tasks" in cell.displays[-1]["text/plain"]
    assert profiling.eval("get_ipython()._nbray_extension.notebook.jobs[-1].profile.tasks") == 4


def test_a_live_card_shows_what_has_ended_so_far(profiling: Kernel, tmp_path: Path) -> None:
    profiling.ok(f"import pathlib; gate = pathlib.Path({str(tmp_path)!r}, 'open')")
    subshell = profiling.create_subshell()
    wait = "if i:\n    import time\n    while not gate.exists():\n        time.sleep(0.02)\nelse:\n    busy(0.3)"
    cell = profiling.start(f"%%remote --profile cpu --progress-after 0 --each i=range(2)\n{wait}")
    widget = "application/vnd.jupyter.widget-view+json"
    profiling.until(lambda: any(widget in data for data in cell.displays), "the live card")
    (model,) = (data[widget]["model_id"] for data in cell.displays if widget in data)

    def seen() -> bool:
        snapshots = [said["data"].get("content", {}).get("snapshot", {}) for said in profiling.comms if said["type"] == "comm_msg"]
        return any(snapshot.get("profiled") == 1 for snapshot in snapshots)

    profiling.until(seen, "the first task's picture")
    saved = profiling.command(model, subshell, "profile")["result"]
    assert saved["tasks"] == 1
    assert any("busy" in label for label in saved["labels"])
    (tmp_path / "open").touch()
    profiling.until(lambda: cell.idle and cell.reply is not None, "the end")
    assert kept(cell)[KEPT]["profile"]["tasks"] == 2


def test_what_was_alive_at_the_peak_is_found_also_when_it_is_gone_at_the_end(profiling: Kernel) -> None:
    cell = profiling.ok(
        "%%remote --profile mem\nimport numpy as np\ndef make():\n    return np.ones(3_000_000)\ngone = make()\ndel gone"
    )
    assert "memory at its peak: 24." in kept(cell)["text/plain"]
    assert "make (In[" in kept(cell)["text/html"]


def test_a_cell_that_fails_or_is_stopped_shows_where_it_was(profiling: Kernel) -> None:
    assert "busy (In[" in kept(profiling.run("%%remote --profile cpu\nbusy(0.3)\n1 / 0"))["text/plain"]
    stopped = profiling.run("%%remote --profile cpu --timeout 1\nbusy(600)")
    assert stopped.error["ename"] == "GetTimeoutError"
    assert "busy (In[" in kept(stopped)["text/plain"]


def test_inside_an_actor(profiling: Kernel) -> None:
    profiling.ok("@nbray.remote(num_cpus=0)\nclass Place: pass\nplace = Place.remote()")
    assert "busy (In[" in kept(profiling.ok("%%remote --profile cpu --on place\nbusy(0.3)"))["text/plain"]


def test_without_the_tool_the_cell_does_not_begin_and_says_what_to_install(profiling: Kernel, tmp_path: Path) -> None:
    profiling.ok(f"mark = {str(tmp_path / 'begun')!r}")
    profiling.ok("@nbray.remote(num_cpus=0)\nclass Bare: pass\nbare = Bare.remote()")
    profiling.ok(HIDE)
    cell = profiling.run("%%remote --profile mem --on bare -i mark\nopen(mark, 'w').close()")
    assert "--profile mem needs memray" in cell.traceback
    assert "nbray[profile]" in cell.traceback
    assert not (tmp_path / "begun").exists()


def test_nothing_goes_on_watching_a_worker_that_was_killed(profiling: Kernel, tmp_path: Path) -> None:
    profiling.ok(f"mark = {str(tmp_path / 'watched')!r}")
    cell = profiling.run(KILLED)
    assert cell.error is not None
    watched = (tmp_path / "watched").read_text()
    profiling.until(lambda: watched not in watching(), "py-spy to end")


def watching() -> set[str]:
    """The processes that some py-spy looks at."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0") if entry.isdigit() else []
        except OSError:
            continue  # it has ended meanwhile
        if words and words[0].endswith(b"py-spy"):
            found.add(words[words.index(b"--pid") + 1].decode())
    return found
