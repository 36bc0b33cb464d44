"""One task as the State API tells of it, column by column: only what is asked for is worked out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nbray.owner.records import PUSHED, QUEUED, ActorClient, OwnedTask
from nbray.sched.resources import UNIT, to_floats
from nbray.trace import TraceRecord
from nbray.wire.environment import public
from nbray.wire.messages import Message, PushCall

NORMAL, CREATION, CALL = "NORMAL_TASK", "ACTOR_CREATION_TASK", "ACTOR_TASK"
#: Ray's word for what kind of failure ended a task, by the class of ours.
ERROR_TYPES = {
    "RayTaskError": "TASK_EXECUTION_EXCEPTION",
    "TaskCancelledError": "TASK_CANCELLED",
    "WorkerCrashedError": "WORKER_DIED",
    "OutOfMemoryError": "OUT_OF_MEMORY",
    "ActorDiedError": "ACTOR_DIED",
    "ActorUnavailableError": "ACTOR_UNAVAILABLE",
    "NodeDiedError": "NODE_DIED",
    "RuntimeEnvSetupError": "RUNTIME_ENV_SETUP_FAILED",
    "OwnerDiedError": "OWNER_DIED",
    "ObjectLostError": "OBJECT_LOST",
    "ObjectReconstructionFailedError": "OBJECT_UNRECONSTRUCTABLE",
}


class Circumstances(NamedTuple):
    """What the columns of an unfinished task need to know besides it."""

    job: str
    running: dict[bytes, tuple[Any, ...]]  #: what workers said that they run: task -> (state, began_ns)
    heard: set[bytes]  #: workers that have said so
    actors: dict[bytes, ActorClient]
    definitions: Mapping[bytes, Message]  #: DefineFunction, by function


def waits(task: OwnedTask) -> str:
    """Ray's word for what a task waits for at its owner; "" once it was sent to a worker."""
    if task.state == PUSHED:
        return ""
    if task.state == QUEUED or not task.missing:
        return "PENDING_NODE_ASSIGNMENT"
    return "PENDING_ARGS_AVAIL"


def of_task(task: OwnedTask, here: Circumstances) -> Callable[[str], Any]:
    """Column -> value of a task that is not over."""

    def value_of(column: str) -> Any:
        return UNFINISHED[column](task, here)

    return value_of


def _kind(task: OwnedTask) -> str:
    if isinstance(task.push, PushCall):
        return CALL
    return NORMAL if task.shape is not None else CREATION


def _state(task: OwnedTask, here: Circumstances) -> str:
    waiting = waits(task)
    if waiting:
        return waiting
    said = here.running.get(task.id)
    if said is not None:
        return str(said[0])
    if isinstance(task.push, PushCall):
        return "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"
    lease = task.lease
    if lease is None or lease.worker.process in here.heard or next(iter(lease.running), None) != task.id:
        return "SUBMITTED_TO_WORKER"
    return "RUNNING_IN_RAY_GET" if lease.blocked else "RUNNING"


def _place(task: OwnedTask, here: Circumstances) -> tuple[bytes, bytes]:
    """(node, worker) that it was sent to; empty bytes before."""
    if task.state != PUSHED:
        return b"", b""
    if task.lease is not None:
        return task.lease.node, task.lease.worker.process
    client = here.actors.get(task.push.actor) if isinstance(task.push, PushCall) else None
    return (client.address.node, client.address.process) if client is not None and client.address is not None else (b"", b"")


def _actor(task: OwnedTask) -> str | None:
    if isinstance(task.push, PushCall):
        return task.push.actor.hex()
    return None if task.shape is not None else task.id.hex()


def _function(task: OwnedTask, here: Circumstances) -> str:
    push = task.push
    if isinstance(push, PushCall):
        client = here.actors.get(push.actor)
        return f"{client.class_name}.{push.method}" if client is not None else push.method
    definition = here.definitions.get(push.function)
    return str(getattr(definition, "name", push.name)) if task.shape is not None else push.name


def _resources(task: OwnedTask) -> dict[str, float]:
    if task.shape is not None:
        return to_floats(task.shape.amounts)
    return {} if isinstance(task.push, PushCall) else to_floats({"CPU": UNIT})


def _environment(task: OwnedTask) -> dict[str, str] | None:
    env = task.shape.env if task.shape is not None else ""
    return {"serialized_runtime_env": json.dumps(public(env))} if env else None


def _began(task: OwnedTask, here: Circumstances) -> int | None:
    said = here.running.get(task.id)
    return said[1] // 1_000_000 if said is not None and said[1] else None


UNFINISHED: dict[str, Callable[[OwnedTask, Circumstances], Any]] = {
    "task_id": lambda t, h: t.id.hex(),
    "attempt_number": lambda t, h: t.push.attempt,
    "name": lambda t, h: t.push.name,
    "state": _state,
    "job_id": lambda t, h: h.job,
    "actor_id": lambda t, h: _actor(t),
    "type": lambda t, h: _kind(t),
    "func_or_class_name": _function,
    "parent_task_id": lambda t, h: t.parent.hex(),
    "node_id": lambda t, h: _place(t, h)[0].hex() or None,
    "worker_id": lambda t, h: _place(t, h)[1].hex() or None,
    "worker_pid": lambda t, h: t.lease.pid if t.state == PUSHED and t.lease is not None else None,
    "error_type": lambda t, h: None,
    "language": lambda t, h: "PYTHON",
    "required_resources": lambda t, h: _resources(t),
    "runtime_env_info": lambda t, h: _environment(t),
    "placement_group_id": lambda t, h: t.shape.group.hex() or None if t.shape is not None else None,
    "creation_time_ms": lambda t, h: t.submitted_ns // 1_000_000,
    "start_time_ms": _began,
    "end_time_ms": lambda t, h: None,
    "cpu_time_ms": lambda t, h: None,
    "error_message": lambda t, h: None,
    "call_site": lambda t, h: t.line,
    "cell": lambda t, h: t.push.cell,
}


def of_record(record: TraceRecord, job: str) -> Callable[[str], Any]:
    """Column -> value of a task that is over."""

    def value_of(column: str) -> Any:
        return FINISHED[column](record, job)

    return value_of


def _milliseconds(nanoseconds: int) -> int | None:
    return nanoseconds // 1_000_000 if nanoseconds else None


def _error_type(record: TraceRecord) -> str | None:
    if record.state == "FINISHED":
        return None
    return ERROR_TYPES.get(record.detail.partition(" ")[0], "TASK_EXECUTION_EXCEPTION")


FINISHED: dict[str, Callable[[TraceRecord, str], Any]] = {
    "task_id": lambda r, j: r.id.hex(),
    "attempt_number": lambda r, j: r.attempt,
    "name": lambda r, j: r.name,
    "state": lambda r, j: "FINISHED" if r.state == "FINISHED" else "FAILED",
    "job_id": lambda r, j: j,
    "actor_id": lambda r, j: r.actor.hex() or None,
    "type": lambda r, j: CALL if r.actor else NORMAL,
    "func_or_class_name": lambda r, j: r.function or r.name,
    "parent_task_id": lambda r, j: r.parent.hex(),
    "node_id": lambda r, j: r.node.hex() or None,
    "worker_id": lambda r, j: r.worker.hex() or None,
    "worker_pid": lambda r, j: None,
    "error_type": lambda r, j: _error_type(r),
    "language": lambda r, j: "PYTHON",
    "required_resources": lambda r, j: None,
    "runtime_env_info": lambda r, j: None,
    "placement_group_id": lambda r, j: None,
    "creation_time_ms": lambda r, j: _milliseconds(r.submitted_ns),
    "start_time_ms": lambda r, j: _milliseconds(r.started_ns),
    "end_time_ms": lambda r, j: _milliseconds(r.ended_ns or r.done_ns),
    "cpu_time_ms": lambda r, j: r.cpu_ns / 1e6,
    "error_message": lambda r, j: r.detail.partition(" ")[2].removeprefix(": ") if r.detail else None,
    "call_site": lambda r, j: r.line,
    "cell": lambda r, j: r.cell,
}
