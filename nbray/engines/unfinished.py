"""Which of a process's tasks have not ended, for whoever draws them: all, or a bounded number that stands for very many."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice

from nbray.engines.port import UnfinishedTask
from nbray.owner.records import PUSHED, WAITING, OwnedTask
from nbray.owner.state import OwnerState

END = 250  #: of the first, and of the last
BETWEEN = 500  #: evenly spread
MOST = 4_000
MOST_NEEDS = 100  #: of one task


def some_unfinished(state: OwnerState, tasks: Iterable[bytes]) -> list[UnfinishedTask]:
    """See engines/port.py:Engine.unfinished. Under the owner's lock."""
    table = state.tasks.tasks
    running = {task.id for task in state.first_running()}
    asked = (table[task] for task in tasks if task in table)
    begun = (table[task] for task in running if task in table)
    todo = list(islice(chain(begun, _spread(table), asked), MOST))
    chosen = {task.id: task for task in todo}
    for task in todo:  # which grows
        for need in _needs(task):
            if need not in chosen and need in table and len(todo) < MOST:
                chosen[need] = table[need]
                todo.append(table[need])
    return [_told(task, running) for task in chosen.values()]


def _spread(table: dict[bytes, OwnedTask]) -> Iterable[OwnedTask]:
    """In the order of submission. Of very many the list is copied, which costs a few nanoseconds for each, and not walked."""
    every = list(table.values())
    if len(every) <= 2 * END + BETWEEN:
        return every
    return chain(every[:END], every[-END:], every[END : -END : len(every) // BETWEEN])


def _needs(task: OwnedTask) -> tuple[bytes, ...]:
    return tuple({held.object[:16] for held in islice(task.needs or (), MOST_NEEDS)})


def _told(task: OwnedTask, running: set[bytes]) -> UnfinishedTask:
    state = "RUNNING" if task.id in running and task.state == PUSHED else "WAITING" if task.state == WAITING else "QUEUED"
    return UnfinishedTask(task.id, task.push.name, task.push.cell, state, _needs(task), task.parent)
