"""How many CPUs a running node offers, after somebody has asked for more or fewer. Pure.

Nothing that runs is ended: with fewer CPUs than are in use, nothing new begins until enough has ended. Idle workers beyond the new
number end as they always do.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from nbray.node.ground import Ground
from nbray.sched.resources import UNIT
from nbray.wire.messages import Answer, Ask

CPU = "CPU"
MOST_CPUS = 100_000


class _Wanted(msgspec.Struct):
    cpus: Annotated[int, msgspec.Meta(ge=1, le=MOST_CPUS)]


def scale(ground: Ground, ask: Ask) -> bool:
    """Answer "scale" (`cpus`) with {"cpus", "was"}, or why not. Whether the node has another number of CPUs now."""
    try:
        cpus = msgspec.convert(ask.arguments, _Wanted, strict=False).cpus
    except msgspec.ValidationError as problem:
        ground.send(ask.asker, Answer(ask.request, error=f"a node has 1 to {MOST_CPUS:,} whole CPUs: {problem}"))
        return False
    was = ground.total.get(CPU, 0)
    if not was:
        ground.send(ask.asker, Answer(ask.request, error="this node only connects a driver to its cluster and runs nothing"))
        return False
    ground.resize(CPU, cpus * UNIT)
    ground.pool.resize(cpus)
    ground.send(ask.asker, Answer(ask.request, {"cpus": cpus, "was": was / UNIT}))
    return cpus * UNIT != was
