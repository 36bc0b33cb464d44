"""The gateway of a node: a thread of its daemon that passes messages between local mailboxes and other nodes' gateways.

    local process --PUSH [node, process, message]--> ipc://<directory>/gateway
        -> Link of (node, lane) -> Envelope -> Stream (CURVE) ... Stream -> Link -> PUSH ipc://<directory>/<process>

This module is the thread, its loop, and the local sockets; `exchange.py` decides which connection carries what.
Chunks of objects have lanes, and if possible connections, of their own, so that control never queues behind bulk.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import zmq

from nbray import config
from nbray.ids import HEAD, NodeId, ProcessId, short
from nbray.wire import auth
from nbray.wire.auth import Credentials
from nbray.wire.envelope import CONTROL, lane_of
from nbray.wire.exchange import (
    DIAL_PATIENCE_S,
    Exchange,
    GatewayEvent,
    GatewayFailed,
    HomeMoved,
    Joining,
    PeerDown,
    PeerUp,
    Rejected,
)
from nbray.wire.mailbox import GATEWAY, IPC_FILTER_UID
from nbray.wire.messages import NodeInfo
from nbray.wire.streams import BURST, Handler, Listener, Socket, StreamEvent

__all__ = ["Gateway", "GatewayEvent", "GatewayFailed", "HomeMoved", "PeerDown", "PeerUp", "Rejected"]

#: A stopping gateway waits so long for others to acknowledge its last messages.
LEAVE_S = 2.0

log = logging.getLogger("nbray.gateway")


class Gateway:
    """`counts` tallies what was dropped or rejected, by reason. All public methods may be called from any thread."""

    def __init__(
        self,
        directory: str,
        node: NodeId,
        *,
        bind: tuple[str, int] | None,
        credentials: Credentials,
        on_event: Callable[[GatewayEvent], None],
    ) -> None:
        """`bind` is (host, port) to listen on, port 0 for any; None: this node only dials out."""
        auth.check_libzmq()
        self.node = node
        self.counts: Counter[str] = Counter()
        self.port: int | None = None
        self._directory = directory
        self._bind = bind
        self._mine = credentials
        self.tell = on_event
        self._outboxes: dict[ProcessId, Socket] = {}
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = False

    # ------------------------------------------------------------------------------------------------ for the daemon

    def start(self) -> None:
        """Bind and run. Raises OSError if the address cannot be had. `port` is known afterwards."""
        self._context: zmq.Context[Socket] = zmq.Context(io_threads=2)
        self._context.set(zmq.MAX_SOCKETS, 16_384)
        self._poller = zmq.Poller()
        self._handlers: dict[Any, Handler] = {}
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        try:
            listener = None if self._bind is None else Listener(self._context, self._bind, self._mine, self.node)
            self._local = self._bind_local()
        except BaseException:
            self._context.destroy(linger=0)
            self._waker.close()
            self._woken.close()
            raise
        self._exchange = Exchange(self, self._context, listener, self.node, self._mine)
        if listener is not None:
            self.port = listener.port
            self.register(listener.sockets)
        self.register({self._local: self._take_local})
        self._poller.register(self._woken, zmq.POLLIN)
        self._thread = threading.Thread(target=self._run, name="nbray-gateway", daemon=True)
        self._thread.start()

    def dial(self, host: str, port: int) -> NodeId:
        """Join through the gateway at host:port; returns its node. It is home from now on, and dialled again whenever the
        connection breaks. Raises AuthenticationError or ConnectionError within about 5 s."""
        try:
            host = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
        except OSError as error:
            raise ConnectionError(
                f"cannot find the host of {host}:{port} ({error.strerror or error}); is the name right?"
            ) from None
        joining = Joining(time.monotonic() + DIAL_PATIENCE_S)
        self._do(lambda: self._exchange.join(host, port, joining))
        try:
            return joining.answer.result(2 * config.PRE_AUTH_S)
        except concurrent.futures.TimeoutError:
            raise ConnectionError(f"{host}:{port} did not answer; the gateway thread of this node is stuck or has ended") from None

    def learn(self, nodes: Sequence[NodeInfo]) -> None:
        """The head's view: where gateways are, and who is dead."""
        self._do(lambda: self._exchange.learn(nodes))

    def forget(self, process: ProcessId) -> None:
        """A local process has died: drop what is queued for it."""
        self._do(lambda: self._close_outbox(process))

    def stop(self) -> None:
        """Let the messages out that it has taken, for at most LEAVE_S, and close everything. Idempotent.

        Messages have left when the gateways that they went to say so; nobody waits for those that cannot be reached, nor for
        chunks of objects.
        """
        if self._thread is None:
            return
        self._do(self._set_stopping)
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self._thread = None

    def _do(self, command: Callable[[], None]) -> None:
        self._commands.put(command)
        try:
            self._waker.send(b"\0")
        except (BlockingIOError, OSError):
            return  # full: the loop is being woken anyway; closed: it has ended

    def _set_stopping(self) -> None:
        self._stopping = True

    # ------------------------------------------------------------------------------------------------ the loop

    def _bind_local(self) -> Socket:
        made = self._context.socket(zmq.PULL)
        made.setsockopt(zmq.RCVHWM, 0)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.MAXMSGSIZE, config.MESSAGE_LIMIT)
        made.setsockopt(IPC_FILTER_UID, os.geteuid())
        made.bind(f"ipc://{self._directory}/{GATEWAY}")
        return made

    def register(self, sockets: dict[Socket, Handler]) -> None:
        for each, handler in sockets.items():
            self._handlers[each] = handler
            self._poller.register(each, zmq.POLLIN)

    def unregister(self, sockets: Iterable[Socket]) -> None:
        for each in sockets:
            del self._handlers[each]
            self._poller.unregister(each)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            leave_by = time.monotonic() + LEAVE_S
            while self._exchange.has_last_words and time.monotonic() < leave_by:
                self._turn(leave_by)
        except Exception as error:
            log.exception("the gateway of node %s failed", short(self.node))
            self.tell(GatewayFailed(f"{type(error).__name__}: {error}"))
        finally:
            self._close()

    def _turn(self, until: float | None = None) -> None:
        """Wait for the next thing, at most until then, and do what is due."""
        deadline = min((t for t in (self._exchange.next_deadline(), until) if t is not None), default=None)
        timeout_s = 60.0 if deadline is None else min(max(0.0, deadline - time.monotonic()), 60.0)
        ready = dict(self._poller.poll(int(timeout_s * 1000) + (timeout_s > 0)))
        now = time.monotonic()
        if self._woken.fileno() in ready:
            self._woken.recv(65536)
        while not self._commands.empty():
            self._commands.get_nowait()()
        for each in ready:
            if (handler := self._handlers.get(each)) is not None:  # an earlier one may have closed it
                self._exchange.took(handler(now), now)
        self._exchange.tick(now)
        if bool(self._exchange.full) == (self._local in self._handlers):
            # Take no messages from local processes while one link has too many; they wait in their own outboxes.
            if self._exchange.full:
                self.unregister([self._local])
            else:
                self.register({self._local: self._take_local})

    def _close(self) -> None:
        self._exchange.close()
        self._local.close()
        for outbox in self._outboxes.values():
            outbox.close(linger=200)
        self._waker.close()
        self._woken.close()
        self._context.term()
        try:
            os.unlink(f"{self._directory}/{GATEWAY}")
        except FileNotFoundError:
            return

    # ------------------------------------------------------------------------------------------------ local processes

    def _take_local(self, now: float) -> Iterator[StreamEvent]:
        for _ in range(BURST):
            if self._exchange.full:
                break
            try:
                frames = self._local.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            if len(frames) != 3 or len(frames[0]) != 8 or len(frames[1]) != 8:
                self.counts["malformed message of a local process"] += 1
                continue
            self._send(frames[0].bytes, frames[1].bytes, frames[2], now)
        yield from ()

    def _send(self, node: NodeId, process: ProcessId, body: zmq.Frame, now: float) -> None:
        if node == self.node:
            self.deliver(process, body)
        else:
            lane = lane_of(body.buffer)
            # Other frames are copied: a zmq frame costs more to keep than its bytes.
            self._exchange.send(node, lane, (process, body.bytes if lane == CONTROL else body), now)

    def deliver(self, process: ProcessId, body: Any) -> None:
        path = f"{self._directory}/{process.hex()}"
        if not os.path.exists(path):
            if process == HEAD and os.path.exists(f"{self._directory}/{self.node.hex()}"):
                self.deliver(self.node, body)
                return
            self.counts["message to a local process that is gone"] += 1
            self._close_outbox(process)
            return
        outbox = self._outboxes.get(process)
        if outbox is None:
            outbox = self._outboxes[process] = self._context.socket(zmq.PUSH)
            outbox.setsockopt(zmq.SNDHWM, 0)
            outbox.connect(f"ipc://{path}")
        outbox.send(body, copy=False)

    def _close_outbox(self, process: ProcessId) -> None:
        if (outbox := self._outboxes.pop(process, None)) is not None:
            outbox.close(linger=0)
