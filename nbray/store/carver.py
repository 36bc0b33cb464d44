"""Where a process puts its next object: carved out of regions lent by the node, so that a small object costs no round trip.

    offset = carver.carve(size)
    while offset is None:                      ask LoanRegion(size=carver.loan_for(size)); carver.add_loan(offset, size)
        offset = carver.carve(size)

Pure; the caller holds a lock. What is carved is the caller's until it announces SealObject or returns it.
"""

from __future__ import annotations

from nbray import config
from nbray.store.allocator import ALIGN, Spans, aligned


class Carver:
    """The loans of one process. `loan_bytes` is what is borrowed for small objects; see `loan_for`."""

    __slots__ = ("_alone", "_loan_bytes", "_pool", "_retired")

    def __init__(self, loan_bytes: int = config.LOAN_BYTES) -> None:
        self._loan_bytes = aligned(loan_bytes)
        self._pool: list[tuple[int, int]] = []  #: (offset, size) of what is left of loans for small objects, the latest last
        self._alone: dict[int, list[int]] = {}  #: loan size -> offsets of loans for one large object
        self._retired = Spans()

    def loan_for(self, size: int) -> int:
        """The bytes to borrow for an object of `size`: a region for many small ones, or one of its own if it is large."""
        if size <= self._loan_bytes // 4:
            return self._loan_bytes
        alone = aligned(size)
        # A loan is known by its size when it comes, so one for a single object must not look like one for many.
        return alone + ALIGN if alone == self._loan_bytes else alone

    def add_loan(self, offset: int, size: int) -> None:
        if size != self._loan_bytes:
            self._alone.setdefault(size, []).append(offset)
            return
        # Two loans in use are enough; what is left of the one with least goes back to the node.
        if len(self._pool) > 1:
            least = min(self._pool, key=lambda loan: loan[1])
            self._pool.remove(least)
            self._retired.put(*least)
        self._pool.append((offset, size))

    def carve(self, size: int) -> int | None:
        """An offset for `size` bytes, aligned; None: borrow `loan_for(size)` first, and try again."""
        if size <= self._loan_bytes // 4:
            return self._carve_small(aligned(size))
        loan = self.loan_for(size)
        offsets = self._alone.get(loan)
        if not offsets:
            return None
        offset = offsets.pop()
        if not offsets:
            del self._alone[loan]
        used = aligned(size)
        if used < loan:
            self._retired.put(offset + used, loan - used)
        return offset

    def _carve_small(self, size: int) -> int | None:
        for i in range(len(self._pool) - 1, -1, -1):
            offset, left = self._pool[i]
            if left == size:
                del self._pool[i]
                return offset
            if left > size:
                self._pool[i] = (offset + size, left - size)
                return offset
        return None

    def give_up(self, offset: int, size: int) -> None:
        """What was carved for `size` bytes is not going to be sealed (the write failed): it can be returned."""
        self._retired.put(offset, aligned(size))

    def returnable(self, everything: bool = False) -> list[tuple[int, int]]:
        """(offset, size) of regions to return now; they are no longer here. `everything`: also what could still be carved, for
        a process that has been idle or is leaving; a thread between `add_loan` and `carve` then borrows once more."""
        regions = self._retired.ranges()
        self._retired = Spans()
        if everything:
            regions += self._pool
            regions += [(offset, size) for size, offsets in self._alone.items() for offset in offsets]
            self._pool = []
            self._alone = {}
        return regions
