"""The answer: seconds for each number of cores, and the path that no number of cores makes shorter. In words, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from nbray.cards import words
from nbray.planning.folding import folded
from nbray.planning.graph import Graph, Step, critical_path
from nbray.planning.rehearsal import Rehearsal

CORES = (1, 2, 4, 8, 16)
GRID_NODES = (1, 2, 4)  #: kept with a card
GRID_TASKS = 200
MOST_TASKS = 800  #: in one rehearsal; more are folded
MOST_CORES, MOST_NODES = 256, 32  #: all cores together, and nodes
PATH_SHOWN = 7  #: links of the path that are named
NOTEBOOK_SHARE = 0.02  #: of the path, below which the notebook's own work is not named


class Forecast(NamedTuple):
    """`seconds[i]` is how long the cell's tasks would take on `nodes` nodes of `cores[i]` cores each; None where a task asks for
    more than a node has."""

    cores: tuple[int, ...]
    nodes: int
    seconds: tuple[float | None, ...]
    path: list[Step]
    tasks: int
    groups: int  #: fewer than `tasks` where like ones were taken together
    took_s: float  #: as it was measured
    workers: int  #: on so many
    widest: float  #: the most CPUs that one task asks for
    others: tuple[str, ...] = ()  #: resources that are taken as plentiful

    @property
    def path_s(self) -> float:
        return sum(step.seconds for step in self.path)

    def lines(self) -> list[str]:
        """One line for each number of cores, then what there is to know about them."""
        where = "" if self.nodes == 1 else f"{self.nodes} nodes of "
        said = []
        for cores, seconds in zip(self.cores, self.seconds, strict=True):
            took = f"a task asks for {self.widest:g} CPUs" if seconds is None else words.seconds_text(seconds)
            said.append(f"{where}{words.count_text(cores, 'core')}: {took}")
        return [*said, *self.notes()]

    def notes(self) -> list[str]:
        notes = [f"the critical path alone is {words.seconds_text(self.path_s)}: {path_text(self.path)}"]
        notes.append(f"measured: {words.seconds_text(self.took_s)} on {words.count_text(self.workers, 'worker')}")
        if self.groups < self.tasks:
            notes.append(f"{words.count_text(self.tasks, 'task')} taken together as {self.groups:,} groups of like ones")
        if self.others:
            notes.append(f"{', '.join(self.others)}: taken as plentiful")
        return notes

    def sentence(self) -> str:
        """The same in one line."""
        known = [f"{cores}: {words.seconds_text(s)}" for cores, s in zip(self.cores, self.seconds, strict=True) if s is not None]
        return f"on so many cores: {', '.join(known)}; {self.notes()[0]}"


def path_text(path: Sequence[Step]) -> str:
    """`load#3 -> fit#3 -> total`; a long one without its middle, and the notebook's own work where it counts."""
    labels = [step.label for step in path if step.label]
    if len(labels) > PATH_SHOWN:
        left = len(labels) - PATH_SHOWN + 1
        labels = [*labels[:3], f"({left} more)", *labels[-(PATH_SHOWN - 4) :]]
    own = sum(step.seconds for step in path if not step.label)
    counts = own > NOTEBOOK_SHARE * sum(step.seconds for step in path)
    return " -> ".join(labels) + (f", with {words.seconds_text(own)} in the notebook itself" if counts else "")


def grid(graph: Graph) -> dict[str, Any]:
    """For a page, as JSON: seconds for a few numbers of cores and nodes, and the notes. Raises ValueError for an empty graph."""
    each = [forecast(graph, CORES, nodes, GRID_TASKS) for nodes in GRID_NODES]
    return {
        "cores": list(CORES),
        "nodes": list(GRID_NODES),
        "seconds": [list(one.seconds) for one in each],  # a row for each number of nodes
        "path_s": each[0].path_s,
        "notes": each[0].notes(),
        "sentence": each[0].sentence(),
    }


def forecast(graph: Graph, cores: Sequence[int] = CORES, nodes: int = 1, most: int = MOST_TASKS) -> Forecast:
    """Rehearse the graph once for each number of cores. Raises ValueError for an empty graph, and for clusters of no or too many
    cores."""
    if not graph.tasks:
        raise ValueError("no task of this cell has run, so there is nothing to plan with")
    if not cores or min(cores) < 1 or not 1 <= nodes <= MOST_NODES or max(cores) * nodes > MOST_CORES:
        raise ValueError(f"cores and nodes are at least 1, up to {MOST_CORES} cores in all on up to {MOST_NODES} nodes")
    small = folded(graph, most)
    widest = max(task.cpus for task in graph.tasks)
    seconds = tuple(None if widest > each else Rehearsal(small, each, nodes).seconds() for each in cores)
    return Forecast(
        tuple(cores), nodes, seconds, critical_path(graph), graph.total, len(small.tasks), graph.took_s, graph.workers, widest,
        graph.others,
    )  # fmt: skip
