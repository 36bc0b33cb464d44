"""What an ended task leaves in the trace."""

from __future__ import annotations

import time

from nbray.ids import object_id
from nbray.owner import records as r
from nbray.owner.state import OwnerState
from nbray.trace import TraceRecord
from nbray.wire import messages as m


def record_of(done: r.Finished, owner: OwnerState) -> TraceRecord:
    push = done.task.push
    state = "FINISHED" if done.state == "DONE" else done.state
    detail = "" if done.failure is None else f"{done.failure.kind} {done.failure.type_name}: {done.failure.message}"[:500]
    return TraceRecord(
        "task", push.task, push.name, state, push.cell, done.task.parent, done.node, done.worker, done.attempt,
        done.task.submitted_ns, 0, done.started_ns, done.ended_ns, time.time_ns(), done.cpu_ns,
        [h.object for h in done.task.needs or []], push.returns, detail,
        push.actor if isinstance(push, m.PushCall) else b"", done.task.line, _function_of(push, owner),
        {} if done.task.shape is None else done.task.shape.amounts, done.fetch_ns,
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
        definition = owner.tasks.leases.definitions.get(push.function)
        name = getattr(definition, "name", push.name)
    return "" if name == push.name else name
