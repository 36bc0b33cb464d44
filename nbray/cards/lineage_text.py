"""The lineage in words: where a variable, a cell or a function's tasks come from, and what uses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from nbray.cards.lineage import STALE, reached
from nbray.cards.words import count_text

LISTED = 30  #: nodes of one list
KINDS = {"cell": "cell", "task": "tasks", "object": "variable"}


def find(graph: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The node that a person calls `name`: a variable, else a cell (`In[3]`, `3`), else tasks of that name, the latest."""
    nodes = graph["nodes"]
    for kind, label in (("object", name), ("cell", name), ("cell", f"In[{name}]")):
        if found := [node for node in nodes if node["kind"] == kind and node["label"] == label]:
            return dict(found[-1])
    found = [node for node in nodes if node["kind"] == "task" and name in {node.get("name"), node["label"]}]
    return dict(found[-1]) if found else None


def names(graph: dict[str, Any]) -> list[str]:
    """What can be asked for."""
    found = [node["label"] if node["kind"] != "task" else node.get("name", "") for node in graph["nodes"]]
    return list(dict.fromkeys(found))


def told(graph: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Lines about one node of a graph."""
    pairs = [(graph["nodes"][a]["key"], graph["nodes"][b]["key"]) for a, b, *_ in graph["edges"]]
    by_key = {each["key"]: each for each in graph["nodes"]}
    above = reached([node["key"]], ((b, a) for a, b in pairs)) - {node["key"]}
    below = reached([node["key"]], pairs) - {node["key"]}
    lines = [" · ".join(part for part in (node["label"], node["detail"]) if part)]
    if node.get("stale"):
        lines.append(f"  {STALE}: {node['stale']}")
    lines += _list("comes from", [each for key, each in by_key.items() if key in above])
    beside = _beside(node, pairs, by_key) - above - below
    if below or not beside:
        lines += _list("used by", [each for key, each in by_key.items() if key in below])
    if beside:
        lines += _list("the same results went to", [each for key, each in by_key.items() if key in beside])
    return lines


def _beside(node: dict[str, Any], pairs: Sequence[tuple[str, str]], by_key: dict[str, dict[str, Any]]) -> set[str]:
    """Of a variable: the tasks that took results of the tasks whose results it holds, and what came of them."""
    if node["kind"] != "object":
        return set()
    sources = {a for a, b in pairs if b == node["key"] and by_key[a]["kind"] == "task"}
    return reached([b for a, b in pairs if a in sources and by_key[b]["kind"] == "task"], pairs) - sources


def amounts(nodes: Iterable[dict[str, Any]]) -> str:
    """`2 cells, 103 tasks and 1 variable`."""
    total: Counter[str] = Counter()
    for node in nodes:
        shut = node["kind"] == "cell" and not node.get("open", True)
        total[node["kind"]] += node.get("tasks", 1) if node["kind"] == "task" else 1
        total["task"] += node.get("tasks", 0) if shut else 0
    nouns = (("cell", "cell"), ("task", "task"), ("object", "variable"))
    parts = [count_text(total[kind], noun) for kind, noun in nouns if total[kind]]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts) or "nothing"


def _list(title: str, nodes: Sequence[dict[str, Any]]) -> list[str]:
    lines = [f"  {title} {amounts(nodes)}"]
    width = min(40, max((len(node["label"]) for node in nodes), default=0))
    for node in nodes[:LISTED]:
        stale = f"  {STALE}" if node.get("stale") else ""
        lines.append(f"    {node['label']:<{width}}  {KINDS[node['kind']]:<8}  {node['detail']}{stale}")
    if len(nodes) > LISTED:
        lines.append(f"    … {len(nodes) - LISTED:,} more")
    return lines
