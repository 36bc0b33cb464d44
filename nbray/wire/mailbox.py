"""A process's mailbox: one inbox that it reads, and one outbox per peer, all `ipc://` in the node's runtime directory.

High-water marks are 0, because a socket at its mark drops or blocks; flow is limited by leases and windows above. A
message for another node goes to the local gateway with its address in front. Create a mailbox only after the last fork.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque

import zmq

from nbray.ids import Address, NodeId, ProcessId
from nbray.wire.codec import ProtocolError, decode_frame, encode, encode_batch
from nbray.wire.messages import Message

#: The name of the gateway's socket in the runtime directory.
GATEWAY = "gateway"
#: libzmq's ZMQ_IPC_FILTER_UID: a peer of another uid is refused at accept. pyzmq names it but leaves it out of its enum.
IPC_FILTER_UID = 59
#: An empty frame that a process sends to itself to wake its own receiver; never decoded.
WAKE = b""
#: What a process sends itself by way of the gateway; never decoded.
ECHO = b"echo"
#: How long a closing process waits for its last messages to leave, in milliseconds.
LINGER_MS = 1000
#: Of one frame with several messages.
BATCHED_BYTES = 16 * 1024
BATCHED_MESSAGES = 256
#: pyzmq's own `send` looks at flags that are never set here, for a third of the price of sending.
_send = zmq.backend.Socket.send


class MailboxDrained(Exception):
    """`drain` was called: nothing more is received."""


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
        self._read: deque[Message] = deque()  #: of a frame that `receive_nowait` has begun
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
        self._post(to, encode(message))

    def send_frame(self, to: Address, frame: bytes) -> None:
        """As `send`, with what `encode` made of a message: for one that goes to many."""
        self._post(to, frame)

    def send_all(self, to: Address, batch: list[Message]) -> None:
        """Queue several messages to one mailbox, as few frames. Large ones travel alone: a frame is bounded."""
        small: list[Message] = []
        for message in batch:
            frame = encode(message)
            if len(frame) > BATCHED_BYTES:
                self._flush(to, small)
                self._post(to, frame)
            else:
                small.append(message)
                if len(small) >= BATCHED_MESSAGES:
                    self._flush(to, small)
        self._flush(to, small)

    def _flush(self, to: Address, batch: list[Message]) -> None:
        if batch:
            self._post(to, encode_batch(batch) if len(batch) > 1 else encode(batch[0]))
            batch.clear()

    def _post(self, to: Address, frame: bytes) -> None:
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
        _send(outbox, frame)

    def wake(self) -> None:
        """Make a blocked `receive` of this mailbox return None. From any thread that holds the sending lock."""
        outbox = self._outboxes.get(self.address.process)
        if outbox is None:
            outbox = self._outboxes[self.address.process] = self._connect(self._path(self.address.process))
        outbox.send(WAKE)

    def receive(self, timeout_s: float | None) -> list[Message]:
        """The messages of the next frame; none after `timeout_s` or `wake`. One thread only."""
        timeout_ms = -1 if timeout_s is None else max(1, round(timeout_s * 1000))
        # Waking a little early is cheaper than a socket option per message.
        if timeout_ms != self._timeout_ms and not 0 < self._timeout_ms <= timeout_ms <= 2 * self._timeout_ms:
            self._inbox.setsockopt(zmq.RCVTIMEO, timeout_ms)
            self._timeout_ms = timeout_ms
        try:
            frame = self._inbox.recv()
        except zmq.Again:
            return []
        except zmq.ContextTerminated:
            self._inbox.close(linger=0)
            raise MailboxDrained from None
        return self._decoded(frame)

    def receive_nowait(self) -> Message | None:
        """The next message that is here already, or None. Skips what is no message."""
        while not self._read:
            try:
                frame = self._inbox.recv(zmq.NOBLOCK)
            except zmq.Again:
                return None
            self._read.extend(self._decoded(frame))
        return self._read.popleft()

    def _decoded(self, frame: bytes) -> list[Message]:
        if frame in (WAKE, ECHO):
            return []
        try:
            return decode_frame(frame)
        except ProtocolError:
            self.rejected += 1
            return []

    @property
    def fd(self) -> int:
        """Readable when something may have arrived. Edge-triggered: drain with `receive_nowait` before every wait."""
        return int(self._inbox.getsockopt(zmq.FD))

    def forget(self, process: ProcessId) -> None:
        """The process is gone: drop what is queued for it."""
        outbox = self._outboxes.pop(process, None)
        if outbox is not None:
            outbox.close(linger=0)

    def drain(self) -> None:
        """Send what is queued, for at most LINGER_MS, while another thread may still be blocked in `receive`."""
        self._close_outboxes(LINGER_MS)
        # Ends a blocked receive with ContextTerminated, and returns when the outboxes are empty and the inbox is closed. In a
        # thread of its own, because the caller may be the receiver.
        term = threading.Thread(target=self._context.term, daemon=True)
        term.start()
        term.join(LINGER_MS / 1000)

    def pass_on(self) -> None:
        """Wait, for at most LINGER_MS, until the gateway has taken what was sent to other nodes. For the end: what arrives
        meanwhile is dropped."""
        outbox = self._outboxes.get(b"")
        if outbox is None:
            return
        # It takes what one process sends in order, so once this is back everything before it is there.
        outbox.send_multipart((self._node, self.address.process, ECHO))
        until = time.monotonic() + LINGER_MS / 1000
        while self._inbox.poll(max(0, round((until - time.monotonic()) * 1000))):
            if self._inbox.recv() == ECHO:
                return

    def _close_outboxes(self, linger_ms: int) -> None:
        for process, outbox in self._outboxes.items():
            # A wake-up for ourselves that nobody takes any more is not worth waiting for.
            outbox.close(linger=0 if process == self.address.process else linger_ms)
        self._outboxes.clear()

    def close(self, linger: bool = True) -> None:
        """Send what is queued, for at most LINGER_MS (not at all without `linger`), and remove the inbox. Idempotent."""
        if self._context.closed:
            return
        self._close_outboxes(LINGER_MS if linger else 0)
        self._inbox.close()
        self._context.term()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{self.address.process.hex()}")
