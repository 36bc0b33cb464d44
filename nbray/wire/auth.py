"""Who may join: the secret of a cluster, what is derived from it, and the door that asks for proof (pure).

Everything on TCP is CURVE. The server is authenticated by its public key, which stands in the connection file; the client
by proving, inside the encrypted channel, that it knows the join secret:

    client                                  gateway
      CURVE handshake  <---------------->     any client key gets this far, and no further
      Knock            ----------------->
                       <-----------------   Challenge(nonce)                one per connection, used once
      Hello(proof)     ----------------->     proof = HMAC(role secret, key | nonce | cluster | role | protocol | ...)
                       <-----------------   Admitted(node) | Denied(reason)

Before it is admitted a connection may say PRE_AUTH_BYTES in PRE_AUTH_S and nothing but this; afterwards what it sends is
held against the CURVE key and the node that it was admitted with. The proof covers the client's fresh key and the
server's nonce, so a recorded Hello opens nothing. `node` and `client` have secrets of their own.
"""

from __future__ import annotations

import hashlib
import hmac
import platform
from collections.abc import Iterator

import msgspec
import zmq
from zmq.utils import z85

import nbray
from nbray import config
from nbray.exceptions import AuthenticationError
from nbray.ids import NodeId, short
from nbray.wire.messages import PROTOCOL_VERSION, Id8, Text

SECRET_BYTES = 32
NONCE_BYTES = 32
CLUSTER_BYTES = 16
ROLES = ("node", "client")
MAX_PRE_AUTH_PER_PEER = 64
MAX_PRE_AUTH = 512
LIBZMQ_AT_LEAST = (4, 3, 3)  #: older ones have CVE-2020-15166 and CVE-2021-20237: anyone may stop a CURVE server


def check_libzmq(version: tuple[int, int, int] | None = None, has_curve: bool | None = None) -> None:
    """Raises AuthenticationError if this libzmq cannot be put on a network."""
    version = zmq.zmq_version_info() if version is None else version
    has_curve = bool(zmq.has("curve")) if has_curve is None else has_curve
    if tuple(version) < LIBZMQ_AT_LEAST or not has_curve:
        lacks = f"libzmq {'.'.join(map(str, version))}{'' if has_curve else ' without CURVE'}"
        raise AuthenticationError(
            f"this Python has {lacks}; nbray opens no network port with it, because older than 4.3.3 can be stopped by anyone "
            "and without CURVE nothing is encrypted. Upgrade it: pip install -U pyzmq"
        )


# ---------------------------------------------------------------------------------------------------- credentials


class Credentials(msgspec.Struct, frozen=True):
    """What a process knows of its cluster. `source` is the file or variable it came from, for errors to name.

    The server's key pair is derived from the join secret, so a head that is restarted with the same connection file, and
    every other gateway of the cluster, is known by the one public key that the file pins.
    """

    cluster: str  #: 32 hex digits
    secret: bytes  #: 256 bits
    server_public: bytes  #: CURVE, z85, 40 characters
    source: str
    role: str = "node"

    def __repr__(self) -> str:
        return f"Credentials(cluster={self.cluster!r}, source={self.source!r}, role={self.role!r}, secret=...)"

    def server_keys(self) -> tuple[bytes, bytes]:
        """(public, secret) of every gateway of this cluster, z85."""
        secret = z85.encode(derive(self.secret, f"curve server of {self.cluster}"))
        return zmq.curve_public(secret), secret

    def proof(self, *, role: str, client_public: bytes, nonce: bytes, node: NodeId, lane: int) -> bytes:
        """What only a holder of the secret of `role` can say about this connection."""
        fields = (client_public, nonce, self.cluster.encode(), role.encode(), str(PROTOCOL_VERSION).encode(), node, bytes([lane]))
        told = b"".join(len(field).to_bytes(2, "big") + field for field in fields)
        return hmac.new(derive(self.secret, f"role {role}"), told, hashlib.sha256).digest()


def credentials(cluster: str, secret: bytes, source: str, role: str = "node") -> Credentials:
    """Those of the cluster that holds `secret`, with the server key that follows from it."""
    draft = Credentials(cluster, secret, b"", source, role)
    return msgspec.structs.replace(draft, server_public=draft.server_keys()[0])


def derive(secret: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 (RFC 5869), 32 bytes: a key that tells nothing about `secret` or the keys for other purposes."""
    extracted = hmac.new(b"nbray", secret, hashlib.sha256).digest()
    return hmac.new(extracted, purpose.encode() + b"\x01", hashlib.sha256).digest()


# ---------------------------------------------------------------------------------------------------- what is said


class Knock(msgspec.Struct, frozen=True, array_like=True, tag=True):
    protocol: int


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag=True):
    nonce: bytes
    cluster: Text


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`lane` 0 carries control; 1 and up carry bulk. `gateway` is where the sender itself can be dialled, or empty."""

    protocol: int
    nbray: Text
    python: Text
    cluster: Text
    role: Text
    node: Id8
    lane: int
    proof: bytes


class Admitted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    node: Id8


class Denied(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`versions`: not the credentials are wrong but the software is."""

    reason: Text
    versions: bool = False


ToServer = Knock | Hello
ToClient = Challenge | Admitted | Denied
encode = msgspec.msgpack.Encoder().encode
#: A text that is not UTF-8 raises UnicodeDecodeError, which is no msgspec.DecodeError.
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_to_server: msgspec.msgpack.Decoder[ToServer] = msgspec.msgpack.Decoder(ToServer)
_to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)


class NotAGreeting(ValueError):
    """Bytes that nobody says before admission."""


def decode_reply(frame: bytes) -> ToClient:
    """Raises NotAGreeting for what no gateway of this protocol says."""
    try:
        return _to_client.decode(frame)
    except _UNDECODABLE as error:
        raise NotAGreeting(str(error)) from None


def decode_request(frame: bytes) -> ToServer:
    """Raises NotAGreeting for what no client of this protocol says."""
    try:
        return _to_server.decode(frame)
    except _UNDECODABLE as error:
        raise NotAGreeting(str(error)) from None


def hello(mine: Credentials, challenge: Challenge, client_public: bytes, node: NodeId, lane: int) -> Hello:
    """The answer to `challenge`. Raises AuthenticationError when the gateway belongs to another cluster."""
    if challenge.cluster != mine.cluster:
        raise AuthenticationError(
            f"the gateway belongs to cluster {challenge.cluster[:8]}, {mine.source} to cluster {mine.cluster[:8]}"
        )
    proof = mine.proof(role=mine.role, client_public=client_public, nonce=challenge.nonce, node=node, lane=lane)
    return Hello(PROTOCOL_VERSION, nbray.__version__, platform.python_version(), mine.cluster, mine.role, node, lane, proof)


# ---------------------------------------------------------------------------------------------------- the door


class Reply(msgspec.Struct, frozen=True):
    """Say this. `close` afterwards; `admitted` says that the connection is a member from now on."""

    frame: bytes
    close: str = ""  #: the reason
    admitted: bool = False


#: (CURVE key, nonce of the challenge, bytes heard) of a visitor that has said nothing yet.
NOTHING_SAID = ("", b"", 0)


class Visitor:
    """One connection. `key` is its CURVE key, known from its first frame; `node` is set when it is admitted."""

    __slots__ = ("came_at", "closing", "heard_bytes", "key", "lane", "node", "nonce", "peer")

    def __init__(self, peer: str, came_at: float) -> None:
        self.peer = peer
        self.came_at = came_at
        self.said = NOTHING_SAID
        self.node: NodeId | None = None
        self.lane = 0
        self.closing = False

    @property
    def said(self) -> tuple[str, bytes, int]:
        """What came of its frames so far. It is set to take back one that turns out to be another's."""
        return self.key, self.nonce, self.heard_bytes

    @said.setter
    def said(self, said: tuple[str, bytes, int]) -> None:
        self.key, self.nonce, self.heard_bytes = said


class Door:
    """Which connections of one gateway may say what. Connections are named by number (their file descriptor).

    A flood of visitors that never prove anything costs the oldest of them its place, never the newest: whoever knows the
    secret needs a millisecond.
    """

    def __init__(self, mine: Credentials, node: NodeId, max_connections: int) -> None:
        self._mine = mine
        self._node = node
        self._max = max_connections
        self.visitors: dict[int, Visitor] = {}  #: by age
        self._waiting: dict[int, Visitor] = {}  #: those not admitted, by age
        self._keys: dict[NodeId, str] = {}  #: a node's key is the same for its life: nobody else may take its name

    def connected(self, connection: int, peer: str, now: float) -> list[tuple[int, str]]:
        """A connection was accepted. Returns whom to close, and why, to keep within the limits."""
        self.visitors[connection] = self._waiting[connection] = Visitor(peer, now)
        alike = [c for c, v in self._waiting.items() if v.peer == peer]
        if len(alike) > MAX_PRE_AUTH_PER_PEER:
            return [(alike[0], f"{MAX_PRE_AUTH_PER_PEER} connections of its address were waiting to be admitted")]
        if len(self._waiting) > MAX_PRE_AUTH or len(self.visitors) > self._max:
            return [(next(iter(self._waiting)), "too many connections")]
        return []

    def closing(self, connection: int) -> None:
        """It is being closed: it says nothing more, and takes no place among those that wait."""
        self._waiting.pop(connection, None)
        if (visitor := self.visitors.get(connection)) is not None:
            visitor.closing = True

    def gone(self, connection: int) -> Visitor | None:
        self._waiting.pop(connection, None)
        return self.visitors.pop(connection, None)

    def late(self, now: float) -> Iterator[tuple[int, str]]:
        """Those that had PRE_AUTH_S and did not use it."""
        for connection, visitor in self._waiting.items():
            if now - visitor.came_at < config.PRE_AUTH_S:
                return
            yield connection, f"it proved nothing within {config.PRE_AUTH_S:g} s"

    def next_deadline(self) -> float | None:
        oldest = next(iter(self._waiting.values()), None)
        return None if oldest is None else oldest.came_at + config.PRE_AUTH_S

    def forget(self, node: NodeId) -> None:
        """The node is dead; its name is never used again, so nobody needs to guard it."""
        self._keys.pop(node, None)

    def heard(self, connection: int, key: str, frame: bytes, nonce: bytes) -> Reply:
        """A frame from a connection that is not admitted. `nonce` is fresh randomness, used if one is needed."""
        visitor = self.visitors[connection]
        visitor.heard_bytes += len(frame)
        if visitor.key and visitor.key != key:
            return _denied("the key changed on one connection")
        visitor.key = key
        if visitor.heard_bytes > config.PRE_AUTH_BYTES:
            return _denied(f"it said more than {config.PRE_AUTH_BYTES} bytes before it was admitted")
        try:
            said = decode_request(frame)
        except NotAGreeting:
            return _denied("it said something that is neither Knock nor Hello")
        if said.protocol != PROTOCOL_VERSION:
            return _denied(f"it speaks protocol {said.protocol} and this cluster protocol {PROTOCOL_VERSION}", versions=True)
        if isinstance(said, Knock):
            if visitor.nonce:
                return _denied("it knocked twice")
            visitor.nonce = nonce
            return Reply(encode(Challenge(nonce, self._mine.cluster)))
        return self._judge(connection, visitor, said)

    def _judge(self, connection: int, visitor: Visitor, said: Hello) -> Reply:
        nonce, visitor.nonce = visitor.nonce, b"used"
        if len(nonce) != NONCE_BYTES:
            return _denied("its Hello answers no challenge of this connection")
        if said.role not in ROLES or not 0 <= said.lane <= 255:
            return _denied("its Hello names an unknown role or lane")
        if said.cluster != self._mine.cluster:
            return _denied(f"it wants cluster {said.cluster[:8]}, and this is cluster {self._mine.cluster[:8]}")
        due = self._mine.proof(role=said.role, client_public=visitor.key.encode(), nonce=nonce, node=said.node, lane=said.lane)
        if not hmac.compare_digest(due, said.proof):
            return _denied("the join secret is wrong")
        if (differs := _versions_differ(said)) is not None:
            return _denied(differs, versions=True)
        if said.node == self._node or self._keys.setdefault(said.node, visitor.key) != visitor.key:
            return _denied(f"it says that it is node {short(said.node)}, which another process is")
        visitor.node, visitor.lane = said.node, said.lane
        self._waiting.pop(connection, None)
        return Reply(encode(Admitted(self._node)), admitted=True)


def _versions_differ(said: Hello) -> str | None:
    """Why `said` cannot work with this process although it may: pickles do not cross Python's minor versions."""
    mend = f"Use one environment on all machines, or there: pip install nbray=={nbray.__version__}"
    python = platform.python_version()
    if said.nbray != nbray.__version__:
        return f"it has nbray {said.nbray} and this cluster nbray {nbray.__version__}. {mend}"
    if said.python.split(".")[:2] != python.split(".")[:2]:
        return f"it runs Python {said.python} and this cluster {python}, and pickled functions need the same minor version. {mend}"
    return None


def _denied(reason: str, versions: bool = False) -> Reply:
    return Reply(encode(Denied(reason, versions)), close=reason)
