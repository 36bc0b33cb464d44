"""What a node and its processes use right now. Read when somebody looks at the cluster, and never else.

CPU time is told as seconds spent so far: who asks twice knows what was spent in between. A process's memory is what it has for
itself: the object store, which all of them map, is counted once, by the ledger.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from nbray.node import monitor
from nbray.node.accelerators import Gauges

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Load:
    """The readings of one node. `gpus`: how many it has."""

    def __init__(self, gpus: int) -> None:
        self._gauges = Gauges() if gpus else None

    def reading(self, pids: Iterable[int], root: str = "") -> dict[str, Any]:
        """`at_s` (monotonic), `cores` that the machine lets us use, `cpu_s` (of everybody who shares them), `memory_used`,
        `memory_limit`, `processes`: {pid: [CPU seconds, bytes]}, `gpus`: [[share busy, bytes used, bytes in all]] by number."""
        usage = monitor.memory_usage(root)
        return {
            "at_s": time.monotonic(),
            "cores": monitor.cpu_count(root).value,
            "cpu_s": monitor.cpu_seconds(root),
            "memory_used": usage.used,
            "memory_limit": usage.limit,
            "processes": {pid: found for pid in pids if (found := process(pid, root)) is not None},
            "gpus": self._gauges.read() if self._gauges is not None else [],
        }


def process(pid: int, root: str = "") -> list[float] | None:
    """[CPU seconds so far with those of its ended children, bytes of its own]; None if it is gone."""
    try:
        with open(f"{root}/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # a name may have brackets and blanks
        with open(f"{root}/proc/{pid}/statm", encoding="ascii") as file:
            pages = file.read().split()
        return [sum(map(int, fields[11:15])) * _TICK_S, (int(pages[1]) - int(pages[2])) * _PAGE]
    except (OSError, ValueError, IndexError):
        return None
