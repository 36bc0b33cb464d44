"""The cluster's figures in Prometheus' text format: its own (nodes, tasks, actors, resources, stores), and the programs'."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nbray.sched.resources import to_floats
from nbray.util.state import summaries
from nbray.util.state.asking import Asker, asking

PREFIX = "nbray_"
TIMEOUT_S = 10.0

Sample = tuple[str, Mapping[str, str], float]  #: suffix of the name, labels, value


def prometheus_text(address: str | None = None, timeout: float = TIMEOUT_S) -> str:
    """All figures now: of the cluster that this process is attached to, or of the one at `address`. Names begin with nbray_.

    Raises ServerUnavailable when there is none.
    """
    recorded = sys.modules.get("nbray.util.metrics")
    if recorded is not None:
        recorded._changes.report()  # what this process knows is not a second old
    with asking(address, timeout) as asker:
        return text(asker)


def text(asker: Asker) -> str:
    return "".join(line for family in (*_own(asker), *_programs(asker)) for line in family)


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    told = about.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {PREFIX}{name} {told}\n# TYPE {PREFIX}{name} {kind}\n"
    for suffix, labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(labels[key])}"' for key in sorted(labels))
        yield f"{PREFIX}{name}{suffix}{'{' + inside + '}' if inside else ''} {_figure(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _figure(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


# ------------------------------------------------------------------------------------------------------- the runtime's own


def _own(asker: Asker) -> Iterator[Iterator[str]]:
    nodes = asker.nodes()
    alive = [node for node in nodes if node["alive"]]
    states = Counter("ALIVE" if node["alive"] else "DEAD" for node in nodes)
    yield _family("nodes", "gauge", "Nodes by state.", [("", {"State": s}, n) for s, n in sorted(states.items())])
    yield _family(
        "tasks", "gauge", "Tasks and actor calls that the processes know of, by state.", _by_state(summaries.tasks(asker)[0])
    )
    yield _family("actors", "gauge", "Actors by state.", _by_state(summaries.actors(asker)[0]))
    yield _family("resources", "gauge", "What nodes have, used and available.", _resources(alive))
    store = [
        ("", {"NodeId": node["node_id"], "State": state}, amount)
        for node in alive
        for state, amount in (("USED", node["store_used"]), ("AVAILABLE", node["store_bytes"] - node["store_used"]))
    ]
    yield _family("object_store_bytes", "gauge", "The object store of each node.", store)


def _by_state(summary: Mapping[str, Any]) -> list[Sample]:
    totals: Counter[str] = Counter()
    for row in summary["summary"].values():
        totals.update(row["state_counts"])
    return [("", {"State": state}, count) for state, count in sorted(totals.items())]


def _resources(nodes: list[dict[str, Any]]) -> Iterator[Sample]:
    for node in nodes:
        total, free = to_floats(node["total"]), to_floats(node["available"])
        for name in sorted(total):
            labels = {"NodeId": node["node_id"], "Name": name}
            yield "", {**labels, "State": "USED"}, round(total[name] - free.get(name, 0.0), 4)
            yield "", {**labels, "State": "AVAILABLE"}, free.get(name, 0.0)


# ------------------------------------------------------------------------------------------------------- the programs'


def _programs(asker: Asker) -> Iterator[Iterator[str]]:
    families: dict[str, list[dict[str, Any]]] = {}
    for series in asker.head("metrics"):
        families.setdefault(series["name"], []).append(series)
    for name, every in families.items():
        kind = every[0]["kind"]
        full = f"{name}_total" if kind == "counter" and not name.endswith("_total") else name
        yield _family(full, kind, every[0]["help"], [sample for series in every for sample in _samples(series)])


def _samples(series: Mapping[str, Any]) -> Iterator[Sample]:
    tags = series["tags"]
    if series["kind"] == "gauge":
        yield "", {**tags, "WorkerId": series["process"], "NodeId": series["node"]}, series["value"]
    elif series["kind"] == "counter":
        yield "", tags, series["value"]
    else:
        count = 0
        for boundary, inside in zip([*series["boundaries"], None], series["buckets"], strict=True):
            count += inside
            yield "_bucket", {**tags, "le": "+Inf" if boundary is None else str(boundary)}, count
        yield "_sum", tags, series["value"]
        yield "_count", tags, count
