"""CURVE connections of a gateway: the port that others dial, and the connections that it dials itself.

    Listener   one ROUTER; a connection is a visitor (auth.Door) until its proof, then a `Stream`
    Dialled    one DEALER per connection, for one life of the TCP connection: when it breaks the socket goes too, with what
               libzmq still had queued (the links send that again), and the gateway dials anew when it sees fit. Left to
               libzmq, queued frames would be sent before the Hello, and a wrong secret would be tried for ever

libzmq hides connections: it cannot close one peer of a ROUTER. But a frame tells the descriptor that it came from, and the
monitor which descriptors were accepted; shutting such a descriptor down is an ordinary end of file to libzmq. Two things
make that less simple than it sounds. libzmq hands a connection to one of its threads before another reports it accepted, so
frames may come before the report; and the last frames of a connection are read after its end, when its descriptor may be
another's already.
"""

from __future__ import annotations

import os
import resource
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from nbray import config
from nbray.exceptions import AuthenticationError
from nbray.ids import NodeId
from nbray.wire import auth
from nbray.wire.auth import NOTHING_SAID, Admitted, Challenge, Credentials, Denied, Door, Visitor
from nbray.wire.messages import PROTOCOL_VERSION

ZAP_DOMAIN = b"nbray"
MAX_FRAMES = 2
FRAME_LIMIT = config.MESSAGE_LIMIT + 4096
HANDSHAKE_MS = round(config.PRE_AUTH_S * 1000)
#: ZMTP heartbeats: a connection whose peer vanished without a word is closed after IVL + TIMEOUT.
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 2000, 8000
#: A refusal is given this long to leave before its connection is shut.
LAST_WORD_S = 0.25
#: Frames taken from one socket before others have their turn.
BURST = 200
REMEMBERED_FORMER = 1024
RESERVED_DESCRIPTORS = 256  #: of this process's limit; connections may have the others

_HANDSHAKE_FAILURES = (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_AUTH)

Socket = zmq.Socket[bytes]


class Stream:
    """One admitted connection with `node`, on either side. `peer` is host:port."""

    __slots__ = ("_routing", "_socket", "dialled", "lane", "node", "peer")

    def __init__(self, node: NodeId, lane: int, peer: str, socket_: Socket, routing: bytes | None) -> None:
        self.node, self.lane, self.peer = node, lane, peer
        self._socket, self._routing = socket_, routing
        self.dialled = routing is None

    def send(self, frames: list[Any]) -> bool:
        """False if the connection is gone; then the frames are too."""
        try:
            self._socket.send_multipart(frames if self._routing is None else [self._routing, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return False
        return True


class StreamOpened(msgspec.Struct, frozen=True):
    stream: Stream


class StreamClosed(msgspec.Struct, frozen=True):
    stream: Stream
    reason: str


class FramesArrived(msgspec.Struct, frozen=True):
    stream: Stream
    frames: list[Any]


class TurnedAway(msgspec.Struct, frozen=True):
    peer: str
    reason: str


class DialFailed(msgspec.Struct, frozen=True):
    """`error` is what a caller of `dial` should see. `again`: it may go better at once (nothing listened, hung up)."""

    dialled: Dialled
    error: Exception
    again: bool


StreamEvent = StreamOpened | StreamClosed | FramesArrived | TurnedAway | DialFailed
#: What to do when a socket is readable; `now` in monotonic seconds.
Handler = Callable[[float], Iterator[StreamEvent]]


def _common(made: Socket) -> None:
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.SNDHWM, 0)
    made.setsockopt(zmq.RCVHWM, 0)
    made.setsockopt(zmq.MAXMSGSIZE, FRAME_LIMIT)
    made.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    made.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    made.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)


def endpoint(host: str, port: int | str) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


# ---------------------------------------------------------------------------------------------------- being dialled


class Listener:
    """The one TCP port of this node. Raises OSError, in words, if it cannot be bound."""

    def __init__(self, context: zmq.Context[Socket], bind: tuple[str, int], mine: Credentials, node: NodeId) -> None:
        self._door = Door(mine, node, max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS))
        self._streams: dict[bytes, tuple[Stream, str, int]] = {}  # by routing id: with the CURVE key and the descriptor
        self._former: dict[bytes, tuple[Stream, str]] = {}  # of connections that are closed
        self._routing: dict[int, bytes] = {}  # by descriptor
        self._peers: dict[int, tuple[Any, ...]] = {}
        self.port = 0
        self._last_words: deque[tuple[float, int]] = deque()
        self._zap = context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._router = context.socket(zmq.ROUTER)
        _common(self._router)
        self._router.curve_server = True
        self._router.curve_secretkey = mine.server_keys()[1]
        self._router.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        self._router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.BACKLOG, 1024)
        self._router.setsockopt(zmq.IPV6, int(":" in bind[0]))
        self._monitor = self._router.get_monitor_socket()
        host, port = bind
        try:
            self._router.bind(endpoint(host, port or "*"))
        except zmq.ZMQError as error:
            self.close()
            raise OSError(
                error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}; choose another port or address"
            ) from None
        self.port = int(bytes(self._router.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").rpartition(b":")[2])

    @property
    def sockets(self) -> dict[Socket, Handler]:
        return {self._monitor: self._watch, self._zap: self._vouch, self._router: self._read}

    def next_deadline(self) -> float | None:
        times = [self._door.next_deadline(), self._last_words[0][0] if self._last_words else None]
        return min((t for t in times if t is not None), default=None)

    def tick(self, now: float) -> Iterator[StreamEvent]:
        for connection, reason in list(self._door.late(now)):
            yield self._turn_away(connection, reason)
        while self._last_words and self._last_words[0][0] <= now:
            self._shut(self._last_words.popleft()[1])

    def forget(self, node: NodeId) -> None:
        self._door.forget(node)

    def drop(self, stream: Stream, reason: str) -> Iterator[StreamEvent]:
        """Close an admitted connection that broke the rules."""
        for routing, (held, _, connection) in list(self._streams.items()):
            if held is stream:
                del self._streams[routing]
                self._shut(connection)
                yield StreamClosed(stream, reason)

    def _vouch(self, _now: float) -> Iterator[StreamEvent]:
        """ZAP: let any CURVE key in, and have its frames marked with it. What it may say is the door's business."""
        for _ in range(BURST):
            try:
                version, request, domain, _peer, _identity, mechanism, *keys = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            known = mechanism == b"CURVE" and domain == ZAP_DOMAIN and len(keys) == 1 and len(keys[0]) == 32
            answer = [b"200", b"OK", z85.encode(keys[0]), b""] if known else [b"400", b"CURVE only", b"", b""]
            self._zap.send_multipart([version, request, *answer])
        yield from ()

    def _watch(self, now: float) -> Iterator[StreamEvent]:
        while self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())
            if event["event"] == zmq.EVENT_ACCEPTED:
                yield from self._accepted(event["value"], now)
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                yield from self._disconnected(event["value"])

    def _accepted(self, connection: int, now: float) -> Iterator[StreamEvent]:
        peer = self._peer_of(connection)
        if not peer:
            return  # closed again already (the kernel may name a peer that is gone by nothing); the next event says so
        if self._peers.get(connection) == peer:
            return  # it has spoken before libzmq reported it
        self._peers[connection] = peer
        for who, why in self._door.connected(connection, peer[0], now):
            yield self._turn_away(who, why)

    def _disconnected(self, connection: int) -> Iterator[StreamEvent]:
        visitor = self._door.gone(connection)
        peer = self._peers.pop(connection, None)
        routing = self._routing.pop(connection, None)
        if routing is not None and (held := self._streams.get(routing)) is not None and held[2] == connection:
            del self._streams[routing]
            # What it said before its end may still be in the queue, and its descriptor may be another's by then.
            self._former[routing] = held[:2]
            if len(self._former) > REMEMBERED_FORMER:
                del self._former[next(iter(self._former))]
            yield StreamClosed(held[0], "the connection was closed")
        elif visitor is None or (visitor.node is None and not visitor.closing):
            heard = visitor is not None and bool(visitor.key)
            yield TurnedAway(
                _named(peer), "it left, or was cut off by libzmq, before it was admitted" if heard else "it spoke no CURVE"
            )

    def _read(self, now: float) -> Iterator[StreamEvent]:
        for _ in range(BURST):
            try:
                first = self._router.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            frames: list[zmq.Frame] = []
            more = True
            while more:
                frame = self._router.recv(copy=False)
                more = bool(frame.more)
                if len(frames) <= MAX_FRAMES:
                    frames.append(frame)
            yield from self._said(first, frames, now)

    def _said(self, routing: bytes, frames: list[zmq.Frame], now: float) -> Iterator[StreamEvent]:
        try:
            key, connection = str(frames[0].get("User-Id")), int(frames[0].get(zmq.SRCFD))
        except zmq.ZMQError:
            return  # no CURVE key: our ZAP answer was not behind it, so it is nobody
        held = self._streams.get(routing) or self._former.get(routing)
        if held is not None and held[1] == key:
            if len(frames) > MAX_FRAMES:
                yield from self.drop(held[0], f"a message of more than {MAX_FRAMES} frames")
            else:
                yield FramesArrived(held[0], frames)
            return
        yield from self._watch(now)  # the end of whoever had this descriptor before is known by now
        if connection not in self._door.visitors:
            yield from self._accepted(connection, now)
        visitor = self._door.visitors.get(connection)
        if visitor is None or visitor.closing or visitor.node is not None:
            return  # of a connection that is no more, or that is being closed
        if len(frames) != 1:
            yield self._turn_away(connection, "a first message of several frames")
            return
        yield from self._greet(connection, visitor, routing, frames[0], now)

    def _greet(self, connection: int, visitor: Visitor, routing: bytes, frame: zmq.Frame, now: float) -> Iterator[StreamEvent]:
        key = str(frame.get("User-Id"))
        if len(frame) > config.PRE_AUTH_BYTES:
            yield self._turn_away(connection, f"it said more than {config.PRE_AUTH_BYTES} bytes before it was admitted")
            return
        before = visitor.said
        if self._routing.get(connection, routing) != routing:
            visitor.said = NOTHING_SAID  # either this or what came before is of an earlier connection with this descriptor
        reply = self._door.heard(connection, key, frame.bytes, os.urandom(auth.NONCE_BYTES))
        try:
            self._router.send_multipart([routing, reply.frame], zmq.NOBLOCK)
        except zmq.ZMQError:
            if visitor.node is None:
                visitor.said = before  # who said it has left; the visitor may be another
            return
        self._routing[connection] = routing
        if reply.close:
            yield self._turn_away(connection, reply.close, now + LAST_WORD_S)
        elif reply.admitted and visitor.node is not None:
            stream = Stream(visitor.node, visitor.lane, _named(self._peers.get(connection)), self._router, routing)
            self._streams[routing] = (stream, key, connection)
            yield StreamOpened(stream)

    def _turn_away(self, connection: int, reason: str, at: float | None = None) -> StreamEvent:
        """Close a connection that was not admitted: now, or `at` a moment that lets a last word out."""
        self._door.closing(connection)
        peer = _named(self._peers.get(connection))
        if at is None:
            self._shut(connection)
        else:
            self._last_words.append((at, connection))
        return TurnedAway(peer, reason)

    def _peer_of(self, connection: int) -> tuple[Any, ...] | None:
        """The far address of an accepted descriptor; None unless it is, at this moment, a connection to our port."""
        try:
            with socket.socket(fileno=os.dup(connection)) as seen:
                return tuple(seen.getpeername()) if seen.getsockname()[1] == self.port else None
        except OSError:
            return None

    def _shut(self, connection: int) -> None:
        # libzmq may have closed the descriptor, and anyone may have it by now: only the same peer's is touched.
        if (peer := self._peers.get(connection)) is not None and self._peer_of(connection) == peer:
            with socket.socket(fileno=os.dup(connection)) as seen:
                try:
                    seen.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # it went by itself

    def close(self) -> None:
        self._router.disable_monitor()
        for each in (self._monitor, self._zap, self._router):
            each.close(linger=0)


def _named(peer: tuple[Any, ...] | None) -> str:
    return f"{peer[0]}:{peer[1]}" if peer else "an address that is gone"


# ---------------------------------------------------------------------------------------------------- dialling


class Dialled:
    """One outbound connection: CONNECTING -> KNOCKED -> PROVING -> admitted (`stream`), or failed. Used once."""

    def __init__(
        self,
        context: zmq.Context[Socket],
        host: str,
        port: int,
        mine: Credentials,
        keys: tuple[bytes, bytes],
        node: NodeId,
        lane: int,
        now: float,
    ) -> None:
        self.host, self.port, self.lane = host, port, lane
        self.stream: Stream | None = None
        self.over = False
        self.deadline: float | None = now + config.PRE_AUTH_S
        self._mine, self._keys, self._node = mine, keys, node
        self._connected = False
        self._dealer = context.socket(zmq.DEALER)
        _common(self._dealer)
        self._dealer.curve_publickey, self._dealer.curve_secretkey = keys
        self._dealer.curve_serverkey = mine.server_public
        self._dealer.setsockopt(zmq.RECONNECT_IVL, -1)
        self._dealer.setsockopt(zmq.IPV6, int(":" in host))
        self._monitor = self._dealer.get_monitor_socket()
        self._dealer.connect(endpoint(host, port))

    @property
    def sockets(self) -> dict[Socket, Handler]:
        return {self._monitor: self._watch, self._dealer: self._read}

    def tick(self, now: float) -> Iterator[StreamEvent]:
        if self.deadline is not None and now >= self.deadline and not self.over:
            what = "answers, but not as a gateway does" if self._connected else "does not answer"
            yield self._fail(ConnectionError(f"{self.host}:{self.port} {what} (waited {config.PRE_AUTH_S:g} s)"), again=False)

    def _watch(self, now: float) -> Iterator[StreamEvent]:
        while not self.over and self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())["event"]
            if event == zmq.EVENT_CONNECTED:
                self._connected = True
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._dealer.send(auth.encode(auth.Knock(PROTOCOL_VERSION)), zmq.NOBLOCK)
            elif event in _HANDSHAKE_FAILURES:
                yield self._handshake_failed(event)
            elif event in (zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED):
                yield from self._read(now)  # a refusal may have come just before the end
                if not self.over:
                    yield self._ended()

    def _handshake_failed(self, event: int) -> StreamEvent:
        where = f"{self.host}:{self.port}"
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return self._fail(
                AuthenticationError(f"what listens at {where} does not speak CURVE, so it is no gateway of nbray"), again=False
            )
        # To a wrong server key libzmq answers by hanging up, as a server does that just dies: the second time it is the key.
        error = AuthenticationError(
            f"{where} does not have the server key that {self._mine.source} names: it belongs to another cluster, or is no "
            "gateway. Copy the connection file, or NBRAY_TOKEN, from the head again"
        )
        return self._fail(error, again=event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)

    def _ended(self) -> StreamEvent:
        where = f"{self.host}:{self.port}"
        if self.stream is not None:
            return self.close("the connection was closed")
        if self._connected:
            return self._fail(ConnectionError(f"{where} hung up before it answered: it is ending, or is no gateway"), again=True)
        return self._fail(ConnectionError(f"nothing listens at {where}; is the head running, and is this its address?"), again=True)

    def _read(self, _now: float) -> Iterator[StreamEvent]:
        for _ in range(BURST):
            if self.over:
                return
            try:
                frames = self._dealer.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if self.stream is not None:
                yield FramesArrived(self.stream, frames)
            else:
                yield from self._answered(frames[0].bytes)

    def _answered(self, frame: bytes) -> Iterator[StreamEvent]:
        where = f"{self.host}:{self.port}"
        try:
            said = auth.decode_reply(frame)
            if isinstance(said, Challenge):
                proven = auth.hello(self._mine, said, self._keys[0], self._node, self.lane)
                self._dealer.send(auth.encode(proven), zmq.NOBLOCK)
                return
        except auth.NotAGreeting:
            yield self._fail(ConnectionError(f"{where} does not speak this protocol ({PROTOCOL_VERSION})"), again=False)
            return
        except AuthenticationError as error:
            yield self._fail(error, again=False)
            return
        if isinstance(said, Admitted):
            self.stream = Stream(said.node, self.lane, where, self._dealer, None)
            self.deadline = None
            yield StreamOpened(self.stream)
        else:
            yield self._fail(self._denied(said, where), again=False)

    def _denied(self, said: Denied, where: str) -> Exception:
        if said.versions:
            return ConnectionError(f"{where} does not admit this process: {said.reason}")
        return AuthenticationError(
            f"{where} does not accept what {self._mine.source} says: {said.reason} (cluster {self._mine.cluster[:8]})"
        )

    def _fail(self, error: Exception, *, again: bool) -> DialFailed:
        self.over = True
        return DialFailed(self, error, again)

    def close(self, reason: str = "closed") -> StreamEvent:
        """Mark it over; the gateway calls `release` once it polls the sockets no more."""
        self.over = True
        if self.stream is None:
            return DialFailed(self, ConnectionError(reason), again=False)
        return StreamClosed(self.stream, reason)

    def release(self) -> None:
        self._dealer.disable_monitor()
        self._monitor.close(linger=0)
        self._dealer.close(linger=0)
