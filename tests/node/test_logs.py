"""Log files of a node: earlier parts, a bound on all of them, and reading them through the daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbray.ids import Address
from nbray.node.logs import PIECE_BYTES, answer, keep_within, listing, piece, rotate, worker_log
from nbray.wire.messages import Ask

ASKER = Address(b"nodenode", b"askerrrr")


def test_earlier_parts_move_up_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "worker-1.log"
    for part in ("first", "second", "third"):
        log.write_text(part * 10)
        assert rotate(str(log), 10, backups=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["worker-1.log", "worker-1.log.1", "worker-1.log.2"]
    assert Path(f"{log}.1").read_text() == "third" * 2
    assert Path(f"{log}.2").read_text() == "condsecond"


def test_logs_of_the_long_dead_go_first_and_those_of_the_living_stay(tmp_path: Path) -> None:
    for age, pid in enumerate((10, 11, 12, 13)):
        path = Path(worker_log(str(tmp_path), pid))
        path.write_text("x" * 100)
        os.utime(path, (1000 + age, 1000 + age))
    (tmp_path / "node.log").write_text("x" * 100)
    assert keep_within(str(tmp_path), 500, alive={10}) == []
    assert keep_within(str(tmp_path), 350, alive={10}) == [worker_log(str(tmp_path), 11), worker_log(str(tmp_path), 12)]
    assert {p.name for p in tmp_path.iterdir()} == {"worker-10.log", "worker-13.log", "node.log"}


def test_a_piece_says_how_long_the_whole_is_and_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "worker-1.log").write_bytes(b"0123456789" + bytes(2 * PIECE_BYTES))
    assert piece(str(tmp_path), "worker-1.log", 3, 4) == {"data": b"3456", "size": 10 + 2 * PIECE_BYTES}
    assert len(piece(str(tmp_path), "worker-1.log", 0, 2**40)["data"]) == PIECE_BYTES
    assert listing(str(tmp_path)) == [{"name": "worker-1.log", "size": 10 + 2 * PIECE_BYTES}]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", ".", "..", "link", "gone"])
def test_nothing_but_logs_is_read(tmp_path: Path, name: str) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (tmp_path / "secret").write_text("secret")
    (logs / "link").symlink_to(tmp_path / "secret")
    said = answer(str(logs), Ask(1, ASKER, "log", {"name": name, "length": 10}))
    assert said.result is None
    assert said.error


def test_nonsense_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "node.log").write_text("x")
    assert answer(str(tmp_path), Ask(1, ASKER, "log", {"name": "node.log", "offset": "far"})).error
    assert answer(str(tmp_path), Ask(2, ASKER, "logs")).result == [{"name": "node.log", "size": 1}]
