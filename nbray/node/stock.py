"""Amounts that leases and actors are given out of: a node's own, or those of one bundle of a placement group. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nbray.sched.resources import fits, give, take
from nbray.wire.messages import Amounts, BundleInfo

CPU = "CPU"


class Stock:
    """What there is in all, and what of it is free."""

    def __init__(self, total: Mapping[str, int]) -> None:
        self.total: Amounts = dict(total)
        self.free: Amounts = dict(total)

    @property
    def is_whole(self) -> bool:
        """Whether nobody holds any of it."""
        return self.free == self.total

    def fits(self, amounts: Mapping[str, int]) -> bool:
        return fits(self.free, amounts)

    def hold(self, amounts: Mapping[str, int], *, force: bool = False) -> Amounts:
        """Take `amounts` from what is free; returns what to give back to `release`."""
        take(self.free, amounts, force=force)
        return dict(amounts)

    def release(self, held: Amounts) -> None:
        """Give back what `hold` returned, once: it is empty afterwards."""
        give(self.free, held, self.total)
        held.clear()

    def lend_cpu(self, held: Amounts) -> None:
        """The holder waits in `get`: others may have its CPU, and nothing else of it."""
        if units := held.pop(CPU, 0):
            give(self.free, {CPU: units}, self.total)

    def take_cpu_back(self, held: Amounts, amounts: Mapping[str, int]) -> None:
        """The holder goes on. The CPU may be taken: then more is in use than there is until something ends."""
        if units := amounts.get(CPU, 0) - held.get(CPU, 0):
            take(self.free, {CPU: units}, force=True)
            held[CPU] = amounts[CPU]


class Bundle(Stock):
    """A part of a node that is set aside for a placement group. `held` is what it takes from the node; `changed` is called when
    what is free of it changes."""

    def __init__(self, group: bytes, index: int, held: Amounts, changed: Callable[[], None]) -> None:
        super().__init__(held)
        self.group, self.index, self.held = group, index, held
        self._changed = changed
        self._info: BundleInfo | None = None

    def _touch(self) -> None:
        self._info = None
        self._changed()

    def hold(self, amounts: Mapping[str, int], *, force: bool = False) -> Amounts:
        self._touch()
        return super().hold(amounts, force=force)

    def release(self, held: Amounts) -> None:
        self._touch()
        super().release(held)

    def lend_cpu(self, held: Amounts) -> None:
        self._touch()
        super().lend_cpu(held)

    def take_cpu_back(self, held: Amounts, amounts: Mapping[str, int]) -> None:
        self._touch()
        super().take_cpu_back(held, amounts)

    def info(self) -> BundleInfo:
        """The bundle as its node tells others. What is over-used counts as not free. Kept, because a node tells often."""
        if self._info is None:
            free = {name: max(0, units) for name, units in self.free.items()}
            self._info = BundleInfo(self.group, self.index, self.total, free)
        return self._info
