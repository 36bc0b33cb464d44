"""Runs tests/scenarios/head_*.txt: a command, `----`, and what the head then sends. A blank line ends each.

When behaviour changes on purpose, run with NBRAY_REWRITE=1 and read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.head.story import Story

FILES = sorted((Path(__file__).parent.parent / "scenarios").glob("head_*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_head_says_what_the_scenario_says(path: Path) -> None:
    story, told = Story(), []
    for block in path.read_text().strip().split("\n\n"):
        comments = [line for line in block.splitlines() if line.startswith("#")]
        commands = [line for line in block.split("\n----")[0].splitlines() if line and not line.startswith("#")]
        said = [line for command in commands for line in story.tell(command).splitlines()]
        told.append("\n".join([*comments, *commands, "----", *said]))
    now = "\n\n".join(told) + "\n"
    if os.environ.get("NBRAY_REWRITE"):
        path.write_text(now)
    assert now == path.read_text()


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 5
