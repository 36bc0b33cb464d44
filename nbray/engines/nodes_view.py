"""The cluster and its objects as dictionaries, in Ray's form where Ray has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbray.ids import task_of
from nbray.owner.questions import ANSWER_S, Questions
from nbray.owner.records import OwnedObject, OwnedTask
from nbray.owner.runtime import ATTACH_S, Runtime
from nbray.refs import ObjectRef
from nbray.sched.resources import HEAD_NODE, NODE, to_floats


def nodes(runtime: Runtime, questions: Questions, patience_s: float | None) -> list[dict[str, Any]]:
    """All of them. Raises HeadUnavailableError when there is no cluster, or its head does not answer, within `patience_s`."""
    runtime.wait_attached(patience_s or ATTACH_S)
    return [node(info) for info in questions.ask("nodes", {}, patience_s or ANSWER_S)]


def node(info: dict[str, Any]) -> dict[str, Any]:
    """One node, from the head's answer."""
    return {
        "NodeID": info["node_id"],
        "Alive": info["alive"],
        "NodeManagerAddress": _address(info["total"]) or info["host"],
        "NodeManagerHostname": info["host"],
        "NodeManagerPid": info["pid"],
        "Resources": to_floats(info["total"]),
        "Available": to_floats(info["available"]),
        "Labels": dict(info["labels"]),
        "IsHead": info["is_head"],
        "Gateway": info["gateway"],
        "ObjectStoreBytes": info["store_bytes"],
        "ObjectStoreUsed": info["store_used"],
        "DeathCause": info["death_cause"],
        "Queued": [{"resources": to_floats(q["amounts"]), "count": q["count"], "why": q["why"]} for q in info["queued"]],
    }


def _address(total: Mapping[str, int]) -> str:
    return next((name.removeprefix(NODE) for name in total if name.startswith(NODE) and name != HEAD_NODE), "")


def object_facts(ref: ObjectRef[Any], obj: OwnedObject | None, task: OwnedTask | None) -> dict[str, Any]:
    task_id = task_of(ref.binary()).hex()
    facts: dict[str, Any] = {"object_id": ref.hex(), "task_id": task_id, "state": "PENDING", "size": None, "node": None, "type": ""}
    if task is not None:
        facts |= {"name": task.push.name, "cell": task.push.cell, "task_state": task.state}
    facts["call_site"] = obj.line if obj is not None else ""
    if obj is None or obj.value is None:
        return facts
    value = obj.value
    facts["type"] = value.said
    if value.failure is not None:
        facts |= {"state": "FAILED", "error": value.failure.kind}
    elif value.location is not None:
        facts |= {"state": "READY", "size": value.location.size, "node": value.location.node.hex()}
    else:
        facts |= {"state": "READY", "size": len(value.inline or b"")}
    facts |= {"local_references": obj.count, "borrowers": len(obj.holders or {}), "cell": obj.cell or facts.get("cell", "")}
    return facts
