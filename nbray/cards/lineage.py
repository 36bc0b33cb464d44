"""What was made from what, over a whole notebook: groups of tasks by cell and name, and the edges between them.

A group is what a person thinks of: "the 100 `simulate` of In[7]".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from nbray.cards import words
from nbray.trace import TraceRecord

REMEMBERED = 200_000  #: tasks whose results can be found again as inputs of others
MOST_NODES = 200


class Group(NamedTuple):
    """Tasks of one name in one cell."""

    title: str
    name: str


class _Sum:
    __slots__ = ("count", "failed", "seconds")

    def __init__(self) -> None:
        self.count, self.failed, self.seconds = 0, 0, 0.0


class Lineage:
    """Grows with finished tasks; the desk's thread alone adds, pages ask."""

    def __init__(self) -> None:
        self.groups: dict[Group, _Sum] = {}
        self.edges: Counter[tuple[Group, Group]] = Counter()
        self._maker: dict[bytes, Group] = {}
        self._put = Group("", "put")

    def add(self, title: str, records: list[TraceRecord]) -> None:
        for record in records:
            group = Group(title, record.name)
            total = self.groups.get(group)
            if total is None:
                total = self.groups[group] = _Sum()
            total.count += 1
            total.failed += record.state == "FAILED"
            total.seconds += max(0, record.ended_ns - record.started_ns) / 1e9 if record.started_ns else 0.0
            if len(self._maker) < REMEMBERED:
                self._maker[record.id] = group
            for object_ in set(record.needs):
                source = self._maker.get(object_[:16], self._put)
                if source != group:
                    self.edges[source, group] += 1

    def graph(self, title: str, variables: Mapping[bytes, list[str]]) -> dict[str, Any]:
        """Nodes and edges around the run `title`: what it came from, and what came from it. `variables`: names by task id."""
        around = self._around(title)
        numbers = {group: i for i, group in enumerate(around)}
        nodes = [self._node(group, i) for group, i in numbers.items()]
        edges = [[numbers[a], numbers[b]] for a, b in self.edges if a in numbers and b in numbers]
        held: dict[Group, list[str]] = {}
        for task, names in variables.items():
            maker = self._maker.get(task)
            if maker in numbers:
                held.setdefault(maker, []).extend(names)
        for group, names in held.items():
            unique = sorted(set(names))
            label = ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")
            edges.append([numbers[group], len(nodes)])
            nodes.append({"label": label, "detail": words.count_text(len(unique), "variable"), "kind": "object"})
        return {"nodes": nodes, "edges": edges}

    def _around(self, title: str) -> list[Group]:
        """Groups of the run, their ancestors and descendants, in the order in which they began."""
        wanted = {group for group in self.groups if group.title == title}
        for step in ((0, 1), (1, 0)):
            todo = list(wanted) if step == (0, 1) else [group for group in self.groups if group.title == title]
            while todo:
                group = todo.pop()
                for edge in list(self.edges):
                    other = edge[step[0]]
                    if edge[step[1]] == group and other not in wanted:
                        wanted.add(other)
                        todo.append(other)
        return [group for group in [self._put, *self.groups] if group in wanted][:MOST_NODES]

    def _node(self, group: Group, colour: int) -> dict[str, Any]:
        if group is self._put:
            return {"label": "values of the notebook", "detail": "put by it", "kind": "object"}
        total = self.groups[group]
        label = group.name if total.count == 1 else f"{group.name} ×{total.count:,}"
        failed = f", {total.failed:,} failed" if total.failed else ""
        detail = f"{group.title} · {words.seconds_text(total.seconds)}{failed}"
        return {"label": label, "detail": detail, "kind": "task", "colour": colour}
