"""A directory of things that are expensive to make, shared by every process of this user: packages, installed requirements.

    <root>/<name>/        the thing; complete once the file `.ready` is in it
    <root>/<name>.lock    flock: exclusive while it is made or removed, shared for as long as somebody uses it

The kernel lets go of a lock when its holder dies, so nothing is ever counted wrong and nothing needs a daemon.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from nbray.wire import rundir

READY = ".ready"
ARCHIVE = "package.zip"  #: the one file of a package
#: Files beside the things begin with this until they are one.
UNFINISHED = "unfinished-"


def user_root() -> str:
    """Where this user's cache is: $NBRAY_ENVIRONMENT_CACHE, else in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("NBRAY_ENVIRONMENT_CACHE")
    if named:
        return os.path.abspath(named)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(base if base.startswith("/") else os.path.expanduser("~/.cache"), "nbray", "environments")


class Held:
    """A use of one thing: it stays as long as this is open."""

    def __init__(self, path: str, lock: str, fd: int) -> None:
        self.path = path
        self.lock = lock  #: the path of the lock file
        self._fd = fd

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None) -> None:
        self.close()


class Cache:
    """The things in `root`."""

    def __init__(self, root: str) -> None:
        """Makes the directory if it is not there. Raises HostileDirectory unless it is this user's alone."""
        self.root = root
        try:
            os.makedirs(root, 0o700, exist_ok=True)
        except OSError as error:
            advice = "set NBRAY_ENVIRONMENT_CACHE to a directory that can be written"
            raise OSError(error.errno, f"runtime environments cannot be kept in {root} ({error.strerror}); {advice}") from None
        os.close(rundir.open_private(root))

    def hold(self, name: str, make: Callable[[str], object]) -> Held:
        """Use `name`; `make(directory)` fills its empty directory if nobody has. One process makes, the others wait for it.

        What `make` raises is raised here, and the next one tries again.
        """
        while True:
            held = self.find(name)
            if held is not None:
                return held
            fd = self._locked(name, fcntl.LOCK_EX)
            try:
                if not self._is_ready(name):
                    self._make(name, make)
            finally:
                os.close(fd)  # and ask again, shared: the lock cannot be turned into that one without a gap

    def find(self, name: str) -> Held | None:
        """Use `name` if it is there."""
        if not self._is_ready(name):
            return None
        fd = self._locked(name, fcntl.LOCK_SH)
        if self._is_ready(name):
            os.utime(fd)  # the oldest goes first
            return Held(f"{self.root}/{name}", self._lock(name), fd)
        os.close(fd)
        return None

    def _make(self, name: str, make: Callable[[str], object]) -> None:
        path = f"{self.root}/{name}"
        shutil.rmtree(path, ignore_errors=True)  # what a maker that died has left
        os.mkdir(path, 0o700)
        try:
            make(path)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        with open(f"{path}/{READY}", "w", encoding="utf-8") as file:
            file.write(str(_size(path)))

    def _is_ready(self, name: str) -> bool:
        return os.path.exists(f"{self.root}/{name}/{READY}")

    def _lock(self, name: str) -> str:
        return f"{self.root}/{name}.lock"

    def _locked(self, name: str, kind: int) -> int:
        while True:
            fd = os.open(self._lock(name), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, kind)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self._lock(name))):
                    return fd
            os.close(fd)  # it was removed while we waited for it

    def collect(self, limit_bytes: int) -> list[str]:
        """Remove what nobody uses, the longest unused first, until the rest is within the limit. Returns their names."""
        found = []
        for entry in os.scandir(self.root):
            if entry.name.endswith(".lock"):
                found.append((entry.stat().st_mtime_ns, entry.name.removesuffix(".lock")))
            elif entry.name.startswith(UNFINISHED) and entry.stat().st_mtime < time.time() - 3600:
                os.unlink(entry.path)  # of a process that was killed while it packed
        sizes = {name: self._size_of(name) for _, name in found}
        total, removed = sum(sizes.values()), []
        for _, name in sorted(found):
            if total <= limit_bytes and sizes[name]:
                break
            if self._remove(name):
                total -= sizes[name]
                removed.append(name)
        return removed

    def _size_of(self, name: str) -> int:
        try:
            with open(f"{self.root}/{name}/{READY}", encoding="utf-8") as file:
                return int(file.read() or 0)
        except (OSError, ValueError):
            return 0

    def _remove(self, name: str) -> bool:
        try:
            fd = os.open(self._lock(name), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(f"{self.root}/{name}", ignore_errors=True)
            os.unlink(self._lock(name))
        except (BlockingIOError, FileNotFoundError):
            return False  # somebody uses it, or was faster
        finally:
            os.close(fd)
        return True


def _size(path: str) -> int:
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(f"{directory}/{name}").st_size
    return total
