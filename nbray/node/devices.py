"""Which devices of a node each holder has. Amounts say how much of "GPU" is free; here each whole one has a number. Pure.

Whole devices go to one holder each. A share of one goes where it leaves the least: shares are packed, so that whole devices
stay whole. What is free in sum may still be in pieces that nobody can use together.
"""

from __future__ import annotations

from nbray.sched.resources import UNIT
from nbray.wire.messages import Amounts

GPU = "GPU"


class Devices:
    """The free units of each device, by its number."""

    def __init__(self, total: Amounts) -> None:
        self.free = [UNIT] * (total.get(GPU, 0) // UNIT)
        if rest := total.get(GPU, 0) % UNIT:
            self.free.append(rest)

    def choose(self, amounts: Amounts) -> list[int] | None:
        """The devices for a holder of `amounts`, which stay free; None if what is free is in too small pieces."""
        units = amounts.get(GPU, 0)
        if units <= UNIT:
            fitting = [(left, number) for number, left in enumerate(self.free) if left >= units]
            return [min(fitting)[1]] if units and fitting else None if units else []
        whole = [number for number, left in enumerate(self.free) if left == UNIT]
        wanted = -(-units // UNIT)
        return whole[:wanted] if len(whole) >= wanted else None

    def take(self, amounts: Amounts) -> list[int]:
        """As `choose`, which must have found some."""
        chosen = self.choose(amounts)
        if chosen is None:
            raise ValueError(f"no devices for {amounts}: {self.free} are free")
        for number in chosen:
            self.free[number] -= self._each(amounts)
        return chosen

    def give(self, numbers: list[int], amounts: Amounts) -> None:
        for number in numbers:
            self.free[number] += self._each(amounts)

    @staticmethod
    def _each(amounts: Amounts) -> int:
        return min(amounts.get(GPU, 0), UNIT)

    def check(self, held: list[tuple[list[int], Amounts]], total: Amounts) -> None:
        again = Devices(total)
        for numbers, amounts in held:
            for number in numbers:
                again.free[number] -= self._each(amounts)
        assert again.free == self.free, f"devices: {self.free} free, and by their holders {again.free}"
        assert all(left >= 0 for left in self.free), f"a device is over-used: {self.free}"
