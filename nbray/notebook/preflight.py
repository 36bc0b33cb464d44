"""What a cell would do, before it does it: `--dry-run`, and a word about a large value that `--each` would ship many times."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nbray.cards import words
from nbray.config import INLINE_LIMIT
from nbray.engines.port import Engine
from nbray.notebook import display
from nbray.notebook.plan import Plan, chunks_of

LARGE_BYTES = 2**20  #: of one value, from which on shipping it twice is worth a word
LOOKED_AT = 10_000  #: items
INSIDE = 10  #: entries of an item that are looked at


def described(
    plan: Plan, sizes: Mapping[str, int | None], engine: Engine | None, namespace: Mapping[str, Any]
) -> list[display.Bundle]:
    """The inputs, then the rest. `engine` is None where there is no cluster yet: none is started for this."""
    chunks = 1 if plan.items is None else len(chunks_of(plan))
    rows = [
        (
            name,
            type(plan.values[name]).__name__,
            "in the cluster" if size is None else words.bytes_text(size),
            _travels(size, chunks),
        )
        for name, size in sizes.items()
    ]
    tasks = words.count_text(chunks, "task")
    if plan.items is not None:
        tasks = f"{words.count_text(len(plan.items), 'item')} in {tasks}"
    demand = _demand(plan)
    pairs = {
        "names": ", ".join(plan.outputs) or "none",
        "would run": tasks,
        "each task asks for": ", ".join(f"{name}={amount:g}" for name, amount in demand.items()) or "nothing",
        **_wishes(plan),
        "can run": _room(demand, engine) if plan.place.actor is None else "inside the actor, after the calls before it",
        "sent": "nothing (--dry-run)",
    }
    if again := repeated(plan, namespace):
        pairs["shipped many times"] = again
    return [display.table("inputs", ["name", "type", "size", "travels"], rows, "none"), display.facts("outputs", pairs)]


def _wishes(plan: Plan) -> dict[str, str]:
    """What was asked for besides amounts."""
    given = plan.options
    environment = [
        *(f"{name}={value}" for name, value in (given.env or {}).items()),
        *(f"pip install {p}" for p in given.pip or ()),
    ]
    wishes = {
        "environment": ", ".join(environment),
        "cancelled after": words.seconds_text(given.timeout) if given.timeout else "",
        "run again on failure": words.count_text(given.retries, "time") if given.retries else "",
        "profile": "" if given.profile == "none" else given.profile,
    }
    return {name: said for name, said in wishes.items() if said}


def _travels(size: int | None, chunks: int) -> str:
    if size is None:
        return "not at all"
    if size > INLINE_LIMIT:
        return "once per node, unless it is there already"
    return "with the task" if chunks == 1 else f"once for all {chunks} tasks"


def _demand(plan: Plan) -> dict[str, float]:
    given = plan.options
    named = {"CPU": given.num_cpus, "GPU": given.num_gpus, "memory": given.memory or 0, **(given.resources or {})}
    return {name: float(amount) for name, amount in named.items() if amount}


def _room(demand: Mapping[str, float], engine: Engine | None) -> str:
    """Whether any node could ever hold one task, and how many at a time the cluster does."""
    if engine is None:
        return "not known: there is no cluster yet"
    totals = [node.get("Resources", {}) for node in engine.nodes() if node.get("Alive", True)]
    able = [total for total in totals if all(total.get(name, 0) >= amount for name, amount in demand.items())]
    if not able:
        most = {name: max((float(total.get(name, 0)) for total in totals), default=0.0) for name in demand}
        lack = ", ".join(f"{name}={demand[name]:g} (most: {most[name]:g})" for name in demand if most[name] < demand[name])
        return f"nowhere: no node has {lack or 'all of it together'}"
    said = f"on {len(able)} of {words.count_text(len(totals), 'node')}"
    if not demand:
        return said
    return f"{said}, {sum(int(min(total[name] / amount for name, amount in demand.items())) for total in able)} at a time"


def repeated(plan: Plan, namespace: Mapping[str, Any]) -> str:
    """What `--each` would ship more than once because its items contain one large value; "" if nothing."""
    counts: Counter[int] = Counter()
    values: dict[int, Any] = {}
    for item in (plan.items or ())[:LOOKED_AT]:
        for value in {id(each): each for each in (item, *_entries(item))}.values():
            if _bytes(value) >= LARGE_BYTES:
                counts[id(value)] += 1
                values[id(value)] = value
    found = [(times * _bytes(values[key]), key, times) for key, times in counts.items() if times > 1]
    if not found:
        return ""
    _, key, times = max(found)
    value = values[key]
    name = next((n for n, each in {**namespace, **plan.values}.items() if each is value and not n.startswith("_")), "")
    what = (
        f"{name} ({words.bytes_text(_bytes(value))})" if name else f"a {type(value).__name__} of {words.bytes_text(_bytes(value))}"
    )
    remedy = f"read {name} in the cell instead" if name else "bind it to a name and read that in the cell instead"
    stored = f"nbray.put({name})" if name else "nbray.put(...)"
    return f"{what} is in {times} items of --each and travels with each; {remedy}, or put {stored} into the items and get it there"


def _entries(item: Any) -> Sequence[Any]:
    if isinstance(item, tuple | list):
        return item[:INSIDE]
    return list(item.values())[:INSIDE] if isinstance(item, dict) else ()


def _bytes(value: Any) -> int:
    nbytes = getattr(value, "nbytes", None)
    return nbytes if type(nbytes) is int else sys.getsizeof(value, 0)
