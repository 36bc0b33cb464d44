"""ActorPool: values handed to whichever actor of a fixed set is idle.

submit -> in flight at an actor -> result taken by get_next (in order) or get_next_unordered (first come)
       -> or pending until an actor comes back, which it does when its result is taken
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from nbray import api
from nbray.actors import ActorHandle
from nbray.exceptions import ActorDiedError
from nbray.refs import ObjectRef

V = TypeVar("V")
Call = Callable[[ActorHandle, V], Any]  #: starts a method of the actor with the value and returns its reference (or several)


class _InFlight(NamedTuple):
    """A call whose result has not been taken. `refs` is what the caller's function returned."""

    refs: Any
    actor: ActorHandle

    @property
    def first(self) -> ObjectRef[Any]:
        """What is waited for: all returns of a call become ready together."""
        return self.refs[0] if isinstance(self.refs, list) else self.refs  # type: ignore[no-any-return]


class ActorPool:
    """Use it from one thread at a time.

    >>> pool = ActorPool([Worker.remote(), Worker.remote()])  # doctest: +SKIP
    >>> list(pool.map(lambda worker, v: worker.double.remote(v), [1, 2, 3]))  # doctest: +SKIP
    [2, 4, 6]
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle = list(actors)
        self._flying: dict[int, _InFlight] = {}  #: by number of submission, from 0
        self._pending: deque[tuple[Call[Any], Any]] = deque()
        self._next_submit = 0
        self._next_return = 0

    # -- whole lists

    def map(self, fn: Call[V], values: Iterable[V]) -> Iterator[Any]:
        """Results of `fn(actor, value)` in the order of `values`. What was submitted before is dropped."""
        self._drop_earlier()
        for value in values:
            self.submit(fn, value)
        return self._take(self.get_next)

    def map_unordered(self, fn: Call[V], values: Iterable[V]) -> Iterator[Any]:
        """Results of `fn(actor, value)` as they become ready. What was submitted before is dropped."""
        self._drop_earlier()
        for value in values:
            self.submit(fn, value)
        return self._take(self.get_next_unordered)

    def _take(self, get: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield get()

    def _drop_earlier(self) -> None:
        """Nobody will take those results; their actors are given new work behind what they still run."""
        self._pending.clear()
        for number in list(self._flying):
            self._idle.append(self._flying.pop(number).actor)
        self._next_return = self._next_submit

    # -- one by one

    def submit(self, fn: Call[V], value: V) -> None:
        """Run `fn(actor, value)` with an idle actor now, or when one comes back."""
        if not self._idle:
            self._pending.append((fn, value))
            return
        actor = self._idle.pop()
        try:
            refs = fn(actor, value)
        except BaseException:
            self._idle.append(actor)  # nothing was started
            raise
        self._flying[self._next_submit] = _InFlight(refs, actor)
        self._next_submit += 1

    def has_next(self) -> bool:
        """Whether any result is still to be taken."""
        return bool(self._flying or self._pending)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission.

        Raises StopIteration when there is none, TimeoutError after `timeout` seconds (with `ignore_if_timedout` that result is
        given up and its actor is used again), and what the call raised. An actor whose call raised stays in the pool.
        """
        self._refuse_empty()
        if self._next_return not in self._flying:
            raise ValueError("It is not allowed to call get_next() after get_next_unordered().")
        return self._settle(self._next_return, self._waited([self._next_return], timeout), ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Any result that is ready. Raises as `get_next` does."""
        self._refuse_empty()
        ready = self._waited(list(self._flying), timeout)
        return self._settle(next(iter(self._flying)) if ready is None else ready, ready, ignore_if_timedout)

    def _refuse_empty(self) -> None:
        if self._flying:
            return
        if self._pending:
            raise ActorDiedError(
                f"every actor of the pool has died or was taken out, and {len(self._pending)} submitted values wait for one: "
                "push() an actor"
            )
        raise StopIteration("No more results to get")

    def _waited(self, numbers: list[int], timeout: float | None) -> int | None:
        """The number of a call that is ready, or None after the timeout."""
        calls = {self._flying[number].first: number for number in numbers}
        ready, _ = api.wait(list(calls), num_returns=1, timeout=timeout, fetch_local=False)
        return calls[ready[0]] if ready else None

    def _settle(self, number: int, ready: int | None, ignore: bool) -> Any:
        if ready is None and not ignore:
            raise TimeoutError("Timed out waiting for result")
        call = self._flying.pop(number)
        # After get_next_unordered only what was submitted later has an order.
        self._next_return = max(self._next_return, number + 1)
        alive = True
        try:
            if ready is None:
                raise TimeoutError(f"Timed out waiting for result. The task {call.first} has been ignored.")
            return api.get(call.refs)
        except ActorDiedError:
            alive = False
            raise
        finally:
            if alive:
                self._idle.append(call.actor)
            self._submit_pending()

    def _submit_pending(self) -> None:
        if self._pending and self._idle:
            self.submit(*self._pending.popleft())

    # -- the actors

    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits for one."""
        return bool(self._idle) and not self._pending

    def pop_idle(self) -> ActorHandle | None:
        """Take an idle actor out of the pool; None when there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Add an actor. Raises ValueError when it is in the pool already."""
        if actor in self._idle or any(call.actor == actor for call in self._flying.values()):
            raise ValueError("Actor already belongs to current ActorPool")
        self._idle.append(actor)
        self._submit_pending()
