"""Which unfinished tasks whoever draws is told of: all where they are few, a bounded number where they are very many."""

from __future__ import annotations

from nbray.engines.unfinished import MOST, some_unfinished
from nbray.owner import records as r
from tests.owner.desk import Desk


def test_few_tasks_are_all_told_with_their_state_and_what_they_need() -> None:
    desk = Desk()
    ended = desk.running()
    desk.done(ended)
    first = desk.submit(cell="c")
    behind = desk.submit(cell="c", retries=0)
    waits = desk.submit(needs=[desk.ref(first)])
    told = {task.id: task for task in some_unfinished(desk.state, [])}
    assert told.keys() == {first.id, behind.id, waits.id}
    assert [told[task.id].state for task in (first, behind, waits)] == ["RUNNING", "QUEUED", "WAITING"]
    assert told[waits.id].needs == (first.id,)
    assert (told[first.id].cell, told[first.id].name) == ("c", "f")


def test_of_very_many_a_bounded_number_is_told_with_what_is_asked_for_and_what_that_needs() -> None:
    desk = Desk()
    running = desk.running()
    tasks = [desk.task() for _ in range(20_000)]
    for task in tasks:
        desk.state.handle(r.Submitted(task), desk.now)
    last = desk.task(needs=[desk.ref(tasks[7_001])])
    desk.state.handle(r.Submitted(last), desk.now)
    told = {task.id for task in some_unfinished(desk.state, [tasks[12_345].id, b"of nobody"])}
    assert len(told) < MOST
    assert {running.id, tasks[0].id, last.id, tasks[7_001].id, tasks[12_345].id} <= told
    asked = some_unfinished(desk.state, [task.id for task in tasks])
    assert MOST // 2 < len(asked) <= MOST
