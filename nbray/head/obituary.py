"""What is said of an actor that is dead: one Failure with the facts as fields and the story as text."""

from __future__ import annotations

import signal
from typing import Any

from nbray.head.records import ActorRecord
from nbray.ids import ActorId, NodeId, short
from nbray.wire.messages import Death, Failure


def called(record: ActorRecord) -> str:
    """What a person calls the actor: "Counter 'total' [actor 3f2a#12]"."""
    name = f" {record.spec.name!r}" if record.spec.name else ""
    return f"{record.spec.class_name}{name} [actor {short(record.actor)}]"


def killed(record: ActorRecord) -> Failure:
    where = f" It ran as pid {record.pid} on node {short(record.node)}." if record.pid and record.node else ""
    return _failure(record, "killed", f"it was killed by `nbray.kill`.{where}{_restarts(record)}")


def worker_died(record: ActorRecord, death: Death) -> Failure:
    text = f"its worker process has died: pid {death.pid} of node {short(death.node)} {_ended(death)}.{_restarts(record)}"
    advice = "" if record.spec.max_restarts else " To have it started again after a crash, create it with max_restarts."
    if death.oom:
        advice = " Ask for memory with memory=..., so that fewer processes share the node."
    return _failure(record, "worker died", text + advice + _last_output(death), death)


def node_died(record: ActorRecord, node: NodeId, reason: str) -> Failure:
    pid = f" (pid {record.pid})" if record.pid else ""
    text = f"its worker process has died{pid}: node {short(node)}, where it ran, is gone: {reason}.{_restarts(record)}"
    return _failure(record, "node died", text, node=node)


def owner_died(record: ActorRecord, reason: str) -> Failure:
    owner = record.spec.owner
    text = (
        f"its owner has died: process {short(owner.process)} on node {short(owner.node)}, which created it, {reason}. "
        "An actor that should outlive its creator is created with lifetime='detached'."
    )
    return _failure(record, "owner died", text)


def left(record: ActorRecord, death: Death) -> Failure:
    """It ended on purpose: exit_actor, or nobody had a handle any more."""
    reason = death.reason or "it was told to"
    text = f"it exited on purpose ({reason}): pid {death.pid} of node {short(death.node)}."
    return _failure(record, "exited", text, death)


def unreferenced(record: ActorRecord) -> Failure:
    return _failure(record, "out of scope", "its last handle went out of scope.")


def unschedulable(record: ActorRecord, why: str) -> Failure:
    return Failure(
        "ActorUnschedulableError",
        "ActorUnschedulableError",
        f"{called(record)} can never start. {why}",
        fields=_facts(record, "unschedulable"),
    )


def group_removed(record: ActorRecord, why: str) -> Failure:
    """An actor that lived is dead like any other; one that had not started yet can never start."""
    if record.worker is not None or record.restarts:
        return _failure(record, "placement group removed", f"its placement group was removed. {why}")
    return Failure(
        "ActorPlacementGroupRemoved",
        "ActorPlacementGroupRemoved",
        f"{called(record)} can never start: its placement group was removed. {why}",
        fields=_facts(record, "placement group removed"),
    )


def init_raised(record: ActorRecord, failure: Failure) -> Failure:
    """The failure of `__init__`, with the user's traceback and exception kept, as the end of the actor."""
    if failure.kind.startswith("Actor") or failure.kind == "RuntimeEnvSetupError":
        return failure
    cause = failure.traceback or f"{failure.type_name}: {failure.message}"
    text = f"The actor died because of an error raised in its creation task, {cause}"
    fields = {**failure.fields, **_facts(record, "init raised"), "actor_init_failed": True}
    return Failure("ActorInitError", failure.type_name, text, failure.traceback, failure.pickle, fields)


def unknown(actor: ActorId, reason: str) -> Failure:
    text = f"Actor {short(actor)} is not known to this cluster: {reason}. Create it again."
    return Failure("ActorDiedError", "ActorDiedError", text, fields={"actor_id": actor.hex(), "cause": "unknown"})


def _failure(record: ActorRecord, cause: str, text: str, death: Death | None = None, node: NodeId | None = None) -> Failure:
    fields = _facts(record, cause)
    if node is not None:
        fields["node"] = node.hex()
    if death is not None:
        fields |= {
            "pid": death.pid,
            "node": death.node.hex(),
            "signal": death.signal,
            "exit_code": death.exit_code,
            "oom": death.oom,
            "log_path": death.log_path,
            "log_tail": death.log_tail,
        }
    return Failure("ActorDiedError", "ActorDiedError", f"{called(record)} is dead because {text}", fields=fields)


def _facts(record: ActorRecord, cause: str) -> dict[str, Any]:
    return {
        "actor_id": record.actor.hex(),
        "class_name": record.spec.class_name,
        "actor_name": record.spec.name,
        "cause": cause,
        "pid": record.pid,
        "node": record.node.hex() if record.node is not None else "",
        "epoch": record.epoch,
        "restarts": record.restarts,
        "max_restarts": record.spec.max_restarts,
    }


def _restarts(record: ActorRecord) -> str:
    allowed = record.spec.max_restarts
    if allowed < 0:
        return f" It had been restarted {record.restarts} times."
    return f" {record.restarts} of its {allowed} restarts were used." if allowed else ""


def _ended(death: Death) -> str:
    if death.signal is not None:
        by = f"was killed by {_signal_name(death.signal)}"
        return f"{by}; memory had run out" if death.oom else by
    if death.exit_code is not None:
        return f"exited with code {death.exit_code}"
    return f"ended: {death.reason}" if death.reason else "ended, and nothing is known of how"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_output(death: Death) -> str:
    tail = f"\nLast output:\n{death.log_tail.rstrip()}" if death.log_tail.strip() else ""
    return tail + (f"\nLog: {death.log_path}" if death.log_path else "")
