"""What was made from what."""

from __future__ import annotations

from typing import Any

from nbray.cards import lineage_text
from nbray.cards.lineage import STALE, Notes, VariableNote, View, reached
from nbray.cards.lineage import Lineage as Model
from nbray.cards.words import count_text
from nbray.notebook import display
from nbray.notebook.holders import held_by_names
from nbray.refs import ObjectRef
from nbray.widgets.notebook import namespace_here, notebook_here
from nbray.widgets.picture import Picture, Snapshot
from nbray.widgets.timeline import records_here

NOTHING = "No tasks have run yet, so nothing is known of what came from what."
HERE = "this process"


class Lineage(Picture):
    """Cells, tasks and variables, and what each was made from; what is stale says so.

    `what` is a variable's name, a reference, a cell ("In[3]" or its number) or the name of a task: then only that, what it came
    from and what uses it. Without it everything. Cells and variables that hold no reference are known where the notebook extension
    is loaded; elsewhere there are the tasks of this process. What is not in it yet may come.
    """

    _make = "createLineageView"

    def __init__(self, what: Any = None) -> None:
        """Raises TypeError for what is neither a name, a number nor a reference."""
        super().__init__()
        if what is not None and not isinstance(what, str | int | ObjectRef):
            raise TypeError(f"Lineage() takes a name, a cell's number or a reference, not {what!r:.100}")
        self._what = what
        self._opened: frozenset[str] = frozenset()
        self._shut: frozenset[str] = frozenset()
        self._whole = what is None

    def _graph(self, *, own: bool) -> dict[str, Any]:
        """Everything; `own`: opened and shut as the page wants it."""
        view = View("", self._opened, self._shut) if own else View()
        notebook = notebook_here()
        if notebook is not None:
            return notebook.history.graph("", view.opened, view.shut, self._what if isinstance(self._what, str) else "")
        model = Model()
        model.add(HERE, records_here())
        held: dict[str, list[bytes]] = {}
        for task, names in held_by_names(namespace_here()).items():
            for name in names:
                held.setdefault(name, []).append(task)
        return model.graph(Notes(variables=[VariableNote(name, tasks=tasks) for name, tasks in held.items()]), view)

    def _found(self, graph: dict[str, Any]) -> dict[str, Any] | None:
        """The node that is meant."""
        if not isinstance(self._what, ObjectRef):
            return lineage_text.find(graph, str(self._what))
        task = self._what.task_id().binary()
        names = held_by_names(namespace_here()).get(task, [])
        for name in names:
            if (node := lineage_text.find(graph, name)) is not None:
                return node
        keys = {f"t:{task.hex()}"}
        notebook = notebook_here()
        group = notebook.history.lineage.group_of(task) if notebook is not None else None
        keys |= {group.key, f"c:{group.tag}"} if group is not None else set()
        return next((node for node in graph["nodes"] if node["key"] in keys), None)

    def _look(self) -> Snapshot:
        graph = self._graph(own=True)
        told = self._told()
        if not graph["nodes"]:
            return {"gone": NOTHING, "told": told}
        if self._whole or self._what is None:
            return {"graph": graph, "told": told, "focus": self._what is not None}
        node = self._found(graph)
        if node is None:
            return {"gone": told[0], "told": told}
        return {"graph": around(graph, node["key"]), "told": told, "focus": True}

    def _told(self) -> list[str]:
        """The text form."""
        graph = self._graph(own=False)
        if not graph["nodes"]:
            return [NOTHING]
        if self._what is None:
            return _everything(graph)
        node = self._found(graph)
        if node is not None:
            return lineage_text.told(graph, node)
        called = f"task {self._what.task_id().hex()[:8]}" if isinstance(self._what, ObjectRef) else f"{self._what!s:.80}"
        return [f"{called} is not in the lineage yet; there is: {', '.join(lineage_text.names(graph)[:30])}"]

    def _text(self, snapshot: Snapshot) -> str:
        return "\n".join(snapshot.get("told") or [str(snapshot.get("gone"))])

    def _html(self, snapshot: Snapshot) -> str:
        return display.lines(snapshot.get("told") or [str(snapshot.get("gone"))])["text/html"]

    def _can(self) -> list[str]:
        return [] if self._what is None else ["scope"]

    def _commands(self) -> dict[str, Any]:
        return {"change": self._change}

    def _change(self, whole: bool = False, opened: Any = (), shut: Any = ()) -> Snapshot:
        with self._lock:
            self._whole, self._opened, self._shut = whole or self._what is None, frozenset(opened), frozenset(shut)
            return self._look()


def around(graph: dict[str, Any], key: str) -> dict[str, Any]:
    """The part of a graph that one node came from, and that came from it."""
    nodes = graph["nodes"]
    pairs = [(nodes[a]["key"], nodes[b]["key"]) for a, b, *_ in graph["edges"]]
    kept = reached([key], pairs) | reached([key], ((b, a) for a, b in pairs)) | {key}
    numbers = {i: at for at, i in enumerate(i for i, node in enumerate(nodes) if node["key"] in kept)}
    edges = [[numbers[a], numbers[b], *kind] for a, b, *kind in graph["edges"] if a in numbers and b in numbers]
    return {**graph, "nodes": [nodes[i] for i in numbers], "edges": edges}


def _everything(graph: dict[str, Any]) -> list[str]:
    """What there is, cell by cell, then the variables."""
    lines = [f"{count_text(len(graph['nodes']), 'node')}: {lineage_text.amounts(graph['nodes'])}"]
    for node in graph["nodes"]:
        stale = f"{STALE}: {node['stale']}" if node.get("stale") else ""
        indent = "    " if node["kind"] == "task" else "  "
        lines.append(indent + " · ".join(part for part in (node["label"], node["detail"], stale) if part))
    return lines
