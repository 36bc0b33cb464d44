"""What the notebook has run and what became of it: cells, their variables, and the tasks behind those, as one lineage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbray.cards import lineage_text
from nbray.cards.lineage import ALL_ENDED, CellNote, Lineage, Notes, Unfinished, VariableNote, View
from nbray.describing import describe
from nbray.notebook.fetched import SHOWN
from nbray.notebook.holders import held_by_names, shown_results
from nbray.notebook.output import SEPARATOR
from nbray.notebook.provenance import Provenance, Run, is_shown
from nbray.notebook.versions import Versions, is_users

SHOWN_LATEST = 200  #: entries of `Out` that are looked at, the latest
RESULTS = 2_000  #: tasks whose results one variable was made of, as far as the lineage looks


class History:
    """One for each notebook. The main thread tells it of cells; pages ask, from threads of their own."""

    def __init__(self, namespace: Callable[[], dict[str, Any]], lineage: Lineage) -> None:
        self.lineage = lineage
        #: What has not ended; the ids of tasks are those to say something of if they are among it.
        self.unfinished: Callable[[list[bytes]], Unfinished] = lambda _tasks: ALL_ENDED
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

    def delivered(self, tag: str, names: Sequence[str], tasks: Sequence[bytes]) -> None:
        """A job bound `names`, results of its `tasks`; `tag` is the job's."""
        with self._lock:
            run = self._by_tag.get(tag.partition(SEPARATOR)[0])
            if run is not None:
                run.results |= dict.fromkeys([*names, SHOWN], tasks)
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
            variables = [self._variable(name, values.get(name), held.get(name, []), held) for name in self._names(namespace, held)]
            cells = [self._cell(run) for run in list(self._known.runs.values())]
            return Notes(cells, variables)

    def _names(self, namespace: dict[str, Any], held: dict[str, list[bytes]]) -> list[str]:
        seen = self._versions.seen
        values = [name for name in namespace if is_users(name) and (name not in seen or seen[name].kind == "value")]
        shown = [name for name in list(shown_results(namespace))[-SHOWN_LATEST:] if self._is_latest(name)]
        return list(dict.fromkeys([*values, *held, *shown]))

    def _is_latest(self, name: str) -> bool:
        """Whether `Out[n]` is of a cell that has not run again: its later one stands for it then."""
        run = self._known.shown_by(name)
        return run is not None and self._known.superseded(run) is None

    def _variable(self, name: str, value: Any, tasks: list[bytes], held: dict[str, list[bytes]]) -> VariableNote:
        run, flow = self._known.source(name), self._known.fetched(name)
        got = [task for each in sorted(flow.names) for task in held.get(each, ()) if each != name]
        if run is not None:
            got += run.results.get(SHOWN if is_shown(name) else name, ())
        return VariableNote(
            name, run.number if run else 0, describe(value), self._known.stale(name), tasks, got[:RESULTS], flow.functions
        )

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

    def graph(self, focus: str = "", opened: Iterable[str] = (), shut: Iterable[str] = (), named: str = "") -> dict[str, Any]:
        """The lineage for a page; `focus` is the tag of a cell or job, or empty for the whole notebook; `named` is a variable to
        include with all that it came from."""
        view = View(focus.partition(SEPARATOR)[0], frozenset(opened), frozenset(shut), named)
        notes = self.notes()
        held = [task for variable in notes.variables for task in variable.tasks]
        return self.lineage.graph(notes, view, self.unfinished(held))

    def text(self, name: str) -> list[str]:
        """The lineage of a variable, a cell or a function in words. Raises LookupError with what there is."""
        graph = self.graph(named=name)
        node = lineage_text.find(graph, name)
        if node is None:
            raise LookupError(", ".join(lineage_text.names(graph)) or "nothing yet")
        return lineage_text.told(graph, node)
