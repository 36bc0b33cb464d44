"""Carries out what the ledger orders of the disk: one file per object, one thread, one order after the other.

Files are raw bytes; their size and crc32 are in the ledger, which does not outlive its process, so nothing is synced and
whatever a crash leaves is garbage. Memory goes to the file and back without a copy in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from nbray import config
from nbray.store.arena import Arena
from nbray.store.orders import Fact, RemoveSpilled, Restore, RestoreDone, RestoreFailed, Spill, SpillDone, SpillFailed

STEP_BYTES = 4 * 2**20  #: written or read at one time: fits the processor's cache between checksum and write

Order = Spill | Restore | RemoveSpilled


class DiskFull(Exception):
    """There is no room for another spilled object."""


class Corrupt(Exception):
    """The file is not what was written."""


class Spiller:
    """Spills from and restores to `arena`. `tell` is called from the thread with each order's outcome; it must not raise.

    `directory` is made if it is missing, readable by this user only. OSError if that cannot be done.
    """

    def __init__(self, arena: Arena, directory: Path, tell: Callable[[Fact], None]) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._arena = arena
        self._path = directory
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._tell = tell
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._files: set[str] = set()
        # A daemon thread: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="nbray-spill", daemon=True)
        self._thread.start()

    def submit(self, order: Order) -> None:
        """From any thread; returns at once."""
        self._orders.put(order)

    def close(self, timeout_s: float = 5.0) -> None:
        """Finish what was ordered and remove every file. False hope is not worth waiting for: a hung disk is left alone."""
        self._orders.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            if isinstance(order, Spill):
                self._tell(self._spill(order))
            elif isinstance(order, Restore):
                self._tell(self._restore(order))
            else:
                self._unlink(order.name)
        for name in list(self._files):
            self._unlink(name)
        os.close(self._fd)

    def _spill(self, order: Spill) -> Fact:
        try:
            self._require_room(order.size)
            self._files.add(order.name)
            return SpillDone(order.object, self._write(order))
        except Exception as error:  # noqa: BLE001 -- an order without an outcome would block a region for ever
            self._unlink(order.name)
            full = isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT})
            return SpillFailed(order.object, self._explain("writing to", error), full)

    def _require_room(self, size: int) -> None:
        disk = os.fstatvfs(self._fd)
        used, available = (disk.f_blocks - disk.f_bfree) * disk.f_frsize, disk.f_bavail * disk.f_frsize
        after = (used + size) / max(used + available, 1)
        if after > config.DISK_STOP:
            raise DiskFull(f"its file system would be {after:.1%} full, and spilling stops at {config.DISK_STOP:.0%}")

    def _write(self, order: Spill) -> int:
        crc = 0
        fd = os.open(order.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        try:
            with self._arena.read(order.offset, order.size) as data:
                for start in range(0, order.size, STEP_BYTES):
                    with data[start : start + STEP_BYTES] as step:
                        crc = zlib.crc32(step, crc)
                        _write_all(fd, step)
        finally:
            os.close(fd)
        return crc

    def _restore(self, order: Restore) -> Fact:
        try:
            self._read(order)
        except (Corrupt, FileNotFoundError) as error:
            return RestoreFailed(order.object, True, self._explain("reading from", error))
        except Exception as error:  # noqa: BLE001 -- as above
            return RestoreFailed(order.object, False, self._explain("reading from", error))
        return RestoreDone(order.object)

    def _read(self, order: Restore) -> None:
        fd = os.open(order.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            length = os.fstat(fd).st_size
            if length != order.size:
                raise Corrupt(f"file {order.name} has {length} bytes, and {order.size} were written")
            crc = 0
            with self._arena.writable(order.offset, order.size) as region:
                for start in range(0, order.size, STEP_BYTES):
                    with region[start : start + STEP_BYTES] as step:
                        _read_all(fd, step, order.name)
                        crc = zlib.crc32(step, crc)
        finally:
            os.close(fd)
        if crc != order.crc:
            raise Corrupt(f"the checksum of file {order.name} is wrong: its bytes have changed since they were written")

    def _unlink(self, name: str) -> None:
        self._files.discard(name)
        # Missing is as good as removed; and an entry that cannot be removed goes with the session's directory.
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._fd)

    def _explain(self, doing: str, error: Exception) -> str:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"{doing} {self._path} failed: {what}"


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _read_all(fd: int, into: memoryview, name: str) -> None:
    while into:
        got = os.readv(fd, [into])
        if not got:
            raise Corrupt(f"file {name} ended while it was being read")
        into = into[got:]
