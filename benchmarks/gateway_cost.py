"""What a message between two machines costs a gateway: two real ones over the loopback interface, each in a process of its own.

The CPU is that of the measured process with all its threads: the gateway's, libzmq's, and the mailbox that takes or gives.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from typing import Any

import zmq

from nbray.ids import Address
from nbray.wire.auth import credentials
from nbray.wire.codec import encode
from nbray.wire.gateway import Gateway
from nbray.wire.messages import HeartbeatTaken

MESSAGES, PACE = 20_000, 500
BOUND_MS = 60_000
CREDENTIALS = ("ab" * 16, b"s" * 32, "gateway_cost")


class _Side:
    """A gateway with one mailbox beside it."""

    def __init__(self, name: bytes, bind: tuple[str, int] | None) -> None:
        self.node, self.process = name.ljust(8, b"."), b"p" + name.ljust(7, b".")
        self._directory = tempfile.mkdtemp(prefix="nb")
        self._context: zmq.Context[Any] = zmq.Context()
        self.inbox = self._context.socket(zmq.PULL)
        self.inbox.rcvhwm, self.inbox.rcvtimeo = 0, BOUND_MS
        self.inbox.bind(f"ipc://{self._directory}/{self.process.hex()}")
        self.gateway = Gateway(
            self._directory, self.node, bind=bind, credentials=credentials(*CREDENTIALS), on_event=lambda _event: None
        )
        self.gateway.start()
        self.outbox = self._context.socket(zmq.PUSH)
        self.outbox.sndhwm = 0
        self.outbox.connect(f"ipc://{self._directory}/gateway")

    def send(self, to: Address, frame: bytes, count: int) -> None:
        for _ in range(count):
            self.outbox.send_multipart((to.node, to.process, frame))

    def take(self, count: int) -> None:
        for _ in range(count):
            self.inbox.recv()

    def close(self) -> None:
        self.gateway.stop()
        self._context.destroy(linger=0)
        shutil.rmtree(self._directory)


def _partner(port_to: int, said_from: int) -> None:
    """The other process: echoes nothing, but takes MESSAGES and then sends as many."""
    side = _Side(b"head", ("127.0.0.1", 0))
    assert side.gateway.port is not None
    os.write(port_to, side.gateway.port.to_bytes(2, "big"))
    measured = Address(b"node....", b"pnode...")
    frame = encode(HeartbeatTaken(side.node, 1.0))
    for _ in range(MESSAGES // PACE):
        side.take(PACE)
        side.send(measured, frame, 1)  # its receipt
    os.read(said_from, 1)
    for _ in range(MESSAGES // PACE):
        side.send(measured, frame, PACE)
        side.take(1)
    os.read(said_from, 1)
    side.close()


def per_message_us() -> dict[str, float]:
    """CPU of a process for a small message that it sends to, or takes from, another node: `sent`, `taken`."""
    port_from, port_to = os.pipe()
    said_from, said_to = os.pipe()
    child = os.fork()  # before any context exists here
    if child == 0:
        try:
            _partner(port_to, said_from)
        finally:
            os._exit(0)
    side = _Side(b"node", None)
    try:
        head = side.gateway.dial("127.0.0.1", int.from_bytes(os.read(port_from, 2), "big"))
        to, frame = Address(head, b"phead..."), encode(HeartbeatTaken(side.node, 1.0))
        began = time.process_time()
        for _ in range(MESSAGES // PACE):
            side.send(to, frame, PACE)
            side.take(1)
        sent = time.process_time() - began
        os.write(said_to, b"!")
        began = time.process_time()
        for _ in range(MESSAGES // PACE):
            side.take(PACE)
            side.send(to, frame, 1)
        taken = time.process_time() - began
        os.write(said_to, b"!")
    finally:
        side.close()
        os.waitpid(child, 0)
    return {"sent": sent / MESSAGES * 1e6, "taken": taken / MESSAGES * 1e6}
