"""What the head must not forget, in SQLite.

WAL mode with synchronous=FULL: a commit is on the disk before anything that follows from it is sent, so nothing that was
acknowledged is lost, also when the machine's power fails. (NORMAL, the usual choice with WAL, may lose the last commits then.)
A log that was torn in the middle of a write is SQLite's own business: it opens with the last whole commit.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nbray.head.records import Persist, Tables

SCHEMA = """
create table if not exists journal (
    tab text not null, key blob not null, value blob not null, primary key (tab, key)
) without rowid"""
VERSION = 1


class JournalError(Exception):
    """The state file cannot be used. Says which, why, and what to do."""


class Journal:
    """The state file of one head. With `path` None nothing is kept: a cluster that ends with its driver needs no memory."""

    def __init__(self, path: str | Path | None) -> None:
        """Open or create the file, mode 0600. Raises JournalError if it is not a journal, or another head has it open."""
        self.path = None if path is None else Path(path)
        self._db: sqlite3.Connection | None = None if self.path is None else _open(self.path)

    def write(self, persists: Iterable[Persist]) -> None:
        """Make these durable, all or none, in order. Returns when they are on the disk."""
        if self._db is None:
            return
        with self._db:
            for one in persists:
                if one.value is None:
                    self._db.execute("delete from journal where tab = ? and key = ?", (one.table, one.key))
                else:
                    self._db.execute("insert or replace into journal values (?, ?, ?)", (one.table, one.key, one.value))

    def load(self) -> Tables:
        """Everything kept: table -> key -> value. Empty for a new file and for no file."""
        tables: Tables = {}
        if self._db is not None:
            for table, key, value in self._db.execute("select tab, key, value from journal"):
                tables.setdefault(table, {})[key] = value
        return tables

    def close(self) -> None:
        """Write the log back into the file. Idempotent."""
        if self._db is not None:
            self._db.close()
            self._db = None


def _open(path: Path) -> sqlite3.Connection:
    advice = "Start the head with another --state file, or move this one away."
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        # The daemon may open it on another thread than the one that writes; never on two at once.
        db = sqlite3.connect(path, timeout=0.5, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"cannot open the head's state file {path}: {error}. {advice}") from error
    try:
        _prepare(db)
    except sqlite3.Error as error:
        db.close()
        held = "locked" in str(error)
        why = "another head has it open" if held else f"it is not a usable journal ({error})"
        raise JournalError(f"cannot use the head's state file {path}: {why}. {advice}") from error
    return db


def _prepare(db: sqlite3.Connection) -> None:
    def ask(statement: str) -> Any:
        return db.execute(statement).fetchone()

    # One head per file, seen at once; and no shared-memory index beside the log.
    ask("pragma locking_mode = exclusive")
    ask("pragma journal_mode = wal")
    ask("pragma synchronous = full")
    version = ask("pragma user_version")[0]
    if version not in (0, VERSION):
        raise sqlite3.DatabaseError(f"version {version}, this nbray writes version {VERSION}")
    with db:
        db.execute("begin immediate")
        db.execute(SCHEMA)
        db.execute(f"pragma user_version = {VERSION}")
