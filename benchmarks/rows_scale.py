"""Very many tasks in one driver, and very many nodes at one head."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from typing import Any

import psutil

from nbray.head.state import HeadState
from nbray.ids import HEAD as HEAD_PROCESS
from nbray.ids import Address
from nbray.machine import Send
from nbray.microbenchmark.row import Block, Row
from nbray.wire import messages as m
from nbray.wire.codec import encode

#: NBRAY_BENCH_MILLION makes it smaller, to see that it works.
MILLION = int(os.environ.get("NBRAY_BENCH_MILLION", "1000000"))
SMALLER = MILLION // 10
UNIT = 10_000  #: of an amount: one CPU


@functools.cache
def _queued(api: Any, n: int) -> dict[str, float]:
    """Submit `n` no-ops while two workers do them, keeping every reference; then wait for all of them."""

    @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
    def noop() -> None:
        return None

    api.get([noop.remote() for _ in range(1000)])
    process = psutil.Process()
    before = process.memory_info().rss
    start = time.perf_counter()
    refs = [noop.remote() for _ in range(n)]
    submitted_s = time.perf_counter() - start
    bytes_each = (process.memory_info().rss - before) / n
    ready, rest = api.wait(refs, num_returns=n, fetch_local=False)
    done_s = time.perf_counter() - start
    if len(ready) != n or rest:
        raise RuntimeError(f"{len(rest)} of {n} tasks were not done")
    return {"submitted": n / submitted_s, "KiB": bytes_each / 1024, "done": n / done_s, "s": done_s}


def submitted(peer: Any, seconds: float) -> float:
    return _queued(peer.api, MILLION)["submitted"]


def memory_each(peer: Any, seconds: float) -> float:
    return _queued(peer.api, MILLION)["KiB"]


def completed(peer: Any, seconds: float) -> float:
    return _queued(peer.api, MILLION)["done"]


def linear(peer: Any, seconds: float) -> float:
    """Time for a million over ten times the time for a tenth of it. The tenth comes first: it finds a smaller heap."""
    smaller_s = _queued(peer.api, SMALLER)["s"]
    return _queued(peer.api, MILLION)["s"] / (smaller_s * MILLION / SMALLER)


@functools.cache
def _given_up(api: Any, n: int) -> dict[str, float]:
    """Queue `n` tasks behind two that wait, stop waiting for them as a person does (Ctrl-C), and cancel them all."""

    @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
    def hold() -> None:
        time.sleep(3600)

    @api.remote  # type: ignore[untyped-decorator]
    def noop() -> None:
        return None

    held = [hold.remote() for _ in range(os.cpu_count() or 2)]
    refs = [noop.remote() for _ in range(n)]
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(1.0, interrupt)
    timer.start()
    try:
        api.get(refs)
        raise RuntimeError(f"{n} tasks behind others that wait were done")
    except KeyboardInterrupt:
        interrupted_s = time.perf_counter() - sent[0]
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    start = time.perf_counter()
    for ref in refs:
        api.cancel(ref)
    ready, _ = api.wait(refs, num_returns=n, fetch_local=False, timeout=120)
    cancelled_s = time.perf_counter() - start
    for ref in held:
        api.cancel(ref, force=True)
    if len(ready) != n:
        raise RuntimeError(f"{n - len(ready)} of {n} tasks were not cancelled within 120 s")
    return {"interrupted_ms": interrupted_s * 1000, "cancelled_s": cancelled_s}


def interrupted(peer: Any, seconds: float) -> float:
    return _given_up(peer.api, MILLION)["interrupted_ms"]


def cancelled(peer: Any, seconds: float) -> float:
    return _given_up(peer.api, MILLION)["cancelled_s"]


QUEUED = Block(
    "queued",
    "A million queued no-op tasks",
    (
        Row(
            "time for 1,000,000 over 10 x the time for 100,000",
            "x",
            linear,
            more_is_better=False,
            limit=1.2,
            timeout_s=200,
            most_pairs=1,
        ),
        Row("1,000,000 tasks: submitted", "/s", submitted, limit=50_000, timeout_s=200, most_pairs=1),
        Row("1,000,000 tasks: all done", "/s", completed, bound="calls", timeout_s=200, most_pairs=1),
        Row("1,000,000 tasks: memory of the driver for each", "KiB", memory_each, more_is_better=False, limit=1.5, most_pairs=1),
        Row(
            "a `get` of 1,000,000 that wait, interrupted after",
            "ms",
            interrupted,
            more_is_better=False,
            limit=200,
            timeout_s=300,
            most_pairs=1,
        ),
        Row("1,000,000 queued tasks cancelled", "s", cancelled, more_is_better=False, limit=5, timeout_s=300, most_pairs=1),
    ),
    peers=(),
)


# ---------------------------------------------------------------------------------------------------- the head


def _info(node: bytes, used: int) -> m.NodeInfo:
    total = {"CPU": 16 * UNIT}
    return m.NodeInfo(node, "host", 1, total, {"CPU": used * UNIT}, gateway="192.0.2.1:6380")


def _heartbeats(nodes: int, seconds: float) -> float:
    """Microseconds of CPU for each heartbeat, whatever they cause included: views for everybody, and encoding what is sent.

    Every node reports a change in every heartbeat, the most that a cluster does to its head by merely living.
    """
    names = [i.to_bytes(8, "big") for i in range(1, nodes + 1)]
    head = HeadState(Address(names[0], HEAD_PROCESS), "session")
    now, events = 1.0, 0
    for name in names:
        head.handle(m.RegisterNode(_info(name, 16)), now)
    began = time.process_time()
    round_ = 0
    while time.process_time() - began < seconds or round_ < 2:
        round_ += 1
        for name in names:
            now += 1 / nodes
            _encoded(head.handle(m.Heartbeat(_info(name, round_ % 16)), now))
        events += nodes
    return (time.process_time() - began) / events * 1e6


def _encoded(effects: list[Any]) -> None:
    """Encode what is sent, a message to many receivers once, as a head's daemon does."""
    for message in {id(effect.message): effect.message for effect in effects if isinstance(effect, Send)}.values():
        encode(message)


def heartbeat_us(nodes: int) -> Any:
    return lambda peer, seconds: _heartbeats(nodes, seconds)


def actors_per_s(peer: Any, seconds: float) -> float:
    """Actors registered, placed, started and let go, at a head of 2,000 nodes: lives per second of CPU."""
    names = [i.to_bytes(8, "big") for i in range(1, 2001)]
    owner = Address(names[1], b"owner---")
    head = HeadState(Address(names[0], HEAD_PROCESS), "session")
    for name in names:
        head.handle(m.RegisterNode(_info(name, 16)), 1.0)
    head.handle(m.Heartbeat(_info(names[0], 16)), 3.0)
    lives, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        lives += 1
        actor = os.urandom(16)
        spec = m.ActorSpec(
            actor, owner, owner, "A", b"c" * 16, b"", 0, b"", 0, [], [], m.Shape({"CPU": UNIT}), {}, 0, 0, 1, False, {},
            "", "space", False, "", "", b"",
        )  # fmt: skip
        now = 3.0 + lives * 1e-4
        _encoded(head.handle(m.RegisterActor(spec, 0), now))
        _encoded(head.handle(m.ReleaseActor(actor), now))
    return lives / (time.process_time() - began)


HEAD = Block(
    "head",
    "The head, in simulation",
    (
        Row("CPU for each heartbeat, 200 nodes", "us", heartbeat_us(200), more_is_better=False, standalone=True, most_pairs=3),
        Row("the same, 2,000 nodes", "us", heartbeat_us(2000), more_is_better=False, standalone=True, most_pairs=3),
        Row("the same, 10,000 nodes", "us", heartbeat_us(10_000), more_is_better=False, standalone=True, most_pairs=3),
        Row("actors placed and let go, 2,000 nodes", "/s", actors_per_s, standalone=True, most_pairs=3),
    ),
    peers=(),
)  # fmt: skip
