"""ObjectRef: a future that many processes may hold. What the user sees of an object in the cluster."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nbray import session, shown
from nbray.identifiers import JobID, TaskID
from nbray.ids import Address, index_of, task_of

if TYPE_CHECKING:
    from nbray.engines.port import Engine

T = TypeVar("T")
NIL = b"\xff" * 20
NOBODY = Address(b"", b"")


class ObjectRef(Generic[T]):
    """A reference to one immutable object. Compare and hash by id; await it, or pass it to `get`.

    While any process holds a reference, the object lives; dropping the last one frees it.
    """

    __slots__ = ("__weakref__", "_engine", "_id", "_owner")

    def __init__(self, id_: bytes, owner: Address = NOBODY, engine: Engine | None = None) -> None:
        """Engines make references (the count is already theirs when they do); users receive them.

        `ObjectRef(other.binary())` equals the other, and no more: it keeps nothing alive, and `get` does not take it.
        """
        self._id = id_
        self._owner = owner
        self._engine = engine

    def __del__(self) -> None:
        # May run anywhere, also inside the engine's own lock: `forget` only appends to a deque.
        try:
            engine = self._engine
        except AttributeError:
            return  # a signal's handler raised before it was made: it counts for nothing
        if engine is not None:
            engine.forget(self._id)  # type: ignore[attr-defined]

    def binary(self) -> bytes:
        """The id, 20 bytes."""
        return self._id

    def hex(self) -> str:
        return self._id.hex()

    def is_nil(self) -> bool:
        return self._id == NIL

    @classmethod
    def nil(cls) -> ObjectRef[Any]:
        return cls(NIL)

    @classmethod
    def from_random(cls) -> ObjectRef[Any]:
        """A reference to nothing, which equals no other."""
        return cls(os.urandom(len(NIL)))

    @classmethod
    def size(cls) -> int:
        """The length of an id in bytes."""
        return len(NIL)

    def task_id(self) -> TaskID:
        """The id of the task (or put) that makes this object."""
        return TaskID(task_of(self._id))

    def job_id(self) -> JobID:
        """The id of the job that this process works for, and with it the object; nil without a cluster."""
        return JobID.nil() if self._engine is None else JobID(self._engine.facts().job)

    def owner_address(self) -> Address:
        return self._owner

    def call_site(self) -> str:
        """Where it was made, if in this process: "script.py:40", or "In[12] line 3"; else ""."""
        return str(self._bound().facts_of(self).get("call_site", ""))

    def future(self) -> concurrent.futures.Future[T]:
        """A `concurrent.futures.Future` of the value. Cancelling it does not cancel the task."""
        engine = self._bound()
        result: concurrent.futures.Future[T] = concurrent.futures.Future()
        result.set_running_or_notify_cancel()

        def settle() -> None:
            try:
                value = engine.get([self], None)[0]
            except BaseException as error:  # noqa: BLE001 -- whatever it is, it is the future's
                result.set_exception(error)
            else:
                result.set_result(value)

        # A large value is fetched by `get`, which may wait for the I/O thread: so never settle on that thread.
        engine.on_ready(self, lambda: engine.call_soon(settle))  # type: ignore[attr-defined]
        return result

    def as_future(self) -> asyncio.Future[T]:
        return asyncio.wrap_future(self.future())

    def __await__(self) -> Generator[Any, None, T]:
        future = self.as_future()
        try:
            return (yield from future)
        except asyncio.CancelledError:
            self._bound().awaited_in_vain(self)
            raise

    def _on_completed(self, callback: Callable[[Any], None]) -> None:
        self.future().add_done_callback(lambda done: callback(done.exception() or done.result()))

    def _on_ready(self, callback: Callable[[BaseException | None], None]) -> Callable[[], None]:
        """Call `callback(None)` once the object exists, or its task has failed, without fetching it. Returns what calls it off."""
        engine = self._bound()
        wanted = [callback]

        def tell() -> None:
            if wanted:
                wanted.pop()(None)

        engine.on_ready(self, lambda: engine.call_soon(tell), False)  # type: ignore[attr-defined]
        return wanted.clear

    async def _ready(self) -> ObjectRef[T]:
        """This reference, once the object exists, or its task has failed; its value is not fetched."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        def tell(_error: BaseException | None) -> None:
            loop.call_soon_threadsafe(ready.set)

        call_off = self._on_ready(tell)
        try:
            await ready.wait()
        finally:
            call_off()
        return self

    def _bound(self) -> Engine:
        return self._engine if self._engine is not None else session.current()

    def __eq__(self, other: object) -> bool:
        return self._id == other._id if isinstance(other, ObjectRef) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> shown.Bundle:
        """What a notebook shows: its state and size, where it is, what made it; from what this process knows."""
        del include, exclude
        engine = self._engine if self._engine is not None else session.engine
        known = engine.looks.object(self) if engine is not None and engine is session.engine else None
        return shown.of_object(repr(self), known)

    def __reduce__(self) -> tuple[Any, ...]:
        owner = session.current().lend(self)  # type: ignore[attr-defined]  # the pickler's engine counts the copy that leaves
        return receive_ref, (self._id, _plain(owner))

    def index(self) -> int:
        """Which of its task's return values this is."""
        return index_of(self._id)


class _Arriving(threading.local):
    """What the calling thread unpickles has these references inside, made and counted already: all at once, not one by one."""

    refs: dict[bytes, ObjectRef[Any]] | None = None


arriving = _Arriving()


def receive_ref(id_: bytes, owner: tuple[bytes, bytes]) -> ObjectRef[Any]:
    """Unpickle a reference: this process becomes a borrower."""
    refs = arriving.refs
    if refs is not None and (ref := refs.get(id_)) is not None:
        return ref
    return session.current().receive(id_, _address(owner))  # type: ignore[attr-defined,no-any-return]


@functools.lru_cache(maxsize=1000)
def _plain(owner: Address) -> tuple[bytes, bytes]:
    """The same tuple for each reference of one owner: a pickle of many references has it once."""
    return owner.node, owner.process


@functools.lru_cache(maxsize=1000)
def _address(owner: tuple[bytes, bytes]) -> Address:
    return Address(*owner)
