"""A listener and a connection with it, stepped by hand: what libzmq reports late or in an unlucky order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from nbray.wire.auth import Knock, credentials, encode
from nbray.wire.messages import PROTOCOL_VERSION
from nbray.wire.streams import Dialled, Listener, Socket, StreamEvent, StreamOpened

MINE = credentials("ab" * 16, b"s" * 32, "test.json")
BOUND_S = 10.0


class Withheld:
    """The listener's monitor, which says nothing until `released`."""

    def __init__(self, monitor: Any) -> None:
        self.monitor, self.released = monitor, False

    def poll(self, timeout: int) -> int:
        return self.monitor.poll(timeout) if self.released else 0

    def recv_multipart(self) -> list[bytes]:
        return self.monitor.recv_multipart()

    def close(self, linger: int) -> None:
        self.monitor.close(linger=linger)


class Pair:
    def __init__(self, context: zmq.Context[Socket]) -> None:
        self.listener = Listener(context, ("127.0.0.1", 0), MINE, b"listens.")
        keys = zmq.curve_keypair()
        self.dialled = Dialled(context, "127.0.0.1", self.listener.port, MINE, keys, b"dials...", 0, time.monotonic())
        self.events: list[StreamEvent] = []

    def step(self) -> None:
        now = time.monotonic()
        for end in (self.listener, self.dialled):
            for each, handler in end.sockets.items():
                if not isinstance(each, Withheld) and each.poll(1):
                    self.events += handler(now)

    def wait_opened(self, count: int) -> None:
        deadline = time.monotonic() + BOUND_S
        while sum(isinstance(e, StreamOpened) for e in self.events) < count:
            assert time.monotonic() < deadline, self.events
            self.step()

    def wait_visitor(self) -> int:
        """The descriptor of the one that has come and said nothing yet."""
        deadline = time.monotonic() + BOUND_S
        while not self.listener._door.visitors:
            assert time.monotonic() < deadline, self.events
            list(self.listener._watch(time.monotonic()))
        return next(iter(self.listener._door.visitors))


class OfAnEnd:
    """A frame as libzmq gives it: with the CURVE key and the descriptor of the connection that it came by."""

    def __init__(self, said: bytes, key: str, connection: int) -> None:
        self.bytes, self.key, self.connection = said, key, connection

    def __len__(self) -> int:
        return len(self.bytes)

    def get(self, name: str | int) -> str | int:
        return self.connection if name == zmq.SRCFD else self.key


@pytest.fixture
def pair() -> Iterator[Pair]:
    context: zmq.Context[Socket] = zmq.Context()
    made = Pair(context)
    yield made
    made.dialled.release()
    made.listener.close()
    context.term()


def test_a_connection_that_speaks_before_it_is_reported_as_accepted_is_heard(pair: Pair) -> None:
    withheld = Withheld(pair.listener._monitor)
    pair.listener._monitor = withheld  # type: ignore[assignment]
    pair.wait_opened(2)
    withheld.released = True
    list(pair.listener._watch(time.monotonic()))
    visitors = list(pair.listener._door.visitors.values())
    assert [v.node for v in visitors] == [b"dials..."], "the late report made a stranger of a member"
    assert pair.listener.next_deadline() is None


def test_what_an_ended_connection_had_said_does_not_speak_for_the_next_one_with_its_descriptor(pair: Pair) -> None:
    connection = pair.wait_visitor()
    key = pair.dialled._keys[0].decode()
    late: Any = [OfAnEnd(encode(Knock(PROTOCOL_VERSION)), key, connection)]
    assert list(pair.listener._said(b"\0gone", late, time.monotonic())) == []
    pair.wait_opened(2)
    assert pair.listener.next_deadline() is None
