"""Which bytes of the arena are free. Pure, and alone in knowing it: the ledger asks, clients carve what they are lent.

The best region is one whose pages are there already: a fresh page costs ten times the copy into it. So what was freed last
is handed out first, then the region that fits best, always from its low end, where earlier objects have been.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import islice

ALIGN = 64  #: bytes; a cache line, and enough for every numpy type and vector instruction
RECENT = 8  #: regions freed last that are looked at before the best fit


def aligned(size: int) -> int:
    """The bytes that an object of `size` bytes takes up. An empty one takes a place too: places tell objects apart."""
    return max(size + ALIGN - 1, ALIGN) // ALIGN * ALIGN


class Spans:
    """Disjoint ranges of offsets, joined where they touch. Putting in what is there, or taking what is not, raises ValueError."""

    __slots__ = ("sizes", "starts", "total")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.sizes: dict[int, int] = {}  #: by start, the latest put in last
        self.total = 0

    def __bool__(self) -> bool:
        return bool(self.starts)

    def put(self, offset: int, size: int) -> tuple[int, int, list[tuple[int, int]]]:
        """Returns the joined range as (start, size), and the (start, size) of the neighbours that went into it."""
        at = bisect_left(self.starts, offset)
        start, end = offset, offset + size
        joined: list[tuple[int, int]] = []
        if at > 0:
            before = self.starts[at - 1]
            before_end = before + self.sizes[before]
            if before_end > offset:
                raise ValueError(f"[{offset}, {end}) overlaps [{before}, {before_end}), which is here already")
            if before_end == offset:
                joined.append((before, self.sizes[before]))
                start = before
        if at < len(self.starts):
            after = self.starts[at]
            if after < end:
                raise ValueError(f"[{offset}, {end}) overlaps [{after}, {after + self.sizes[after]}), which is here already")
            if after == end:
                joined.append((after, self.sizes[after]))
                end += self.sizes[after]
        for gone, _ in joined:
            self._drop(gone)
        self._add(start, end - start)
        self.total += size
        return start, end - start, joined

    def take(self, offset: int, size: int) -> None:
        """Cut [offset, offset + size) out of the one range that has it."""
        start = self.holding(offset, size)
        if start is None:
            raise ValueError(f"[{offset}, {offset + size}) is not all here")
        end = start + self.sizes[start]
        self._drop(start)
        if start < offset:
            self._add(start, offset - start)
        if offset + size < end:
            self._add(offset + size, end - offset - size)
        self.total -= size

    def holding(self, offset: int, size: int) -> int | None:
        """The start of the range that contains [offset, offset + size)."""
        at = bisect_left(self.starts, offset + 1) - 1
        if at < 0:
            return None
        start = self.starts[at]
        return start if offset + size <= start + self.sizes[start] else None

    def ranges(self) -> list[tuple[int, int]]:
        """(start, size), by start."""
        return [(start, self.sizes[start]) for start in self.starts]

    def _add(self, start: int, size: int) -> None:
        insort(self.starts, start)
        self.sizes[start] = size

    def _drop(self, start: int) -> None:
        del self.starts[bisect_left(self.starts, start)]
        del self.sizes[start]


class Allocator:
    """Free ranges of [0, size). Sizes are rounded up to ALIGN; offsets are multiples of it."""

    __slots__ = ("_by_size", "_free", "_touched", "size")

    def __init__(self, size: int) -> None:
        self.size = size // ALIGN * ALIGN
        self._free = Spans()
        self._by_size: list[tuple[int, int]] = []  #: (size, start), sorted
        self._touched = 0
        if self.size:
            self._free.put(0, self.size)
            self._by_size.append((self.size, 0))

    @property
    def used(self) -> int:
        return self.size - self._free.total

    def largest_free(self) -> int:
        return self._by_size[-1][0] if self._by_size else 0

    def allocate(self, size: int) -> int | None:
        """The offset of `aligned(size)` bytes, or None if no free range is as long."""
        size = aligned(size)
        if size > self.largest_free():
            return None
        sizes = self._free.sizes
        # A region that nothing has been in yet is never "freed last", though a cut made it a new range a moment ago.
        recent = (at for at in islice(reversed(sizes), RECENT) if sizes[at] >= size and at + size <= self._touched)
        start = next(recent, None)
        if start is None:
            start = self._by_size[bisect_left(self._by_size, (size, 0))][1]
        whole = sizes[start]
        self._forget(whole, start)
        self._free.take(start, size)
        if whole > size:
            insort(self._by_size, (whole - size, start + size))
        self._touched = max(self._touched, start + size)
        return start

    def free(self, offset: int, size: int) -> None:
        """Take back `aligned(size)` bytes, all or part of what was allocated. ValueError if any of them is free already."""
        size = aligned(size)
        if offset % ALIGN or offset < 0 or offset + size > self.size:
            raise ValueError(f"[{offset}, {offset + size}) is no region of an arena of {self.size} bytes")
        start, whole, joined = self._free.put(offset, size)
        for gone, length in joined:
            self._forget(length, gone)
        insort(self._by_size, (whole, start))

    @property
    def touched(self) -> int:
        """One past the highest byte ever allocated: regions below it are warm, their pages are probably there."""
        return self._touched

    def free_ranges(self) -> list[tuple[int, int]]:
        """(start, size), by start."""
        return self._free.ranges()

    def check(self) -> None:
        """AssertionError if the two indexes disagree, or ranges touch, overlap or leave the arena."""
        ranges = self._free.ranges()
        assert sorted((size, start) for start, size in ranges) == self._by_size
        assert sum(size for _, size in ranges) == self._free.total
        end = -1
        for start, size in ranges:
            assert start > end, f"free ranges touch or overlap at {start}"
            assert size > 0
            assert start % ALIGN == 0
            assert size % ALIGN == 0
            end = start + size
        assert end <= self.size

    def _forget(self, size: int, start: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, start))]
