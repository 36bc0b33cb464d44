"""Which stream carries which packet: the peers of a gateway, the links with them, and the connections to be made.

A link runs from end to end, whatever carries its packets: a direct stream if there is one, else one that is dialled now
(if the node can be dialled), else the home gateway, which relays. Home is the gateway that this one joined through: the
head's. A node that cannot be dialled is reached that way, or over the stream that it dialled itself.

Runs on the gateway's thread only; `Shell` is that thread's loop.
"""

from __future__ import annotations

import concurrent.futures
import heapq
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec
import zmq

from nbray.ids import NodeId, ProcessId, short
from nbray.machine import Tick
from nbray.wire import link
from nbray.wire.auth import Credentials
from nbray.wire.envelope import BULK_BYTES, CONTROL, NotAnEnvelope, route, seal, unseal
from nbray.wire.link import Link, Packet
from nbray.wire.messages import NodeInfo
from nbray.wire.streams import (
    DialFailed,
    Dialled,
    FramesArrived,
    Handler,
    Listener,
    Socket,
    Stream,
    StreamClosed,
    StreamEvent,
    StreamOpened,
    TurnedAway,
)

log = logging.getLogger("nbray.gateway")

DIAL_PATIENCE_S = 2.0  #: joining tries again for this long while nothing listens: the head may be starting
REDIAL_MIN_S, REDIAL_MAX_S = 0.1, 5.0
PEER_REDIAL_MAX_S = 60.0  #: a node that cannot be dialled from here is tried this seldom; the relay carries meanwhile
REPORT_EVERY_S = 60.0  #: one log line and one Rejected event per address and reason
REMEMBERED_DEAD = 4096


class GatewayEvent(msgspec.Struct, frozen=True):
    """What the daemon is told, on the gateway's thread: the callback only passes it on."""


class PeerUp(GatewayEvent, frozen=True):
    """Messages to and from `node` arrive in order and exactly once from now on, until PeerDown."""

    node: NodeId


class PeerDown(GatewayEvent, frozen=True):
    """The session with `node` is over. Messages that were under way to it may be lost."""

    node: NodeId
    reason: str


class HomeMoved(GatewayEvent, frozen=True):
    """Another node, `node`, answers where home was: the head was started again. What was said to the old one is lost."""

    node: NodeId


class Rejected(GatewayEvent, frozen=True):
    """A connection was turned away. At most one event a minute for one address and reason; `Gateway.counts` has all."""

    peer: str
    reason: str


class GatewayFailed(GatewayEvent, frozen=True):
    """The gateway's thread ended by an error of its own: this node reaches no other any more."""

    reason: str


class Shell(Protocol):
    """What the exchange asks of the gateway's loop."""

    counts: Counter[str]

    def deliver(self, process: ProcessId, body: Any) -> None: ...
    def tell(self, event: GatewayEvent) -> None: ...
    def register(self, sockets: dict[Socket, Handler]) -> None: ...
    def unregister(self, sockets: Iterable[Socket]) -> None: ...


class Dial:
    """A connection that is being made. `node` is who should answer; None: whoever is home."""

    __slots__ = ("dialled", "node")

    def __init__(self, dialled: Dialled, node: NodeId | None) -> None:
        self.dialled, self.node = dialled, node


class Joining:
    """A call of `dial`, from its first attempt until it is answered."""

    __slots__ = ("again_until", "answer", "auth_failures")

    def __init__(self, again_until: float) -> None:
        self.answer: concurrent.futures.Future[NodeId] = concurrent.futures.Future()
        self.again_until = again_until
        self.auth_failures = 0


class Peer:
    """Another node: how it can be reached, and the links with it, by lane."""

    __slots__ = ("address", "dials", "links", "node", "retry_at", "retry_s", "streams", "up")

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.address: tuple[str, int] | None = None
        self.streams: list[Stream] = []
        self.dials: set[int] = set()  #: lanes being dialled
        self.links: dict[int, Link] = {}
        self.retry_at = 0.0
        self.retry_s = REDIAL_MIN_S
        self.up = False

    def stream(self, lane: int) -> Stream | None:
        """The best direct stream for `lane`: its own, else that of control, else any."""
        return min(self.streams, key=lambda s: (s.lane != lane, s.lane), default=None)


class Exchange:
    """All that a gateway knows of other nodes. `listener` is None where nobody can dial this node."""

    def __init__(
        self, shell: Shell, context: zmq.Context[Socket], listener: Listener | None, node: NodeId, mine: Credentials
    ) -> None:
        self.node = node
        self.peers: dict[NodeId, Peer] = {}
        self.full: set[Link] = set()  #: links that want no more messages for now
        self._shell, self._context, self._listener, self._mine = shell, context, listener, mine
        self._keys = zmq.curve_keypair()
        self._dead: dict[NodeId, None] = {}
        self._buried: set[NodeId] = set()  #: of the dead, those whom the head declared
        self._heads: set[NodeId] = set()
        self._home: Peer | None = None
        self._home_address: tuple[str, int] | None = None
        self._home_retry_at: float | None = None
        self._home_retry_s = REDIAL_MIN_S
        self._joining: Joining | None = None
        self._dials: dict[Dialled, Dial] = {}
        self._due: dict[Link, tuple[float, Peer, int]] = {}
        # Of thousands of links a few are due at a time. A bell rings no later than its link is due; links put off what they
        # wait for with every packet, and a bell that rings too early is set again.
        self._bells: list[tuple[float, int, Link]] = []
        self._bell_of: dict[Link, float] = {}
        self._bells_set = 0
        self._reported: dict[tuple[str, str], float] = {}
        self._epoch = time.time_ns()

    def next_deadline(self) -> float | None:
        times = [self._bells[0][0]] if self._bells else []
        times += [d.deadline for d in self._dials if d.deadline is not None]
        if self._home_retry_at is not None:
            times.append(self._home_retry_at)
        if self._listener is not None and (at := self._listener.next_deadline()) is not None:
            times.append(at)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        for link_ in self._rung(now):
            if (due := self._due.get(link_)) is None:
                continue
            at, peer, lane = due
            if at <= now:
                self._step(peer, lane, link_, Tick(), now)
            else:
                self._set_bell(link_, at)
        for dialled in list(self._dials):
            self.took(dialled.tick(now), now)
        if self._listener is not None:
            self.took(self._listener.tick(now), now)
        if self._home_retry_at is not None and now >= self._home_retry_at:
            self._home_retry_at = None
            self._dial_home(now)

    def close(self) -> None:
        if self._joining is not None:
            self._joining.answer.set_exception(ConnectionError("this node is stopping"))
        for dialled in list(self._dials):
            dialled.release()
        if self._listener is not None:
            self._listener.close()

    # ------------------------------------------------------------------------------------------------ links

    def send(self, node: NodeId, lane: int, parts: link.Parts, now: float) -> None:
        """Hand a message for another node to its link."""
        if node in self._dead:
            self._shell.counts["message to a dead node"] += 1
            return
        peer = self._peer(node)
        self._step(peer, lane, self._link(peer, lane), link.Submitted(parts), now)

    @property
    def has_last_words(self) -> bool:
        """Whether messages are on their way that a connection of this moment could still bring to their ends."""
        by_relay = self._home is not None and bool(self._home.streams)
        waiting = (p for p in self.peers.values() if (link_ := p.links.get(CONTROL)) is not None and link_.undelivered)
        return any(by_relay or peer.streams for peer in waiting)

    def _peer(self, node: NodeId) -> Peer:
        peer = self.peers.get(node)
        if peer is None:
            peer = self.peers[node] = Peer(node)
        return peer

    def _link(self, peer: Peer, lane: int) -> Link:
        found = peer.links.get(lane)
        if found is None:
            self._epoch = max(self._epoch + 1, time.time_ns())
            found = peer.links[lane] = Link(self._epoch)
        return found

    def _step(self, peer: Peer, lane: int, link_: Link, event: Any, now: float) -> None:
        for effect in link_.handle(event, now):
            match effect:
                case link.Transmit():
                    self._transmit(peer, lane, effect.packet, now)
                case link.Deliver():
                    process, body = effect.parts
                    self._shell.deliver(process, body)
                case link.Opened():
                    if lane == CONTROL and not peer.up:
                        peer.up = True
                        self._shell.tell(PeerUp(peer.node))
                case link.Lost():
                    self._lost(peer, lane, effect, now)
        deadline = link_.next_deadline()
        if deadline is None:
            self._due.pop(link_, None)
        else:
            self._due[link_] = (deadline, peer, lane)
            self._set_bell(link_, deadline)
        (self.full.add if link_.full else self.full.discard)(link_)

    def _set_bell(self, link_: Link, at: float) -> None:
        before = self._bell_of.get(link_)
        if before is None or at < before:
            self._bell_of[link_] = at
            self._bells_set += 1
            heapq.heappush(self._bells, (at, self._bells_set, link_))

    def _rung(self, now: float) -> list[Link]:
        """The links whose bells ring now."""
        rung = []
        while self._bells and self._bells[0][0] <= now:
            at, _, link_ = heapq.heappop(self._bells)
            if self._bell_of.get(link_) == at:  # else an earlier one has rung for it
                del self._bell_of[link_]
                rung.append(link_)
        return rung

    def _lost(self, peer: Peer, lane: int, lost: link.Lost, now: float) -> None:
        self._shell.counts["message not known to have arrived"] += lost.undelivered
        if peer.up:
            peer.up = False
            self._shell.tell(PeerDown(peer.node, lost.reason))
        # Only what this side decided ends the other lanes too: answering the peer's decision with one of our own would
        # be answered in turn, for ever.
        if not peer.links[lane].open:
            for other, link_ in peer.links.items():
                if other != lane:
                    self._step(peer, other, link_, link.Abandoned(lost.reason), now)

    def _transmit(self, peer: Peer, lane: int, packet: Packet, now: float) -> None:
        stream = peer.stream(lane)
        if stream is None or (stream.lane != lane and packet.kind == link.DATA):
            self._want(peer, lane if stream is not None else CONTROL, now)
        if stream is None and self._home is not None and self._home is not peer:
            stream = self._home.stream(lane)
        if stream is None or not stream.send(seal(self.node, peer.node, lane, packet)):
            self._shell.counts["packet without a route"] += 1  # the link repeats it

    # ------------------------------------------------------------------------------------------------ streams

    def took(self, events: Iterable[StreamEvent], now: float) -> None:
        for event in events:
            match event:
                case FramesArrived():
                    self._arrived(event.stream, event.frames, now)
                case StreamOpened():
                    self._opened(event.stream, now)
                case StreamClosed():
                    self._closed(event.stream, event.reason, now)
                case TurnedAway():
                    self._reject(event.peer, event.reason, now)
                case DialFailed():
                    self._dial_failed(event, now)

    def _arrived(self, stream: Stream, frames: list[Any], now: float) -> None:
        try:
            source, destination, _ = route(frames)
            # A relay speaks for others; everybody else for himself.
            if source != stream.node and (destination != self.node or not self._is_relay(stream.node)):
                raise NotAnEnvelope(f"it spoke for node {short(source)}")
            if destination != self.node:
                self._relay(destination, frames)
                return
            envelope = unseal(frames)
        except NotAnEnvelope as error:
            self._reject(stream.peer, str(error), now)
            self._drop(stream, str(error), now)
            return
        self._dead.pop(source, None)
        peer, packet = self._peer(source), envelope.packet
        if packet.kind == link.DATA and len(packet.parts[1]) < BULK_BYTES:
            packet = msgspec.structs.replace(packet, parts=(packet.parts[0], packet.parts[1].bytes))
        self._step(peer, envelope.lane, self._link(peer, envelope.lane), link.Arrived(packet), now)
        for lane, link_ in peer.links.items():
            if lane != envelope.lane:
                link_.handle(link.Heard(), now)
        if envelope.lane not in (CONTROL, stream.lane):
            self._want(peer, envelope.lane, now)  # the sender cannot always dial us

    def _is_relay(self, node: NodeId) -> bool:
        return node in self._heads or (self._home is not None and node == self._home.node)

    def _relay(self, destination: NodeId, frames: list[Any]) -> None:
        peer = self.peers.get(destination)
        stream = peer.stream(route(frames)[2]) if peer is not None else None
        if stream is None or not stream.send(frames):
            self._shell.counts["relayed packet without a route"] += 1

    def _opened(self, stream: Stream, now: float) -> None:
        dial = next((d for d in self._dials.values() if d.dialled.stream is stream), None)
        if dial is not None:
            if not self._answered_right(dial, stream, now):
                return
            if stream.lane == CONTROL and (dial.node is None or dial.node == getattr(self._home, "node", None)):
                self._came_home(stream, now)
        self._dead.pop(stream.node, None)
        peer = self._peer(stream.node)
        peer.dials.discard(stream.lane)
        peer.retry_at, peer.retry_s = 0.0, REDIAL_MIN_S
        first = not peer.streams
        peer.streams.append(stream)
        if first:
            for each in self.peers.values() if peer is self._home else [peer]:
                if each is peer or not each.streams:
                    self._rerouted(each, now)

    def _answered_right(self, dial: Dial, stream: Stream, now: float) -> bool:
        if stream.node == self.node:
            reason = "it is this node itself"
        elif dial.node is not None and stream.node != dial.node:
            reason = f"node {short(stream.node)} answers where node {short(dial.node)} was said to be"
        else:
            return True
        self._dial_failed(DialFailed(dial.dialled, ConnectionError(f"{stream.peer}: {reason}"), again=False), now)
        return False

    def _closed(self, stream: Stream, reason: str, now: float) -> None:
        self._release(next((d for d in self._dials if d.stream is stream), None))
        peer = self.peers.get(stream.node)
        if peer is None or stream not in peer.streams:
            return
        peer.streams.remove(stream)
        log.info("stream %d with node %s at %s ended: %s", stream.lane, short(peer.node), stream.peer, reason)
        if peer is self._home and stream.lane == CONTROL and stream.dialled:
            self._home_retry_at = now
        if peer.streams:
            self._rerouted(peer, now)  # what the closed one carried is sent again on the others
        elif peer.node in self._dead and peer is not self._home:
            self._forget(peer)

    def _drop(self, stream: Stream, reason: str, now: float) -> None:
        dialled = next((d for d in self._dials if d.stream is stream), None)
        if dialled is not None:
            self.took([dialled.close(reason)], now)
        elif self._listener is not None:
            self.took(list(self._listener.drop(stream, reason)), now)

    def _rerouted(self, peer: Peer, now: float) -> None:
        for lane, link_ in list(peer.links.items()):
            self._step(peer, lane, link_, link.Rerouted(), now)

    def _reject(self, peer: str, reason: str, now: float) -> None:
        self._shell.counts[f"rejected: {reason}"] += 1
        subject = (peer.rpartition(":")[0], reason)
        if now - self._reported.get(subject, -REPORT_EVERY_S) < REPORT_EVERY_S:
            return
        if len(self._reported) > 1000:
            self._reported.clear()
        self._reported[subject] = now
        log.warning("closed a connection from %s: %s (%d so far)", peer, reason, self._shell.counts[f"rejected: {reason}"])
        self._shell.tell(Rejected(peer, reason))

    # ------------------------------------------------------------------------------------------------ dialling

    def _want(self, peer: Peer, lane: int, now: float) -> None:
        """Dial `peer` for `lane`, if it can be dialled, is not being dialled, and the last failure is long enough ago."""
        address = self._home_address if peer is self._home else peer.address
        if address is None or lane in peer.dials or now < peer.retry_at or (lane == CONTROL and peer is self._home):
            return
        peer.dials.add(lane)
        self._start_dial(address, lane, peer.node, now)

    def _start_dial(self, address: tuple[str, int], lane: int, node: NodeId | None, now: float) -> None:
        dialled = Dialled(self._context, *address, self._mine, self._keys, self.node, lane, now)
        self._dials[dialled] = Dial(dialled, node)
        self._shell.register(dialled.sockets)

    def _release(self, dialled: Dialled | None) -> None:
        if dialled is not None and self._dials.pop(dialled, None) is not None:
            dialled.over = True
            self._shell.unregister(dialled.sockets)
            dialled.release()

    def _dial_failed(self, event: DialFailed, now: float) -> None:
        dial = self._dials.get(event.dialled)
        self._release(event.dialled)
        if dial is None:
            return
        if dial.node is not None:
            peer = self._peer(dial.node)
            peer.dials.discard(event.dialled.lane)
            peer.retry_at = now + peer.retry_s
            peer.retry_s = min(max(peer.retry_s, 0.5) * 2, 60.0)
            log.info("cannot dial node %s: %s", short(dial.node), event.error)
            return
        joining, is_auth = self._joining, not isinstance(event.error, ConnectionError)
        if joining is None:
            if is_auth and not event.again:
                self._reject(f"{event.dialled.host}:{event.dialled.port}", str(event.error), now)
            self._home_retry_at = now + self._home_retry_s
            self._home_retry_s = min(self._home_retry_s * 2, REDIAL_MAX_S)
            return
        joining.auth_failures += is_auth
        if event.again and joining.auth_failures < 2 and now < joining.again_until:
            self._home_retry_at = now + 0.2
            return
        self._joining = self._home_address = None
        joining.answer.set_exception(event.error)

    def join(self, host: str, port: int, joining: Joining) -> None:
        if self._joining is not None:
            joining.answer.set_exception(ConnectionError("this gateway is joining already"))
            return
        self._joining = joining
        self._home_address = (host, port)
        self._dial_home(time.monotonic())

    def _dial_home(self, now: float) -> None:
        if self._home_address is not None and not any(d.node is None for d in self._dials.values() if d.dialled.stream is None):
            self._start_dial(self._home_address, CONTROL, None, now)

    def _came_home(self, stream: Stream, now: float) -> None:
        before, self._home = self._home, self._peer(stream.node)
        self._home_retry_s = REDIAL_MIN_S
        if before is not None and before is not self._home:
            self._bury(before.node, f"node {short(stream.node)} answers at its address", now)
            self._shell.tell(HomeMoved(stream.node))
        if self._joining is not None:
            self._joining.answer.set_result(stream.node)
            self._joining = None

    # ------------------------------------------------------------------------------------------------ what the head says

    def learn(self, nodes: Sequence[NodeInfo]) -> None:
        now = time.monotonic()
        for info in nodes:
            if info.node == self.node:
                continue
            if not info.alive:
                if info.node not in self._buried:  # once: it may speak again, and must then be told that it is dead
                    self._buried.add(info.node)
                    self._bury(info.node, "the head says that it is dead", now)
                continue
            self._buried.discard(info.node)
            self._dead.pop(info.node, None)
            host, _, port = info.gateway.rpartition(":")
            if port.isdecimal():
                self._peer(info.node).address = (host.strip("[]"), int(port))
            (self._heads.add if info.is_head else self._heads.discard)(info.node)

    def _bury(self, node: NodeId, reason: str, now: float) -> None:
        """End the session, and start none with it unless it speaks. Its connections end when it does."""
        self._dead[node] = None
        while len(self._dead) > REMEMBERED_DEAD:
            oldest = next(iter(self._dead))
            del self._dead[oldest]
            self._buried.discard(oldest)
        self._heads.discard(node)
        if (peer := self.peers.get(node)) is None:
            return
        for lane, link_ in list(peer.links.items()):
            self._step(peer, lane, link_, link.Abandoned(reason), now)
            self._due.pop(link_, None)
            self.full.discard(link_)
        if peer is not self._home and not peer.streams:
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        self.peers.pop(peer.node, None)
        if self._listener is not None:
            self._listener.forget(peer.node)
