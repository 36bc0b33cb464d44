"""A cell's tasks as they were measured: how long each ran, what it needed first, and when the notebook submitted it.

The notebook is part of the graph. It submits one task after the other, with its own work in between, and now and then it waits for
results before it goes on. From the times that is read as follows: where a pause before a submission saw a task end, and either
nothing was left to wait for or the submission came at once after that end, the notebook had waited for it; any other pause was work
of its own.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from nbray.sched.resources import UNIT
from nbray.trace import TraceRecord

PAUSE_NS = 5_000_000  #: between two submissions, below which nobody can have waited for a task
AT_ONCE_NS = 20_000_000  #: a submission that follows an end this soon was waiting for it
S = 1e9  #: nanoseconds in one


class Task(NamedTuple):
    """One task, or like ones that run one after the other (`members`). Known by its place in the order of submission."""

    name: str
    seconds: float
    needs: tuple[int, ...] = ()
    cpus: float = 1.0
    after: int = 0  #: submitted once so many of those before it have ended
    think_s: float = 0.0  #: and after this much work in the notebook
    actor: bytes = b""  #: of a call
    label: str = ""
    members: int = 1


class Step(NamedTuple):
    """One link of the critical path. `label` is empty for the notebook's own work."""

    label: str
    seconds: float


class Graph(NamedTuple):
    """`tasks` in the order of their submission; each needs only earlier ones."""

    tasks: Sequence[Task]
    took_s: float = 0.0  #: measured: from the first submission to the last end
    workers: int = 0  #: measured: how many there were
    others: tuple[str, ...] = ()  #: resources besides CPUs that tasks asked for
    lanes: dict[bytes, int] = {}  #: calls that each actor runs at a time, where that is more than one
    path: Sequence[Step] = ()  #: the critical path, once it is known: that of single tasks, also where they have been folded

    @property
    def work_s(self) -> float:
        return sum(task.seconds for task in self.tasks)

    @property
    def total(self) -> int:
        return sum(task.members for task in self.tasks)


def graph_of(records: Sequence[TraceRecord]) -> Graph:
    """The graph of tasks that ended. Those that never began (cancelled while queued) are left out."""
    ran = sorted((each for each in records if each.started_ns), key=lambda each: each.submitted_ns)
    if not ran:
        return Graph([])
    places = {each.id: place for place, each in enumerate(ran)}
    totals, numbers = Counter(each.name for each in ran), Counter[str]()
    ends = sorted(_known_ns(each) for each in ran)
    tasks: list[Task] = []
    before_ns = ran[0].submitted_ns
    for place, each in enumerate(ran):
        numbers[each.name] += 1
        after, think_ns = _pause(before_ns, each.submitted_ns, place, ends)
        before_ns = each.submitted_ns
        needs = {places.get(needed[:16], place) for needed in each.needs}
        tasks.append(
            Task(
                each.name,
                max(0, each.ended_ns - each.started_ns) / S,
                tuple(sorted(need for need in needs if need < place)),
                0.0 if each.actor else each.demand.get("CPU", 0) / UNIT,
                after,
                think_ns / S,
                each.actor,
                f"{each.name}#{numbers[each.name]}" if totals[each.name] > 1 else each.name,
            )
        )
    others = sorted({name for each in ran for name in each.demand} - {"CPU"})
    took_s = (ends[-1] - ran[0].submitted_ns) / S
    return Graph(tasks, took_s, len({(each.node, each.worker) for each in ran}), tuple(others), _lanes(ran))


def _known_ns(record: TraceRecord) -> int:
    """When the notebook knew that it had ended."""
    return record.done_ns or record.ended_ns


def _pause(before_ns: int, submitted_ns: int, place: int, ends: list[int]) -> tuple[int, int]:
    """What lay between two submissions: (how many tasks the notebook waited for, work of its own in ns)."""
    gap_ns = max(0, submitted_ns - before_ns)
    if gap_ns < PAUSE_NS:
        return 0, gap_ns
    ended = bisect.bisect_right(ends, submitted_ns)
    last_ns = ends[ended - 1] if ended else 0
    waited = last_ns > before_ns and (ended >= place or submitted_ns - last_ns < AT_ONCE_NS)
    return (min(ended, place), submitted_ns - last_ns) if waited else (0, gap_ns)


def _lanes(ran: Sequence[TraceRecord]) -> dict[bytes, int]:
    """The most calls that each actor had at work at once; those with one only are left out."""
    moments: dict[bytes, list[tuple[int, int]]] = {}
    for each in ran:
        if each.actor:
            moments.setdefault(each.actor, []).extend([(each.started_ns, 1), (each.ended_ns, -1)])
    lanes = {}
    for actor, changes in moments.items():
        running = most = 0
        for _, change in sorted(changes):
            running += change
            most = max(most, running)
        if most > 1:
            lanes[actor] = most
    return lanes


def critical_path(graph: Graph) -> list[Step]:
    """What would still happen one after the other if there were cores for everything, first to last.

    An actor's calls count as its line: each waits for the one before, unless the actor runs several at a time.
    """
    if graph.path:
        return list(graph.path)
    finish: list[float] = []
    cause: list[int] = []  #: the task whose end let this one begin; -1: the start of the cell
    thought: list[float] = []  #: work of the notebook between that end and this beginning
    ordered: list[float] = []  #: ends so far, and the tasks that they belong to
    owners: list[int] = []
    free_s, free_cause, own_s = 0.0, -1, 0.0  #: when the notebook can go on, what let it, and its own work since
    lines: dict[bytes, int] = {}
    for place, task in enumerate(graph.tasks):
        if task.after and ordered[task.after - 1] > free_s:
            free_s, free_cause, own_s = ordered[task.after - 1], owners[task.after - 1], 0.0
        free_s, own_s = free_s + task.think_s, own_s + task.think_s
        begin, why, own = free_s, free_cause, own_s
        needs = task.needs
        if task.actor and task.actor not in graph.lanes:
            needs = (*needs, lines[task.actor]) if task.actor in lines else needs
            lines[task.actor] = place
        for need in needs:
            if finish[need] > begin:
                begin, why, own = finish[need], need, 0.0
        finish.append(begin + task.seconds)
        cause.append(why)
        thought.append(own)
        at = bisect.bisect(ordered, finish[-1])
        ordered.insert(at, finish[-1])
        owners.insert(at, place)
    return _walk(graph, finish, cause, thought)


def _walk(graph: Graph, finish: list[float], cause: list[int], thought: list[float]) -> list[Step]:
    steps: list[Step] = []
    place = max(range(len(finish)), key=finish.__getitem__) if finish else -1
    while place >= 0:
        task = graph.tasks[place]
        steps.append(Step(task.label or task.name, task.seconds))
        if thought[place] > 0:
            steps.append(Step("", thought[place]))
        place = cause[place]
    return steps[::-1]
