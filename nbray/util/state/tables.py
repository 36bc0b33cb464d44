"""What is in a cluster, kind by kind, as tables of short texts for a page: bounded, whatever people name things.

tasks, actors, objects, jobs, logs        {"columns", "rows", "total", "problems"}; cells are texts, the first MOST_ROWS rows
log/ID                                    the end of one log, of those that `logs` lists: {"name", "text", "whole"}
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nbray.cards.words import bytes_text, cut
from nbray.columns import RUNNING
from nbray.util.state import listing
from nbray.util.state.asking import Asker
from nbray.util.state.logs import ANSI, LogFile

MOST_ROWS = 100
MOST_PROBLEMS = 10
LOG_BYTES = 48 * 1024
STATE_WORDS = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "PENDING_NODE_ASSIGNMENT": "queued",
    "PENDING_ARGS_AVAIL": "waits for arguments",
    "SUBMITTED_TO_WORKER": "sent",
    **dict.fromkeys(RUNNING, "running"),
}
LOG = re.compile(r"log/([0-9a-f]{16})\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def known(table: str) -> bool:
    return table in TABLES or LOG.match(table) is not None


def look(asker: Asker, table: str) -> dict[str, Any]:
    """One table, or a log. Raises ConnectionError when the cluster does not answer, ValueError for what is none of it."""
    if found := LOG.match(table):
        return _log(asker, found[1])
    if table not in TABLES:
        raise ValueError(f"there is no table {cut(table)!r}; there is: {', '.join(TABLES)}")
    return TABLES[table](asker)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], total: int, problems: Iterable[str] = ()) -> dict[str, Any]:
    shown = [["" if cell is None else cut(cell) for cell in row] for _, row in zip(range(MOST_ROWS), rows, strict=False)]
    return {
        "columns": list(columns),
        "rows": shown,
        "total": total,
        "problems": [cut(problem) for problem in problems][:MOST_PROBLEMS],
    }


def _listed(asker: Asker, kind: str, columns: Sequence[str], row: Callable[[Any], Sequence[object]]) -> dict[str, Any]:
    found = listing.listing(asker, listing.Query(kind, [], MOST_ROWS, detail=True))
    return _table(columns, map(row, found), found.total, found.problems)


def tasks(asker: Asker) -> dict[str, Any]:
    """Those that run first, then those that wait, then the latest that are over."""
    hosts = _short_names(asker)

    def row(task: Mapping[str, Any]) -> Sequence[object]:
        state = STATE_WORDS.get(task["state"], _words(task["state"]))
        where = " ".join(
            filter(None, (hosts.get(task["node_id"] or "", ""), f"pid {task['worker_pid']}" if task["worker_pid"] else ""))
        )
        error = ": ".join(filter(None, (_words(task["error_type"]), task["error_message"])))
        name, runs = task["name"], (task["func_or_class_name"] or "").rpartition("<locals>.")[2]
        called = name if not runs or name.endswith(runs) else f"{name} ({runs})"
        return called, state, task["attempt_number"] + 1, where, error, task["call_site"], task["task_id"]

    return _listed(asker, "tasks", ("task", "state", "attempt", "where", "error", "from", "id"), row)


def actors(asker: Asker) -> dict[str, Any]:
    hosts = _short_names(asker)
    every = sorted(asker.head("actors"), key=lambda actor: actor["state"] == "DEAD")
    rows = (
        (
            actor["class_name"],
            actor["name"],
            _words(actor["state"]),
            " ".join(filter(None, (hosts.get(actor["node_id"], ""), f"pid {actor['pid']}" if actor["pid"] else ""))),
            actor["restarts"],
            actor["waiting"] or actor["death_cause"],
            actor["actor_id"],
        )
        for actor in every
    )
    return _table(("class", "name", "state", "where", "restarts", "why", "id"), rows, len(every))


def objects(asker: Asker) -> dict[str, Any]:
    """Those that have a name first; an object without one goes by where it was made. One row for each process that holds it."""
    said = asker.each_process("names")
    names = {object_.hex(): called for told in said.values() for object_, called in told["rows"].items()}
    drivers = {(job["pid"], "DRIVER"): job["name"] for job in asker.head("jobs") if job["state"] == "RUNNING"}

    def row(held: Mapping[str, Any]) -> Sequence[object]:
        size = "" if held["object_size"] < 0 else bytes_text(held["object_size"])
        called, line, id_ = ", ".join(names.get(held["object_id"], ())), held["call_site"], held["object_id"]
        by = f"{drivers.get((held['pid'], held['type'])) or _words(held['type'])} {held['pid']}"
        state = STATE_WORDS.get(held["task_status"], _words(held["task_status"]))
        return (
            called or (f"made at {line}" if line else id_[:8]),
            size,
            state,
            by,
            _words(held["reference_type"]),
            called and line,
            id_,
        )

    found = listing.listing(asker, listing.Query("objects", [], MOST_ROWS, detail=True))
    rows = sorted(found, key=lambda held: held["object_id"] not in names)
    return _table(("object", "size", "state", "held by", "as", "from", "id"), map(row, rows), found.total, found.problems)


def jobs(asker: Asker) -> dict[str, Any]:
    def row(job: Mapping[str, Any]) -> Sequence[object]:
        submitted = job["submission_id"]
        called = job["metadata"].get("job_name") or submitted or job["entrypoint"]
        runs = job["entrypoint"] if submitted else f"pid {job['driver_info']['pid']}"
        return called, _words(job["type"]), _words(job["status"]), runs, job["message"], submitted or job["job_id"]

    return _listed(asker, "jobs", ("job", "kind", "state", "runs", "message", "id"), row)


def logs(asker: Asker) -> dict[str, Any]:
    """With `ids`, one for each row, to ask for its end by."""
    hosts = _short_names(asker)
    found = [(node.hex(), file) for node, _, files in asker.said_by_nodes("logs") for file in files]
    rows = [(file["name"], hosts.get(node, ""), bytes_text(file["size"])) for node, file in found]
    ids = [_log_id(node, file["name"]) for node, file in found[:MOST_ROWS]]
    return {**_table(("log", "node", "size"), rows, len(found), asker.say_who()), "ids": ids}


def _log(asker: Asker, wanted: str) -> dict[str, Any]:
    for node, _, files in asker.said_by_nodes("logs"):
        for file in files:
            if _log_id(node.hex(), file["name"]) == wanted:
                start = max(0, file["size"] - LOG_BYTES)
                data, _ = LogFile(asker, node.hex(), file["name"]).read(start, LOG_BYTES)
                said = ANSI.sub(b"", data).decode("utf-8", "replace").replace("\r", "\n")
                text = said.partition("\n")[2] if start else said
                return {"name": cut(file["name"]), "text": _CONTROL.sub("", text), "whole": not start}
    raise ValueError("there is no such log any more; look at the list again")


def _log_id(node: str, name: str) -> str:
    """Names a log in requests: no path of a file ever comes from a page."""
    return hashlib.blake2b(f"{node}/{name}".encode(), digest_size=8).hexdigest()


def _short_names(asker: Asker) -> dict[str, str]:
    """Node -> what tables call it; "" where there is only one."""
    nodes = asker.nodes()
    return {} if len(nodes) == 1 else {node["node_id"]: f"node {node['node_id'][:4]}" for node in nodes}


def _words(state: object) -> str:
    return str(state or "").lower().replace("_", " ")


TABLES: dict[str, Callable[[Asker], dict[str, Any]]] = {
    "tasks": tasks,
    "actors": actors,
    "objects": objects,
    "jobs": jobs,
    "logs": logs,
}
