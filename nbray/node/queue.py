"""Lease requests that wait, and whose turn it is: jobs take turns, and within a job the oldest comes first.

Before those come the urgent ones, the newest first: requests of workers that wait in `get` for the outcome. Recursion is then
run depth first, with one blocked process per level; breadth first, every call of a level would hold a process at one time.

A pass over the queue costs one look per job and shape, not one per request: what does not fit for one request of a shape does
not fit for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

from nbray.ids import ProcessId
from nbray.node.records import Request, ShapeKey

_Group = dict[tuple[ProcessId, int], Request]


class Verdict(Enum):
    """What became of a request when its turn came."""

    SERVED = "served"  #: it leaves the queue
    KEPT = "kept"  #: it stays, and others of its shape may still be served
    FULL = "full"  #: it stays, and so does every other request of its shape


class LeaseQueue:
    """Requests by job and shape. Iterating gives all of them, job by job, oldest first within a shape."""

    def __init__(self) -> None:
        self._jobs: dict[bytes, dict[ShapeKey, _Group]] = {}
        self._all: _Group = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._all.values()))

    def __contains__(self, request: tuple[ProcessId, int]) -> bool:
        return request in self._all

    def add(self, request: Request) -> None:
        self._all[request.id] = request
        self._jobs.setdefault(request.said.job, {}).setdefault(request.key, {})[request.id] = request

    def remove(self, owner: ProcessId, request: int) -> Request | None:
        """Take the request out; None if it is not there."""
        found = self._all.pop((owner, request), None)
        if found is None:
            return None
        groups = self._jobs[found.said.job]
        group = groups[found.key]
        del group[found.id]
        if not group:
            del groups[found.key]
        if not groups:
            del self._jobs[found.said.job]
        return found

    def shapes(self) -> Iterator[tuple[Request, int]]:
        """(the oldest request, how many) of every shape of every job."""
        for groups in self._jobs.values():
            for group in groups.values():
                yield next(iter(group.values())), len(group)

    def pass_around(self, visit: Callable[[Request], Verdict], urgent: Callable[[Request], bool] | None = None) -> None:
        """Give every job its turn, one request at a time, until nobody is left who could be served."""
        turns = [_Turn(groups, urgent) for groups in self._jobs.values()]
        served: list[Request] = []
        while turns:
            for turn in list(turns):
                request = turn.next()
                if request is None:
                    turns.remove(turn)
                    continue
                verdict = visit(request)
                if verdict is Verdict.SERVED:
                    served.append(request)
                elif verdict is Verdict.FULL:
                    turn.skip(request.key)
        for request in served:
            self.remove(*request.id)
        # Whoever was served goes behind those who were not, or the first job would be first for ever.
        for job in dict.fromkeys(request.said.job for request in served):
            if job in self._jobs:
                self._jobs[job] = self._jobs.pop(job)

    def check(self) -> None:
        grouped = [request for groups in self._jobs.values() for group in groups.values() for request in group.values()]
        assert len(grouped) == len(self._all), "a request is in no group, or in two"
        assert all(groups and all(groups.values()) for groups in self._jobs.values()), "an empty group was kept"


class _Turn:
    """One job's place in a pass: the next request of each of its shapes."""

    def __init__(self, groups: dict[ShapeKey, _Group], urgent: Callable[[Request], bool] | None) -> None:
        self._urgent = urgent
        self._waiting = {key: self._in_order(group) for key, group in groups.items()}
        self._heads: dict[ShapeKey, Request] = {}
        for key in list(self._waiting):
            self._advance(key)

    def _in_order(self, group: _Group) -> Iterator[Request]:
        if self._urgent is None:
            return iter(group.values())
        first = [request for request in reversed(group.values()) if self._urgent(request)]
        return iter(first + [request for request in group.values() if not self._urgent(request)])

    def _advance(self, key: ShapeKey) -> None:
        head = next(self._waiting[key], None)
        if head is None:
            self._heads.pop(key, None)
        else:
            self._heads[key] = head

    def next(self) -> Request | None:
        if not self._heads:
            return None
        first = min(self._heads.values(), key=self._rank)
        self._advance(first.key)
        return first

    def _rank(self, request: Request) -> tuple[bool, float]:
        urgent = self._urgent is not None and self._urgent(request)
        return not urgent, -request.since if urgent else request.since

    def skip(self, key: ShapeKey) -> None:
        self._heads.pop(key, None)
