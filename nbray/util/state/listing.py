"""The lists, kind by kind: whom to ask, and how their answers come together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from nbray.columns import Filter, matches, told
from nbray.engines import task_rows
from nbray.sched.resources import to_floats
from nbray.trace import decode_records
from nbray.util.state.asking import Asker
from nbray.util.state.common import ENTRIES, Listing
from nbray.wire.environment import public, setup_of

FINISHED = ("FINISHED", "FAILED")
#: The head's words for an actor's state, and Ray's where they differ.
ACTOR_STATES = {"PENDING": "PENDING_CREATION"}


class Query(msgspec.Struct, frozen=True):
    """What is asked for; `filters` are checked."""

    kind: str
    filters: list[Filter]
    limit: int
    detail: bool


def listing(asker: Asker, query: Query) -> Listing:
    """The entries of `query`, at most its `limit`, with how many there are in all."""
    rows, total, problems = SOURCES[query.kind](asker, query)
    cls = ENTRIES[query.kind]
    return Listing(map(cls, rows[: query.limit]), total, [*asker.say_who(), *problems])


Found = tuple[list[dict[str, Any]], int, list[str]]  #: rows, how many there are, what is missing


def _picked(rows: Iterable[dict[str, Any]], query: Query) -> Found:
    """Of rows that are all here: those that pass, with the columns that were asked for."""
    columns = told(query.kind, detail=query.detail)
    passed = [row for row in rows if matches(query.filters, row.get)]
    return [{name: row.get(name) for name in columns} for row in passed[: query.limit]], len(passed), []


# ------------------------------------------------------------------------------------------------------- tasks


def _tasks(asker: Asker, query: Query) -> Found:
    workers = asker.workers()
    filters = [_by_worker(each, workers) for each in query.filters]
    said = asker.each_process("tasks", filters=filters, limit=query.limit, detail=query.detail, **what_runs(asker))
    rows = [row for answer in said.values() for row in answer["rows"]]
    total = sum(answer["total"] for answer in said.values())
    for more in (of_the_gone(asker, set(said)), creations(asker)):
        passed = [value_of for value_of in more if matches(filters, value_of)]
        columns = told("tasks", detail=query.detail)
        rows += [{name: value_of(name) for name in columns} for value_of in passed[: query.limit]]
        total += len(passed)
    pids = {worker["worker_id"]: worker["pid"] for worker in workers}
    for row in rows:
        row["worker_pid"] = row["worker_pid"] or pids.get(row["worker_id"])
    rows.sort(key=lambda row: row["state"] in FINISHED)  # stable: each owner told them in this order
    return rows, total, forgotten(said)


def forgotten(said: dict[bytes, Any]) -> list[str]:
    count = sum(answer["forgotten"] for answer in said.values())
    return [f"{count:,} finished tasks are too long ago to be remembered (NBRAY_TRACE_RECORDS)"] if count else []


def what_runs(asker: Asker) -> dict[str, Any]:
    """What workers say that they run, as arguments for the questions to owners."""
    said = asker.each_process("running")
    running: dict[bytes, Any] = {}
    for answer in said.values():
        running |= answer["rows"]
    return {"running": running, "heard": list(said)}


def _by_worker(each: Filter, workers: list[dict[str, Any]]) -> Filter:
    """An owner knows the worker of a finished task, not its pid."""
    name, relation, value = each
    if name != "worker_pid":
        return each
    return "worker_id", relation, [worker["worker_id"] for worker in workers if str(worker["pid"]) == str(value)]


def of_the_gone(asker: Asker, heard: set[bytes]) -> list[Callable[[str], Any]]:
    """What the head has of tasks whose owner does not speak for itself."""
    drivers = {job["job_id"] for job in asker.head("jobs")}
    found = []
    for blob in asker.head("trace", without=list(heard)):
        for record in reversed(decode_records(blob)):
            if record.kind == "task":
                owners = (record.id[:8].hex(), record.parent[:8].hex())
                job = next((owner for owner in owners if owner in drivers), "")
                found.append(task_rows.of_record(record, job))
    return found


def creations(asker: Asker) -> list[Callable[[str], Any]]:
    """Actor creations that are over. Those that are not are known to their owners."""
    return [_creation(actor).get for actor in asker.head("actors") if actor["state"] != "PENDING"]


def _creation(actor: dict[str, Any]) -> dict[str, Any]:
    failed = actor["death_kind"] in ("ActorInitError", "ActorUnschedulableError")
    name = f"{actor['class_name']}.__init__"
    return {
        "task_id": actor["actor_id"],
        "attempt_number": actor["restarts"],
        "name": name,
        "state": "FAILED" if failed else "FINISHED",
        "job_id": actor["job_id"],
        "actor_id": actor["actor_id"],
        "type": task_rows.CREATION,
        "func_or_class_name": name,
        "parent_task_id": "",
        "node_id": actor["node_id"] or None,
        "worker_pid": actor["pid"] or None,
        "error_type": "TASK_EXECUTION_EXCEPTION" if failed else None,
        "error_message": actor["death_cause"] if failed else None,
        "language": "PYTHON",
        "required_resources": to_floats(actor["resources"]),
        "call_site": actor["line"],
        "cell": actor["cell"],
    }


# ------------------------------------------------------------------------------------------------------- objects


def _objects(asker: Asker, query: Query) -> Found:
    hosts = {bytes.fromhex(worker["worker_id"]): worker["ip"] for worker in asker.workers()}
    filters = [each for each in query.filters if each[0] != "ip"]
    where = [each for each in query.filters if each[0] == "ip"]
    said = asker.each_process("objects", filters=filters, limit=query.limit)
    said = {process: answer for process, answer in said.items() if matches(where, lambda _, p=process: hosts.get(p, ""))}  # type: ignore[misc]
    rows = [{**row, "ip": hosts.get(process, "")} for process, answer in said.items() for row in answer["rows"]]
    return rows, sum(answer["total"] for answer in said.values()), []


# ------------------------------------------------------------------------------------------------------- what the head knows


def _actors(asker: Asker, query: Query) -> Found:
    return _picked(map(_actor, asker.head("actors")), query)


def _actor(actor: dict[str, Any]) -> dict[str, Any]:
    return {
        **actor,
        "state": ACTOR_STATES.get(actor["state"], actor["state"]),
        "node_id": actor["node_id"] or None,
        "ray_namespace": actor["namespace"],
        "serialized_runtime_env": json.dumps(public(actor["env"])),
        "placement_group_id": actor["group"] or None,
        "required_resources": to_floats(actor["resources"]),
        "death_cause": _death_cause(actor),
        "is_detached": actor["detached"],
        "num_restarts": actor["restarts"],
        "call_site": actor["line"],
        "waiting_for": actor["waiting"] or None,
    }


def _death_cause(actor: dict[str, Any]) -> dict[str, Any] | None:
    """In Ray's form."""
    if actor["state"] != "DEAD":
        return None
    if actor["death_kind"] == "ActorInitError":
        return {"creation_task_failure_context": {"formatted_exception_string": actor["death_cause"]}}
    about = {"actor_id": actor["actor_id"], "name": actor["name"], "pid": actor["pid"], "class_name": actor["class_name"]}
    return {"actor_died_error_context": {"error_message": actor["death_cause"], **about}}


def _nodes(asker: Asker, query: Query) -> Found:
    return _picked(map(_node, asker.nodes()), query)


def _node(node: dict[str, Any]) -> dict[str, Any]:
    return {
        "node_id": node["node_id"],
        "node_ip": node["host"],
        "is_head_node": node["is_head"],
        "state": "ALIVE" if node["alive"] else "DEAD",
        "state_message": node["death_cause"] or ("its heartbeats are late" if node["suspect"] else None),
        "node_name": node["host"],
        "resources_total": to_floats(node["total"]),
        "labels": node["labels"],
        "resources_available": to_floats(node["available"]),
        "object_store_bytes": node["store_bytes"],
        "object_store_used": node["store_used"],
        "pid": node["pid"],
    }


def _groups(asker: Asker, query: Query) -> Found:
    return _picked(map(_group, asker.head("groups")), query)


def _group(group: dict[str, Any]) -> dict[str, Any]:
    bundles = [
        {"bundle_id": {"placement_group_id": group["group"].hex(), "bundle_index": index}, "unit_resources": to_floats(amounts)}
        | {"node_id": group["nodes"][index] or None}
        for index, amounts in enumerate(group["bundles"])
    ]
    return {
        "placement_group_id": group["group"].hex(),
        "name": group["name"],
        "creator_job_id": group["job_id"],
        "state": group["state"],
        "bundles": bundles,
        "is_detached": group["detached"],
        "strategy": group["strategy"],
        "ray_namespace": group["namespace"],
        "waiting_for": group["why"] or None,
    }


def _jobs(asker: Asker, query: Query) -> Found:
    hosts = asker.hosts()
    return _picked((_job(job, hosts) for job in asker.head("job_list")), query)


def _job(job: dict[str, Any], hosts: dict[str, str]) -> dict[str, Any]:
    driver = {"id": job["job_id"], "node_ip_address": hosts.get(job["node_id"] or "", ""), "pid": str(job["driver_pid"])}
    return {
        **job,
        "driver_info": driver if job["job_id"] else None,
        "driver_node_id": job["node_id"],
        "driver_exit_code": job["exit_code"],
    }


# ------------------------------------------------------------------------------------------------------- what nodes know


def _workers(asker: Asker, query: Query) -> Found:
    return _picked(asker.workers(), query)


def _runtime_envs(asker: Asker, query: Query) -> Found:
    """Environments that nodes have made, are making or could not make, and others that living workers are in."""
    uses: Counter[tuple[str, str]] = Counter()
    for worker in asker.workers():
        if worker["is_alive"] and worker["env"]:
            uses[worker["env"], worker["node_id"]] += 1
    rows = [_environment(env, node, count=count) for (env, node), count in uses.items()]
    there = {(setup_of(env), node) for env, node in uses}
    for node, _, records in asker.said_by_nodes("environments"):
        rows += [
            _environment(record["setup"], node.hex(), record["state"], record["error"])
            for record in records
            if (record["setup"], node.hex()) not in there
        ]
    return _picked(rows, query)


def _environment(env: str, node: str, state: str = "READY", error: str | None = None, count: int = 0) -> dict[str, Any]:
    success = {"READY": True, "FAILED": False}.get(state)
    return {"runtime_env": public(env), "success": success, "node_id": node, "ref_cnt": count, "error": error, "state": state}


def _cluster_events(asker: Asker, query: Query) -> Found:
    """Deaths: of nodes, of workers that were not meant to end, of actors. The cluster keeps no clock times of them."""
    rows = [
        _event("ERROR", "NODE", node["node_id"], f"node {node['node_id'][:4]} on {node['host']} is dead: {node['death_cause']}")
        for node in asker.nodes()
        if not node["alive"]
    ]
    rows += [
        _event("ERROR", "WORKER", worker["worker_id"], f"worker {worker['pid']} on {worker['ip']} {worker['exit_detail']}")
        for worker in asker.workers()
        if worker["exit_type"] == "SYSTEM_ERROR"
    ]
    rows += [
        _event("WARNING", "ACTOR", actor["actor_id"], actor["death_cause"])
        for actor in asker.head("actors")
        if actor["state"] == "DEAD"
    ]
    return _picked(rows, query)


def _event(severity: str, source: str, who: str, message: str) -> dict[str, Any]:
    return {"severity": severity, "time": None, "source_type": source, "message": message, "event_id": who, "custom_fields": None}


SOURCES: dict[str, Callable[[Asker, Query], Found]] = {
    "tasks": _tasks,
    "actors": _actors,
    "objects": _objects,
    "nodes": _nodes,
    "workers": _workers,
    "jobs": _jobs,
    "placement_groups": _groups,
    "runtime_envs": _runtime_envs,
    "cluster_events": _cluster_events,
}
