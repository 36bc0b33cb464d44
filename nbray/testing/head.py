"""The simulated head: HeadState with a journal that outlives it. It lives in the daemon of a host, or on a host of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbray.head.records import NodeGone, Persist, Tables
from nbray.head.state import HeadState
from nbray.ids import HEAD, Address
from nbray.machine import Effect, Send, Tick
from nbray.testing.clock import Alarm
from nbray.wire.messages import NodeDied

if TYPE_CHECKING:
    from nbray.testing.simulator import Simulation


class SimulatedHead:
    """While it is down its mail waits, as in the outboxes of its peers."""

    def __init__(self, simulation: Simulation, address: Address, send: Callable[[Address, Address, Any], None]) -> None:
        self._simulation, self._clock, self._send = simulation, simulation.clock, send
        self.address = address
        self.tables: Tables = {}
        self.state = HeadState(address, "session")
        self.down = False
        self.is_apart = False
        self._backlog: deque[Any] = deque()
        self._alarm = Alarm(self._clock, self.state, lambda: self.take(Tick()))

    @classmethod
    def apart(cls, simulation: Simulation) -> SimulatedHead:
        """On a host of its own, which is no node."""
        host = simulation.chance.randbytes(8)
        head = cls(simulation, Address(host, HEAD), simulation.network.send)
        head.is_apart = True
        simulation.network.bind(Address(host, host), lambda _message: None)
        simulation.network.bind(head.address, head.take)
        return head

    def take(self, event: Any) -> None:
        if self.down:
            if not isinstance(event, Tick):
                self._backlog.append(event)
            return
        if isinstance(event, NodeDied):  # said by a node of itself: it leaves in order
            event = NodeGone(event.node, event.reason)
        self._simulation.history.add("head", event)
        self._carry(self.state.handle(event, self._clock.now))

    def _carry(self, effects: list[Effect]) -> None:
        if self._simulation.checked:
            self.state.check()
        for effect in effects:
            if isinstance(effect, Persist):
                table = self.tables.setdefault(effect.table, {})
                if effect.value is None:
                    table.pop(effect.key, None)
                else:
                    table[effect.key] = effect.value
            elif isinstance(effect, Send):
                self._send(self.address, effect.to, effect.message)
        self._alarm.set()

    def crash(self) -> None:
        self.down = True
        self._alarm.stop()

    def restart(self) -> None:
        """A new head carries on from the journal."""
        self.down = False
        self.state, effects = HeadState.restore(self.address, "session", self.tables, self._clock.now)
        self._alarm = Alarm(self._clock, self.state, lambda: self.take(Tick()))
        self._carry(effects)
        while self._backlog and not self.down:
            self.take(self._backlog.popleft())
