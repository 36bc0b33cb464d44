"""`python -m benchmarks.scaling`: what a head and its nodes cost at 100, 2,000 and 10,000 nodes, on paper; writes docs/scaling.md.

Everything is CPU time of one thread, or bytes. The collector is off: the nodes' machines share this process, and what it would have
to look through is not what a head has.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import document
from benchmarks.gateway_cost import per_message_us
from benchmarks.paper_cluster import CPUS, PaperCluster, PaperNode
from nbray.config import HEARTBEAT_S
from nbray.head import members
from nbray.head.state import HeadState
from nbray.ids import HEAD, Address
from nbray.machine import Effect, Send
from nbray.sched.resources import UNIT
from nbray.sched.roster import Roster
from nbray.trace import TraceRecord
from nbray.wire import messages as m
from nbray.wire.codec import decode, encode

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
TOLD_PER_S = members.TOLD_PER_S
#: What CURVE encrypts on one core of this class of machine.
ENCRYPTED_PER_S = 1e9
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SIZES = (100, 2000, 10_000)
ACTORS, GROUPS, WAITING = 2000, 200, 300
ACTORS_KEPT = 20_000
TRACED = 1000

#: What happens at the head, in the order of the table.
EVENTS = {
    "joins": "a node joins",
    "beat": "a heartbeat, nothing new",
    "news": "a heartbeat with news",
    "tick": "a look at every lease, once a second",
    "view": "a view of the changes, made once for all",
    "whole": "a view of everything, made once for those who join together",
    "placed": "an actor registered and placed",
    "started": "an actor has started",
    "released": "an actor let go",
    "lost": "its process has ended",
    "waits": "an actor that has to wait",
    "beat while actors wait": "a heartbeat with news while actors wait for room",
    "group": "a placement group of 4 bundles placed",
    "reserved": "a node has set its part aside",
    "removed": "a placement group removed",
    "group waits": "a placement group that has to wait",
    "beat while a group waits": "a heartbeat with news while a group waits",
    "trace": f"a batch of {TRACED:,} trace records",
    "job": "a driver joins",
    "job ends": "a driver ends, told to all nodes",
    "dies": "a node dies, told to all nodes",
}
PLAIN = {
    m.RegisterNode: "joins",
    m.RegisterActor: "placed",
    m.ActorStarted: "started",
    m.ReleaseActor: "released",
    m.ActorLost: "lost",
    m.CreateGroup: "group",
    m.BundlesReserved: "reserved",
    m.RemoveGroup: "removed",
    m.TraceBatch: "trace",
    m.JobStarted: "job",
    m.JobEnded: "job ends",
    m.NodeDied: "dies",
}


class Size(msgspec.Struct):
    """What was found at one size."""

    nodes: int
    us: dict[str, float] = {}  #: median CPU of each kind of event
    entry_bytes: float = 0.0  #: of one node in a whole view
    news_bytes: float = 0.0  #: of one node in a view of changes
    whole_bytes: int = 0
    head_node_bytes: float = 0.0
    head_actor_bytes: float = 0.0
    picture_bytes: float = 0.0  #: what a node keeps of each other node
    redirect_us: float = 0.0
    redirect_full_us: float = 0.0


def _kind(names: dict[str, str]) -> Callable[[Any, list[Effect]], str | None]:
    """`names` says what this phase calls a heartbeat, an actor and so on, where that is not the usual."""

    def kind(event: Any, effects: list[Effect]) -> str | None:
        views = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, m.ClusterView)]
        if views:
            return "whole" if any(not view.since for view in views) else "view"
        if isinstance(event, m.Heartbeat):
            return names.get("beat")
        usual = PLAIN.get(type(event)) or ("tick" if type(event).__name__ == "Tick" else None)
        return names.get(usual, usual) if usual is not None else None

    return kind


def measure(nodes: int, say: Callable[[str], None]) -> Size:
    found = Size(nodes)
    gc.collect()
    gc.disable()
    try:
        cluster = PaperCluster(nodes)
        cluster.meter.renamed = _kind({})
        members.TOLD_PER_S = float("inf")  # so that there are views to measure
        cluster.begin(over_s=2.0)
        say(f"{nodes:,} nodes have joined")
        for phase in (_rest, _actors, _groups, _crowd, _ends):
            phase(cluster)
            say(f"    {phase.__name__.strip('_')}")
        found.us = {kind: us for kind in EVENTS if (us := cluster.meter.median(kind)) is not None}
        _views(cluster, found)
        _redirects(cluster, found)
    finally:
        gc.enable()
    del cluster
    gc.collect()
    _memory(nodes, found)
    return found


# ---------------------------------------------------------------------------------------------------- phases


def _rest(cluster: PaperCluster) -> None:
    cluster.pass_time(3.0)
    cluster.meter.renamed = _kind({"beat": "beat"})
    cluster.pass_time(2.0)
    cluster.meter.renamed = _kind({"beat": "news"})
    cluster.stir(share=1.0, seconds=2)
    cluster.meter.renamed = _kind({})
    cluster.pass_time(1.0)
    members.TOLD_PER_S = TOLD_PER_S


def _owner(cluster: PaperCluster) -> Address:
    node = list(cluster.nodes)[1]
    return Address(node, b"driver--")


def _spec(owner: Address, number: int, units: int) -> m.ActorSpec:
    actor = number.to_bytes(16, "big")
    amounts = {"CPU": units}
    return m.ActorSpec(
        actor, owner, owner, "Actor", b"c" * 16, b"", 0, b"", 0, [], [], m.Shape(amounts), amounts, 0, 0, 1,
    )  # fmt: skip


def _actors(cluster: PaperCluster) -> None:
    owner = _owner(cluster)
    cluster.to_head(m.JobStarted(owner, "job", "", 1))
    cluster.pass_time(0.1)
    # A cluster that is a third full already: nobody's first node is the first of all.
    units = UNIT * CPUS * len(cluster.nodes) // 3 // ACTORS
    for number in range(ACTORS):
        cluster.to_head(m.RegisterActor(_spec(owner, number, min(units, CPUS * UNIT)), number))
        if number % 20 == 0:
            cluster.pass_time(0.01)
    cluster.pass_time(2.0)
    for number in range(0, ACTORS, 2):
        cluster.to_head(m.ReleaseActor(number.to_bytes(16, "big")))
        if number % 20 == 0:
            cluster.pass_time(0.01)
    cluster.pass_time(2.0)
    for _ in range(20):
        cluster.to_head(m.TraceBatch(owner.process, owner.node, _trace()))
    cluster.pass_time(1.0)


def _trace() -> bytes:
    record = TraceRecord("task", b"t" * 16, "function", "DONE", "In[1]", b"p" * 16, b"n" * 8, b"w" * 8, 0, 1, 2, 3, 4, 5, 6)
    return msgspec.msgpack.encode([record] * TRACED)


def _groups(cluster: PaperCluster) -> None:
    owner = _owner(cluster)
    for number in range(GROUPS):
        strategy = ("PACK", "SPREAD", "STRICT_SPREAD", "STRICT_PACK")[number % 4]
        spec = m.GroupSpec(b"group" + number.to_bytes(11, "big"), [{"CPU": UNIT // 10}] * 4, strategy, owner, owner)
        cluster.to_head(m.CreateGroup(spec, number))
        if number % 10 == 0:
            cluster.pass_time(0.02)
    cluster.pass_time(2.0)
    for number in range(GROUPS):
        cluster.to_head(m.RemoveGroup(b"group" + number.to_bytes(11, "big")))
        if number % 10 == 0:
            cluster.pass_time(0.02)
    cluster.pass_time(2.0)


def _crowd(cluster: PaperCluster) -> None:
    """More than there is room for: what waits must cost nothing at every heartbeat."""
    owner, first = _owner(cluster), 10**6
    cluster.meter.renamed = _kind({"placed": "waits"})
    for number in range(WAITING):
        spec = _spec(owner, first + number, CPUS * UNIT)
        cluster.to_head(m.RegisterActor(msgspec.structs.replace(spec, placement=m.Shape({"CPU": UNIT, "GPU": UNIT})), number))
    cluster.pass_time(0.5)
    cluster.meter.renamed = _kind({"beat": "beat while actors wait"})
    cluster.stir(share=1.0, seconds=1)
    for number in range(WAITING):
        cluster.to_head(m.ReleaseActor((first + number).to_bytes(16, "big")))
    cluster.pass_time(0.5)
    cluster.meter.renamed = _kind({"group": "group waits"})
    for number in range(3):
        spec = m.GroupSpec(b"crowd" + number.to_bytes(11, "big"), [{"GPU": UNIT}] * 4, "PACK", owner, owner)
        cluster.to_head(m.CreateGroup(spec, number))
    cluster.pass_time(0.5)
    cluster.meter.renamed = _kind({"beat": "beat while a group waits"})
    cluster.stir(share=1.0, seconds=1)
    cluster.meter.renamed = _kind({"removed": ""})
    for number in range(3):
        cluster.to_head(m.RemoveGroup(b"crowd" + number.to_bytes(11, "big")))
    cluster.pass_time(0.5)


def _ends(cluster: PaperCluster) -> None:
    cluster.meter.renamed = _kind({})
    for number in range(10):
        guest = Address(list(cluster.nodes)[2], b"guest" + number.to_bytes(3, "big"))
        cluster.to_head(m.JobStarted(guest, "job", "", 1))
        cluster.to_head(m.JobEnded(guest))
    cluster.pass_time(0.5)
    for node in list(cluster.nodes)[-10:]:
        del cluster.nodes[node]
        cluster.to_head(m.NodeDied(node, "drained"))
    cluster.pass_time(0.5)


def _views(cluster: PaperCluster, found: Size) -> None:
    views = cluster.head.members.views()
    found.whole_bytes = len(encode(m.ClusterView(views, 1)))
    found.entry_bytes = found.whole_bytes / len(views)
    news = [each for record in cluster.head.members.nodes.values() if isinstance(each := record.news(), m.NodeNews)]
    found.news_bytes = len(encode(m.ClusterView([], 2, 1, news))) / len(news)


def _redirects(cluster: PaperCluster, found: Size) -> None:
    """A node that has no room looks for another: with room in the cluster, and with none."""
    witness = cluster.nodes[list(cluster.nodes)[1]]
    shape = m.Shape({"CPU": UNIT})
    found.redirect_us = _cpu_us(lambda: _sent_on(witness, shape, 0.0), 500)
    roster = witness.state.ground.others
    for node in list(roster):
        roster[node] = msgspec.structs.replace(roster[node], available={})
    found.redirect_full_us = _cpu_us(lambda: _sent_on(witness, shape, 0.0), 500)


def _sent_on(node: PaperNode, shape: m.Shape, now: float) -> None:
    ground = node.state.ground
    here = msgspec.structs.replace(ground.info(), available={})
    to = ground.others.with_room(shape, here)
    if to is not None:
        ground.promise(to, shape, now)


def _cpu_us(call: Callable[[], object], times: int) -> float:
    began = time.thread_time_ns()
    for _ in range(times):
        call()
    return (time.thread_time_ns() - began) / times / 1000


def _memory(nodes: int, found: Size) -> None:
    """Of a head alone, and of one node's picture of the others."""
    infos = [decode(encode(m.Heartbeat(PaperNode(_Nobody(), number).state.ground.info()))).info for number in range(1, nodes + 1)]
    tracemalloc.start()
    head = HeadState(Address(infos[0].node, HEAD), "session")
    before = tracemalloc.get_traced_memory()[0]
    for info in infos:
        head.handle(m.RegisterNode(decode(encode(m.Heartbeat(info))).info), 1.0)
    head.handle(m.Heartbeat(infos[0]), 5.0)
    after = tracemalloc.get_traced_memory()[0]
    found.head_node_bytes = (after - before) / nodes
    owner = Address(infos[1].node, b"driver--")
    for number in range(ACTORS_KEPT):
        spec = decode(encode(m.RegisterActor(_spec(owner, number, 1), number)))
        for effect in head.handle(spec, 6.0):
            if isinstance(effect, Send) and isinstance(effect.message, m.PlaceActor):
                worker = Address(effect.to.node, number.to_bytes(8, "big"))
                head.handle(m.ActorStarted(effect.message.spec.actor, 0, worker, 1), 6.0)
    found.head_actor_bytes = (tracemalloc.get_traced_memory()[0] - after) / ACTORS_KEPT
    before = tracemalloc.get_traced_memory()[0]
    picture = Roster()
    for info in decode(encode(m.ClusterView(infos))).nodes:
        picture[info.node] = info
    found.picture_bytes = (tracemalloc.get_traced_memory()[0] - before) / nodes
    tracemalloc.stop()


class _Nobody(PaperCluster):
    """Enough of a cluster to make a node for its description."""

    def __init__(self) -> None:
        super().__init__(0)


# ---------------------------------------------------------------------------------------------------- the page


def page(sizes: Sequence[Size], gateway: dict[str, float]) -> str:
    heads = " | ".join(f"{size.nodes:,} nodes" for size in sizes)
    lines = [f"| at the head, CPU | {heads} |", "|---|" + "---|" * len(sizes)]
    lines += [f"| {said} | {' | '.join(_us(size.us.get(kind)) for size in sizes)} |" for kind, said in EVENTS.items()]
    lines += ["", f"| besides | {heads} |", "|---|" + "---|" * len(sizes)]
    rows: list[tuple[str, Callable[[Size], str]]] = [
        ("a node sends a request on, with room elsewhere", lambda s: _us(s.redirect_us)),
        ("the same, every node full", lambda s: _us(s.redirect_full_us)),
        ("one node in a whole view", lambda s: f"{s.entry_bytes:.0f} bytes"),
        ("one node in a view of the changes", lambda s: f"{s.news_bytes:.0f} bytes"),
        ("a whole view", lambda s: _size(s.whole_bytes)),
        ("memory of the head for a node", lambda s: _size(s.head_node_bytes)),
        ("memory of the head for an actor", lambda s: _size(s.head_actor_bytes)),
        ("memory of a node for its picture of the cluster", lambda s: _size(s.picture_bytes * s.nodes)),
    ]
    lines += [f"| {said} | {' | '.join(told(size) for size in sizes)} |" for said, told in rows]
    lines += [
        "",
        f"A small message to another node costs the gateway of the sender {_us(gateway['sent'])} of CPU, and one from another node",
        f"{_us(gateway['taken'])}: CURVE, links and acknowledgements included, with one peer.",
        "",
        *_capacity(sizes, gateway),
    ]
    return "\n".join(lines)


def _capacity(sizes: Sequence[Size], gateway: dict[str, float]) -> list[str]:
    lines = [
        f"What follows for one second of a head, with a heartbeat every {HEARTBEAT_S:g} s of every node, in CPU seconds:",
        "",
        f"| | {' | '.join(f'{size.nodes:,} nodes' for size in sizes)} |",
        "|---|" + "---|" * len(sizes),
    ]
    beats = [size.nodes / HEARTBEAT_S for size in sizes]
    idle = [n * size.us.get("beat", 0) + size.us.get("tick", 0) for n, size in zip(beats, sizes, strict=True)]
    busy = [n * size.us.get("news", 0) + size.us.get("tick", 0) for n, size in zip(beats, sizes, strict=True)]
    carried = [n * (gateway["sent"] + gateway["taken"]) for n in beats]
    every = [max(HEARTBEAT_S, size.nodes * size.nodes / TOLD_PER_S) for size in sizes]
    leaving = [size.news_bytes * size.nodes**2 / s for size, s in zip(sizes, every, strict=True)]
    views = [
        (size.us.get("view", 0) + size.nodes * gateway["sent"]) / s + 1e6 * out / ENCRYPTED_PER_S
        for size, s, out in zip(sizes, every, leaving, strict=True)
    ]
    rows = [
        ("deciding about heartbeats, nothing new", [f"{us / 1e6:.3f}" for us in idle]),
        ("deciding about heartbeats, all with news", [f"{us / 1e6:.3f}" for us in busy]),
        ("carrying heartbeats and their receipts (gateway thread)", [f"{us / 1e6:.3f}" for us in carried]),
        ("views, every node with news: one every", [f"{s:.1f} s" for s in every]),
        ("views: CPU, to make, to carry and to encrypt (1 GB/s)", [f"{us / 1e6:.3f}" for us in views]),
        (
            "views: bytes that leave the head",
            [f"{out / 1e6:.0f} MB/s" for out in leaving],
        ),
        (
            "together: idle / all nodes with news",
            [
                f"{(a + c) / 1e6:.2f} / {(b + c + v) / 1e6:.2f}"
                for a, b, c, v in zip(idle, busy, carried, views, strict=True)
            ],
        ),
        (
            "actors placed, started and ended, in what is left of one CPU",
            [
                f"{max(0.0, 1e6 - a - c) / sum(size.us.get(k, 0) for k in ('placed', 'started', 'released', 'lost')):,.0f}/s"
                for size, a, c in zip(sizes, idle, carried, strict=True)
            ],
        ),
    ]  # fmt: skip
    return lines + [f"| {said} | {' | '.join(cells)} |" for said, cells in rows]


def _us(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} us" if value < 100 else f"{value:,.0f} us" if value < 10_000 else f"{value / 1000:,.1f} ms"


def _size(value: float) -> str:
    if value < 2**10:
        return f"{value:.0f} bytes"
    return f"{value / 2**10:.1f} KiB" if value < 2**20 else f"{value / 2**20:.1f} MiB"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").partition(";")[0])
    parser.add_argument("--nodes", default=",".join(map(str, SIZES)), metavar="N,N", help="default: %(default)s")
    parser.add_argument("--write", action="store_true", help=f"into docs/{DOCUMENT.name}; else to standard output")
    arguments = parser.parse_args(argv)
    gateway = per_message_us()
    sizes = [measure(int(nodes), lambda line: print(line, file=sys.stderr, flush=True)) for nodes in arguments.nodes.split(",")]
    text = page(sizes, gateway)
    if not arguments.write:
        print(text)
        return 0
    document.put(DOCUMENT, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
