"""Gateways over real sockets on the loopback interface: what gets through, what does not, and what a hostile peer gets."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import zmq

from nbray.exceptions import AuthenticationError
from nbray.ids import HEAD, Address
from nbray.wire import auth
from nbray.wire.auth import Credentials, credentials
from nbray.wire.codec import encode
from nbray.wire.envelope import BULK_LANES, CONTROL, lane_of, seal
from nbray.wire.gateway import Gateway, GatewayEvent, HomeMoved, PeerDown, PeerUp, Rejected
from nbray.wire.link import DATA, Packet
from nbray.wire.mailbox import Mailbox
from nbray.wire.messages import CancelTask, DefineFunction, NodeInfo, PushChunk

CLUSTER = "ab" * 16
MINE = credentials(CLUSTER, b"s" * 32, "test.json")
BOUND_S = 30.0  #: within which everything here must have happened


class Node:
    """A gateway, and one local process beside it with a mailbox."""

    def __init__(self, name: str, bind: tuple[str, int] | None = None, mine: Credentials = MINE) -> None:
        self.node = name.encode().ljust(8, b".")
        self.process = b"p" + self.node[:7]
        self.directory = tempfile.mkdtemp(prefix="nb")
        self.events: queue.Queue[GatewayEvent] = queue.Queue()
        self.seen: list[GatewayEvent] = []
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.mailboxes: list[zmq.Socket[bytes]] = []
        self.inbox = self.mailbox(self.process)
        self.gateway = Gateway(self.directory, self.node, bind=bind, credentials=mine, on_event=self.events.put)
        try:
            self.gateway.start()
        except OSError:
            self.close()
            raise
        self.outbox = self.context.socket(zmq.PUSH)
        self.outbox.sndhwm = 0
        self.outbox.connect(f"ipc://{self.directory}/gateway")

    def mailbox(self, process: bytes) -> zmq.Socket[bytes]:
        made = self.context.socket(zmq.PULL)
        made.rcvhwm = 0
        made.rcvtimeo = round(BOUND_S * 1000)
        made.bind(f"ipc://{self.directory}/{process.hex()}")
        self.mailboxes.append(made)
        return made

    @property
    def port(self) -> int:
        assert self.gateway.port is not None
        return self.gateway.port

    def send(self, to: Node, message: bytes, process: bytes | None = None) -> None:
        self.outbox.send_multipart([to.node, process or to.process, message])

    def take(self, count: int) -> list[bytes]:
        return [self.inbox.recv() for _ in range(count)]

    def wait_event(self, wanted: Callable[[GatewayEvent], bool]) -> GatewayEvent:
        for event in self.seen:
            if wanted(event):
                return event
        while True:
            event = self.events.get(timeout=BOUND_S)
            self.seen.append(event)
            if wanted(event):
                return event

    def wait_count(self, what: str, count: int) -> None:
        deadline = time.monotonic() + BOUND_S
        while self.gateway.counts[what] < count:
            assert time.monotonic() < deadline, self.gateway.counts
            time.sleep(0.01)

    def wait_rejections(self, count: int) -> None:
        """Of any kind. libzmq reports an end in a thread of its own, which may be later than what others did since."""
        deadline = time.monotonic() + BOUND_S
        while sum(n for why, n in self.gateway.counts.copy().items() if why.startswith("rejected")) < count:
            assert time.monotonic() < deadline, self.gateway.counts
            time.sleep(0.01)

    def wait_rejected(self, text: str) -> Rejected:
        event = self.wait_event(lambda e: isinstance(e, Rejected) and text in e.reason)
        assert isinstance(event, Rejected)
        return event

    def info(self, address: str = "", *, alive: bool = True, is_head: bool = False) -> NodeInfo:
        return NodeInfo(self.node, "127.0.0.1", 1, {}, {}, gateway=address, alive=alive, is_head=is_head)

    def close(self) -> None:
        self.gateway.stop()
        self.context.destroy(linger=0)
        shutil.rmtree(self.directory)


@pytest.fixture
def make() -> Iterator[Callable[..., Node]]:
    with contextlib.ExitStack() as stack:

        def new(*args: Any, **kwargs: Any) -> Node:
            node = Node(*args, **kwargs)
            stack.callback(node.close)
            return node

        yield new


@pytest.fixture
def head(make: Callable[..., Node]) -> Node:
    return make("head", ("127.0.0.1", 0))


def joined(
    make: Callable[..., Node], head: Node, name: str = "a", *, port: int | None = None, bind: tuple[str, int] | None = None
) -> Node:
    node = make(name, bind)
    assert node.gateway.dial("127.0.0.1", port or head.port) == head.node
    return node


# ------------------------------------------------------------------------------------------------ messages get through


def test_two_gateways_carry_messages_both_ways_in_order(make: Callable[..., Node], head: Node) -> None:
    a = joined(make, head)
    for i in range(500):
        a.send(head, b"%d" % i)
    assert head.take(500) == [b"%d" % i for i in range(500)]
    for i in range(500):
        head.send(a, b"%d" % i)
    assert a.take(500) == [b"%d" % i for i in range(500)]
    assert a.wait_event(lambda e: isinstance(e, PeerUp)) == PeerUp(head.node)
    assert head.wait_event(lambda e: isinstance(e, PeerUp)) == PeerUp(a.node)


def test_a_message_for_the_head_goes_to_the_daemon_where_the_head_has_no_socket_of_its_own(
    make: Callable[..., Node], head: Node
) -> None:
    a = joined(make, head)
    daemon = head.mailbox(head.node)
    a.send(head, b"to the head", HEAD)
    assert daemon.recv() == b"to the head"


def test_a_message_for_a_process_that_is_gone_is_dropped_and_counted(make: Callable[..., Node], head: Node) -> None:
    a = joined(make, head)
    a.send(head, b"lost", b"nobody..")
    a.send(head, b"kept")
    assert head.take(1) == [b"kept"]
    assert head.gateway.counts["message to a local process that is gone"] == 1


def test_nodes_that_cannot_be_dialled_reach_each_other_through_the_head(make: Callable[..., Node], head: Node) -> None:
    a, b = joined(make, head, "a"), joined(make, head, "b")
    for i in range(100):
        a.send(b, b"%d" % i)
    assert b.take(100) == [b"%d" % i for i in range(100)]
    b.send(a, b"back")
    assert a.take(1) == [b"back"]
    assert b.wait_event(lambda e: isinstance(e, PeerUp)) == PeerUp(a.node)


def test_a_known_gateway_address_is_dialled_and_the_head_is_not_needed_any_more(make: Callable[..., Node], head: Node) -> None:
    a, b = joined(make, head, "a"), joined(make, head, "b", bind=("127.0.0.1", 0))
    a.gateway.learn([b.info(f"127.0.0.1:{b.port}")])
    a.send(b, b"first")
    assert b.take(1) == [b"first"]
    while not any(s.node == b.node for p in list(a.gateway._exchange.peers.values()) for s in p.streams):
        a.send(b, b"more")
        b.take(1)
    head.gateway.stop()
    a.send(b, b"direct")
    b.send(a, b"and back")
    assert b.take(1) == [b"direct"]
    assert a.take(1) == [b"and back"]


def test_chunks_get_connections_of_their_own_and_arrive_whole(make: Callable[..., Node], head: Node) -> None:
    a = joined(make, head)
    sent = []
    for i in range(24):
        chunk = encode(PushChunk(bytes([i // 2 % 2]) + b"t" * 15, b"o" * 20, i, 24, 0, bytes([i]) * 2**20))
        assert lane_of(chunk) in BULK_LANES
        sent.append(chunk)
        (a if i % 2 else head).send(head if i % 2 else a, chunk)
    assert sorted(head.take(12) + a.take(12)) == sorted(sent)
    while {s.lane for s in head.gateway._exchange.peers[a.node].streams} != {CONTROL, *BULK_LANES}:
        a.send(head, sent[0])
        a.send(head, sent[2])
        head.take(2)


def test_large_messages_that_are_no_chunks_keep_their_place_in_the_order(make: Callable[..., Node], head: Node) -> None:
    a = joined(make, head)
    large = encode(DefineFunction(b"f" * 16, "f", b"x" * 2**20, 0))
    assert lane_of(large) == CONTROL
    for message in (b"before", large, b"after"):
        a.send(head, message)
    assert head.take(3) == [b"before", large, b"after"]


class Cutter:
    """A TCP proxy that can cut its connections, and refuse new ones for a while."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.wake, self.woken = socket.socketpair()
        self.cuts = 0
        self.passed = 0
        self.cut_every: int | None = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.done.is_set():
            ready, _, _ = select.select([self.listener, self.woken, *(s for p in self.pairs for s in p)], [], [])
            if self.listener in ready:
                near, _ = self.listener.accept()
                self.pairs.append((near, socket.create_connection(("127.0.0.1", self.target))))
            for pair in list(self.pairs):
                self.carry(pair, ready)

    def carry(self, pair: tuple[socket.socket, socket.socket], ready: list[Any]) -> None:
        for here, there in (pair, pair[::-1]):
            if here in ready and pair in self.pairs:
                try:
                    data = here.recv(65536)
                    there.sendall(data)
                except OSError:
                    data = b""
                self.passed += len(data)
                if not data or (self.cut_every and self.passed > self.cut_every):
                    self.cuts += bool(data)
                    self.passed = 0
                    self.pairs.remove(pair)
                    for each in pair:
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST: what is queued is lost
                        each.close()

    def close(self) -> None:
        self.done.set()
        self.wake.send(b"x")
        self.thread.join()
        for each in [self.listener, self.wake, self.woken, *(s for p in self.pairs for s in p)]:
            each.close()


def test_connections_that_break_again_and_again_lose_nothing_and_repeat_nothing(make: Callable[..., Node], head: Node) -> None:
    cutter = Cutter(head.port)
    try:
        a = joined(make, head, port=cutter.port)
        cutter.cut_every = 200_000
        expected = [b"%06d" % i + b"x" * 5000 for i in range(400)]
        for message in expected:
            a.send(head, message)
            head.send(a, message)
        assert head.take(400) == expected
        assert a.take(400) == expected
        assert cutter.cuts >= 5
    finally:
        cutter.close()
    assert not [e for e in [*a.seen, *a.events.queue, *head.seen, *head.events.queue] if isinstance(e, PeerDown)]


def test_a_restarted_head_at_the_same_address_becomes_home_under_its_new_name(make: Callable[..., Node]) -> None:
    first = make("head1", ("127.0.0.1", 0))
    a = joined(make, first)
    a.send(first, b"hello")
    first.take(1)
    port = first.port
    first.gateway.stop()
    second = make("head2", ("127.0.0.1", port))
    a.wait_event(lambda e: isinstance(e, PeerDown) and e.node == first.node)
    assert a.wait_event(lambda e: isinstance(e, HomeMoved)) == HomeMoved(second.node)
    a.send(second, b"again")
    assert second.take(1) == [b"again"]


def test_a_gateway_that_stops_lets_the_last_words_of_its_node_out(make: Callable[..., Node], head: Node) -> None:
    a = joined(make, head)
    last_words = [CancelTask(b"%016d" % i) for i in range(5000)]
    mailbox = Mailbox(Address(a.node, b"daemon.."), a.directory)
    for message in last_words:
        mailbox.send(Address(head.node, head.process), message)
    mailbox.pass_on()
    mailbox.close()
    a.gateway.stop()
    assert head.take(5000) == [encode(message) for message in last_words]


def test_a_gateway_that_stops_does_not_wait_for_nodes_that_it_cannot_reach(make: Callable[..., Node], head: Node) -> None:
    a = joined(make, head)
    a.send(head, b"first")
    head.take(1)
    a.gateway.stop()
    head.wait_event(lambda e: isinstance(e, PeerUp))
    while head.gateway._exchange.peers[a.node].streams:
        time.sleep(0.01)
    head.send(a, b"to nobody")
    head.wait_count("packet without a route", 1)
    assert not head.gateway._exchange.has_last_words


def test_a_node_that_the_head_calls_dead_gets_nothing_more(make: Callable[..., Node], head: Node) -> None:
    a = joined(make, head)
    head.send(a, b"alive")
    a.take(1)
    last = a.info(alive=False)
    a.gateway.stop()  # a node that lives dials again, and is heard when it does
    head.gateway.learn([last])
    head.wait_event(lambda e: isinstance(e, PeerDown) and e.node == last.node)
    b = joined(make, head, "b")
    head.send(a, b"to the dead")
    head.send(b, b"to the living")
    b.take(1)
    assert head.gateway.counts["message to a dead node"] == 1


# ------------------------------------------------------------------------------------------------ who is not let in


def test_a_wrong_secret_is_refused_naming_where_it_came_from(make: Callable[..., Node], head: Node) -> None:
    wrong = msgspec.structs.replace(credentials(CLUSTER, b"t" * 32, "/home/me/old.json"), server_public=MINE.server_public)
    a = make("a", None, wrong)
    with pytest.raises(AuthenticationError, match=r"/home/me/old\.json.*the join secret is wrong"):
        a.gateway.dial("127.0.0.1", head.port)
    head.wait_rejected("the join secret is wrong")


def test_a_wrong_server_key_is_refused_naming_where_it_came_from(make: Callable[..., Node], head: Node) -> None:
    wrong = msgspec.structs.replace(MINE, server_public=zmq.curve_keypair()[0], source="$NBRAY_TOKEN")
    a = make("a", None, wrong)
    with pytest.raises(AuthenticationError, match=r"server key that \$NBRAY_TOKEN names"):
        a.gateway.dial("127.0.0.1", head.port)
    head.wait_rejected("spoke no CURVE")
    assert sum(n for why, n in head.gateway.counts.items() if why.startswith("rejected")) <= 2, "a retry storm"


def test_the_right_secret_of_another_cluster_is_refused_by_name(make: Callable[..., Node], head: Node) -> None:
    other = msgspec.structs.replace(MINE, cluster="cd" * 16, source="b.json")
    a = make("a", None, other)
    with pytest.raises(AuthenticationError, match=r"belongs to cluster abababab, b\.json to cluster cdcdcdcd"):
        a.gateway.dial("127.0.0.1", head.port)


def test_nothing_listening_is_a_connection_error(make: Callable[..., Node]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionError, match="nothing listens"):
        make("a").gateway.dial("127.0.0.1", port)


def test_a_listener_that_is_no_gateway_is_named_as_such(make: Callable[..., Node]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = threading.Thread(target=lambda: answer_http(listener))
        accepted.start()
        with pytest.raises((AuthenticationError, ConnectionError), match="is no gateway"):
            make("a").gateway.dial("127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        accepted.join()


def answer_http(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + b" " * 64)
            connection.close()


def test_a_port_that_is_taken_is_an_error_in_words(make: Callable[..., Node], head: Node) -> None:
    with pytest.raises(OSError, match="choose another port"):
        make("b", ("127.0.0.1", head.port))


# ------------------------------------------------------------------------------------------------ hostile peers


class Stranger:
    """A CURVE client that says what it likes. It knows the server key, as anyone with an old connection file does."""

    def __init__(self, port: int, *, curve: bool = True, identity: bytes | None = None) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.public, secret = zmq.curve_keypair()
        self.dealer = self.context.socket(zmq.DEALER)
        self.dealer.reconnect_ivl = -1
        self.dealer.rcvtimeo = round(BOUND_S * 1000)
        if identity is not None:
            self.dealer.identity = identity
        if curve:
            self.dealer.curve_publickey, self.dealer.curve_secretkey, self.dealer.curve_serverkey = (
                self.public,
                secret,
                MINE.server_public,
            )
        self.monitor = self.dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        self.dealer.connect(f"tcp://127.0.0.1:{port}")

    def say(self, *frames: bytes) -> None:
        self.dealer.send_multipart(frames)

    def hear(self) -> Any:
        return auth.decode_reply(self.dealer.recv())

    def challenged(self) -> auth.Challenge:
        self.say(auth.encode(auth.Knock(1)))
        challenge = self.hear()
        assert isinstance(challenge, auth.Challenge)
        return challenge

    def admitted(self, node: bytes) -> Stranger:
        self.say(auth.encode(auth.hello(MINE, self.challenged(), self.public, node, 0)))
        assert isinstance(self.hear(), auth.Admitted)
        return self

    def wait_closed(self) -> None:
        assert self.monitor.poll(round(BOUND_S * 1000)), "the connection is still open"

    def close(self) -> None:
        self.dealer.disable_monitor()
        self.context.destroy(linger=0)


@pytest.fixture
def stranger(head: Node) -> Iterator[Callable[..., Stranger]]:
    with contextlib.ExitStack() as stack:

        def new(**kwargs: Any) -> Stranger:
            made = Stranger(head.port, **kwargs)
            stack.callback(made.close)
            return made

        yield new


def still_serves(make: Callable[..., Node], head: Node) -> None:
    b = joined(make, head, "after")
    b.send(head, b"served")
    assert head.take(1) == [b"served"]


def test_a_plaintext_client_is_cut_off(make: Callable[..., Node], head: Node, stranger: Callable[..., Stranger]) -> None:
    stranger(curve=False).wait_closed()
    head.wait_rejected("spoke no CURVE")
    still_serves(make, head)


GARBAGE = [
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 500,
    b"SSH-2.0-OpenSSH_9.0\r\n" + b"y" * 100,
    b"*1\r\n$4\r\nPING\r\n" * 10,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 100,
    b"\x00" * 2**20,
    b"\xff" * 2**20,
    b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL" + b"\0" * 50,
    b"\xff\0\0\0\0\0\0\0\x01\x7f\x01" + b"\0" * 64,
    b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00CURVE" + b"\0" * 47 + b"\x04\xff" + b"\xff" * 8,
    bytes(range(256)) * 16,
]


def test_garbage_is_closed_and_the_gateway_serves_on(make: Callable[..., Node], head: Node) -> None:
    for garbage in GARBAGE:
        with socket.create_connection(("127.0.0.1", head.port)) as raw, contextlib.suppress(OSError):
            raw.settimeout(BOUND_S)
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                continue
    still_serves(make, head)
    head.wait_rejections(len(GARBAGE))


def test_a_legitimate_node_gets_in_while_two_hundred_connections_say_nothing(make: Callable[..., Node], head: Node) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", head.port))) for _ in range(200)]
        still_serves(make, head)
        head.wait_rejected("waiting to be admitted")
        # The newest 64 keep their places; the oldest lost theirs.
        silent[0].settimeout(BOUND_S)
        with contextlib.suppress(ConnectionError):
            while silent[0].recv(4096):
                continue


def test_a_connection_that_proves_nothing_in_time_is_closed(
    monkeypatch: pytest.MonkeyPatch, head: Node, stranger: Callable[..., Stranger]
) -> None:
    monkeypatch.setattr("nbray.config.PRE_AUTH_S", 0.3)
    quiet = stranger()
    quiet.challenged()
    quiet.wait_closed()
    head.wait_rejected("it proved nothing within 0.3 s")


def test_a_recorded_hello_opens_nothing_on_another_connection(head: Node, stranger: Callable[..., Stranger]) -> None:
    first = stranger()
    recorded = auth.encode(auth.hello(MINE, first.challenged(), first.public, b"recorded", 0))
    first.say(recorded)
    assert isinstance(first.hear(), auth.Admitted)
    second = stranger()
    second.challenged()
    second.say(recorded)
    assert second.hear() == auth.Denied("the join secret is wrong")
    second.wait_closed()
    third = stranger()
    third.say(recorded)
    assert third.hear() == auth.Denied("its Hello answers no challenge of this connection")
    third.wait_closed()


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b"x" * 1025], "more than 1024 bytes"),
        ([b"a", b"b"], "several frames"),
        ([b"\xc1junk"], "neither Knock nor Hello"),
        ([b"\x91" * 500], "neither Knock nor Hello"),
        ([b"\x91\xa1\x80"], "neither Knock nor Hello"),
        ([auth.encode(auth.Knock(99))], "protocol 99"),
        (seal(b"n" * 8, b"m" * 8, 0, Packet(DATA, 1, 1, 1, 0, 0, (), (b"p" * 8, b"body"))), "several frames"),
    ],
)
def test_before_admission_anything_but_one_hello_closes_the_connection(
    frames: list[bytes], reason: str, head: Node, stranger: Callable[..., Stranger]
) -> None:
    bad = stranger()
    bad.say(*frames)
    bad.wait_closed()
    head.wait_rejected(reason)


def test_a_frame_over_the_limit_closes_the_connection_before_it_is_read(
    make: Callable[..., Node], head: Node, stranger: Callable[..., Stranger]
) -> None:
    member = stranger().admitted(b"member..")
    member.say(b"x" * (17 * 2**20))
    member.wait_closed()
    still_serves(make, head)


def test_a_message_of_many_frames_closes_the_connection_of_a_member(
    make: Callable[..., Node], head: Node, stranger: Callable[..., Stranger]
) -> None:
    member = stranger().admitted(b"member..")
    member.say(*[b""] * 100_000)
    member.wait_closed()
    still_serves(make, head)


def test_a_member_that_speaks_for_another_node_is_cut_off(head: Node, stranger: Callable[..., Stranger]) -> None:
    member = stranger().admitted(b"member..")
    member.say(*seal(b"somebody", head.node, 0, Packet(DATA, 1, 1, 1, 0, 0, (), (head.process, b"forged"))))
    member.wait_closed()
    head.wait_rejected("it spoke for node")
    assert not head.inbox.poll(0)


def test_a_member_cannot_take_the_name_of_a_node_that_is_connected(
    make: Callable[..., Node], head: Node, stranger: Callable[..., Stranger]
) -> None:
    a = joined(make, head)
    for name in (a.node, head.node):
        thief = stranger()
        thief.say(auth.encode(auth.hello(MINE, thief.challenged(), thief.public, name, 0)))
        assert "which another process is" in thief.hear().reason
    a.send(head, b"still here")
    assert head.take(1) == [b"still here"]


def test_a_stolen_routing_id_gets_nothing_of_its_owner(
    make: Callable[..., Node], head: Node, stranger: Callable[..., Stranger]
) -> None:
    member = stranger(identity=b"chosen").admitted(b"member..")
    stranger(identity=b"chosen")
    body = Packet(DATA, 5, 0, 1, 0, 0, (), (head.process, b"x"))
    member.say(*seal(b"member..", head.node, 0, body))
    assert member.dealer.recv(), "the owner of the routing id is still answered"
    still_serves(make, head)


def test_every_truncation_of_a_members_packet_leaves_the_gateway_alive(
    make: Callable[..., Node], head: Node, stranger: Callable[..., Stranger]
) -> None:
    header, body = seal(b"member..", head.node, 0, Packet(DATA, 5, 6, 1, 0, 0, (2, 3), (head.process, b"x")))
    for cut in range(0, len(header), 9):
        member = stranger().admitted(b"memb%04d" % cut)
        member.say(header[:cut], body)
        member.wait_closed()
    still_serves(make, head)


def test_closed_connections_are_logged_once_a_minute_and_counted_always(head: Node, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="nbray.gateway"):
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", head.port)) as raw, contextlib.suppress(ConnectionError):
                raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + b" " * 64)
                raw.settimeout(BOUND_S)
                while raw.recv(4096):
                    continue
        head.wait_count("rejected: it spoke no CURVE", 30)
    assert len(caplog.records) <= 2, "one for the address, one for those that were gone before they were looked at"


def test_no_secret_shows_in_logs_reprs_or_errors(make: Callable[..., Node], head: Node, caplog: pytest.LogCaptureFixture) -> None:
    secret = bytes(range(32))
    wrong = msgspec.structs.replace(credentials(CLUSTER, secret, "x.json"), server_public=MINE.server_public)
    with caplog.at_level(logging.DEBUG), pytest.raises(AuthenticationError) as caught:
        make("a", None, wrong).gateway.dial("127.0.0.1", head.port)
    told = caplog.text + str(caught.value) + repr(wrong) + repr(caught.value)
    assert secret.hex() not in told
    assert repr(secret)[2:-1] not in told


def test_a_stopped_gateway_leaves_no_descriptor_no_thread_and_no_socket_file(make: Callable[..., Node]) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def cycle() -> None:
        one = Node("one", ("127.0.0.1", 0))
        two = Node("two")
        two.gateway.dial("127.0.0.1", one.port)
        two.send(one, b"x")
        one.take(1)
        two.gateway.stop()
        one.gateway.stop()
        assert not os.path.exists(f"{one.directory}/gateway")
        two.close()
        one.close()

    cycle()
    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        cycle()
    assert descriptors() <= before
    assert threading.active_count() <= threads
