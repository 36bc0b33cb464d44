"""The processes that make environments, as their daemon sees them: an answer, a death without a word, an end by force."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nbray.node import making
from nbray.node.loop import Loop
from nbray.node.making import Making
from nbray.node.records import EnvironmentFailed, EnvironmentMade

WITHIN_S = 30.0


class Node:
    """A loop, what it was told, and its Making."""

    def __init__(self, place: Path) -> None:
        self.loop = Loop()
        self.told: list[EnvironmentMade | EnvironmentFailed] = []
        place.mkdir(mode=0o700)
        self.making = Making(self.loop, str(place), str(place / "p"), str(place / "log"), self.told.append)

    def until_told(self) -> EnvironmentMade | EnvironmentFailed:
        deadline = time.monotonic() + WITHIN_S
        while not self.told:
            assert time.monotonic() < deadline, "nothing was told"
            self.loop.step(deadline)
        return self.told.pop()

    def until_reaped(self) -> None:
        deadline = time.monotonic() + WITHIN_S
        while self.making._leaving:
            assert time.monotonic() < deadline, "the maker has not ended"
            self.loop.step(deadline)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "node")
    yield made
    made.making.close()
    made.loop.close()
    assert not [child for child in psutil.Process().children() if "builder" in " ".join(child.cmdline())]


def setup(place: str) -> str:
    return json.dumps({"working_dir": place}, separators=(",", ":"))


def test_what_was_made_is_told_and_kept_from_removal(node: Node, tmp_path: Path) -> None:
    import shutil

    from nbray.environments.cache import Cache

    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.txt").write_text("a")
    packed = shutil.make_archive(str(tmp_path / "work"), "zip", tmp_path / "work")
    wanted = setup(f"file://{packed}")
    node.making.make(wanted)
    assert node.until_told() == EnvironmentMade(wanted, "")
    place = Cache(str(tmp_path / "node" / "p"))
    (directory,) = [name for name in os.listdir(place.root) if not name.endswith(".lock")]
    assert os.path.exists(f"{place.root}/{directory}/a.txt")
    assert place.collect(0) == [], "its daemon uses it"
    node.making.end(wanted)
    node.until_reaped()  # it holds what it made until it is gone
    assert place.collect(0) == [directory]


def test_what_cannot_be_made_says_why(node: Node) -> None:
    node.making.make(setup("file:///there/is/nothing.zip"))
    told = node.until_told()
    assert isinstance(told, EnvironmentFailed)
    assert "nothing.zip could not be fetched" in told.reason


def test_a_maker_that_dies_without_a_word_is_a_failure_that_names_its_log(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "BUILDER", "nbray.environments.no_such_module")
    node.making.make(setup("file:///x.zip"))
    told = node.until_told()
    assert isinstance(told, EnvironmentFailed)
    assert "ended without a word" in told.reason
    assert "/log" in told.reason


def test_one_that_is_given_up_is_killed_and_says_nothing_more(node: Node, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.zip")  # opening it waits for a writer
    wanted = setup(f"file://{tmp_path}/never.zip")
    node.making.make(wanted)
    node.making.end(wanted)
    assert not node.told
