"""The part of the arena that needs numpy: copies that release the GIL, and views whose death is the release of a pin.

Imported by `arena.py` when a process first needs it, so that daemons never load numpy.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np


class Pinned(np.ndarray[Any, Any]):
    """The array whose death is the release of a pin. A subclass, so that slices of plain arrays over it cannot be it."""

    object: bytes = b""  #: the id of what is pinned, where whoever made it says so


def pinned_view(memory: memoryview, on_release: Callable[[], None]) -> memoryview:
    """A read-only view of `memory`; `on_release` runs once, when no array or view over it is left."""
    base = np.frombuffer(memory, np.uint8).view(Pinned)
    base.flags.writeable = False
    weakref.finalize(base, on_release).atexit = False
    # numpy shortens the base chain of an array to the first exporter of memory that is not an array. That must be this
    # memoryview: handed the ndarray subclass itself, numpy would skip it, and the finalizer would run under living arrays.
    return base.data


def copy_with_two_threads(target: memoryview, source: memoryview) -> None:
    """Copy equally long buffers. One thread cannot fill the memory's bandwidth; numpy's copy lets others run meanwhile."""
    to, from_ = np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8)
    half = len(to) // 2
    second = threading.Thread(target=np.copyto, args=(to[half:], from_[half:]), name="nbray-copy")
    second.start()
    np.copyto(to[:half], from_[:half])
    second.join()
