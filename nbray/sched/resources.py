"""Amounts of resources, and the four sums done with them. Pure.

People write fractions of a CPU; machines add and subtract them millions of times, and floats drift. So amounts are
integers of 1/10,000: three times a third of a CPU is 9,999 units of 10,000 for ever, on every node alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from nbray.wire.messages import Amounts

#: One of anything (a CPU, a GPU, a byte of memory) in the units that travel.
UNIT = 10_000

#: Wire integers are signed 64 bit; no node has more than this of anything (922 TB of memory).
LARGEST = (2**63 - 1) // UNIT

#: What each node has one of: "node:<its address>"; and what only the head's node has.
NODE, HEAD_NODE = "node:", "node:__internal_head__"
#: Names as people give them to `@remote`, for the two that have options of their own.
BYTES = frozenset({"memory", "object_store_memory"})  #: amounts that count bytes
OPTION_NAMES = {"CPU": "num_cpus", "GPU": "num_gpus"}


def to_amounts(resources: Mapping[str, float]) -> Amounts:
    """Convert numbers as people write them to units; zero amounts are left out, so that equal demands compare equal.

    Raises ValueError naming the resource when its number is negative, not finite, too large, or finer than 0.0001.
    """
    return {name: units for name, number in resources.items() if (units := _units(name, number))}


def _units(name: str, number: float) -> int:
    if isinstance(number, int):  # also beyond what a float holds exactly: bytes of memory
        scaled: float = number * UNIT
    elif math.isfinite(number):
        scaled = float(number) * UNIT
    else:
        raise ValueError(f"resource {name!r} is {number}; an amount is a finite number")
    if scaled < 0:
        raise ValueError(f"The quantity of resource {name} cannot be negative, but is {number}")
    if scaled > LARGEST * UNIT:
        raise ValueError(f"resource {name!r} is larger than the largest amount, {LARGEST}")
    units = round(scaled)
    # 0.1 + 0.2 is 0.30000000000000004 and means 0.3: noise of the float is forgiven, a finer fraction is not.
    if abs(scaled - units) > max(1e-6, scaled * 1e-12):
        raise ValueError(f"The precision of the fractional quantity of resource {name} cannot go beyond 0.0001, but it is {number}")
    return units


def to_floats(amounts: Mapping[str, int]) -> dict[str, float]:
    """The same amounts as people write them."""
    return {name: units / UNIT for name, units in amounts.items()}


def fits(free: Mapping[str, int], demand: Mapping[str, int]) -> bool:
    """Whether all of `demand` is free at once. What a demand does not name it does not need, and zero needs nothing."""
    return all(free.get(name, 0) >= units for name, units in demand.items() if units > 0)


def take(free: Amounts, demand: Mapping[str, int], *, force: bool = False) -> None:
    """Subtract `demand` from `free` in place. Raises ValueError, changing nothing, when it does not fit.

    `force` lets `free` go below zero: a worker that was blocked in `get` and goes on is allowed to oversubscribe its node.
    """
    if not force and not fits(free, demand):
        raise ValueError(f"cannot take {in_words(demand)} from {in_words(free)}")
    for name, units in demand.items():
        if units:
            free[name] = free.get(name, 0) - units


def give(free: Amounts, demand: Mapping[str, int], total: Mapping[str, int] | None = None) -> None:
    """Add `demand` back to `free` in place. With `total`, raises ValueError, changing nothing, if that makes more than there is:
    something was given back twice."""
    if total is not None:
        for name, units in demand.items():
            if units and free.get(name, 0) + units > total.get(name, 0):
                raise ValueError(f"{in_words({name: units})} given back to {in_words({name: free.get(name, 0)})} exceeds the total")
    for name, units in demand.items():
        if units:
            free[name] = free.get(name, 0) + units


def shortfall(totals: Iterable[Mapping[str, int]], demand: Mapping[str, int], names: Sequence[str] = ()) -> str:
    """Say which part of `demand` no node could hold: "num_gpus=2; the largest node (b71e) has 1". Empty when one could.

    `totals` are what the nodes have in all; `names[i]`, where given, is what a person calls node i.
    """
    everyone = list(totals)
    if any(fits(total, demand) for total in everyone):
        return ""
    if not everyone:
        return f"{in_words(demand)}; there is no node"
    for name, units in demand.items():
        largest = max(range(len(everyone)), key=lambda i: everyone[i].get(name, 0))
        most = everyone[largest].get(name, 0)
        if most < units:
            if most <= 0:
                return f"{in_words({name: units})}; no node has any"
            called = f" ({names[largest]})" if largest < len(names) else ""
            return f"{in_words({name: units})}; the largest node{called} has {_amount_in_words(name, most)}"
    return f"{in_words(demand)} at once; each is on some node, but no node has all of them together"


def in_words(amounts: Mapping[str, int]) -> str:
    """Amounts as they are written in options: "num_cpus=2, memory=2147483648 (2 GiB), alice=0.5"; "nothing" for none."""
    said = [f"{OPTION_NAMES.get(name, name)}={_amount_in_words(name, units)}" for name, units in amounts.items() if units]
    return ", ".join(said) or "nothing"


def _amount_in_words(name: str, units: int) -> str:
    number = number_in_words(units)
    if name not in BYTES or abs(units) < UNIT * 2**20:
        return number
    size, unit = units / UNIT / 2**20, "MiB"
    if size >= 1024:
        size, unit = size / 1024, "GiB"
    return f"{number} ({size:.3g} {unit})"


def number_in_words(units: int) -> str:
    """Units as a number without needless zeros: 10_000 -> "1", 5_000 -> "0.5"."""
    whole, rest = divmod(abs(units), UNIT)
    sign = "-" if units < 0 else ""
    return f"{sign}{whole}" if rest == 0 else f"{sign}{whole}." + f"{rest:04d}".rstrip("0")
