"""`multiprocessing.Pool` whose processes are actors, on every machine of the cluster: change the import, keep the program."""

from __future__ import annotations

from multiprocessing import JoinableQueue, TimeoutError  # noqa: A004 -- the standard library's name for it

from nbray.util.multiprocessing.pool import Pool
from nbray.util.multiprocessing.results import AsyncResult

__all__ = ["AsyncResult", "JoinableQueue", "Pool", "TimeoutError"]
