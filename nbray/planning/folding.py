"""A graph of many tasks as a smaller one: like tasks that came after one another become one that takes as long as they together.

Like tasks have the same name, demand and actor, lie equally deep in the graph, and were submitted between the same two waits of the
notebook. A fold can only make a forecast longer than it should be, and by no more than about the length of one group.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

from nbray.planning.graph import Graph, Task, critical_path

#: (name, CPUs, actor, depth, wait)
_Kind = tuple[str, float, bytes, int, int]


def folded(graph: Graph, most: int) -> Graph:
    """At most about `most` tasks; the graph itself if it has no more."""
    tasks = graph.tasks
    if len(tasks) <= most:
        return graph
    depth, waits = _depth(tasks), _waits(tasks)
    coarse = 1
    while True:  # a long chain has as many depths as tasks: then neighbours in depth, or in waits, are taken as one
        kinds: dict[_Kind, list[int]] = defaultdict(list)
        for place, task in enumerate(tasks):
            kinds[task.name, task.cpus, task.actor, depth[place] // coarse, waits[place] // coarse].append(place)
        if len(kinds) <= most // 2 or coarse > len(tasks):
            break
        coarse *= 2
    size = 1
    while sum(-(-len(places) // size) for places in kinds.values()) > most and size < len(tasks):
        size *= 2
    groups = [
        (kind[4], kind[3], places[first : first + size]) for kind, places in kinds.items() for first in range(0, len(places), size)
    ]
    groups.sort(key=lambda group: (group[0], group[1], group[2][0]))
    return graph._replace(tasks=_joined(tasks, [members for _, _, members in groups]), path=critical_path(graph))


def _depth(tasks: Sequence[Task]) -> list[int]:
    depth: list[int] = []
    for task in tasks:
        depth.append(1 + max((depth[need] for need in task.needs), default=-1))
    return depth


def _waits(tasks: Sequence[Task]) -> list[int]:
    """For each task the number of times the notebook had waited for everything before it."""
    waits, count = [], 0
    for place, task in enumerate(tasks):
        count += bool(task.after) and task.after >= place
        waits.append(count)
    return waits


def _joined(tasks: Sequence[Task], groups: list[list[int]]) -> list[Task]:
    """`groups` lie so that what they need from one another points back; they are submitted as early as that lets them."""
    home = {place: number for number, members in enumerate(groups) for place in members}
    needs = [
        {home[need] for place in members for need in tasks[place].needs if home[need] < number}
        for number, members in enumerate(groups)
    ]
    order = _early(groups, needs)
    rank = {number: place for place, number in enumerate(order)}
    joined, seen = [], 0
    for place, number in enumerate(order):
        members = groups[number]
        first = tasks[members[0]]
        after = place if first.after >= members[0] else first.after * place // max(1, seen)
        joined.append(
            Task(
                first.name, sum(tasks[each].seconds for each in members), tuple(sorted(rank[need] for need in needs[number])),
                first.cpus, after if first.after else 0, sum(tasks[each].think_s for each in members), first.actor,
                first.label, sum(tasks[each].members for each in members),
            )
        )  # fmt: skip
        seen += len(members)
    return joined


def _early(groups: list[list[int]], needs: list[set[int]]) -> list[int]:
    """Numbers of the groups in the order of their first members, each behind what it needs."""
    missing = [len(each) for each in needs]
    wanted: dict[int, list[int]] = defaultdict(list)
    for number, each in enumerate(needs):
        for need in each:
            wanted[need].append(number)
    ready = [(groups[number][0], number) for number, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, number = heapq.heappop(ready)
        order.append(number)
        for follower in wanted[number]:
            missing[follower] -= 1
            if not missing[follower]:
                heapq.heappush(ready, (groups[follower][0], follower))
    return order
