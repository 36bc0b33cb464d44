"""Where the sockets, logs and spilled objects of one node life are, and who may stand there.

    <root>/            $XDG_RUNTIME_DIR/nbray, else /tmp/nbray-<uid>; ours, 0700, no symlink: checked, never repaired
      r<10 hex>/       one life of one node daemon, which holds an flock on `lock` for as long as it lives
        lock  lifeline  gateway  <process id hex>        sockets
    /tmp/nbray-<uid>/r<10 hex>/   the same directory, or its twin when the root is in memory: logs/, spill/, environments/

Whoever can enter the directory can reach the sockets, so its owner and mode are the first half of authentication; the
peer's uid is the second. A directory whose lock is free belonged to a daemon that was killed: the next start removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator

#: The kernel's limit for the path of a unix socket, less the terminating zero.
SOCKET_PATH_BYTES = 107
LIFELINE = "lifeline"
LOCK = "lock"
LOGS = "logs"
SPILL = "spill"
ENVIRONMENTS = "environments"
_NAME = re.compile(r"r[0-9a-f]{10}\Z")
#: "/r0123456789/" and a process id in hex.
_LONGEST_BELOW_ROOT = 12 + 1 + 16


class HostileDirectory(PermissionError):
    """A directory that must be private to us is not. Refused, never repaired: someone else may be watching it."""


def _bulk_root() -> str:
    return f"/tmp/nbray-{os.geteuid()}"


def runtime_root() -> str:
    """The path of this user's runtime root; it need not exist yet."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/") and len(os.fsencode(base)) + len("/nbray") + _LONGEST_BELOW_ROOT <= SOCKET_PATH_BYTES:
        with contextlib.suppress(OSError, HostileDirectory):
            os.close(open_private(base))
            return f"{base.rstrip('/')}/nbray"
    return _bulk_root()


def open_private(path: str) -> int:
    """A file descriptor of the directory `path`. Raises HostileDirectory unless it is ours alone, FileNotFoundError if absent."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        owner = _owner(path)
        kind = "is a symbolic link" if os.path.islink(path) else f"cannot be opened as a directory ({error.strerror})"
        raise HostileDirectory(f"{path} {kind}; it belongs to {owner}. nbray does not use it: remove it, then try again") from None
    facts = os.fstat(fd)
    if facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) & 0o077 == 0:
        return fd
    os.close(fd)
    raise HostileDirectory(
        f"{path} belongs to {_user(facts.st_uid)} with mode {stat.S_IMODE(facts.st_mode):04o}; nbray needs a directory of "
        f"{_user(os.geteuid())} with mode 0700 there and does not repair one that others could enter: remove it, then try again"
    )


def _owner(path: str) -> str:
    try:
        return _user(os.lstat(path).st_uid)
    except OSError as error:
        return f"an unknown user ({error.strerror})"


def _user(uid: int) -> str:
    return f"uid {uid}"


def open_root(root: str | None = None) -> tuple[str, int]:
    """The runtime root, made if absent, with a file descriptor of it. Raises HostileDirectory."""
    path = runtime_root() if root is None else root
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    return path, open_private(path)


class RunDirectory:
    """The directory of one node life, locked by this process until `remove` or death."""

    def __init__(self, path: str, bulk: str, locks: list[int]) -> None:
        self.path = path
        self.logs = f"{bulk}/{LOGS}"
        self.spill = f"{bulk}/{SPILL}"
        self.environments = f"{bulk}/{ENVIRONMENTS}"
        self._places = [path] if bulk == path else [path, bulk]
        self._locks = locks

    def remove(self) -> None:
        """Remove everything and let the locks go. Idempotent."""
        for place in self._places:
            root, name = os.path.split(place)
            with contextlib.suppress(FileNotFoundError):
                _remove_tree(root, name)
        while self._locks:
            os.close(self._locks.pop())


def create(root: str | None = None) -> RunDirectory:
    """A new, locked directory under the runtime root, with `logs/`, `spill/` and `environments/`. Raises HostileDirectory."""
    root_path = runtime_root() if root is None else root
    if len(os.fsencode(root_path)) + _LONGEST_BELOW_ROOT > SOCKET_PATH_BYTES:
        raise ValueError(f"{root_path} is too long for unix sockets ({SOCKET_PATH_BYTES} bytes in all); choose a shorter directory")
    name = f"r{os.urandom(5).hex()}"
    locks = [_create_in(root_path, name)]
    bulk_root = root_path
    # $XDG_RUNTIME_DIR is memory: objects spilled there would free nothing.
    if root is None and root_path != _bulk_root():
        bulk_root = _bulk_root()
        locks.append(_create_in(bulk_root, name))
    bulk = f"{bulk_root}/{name}"
    for inner in (LOGS, SPILL, ENVIRONMENTS):
        os.mkdir(f"{bulk}/{inner}", 0o700)
    return RunDirectory(f"{root_path}/{name}", bulk, locks)


def _create_in(root: str, name: str) -> int:
    """Make `root`/`name` and its lock, and hold that. Under the root's own lock, or `clean_stale` would take it for stale."""
    _, root_fd = open_root(root)
    try:
        fcntl.flock(root_fd, fcntl.LOCK_EX)
        os.mkdir(name, 0o700, dir_fd=root_fd)
        lock = os.open(f"{name}/{LOCK}", os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root_fd)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    finally:
        os.close(root_fd)


def _entries(root: str | None) -> Iterator[tuple[str, str, int]]:
    """(root, name, root's fd) of every well-named, owned, private directory; a root that is not there has none."""
    roots = [root] if root is not None else list(dict.fromkeys([runtime_root(), _bulk_root()]))
    for path in roots:
        try:
            root_fd = open_private(path)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(root_fd, fcntl.LOCK_EX)
            for name in sorted(os.listdir(root_fd)):
                if _NAME.match(name) and _is_ours(root_fd, name):
                    yield path, name, root_fd
        finally:
            os.close(root_fd)


def _is_ours(root_fd: int, name: str) -> bool:
    try:
        facts = os.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) & 0o077 == 0


def _is_locked(root_fd: int, name: str) -> bool:
    try:
        lock = os.open(f"{name}/{LOCK}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def clean_stale(root: str | None = None) -> list[str]:
    """Remove what killed daemons left. Returns the paths; directories in use, or not ours, are not touched."""
    removed = []
    for path, name, root_fd in _entries(root):
        if not _is_locked(root_fd, name):
            _remove_entry(root_fd, name)
            removed.append(f"{path}/{name}")
    return removed


def in_use(root: str | None = None) -> list[str]:
    """The directories of the daemons of this user that live now and have a lifeline."""
    return [
        f"{path}/{name}"
        for path, name, root_fd in _entries(root)
        if _is_locked(root_fd, name) and os.path.exists(f"{path}/{name}/{LIFELINE}")
    ]


def _remove_entry(root_fd: int, name: str) -> None:
    """Remove a directory that others may be removing at the same time: its own daemon, or the next that comes."""
    while True:
        try:
            shutil.rmtree(name, dir_fd=root_fd)
            return
        except FileNotFoundError:
            try:
                os.stat(name, dir_fd=root_fd, follow_symlinks=False)
            except FileNotFoundError:
                return


def _remove_tree(root: str, name: str) -> None:
    root_fd = open_private(root)
    try:
        _remove_entry(root_fd, name)
    finally:
        os.close(root_fd)


def check(directory: str) -> None:
    """Raises HostileDirectory or FileNotFoundError unless `directory` and its root are ours alone."""
    os.close(open_private(os.path.dirname(directory)))
    os.close(open_private(directory))
