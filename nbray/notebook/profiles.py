"""What `--profile` saw, by job: taken in as its tasks end, put together when somebody looks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from nbray.cards.flame import Flame

JOBS = 20  #: whose profiles are kept


class Profiles:
    """Any thread may take in or ask. Merging waits until somebody looks: thousands of tasks may end in a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: OrderedDict[str, list[Flame]] = OrderedDict()

    def take(self, tag: str, data: dict[str, Any]) -> None:
        """One task of the job `tag` has been watched. Raises LookupError, TypeError or ValueError for what is no profile."""
        flame = Flame.of_data(data)
        with self._lock:
            self._new.setdefault(tag, []).append(flame)
            while len(self._new) > JOBS:
                self._new.popitem(last=False)

    def count(self, tag: str) -> int:
        """How many tasks of the job have been watched."""
        with self._lock:
            return sum(flame.tasks for flame in self._new.get(tag, ()))

    def of(self, tag: str) -> Flame | None:
        """All that was seen of the job so far, as the caller's own."""
        with self._lock:
            found = self._new.get(tag)
            if not found:
                return None
            first, rest = found[0], found[1:]
            for flame in rest:
                first.merge(flame)
            found[:] = [first]
            return first.copy()
