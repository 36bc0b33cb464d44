"""What this machine could do at most, with nothing of a runtime on top.

    calls     one process submits over ZeroMQ PUSH to workers that answer to its PULL: msgspec headers, pickled arguments,
              results taken by a thread of their own, a lock round each send. No references, leases, retries, trace
    memory    the ways of writing a large array into shared memory that others can map

A runtime's own cost is the distance to these. They are measured before and after the table, in a process of their own.
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import zmq

CALLS, ROUND_TRIPS = 10_000, 1000
ARRAY_BYTES = 200 * 2**20
TRIES = 3


class Task(msgspec.Struct, tag=True, array_like=True, gc=False):
    id: bytes
    function: bytes
    owner: str
    retries: int
    payload: bytes


class Done(msgspec.Struct, tag=True, array_like=True, gc=False):
    id: bytes
    ok: bool
    payload: bytes


class Pending:
    __slots__ = ("value", "waiter")

    def __init__(self) -> None:
        self.value: bytes | None = None
        self.waiter: Any = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Task | Done).decode


def measure() -> dict[str, float]:
    """Tasks per second, and GB (2**30 bytes) per second."""
    asynchronous, one_at_a_time = _calls(workers=os.cpu_count() or 2)
    return {
        "calls": asynchronous,
        "calls to one": _calls(workers=1)[0],
        "one at a time": one_at_a_time,
        **_memory(),
    }


# ---------------------------------------------------------------------------------------------------- calls


def _open(context: zmq.Context[Any], kind: int, path: str, *, bind: bool) -> Any:
    made = context.socket(kind)
    made.setsockopt(zmq.SNDHWM, 0)
    made.setsockopt(zmq.RCVHWM, 0)
    (made.bind if bind else made.connect)(f"ipc://{path}")
    return made


def _work(directory: str, index: int) -> None:
    context: zmq.Context[Any] = zmq.Context()
    inbox = _open(context, zmq.PULL, f"{directory}/{index}", bind=True)
    out = _open(context, zmq.PUSH, f"{directory}/driver", bind=False)
    functions = {b"f": lambda: b"ok"}
    while True:
        task = _decode(inbox.recv())
        arguments, keywords = pickle.loads(task.payload)  # noqa: S301 -- our own child, from our own parent
        result = functions[task.function](*arguments, **keywords)
        out.send(_encode(Done(task.id, True, pickle.dumps(result, 5))))


def _calls(workers: int) -> tuple[float, float]:
    """Completed per second: submitted as fast as possible, and one at a time."""
    with tempfile.TemporaryDirectory() as directory:
        children = []
        for index in range(workers):
            child = os.fork()  # before any context of ours exists
            if child == 0:
                _work(directory, index)
            children.append(child)
        try:
            return _drive(directory, workers)
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _drive(directory: str, workers: int) -> tuple[float, float]:
    context: zmq.Context[Any] = zmq.Context()
    inbox = _open(context, zmq.PULL, f"{directory}/driver", bind=True)
    outs = [_open(context, zmq.PUSH, f"{directory}/{index}", bind=False) for index in range(workers)]
    lock, table, ids = threading.Lock(), dict[bytes, Pending](), itertools.count()

    def receive() -> None:
        while True:
            done = _decode(inbox.recv())
            pending = table[done.id]
            pending.value = done.payload
            if pending.waiter is not None:
                pending.waiter.release()

    def submit(*arguments: object, **keywords: object) -> bytes:
        task = next(ids).to_bytes(16, "little")
        table[task] = Pending()
        frame = _encode(Task(task, b"f", "driver", 3, pickle.dumps((arguments, keywords), 5)))
        with lock:
            outs[task[0] % workers].send(frame)
        return task

    def get(task: bytes) -> Any:
        pending = table[task]
        if pending.value is None:
            gate = threading.Lock()
            gate.acquire()
            pending.waiter = gate
            if pending.value is None:
                gate.acquire()
        assert pending.value is not None
        return pickle.loads(pending.value)  # noqa: S301 -- as above

    # Never joined: it ends with this process, which is made for this measurement.
    threading.Thread(target=receive, daemon=True).start()
    for task in [submit() for _ in range(50 * workers)]:
        get(task)
    rates = []
    for _ in range(TRIES):
        start = time.perf_counter()
        for task in [submit() for _ in range(CALLS)]:
            get(task)
        rates.append(CALLS / (time.perf_counter() - start))
    start = time.perf_counter()
    for _ in range(ROUND_TRIPS):
        get(submit())
    return max(rates), ROUND_TRIPS / (time.perf_counter() - start)


# ---------------------------------------------------------------------------------------------------- memory


def _fastest(work: Callable[[], object]) -> float:
    work()
    took = []
    for _ in range(TRIES):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return ARRAY_BYTES / 2**30 / min(took)


def _memory() -> dict[str, float]:
    source = np.random.default_rng(0).integers(0, 255, ARRAY_BYTES, dtype=np.uint8)
    #: Never written: every page is the kernel's one page of zeros, and reading it costs next to nothing.
    zeros = np.zeros(ARRAY_BYTES, dtype=np.uint8)
    private = np.ones_like(source)
    file = os.memfd_create("bound")
    os.ftruncate(file, ARRAY_BYTES)
    kept = np.frombuffer(mmap.mmap(file, ARRAY_BYTES), np.uint8)
    half = ARRAY_BYTES // 2

    def fresh() -> None:
        new = os.memfd_create("bound")
        os.ftruncate(new, ARRAY_BYTES)
        np.copyto(np.frombuffer(mmap.mmap(new, ARRAY_BYTES), np.uint8), source)
        os.close(new)

    def by_two(of: np.ndarray[Any, Any]) -> None:
        other = threading.Thread(target=np.copyto, args=(kept[:half], of[:half]))
        other.start()
        np.copyto(kept[half:], of[half:])
        other.join()

    found = {
        "memcpy": _fastest(lambda: np.copyto(private, source)),
        "copy into new shared memory": _fastest(fresh),
        "copy into a kept mapping": _fastest(lambda: np.copyto(kept, source)),
        "copy into a kept mapping, two threads": _fastest(lambda: by_two(source)),
        "copy from zero pages": _fastest(lambda: by_two(zeros)),
    }
    os.close(file)
    return found


# ---------------------------------------------------------------------------------------------------- steps


def steps() -> dict[str, float]:
    """Microseconds of CPU for what a task cannot do without, each by itself and warm: prices to lay beside steps."""
    message = Task(b"i" * 16, b"f" * 16, "driver", 3, pickle.dumps(((), {}), 5))
    frame = _encode(message)
    kilobyte, buffer = bytes(1024), bytearray(1024)

    def copy() -> None:
        buffer[:] = kilobyte

    with tempfile.TemporaryDirectory() as directory, zmq.Context() as context:
        inbox = _open(context, zmq.PULL, f"{directory}/inbox", bind=True)
        out = _open(context, zmq.PUSH, f"{directory}/inbox", bind=False)
        found = {
            "encode and send a frame": _cpu_us(lambda: out.send(_encode(message)), CALLS),
            "take and decode a frame": _cpu_us(lambda: _decode(inbox.recv()), CALLS),
            "pickle a small value": _cpu_us(lambda: pickle.dumps(b"ok", 5), CALLS),
            "load a small value": _cpu_us(lambda: pickle.loads(message.payload), CALLS),  # noqa: S301 -- our own
            "encode a message": _cpu_us(lambda: _encode(message), CALLS),
            "decode a message": _cpu_us(lambda: _decode(frame), CALLS),
            "copy 1 KiB": _cpu_us(copy, CALLS),
            "wake another thread": _hand_off_us(ROUND_TRIPS),
        }
        inbox.close(0)
        out.close(0)
    return found


def _cpu_us(call: Callable[[], object], times: int) -> float:
    """CPU of this thread for each call."""
    began = time.thread_time_ns()
    for _ in range(times):
        call()
    return (time.thread_time_ns() - began) / times / 1000


def _hand_off_us(times: int) -> float:
    """CPU of both threads for passing the interpreter once from one to the other, by a lock."""
    mine, theirs = threading.Lock(), threading.Lock()
    mine.acquire()
    theirs.acquire()

    def other() -> None:
        for _ in range(times):
            theirs.acquire()
            mine.release()

    thread = threading.Thread(target=other)
    thread.start()
    began = time.process_time_ns()
    for _ in range(times):
        theirs.release()
        mine.acquire()
    took = time.process_time_ns() - began
    thread.join()
    return took / times / 2 / 1000


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(measure()).decode())
    sys.stdout.flush()
    os._exit(0)  # the receiving threads hold their contexts open
