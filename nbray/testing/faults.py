"""Faults, drawn from a seed: what breaks, when, and for how long."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import msgspec

#: A reporter is a worker that has just said that its task is done: whether that is heard before its death is open.
Kind = Literal["kill worker", "kill reporter", "crash node", "cut off node", "restart head", "memory pressure", "new node"]


class Fault(msgspec.Struct, frozen=True):
    """One thing that breaks. `pick` chooses the victim among those there are; `lasts_s` is for faults that end."""

    kind: Kind
    at_s: float
    pick: float = 0.0  #: from 0 to 1
    lasts_s: float = 0.0


class FaultPlan(msgspec.Struct, frozen=True):
    """What breaks in one run. Times count from its beginning."""

    faults: Sequence[Fault] = ()
    loss: float = 0.0  #: share of datagrams between hosts that are lost
    repeated: float = 0.0
    slow: float = 0.01  #: share of messages on one host that take up to 30 ms, because a process was not scheduled

    @classmethod
    def none(cls) -> FaultPlan:
        return cls()

    @classmethod
    def drawn(cls, chance: random.Random, nodes: int) -> FaultPlan:
        """A plan of one of four sorts: none, a bad network, workers that die, and nodes that do."""
        sort = chance.choice(["quiet", "network", "workers", "workers", "nodes", "nodes"])
        loss, repeated = (0.0, 0.0) if sort == "quiet" else (chance.choice([0.0, 0.02, 0.2]), chance.choice([0.0, 0.1]))
        slow = 0.01 if sort == "quiet" else chance.choice([0.01, 0.1, 0.4])
        faults: list[Fault] = []
        if sort != "quiet" and chance.random() < 0.3:
            faults.append(Fault("restart head", chance.uniform(0.1, 2.0), lasts_s=chance.uniform(0.05, 3.0)))
        if sort in {"workers", "nodes"}:
            # Fewer than START_DEATHS: the pool is not to stop.
            faults += [Fault("kill worker", chance.uniform(0.05, 2.0), chance.random()) for _ in range(chance.randint(1, 3))]
            faults += [Fault("kill reporter", chance.uniform(0.0, 2.0)) for _ in range(chance.randint(0, 3))]
            if chance.random() < 0.2:
                faults.append(Fault("memory pressure", chance.uniform(0.05, 2.0)))
        if sort == "nodes":
            faults.append(cls._node_fault(chance, nodes))
        return cls(sorted(faults, key=lambda fault: fault.at_s), loss, repeated, slow)

    @staticmethod
    def _node_fault(chance: random.Random, nodes: int) -> Fault:
        """On one host the whole cluster crashes and its driver starts another; else a node without the head does."""
        if nodes == 1:
            return Fault("crash node", chance.uniform(0.1, 2.0))
        # Between 10 and 25 seconds lies the time in which some have given a node up and others have not.
        kind: Kind = chance.choice(["crash node", "cut off node"])
        lasts_s = chance.choice([1.0, 3.0, 8.0, 25.0, 30.0])
        return Fault(kind, chance.uniform(0.1, 2.0), chance.random(), lasts_s)
