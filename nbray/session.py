"""The one module global of the package: which engine this process uses. `api.py` sets it; handles and refs read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbray.engines.port import Engine

#: None until `init()` (or auto-init) in a driver; always set in a worker.
engine: Engine | None = None

#: Called with the new engine whenever it changes, before anything is submitted to it: a notebook attaches its output here.
watchers: list[Callable[[Engine | None], None]] = []


def current() -> Engine:
    """The engine of this process. Raises RuntimeError when there is none: only deserialised refs and handles ask here."""
    if engine is None:
        raise RuntimeError("nbray is not connected in this process; call nbray.init() first")
    return engine


def set_current(new: Engine | None) -> None:
    global engine  # noqa: PLW0603 -- the one
    engine = new
    for watcher in list(watchers):  # noqa: PERF101 -- a watcher may remove itself
        watcher(new)
