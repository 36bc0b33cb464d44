"""What is said when a process ends: failures with their facts, and the words for a person."""

from __future__ import annotations

from typing import Any

from nbray.exceptions import ObjectReconstructionFailedError
from nbray.ids import ActorId, NodeId, short
from nbray.owner.records import OwnedObject, OwnedTask
from nbray.wire.messages import Death, Failure, PushCall

SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    15: "SIGTERM",
    24: "SIGXCPU",
}


def ended(death: Death) -> str:
    """How a process ended, as the end of a sentence."""
    if death.reason:
        return f"ended: {death.reason}"
    if death.oom:
        return "was killed because memory ran out"
    if death.signal is not None:
        return f"was killed by {SIGNALS.get(death.signal, f'signal {death.signal}')}"
    if death.exit_code is not None:
        return f"exited with code {death.exit_code}"
    return "ended, and nothing is known of how"


def facts(task: OwnedTask, death: Death) -> dict[str, Any]:
    return {
        "task": task.id.hex(),
        "name": task.push.name,
        "cell": task.push.cell,
        "attempt": task.push.attempt,
        "pid": death.pid,
        "node": death.node.hex(),
        "signal": death.signal,
        "exit_code": death.exit_code,
        "oom": death.oom,
        "log_path": death.log_path,
        "log_tail": death.log_tail,
    }


def _last_output(death: Death) -> str:
    tail = f"\nLast output:\n{death.log_tail.rstrip()}" if death.log_tail.strip() else ""
    return tail + (f"\nLog: {death.log_path}" if death.log_path else "")


def crashed(task: OwnedTask, death: Death, allowed: int) -> Failure:
    """The task's worker died and no retry is left. `allowed` is the number of retries the task had."""
    kind = "OutOfMemoryError" if death.oom else "WorkerCrashedError"
    advice = (
        "Ask for memory with @nbray.remote(memory=...), so that fewer such tasks run at once."
        if death.oom
        else "If the crash is not the task's own doing, raise max_retries."
    )
    message = (
        f"{task.push.name or 'a task'} [task {short(task.id)}, attempt {task.push.attempt + 1} of {allowed + 1}] was running on "
        f"worker {death.pid} of node {short(death.node)} when that process {ended(death)}. {advice}{_last_output(death)}"
    )
    return Failure(kind, message=message, fields=facts(task, death))


def node_gone(task: OwnedTask, node: NodeId, reason: str) -> Failure:
    message = (
        f"{task.push.name or 'a task'} [task {short(task.id)}] was running on node {short(node)}, and the node is gone: {reason}"
    )
    return Failure("NodeDiedError", message=message, fields={"node": node.hex(), "task": task.id.hex(), "cell": task.push.cell})


def cancelled(task: OwnedTask, ran: bool = False) -> Failure:
    state = "while it ran" if ran or task.state == "PUSHED" else "before it began"
    push, name = task.push, task.push.task.hex()
    message = f"{push.name or 'the task'} (task {name}) was cancelled {state}"
    return Failure("TaskCancelledError", message=message, fields={"task": name, "cell": push.cell})


def lost(obj: OwnedObject, last_copy: str) -> Failure:
    """Every copy of an object is gone. `last_copy` is a clause about where that was; `obj.once` says why there will be no other."""
    why = ObjectReconstructionFailedError.REASON_MESSAGES[obj.once]
    made = f"made at {obj.line}, " if obj.line else ""
    message = f"the object {obj.id.hex()} is lost: {made}{last_copy}. The object cannot be reconstructed because {why}."
    fields = {"object_ref_hex": obj.id.hex(), "call_site": obj.line, "cell": obj.cell, "reason": obj.once, "reason_message": why}
    return Failure("ObjectReconstructionFailedError", message=message, fields=fields)


def actor_killed(actor: ActorId, class_name: str) -> Failure:
    """As far as who killed it knows, before the head has told more."""
    message = f"{class_name} [actor {short(actor)}] is dead because it was killed by `nbray.kill`."
    fields = {"actor_id": actor.hex(), "class_name": class_name, "cause": "killed"}
    return Failure("ActorDiedError", "ActorDiedError", message, fields=fields)


def actor_call_lost(task: OwnedTask, cause: Failure, begun: bool) -> Failure:
    """A call that the actor's end took with it. `begun`: it may have run, wholly or in part."""
    assert isinstance(task.push, PushCall)
    note = "The call may have run, wholly or in part." if begun else "The call did not begin."
    fields = {**cause.fields, "actor": task.push.actor.hex(), "method": task.push.method, "maybe_executed": begun}
    return Failure(cause.kind, cause.type_name, f"{cause.message}\n{note}", cause.traceback, cause.pickle, fields)
