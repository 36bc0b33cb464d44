"""Waiting for what must become true, with a bound: how tests of real processes do without sleeping for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: A bound for what takes milliseconds on an idle machine. Only a failing test waits as long.
SOON_S = 20.0


def until(predicate: Callable[[], T], what: str | Callable[[], str], within_s: float = SOON_S) -> T:
    """The first true value of `predicate()`; fails, saying `what` did not become true, after `within_s` seconds.

    A `what` that is called is asked when the time is up.
    """
    deadline = time.monotonic() + within_s
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.005)
    return value


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def lines_of(path: Path) -> list[str]:
    """The lines that tasks have appended to a file so far; none before there is one."""
    return path.read_text().splitlines() if path.exists() else []
