"""What others than Python's streams write to a worker's log is told apart from what is ours, by the length of the log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbray.worker.overheard import IDLE_LOOK_S, LINGER_S, LOOK_S, MOST_BYTES, Listening, Log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "log").write_bytes(b"from before\n")
    return tmp_path / "log"


@pytest.fixture
def others(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    yield fd
    os.close(fd)


def test_what_is_ours_is_not_heard_and_what_others_wrote_is_heard_once(path: Path, others: int) -> None:
    log = Log(str(path))
    assert log.look() == ""
    assert log.write(b"ours\n") == ""
    os.write(others, b"theirs\n")
    assert log.write(b"ours again\n") == "theirs\n"
    os.write(others, b"more\n")
    assert log.look() == "more\n"
    assert log.look() == ""
    assert path.read_bytes() == b"from before\nours\ntheirs\nours again\nmore\n"


def test_a_character_in_two_pieces_is_one(path: Path, others: int) -> None:
    log = Log(str(path))
    os.write(others, "ä".encode()[:1])
    assert log.look() == ""
    os.write(others, "ä".encode()[1:])
    assert log.look() == "ä"


def test_a_log_that_was_emptied_is_read_from_its_new_beginning(path: Path, others: int) -> None:
    log = Log(str(path))
    log.write(b"x" * 100)
    os.truncate(path, 0)
    os.write(others, b"after\n")
    assert log.look() == "after\n"
    os.truncate(path, 0)
    assert log.write(b"ours\n") == ""
    assert log.look() == ""


def test_of_very_much_at_once_the_middle_is_left_to_the_log(path: Path, others: int) -> None:
    log = Log(str(path))
    os.write(others, b"begin" + b"x" * (3 * MOST_BYTES) + b"end")
    heard = log.look()
    assert heard.startswith("begin")
    assert heard.endswith("end")
    assert len(heard) < MOST_BYTES + 100
    assert f"{2 * MOST_BYTES + 8:,} bytes are in the worker's log only" in heard


class Ear:
    """A listener with its own clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.busy, self.speaks, self.looked, self.children = 100.0, False, False, 0, False
        monkeypatch.setattr("nbray.worker.overheard.time.monotonic", lambda: self.now)
        monkeypatch.setattr("nbray.worker.overheard.has_children", lambda: self.children)
        self.listening = Listening(self.look, lambda: self.busy)

    def look(self) -> bool:
        self.looked += 1
        return self.speaks


def test_an_idle_worker_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear(monkeypatch)
    assert ear.listening.until_next() is None
    assert ear.looked == 0


def test_while_something_runs_there_is_a_look_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear(monkeypatch)
    ear.busy = True
    assert ear.listening.until_next() == pytest.approx(LOOK_S)
    ear.now += LOOK_S / 2
    assert ear.listening.until_next() == pytest.approx(LOOK_S / 2)
    assert ear.looked == 1
    ear.now += LOOK_S
    ear.listening.until_next()
    assert ear.looked == 2
    ear.busy = False
    assert ear.listening.until_next() is None


def test_who_has_spoken_or_left_children_is_listened_to_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear(monkeypatch)
    ear.busy = ear.speaks = True
    ear.listening.until_next()
    ear.busy = ear.speaks = False
    ear.now += LINGER_S / 2
    assert ear.listening.until_next() == pytest.approx(IDLE_LOOK_S)
    ear.now += LINGER_S
    ear.listening.until_next()
    assert ear.listening.until_next() is None
    ear.children = True
    ear.listening.task_ended()
    for _ in range(3):
        ear.now += 10 * LINGER_S
        assert ear.listening.until_next() == pytest.approx(IDLE_LOOK_S)
    ear.children = False
    ear.now += IDLE_LOOK_S
    ear.listening.until_next()
    assert ear.listening.until_next() is None


def test_children_are_seen_until_they_are_reaped() -> None:
    program = (
        "import subprocess\nfrom nbray.worker.overheard import has_children\n"
        "before = has_children()\nchild = subprocess.Popen(['true'])\nwith_one = has_children()\nchild.wait()\n"
        "print(before, with_one, has_children())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False True False\n"
