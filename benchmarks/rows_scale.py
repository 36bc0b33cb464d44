"""Very many tasks in one driver, and very many nodes at one head."""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from typing import Any

import psutil

from nbray.head.state import HeadState
from nbray.ids import HEAD as HEAD_PROCESS
from nbray.ids import Address
from nbray.machine import Send
from nbray.microbenchmark.row import Block, Row
from nbray.wire import messages as m
from nbray.wire.codec import encode

MILLION, SMALLER = 1_000_000, 100_000
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
        Row("a card on a cell of 100,000 tasks: its share of the run", "%", None, note="not built: there are no cards yet"),
    ),
    peers=(),
)


# ---------------------------------------------------------------------------------------------------- the head


def _info(node: bytes, used: int) -> m.NodeInfo:
    total = {"CPU": 16 * UNIT}
    return m.NodeInfo(node, "host", 1, total, {"CPU": used * UNIT}, gateway="192.0.2.1:6380")


def _heartbeats(nodes: int, seconds: float, each_send: bool) -> float:
    """Microseconds of CPU for each heartbeat, whatever they cause included: views for everybody, and encoding what is sent, once
    or (`each_send`, computed from encoding it once) for each receiver anew, as the outbox of a head does.

    Every node reports a change in every heartbeat, the most that a cluster does to its head by merely living.
    """
    names = [i.to_bytes(8, "big") for i in range(1, nodes + 1)]
    head = HeadState(Address(names[0], HEAD_PROCESS), "session")
    now, events = 1.0, 0
    for name in names:
        head.handle(m.RegisterNode(_info(name, 16)), now)
    began, repeated_s = time.process_time(), 0.0
    round_ = 0
    while time.process_time() - began < seconds or round_ < 2:
        round_ += 1
        for name in names:
            now += 1 / nodes
            repeated_s += _encoded(head.handle(m.Heartbeat(_info(name, round_ % 16)), now))
        events += nodes
    own_s = time.process_time() - began
    return (own_s + (repeated_s if each_send else 0.0)) / events * 1e6


def _encoded(effects: list[Any]) -> float:
    """Encode what is sent, a message to many receivers once. Returns the seconds that encoding it for each of the others takes."""
    repeated_s = 0.0
    messages: dict[int, Any] = {}
    times: Counter[int] = Counter()
    for effect in effects:
        if isinstance(effect, Send):
            messages[id(effect.message)] = effect.message
            times[id(effect.message)] += 1
    for key, message in messages.items():
        began = time.process_time()
        encode(message)
        if times[key] > 1:
            repeated_s += (times[key] - 1) * (time.process_time() - began)
    return repeated_s


def heartbeat_us(nodes: int, *, each_send: bool = False) -> Any:
    return lambda peer, seconds: _heartbeats(nodes, seconds, each_send)


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
        Row(
            "with every view encoded anew for every node, 200 nodes", "us", heartbeat_us(200, each_send=True),
            more_is_better=False, standalone=True, most_pairs=3,
        ),
        Row(
            "with every view encoded anew for every node, 2,000 nodes", "us", heartbeat_us(2000, each_send=True),
            more_is_better=False, standalone=True, most_pairs=3,
        ),
        Row("actors placed and let go, 2,000 nodes", "/s", actors_per_s, standalone=True, most_pairs=3),
    ),
    peers=(),
)  # fmt: skip
