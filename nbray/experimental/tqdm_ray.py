"""Progress bars from inside tasks and actors, drawn by the driver: under the right cell, or at the bottom of the terminal.

    from nbray.experimental.tqdm_ray import tqdm
    for x in tqdm(range(100), desc="fit"): ...

A bar says at most every `flush_interval_s` how far it is, whoever updates it how often.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from nbray import session
from nbray.progress import Progress, as_html, line

T = TypeVar("T")

FLUSH_S = 0.25


class tqdm(Generic[T]):  # noqa: N801 -- as everybody knows it
    """A part of tqdm's own interface. Outside of a cluster it counts and shows nothing."""

    DEFAULT_FLUSH_INTERVAL_SECONDS = FLUSH_S

    def __init__(
        self,
        iterable: Iterable[T] | None = None,
        desc: str | None = None,
        total: float | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float | None = None,
    ) -> None:
        """`total` is the length of `iterable` if it has one. `position` is the driver's to choose, and taken for Ray's sake."""
        del position
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        self._iterable, self._desc, self.total, self._unit = iterable, desc or "", total, unit or "it"
        self.n: float = 0
        self._id = uuid.uuid4().hex
        self._flush_interval_s = FLUSH_S if flush_interval_s is None else flush_interval_s
        self._began = time.monotonic()
        self._told: float | None = None  #: when the driver was last told
        self._closed = False
        self._tell(True)

    def update(self, n: float = 1) -> None:
        """`n` more are done."""
        self.n += n
        self._tell(False)

    def set_description(self, desc: str) -> None:
        self._desc = desc
        self._tell(False)

    def refresh(self) -> None:
        """Show now how far it is."""
        self._tell(True)

    def close(self) -> None:
        """Show the last state, for good."""
        if not self._closed:
            self._closed = True
            self._tell(True)

    def __iter__(self) -> Iterator[T]:
        if self._iterable is None:
            raise ValueError("No iterable provided")
        try:
            for item in self._iterable:
                yield item
                self.update(1)
        finally:
            self.close()

    def __len__(self) -> int:
        if self.total is None:
            raise TypeError("this bar has no total")
        return int(self.total)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        # Made without arguments that fit, it has no state.
        if "_closed" in self.__dict__ and not self._closed and session.engine is not None:
            self.close()

    def _tell(self, always: bool) -> None:
        now = time.monotonic()
        if not always and self._told is not None and now - self._told < self._flush_interval_s:
            return
        engine = session.engine
        show = engine.show_here if engine is not None else None
        if engine is None or show is None:
            return
        first, self._told = self._told is None, now
        facts = engine.facts()
        who = "" if engine.is_driver else f"{facts.task_name} pid={os.getpid()}"
        state = Progress(self._id, self._desc, self.n, self.total, self._unit, now - self._began, who, self._closed)
        shown: dict[str, Any] = {"text/plain": line(state), "text/html": as_html(state)}
        # The whole state goes where it is not saved with the notebook; a terminal draws it itself.
        show(shown, {}, {"display_id": f"nbray-bar-{self._id}", "nbray_progress": msgspec.to_builtins(state)}, not first)


def safe_print(*args: Any, **kwargs: Any) -> None:
    """`print`. In Ray it moves bars out of the way first; here the driver draws them below whatever is printed."""
    print(*args, **kwargs)
