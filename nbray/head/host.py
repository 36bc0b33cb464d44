"""The head as the daemon of its node runs it: the machine, and the journal that makes its word good."""

from __future__ import annotations

import importlib
import time
from typing import Any

from nbray.head.records import NodeGone, Persist
from nbray.head.state import HeadState
from nbray.ids import Address
from nbray.machine import Effect
from nbray.wire.messages import NodeDied


class HeadHost:
    """Takes the mail of the head; what `handle` returns may be carried out at once: it is durable by then."""

    def __init__(self, address: Address, session: str, state_path: str | None, now: float) -> None:
        """`state_path` None: nothing is kept. Raises JournalError if the file there cannot be used."""
        self._journal: Any = None
        #: What a head that carries on has to say before it hears anything.
        self.resumed: list[Effect] = []
        clock_ms = time.time_ns() // 1_000_000 - int(now * 1000)
        if state_path is None:
            self.state = HeadState(address, session, clock_ms)
            return
        # Loaded only when there is a journal to keep: an embedded daemon does without SQLite.
        self._journal = importlib.import_module("nbray.head.journal").Journal(state_path)
        self.state, effects = HeadState.restore(address, session, self._journal.load(), now, clock_ms)
        self.resumed = self._durable(effects)

    def handle(self, event: Any, now: float) -> list[Effect]:
        if isinstance(event, NodeDied):
            # Said by a node of itself: it leaves in order.
            event = NodeGone(event.node, event.reason)
        return self._durable(self.state.handle(event, now))

    def next_deadline(self) -> float | None:
        return self.state.next_deadline()

    def check(self) -> None:
        self.state.check()

    def _durable(self, effects: list[Effect]) -> list[Effect]:
        persists = [effect for effect in effects if isinstance(effect, Persist)]
        if not persists:
            return effects
        if self._journal is not None:
            self._journal.write(persists)
        return [effect for effect in effects if not isinstance(effect, Persist)]

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
