"""Runs what generator tasks return: each item leaves as it is yielded, and the generator waits where its consumer is behind.

In the main thread, in an actor's pool thread, or on an async actor's loop. worker/flow.py decides who may go on.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from nbray.generators import DynamicObjectRefGenerator
from nbray.ids import TaskId, object_id
from nbray.owner import records as r
from nbray.wire import messages as m
from nbray.worker import state as w

if TYPE_CHECKING:
    from nbray.worker.executor import Current, Executor

#: How long a generator waits for its consumer before its CPU goes to others, who may be what the consumer waits for.
PATIENCE_S = 0.005
_OVER = object()


class Generators:
    """The generators that this worker runs."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._gates: dict[TaskId, Callable[[], None]] = {}

    def go_on(self, task: TaskId) -> None:
        """It may make its next item, or is to see that it was cancelled. From any thread."""
        gate = self._gates.pop(task, None)
        if gate is not None:
            gate()

    # ------------------------------------------------------------------------------------------ in a thread

    def drain(self, push: m.PushTask | m.PushCall, current: Current, result: Any) -> list[m.Value]:
        """Send what `result` yields. Returns the values of the task's end; raises what the generator raises."""
        items = _Items(self._executor, push)
        iterator = _iterator(push, result)
        is_call = self._executor.actor is not None
        try:
            while True:
                if items.bounded:
                    self._wait(push, items.count, current)
                if current.cancelled and is_call:
                    return self._executor.cancelled(push)  # nothing interrupts a call
                item = self._next(iterator, current)
                if item is _OVER:
                    return items.end()
                items.send(item)
        except BaseException as error:
            if items.take_error(current, error):
                return items.end()
            raise
        finally:
            _close(iterator)

    def collect(self, push: m.PushTask | m.PushCall, current: Current, result: Iterator[Any]) -> list[m.Value]:
        """The first items of a generator as the returns of a task that has a number of them. Where it raises or ends, the returns
        that are left have that error; an error before the first is the task's."""
        values: list[m.Value] = []
        try:
            while len(values) < push.returns:
                item = self._next(result, current)
                if item is _OVER:
                    raise ValueError(f"{push.name}: Task returned {len(values)} objects, but num_returns={push.returns}.")
                values.append(self._executor.stored_return(push, len(values), item))
        except Exception as error:
            if not values:
                raise
            failed, _ = self._executor.failed(push, current, error)
            values += failed * (push.returns - len(values))
        finally:
            _close(result)
        return values

    def _next(self, iterator: Iterator[Any], current: Current) -> Any:
        """The user's code, which in a task may be interrupted: also by what came while it was not running."""
        executor = self._executor
        if executor.actor is not None:
            return next(iterator, _OVER)
        try:
            executor.in_main = current
            if current.cancelled and not current.interrupted:  # while it was not running
                current.interrupted = True
                throw = getattr(iterator, "throw", None)
                if throw is None:
                    raise KeyboardInterrupt
                return throw(KeyboardInterrupt())
            return next(iterator, _OVER)
        except StopIteration:
            return _OVER  # it took the interrupt as its end
        finally:
            executor.in_main = None

    def _wait(self, push: m.PushTask | m.PushCall, made: int, current: Current) -> None:
        """Until the consumer has come near enough, or the task is cancelled. While that takes long, the CPU is lent."""
        gate = threading.Lock()
        gate.acquire()
        self._gates[push.task] = gate.release
        executor = self._executor
        executor.carry_out(executor.step(w.WouldGoOn(push.task, made)))
        if current.cancelled:
            self._gates.pop(push.task, None)
            return
        if gate.acquire(timeout=PATIENCE_S):
            return
        executor.runtime.on_block("WAIT")
        try:
            gate.acquire()
        finally:
            executor.runtime.on_unblock()

    # ------------------------------------------------------------------------------------------ on a loop

    async def drain_async(self, push: m.PushCall, current: Current, result: Any) -> list[m.Value]:
        """As `drain`, on the loop thread of an async actor. Other calls run between two items."""
        items = _Items(self._executor, push)
        generator = result if inspect.isasyncgen(result) else _stepwise(_iterator(push, result))
        try:
            if items.bounded:
                await self._wait_async(push, 0)
            async for item in generator:
                items.send(item)
                await asyncio.sleep(0)
                if items.bounded:
                    await self._wait_async(push, items.count)
            return items.end()
        except BaseException as error:
            if items.take_error(current, error):
                return items.end()
            raise
        finally:
            await generator.aclose()

    async def _wait_async(self, push: m.PushCall, made: int) -> None:
        executor, loop = self._executor, asyncio.get_running_loop()
        gate = asyncio.Event()
        self._gates[push.task] = lambda: _open_soon(loop, gate)
        executor.carry_out(executor.step(w.WouldGoOn(push.task, made)))
        await gate.wait()


class _Items:
    """Sends the items of one attempt."""

    def __init__(self, executor: Executor, push: m.PushTask | m.PushCall) -> None:
        assert push.stream is not None
        self._executor, self._push, self._terms = executor, push, push.stream
        self.count = 0
        self.bounded = executor.state.flow.counts(push.task)

    def send(self, item: Any) -> None:
        """One item, or as many as one yield is. Raises what pickling raises, with the path to the culprit."""
        if self._terms.per_yield == 1:
            self._send_one(item)
            return
        each, wanted = self._push.name, self._terms.per_yield
        if not isinstance(item, tuple | list):
            raise ValueError(
                f"Streaming generator tasks with _num_objects_per_yield={wanted} must yield a tuple or list of length {wanted}: "
                f"{each} yielded a {type(item).__name__}"
            )
        if len(item) != wanted:
            raise ValueError(f"Streaming generator task {each} yielded {len(item)} objects, but _num_objects_per_yield={wanted}.")
        for one in item:
            self._send_one(one)

    def _send_one(self, item: Any) -> None:
        index = self.count
        self.count += 1
        if index < self._terms.have:
            return
        push = self._push
        self._post(index, self._executor.stored_return(push, 1 + index, item))

    def _post(self, index: int, value: m.Value) -> None:
        self._executor.send_output()  # what was printed before an item is seen before it
        push = self._push
        self._executor.runtime.post(push.owner, m.ItemYielded(push.task, push.attempt, index, value, self.bounded))

    def take_error(self, current: Current, error: BaseException) -> bool:
        """Whether what the generator raised is the last item of a collection, and not what ends the task."""
        if not self._terms.dynamic or current.cancelled or not isinstance(error, Exception):
            return False
        values, _ = self._executor.failed(self._push, current, error)
        index, self.count = self.count, self.count + 1
        self._post(index, values[0])
        return True

    def end(self) -> list[m.Value]:
        """What the task itself returns: None, or the collection of its items."""
        if not self._terms.dynamic:
            return [r.NOTHING]
        push, engine = self._push, self._executor.engine
        refs = [engine.receive(object_id(push.task, 1 + index), push.owner) for index in range(self.count)]
        return self._executor.stored(push, DynamicObjectRefGenerator(refs))


def _close(iterator: Any) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


def _iterator(push: m.PushTask | m.PushCall, result: Any) -> Iterator[Any]:
    if not isinstance(result, Iterator):
        raise ValueError(
            f"{push.name} was called with num_returns='streaming' and must return a generator, not a {type(result).__name__}"
        )
    return result


async def _stepwise(iterator: Iterator[Any]) -> AsyncGenerator[Any, None]:
    """A plain generator on a loop."""
    for item in iterator:
        yield item


def _open_soon(loop: asyncio.AbstractEventLoop, gate: asyncio.Event) -> None:
    loop.call_soon_threadsafe(gate.set)
