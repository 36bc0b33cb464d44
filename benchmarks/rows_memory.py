"""What an idle cluster costs: memory of its processes besides the driver's own, every page counted once."""

from __future__ import annotations

import time
from typing import Any

import psutil

from nbray.microbenchmark.row import Row

#: What is freed after the last call is freed by now.
SETTLE_S = 1.0


def idle(peer: Any, seconds: float) -> float:
    """MB, proportional set size: a page that n processes share counts as 1/n in each."""
    time.sleep(SETTLE_S)
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue  # it ended while we looked
    return total / 1e6


def processes(peer: Any, seconds: float) -> float:
    return len(psutil.Process().children(recursive=True))


IDLE = Row("idle memory besides the driver", "MB", idle, more_is_better=False, target=6, limit=120)
PROCESSES = Row("processes of an idle cluster", "", processes, more_is_better=False)
