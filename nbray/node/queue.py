"""Lease requests that wait, and whose turn it is: jobs take turns, and within a job the oldest comes first.

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

    def pass_around(self, visit: Callable[[Request], Verdict]) -> None:
        """Give every job its turn, one request at a time, until nobody is left who could be served."""
        turns = [_Turn(job, groups) for job, groups in self._jobs.items()]
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

    def __init__(self, job: bytes, groups: dict[ShapeKey, _Group]) -> None:
        self.job = job
        self._waiting = {key: iter(group.values()) for key, group in groups.items()}
        self._heads: dict[ShapeKey, Request] = {}
        for key in list(self._waiting):
            self._advance(key)

    def _advance(self, key: ShapeKey) -> None:
        head = next(self._waiting[key], None)
        if head is None:
            self._heads.pop(key, None)
        else:
            self._heads[key] = head

    def next(self) -> Request | None:
        if not self._heads:
            return None
        oldest = min(self._heads.values(), key=lambda request: request.since)
        self._advance(oldest.key)
        return oldest

    def skip(self, key: ShapeKey) -> None:
        self._heads.pop(key, None)
