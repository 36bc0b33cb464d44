"""`breakpoint()` in a task of a script: its prompt is the script's terminal; without one the task says so and goes on."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import nbray
nbray.init(num_cpus=1)

@nbray.remote
def stops(n):
    breakpoint()
    return n + 1

print("result", nbray.get(stops.remote(41)))
"""


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return [sys.executable, str(path)]


def test_the_prompt_is_the_scripts_terminal(script: list[str]) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"!n = 1\np n * 1000\nc\n")  # typed ahead, as a person may
    try:
        done = subprocess.run(script, stdin=theirs, capture_output=True, text=True, timeout=60, check=True)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "1000" in done.stdout
    assert "result 2" in done.stdout


def test_without_a_terminal_the_task_goes_on(script: list[str]) -> None:
    done = subprocess.run(script, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
    assert "result 42" in done.stdout
    assert "nobody can be asked for input here" in done.stderr
