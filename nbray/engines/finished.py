"""What an ended task leaves in the trace."""

from __future__ import annotations

import time
from typing import Any

from nbray.ids import object_id
from nbray.owner import records as r
from nbray.owner.state import OwnerState
from nbray.trace import TraceRecord
from nbray.wire import messages as m

#: Of most tasks. Records are never changed.
NO_NEEDS: list[bytes] = []
NO_DEMAND: dict[str, int] = {}


def record_of(done: r.Finished, owner: OwnerState) -> TraceRecord:
    task = done.task
    push, failure = task.push, done.failure
    is_call = type(push) is m.PushCall
    return TraceRecord(
        "task", push.task, push.name, "FINISHED" if done.state == "DONE" else done.state, push.cell, task.parent, done.node,
        done.worker, done.attempt, task.submitted_ns, 0, done.started_ns, done.ended_ns, time.time_ns(), done.cpu_ns,
        [h.object for h in task.needs] if task.needs else NO_NEEDS, push.returns,
        "" if failure is None else f"{failure.kind} {failure.type_name}: {failure.message}"[:500],
        push.actor if is_call else b"", task.line, _function_of(push, owner),  # type: ignore[union-attr]
        NO_DEMAND if task.shape is None else task.shape.amounts, done.fetch_ns,
    )  # fmt: skip


def returned_bytes(done: r.Finished, owner: OwnerState) -> int:
    """Of all its results that are still there."""
    total = 0
    for index in range(done.task.push.returns):
        obj = owner.objects.objects.get(object_id(done.task.id, index))
        if obj is not None and obj.value is not None:
            total += obj.value.location.size if obj.value.location is not None else len(obj.value.inline or b"")
    return total


def _function_of(push: m.PushTask | m.PushCall, owner: OwnerState) -> str:
    """What runs, where it goes by another name."""
    if isinstance(push, m.PushCall):
        client = owner.calls.actors.get(push.actor)
        name = f"{client.class_name}.{push.method}" if client is not None else push.method
    else:
        definition: Any = owner.tasks.leases.definitions.get(push.function)
        name = push.name if definition is None else definition.name
    return "" if name == push.name else name
