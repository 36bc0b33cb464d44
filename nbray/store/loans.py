"""Which regions of the arena are lent to which process: for the ledger. Pure."""

from __future__ import annotations

from nbray.ids import ProcessId, short
from nbray.machine import IllegalTransition
from nbray.store.allocator import Spans


class Loans:
    """A process is in here exactly while it has something on loan: one that is not can have nothing left to seal."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[ProcessId, Spans] = {}

    def __contains__(self, process: ProcessId) -> bool:
        return process in self._of

    def __bool__(self) -> bool:
        return bool(self._of)

    def lend(self, process: ProcessId, offset: int, size: int) -> None:
        self._of.setdefault(process, Spans()).put(offset, size)

    def take_back(self, process: ProcessId, offset: int, size: int, event: object) -> None:
        """IllegalTransition, with nothing changed, if any of the region is not lent to `process`."""
        spans = self._of.get(process)
        if spans is None or offset < 0 or spans.holding(offset, size) is None:
            raise IllegalTransition(f"process {short(process)}", event, f"lent {spans.ranges() if spans else []}")
        spans.take(offset, size)
        if not spans:
            del self._of[process]

    def end(self, process: ProcessId) -> list[tuple[int, int]]:
        """(offset, size) of all that was lent to a process that died."""
        return self._of.pop(process, Spans()).ranges()

    def ranges(self) -> list[tuple[int, int]]:
        return [span for spans in self._of.values() for span in spans.ranges()]

    def totals(self) -> dict[ProcessId, int]:
        """Bytes lent, by process."""
        return {process: spans.total for process, spans in self._of.items()}

    def check(self) -> None:
        assert all(self._of.values()), "a process with nothing on loan is still here"
