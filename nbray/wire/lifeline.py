"""The lifeline: a process says Hello to its node daemon, gets Welcome and the arena, and then the silence is the message.

    process                        daemon
      connect  ------------------>   accept; other uid: closed
      Hello (<= 1 KiB, in 5 s) --->   garbage: closed; versions that differ: Refused, closed
      <--- Welcome + arena fd        admitted
      ...                            end of file on either side is the death of the other

SOCK_SEQPACKET keeps packets whole, so one packet is one message and nothing is buffered for a peer that sends slowly.
"""

from __future__ import annotations

import array
import os
import platform
import socket
import struct
import sys

import msgspec

import nbray
from nbray.config import PRE_AUTH_BYTES
from nbray.ids import ProcessId
from nbray.wire import rundir
from nbray.wire.messages import PROTOCOL_VERSION, Hello, Refused, Welcome

_UCRED = struct.Struct("3i")
_TIMEVAL = struct.Struct("ll")
#: Far above any Welcome; a longer packet is truncated and does not decode.
_REPLY_BYTES = 8192
_hello = msgspec.msgpack.Decoder(Hello)
_reply: msgspec.msgpack.Decoder[Welcome | Refused] = msgspec.msgpack.Decoder(Welcome | Refused)
_encode = msgspec.msgpack.Encoder().encode


class LifelineRefused(ConnectionError):
    """The daemon answered, and does not want this process. The text says why and what mends it."""


class NotAHello(ValueError):
    """The first packet of a guest was something else."""


# ------------------------------------------------------------------------------------------------------------ both sides


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process at the other end, from the kernel."""
    pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def hello(role: str, process: ProcessId, *, job: str = "", namespace: str = "", submission: str = "") -> Hello:
    """The Hello of this process. A process that has not loaded cloudpickle has no version of it to be wrong about."""
    cloudpickle = getattr(sys.modules.get("cloudpickle"), "__version__", "")
    return Hello(
        protocol=PROTOCOL_VERSION,
        nbray=nbray.__version__,
        python=platform.python_version(),
        cloudpickle=cloudpickle,
        role=role,
        process=process,
        pid=os.getpid(),
        job=job[:200],
        namespace=namespace[:200],
        submission=submission,
    )


def mismatch(theirs: Hello, ours: Hello) -> str:
    """Why `theirs` cannot join a daemon that would say `ours` of itself, and the command that mends it; "" if it can."""
    mend = f"Run the notebook and the cluster from one environment, or: pip install nbray=={ours.nbray}"
    if theirs.protocol != ours.protocol:
        return f"this process speaks protocol {theirs.protocol} and the cluster protocol {ours.protocol}. {mend}"
    if theirs.nbray != ours.nbray:
        return f"this process has nbray {theirs.nbray} and the cluster nbray {ours.nbray}. {mend}"
    if _minor(theirs.python) != _minor(ours.python):
        return (
            f"this process runs Python {theirs.python} and the cluster Python {ours.python}; pickled functions need the same "
            f"minor version. Start both with Python {_minor(ours.python)}, then: pip install nbray=={ours.nbray}"
        )
    return ""


def caution(theirs: Hello, cloudpickle: str) -> str:
    """What differs without being refused, in words; "" if nothing does. `cloudpickle` is the workers' version."""
    if theirs.cloudpickle and cloudpickle and theirs.cloudpickle != cloudpickle:
        return (
            f"this process pickles with cloudpickle {theirs.cloudpickle} and workers load with {cloudpickle}; if a function "
            f"does not load there: pip install cloudpickle=={cloudpickle}"
        )
    return ""


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


# ------------------------------------------------------------------------------------------------------------ the daemon


class Listener:
    """The daemon's end. `accept_nowait` gives guests; a guest becomes a member when its Hello is welcomed."""

    def __init__(self, directory: str) -> None:
        self.strangers = 0  #: connections of other users, closed unheard
        self._path = f"{directory}/{rundir.LIFELINE}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        before = os.umask(0o077)
        try:
            self._socket.bind(self._path)
        finally:
            os.umask(before)
        self._socket.listen(256)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept_nowait(self) -> Guest | None:
        """The next guest of our own uid, or None. OSError (EMFILE) is the caller's: it knows what to give up."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return None
            pid, uid = peer_of(connection)
            if uid == os.geteuid():
                return Guest(connection, pid)
            self.strangers += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


class Guest:
    """A connection on the daemon's side, before and after its Hello. `pid` is the kernel's word, not the guest's."""

    __slots__ = ("connection", "hello", "pid")

    def __init__(self, connection: socket.socket, pid: int) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.pid = pid
        self.hello: Hello | None = None

    def fileno(self) -> int:
        return self.connection.fileno()

    def read(self) -> Hello | None:
        """The guest's Hello, or None at end of file. Raises NotAHello; BlockingIOError when there is nothing yet.

        Descriptors that come along are closed by the kernel: plain `recvmsg` makes no room for them.
        """
        try:
            packet, _, flags, _ = self.connection.recvmsg(PRE_AUTH_BYTES)
        except ConnectionResetError:
            return None
        if not packet:
            return None
        if flags & socket.MSG_TRUNC:
            raise NotAHello(f"a first packet of more than {PRE_AUTH_BYTES} bytes")
        if self.hello is not None:
            raise NotAHello("a second packet; after Hello nothing is said on a lifeline")
        try:
            self.hello = _hello.decode(packet)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotAHello(f"{len(packet)} bytes that are no Hello: {error}") from None
        return self.hello

    def welcome(self, welcome: Welcome, arena_fd: int) -> None:
        fds = array.array("i", [arena_fd])
        self.connection.sendmsg([_encode(welcome)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])

    def refuse(self, reason: str) -> None:
        """Say why and close. A guest that is gone already does not mind."""
        try:
            self.connection.send(_encode(Refused(reason)))
        except OSError:
            self.close()
            return
        self.close()

    def close(self) -> None:
        self.connection.close()


# ------------------------------------------------------------------------------------------------------------ the process


def connect(directory: str, ours: Hello, timeout_s: float = 10.0) -> tuple[socket.socket, Welcome, int]:
    """(the lifeline, Welcome, a new descriptor of the arena). Keep the socket open for as long as this process belongs.

    Raises LifelineRefused with the daemon's reason, ConnectionError when no daemon answers, HostileDirectory when the
    directory, its root, or the process behind the socket is another user's.
    """
    try:
        rundir.check(directory)
    except FileNotFoundError:
        raise ConnectionError(f"no node daemon in {directory}: the directory is gone, so its daemon has ended") from None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        _dial(connection, directory, timeout_s)
        connection.settimeout(timeout_s)
        connection.send(_encode(ours))
        welcome, arena_fd = _read_reply(connection, directory)
        connection.settimeout(None)
    except TimeoutError:
        connection.close()
        raise ConnectionError(f"the node daemon in {directory} did not answer within {timeout_s:g} s; is it stopped?") from None
    except BaseException:
        connection.close()
        raise
    return connection, welcome, arena_fd


def _dial(connection: socket.socket, directory: str, timeout_s: float) -> None:
    path = f"{directory}/{rundir.LIFELINE}"
    # Blocking, with a limit of the kernel's: Python's own timeout would make the socket non-blocking, and connecting to a
    # daemon whose backlog is full would then fail at once.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(timeout_s), int(timeout_s % 1 * 1e6)))
    try:
        connection.connect(path)
    except BlockingIOError:
        raise TimeoutError from None
    except OSError as error:
        raise ConnectionError(f"no node daemon answers at {path} ({error.strerror}); it has ended or was killed") from None
    pid, uid = peer_of(connection)
    if uid != os.geteuid():
        raise rundir.HostileDirectory(
            f"process {pid} behind {path} belongs to uid {uid}, not to you (uid {os.geteuid()}); not used"
        )


def _read_reply(connection: socket.socket, directory: str) -> tuple[Welcome, int]:
    try:
        packet, ancillary, _flags, _ = connection.recvmsg(_REPLY_BYTES, socket.CMSG_SPACE(4))
    except ConnectionResetError:
        packet, ancillary = b"", []
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    try:
        if not packet:
            raise ConnectionError(f"the node daemon in {directory} hung up before it said Welcome; it is ending")
        reply = _reply.decode(packet)
        if isinstance(reply, Refused):
            raise LifelineRefused(f"the node daemon in {directory} refused this process: {reply.reason}")
        if len(fds) != 1:
            raise ConnectionError(f"the node daemon in {directory} sent no arena with its Welcome; is its version the same?")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _close_all(fds)
        raise ConnectionError(f"what answers in {directory} is no nbray daemon of this version: {error}") from None
    except BaseException:
        _close_all(fds)
        raise
    os.set_inheritable(fds[0], False)
    return reply, fds[0]


def _close_all(fds: array.array[int]) -> None:
    for fd in fds:
        os.close(fd)
