"""What this process knows already of an object, an actor, a stream or a group, for whoever shows one. Only of a group that another
process made the head is asked, and not for long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbray.exceptions import HeadUnavailableError, RaySystemError
from nbray.ids import object_id
from nbray.refs import ObjectRef
from nbray.sched.resources import to_floats

if TYPE_CHECKING:
    from nbray.engines.native import NativeEngine

PATIENCE_S = 0.3  #: who shows something waits no longer


class Looks:
    """Implements engines/port.py:Looks."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine

    def object(self, ref: ObjectRef[Any]) -> dict[str, Any]:
        engine, me = self._engine, self._engine.runtime.me
        told = engine.facts_of(ref)
        with engine.runtime.locked() as state:
            obj = state.objects.objects.get(ref.binary())
            mine = obj is not None and obj.owner.process == me.process
            copies = sorted(node.hex() for node in obj.copies or ()) if obj is not None else []
        return {**told, "mine": mine, "copies": copies, "here": me.node.hex()}

    def actor(self, actor: bytes) -> dict[str, Any]:
        with self._engine.runtime.locked() as state:
            client = state.calls.actors.get(actor)
            made = state.objects.objects.get(object_id(actor))
            line = made.line if made is not None else ""
            if client is None:
                return {"state": "", "call_site": line}
            waiting = len(client.waiting) + sum(len(calls) for calls in client.lines.values())
            failure = client.failure or client.killed
            return {
                "state": "DEAD" if client.killed is not None else "" if client.state == "UNKNOWN" else client.state,
                "why": failure.message if failure is not None else client.why,
                "node": client.address.node.hex() if client.address is not None else "",
                "here": self._engine.runtime.me.node.hex(),
                "restarts": max(0, client.epoch),
                "running": len(client.running),
                "waiting": waiting,
                "call_site": line,
            }

    def stream(self, end: bytes) -> dict[str, Any]:
        with self._engine.runtime.locked() as state:
            stream = state.tasks.streams.streams.get(end[:16])
            obj = state.objects.objects.get(end)
            value = obj.value if obj is not None else None
            told = {
                "ended": value is not None,
                "failed": value is not None and value.failure is not None,
                "call_site": obj.line if obj is not None else "",
                "came": None,
                "taken": None,
            }
            if stream is None:
                return told
            return {**told, "came": stream.known, "taken": stream.taken, "task_state": stream.task.state}

    def running(self) -> set[bytes]:
        with self._engine.runtime.locked() as state:
            return {task.id for task in state.first_running()}

    def group(self, group: bytes) -> dict[str, Any]:
        with self._engine.runtime.locked() as state:
            told, why = state.groups.state(group), state.groups.why(group)
        if told is not None:
            return {"state": told or "PENDING", "why": why}  # nothing is told before something has changed
        try:
            found = self._engine.questions.ask("groups", {"group": group}, PATIENCE_S)
        except (HeadUnavailableError, RaySystemError):
            return {"state": "", "why": why}
        if not found:
            return {"state": "", "why": "this cluster has no such group"}
        return {
            "state": found[0]["state"],
            "why": found[0]["why"],
            "bundles": [to_floats(bundle) for bundle in found[0]["bundles"]],
        }
