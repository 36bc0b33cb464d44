"""What holds objects besides the names of a program: tasks that wait for them, actors and workers that have them, other objects."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from nbray.ids import ProcessId
from nbray.owner.records import PUSHED, QUEUED, WAITING, OwnedObject, OwnedTask
from nbray.owner.runtime import Runtime

HERE = "this notebook"


class Holding:
    """The tables of an owner at one moment. Copied under its lock, looked at outside: nothing waits meanwhile."""

    def __init__(self, runtime: Runtime) -> None:
        with runtime.locked() as state:
            self._objects = dict(state.objects.objects)
            tasks = list(state.tasks.tasks.values())
            self._processes = {
                client.address.process: f"actor {client.class_name}" for client in state.calls.actors.values() if client.address
            }
            for pool in state.tasks.leases.pools.values():
                for lease in pool.leases.values():
                    running = next(iter(lease.running.values()), None)
                    what = f"running {running.push.name}" if running is not None else "for an earlier task"
                    self._processes[lease.worker.process] = f"worker {lease.pid}, {what}"
        self._tasks = [task for task in tasks if task.pins]
        self._tasks += {
            id(task): task for obj in self._objects.values() if (task := obj.task) is not None and _may_repeat(task)
        }.values()
        self._inside = Counter(
            held.object for obj in self._objects.values() if obj.value is not None for held in obj.value.contains
        )

    def of(self, groups: Sequence[Collection[bytes]], mine: Sequence[int]) -> list[dict[str, int]]:
        """For each group of objects: who holds any of them, in words, and how many of each kind. `mine`: how many references of
        each group the asker knows itself; what this process holds beyond those is told as HERE."""
        where: defaultdict[bytes, list[int]] = defaultdict(list)
        for number, group in enumerate(groups if self._tasks else ()):
            for object_ in group:
                where[object_].append(number)
        found: list[Counter[str]] = [Counter() for _ in groups]
        pinned: Counter[bytes] = Counter()
        for task in self._tasks:
            wanted = [pin for pin in task.pins or () if pin in where]
            pinned.update(wanted)
            for number in {number for pin in wanted for number in where[pin]}:
                found[number][_of_task(task)] += 1
        for number, group in enumerate(groups):
            objects = [obj for object_ in group if (obj := self._objects.get(object_)) is not None]
            self._of_objects(objects, found[number], pinned, mine[number])
        return [dict(each) for each in found]

    def _of_objects(self, objects: list[OwnedObject], found: Counter[str], pinned: Counter[bytes], mine: int) -> None:
        # One thing after the other: they may be a hundred thousand, and mostly nobody else holds any.
        held = [obj.holders for obj in objects if obj.holders]
        processes: set[ProcessId] = {process for holders in held for process, count in holders.items() if count > 0}
        local = sum([obj.count for obj in objects])
        if self._inside and (several := [count for obj in objects if (count := self._inside.get(obj.id))]):
            found["a value that contains it"] += len(several)
            local -= sum(several)
        if pinned:
            local -= sum([pinned.get(obj.id, 0) for obj in objects])
        for process in sorted(processes):
            found[self._processes.get(process, f"process {process.hex()[:8]}")] += 1
        if local > mine:
            found[HERE] += local - mine

    def unnamed(self, named: Collection[bytes]) -> list[dict[str, Any]]:
        """Objects that this process refers to and `named` leaves out, by where they were made: the largest groups first."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for obj in self._objects.values():
            if obj.id in named or (obj.value is None and obj.count <= 0):
                continue
            value = obj.value
            state = "pending" if value is None else "failed" if value.failure is not None else "ready"
            size = 0 if value is None else value.location.size if value.location is not None else len(value.inline or b"")
            row = rows.setdefault((obj.line, state), {"line": obj.line, "state": state, "objects": 0, "size": 0})
            row["objects"] += 1
            row["size"] += size
        return sorted(rows.values(), key=lambda row: (-row["size"], -row["objects"]))


def _may_repeat(task: OwnedTask) -> bool:
    """It is over, and keeps what it took: a result of it may be lost, and then it runs again."""
    return bool(task.pins) and task.state not in (WAITING, QUEUED, PUSHED)


def _of_task(task: OwnedTask) -> str:
    if _may_repeat(task):
        return f"finished task {task.push.name}, to make lost results again"
    return f"{'running' if task.state == PUSHED else 'waiting'} task {task.push.name}"


def said(holders: dict[str, int]) -> str:
    """`2 waiting tasks f, actor A`."""
    parts = []
    for who, count in sorted(holders.items()):
        several = who.replace(" task ", " tasks ").replace("a value that contains it", "values that contain it")
        parts.append(who if count == 1 else f"{who} ({count:,} references)" if who == HERE else f"{count:,} {several}")
    return ", ".join(parts)
