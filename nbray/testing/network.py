"""The simulated network. On one host messages are ordered and reliable while both ends live; between hosts they are datagrams
under `wire/link.py`: lost, repeated, delayed and reordered, and held back altogether while a node is cut off.

Every message is encoded and decoded on its way, as in reality: what does not fit its declaration does not travel.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from nbray.ids import Address, NodeId, ProcessId
from nbray.machine import Effect, Tick
from nbray.testing.clock import Alarm, Clock
from nbray.wire import link
from nbray.wire.codec import decode, encode
from nbray.wire.messages import Message

Receive = Callable[[Message], None]


class Weather(msgspec.Struct, frozen=True):
    """What datagrams between hosts meet. Shares are of 1; delays in seconds, between the two."""

    loss: float = 0.02
    repeated: float = 0.02
    delay_s: tuple[float, float] = (0.0002, 0.005)
    local_delay_s: tuple[float, float] = (0.00002, 0.0004)
    slow: float = 0.01  #: share of local messages whose sender or receiver is not scheduled for up to `slow_s`
    slow_s: float = 0.03


class _Pipe:
    """Messages from one process to another on the same host."""

    __slots__ = ("flying", "last_at")

    def __init__(self) -> None:
        self.flying: deque[bytes] = deque()
        self.last_at = 0.0


class Network:
    """Mailboxes by address. `digest` sums up everything that was ever said, with its time: two runs are the same if it is."""

    def __init__(self, clock: Clock, chance: random.Random, weather: Weather) -> None:
        self._clock, self._chance, self._weather = clock, chance, weather
        self._mailboxes: dict[Address, Receive] = {}
        self._pipes: dict[tuple[Address, Address], _Pipe] = {}
        self._links: dict[tuple[NodeId, NodeId], _LinkEnd] = {}
        self._epoch = 0
        self._cut_off: dict[NodeId, None] = {}
        self._digest = hashlib.blake2b(digest_size=16)
        self.datagrams_lost = 0
        self.messages = 0
        self.on_lost: Receive = lambda _message: None  #: the last words of a process that was killed, and what was said to one

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    # ------------------------------------------------------------------------------------------ mailboxes

    def bind(self, address: Address, receive: Receive) -> None:
        self._mailboxes[address] = receive

    def unbind(self, address: Address, *, orderly: bool = False) -> None:
        """The process is gone. What was sent to it is lost; what it had sent gets through, unless it was killed: then up to
        some message only."""
        self._mailboxes.pop(address, None)
        for (source, to), pipe in list(self._pipes.items()):
            if to == address:
                for frame in self._pipes.pop((source, to)).flying:
                    self.on_lost(decode(frame))
            elif source == address and not orderly:
                for _ in range(self._chance.randint(0, len(pipe.flying))):
                    self.on_lost(decode(pipe.flying.pop()))

    def send(self, source: Address, to: Address, message: Message) -> None:
        frame = encode(message)
        self.messages += 1
        self._digest.update(struct.pack("<d", self._clock.now) + source.process + to.process + frame)
        if source.node == to.node:
            self._put(source, to, frame)
        else:
            self._end(source.node, to.node).handle(link.Submitted((to.process, frame)))

    def _put(self, source: Address, to: Address, frame: bytes) -> None:
        pipe = self._pipes.get((source, to))
        if pipe is None:
            pipe = self._pipes[source, to] = _Pipe()
        delay_s = self._chance.uniform(*self._weather.local_delay_s)
        if self._chance.random() < self._weather.slow:
            delay_s += self._chance.uniform(0, self._weather.slow_s)
        pipe.last_at = max(pipe.last_at, self._clock.now + delay_s)
        pipe.flying.append(frame)
        self._clock.call_at(pipe.last_at, lambda: self._arrive(pipe, to))

    def _arrive(self, pipe: _Pipe, to: Address) -> None:
        if pipe.flying:
            self._deliver(pipe.flying.popleft(), to)

    def _deliver(self, frame: bytes, to: Address) -> None:
        receive = self._mailboxes.get(to)
        if receive is None:
            self.on_lost(decode(frame))
        else:
            receive(decode(frame))

    def flush(self, to: Address) -> None:
        """Deliver now what is on its way to `to` from processes of its host: it looks into its mailbox."""
        for (_, receiver), pipe in list(self._pipes.items()):
            while receiver == to and pipe.flying:
                self._deliver(pipe.flying.popleft(), to)

    # ------------------------------------------------------------------------------------------ between hosts

    def cut_off(self, node: NodeId) -> None:
        """Nothing reaches the node, or comes from it, until `heal`."""
        self._cut_off[node] = None

    def heal(self, node: NodeId) -> None:
        self._cut_off.pop(node, None)
        for (a, b), end in list(self._links.items()):
            if node in (a, b):
                end.handle(link.Rerouted())

    def remove_node(self, node: NodeId) -> None:
        """Its gateway died with it."""
        for pair in [pair for pair in self._links if pair[0] == node]:
            self._links.pop(pair).stop()
        for address in [address for address in self._mailboxes if address.node == node]:
            self.unbind(address)

    def abandon(self, node: NodeId, peer: NodeId, reason: str) -> None:
        """`node` has learnt that `peer` is no member of the cluster."""
        end = self._links.get((node, peer))
        if end is not None:
            end.handle(link.Abandoned(reason))

    def _end(self, node: NodeId, peer: NodeId) -> _LinkEnd:
        end = self._links.get((node, peer))
        if end is None:
            self._epoch += 1
            end = self._links[node, peer] = _LinkEnd(self, node, peer, self._epoch)
        return end

    def alarm(self, machine: link.Link, ring: Callable[[], None]) -> Alarm:
        return Alarm(self._clock, machine, ring)

    @property
    def now(self) -> float:
        return self._clock.now

    def transmit(self, node: NodeId, peer: NodeId, packet: link.Packet) -> None:
        chance, weather = self._chance, self._weather
        copies = 1 + (chance.random() < weather.repeated)
        for _ in range(copies):
            if chance.random() < weather.loss:
                self.datagrams_lost += 1
                continue
            self._clock.call_later(chance.uniform(*weather.delay_s), lambda: self._packet_came(node, peer, packet))

    def _packet_came(self, node: NodeId, peer: NodeId, packet: link.Packet) -> None:
        if node in self._cut_off or peer in self._cut_off or Address(peer, peer) not in self._mailboxes:
            self.datagrams_lost += 1
            return
        self._end(peer, node).handle(link.Arrived(packet))

    def link_delivered(self, node: NodeId, process: ProcessId, frame: bytes) -> None:
        self._put(Address(node, b"gateway"), Address(node, process), frame)


class _LinkEnd:
    """One gateway's end of the link to one peer."""

    def __init__(self, network: Network, node: NodeId, peer: NodeId, epoch: int) -> None:
        self._network, self._node, self._peer = network, node, peer
        self.link = link.Link(epoch)
        self._alarm = network.alarm(self.link, lambda: self.handle(Tick()))

    def handle(self, event: Any) -> None:
        effects: list[Effect] = self.link.handle(event, self._network.now)
        self.link.check()
        for effect in effects:
            if isinstance(effect, link.Transmit):
                self._network.transmit(self._node, self._peer, effect.packet)
            elif isinstance(effect, link.Deliver):
                process, frame = effect.parts
                self._network.link_delivered(self._node, process, frame)
        self._alarm.set()

    def stop(self) -> None:
        self._alarm.stop()
