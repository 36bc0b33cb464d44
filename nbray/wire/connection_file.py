"""What a process needs to join a cluster: a file that only its owner can read, or one line in NBRAY_TOKEN.

    <runtime root>/connections/<port>-<cluster>.json        0600, written by `nbray start --head`, removed by `nbray stop`

Whoever can read it can run code in the cluster. So a file that others can read, that another user owns or that is no plain
file is refused, as ssh refuses such keys; and the token never stands on a command line, where `ps` would show it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import stat
from collections.abc import Iterator

import msgspec

from nbray.exceptions import AuthenticationError
from nbray.wire import rundir
from nbray.wire.auth import CLUSTER_BYTES, SECRET_BYTES, Credentials, credentials
from nbray.wire.messages import PROTOCOL_VERSION

CONNECTIONS = "connections"
TOKEN_VARIABLE = "NBRAY_TOKEN"
TOKEN_PREFIX = "nbray1."
LARGEST_BYTES = 16_384
_HOST = re.compile(r"[0-9A-Za-z_.:%-]{1,253}\Z")
_CLUSTER = re.compile(rf"[0-9a-f]{{{2 * CLUSTER_BYTES}}}\Z")


class Connection(msgspec.Struct, frozen=True):
    """One cluster, as a file or token tells of it. `directory` is the head node's runtime directory, on its own machine."""

    cluster: str
    host: str
    port: int
    server_public: str
    secret: str  #: base64url, 256 bits
    protocol: int = PROTOCOL_VERSION
    created: str = ""  #: UTC, ISO 8601
    directory: str = ""

    def __repr__(self) -> str:
        return f"Connection({self.address}, cluster={self.cluster!r}, directory={self.directory!r}, secret=...)"

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def credentials(self, source: str, role: str = "node") -> Credentials:
        return Credentials(self.cluster, _bytes_of(self.secret), self.server_public.encode(), source, role)

    def token(self) -> str:
        """The one line for another machine; it says nothing of directories here."""
        told = msgspec.json.encode(msgspec.structs.replace(self, directory=""))
        return TOKEN_PREFIX + base64.urlsafe_b64encode(told).decode().rstrip("=")


class Found(msgspec.Struct, frozen=True):
    """A connection, and the file or variable it was read from, for errors to name."""

    connection: Connection
    source: str


def new(host: str, port: int, *, created: str, directory: str = "") -> Connection:
    """A connection with a fresh cluster id and secret."""
    return of_secret(os.urandom(CLUSTER_BYTES).hex(), os.urandom(SECRET_BYTES), host, port, created, directory)


def of_secret(cluster: str, secret: bytes, host: str, port: int, created: str, directory: str) -> Connection:
    server = credentials(cluster, secret, "").server_public.decode()
    return Connection(
        cluster, host, port, server, base64.urlsafe_b64encode(secret).decode().rstrip("="), PROTOCOL_VERSION, created, directory
    )


# ---------------------------------------------------------------------------------------------------- files


def connections_directory(root: str | None = None) -> str:
    """The path of this user's connection files; it need not exist yet."""
    return f"{rundir.runtime_root() if root is None else root}/{CONNECTIONS}"


def write(connection: Connection, root: str | None = None) -> str:
    """Write the file of `connection`, at once or not at all; returns its path. Raises HostileDirectory."""
    directory = connections_directory(root)
    os.close(rundir.open_root(root)[1])
    _, fd = rundir.open_root(directory)
    name = f"{connection.port}-{connection.cluster[:8]}.json"
    draft = f".{name}.{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=fd)
        out = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
        with open(out, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(connection), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, name, src_dir_fd=fd, dst_dir_fd=fd)
        os.fsync(fd)
    finally:
        os.close(fd)
    return f"{directory}/{name}"


def load(path: str) -> Found:
    """The connection in the file at `path`. Raises ConnectionError if there is none, AuthenticationError if it is not to be
    trusted or makes no sense; the text names the file and what mends it."""
    try:
        # O_NONBLOCK: a FIFO would otherwise hold us until somebody writes to it.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ConnectionError(f"there is no connection file {path}; the head's `nbray start --head` writes one") from None
    except OSError as error:
        why = "it is a symbolic link" if os.path.islink(path) else error.strerror
        raise AuthenticationError(f"the connection file {path} is not used: {why}. Name the file itself") from None
    try:
        _check_private(path, os.fstat(fd))
        raw = os.read(fd, LARGEST_BYTES + 1)
    finally:
        os.close(fd)
    return Found(_checked(raw, path), path)


def _check_private(path: str, facts: os.stat_result) -> None:
    def refuse(why: str, mend: str) -> AuthenticationError:
        return AuthenticationError(f"the connection file {path} is not used: {why}. {mend}")

    if not stat.S_ISREG(facts.st_mode):
        raise refuse("it is not a plain file", "Name the file that `nbray start --head` wrote")
    if facts.st_uid != os.geteuid():
        raise refuse(
            f"it belongs to uid {facts.st_uid}, not to you (uid {os.geteuid()})", "Copy it to a file of your own, mode 0600"
        )
    if facts.st_mode & 0o077:
        raise refuse(
            f"others can read it (mode {stat.S_IMODE(facts.st_mode):04o})", f"If the secret is still one: chmod 600 {path}"
        )
    if facts.st_size > LARGEST_BYTES:
        raise refuse(f"it has {facts.st_size:,} bytes, and a connection file at most {LARGEST_BYTES:,}", "It is something else")


def _checked(raw: bytes, source: str) -> Connection:
    """Decode and check every field. Errors never quote the content: it may hold the secret."""

    def refuse(why: str) -> AuthenticationError:
        return AuthenticationError(f"{source} makes no sense: {why}. Get it from the head again")

    if len(raw) > LARGEST_BYTES:
        raise refuse(f"it is longer than {LARGEST_BYTES:,} bytes")
    try:
        found = msgspec.json.decode(raw, type=Connection)
    except msgspec.ValidationError as error:
        raise refuse(str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise refuse("it is not JSON") from None
    if found.protocol != PROTOCOL_VERSION:
        raise AuthenticationError(
            f"{source} is of protocol {found.protocol}, and this nbray speaks protocol {PROTOCOL_VERSION}. "
            "Use the head's version of nbray here"
        )
    if not _HOST.match(found.host):
        raise refuse("its host is no host name or address")
    if not 1 <= found.port <= 65535:
        raise refuse(f"its port {found.port} is not between 1 and 65535")
    if not _CLUSTER.match(found.cluster):
        raise refuse(f"its cluster id is not {2 * CLUSTER_BYTES} hexadecimal digits")
    if len(found.server_public) != 40 or not found.server_public.isascii():
        raise refuse("its server key is not 40 characters of Z85")
    if len(_bytes_of(found.secret)) != SECRET_BYTES:
        raise refuse(f"its secret is not {8 * SECRET_BYTES} bits in base64url")
    if found.directory and not (found.directory.startswith("/") and "\0" not in found.directory):
        raise refuse("its directory is not an absolute path")
    return found


def _bytes_of(text: str) -> bytes:
    """base64url without padding; b"" if it is not that."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def remove(path: str) -> None:
    """The cluster is gone. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def known(root: str | None = None) -> Iterator[Found]:
    """The connection files of this user, the newest first. Those that cannot be used are skipped: name one to hear why."""
    directory = connections_directory(root)
    try:
        fd = rundir.open_private(directory)
    except FileNotFoundError:
        return
    try:
        entries = [(os.stat(n, dir_fd=fd, follow_symlinks=False).st_mtime_ns, n) for n in os.listdir(fd) if n.endswith(".json")]
    finally:
        os.close(fd)
    for _, name in sorted(entries, reverse=True):
        with contextlib.suppress(AuthenticationError, ConnectionError):
            yield load(f"{directory}/{name}")


# ---------------------------------------------------------------------------------------------------- tokens


def from_token(token: str, source: str = f"${TOKEN_VARIABLE}") -> Found:
    """The connection in a token. Raises AuthenticationError; the text never quotes it."""
    text = token.strip()
    if not text.startswith(TOKEN_PREFIX):
        raise AuthenticationError(f"{source} makes no sense: a token begins with {TOKEN_PREFIX!r}. Get it from the head again")
    raw = _bytes_of(text[len(TOKEN_PREFIX) :]) if len(text) <= 2 * LARGEST_BYTES else b""
    return Found(_checked(raw, source), source)


#: The token of this process, once it is out of the environment: a second `init` must find it too. As global as the
#: environment that it was in.
_scrubbed: list[str] = []


def from_environment() -> Found | None:
    """The connection in NBRAY_TOKEN, which is taken out of os.environ so that nothing this process starts inherits it."""
    token = os.environ.pop(TOKEN_VARIABLE, None)
    if token is not None:
        _scrubbed[:] = [token]
    return from_token(_scrubbed[0]) if _scrubbed else None


# ---------------------------------------------------------------------------------------------------- looking one up


def find(address: str, root: str | None = None) -> Found:
    """The connection that `address` means: "auto", "host:port", the path of a file, or a token.

    Raises ConnectionError when nothing is known of it, AuthenticationError when what is known cannot be used.
    """
    if address.startswith(TOKEN_PREFIX):
        return from_token(address, "the token given as address")
    if "/" in address or address.endswith(".json"):
        return load(os.path.expanduser(address))
    from_variable = from_environment()
    if address == "auto":
        return from_variable or _newest(root)
    host, port = split_address(address)
    if from_variable is not None and from_variable.connection.port == port:
        return Found(msgspec.structs.replace(from_variable.connection, host=host), from_variable.source)
    alike = [found for found in known(root) if found.connection.port == port]
    exact = [found for found in alike if found.connection.host.lower() == host.lower()]
    if exact or (alike and _is_this_machine(host)):
        return (exact or alike)[0]
    if from_variable is not None:
        told = from_variable.connection.address
        raise ConnectionError(f"NBRAY_TOKEN is for {told}, not for {address}; unset it, or name the address that it is for")
    raise ConnectionError(
        f"no connection file for {address} in {connections_directory(root)}; set NBRAY_TOKEN to what "
        "the head's `nbray start` printed, or name the connection file"
    )


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of "host:port" or "[host]:port". Raises ConnectionError."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not _HOST.match(host) or not port.isascii() or not port.isdecimal() or len(port) > 5 or not 1 <= int(port) <= 65535:
        raise ConnectionError(f"{address!r} is no address; give host:port, a connection file, or 'auto'")
    return host, int(port)


def _is_this_machine(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


def _newest(root: str | None) -> Found:
    running = set(rundir.in_use(root))
    all_known = list(known(root))
    for found in [f for f in all_known if f.connection.directory in running] or all_known:
        return found
    raise ConnectionError(
        f"no cluster found: NBRAY_TOKEN is not set and {connections_directory(root)} has no connection file; nbray start --head"
    )
