"""The allocator and the carver against the simplest thing that could be right: a map of who has which cache line."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbray.store.allocator import ALIGN, Allocator, Spans, aligned
from nbray.store.carver import Carver

LINES = 64


class AllocatorAgainstBitmap(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(LINES * ALIGN)
        self.taken = [False] * LINES
        self.regions: list[tuple[int, int]] = []

    def longest_gap(self) -> int:
        longest = run = 0
        for taken in self.taken:
            run = 0 if taken else run + 1
            longest = max(longest, run)
        return longest

    @rule(size=st.integers(0, LINES * ALIGN + 1))
    def allocate(self, size: int) -> None:
        lines = aligned(size) // ALIGN
        offset = self.allocator.allocate(size)
        assert (offset is None) == (lines > self.longest_gap())
        if offset is not None:
            first = offset // ALIGN
            assert offset % ALIGN == 0
            assert not any(self.taken[first : first + lines])
            self.taken[first : first + lines] = [True] * lines
            self.regions.append((first, lines))

    @precondition(lambda self: self.regions)
    @rule(data=st.data())
    def free_some_part_of_a_region(self, data: st.DataObject) -> None:
        first, lines = self.regions.pop(data.draw(st.integers(0, len(self.regions) - 1)))
        start = data.draw(st.integers(0, lines - 1))
        count = data.draw(st.integers(1, lines - start))
        self.allocator.free((first + start) * ALIGN, count * ALIGN - data.draw(st.integers(0, ALIGN - 1)))
        self.taken[first + start : first + start + count] = [False] * count
        self.regions += [part for part in ((first, start), (first + start + count, lines - start - count)) if part[1]]

    @rule(first=st.integers(0, LINES - 1), lines=st.integers(1, LINES))
    def freeing_what_is_free_is_refused(self, first: int, lines: int) -> None:
        if first + lines > LINES or not all(self.taken[first : first + lines]):
            with pytest.raises(ValueError, match=r"overlaps|no region"):
                self.allocator.free(first * ALIGN, lines * ALIGN)

    @invariant()
    def agrees(self) -> None:
        self.allocator.check()
        assert self.allocator.used == sum(self.taken) * ALIGN
        assert self.allocator.largest_free() == self.longest_gap() * ALIGN


TestAllocatorAgainstBitmap = AllocatorAgainstBitmap.TestCase
TestAllocatorAgainstBitmap.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_region_that_was_freed_last_is_handed_out_first() -> None:
    allocator = Allocator(100 * ALIGN)
    first, _, second, _ = (allocator.allocate(4 * ALIGN) for _ in range(4))
    assert first is not None
    assert second is not None
    allocator.free(second, 4 * ALIGN)
    allocator.free(first, 4 * ALIGN)
    assert allocator.allocate(ALIGN) == first


def test_memory_that_nothing_has_been_in_is_the_last_to_be_handed_out() -> None:
    allocator = Allocator(100 * ALIGN)
    small, _ = allocator.allocate(4 * ALIGN), allocator.allocate(ALIGN)
    assert small is not None
    allocator.free(small, 4 * ALIGN)
    assert allocator.allocate(20 * ALIGN) == 5 * ALIGN  # too large for what is warm
    assert allocator.allocate(4 * ALIGN) == small
    assert allocator.touched == 25 * ALIGN


def test_the_tail_of_a_region_can_be_freed_alone() -> None:
    allocator = Allocator(10 * ALIGN)
    offset = allocator.allocate(10 * ALIGN)
    assert offset == 0
    allocator.free(6 * ALIGN, 4 * ALIGN)
    assert allocator.used == 6 * ALIGN
    with pytest.raises(ValueError, match="overlaps"):
        allocator.free(5 * ALIGN, 2 * ALIGN)
    assert allocator.used == 6 * ALIGN


def test_an_arena_that_is_no_multiple_of_a_line_loses_its_end() -> None:
    assert Allocator(10 * ALIGN + 5).size == 10 * ALIGN


def test_taking_what_is_not_all_there_is_refused() -> None:
    spans = Spans()
    spans.put(0, 10)
    spans.put(20, 10)
    with pytest.raises(ValueError, match="not all here"):
        spans.take(5, 10)
    assert spans.ranges() == [(0, 10), (20, 10)]
    assert spans.put(10, 10) == (0, 30, [(0, 10), (20, 10)])


# ---------------------------------------------------------------------------------------------- the carver


def test_small_objects_share_a_loan_and_do_not_overlap() -> None:
    carver = Carver(loan_bytes=64 * ALIGN)
    assert carver.carve(100) is None
    carver.add_loan(1024, carver.loan_for(100))
    offsets = [carver.carve(100) for _ in range(32)]
    assert offsets == [1024 + 2 * ALIGN * i for i in range(32)]
    assert carver.carve(1) is None


def test_a_large_object_gets_a_loan_of_its_own_that_small_ones_leave_alone() -> None:
    carver = Carver(loan_bytes=64 * ALIGN)
    size = 17 * ALIGN - 5
    assert carver.loan_for(size) == 17 * ALIGN
    carver.add_loan(0, 17 * ALIGN)
    assert carver.carve(10) is None
    assert carver.carve(size) == 0
    assert carver.carve(size) is None
    assert carver.returnable(everything=True) == []


def test_an_object_as_large_as_a_loan_for_small_ones_is_told_apart_from_it() -> None:
    carver = Carver(loan_bytes=64 * ALIGN)
    size = 64 * ALIGN
    carver.add_loan(0, carver.loan_for(size))
    assert carver.carve(10) is None
    assert carver.carve(size) == 0
    assert carver.returnable() == [(size, ALIGN)]
    assert carver.returnable() == []


def test_what_is_left_of_an_old_loan_goes_back_when_there_are_two_newer() -> None:
    carver = Carver(loan_bytes=64 * ALIGN)
    for start in (0, 1000, 2000):
        carver.add_loan(start * ALIGN, 64 * ALIGN)
        assert carver.carve(16 * ALIGN) == start * ALIGN
    assert carver.returnable() == [(16 * ALIGN, 48 * ALIGN)]
    rest = carver.returnable(everything=True)
    assert sorted(rest) == [(1016 * ALIGN, 48 * ALIGN), (2016 * ALIGN, 48 * ALIGN)]
    assert carver.carve(ALIGN) is None


def test_a_place_that_was_given_up_can_be_returned() -> None:
    carver = Carver(loan_bytes=64 * ALIGN)
    carver.add_loan(0, 64 * ALIGN)
    offset = carver.carve(100)
    assert offset is not None
    carver.give_up(offset, 100)
    assert carver.returnable() == [(0, 2 * ALIGN)]
