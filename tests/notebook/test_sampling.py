"""What of a watched process belongs to the cell, what its frames are called, and what is said where watching is refused."""

from __future__ import annotations

import pytest

from nbray.exceptions import PACKAGE_DIRECTORY
from nbray.notebook.sampling import Frame, labelled, refused, stacks

CELLS = {"<cell In[7]>": "In[7]", "/tmp/ipykernel_1/2.py": "In[3]"}
OURS = Frame("run_cell", f"{PACKAGE_DIRECTORY}notebook/remote_cell.py", 90)
CELL = Frame("<module>", "<cell In[7]>", 3)
BOOT = [Frame("_bootstrap", "/usr/lib/python3.11/threading.py", 1002), Frame("run", "/usr/lib/python3.11/threading.py", 982)]


def test_frames_above_the_cell_are_ours_and_left_out() -> None:
    step = Frame("step", "/tmp/ipykernel_1/2.py", 12)
    assert labelled([OURS, CELL, step], CELLS) == ["In[7] line 3", "step (In[3] line 12)"]


def test_what_runs_outside_the_cell_is_not_its() -> None:
    assert labelled([OURS], CELLS) == []
    assert labelled([OURS, Frame("<module>", "<cell In[9]>", 1)], CELLS) == [], "another cell in the same actor"
    assert labelled([*BOOT, Frame("_receive", f"{PACKAGE_DIRECTORY}owner/runtime.py", 1)], CELLS) == [], "a thread of ours"


def test_threads_of_the_cell_are_told_apart() -> None:
    worker = Frame("_worker", "/usr/lib/python3.11/concurrent/futures/thread.py", 83)
    assert labelled([*BOOT, worker], CELLS)[0] == "threads of the cell"


def test_the_steps_of_an_import_are_left_out() -> None:
    step, module = Frame("_find_and_load", "<frozen importlib._bootstrap>", 1), Frame("<module>", "/nowhere/lib.py", 5)
    assert labelled([OURS, CELL, step, step, module], CELLS) == ["In[7] line 3", "<module> (lib.py)"]


def test_stacks_are_read_with_whatever_names_they_have() -> None:
    text = "<module> (<cell In[7]>:3);f.<locals>.<lambda> (/a b/c (1).py:9) 12\nnot a stack\n"
    assert stacks(text) == [([CELL, Frame("f.<locals>.<lambda>", "/a b/c (1).py", 9)], 12)]


@pytest.mark.parametrize("said", ["Error: Permission Denied: Try running again with elevated permissions", "Error: EPERM: x"])
def test_a_machine_that_lets_nobody_look_says_what_to_do(said: str) -> None:
    told = refused(said, "2")
    assert "--cap-add=SYS_PTRACE" in told
    assert "kernel.yama.ptrace_scope is 2" in told
    assert "sysctl kernel.yama.ptrace_scope=1" in told
    assert "sysctl" not in refused(said, "1"), "that one lets us"
    assert "--profile mem needs no permission" in told


def test_another_refusal_is_told_as_it_is() -> None:
    told = refused("thread panicked\nError: Unsupported version", "")
    assert told.startswith("--profile cpu: py-spy could not look into worker ")
    assert told.endswith(": Unsupported version")
