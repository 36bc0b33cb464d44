"""Generators as whoever called them sees them: an iterator over references that come while the task still runs.

    for ref in f.remote():            # each `next` waits for the next item, or the end
        use(nbray.get(ref))

An error in the task is the last item: `get` of its reference raises it. Then the iteration ends, for ever.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, NoReturn, TypeVar

from nbray import session, shown
from nbray.engines.port import Engine
from nbray.exceptions import SentToBackground, StaleRefError
from nbray.ids import short
from nbray.refs import ObjectRef

T = TypeVar("T")
MOST_LOOKED_AT = 1000  #: items of a dynamic generator, when it is shown


class ObjectRefGenerator(Generic[T]):
    """The items of one running generator task, one after the other. Not to be passed on: pass its references.

    Dropping it lets the task run to its end; what it yields from then on is let go.
    """

    __slots__ = ("__weakref__", "_engine", "_generator_ref", "_name")

    def __init__(self, engine: Engine, end: ObjectRef[Any], name: str) -> None:
        """Remote functions and actor methods make generators. `end` is the return that says that the task is over."""
        self._engine, self._generator_ref, self._name = engine, end, name

    # -- as an iterator

    def __iter__(self) -> ObjectRefGenerator[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        """The reference to the next item, when it has come. An error of the task is an item too, the last one."""
        engine = self._live_engine()
        while (item := engine.take_item(self._generator_ref)) is None:
            coming = engine.peek_item(self._generator_ref)
            if coming is None:
                raise StopIteration
            try:
                engine.wait([coming], 1, None, fetch_local=False)
            except SentToBackground as sent:
                sent.waited_for = self
                raise
        return item

    def __aiter__(self) -> ObjectRefGenerator[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        engine = self._live_engine()
        while (item := engine.take_item(self._generator_ref)) is None:
            coming = engine.peek_item(self._generator_ref)
            if coming is None:
                raise StopAsyncIteration
            try:
                await _come(engine, coming)
            except asyncio.CancelledError:
                engine.awaited_in_vain(self)
                raise
        return item

    # -- without waiting

    def completed(self) -> ObjectRef[None]:
        """A reference that is ready when the task is over. `get` of it raises what ended the task, unless its own code did:
        that error is the last item."""
        return self._generator_ref

    def next_ready(self) -> bool:
        """Whether `next` would not wait, and give an item."""
        engine = self._live_engine()
        coming = engine.peek_item(self._generator_ref)
        if coming is None or not engine.wait([coming], 1, 0, fetch_local=False)[0]:
            return False
        return not self.is_finished()  # what was waited for may have been the end

    def is_finished(self) -> bool:
        """Whether the task is over and all its items are taken: `next` would raise StopIteration."""
        return self._live_engine().peek_item(self._generator_ref) is None

    def _waitable(self, engine: Engine) -> ObjectRef[Any]:
        """What `wait` waits for in this generator's stead: its next item, or its end."""
        return engine.peek_item(self._generator_ref) or self._generator_ref

    # -- what generators of this process can do, and these cannot

    def send(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.send` is not supported: a remote generator takes nothing back")

    def throw(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.throw` is not supported; nbray.cancel(gen) interrupts the task")

    def close(self) -> NoReturn:
        raise NotImplementedError("`gen.close` is not supported; nbray.cancel(gen) interrupts the task")

    async def asend(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.asend` is not supported: a remote generator takes nothing back")

    async def athrow(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.athrow` is not supported; nbray.cancel(gen) interrupts the task")

    async def aclose(self) -> NoReturn:
        raise NotImplementedError("`gen.aclose` is not supported; nbray.cancel(gen) interrupts the task")

    # -- the rest

    def _live_engine(self) -> Engine:
        if session.engine is not self._engine:
            raise StaleRefError(
                f"{self!r} belongs to a session that has ended (nbray.shutdown() was called since); call {self._name} again",
                object_ref_hex=self._generator_ref.hex(),
            )
        return self._engine

    def __del__(self) -> None:
        # `drop_stream` takes no lock: this may run anywhere.
        self._engine.drop_stream(self._generator_ref)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "You cannot return or pass a generator to another task: serializing an ObjectRefGenerator is not allowed, because only "
            "one process can take its items. Pass the references that it gives."
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> shown.Bundle:
        """What a notebook shows: how far it is; from what this process knows."""
        del include, exclude
        known = self._engine.looks.stream(self._generator_ref.binary()) if self._engine is session.engine else None
        return shown.of_stream(repr(self), known)

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._name}, task {short(self._generator_ref.task_id().binary())})"


class DynamicObjectRefGenerator(Generic[T]):
    """The references to all items of a generator called with num_returns="dynamic". Iterating takes them out."""

    def __init__(self, refs: Iterable[ObjectRef[T]]) -> None:
        self._refs = deque(refs)

    def __iter__(self) -> Iterator[ObjectRef[T]]:
        while self._refs:
            yield self._refs.popleft()

    def __len__(self) -> int:
        return len(self._refs)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> shown.Bundle:
        """What a notebook shows: how many of its items are here, and their size; from what this process knows."""
        del include, exclude
        engine, looked_at = session.engine, list(self._refs)[:MOST_LOOKED_AT]
        known = [engine.looks.object(ref) for ref in looked_at if ref._engine is engine] if engine is not None else []
        counts = Counter(each["state"].lower() for each in known)
        size = sum(each["size"] or 0 for each in known)
        more = f"the first {len(looked_at):,} looked at" if len(self._refs) > len(looked_at) else ""
        told = ", ".join(f"{count:,} {state}" for state, count in counts.items())
        return shown.bundle(repr(self), None, (told, shown.bytes_text(size) if size else "", more))

    def __repr__(self) -> str:
        return f"DynamicObjectRefGenerator({len(self._refs)} references)"


async def _come(engine: Engine, ref: ObjectRef[Any]) -> None:
    """Wait on the running event loop until `ref` is ready, wherever its bytes are."""
    loop = asyncio.get_running_loop()
    here: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not here.done():
            here.set_result(None)

    def ready() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle)

    engine.on_ready(ref, ready, local=False)
    await here
