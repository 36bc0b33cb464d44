"""The actors of a Pool and the batches that wait for them: whoever is free takes the next.

    batch: waiting -> in flight at one actor -> delivered
    actor: serving -> retired (it has had its number of batches) -> ended, and replaced; or dead, and replaced

One thread takes results and hands out what waits. An actor has one batch at a time: what was sent ahead would wait behind a
long call while others are idle, and would die with an actor that another's call kills.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle

from nbray import api, connection, session
from nbray.actors import ActorClass, ActorHandle
from nbray.exceptions import ActorHandleNotFoundError, RayActorError, RayError
from nbray.refs import ObjectRef
from nbray.util.multiprocessing.results import Deliver, Outcome


class Batch:
    """Calls of one function that travel together. `func` may be a reference to it."""

    __slots__ = ("calls", "deliver", "func")

    def __init__(self, func: Any, calls: list[Any], deliver: Deliver) -> None:
        self.func, self.calls, self.deliver = func, calls, deliver


class _Member:
    """One actor."""

    __slots__ = ("actor", "busy", "given")

    def __init__(self, actor: ActorHandle) -> None:
        self.actor = actor
        self.given = 0  #: batches in all
        self.busy = False


class Crew:
    """`size` actors. `initializer(*initargs)` runs in each before its first batch."""

    def __init__(
        self,
        size: int,
        initializer: Callable[..., object] | None,
        initargs: Sequence[Any],
        batches_per_actor: int | None,
        options: Mapping[str, Any],
    ) -> None:
        """Raises what the initializer raised, as an ActorDiedError."""
        self.size = size
        self._engine = connection.engine()
        self._actor_class = _ACTOR.options(**options)
        self._initial = (initializer, tuple(initargs))
        self._most = batches_per_actor
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: deque[Batch] = deque()
        self._flying = 0
        self._ended = False
        self._endings: list[ObjectRef[Any]] = []  #: actors that were told to end
        self._back: queue.SimpleQueue[tuple[_Member, Batch, ObjectRef[Any]] | None] = queue.SimpleQueue()
        self._members = [self._new_member() for _ in range(size)]
        try:
            api.get([member.actor.__ray_ready__.remote() for member in self._members])
        except BaseException:
            self.kill("its start failed")
            raise
        self._thread = threading.Thread(target=self._run, name="nbray-pool", daemon=True)
        self._thread.start()

    def _new_member(self) -> _Member:
        return _Member(self._actor_class.remote(*self._initial))

    def add(self, batches: Sequence[Batch]) -> None:
        """Queue them. Raises ValueError when the crew has ended."""
        with self._lock:
            if self._ended:
                raise ValueError("Pool not running")
            self._waiting.extend(batches)
            refused = self._hand_out()
        for batch, error in refused:
            batch.deliver(_all_failed(batch, error))

    # -- handing out, under the lock

    def _hand_out(self) -> list[tuple[Batch, Exception]]:
        """Give what waits to whoever is free; returns what could not even be sent, and why."""
        refused = []
        while self._waiting and not self._ended:
            member = next((m for m in self._members if not m.busy), None)
            if member is None:
                break
            batch = self._waiting.popleft()
            try:
                ref = member.actor.run.remote(batch.func, batch.calls)
            except Exception as error:  # noqa: BLE001 -- an argument that does not pickle is its caller's trouble
                refused.append((batch, error))
                continue
            member.given += 1
            member.busy = True
            self._flying += 1
            if member.given == self._most:
                self._members[self._members.index(member)] = self._new_member()
            self._engine.on_ready(ref, lambda m=member, b=batch, r=ref: self._back.put((m, b, r)))  # type: ignore[misc]
        if not self._waiting and not self._flying:
            self._idle.notify_all()
        return refused

    # -- the thread

    def _run(self) -> None:
        while True:
            item = self._back.get()
            if item is not None:
                self._came_back(*item)
            with self._lock:
                if self._ended and not self._flying:
                    return

    def _came_back(self, member: _Member, batch: Batch, ref: ObjectRef[Any]) -> None:
        outcomes, error = [], None
        try:
            outcomes = api.get(ref)
        except Exception as failure:  # noqa: BLE001 -- whatever it is, whoever waits for the batch is told
            error = failure
        # Delivered while it still counts as in flight: `wait_idle` is to mean that nothing is owed to anybody.
        again = (
            isinstance(error, RayActorError) and error.maybe_executed is False and not error.actor_init_failed and not self._ended
        )
        if not again:
            batch.deliver(outcomes if error is None else _all_failed(batch, error))
        with self._lock:
            member.busy = False
            self._flying -= 1
            if again:
                self._waiting.appendleft(batch)
            if isinstance(error, RayActorError) and member in self._members and self._is_live():
                self._members[self._members.index(member)] = self._new_member()
            elif member not in self._members and error is None:
                self._endings.append(member.actor.__ray_terminate__.remote())
            refused = self._hand_out()
        for each, why in refused:
            each.deliver(_all_failed(each, why))

    def _is_live(self) -> bool:
        """Whether to make new actors: not once the session has ended, which would start another."""
        return not self._ended and session.engine is self._engine

    # -- the end

    def wait_idle(self) -> None:
        """Until everything that was added has been delivered."""
        with self._idle:
            while self._waiting or self._flying:
                self._idle.wait()

    def finish(self) -> None:
        """After `wait_idle`: end the actors in order, and wait for them."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            members, self._members = self._members, []
        self._back.put(None)
        with contextlib.suppress(ActorHandleNotFoundError):  # the session has ended, and they with it
            self._endings += [member.actor.__ray_terminate__.remote() for member in members]
            api.wait(self._endings, num_returns=len(self._endings))

    def kill(self, why: str = "the pool was terminated") -> None:
        """End the actors now. What waits fails; what runs is delivered as failed when the deaths are known."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            members, self._members = self._members, []
            dropped, self._waiting = list(self._waiting), deque()
        self._back.put(None)
        with contextlib.suppress(ActorHandleNotFoundError):
            for member in members:
                api.kill(member.actor)
        error = RayActorError(f"{why} before this had begun", maybe_executed=False)
        for batch in dropped:
            batch.deliver(_all_failed(batch, error))
        with self._idle:
            if not self._flying:
                self._idle.notify_all()


def _all_failed(batch: Batch, error: BaseException) -> list[Outcome]:
    return [Outcome(None, error) for _ in batch.calls]


class _Runner:
    """The actor: runs batches."""

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        if initializer is not None:
            initializer(*initargs)

    def run(self, func: Callable[..., Any], calls: list[Any]) -> list[Outcome]:
        return [self._call(func, args, kwargs) for args, kwargs in calls]

    @staticmethod
    def _call(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        try:
            return Outcome(func(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 -- the caller's code: its error is the caller's
            trace = traceback.format_exc()
            try:
                cloudpickle.loads(cloudpickle.dumps(error))
            except Exception as trouble:  # noqa: BLE001 -- whatever the exception's class does when it is pickled
                why = f"{type(trouble).__name__}: {trouble}"
                text = f"{type(error).__name__}: {error} (the exception itself isn't serializable: {why})"
                return Outcome(None, RayError(text), trace)
            return Outcome(None, error, trace)


_ACTOR = ActorClass(_Runner, {})
