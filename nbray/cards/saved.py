"""What a card leaves in the notebook for pages without a kernel: JSON that never takes more than MOST_BYTES of the notebook's file.

Everything but the spans comes first. Where that is too much its largest part is made half as long, and again, until LEAST_SPANS
have room; the spans get what is left, up to MOST_SPANS. Each part says how much of it there was.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nbray.cards.flame import SAVED_NODES, Flame
from nbray.cards.printed import Printed
from nbray.cards.run import Run
from nbray.cards.spans import SPAN_BYTES
from nbray.cards.words import cut
from nbray.engines.cells import OTHERS

MIME = "application/vnd.nbray.run.v1+json"
MOST_BYTES = 100_000
MOST_SPANS = 2000  #: 61 kB
LEAST_SPANS = 500
INDENT = 7  #: of the JSON in a notebook's file, at its outermost

TASKS = 50
OUTPUT = 4000  #: characters
LINEAGE = 60  #: nodes
OBJECTS = 40  #: rows
ERRORS = 50
NAMES = 40
WORKERS = 200
TEXT = 80  #: characters of one label


class Part(NamedTuple):
    """Something of which at most `most` items are kept: `make(n)` makes it of n, and says in itself how many there are."""

    make: Callable[[int], Any]
    most: int


class Extras(NamedTuple):
    """What becomes known after the end of a run: its lineage (of so many nodes), what the notebook's names held, its forecast."""

    lineage: Callable[[int], dict[str, Any]] = lambda _most: {"nodes": [], "edges": []}
    objects: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None


def bundle(run: Run, snapshot: dict[str, Any], printed: Printed, profile: Flame | None, extras: Extras) -> dict[str, Any]:
    """A card that is over, as it stays."""
    fixed = {key: value for key, value in snapshot.items() if key not in {"names", "span_names", "errors", "workers"}}
    fixed |= {"verdict": cut(snapshot["verdict"], 300), "title": cut(snapshot["title"])}
    fixed |= {"plan": extras.plan, "printed": printed.lines, "ran": run.ran, "worker_count": len(snapshot["workers"])}
    parts = {
        "names": Part(lambda most: _names(snapshot["names"], most), NAMES),
        "span_names": Part(lambda most: _span_names(snapshot["span_names"], most), NAMES),
        "workers": Part(lambda most: snapshot["workers"][:most], WORKERS),
        "errors": Part(lambda most: _errors(snapshot["errors"], most), ERRORS),
        "tasks": Part(lambda most: [_task(task) for task in run.latest()[:most]], TASKS),
        "lineage": Part(extras.lineage, LINEAGE),
        "output": Part(printed.told, OUTPUT),
    }
    if extras.objects is not None:
        found = extras.objects
        parts["objects"] = Part(lambda most: _objects(found, most), OBJECTS)
    if profile is not None:
        parts["profile"] = Part(profile.to_data, SAVED_NODES)
    made, size = fitted(fixed, parts, MOST_BYTES - _span_text(LEAST_SPANS))
    most = min(MOST_SPANS, max(0, (MOST_BYTES - size) * 3 // 4) // SPAN_BYTES)
    return {**fixed, **made, "span_data": run.spans.chosen(most, len(made["span_names"]))}


def fitted(fixed: Mapping[str, Any], parts: Mapping[str, Part], room: int) -> tuple[dict[str, Any], int]:
    """The parts, each as long as all together allow, and how much of the notebook's file they take with what is `fixed`."""
    limits = {name: part.most for name, part in parts.items()}
    made = {name: part.make(part.most) for name, part in parts.items()}
    sizes = {name: size_in_file(value) for name, value in made.items()}
    rest = size_in_file(fixed)
    while rest + sum(sizes.values()) > room and any(limits.values()):
        name = max((name for name in limits if limits[name]), key=lambda name: sizes[name])
        limits[name] //= 2
        made[name] = parts[name].make(limits[name])
        sizes[name] = size_in_file(made[name])
    return made, rest + sum(sizes.values())


def size_in_file(value: Any) -> int:
    """Bytes of a value of the bundle, with its key and indents, as nbformat writes a notebook."""
    text = json.dumps({"": value}, indent=1, ensure_ascii=False)
    return len(text.encode(errors="surrogatepass")) + INDENT * text.count("\n") + len('"profile_data",')


def _span_text(spans: int) -> int:
    """Bytes of so many spans in base64."""
    return -(-spans * SPAN_BYTES // 3) * 4


def _names(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The names with the most tasks, in their order, and the others as one row."""
    if len(rows) > most:
        large = {id(row) for row in sorted(rows, key=lambda row: -row["submitted"])[: max(0, most - 1)]}
        others = [row for row in rows if id(row) not in large]
        rows = [row for row in rows if id(row) in large]
        total: dict[str, Any] = {key: sum(row[key] for row in others) for key in others[0] if key not in {"name", "mean_s"}}
        ended = sum(row["total_s"] / row["mean_s"] for row in others if row["mean_s"])
        rows.append({"name": OTHERS, **total, "mean_s": total["total_s"] / ended if ended else None})
    return [{**row, "name": cut(row["name"], TEXT)} for row in rows]


def _span_names(names: list[str], most: int) -> list[str]:
    """The first names; spans of the others say so."""
    return (
        [cut(name, TEXT) for name in names] if len(names) <= most else [*(cut(n, TEXT) for n in names[: max(0, most - 1)]), OTHERS]
    )


def _errors(errors: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    rest = sum(error["count"] for error in errors[most:])
    return errors[:most] + ([{"text": "(other errors)", "count": rest}] if rest else [])


def _task(task: dict[str, Any]) -> dict[str, Any]:
    times = {key: round(task[key], 3) for key in ("waited_ms", "transfer_ms", "ran_ms") if task[key] is not None}
    return {**task, **times, "name": cut(task["name"], TEXT), "detail": cut(task["detail"], 200)}


def _objects(found: dict[str, Any], most: int) -> dict[str, Any]:
    """Rows without what only a kernel can do."""
    said = [{key: value for key, value in row.items() if key != "release"} for row in found["rows"][:most]]
    rows = [{key: cut(value, TEXT) if isinstance(value, str) else value for key, value in row.items()} for row in said]
    return {**found, "rows": rows, "more": found.get("more", 0) + len(found["rows"]) - len(rows)}


def kept_lineage(graph: dict[str, Any], most: int, focus: str = "") -> dict[str, Any]:
    """The graph as a saved notebook keeps it: at most `most` nodes, those nearest to the cell `focus`, with short texts and nothing
    to open. `hidden` says how many are left out."""
    nodes, near = graph["nodes"], _nearest(graph, most, focus)
    number = {i: at for at, i in enumerate(near)}
    small = [
        {
            name: nodes[i][name]
            for name in ("kind", "cell", "stale", "tasks", "colour", "running", "queued")
            if nodes[i].get(name) not in (None, "")
        }
        | {name: cut(nodes[i][name], TEXT) for name in ("label", "detail", "title")}
        for i in near
    ]
    edges = [[number[a], number[b], *kind] for a, b, *kind in graph["edges"] if a in number and b in number]
    return {"nodes": small, "edges": edges, "hidden": len(nodes) - len(small) + graph.get("hidden", 0)}


def _nearest(graph: dict[str, Any], most: int, focus: str) -> list[int]:
    """Numbers of nodes by their distance from those of a cell, in the order of the graph."""
    beside: dict[int, list[int]] = defaultdict(list)
    for a, b, *_ in graph["edges"]:
        beside[a].append(b)
        beside[b].append(a)
    own = [i for i, node in enumerate(graph["nodes"]) if focus and node.get("tag") == focus]
    order = dict.fromkeys(own)
    todo = deque(own)
    while todo:
        for other in beside[todo.popleft()]:
            if other not in order:
                order[other] = None
                todo.append(other)
    order |= dict.fromkeys(range(len(graph["nodes"])))
    return sorted(list(order)[:most])
