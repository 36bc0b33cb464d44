"""Tasks that tasks submit, counted for the cell that all of them came from.

    worker: Tally --CellNews, before the result of the task that submitted them, and while they run--> driver: Nested

What a worker says is all that it knows, so that a word that is lost or late changes nothing; only records come once. A worker
that dies takes along what it had submitted: its tasks that have not ended never will.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from nbray.engines.cells import Cells, Standing
from nbray.engines.port import CellProgress, NameCount
from nbray.ids import Address
from nbray.trace import TraceRecord, decode_records
from nbray.wire.messages import CellNews, Stuck

PERIOD_S = 0.25  #: between two words of a worker whose tasks come and go
SLOW_S = 1.0  #: while nothing but waiting goes on
RECORDS_AT_ONCE = 20_000  #: in one message; they are some 200 bytes each

_encode = msgspec.msgpack.Encoder().encode


class Tally(Cells):
    """A worker's counts, and when the driver is told of them. The driver's own `Cells` does without all this."""

    def __init__(
        self, standing: Callable[[str], Standing], send: Callable[[str, dict[str, list[int]], bytes, list[Stuck]], None]
    ) -> None:
        super().__init__()
        self.on_new = bool  # what a script's tasks submit has no cell
        self.fresh: set[str] = set()  #: cells with something to tell
        self._standing, self._send = standing, send
        self._open: set[str] = set()  # cells with tasks that have not ended, as far as was told
        self._told: dict[str, tuple[dict[str, list[int]], list[Stuck]]] = {}
        self._lock = threading.Lock()
        self._armed = False

    def submitted(self, tag: str, name: str) -> None:
        super().submitted(tag, name)
        if tag:
            self.fresh.add(tag)
            if not self._armed:
                self._arm(PERIOD_S)

    def ended(self, tag: str, name: str, record: TraceRecord) -> bool:
        kept = super().ended(tag, name, record)
        if kept:
            self.fresh.add(tag)
            if not self._armed:
                self._arm(PERIOD_S)
        return kept

    def tell(self) -> None:
        """Say what is new. From any thread."""
        with self._lock:
            while self.fresh:
                self._tell_of(self.fresh.pop())

    def _tell_of(self, tag: str) -> None:
        progress = self.progress(tag, self._standing(tag), RECORDS_AT_ONCE)
        names = {
            name: [count.submitted, count.done, count.failed, count.cancelled, count.running, count.inputs]
            for name, count in progress.names.items()
        }
        if len(progress.records) == RECORDS_AT_ONCE:
            self.fresh.add(tag)
        if any(count.queued or count.running for count in progress.names.values()):
            self._open.add(tag)
        else:
            self._open.discard(tag)
        if progress.records or (names, progress.stuck) != self._told.get(tag):
            self._told[tag] = names, progress.stuck
            self._send(tag, names, _encode(progress.records) if progress.records else b"", progress.stuck)

    def _arm(self, seconds: float) -> None:
        self._armed = True
        timer = threading.Timer(seconds, self._due)
        timer.name, timer.daemon = "nbray-cells", True
        timer.start()

    def _due(self) -> None:
        self._armed = False
        slow = not self.fresh
        self.fresh |= self._open  # which of them run may have changed, and nothing else says so
        self.tell()
        if self._open and not self._armed:
            self._arm(SLOW_S if slow else PERIOD_S)


def total(counts: Iterable[NameCount]) -> NameCount:
    """All of them together."""
    together = NameCount()
    for each in counts:
        together.submitted += each.submitted
        together.done += each.done
        together.failed += each.failed
        together.cancelled += each.cancelled
        together.running += each.running
        together.inputs += each.inputs
    return together


class _Told:
    """What one worker has said about one cell."""

    __slots__ = ("names", "stuck", "worker")

    def __init__(self, worker: Address) -> None:
        self.worker = worker
        self.names: dict[str, NameCount] = {}
        self.stuck: list[Stuck] = []


class Nested:
    """The driver's side. `take` is called by the I/O thread, the rest by whoever asks."""

    def __init__(self, is_dead: Callable[[Address], bool], await_death: Callable[[Address], None]) -> None:
        """`await_death(worker)`: from then on `is_dead` knows of it."""
        self.is_dead, self.await_death = is_dead, await_death
        self._told: dict[str, dict[bytes, _Told]] = {}
        self._records: dict[str, deque[bytes]] = {}

    def take(self, news: CellNews, *, keep: bool) -> None:
        """`keep` its records: somebody will ask for them."""
        workers = self._told.setdefault(news.cell, {})
        told = workers.get(news.worker.process)
        if told is None:
            told = workers[news.worker.process] = _Told(news.worker)
            self.await_death(news.worker)
        told.names = {name: NameCount(*numbers) for name, numbers in news.names.items()}
        told.stuck = news.stuck
        if keep and news.records:
            self._records.setdefault(news.cell, deque()).append(news.records)

    def together(self, tag: str, own: CellProgress) -> CellProgress:
        """`own` progress of a cell and that of what its tasks have submitted."""
        nested = self.counts(tag)
        if not nested:
            return own
        names = dict(own.names)
        for name, count in nested.items():
            names[name] = total([names[name], count]) if name in names else count
        several = sum(count.submitted for count in nested.values())
        stuck = [each for told in list(self._told[tag].values()) if not self.is_dead(told.worker) for each in told.stuck]
        records = own.records + self.records(tag)
        return msgspec.structs.replace(own, names=names, records=records, nested=several, stuck=own.stuck + stuck)

    def counts(self, tag: str) -> dict[str, NameCount]:
        """All that the cell's tasks have submitted, by name."""
        together: dict[str, NameCount] = {}
        for told in list(self._told.get(tag, {}).values()):
            dead = self.is_dead(told.worker)
            for name, count in told.names.items():
                lost = count.queued + count.running if dead else 0
                waits = (0, 0) if dead else (count.running, count.inputs)
                left = NameCount(count.submitted, count.done, count.failed, count.cancelled + lost, *waits)
                together[name] = total([together.get(name, NameCount()), left])
        return together

    def records(self, tag: str) -> list[TraceRecord]:
        """Those that have come since the last question."""
        waiting = self._records.get(tag)
        found: list[TraceRecord] = []
        while waiting:
            found += decode_records(waiting.popleft())
        return found

    def forget(self, tag: str) -> None:
        """Nobody draws the cell any more: keep its counts, as `Cells` does, and no records."""
        self._records.pop(tag, None)
