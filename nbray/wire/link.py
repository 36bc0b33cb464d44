"""One ordered, exactly-once stream of messages between two gateways (pure: the shell hands in packets and time).

The carriers underneath are TCP connections that break, are replaced by others, or lead through a relay: packets may be
lost, repeated, delayed and reordered. Each end of a link has an **epoch**, a number that only grows; a **session** is a
pair of epochs, one from each end. Whoever gives a session up takes a new epoch, so no packet of an old session is ever
taken for one of the new: it names an epoch that is no more.

    CLOSED --peer's epoch learnt--> OPEN --silence, queue limit, Abandoned, or the peer's newer epoch--> CLOSED
                                     (the effect `Lost` says how many messages will never be known to have arrived)

Within a session messages are numbered from 1. Acknowledgements are cumulative and name the gaps before what came early;
what is unacknowledged is sent again: gaps at once, the oldest after a time-out that doubles, all of it after a change of
route, a little at first and more as it is acknowledged: two ends that pour whole windows into every new connection would
leave no room for each other's acknowledgements, and where connections keep breaking would repeat the same for ever.
Memory is bounded at both ends: the receiver grants credit, and what exceeds it waits here, up to a limit at which
`full` asks the shell to stop taking messages.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from nbray import config
from nbray.machine import Effect, Tick

OPEN, DATA, ACK = 0, 1, 2

WINDOW_BYTES = 32 * 2**20  #: sent and not acknowledged; eight chunks of a transfer
WINDOW_PACKETS = 4096
QUEUE_BYTES = 64 * 2**20  #: waiting for credit; beyond it the link is `full`
ACK_DELAY_S = 0.02
ACK_EVERY = 32  #: packets; an eighth of the window in bytes also counts
GAPS_TOLD = 16  #: missing numbers named in one acknowledgement
RETRY_MIN_S, RETRY_MAX_S = 0.3, 2.0  #: the carrier is TCP: a loss is a broken connection, so there is no hurry
RETRY_BYTES_PER_S = 8 * 2**20  #: time for what is in flight to get through before the oldest of it is taken for lost
ROUTE_BYTES = 16 * 2**10  #: put on a new route before anything of it is acknowledged; grows by what is
OPEN_MIN_S, OPEN_MAX_S = 0.1, 2.0
GAP_MIN_S = 0.02  #: a gap younger than this (or than a round trip) may be mere reordering

Parts = tuple[Any, ...]  #: bytes, or frames of the carrier that are passed on without a copy; `len` is their size


class Packet(msgspec.Struct, frozen=True, gc=False):
    """What travels. `to_epoch` is 0 while the peer's is unknown; `seq` and `parts` belong to DATA only."""

    kind: int
    from_epoch: int
    to_epoch: int
    seq: int = 0
    ack: int = 0  #: everything up to here has been delivered
    credit: int = 0  #: bytes that the sender of this packet can take beyond `ack`
    gaps: tuple[int, ...] = ()
    parts: Parts = ()


class Submitted(msgspec.Struct, frozen=True, gc=False):
    """A message for the peer came from this side."""

    parts: Parts


class Arrived(msgspec.Struct, frozen=True, gc=False):
    packet: Packet


class Rerouted(msgspec.Struct, frozen=True, gc=False):
    """A connection to the peer was lost or found: what is in flight may have gone down with the old one."""


class Heard(msgspec.Struct, frozen=True, gc=False):
    """The peer showed life on another lane: a slow transfer is no silence."""


class Abandoned(msgspec.Struct, frozen=True, gc=False):
    """The cluster says that the peer is gone."""

    reason: str


class Transmit(Effect, frozen=True, gc=False):
    packet: Packet


class Deliver(Effect, frozen=True, gc=False):
    parts: Parts


class Opened(Effect, frozen=True, gc=False):
    """A session began: delivery is in order and exactly once until `Lost`."""


class Lost(Effect, frozen=True, gc=False):
    """The session is over. `undelivered` messages were not acknowledged: the last of them may or may not have arrived."""

    reason: str
    undelivered: int


class _Flight:
    """A message that was sent and is not acknowledged. `on_route`: sent since the route last changed."""

    __slots__ = ("on_route", "parts", "sent_at", "size", "times")

    def __init__(self, parts: Parts, size: int, sent_at: float) -> None:
        self.parts, self.size, self.sent_at, self.times = parts, size, sent_at, 1
        self.on_route = True


class Link:
    """One end of one link. `epoch` must exceed every epoch that this end has used with this peer before."""

    def __init__(self, epoch: int, *, dead_s: float = config.NODE_DEAD_S, suspect_s: float = config.NODE_SUSPECT_S) -> None:
        self.epoch = epoch
        self.peer_epoch = 0  #: the newest that was heard of, also while CLOSED
        self.open = False
        self.repeated = self.stale = self.refused = 0  #: packets: seen before, of another session, beyond the window
        self._dead_s, self._suspect_s = dead_s, suspect_s
        self._waiting: deque[tuple[Parts, int]] = deque()
        self._waiting_bytes = 0
        self._open_at: float | None = None
        self._open_delay = OPEN_MIN_S
        self._asked_at: float | None = None  #: since when an answer is owed to us
        self._heard_at = 0.0
        self._fresh_session()

    def _fresh_session(self) -> None:
        self._next_seq = 1
        self._flights: dict[int, _Flight] = {}  # contiguous, ascending
        self._flight_bytes = 0
        self._again = 1  # the first that was not sent since the route changed; those after it were not either
        self._route_bytes = 0  # sent on this route and not acknowledged
        self._route_limit = WINDOW_BYTES
        self._credit = WINDOW_BYTES
        self._round_trip = 0.0
        self._retry_s = RETRY_MIN_S
        self._retry_at: float | None = None
        self._expected = 1
        self._early: dict[int, Parts] = {}
        self._early_bytes = 0
        self._ack_at: float | None = None
        self._unacked_packets = self._unacked_bytes = 0

    # ------------------------------------------------------------------------------------------------ the machine

    @property
    def full(self) -> bool:
        """Take no more messages for this peer until some have gone."""
        return self._waiting_bytes > QUEUE_BYTES

    @property
    def undelivered(self) -> int:
        return len(self._flights) + len(self._waiting)

    def handle(self, event: Any, now: float) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Arrived():
                self._arrived(event.packet, now, effects)
            case Submitted():
                self._submitted(event.parts, now, effects)
            case Tick():
                self._ticked(now, effects)
            case Heard():
                self._heard_at = now
            case Rerouted():
                self._rerouted(now, effects)
            case Abandoned():
                self._lose(event.reason, effects)
            case _:
                raise TypeError(f"a link knows no event {event!r}")
        return effects

    def next_deadline(self) -> float | None:
        times = [self._ack_at, self._retry_at, self._open_at]
        if self._asked_at is not None:
            times.append(max(self._asked_at, self._heard_at) + self._dead_s)
        return min((t for t in times if t is not None), default=None)

    def check(self) -> None:
        assert list(self._flights) == list(range(self._next_seq - len(self._flights), self._next_seq)), "flights have holes"
        assert self._flight_bytes == sum(f.size for f in self._flights.values())
        assert self._route_bytes == sum(f.size for f in self._flights.values() if f.on_route)
        assert all(f.on_route for seq, f in self._flights.items() if seq < self._again), "sent before, and not on this route"
        assert self._waiting_bytes == sum(size for _, size in self._waiting)
        assert self._early_bytes == sum(_size(p) for p in self._early.values()) <= WINDOW_BYTES
        assert all(seq > self._expected for seq in self._early), "something delivered, or due, is still held back"
        assert self.open or not (self._flights or self._early), "a closed link holds packets of no session"
        assert (self._retry_at is not None) == bool(self._flights)
        assert (self._asked_at is not None) == bool(self._flights or self._waiting), "nobody watches for silence"

    # ------------------------------------------------------------------------------------------------ sending

    def _submitted(self, parts: Parts, now: float, effects: list[Effect]) -> None:
        size = _size(parts)
        self._waiting.append((parts, size))
        self._waiting_bytes += size
        if self._asked_at is None:
            self._asked_at = now
        if self.full and now - max(self._asked_at, self._heard_at) > self._suspect_s:
            self._lose(
                f"{self._waiting_bytes >> 20} MiB wait for it and it has been silent for over {self._suspect_s:g} s", effects
            )
        elif self.open:
            self._pump(now, effects)
        elif self._open_at is None:
            self._ask_to_open(now, effects)

    def _ask_to_open(self, now: float, effects: list[Effect]) -> None:
        effects.append(Transmit(Packet(OPEN, self.epoch, 0)))
        self._open_at = now + self._open_delay
        self._open_delay = min(self._open_delay * 2, OPEN_MAX_S)

    def _pump(self, now: float, effects: list[Effect]) -> None:
        """Send what waits, as far as the peer's credit goes. One message may always be in flight, whatever its size."""
        while self._again < self._next_seq:
            flight = self._flights[self._again]
            if not flight.on_route:
                if self._route_bytes and self._route_bytes + flight.size > self._route_limit:
                    return
                self._send_again(self._again, now, effects)
            self._again += 1
        while self._waiting and len(self._flights) < WINDOW_PACKETS:
            parts, size = self._waiting[0]
            if self._flights and self._flight_bytes + size > min(self._credit, WINDOW_BYTES):
                break
            if self._route_bytes and self._route_bytes + size > self._route_limit:
                break
            self._waiting.popleft()
            self._waiting_bytes -= size
            flight = _Flight(parts, size, now)
            self._flights[self._next_seq] = flight
            self._flight_bytes += size
            self._route_bytes += size
            self._transmit(self._next_seq, flight, effects)
            self._next_seq += 1
            self._again = self._next_seq
            if self._retry_at is None:
                self._retry_at = self._next_retry(now)

    def _next_retry(self, now: float) -> float:
        return now + self._retry_s + self._flight_bytes / RETRY_BYTES_PER_S

    def _patience(self) -> float:
        return min(max(RETRY_MIN_S, 3 * self._round_trip), RETRY_MAX_S)

    def _transmit(self, seq: int, flight: _Flight, effects: list[Effect]) -> None:
        effects.append(Transmit(self._packet(DATA, seq, flight.parts)))

    def _packet(self, kind: int, seq: int = 0, parts: Parts = ()) -> Packet:
        """A packet of the open session. It carries the acknowledgement, so none is owed after it."""
        self._ack_at = None
        self._unacked_packets = self._unacked_bytes = 0
        credit = WINDOW_BYTES - self._early_bytes
        return Packet(kind, self.epoch, self.peer_epoch, seq, self._expected - 1, credit, self._gaps(), parts)

    def _send_again(self, seq: int, now: float, effects: list[Effect]) -> None:
        flight = self._flights[seq]
        flight.sent_at = now
        flight.times += 1
        if not flight.on_route:
            flight.on_route = True
            self._route_bytes += flight.size
        self._transmit(seq, flight, effects)

    def _rerouted(self, now: float, effects: list[Effect]) -> None:
        if self.open:
            for flight in self._flights.values():
                flight.on_route = False
            self._again = self._next_seq - len(self._flights)
            self._route_bytes, self._route_limit = 0, ROUTE_BYTES
            self._retry_s = self._patience()
            if self._flights:
                self._retry_at = self._next_retry(now)
                self._pump(now, effects)
            elif self._ack_at is None and self._expected > 1:
                # Our last acknowledgement may have gone down with the connection; the peer would wait for its time-out.
                effects.append(Transmit(self._packet(ACK)))
        elif self._waiting:
            self._open_delay = OPEN_MIN_S
            self._ask_to_open(now, effects)

    def _ticked(self, now: float, effects: list[Effect]) -> None:
        if self._asked_at is not None and now >= max(self._asked_at, self._heard_at) + self._dead_s:
            self._lose(f"nothing was heard from it for {self._dead_s:g} s", effects)
            return
        if self._open_at is not None and now >= self._open_at:
            self._ask_to_open(now, effects)
        if self._retry_at is not None and now >= self._retry_at:
            # Only the oldest: on a slow path the rest is probably still on its way, and its arrival will name the gaps.
            self._send_again(next(iter(self._flights)), now, effects)
            self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)
            self._retry_at = self._next_retry(now)
        if self._ack_at is not None and now >= self._ack_at:
            effects.append(Transmit(self._packet(ACK)))

    # ------------------------------------------------------------------------------------------------ receiving

    def _arrived(self, packet: Packet, now: float, effects: list[Effect]) -> None:
        if packet.from_epoch < self.peer_epoch or packet.from_epoch <= 0:
            self.stale += 1
            return
        for_us = packet.to_epoch == self.epoch
        if packet.from_epoch > self.peer_epoch or not self.open:
            if not for_us and packet.to_epoch != 0 and packet.from_epoch == self.peer_epoch:
                self._correct(packet, effects)  # it still talks to a session that we gave up
                return
            self._adopt(packet.from_epoch, now, effects)
            if for_us and packet.kind == OPEN and not self._flights:
                effects.append(Transmit(self._packet(ACK)))  # the peer learns that we have heard
        if not for_us:
            self._correct(packet, effects)
            return
        self._heard_at = now
        if packet.kind != OPEN:
            self._acknowledged(packet, now, effects)
        if packet.kind == DATA:
            self._data(packet, now, effects)

    def _correct(self, packet: Packet, effects: list[Effect]) -> None:
        """Tell a peer that does not know it which epoch this end is in."""
        self.stale += packet.to_epoch != 0
        effects.append(Transmit(Packet(OPEN, self.epoch, packet.from_epoch)))

    def _adopt(self, peer_epoch: int, now: float, effects: list[Effect]) -> None:
        if self.open:
            effects.append(Lost("it began a new session", self.undelivered))
            self._drop_all()
        self.peer_epoch = peer_epoch
        self.open = True
        self._open_at = None
        self._open_delay = OPEN_MIN_S
        self._heard_at = now
        effects.append(Opened())
        self._pump(now, effects)

    def _drop_all(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        self._asked_at = None
        self._fresh_session()

    def _lose(self, reason: str, effects: list[Effect]) -> None:
        if not self.open and not self._waiting:
            return
        effects.append(Lost(reason, self.undelivered))
        self._drop_all()
        self.epoch += 1
        self.open = False
        self._open_at = None
        self._open_delay = OPEN_MIN_S

    def _acknowledged(self, packet: Packet, now: float, effects: list[Effect]) -> None:
        if packet.ack >= self._next_seq:
            self.refused += 1  # it acknowledges what was never sent
            return
        self._credit = packet.credit
        progress = False
        while self._flights and (oldest := next(iter(self._flights))) <= packet.ack:
            flight = self._flights.pop(oldest)
            self._flight_bytes -= flight.size
            if flight.on_route:
                self._route_bytes -= flight.size
                self._route_limit = min(self._route_limit + flight.size, WINDOW_BYTES)
            progress = True
            if flight.times == 1:  # after a repetition nobody knows which of the two was answered
                sample = now - flight.sent_at
                self._round_trip = sample if not self._round_trip else 0.875 * self._round_trip + 0.125 * sample
        self._again = max(self._again, self._next_seq - len(self._flights))
        if progress:
            self._retry_s = self._patience()
            self._retry_at = self._next_retry(now) if self._flights else None
        patience = max(self._round_trip, GAP_MIN_S)
        for seq in packet.gaps:
            flight_ = self._flights.get(seq)
            if flight_ is not None and flight_.on_route and now - flight_.sent_at >= patience:
                self._send_again(seq, now, effects)
        self._pump(now, effects)
        if not self._flights and not self._waiting:
            self._asked_at = None

    def _data(self, packet: Packet, now: float, effects: list[Effect]) -> None:
        seq, size = packet.seq, _size(packet.parts)
        if seq == self._expected:
            self._deliver(packet.parts, size, effects)
            while (parts := self._early.pop(self._expected, None)) is not None:
                early_size = _size(parts)
                self._early_bytes -= early_size
                self._deliver(parts, early_size, effects)
            if self._unacked_packets >= ACK_EVERY or self._unacked_bytes >= WINDOW_BYTES // 8:
                effects.append(Transmit(self._packet(ACK)))
            elif self._ack_at is None:
                self._ack_at = now + ACK_DELAY_S
            return
        if seq < self._expected or seq in self._early:
            self.repeated += 1
        elif seq >= self._expected + WINDOW_PACKETS or self._early_bytes + size > WINDOW_BYTES:
            self.refused += 1
        else:
            self._early[seq] = packet.parts
            self._early_bytes += size
        # Soon, not at once: one acknowledgement answers a whole burst that came early or twice.
        soon = now + ACK_DELAY_S / 4
        self._ack_at = soon if self._ack_at is None else min(self._ack_at, soon)

    def _deliver(self, parts: Parts, size: int, effects: list[Effect]) -> None:
        self._expected += 1
        self._unacked_packets += 1
        self._unacked_bytes += size
        effects.append(Deliver(parts))

    def _gaps(self) -> tuple[int, ...]:
        if not self._early:
            return ()
        missing: list[int] = []
        for seq in range(self._expected, max(self._early)):
            if seq not in self._early:
                missing.append(seq)
                if len(missing) == GAPS_TOLD:
                    break
        return tuple(missing)


def _size(parts: Parts) -> int:
    return sum(map(len, parts))
