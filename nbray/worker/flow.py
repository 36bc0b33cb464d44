"""Which of the generators that run in this worker may make another item. Pure.

    made, not taken < window        of each generator that has a window, and of all of an actor's together if the actor has one

An item is counted from the moment in which its generator goes on to make it. A generator that has ended counts no more: the
others would wait for a consumer that reads them one after the other.
"""

from __future__ import annotations

import msgspec

from nbray.ids import TaskId
from nbray.wire.messages import Streaming


class Counted(msgspec.Struct, gc=False):
    """One generator."""

    window: int
    step: int  #: items of one yield
    made: int
    taken: int
    wants: bool = False
    making: bool = False

    @property
    def out(self) -> int:
        """Items that wait to be taken, the ones being made among them."""
        return max(0, self.made + self.step * self.making - self.taken)


class Flow:
    """Steps generators; every method that can let some go on returns them, in the order in which they began."""

    def __init__(self) -> None:
        self.window = -1  #: the actor's
        self._counted: dict[TaskId, Counted] = {}

    def counts(self, task: TaskId) -> bool:
        """Whether anything bounds this generator: else nobody need ask."""
        return self.window > 0 or self._counted[task].window > 0

    def begin(self, task: TaskId, terms: Streaming) -> None:
        self._counted[task] = Counted(terms.window, terms.per_yield, terms.have, terms.taken)

    def would_go_on(self, task: TaskId, items: int) -> list[TaskId]:
        """It has made `items` in all, and wants to make more."""
        one = self._counted[task]
        one.made, one.making, one.wants = max(one.made, items), False, True  # an attempt that repeats makes what is known
        return self._let_go_on()

    def taken(self, task: TaskId, upto: int) -> list[TaskId]:
        one = self._counted.get(task)
        if one is not None:
            one.taken = max(one.taken, upto)
        return self._let_go_on()

    def end(self, task: TaskId) -> list[TaskId]:
        self._counted.pop(task, None)
        return self._let_go_on()

    def _let_go_on(self) -> list[TaskId]:
        going = []
        out = sum(one.out for one in self._counted.values()) if self.window > 0 else 0
        for task, one in self._counted.items():
            if one.wants and (one.window < 1 or one.out < one.window) and (self.window < 1 or out < self.window):
                one.wants, one.making = False, True
                out += one.step
                going.append(task)
        return going
