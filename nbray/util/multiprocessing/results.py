"""What a Pool's calls return: AsyncResult for one or all of a list, and iterators that read their input as they go."""

from __future__ import annotations

import multiprocessing
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]  # as the standard library shows a remote error
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """What one call came to: `error` is None, or the exception that it raised with its traceback as text."""

    value: Any
    error: BaseException | None = None
    trace: str = ""

    def take(self) -> Any:
        """The value. Raises the error, with where it was raised as its cause."""
        if self.error is None:
            return self.value
        raise self.told()

    def told(self) -> BaseException:
        assert self.error is not None
        if self.trace:
            self.error.__cause__ = RemoteTraceback(self.trace)
        return self.error


Deliver = Callable[[list[Outcome]], None]
#: Queue a batch of calls, each (args, kwargs); the function is called with its outcomes, from another thread.
Submit = Callable[[list[Any], Deliver], None]


class AsyncResult:
    """The result of `apply_async` (a value), or of `map_async` and `starmap_async` (a list)."""

    def __init__(
        self,
        batches: int,
        *,
        single: bool,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._outcomes: list[list[Outcome]] = [[] for _ in range(batches)]
        self._left = batches
        self._single = single
        self._callback, self._error_callback = callback, error_callback
        self._done = threading.Event()
        self._lock = threading.Lock()
        if not batches:
            self._finish()

    def deliver_to(self, batch: int) -> Deliver:
        def deliver(outcomes: list[Outcome]) -> None:
            self._outcomes[batch] = outcomes
            with self._lock:
                self._left -= 1
                last = not self._left
            if last:
                self._finish()

        return deliver

    def _finish(self) -> None:
        """The callback runs before anybody who waits goes on, as in the standard library."""
        try:
            failed = self._first_error()
            if failed is None and self._callback is not None:
                self._callback(self._value())
            elif failed is not None and self._error_callback is not None:
                self._error_callback(failed.told())
        except Exception:  # noqa: BLE001 -- the user's callback: other results are still to be delivered
            traceback.print_exc()
        finally:
            self._done.set()

    def _first_error(self) -> Outcome | None:
        return next((o for outcomes in self._outcomes for o in outcomes if o.error is not None), None)

    def _value(self) -> Any:
        values = [outcome.value for outcomes in self._outcomes for outcome in outcomes]
        return values[0] if self._single else values

    def get(self, timeout: float | None = None) -> Any:
        """The value. Raises what the first failed call raised, and multiprocessing.TimeoutError after `timeout` seconds."""
        if not self._done.wait(timeout):
            raise multiprocessing.TimeoutError(f"the result was not ready after {timeout:g} s")
        failed = self._first_error()
        return self._value() if failed is None else failed.take()

    def wait(self, timeout: float | None = None) -> None:
        self._done.wait(timeout)

    def ready(self) -> bool:
        return self._done.is_set()

    def successful(self) -> bool:
        """Whether no call raised. Raises ValueError while it is not ready."""
        if not self._done.is_set():
            raise ValueError(f"{self!r} not ready")
        return self._first_error() is None


class IMapIterator:
    """Results one by one. At most `window` batches are queued, running, or waiting to be taken.

    From the input it reads only what that allows, until `read_all`.
    """

    def __init__(self, submit: Submit, batches: Iterator[list[Any]], window: int, on_end: Callable[[IMapIterator], None]) -> None:
        self._submit, self._batches, self._window, self._on_end = submit, batches, window, on_end
        self._feeding = threading.Lock()  #: the input is the user's, and read by one thread at a time
        self._changed = threading.Condition()
        self._ready: deque[list[Outcome]] = deque()  #: batches to be taken, in the order to be taken
        self._current: deque[Outcome] = deque()
        self._submitted = self._taken = 0
        self._exhausted = False

    def feed(self) -> None:
        """Queue as much as the window allows."""
        with self._feeding:
            while not self._exhausted and self._submitted - self._taken < self._window:
                batch = next(self._batches, None)
                if batch is None:
                    self._exhausted = True
                    self._on_end(self)
                    return
                number, self._submitted = self._submitted, self._submitted + 1
                self._submit(batch, lambda outcomes, number=number: self._deliver(number, outcomes))  # type: ignore[misc]

    def read_all(self) -> None:
        """The pool takes nothing more after this: queue what is left of the input."""
        self._window = 2**62
        self.feed()

    def _deliver(self, number: int, outcomes: list[Outcome]) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result. Raises StopIteration at the end, what its call raised, and multiprocessing.TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._current:
                if self._ready:
                    self._current.extend(self._ready.popleft())
                    self._taken += 1
                elif self._exhausted and self._taken == self._submitted:
                    raise StopIteration
                elif not self._changed.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    raise multiprocessing.TimeoutError(f"no result was ready after {timeout:g} s")
            outcome = self._current.popleft()
        self.feed()
        return outcome.take()


class OrderedIMapIterator(IMapIterator):
    """In the order of the input."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._early: dict[int, list[Outcome]] = {}
        self._in_order = 0

    def _deliver(self, number: int, outcomes: list[Outcome]) -> None:
        with self._changed:
            self._early[number] = outcomes
            while self._in_order in self._early:
                self._ready.append(self._early.pop(self._in_order))
                self._in_order += 1
            self._changed.notify_all()


class UnorderedIMapIterator(IMapIterator):
    """As they become ready."""

    def _deliver(self, number: int, outcomes: list[Outcome]) -> None:
        with self._changed:
            self._ready.append(outcomes)
            self._changed.notify_all()
