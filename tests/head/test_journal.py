"""The journal: what was written is there again, whatever happened to the file's tail or its writer."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nbray.head.journal import Journal, JournalError
from nbray.head.records import Persist
from nbray.head.state import HeadState
from nbray.ids import HEAD, Address
from tests.head.story import Story, ident


def put(key: int, value: bytes = b"v", table: str = "kv") -> Persist:
    return Persist(table, key.to_bytes(4, "big"), value)


def copy_as_if_killed(path: Path, to: Path) -> Path:
    """The files as a SIGKILL leaves them: nobody wrote the log back."""
    for file in path.parent.glob(path.name + "*"):
        shutil.copy(file, to.parent / file.name.replace(path.name, to.name))
    return to


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "head.db")
    journal.write([put(1, b"a"), put(2, b"b"), put(1, b"c", "jobs")])
    journal.write([put(1, b"new"), Persist("kv", (2).to_bytes(4, "big"), None)])
    journal.close()
    journal = Journal(tmp_path / "head.db")
    assert journal.load() == {"kv": {(1).to_bytes(4, "big"): b"new"}, "jobs": {(1).to_bytes(4, "big"): b"c"}}
    journal.close()


def test_without_a_path_nothing_is_kept() -> None:
    journal = Journal(None)
    journal.write([put(1)])
    assert journal.load() == {}
    journal.close()


def test_a_commit_is_on_the_disk_before_write_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "head.db")
    assert journal._db is not None
    assert journal._db.execute("pragma synchronous").fetchone() == (2,)  # FULL
    assert journal._db.execute("pragma journal_mode").fetchone() == ("wal",)
    journal.write([put(1)])
    assert not journal._db.in_transaction
    killed = Journal(copy_as_if_killed(tmp_path / "head.db", tmp_path / "copy.db"))
    assert killed.load() == {"kv": {(1).to_bytes(4, "big"): b"v"}}
    killed.close()
    journal.close()


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.37, 0.5, 0.73, 0.99])
def test_a_truncated_log_opens_with_the_last_whole_commit(tmp_path: Path, keep: float) -> None:
    journal = Journal(tmp_path / "head.db")
    for i in range(50):
        journal.write([put(i, b"x" * 500), put(i, b"x" * 500, "lives")])
    copy = copy_as_if_killed(tmp_path / "head.db", tmp_path / "copy.db")
    journal.close()
    log = copy.with_name("copy.db-wal")
    size = log.stat().st_size
    assert size > 50 * 1000
    os.truncate(log, int(size * keep))
    again = Journal(copy)
    tables = again.load()
    count = len(tables.get("kv", {}))
    assert count < 50
    # Whole commits only: a prefix of them, and both halves of each.
    assert list(tables.get("kv", {})) == list(tables.get("lives", {})) == [i.to_bytes(4, "big") for i in range(count)]
    again.write([put(99)])
    assert len(again.load()["kv"]) == count + 1
    again.close()


def test_a_torn_page_in_the_log_loses_only_what_follows_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "head.db")
    for i in range(50):
        journal.write([put(i, b"x" * 500)])
    copy = copy_as_if_killed(tmp_path / "head.db", tmp_path / "copy.db")
    journal.close()
    log = bytearray(copy.with_name("copy.db-wal").read_bytes())
    middle = len(log) // 2
    log[middle : middle + 100] = b"\xa5" * 100
    copy.with_name("copy.db-wal").write_bytes(log)
    again = Journal(copy)
    count = len(again.load()["kv"])
    assert 0 < count < 50
    again.close()


WRITER = """
import sys
from nbray.head.journal import Journal
from nbray.head.records import Persist
journal = Journal(sys.argv[1])
for i in range(10**6):
    journal.write([Persist("kv", i.to_bytes(4, "big"), b"x" * 100)])
    print(i, flush=True)
"""


def test_a_writer_that_is_killed_loses_nothing_that_it_had_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "head.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(30)]
        writer.kill()
        acknowledged += [int(line) for line in writer.stdout.read().splitlines()]
    journal = Journal(path)
    kept = journal.load()["kv"]
    assert {i.to_bytes(4, "big") for i in acknowledged} <= kept.keys()
    assert len(kept) <= len(acknowledged) + 1
    journal.close()


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "head.db")
    journal.write([put(1)])
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    journal.close()


def test_two_heads_cannot_share_a_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "head.db")
    with pytest.raises(JournalError, match=r"head\.db.*another head has it open"):
        Journal(tmp_path / "head.db")
    journal.close()


def test_something_else_than_a_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    with pytest.raises(JournalError, match="not a usable journal"):
        Journal(path)
    assert path.read_text() == "not a database " * 100
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as db:
        db.execute("pragma user_version = 9")
    db.close()
    with pytest.raises(JournalError, match="version 9"):
        Journal(newer)


def test_a_link_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "head.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError, match="cannot open"):
        Journal(tmp_path / "head.db")
    assert not (tmp_path / "elsewhere").exists()


def test_a_write_that_fails_half_way_writes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "head.db")
    with pytest.raises(sqlite3.Error):
        journal.write([put(1), Persist("kv", None, b"no key")])  # type: ignore[arg-type]
    assert journal.load() == {}
    journal.close()


def test_a_head_carries_on_from_its_file(tmp_path: Path) -> None:
    story, journal = Story(), Journal(tmp_path / "head.db")
    for line in ("node a CPU=4", "node b CPU=4", "job d@b", "actor X d@b name=store detached at=b soft", "started X w@b"):
        story.tell(line)
    journal.write(Persist(table, key, value) for table, rows in story.tables.items() for key, value in rows.items())
    journal.close()
    journal = Journal(tmp_path / "head.db")
    head, _ = HeadState.restore(Address(ident("e"), HEAD), "session", journal.load(), 5.0)
    journal.close()
    head.check()
    (record,) = head.directory.live.values()
    assert (record.state, record.worker) == ("ALIVE", Address(ident("b"), ident("w")))
    assert set(head.members.nodes) == {ident("a"), ident("b")}
    assert set(head.jobs) == {ident("d")}
