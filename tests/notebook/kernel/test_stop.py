"""The stop button: the prompt comes back, what the cell submitted ends, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

Kernel = Any

ENDLESS = """
import os, pathlib, tempfile
marks = tempfile.mkdtemp()
def begin(name):
    pathlib.Path(marks, name).write_text(str(os.getpid()))
def forever(name):
    import time
    begin(name)
    while True:
        time.sleep(0.01)
def stubborn(name):
    import time
    begin(name)
    while True:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            begin(name + '-asked')
def begun(name):
    return os.path.exists(f'{marks}/{name}')
def alive(name):
    return os.path.exists('/proc/' + pathlib.Path(marks, name).read_text())
forever_remotely = nbray.remote(forever)
"""


@pytest.fixture(scope="module")
def stopping(kernel: Kernel) -> Kernel:
    kernel.ok(ENDLESS)
    kernel.ok("%%remote --num-cpus 2\n1")
    return kernel


def mark_of(kernel: Kernel) -> Any:
    from pathlib import Path

    return Path(kernel.eval("marks"))


def stop(kernel: Kernel, code: str, name: str) -> Any:
    """Start `code`, press stop when its task `name` runs, and return the cell when its prompt is back."""
    marks = mark_of(kernel)
    cell = kernel.start(code)
    kernel.until((marks / name).exists, f"task {name} to begin")
    kernel.interrupt()
    kernel.until(lambda: cell.idle and cell.reply is not None, "the prompt")
    return cell


def until_free(kernel: Kernel) -> None:
    """Both CPUs can be had again: nothing of an earlier cell holds one."""
    assert kernel.ok("%%remote --num-cpus 2 --timeout 30\n'free'").value == "'free'"


def test_a_blocking_remote_cell_is_cancelled_and_the_prompt_is_back(stopping: Kernel) -> None:
    cell = stop(stopping, "%%remote\nforever('one')", "one")
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert "tasks cancelled: 1" in cell.traceback
    assert "nbray/notebook" not in cell.traceback
    stopping.ok("job = %nbray last")
    assert stopping.run("job.result()").error is not None
    until_free(stopping)


def test_items_that_have_not_begun_never_run(stopping: Kernel) -> None:
    stop(stopping, "%%remote --each i=range(50)\nforever(f'many{i}')", "many0")
    until_free(stopping)
    assert stopping.eval("sum(begun(f'many{i}') for i in range(50))") <= 2


def test_get_in_a_plain_cell_is_interrupted_and_its_tasks_are_cancelled(stopping: Kernel) -> None:
    cell = stop(stopping, "nbray.get([forever_remotely.remote(f'plain{i}') for i in range(4)])", "plain0")
    assert cell.error["ename"] == "KeyboardInterrupt"
    until_free(stopping)


def test_a_plain_cell_that_only_computes_has_its_tasks_cancelled_too(stopping: Kernel) -> None:
    stop(stopping, "held = forever_remotely.remote('busy')\nwhile True: pass", "busy")
    until_free(stopping)
    assert stopping.run("nbray.get(held)").error["ename"] == "TaskCancelledError"


def test_what_earlier_cells_submitted_keeps_running(stopping: Kernel) -> None:
    stopping.ok("%%remote --bg --handle earlier\nforever('earlier')")
    stopping.ok("early_ref = forever_remotely.remote('early_ref')")
    stopping.until((mark_of(stopping) / "early_ref").exists, "the earlier tasks")
    cell = stopping.start("import time\nprint('waiting', flush=True)\ntime.sleep(600)")
    stopping.until(lambda: "waiting" in cell.stdout, "the cell to wait")
    stopping.interrupt()
    stopping.until(lambda: cell.idle, "the prompt")
    assert stopping.eval("(earlier.status, earlier.counts()['running'])") == ("running", 1)
    assert stopping.eval("len(nbray.wait([early_ref], timeout=0)[0])") == 0
    stopping.ok("earlier.cancel(); nbray.cancel(early_ref)")
    until_free(stopping)


def test_detached_cells_go_on(stopping: Kernel) -> None:
    cell = stop(stopping, "%%remote --on-interrupt detach\nforever('detached')", "detached")
    assert "goes on" in cell.traceback
    stopping.ok("job = %nbray last")
    assert stopping.eval("(job.status, job.counts()['running'])") == ("detached", 1)
    stopping.ok("%nbray cancel")
    assert stopping.run("job.result()").error["ename"] == "TaskCancelledError"
    assert stopping.eval("job.status") == "cancelled"


def test_a_second_stop_kills_what_ignores_the_first(stopping: Kernel) -> None:
    stop(stopping, "%%remote\nstubborn('deaf')", "deaf")
    stopping.until((mark_of(stopping) / "deaf-asked").exists, "the polite request to arrive")
    assert stopping.eval("alive('deaf')") is True
    stop(stopping, "begin('second')\nimport time\ntime.sleep(600)", "second")
    stopping.until(lambda: stopping.eval("alive('deaf')") is False, "the worker to be killed")
    until_free(stopping)


CALLS = """
class Worker:
    def __init__(self):
        self.ended = []
    def call(self, name):
        begin(name)
        import time
        while not nbray.get_runtime_context().is_canceled():
            time.sleep(0.01)
        self.ended.append(name)
        return 'its result'
    def all(self):
        return self.ended
worker = nbray.remote(num_cpus=0)(Worker).remote()
"""


def test_a_call_of_an_actor_that_has_begun_is_said_to_go_on(stopping: Kernel) -> None:
    stopping.ok(CALLS)
    # The button comes when both names are bound, and not in the midst of the second call.
    calls = "first, second = worker.call.remote('call'), worker.call.remote('behind')"
    cell = stop(stopping, f"{calls}\nwhile not begun('call'): time.sleep(0.01)\nbegin('bound')\nnbray.get(first)", "bound")
    said = cell.notes
    assert "tasks cancelled: 1; calls of actors under way: 1: each goes on in its actor, and only its result is dropped" in said
    assert "went on to its end in the actor" in stopping.run("nbray.get(first)").traceback
    assert "before it began" in stopping.run("nbray.get(second)").traceback
    assert stopping.eval("nbray.get(worker.all.remote())") == ["call"]


def test_the_button_can_be_pressed_anywhere_in_a_cell_of_many_calls(stopping: Kernel) -> None:
    stopping.ok("@nbray.remote\ndef tiny(i):\n    return i")
    for _ in range(10):
        cell = stopping.start("print('on', flush=True)\nwhile True:\n    nbray.get([tiny.remote(i) for i in range(20)])")
        stopping.until(lambda cell=cell: "on" in cell.stdout, "the loop")
        stopping.interrupt()
        stopping.until(lambda cell=cell: cell.idle, "the prompt")
        assert cell.error["ename"] == "KeyboardInterrupt"
        assert "nbray/" not in cell.traceback  # where in our code the signal came is nothing to the user
        assert stopping.eval("nbray.get([tiny.remote(i) for i in range(50)]) == list(range(50))") is True


def test_an_await_is_interrupted_as_soon_and_its_task_is_cancelled(stopping: Kernel) -> None:
    cell = stop(stopping, "await forever_remotely.remote('awaited')", "awaited")
    assert cell.error["ename"] in {"CancelledError", "KeyboardInterrupt"}
    until_free(stopping)
