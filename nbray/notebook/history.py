"""What the notebook has run and what became of it: cells, their variables, and the tasks behind those, as one lineage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from nbray.cards import lineage_text
from nbray.cards.lineage import CellNote, Lineage, Notes, VariableNote, View
from nbray.describing import describe
from nbray.notebook.holders import held_by_names, shown_results
from nbray.notebook.output import SEPARATOR
from nbray.notebook.provenance import Provenance, Run
from nbray.notebook.versions import Versions, is_users


class History:
    """One for each notebook. The main thread tells it of cells; pages ask, from threads of their own."""

    def __init__(self, namespace: Callable[[], dict[str, Any]], lineage: Lineage) -> None:
        self.lineage = lineage
        self._namespace = namespace
        self._known = Provenance()
        self._versions = Versions()
        self._run: Run | None = None
        self._by_tag: dict[str, Run] = {}
        self._lock = threading.Lock()

    # -- facts in

    def begin_cell(self, title: str, tag: str, cell: str, source: str) -> None:
        with self._lock:
            if self._run is None:
                self._versions.learn(self._namespace())  # what was there before us was made by nobody we know
            self._run = self._by_tag[tag] = self._known.begin(title, tag, cell, source)
            if len(self._by_tag) > len(self._known.runs) + 1:
                del self._by_tag[next(iter(self._by_tag))]

    def end_cell(self, title: str) -> None:
        """`title` is certain only now: IPython numbers a cell after it has announced it."""
        with self._lock:
            if self._run is not None:
                self._run.title = title
                self._known.end(self._run, *self._versions.changes(self._namespace()))

    def delivered(self, tag: str, names: Iterable[str]) -> None:
        """A job bound `names`; `tag` is the job's."""
        with self._lock:
            run = self._by_tag.get(tag.partition(SEPARATOR)[0])
            if run is not None and run is not self._run:
                self._known.delivered(run, names)
                self._versions.learn(self._namespace(), names)

    # -- questions

    def notes(self) -> Notes:
        """Cells and variables as they are now."""
        with self._lock:
            namespace = self._namespace()
            held: dict[str, list[bytes]] = {}
            for task, names in held_by_names(namespace).items():
                for name in names:
                    held.setdefault(name, []).append(task)
            values = {**namespace, **shown_results(namespace)}
            variables = [self._variable(name, values.get(name), held.get(name, [])) for name in self._names(namespace, held)]
            cells = [self._cell(run) for run in list(self._known.runs.values())]
            return Notes(cells, variables)

    def _names(self, namespace: dict[str, Any], held: dict[str, list[bytes]]) -> list[str]:
        seen = self._versions.seen
        values = [name for name in namespace if is_users(name) and (name not in seen or seen[name].kind == "value")]
        return list(dict.fromkeys([*values, *held]))

    def _variable(self, name: str, value: Any, tasks: list[bytes]) -> VariableNote:
        run = self._known.shown_by(name) if name.startswith("Out[") else self._known.maker(name)
        return VariableNote(name, run.number if run else 0, describe(value), self._known.stale(name), tasks)

    def _cell(self, run: Run) -> CellNote:
        again = self._known.superseded(run)
        stale = "" if again is not None else self._known.stale_run(run)
        return CellNote(
            run.number, run.tag, run.title, run.cell, run.heading, self._known.inputs(run), stale, again.title if again else ""
        )

    def stale(self, name: str) -> str:
        """Why a variable is not what its cell would make now; empty when it is."""
        with self._lock:
            return self._known.stale(name)

    def graph(self, focus: str = "", opened: Iterable[str] = (), shut: Iterable[str] = ()) -> dict[str, Any]:
        """The lineage for a page; `focus` is the tag of a cell or job, or empty for the whole notebook."""
        view = View(focus.partition(SEPARATOR)[0], frozenset(opened), frozenset(shut))
        return self.lineage.graph(self.notes(), view)

    def text(self, name: str) -> list[str]:
        """The lineage of a variable, a cell or a function in words. Raises LookupError with what there is."""
        graph = self.graph()
        node = lineage_text.find(graph, name)
        if node is None:
            raise LookupError(", ".join(lineage_text.names(graph)) or "nothing yet")
        return lineage_text.told(graph, node)
