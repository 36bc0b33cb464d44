"""What runs on the two hosts of rows_transfer: a driver, or the two ends of bare CURVE streams. Prints {"rate":GB/s}."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

from nbray.config import CHUNK_BYTES
from nbray.wire.envelope import BULK_LANES

SIZE, TIMES = 256 * 2**20, 4


def driver() -> None:
    import nbray  # the bare ends are without it

    nbray.init("auto")

    @nbray.remote(resources={"far": 1})  # type: ignore[untyped-decorator]  # whichever module it is
    def make() -> Any:
        return np.ones(SIZE, dtype=np.uint8)

    rates = []
    for _ in range(TIMES):
        ref = make.remote()
        nbray.wait([ref], fetch_local=False)  # it is made; none of it is here
        start = time.perf_counter()
        array = nbray.get(ref)
        rates.append(SIZE / 2**30 / (time.perf_counter() - start))
        assert array[-1] == 1
        assert array.nbytes == SIZE
        del array, ref
    _say(max(rates[1:]))
    nbray.shutdown()


def receive(host: str, port: str) -> None:
    """Into memory that is already there, as an arena is; every chunk is copied out of its message once."""
    context: zmq.Context[Any] = zmq.Context(io_threads=len(BULK_LANES))
    public, secret = zmq.curve_keypair()
    socket = context.socket(zmq.PULL)
    socket.curve_server, socket.curve_secretkey, socket.curve_publickey = True, secret, public
    socket.bind(f"tcp://{host}:{port}")
    arena = np.ones(SIZE, dtype=np.uint8)
    print(public.decode(), flush=True)
    rates = []
    for _ in range(TIMES):
        # The clock starts with the first chunk, which is not counted: streams keep no order among each other, so a chunk of
        # one may come before anything that is said on the other.
        first = len(socket.recv(copy=False).buffer)
        start, at = time.perf_counter(), first
        while at < SIZE:
            chunk = socket.recv(copy=False).buffer
            arena[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)
        rates.append((SIZE - first) / 2**30 / (time.perf_counter() - start))
    _say(max(rates[1:]))


def send(host: str, port: str, key: str) -> None:
    context: zmq.Context[Any] = zmq.Context(io_threads=len(BULK_LANES))
    streams = []
    for _ in BULK_LANES:
        socket = context.socket(zmq.PUSH)
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = key.encode()
        socket.connect(f"tcp://{host}:{port}")
        streams.append(socket)
    data = np.ones(SIZE, dtype=np.uint8)
    time.sleep(1.0)  # both streams stand
    for _ in range(TIMES):
        # The arrays outlive the sending, so that chunks need no copy on this side.
        for index, at in enumerate(range(0, SIZE, CHUNK_BYTES)):
            streams[index % len(streams)].send(data[at : at + CHUNK_BYTES], copy=False)
        time.sleep(1.5)
    time.sleep(10)  # the other end ends first


def _say(rate: float) -> None:
    print(json.dumps({"rate": rate}, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    roles: dict[str, Callable[..., None]] = {"driver": driver, "receive": receive, "send": send}
    roles[sys.argv[1]](*sys.argv[2:])
