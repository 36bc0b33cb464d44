"""A process's mailbox: one inbox that it reads, and one outbox per peer, all `ipc://` in the node's runtime directory.

High-water marks are 0, because a socket at its mark drops or blocks; flow is limited by leases and windows above. A
message for another node goes to the local gateway with its address in front. Create a mailbox only after the last fork.
"""

from __future__ import annotations

import contextlib
import os

import zmq

from nbray.ids import Address, NodeId, ProcessId
from nbray.wire.codec import ProtocolError, decode, encode
from nbray.wire.messages import Message

#: The name of the gateway's socket in the runtime directory.
GATEWAY = "gateway"
#: libzmq's ZMQ_IPC_FILTER_UID: a peer of another uid is refused at accept. pyzmq names it but leaves it out of its enum.
IPC_FILTER_UID = 59
#: An empty frame that a process sends to itself to wake its own receiver; never decoded.
WAKE = b""
#: How long a closing process waits for its last messages to leave, in milliseconds.
LINGER_MS = 1000


class Mailbox:
    """Not thread-safe by itself: `send` is called under the owner's lock, `receive` by one thread."""

    def __init__(self, address: Address, directory: str) -> None:
        self.address = address
        self.rejected = 0  #: frames that were no message
        self._directory = directory
        self._context = zmq.Context()
        # One outbox per peer: a node with thousands of actors outgrows the default of 1023.
        self._context.set(zmq.MAX_SOCKETS, 16_384)
        self._inbox = self._context.socket(zmq.PULL)
        self._inbox.setsockopt(zmq.RCVHWM, 0)
        self._inbox.setsockopt(zmq.LINGER, 0)
        self._inbox.setsockopt(IPC_FILTER_UID, os.geteuid())
        self._inbox.bind(self._path(address.process))
        self._timeout_ms = -1
        self._outboxes: dict[ProcessId, zmq.Socket[bytes]] = {}
        self._node: NodeId = address.node

    def settle(self, node: NodeId) -> None:
        """The node's id, for a process that binds its mailbox before it knows: peers on it are local."""
        self.address = Address(node, self.address.process)
        self._node = node

    def _path(self, process: ProcessId) -> str:
        return f"ipc://{self._directory}/{process.hex()}"

    def _connect(self, path: str) -> zmq.Socket[bytes]:
        outbox = self._context.socket(zmq.PUSH)
        outbox.setsockopt(zmq.SNDHWM, 0)
        outbox.setsockopt(zmq.LINGER, LINGER_MS)
        outbox.connect(path)
        return outbox

    def send(self, to: Address, message: Message) -> None:
        """Queue `message`; never blocks. To a process that is gone, it waits until `forget`."""
        frame = encode(message)
        node, process = to
        if node != self._node:
            outbox = self._outboxes.get(b"")
            if outbox is None:
                outbox = self._outboxes[b""] = self._connect(f"ipc://{self._directory}/{GATEWAY}")
            outbox.send_multipart((node, process, frame))
            return
        outbox = self._outboxes.get(process)
        if outbox is None:
            outbox = self._outboxes[process] = self._connect(self._path(process))
        outbox.send(frame)

    def wake(self) -> None:
        """Make a blocked `receive` of this mailbox return None. From any thread that holds the sending lock."""
        outbox = self._outboxes.get(self.address.process)
        if outbox is None:
            outbox = self._outboxes[self.address.process] = self._connect(self._path(self.address.process))
        outbox.send(WAKE)

    def receive(self, timeout_s: float | None) -> Message | None:
        """The next message, or None after `timeout_s` or `wake`. One thread only."""
        timeout_ms = -1 if timeout_s is None else max(1, round(timeout_s * 1000))
        # Waking a little early is cheaper than a socket option per message.
        if timeout_ms != self._timeout_ms and not 0 < self._timeout_ms <= timeout_ms <= 2 * self._timeout_ms:
            self._inbox.setsockopt(zmq.RCVTIMEO, timeout_ms)
            self._timeout_ms = timeout_ms
        try:
            frame = self._inbox.recv()
        except zmq.Again:
            return None
        return self._decoded(frame)

    def receive_nowait(self) -> Message | None:
        """The next message that is here already, or None. Skips what is no message."""
        while True:
            try:
                frame = self._inbox.recv(zmq.NOBLOCK)
            except zmq.Again:
                return None
            if (message := self._decoded(frame)) is not None:
                return message

    def _decoded(self, frame: bytes) -> Message | None:
        if frame == WAKE:
            return None
        try:
            return decode(frame)
        except ProtocolError:
            self.rejected += 1
            return None

    @property
    def fd(self) -> int:
        """Readable when something may have arrived. Edge-triggered: drain with `receive_nowait` before every wait."""
        return int(self._inbox.getsockopt(zmq.FD))

    def forget(self, process: ProcessId) -> None:
        """The process is gone: drop what is queued for it."""
        outbox = self._outboxes.pop(process, None)
        if outbox is not None:
            outbox.close(linger=0)

    def close(self, linger: bool = True) -> None:
        """Send what is queued, for at most LINGER_MS (not at all without `linger`), and remove the inbox. Idempotent."""
        if self._context.closed:
            return
        for outbox in self._outboxes.values():
            outbox.close(linger=LINGER_MS if linger else 0)
        self._outboxes.clear()
        self._inbox.close()
        self._context.term()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{self.address.process.hex()}")
