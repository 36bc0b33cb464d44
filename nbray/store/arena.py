"""The bytes of a node's objects: one anonymous shared mapping, made by the daemon and mapped once by each process of the node.

Nothing here knows objects; offsets come from the ledger. numpy is loaded (by views.py) only where a process writes a large
buffer or takes a pinned view, so that a daemon, which does neither, stays small.

    daemon     fd = create_arena(size); Arena(fd, size).read / .write        (chunks of a transfer, spilling)
    client     Arena(fd from the lifeline, Welcome.arena_bytes).write / .pinned_view
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable

#: From here on a copy is worth a second thread: starting one costs what copying about half a megabyte does.
TWO_THREADS_FROM = 8 * 2**20


def create_arena(size: int) -> int:
    """A file descriptor of `size` zero bytes that has no name, so a crash leaves nothing behind. The caller closes it.

    Its size is sealed: no process that gets the descriptor can shrink it under the others, which would end them with SIGBUS.
    """
    if not hasattr(os, "memfd_create"):
        return _unlinked_file(size)
    fd = os.memfd_create("nbray-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unlinked_file(size: int) -> int:
    fd, path = tempfile.mkstemp(prefix="nbray-arena-")
    try:
        os.unlink(path)
        os.ftruncate(fd, size)
        if hasattr(os, "posix_fallocate"):
            # A hole that the file system cannot fill later would be SIGBUS in whoever writes there.
            os.posix_fallocate(fd, 0, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Arena:
    """One mapping of the arena. Offsets and sizes are bytes; a range outside the arena raises ValueError.

    Writers and readers of one range are kept apart by the ledger, not here. The descriptor stays the caller's, who may close
    it once this exists.
    """

    __slots__ = ("_view", "size")

    def __init__(self, fd: int, size: int) -> None:
        held = os.fstat(fd).st_size
        if held < size:
            raise ValueError(
                f"the arena was announced with {size} bytes but its file has {held}; reading past its end would be fatal"
            )
        mapping = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        if hasattr(mmap, "MADV_DONTDUMP"):
            mapping.madvise(mmap.MADV_DONTDUMP)  # a core dump of one worker is not the place for the whole node's objects
        self.size = size
        self._view: memoryview | None = memoryview(mapping)

    def write(self, offset: int, buffer: bytes | bytearray | memoryview) -> int:
        """Copy a contiguous `buffer` to `offset`; returns its length in bytes. Large copies let other threads run."""
        source = memoryview(buffer)
        if source.format != "B" or source.ndim != 1:
            source = source.cast("B")
        size = source.nbytes
        target = self._range(offset, size)
        if size < TWO_THREADS_FROM:
            target[:] = source
        else:
            from nbray.store import views  # numpy: 25 MB that a daemon does not need

            views.copy_with_two_threads(target, source)
        return size

    def read(self, offset: int, size: int) -> memoryview:
        """A read-only view that pins nothing: for whoever holds the object in the ledger anyway."""
        return self._range(offset, size).toreadonly()

    def writable(self, offset: int, size: int) -> memoryview:
        """The bytes themselves, for whoever the ledger told to fill them."""
        return self._range(offset, size)

    def pinned_view(self, offset: int, size: int, on_release: Callable[[], None]) -> memoryview:
        """A read-only view; `on_release` is called once, when the view and the last array or slice over it have died.

        It is called by whichever thread drops the last one, perhaps inside the garbage collector and under any lock: append
        to a deque there, no more. It is not called at interpreter exit.
        """
        memory = self._range(offset, size)
        from nbray.store import views  # numpy: 25 MB that a daemon does not need

        return views.pinned_view(memory, on_release)

    def close(self) -> None:
        """Let go of the mapping. Views that are still alive keep it mapped until they die. Idempotent."""
        self._view = None

    def _range(self, offset: int, size: int) -> memoryview:
        if self._view is None:
            raise ValueError("the arena of this process is closed: nbray was shut down while an object was being read or written")
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes [{offset}, {offset + size}) are not inside the arena of {self.size} bytes")
        return self._view[offset : offset + size]
