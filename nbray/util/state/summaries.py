"""Counts instead of lists: each process counts its own, so that a million tasks are summed up as a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from nbray.engines import task_rows
from nbray.util.state import listing
from nbray.util.state.asking import Asker

MB = 1024 * 1024


def tasks(asker: Asker) -> tuple[dict[str, Any], list[str]]:
    """(By name: type and how many are in which state, with totals; what is missing)."""
    said = asker.each_process("task_counts", **listing.what_runs(asker))
    summary: dict[str, dict[str, Any]] = {}

    def add(name: str, kind: str, counts: Mapping[str, int]) -> None:
        row = summary.setdefault(name, {"func_or_class_name": name, "type": kind, "state_counts": {}})
        for state, count in counts.items():
            row["state_counts"][state] = row["state_counts"].get(state, 0) + count

    for answer in said.values():
        for name, (kind, counts) in answer["rows"].items():
            add(name, kind, counts)
    for value_of in [*listing.of_the_gone(asker, set(said)), *listing.creations(asker)]:
        add(value_of("name"), value_of("type"), {value_of("state"): 1})
    totals: Counter[str] = Counter()
    for row in summary.values():
        totals[row["type"]] += sum(row["state_counts"].values())
    return {
        "summary": summary,
        "total_tasks": totals[task_rows.NORMAL],
        "total_actor_tasks": totals[task_rows.CALL],
        "total_actor_scheduled": totals[task_rows.CREATION],
        "summary_by": "func_name",
    }, listing.forgotten(said)


def actors(asker: Asker) -> tuple[dict[str, Any], list[str]]:
    """(By class: how many are in which state; nothing is missing)."""
    summary: dict[str, dict[str, Any]] = {}
    every = asker.head("actors")
    for actor in every:
        row = summary.setdefault(actor["class_name"], {"class_name": actor["class_name"], "state_counts": {}})
        state = listing.ACTOR_STATES.get(actor["state"], actor["state"])
        row["state_counts"][state] = row["state_counts"].get(state, 0) + 1
    return {"summary": summary, "total_actors": len(every), "summary_by": "class"}, []


def objects(asker: Asker) -> tuple[dict[str, Any], list[str]]:
    """(By call site: how many references, how large, who holds them; what is missing)."""
    nodes = {bytes.fromhex(worker["worker_id"]): worker["node_id"] for worker in asker.workers()}
    summary: dict[str, dict[str, Any]] = {}
    holders: dict[str, set[str]] = {}
    for process, answer in asker.each_process("object_counts").items():
        for line, counts in answer["rows"].items():
            row = summary.setdefault(
                line,
                {
                    "total_objects": 0,
                    "total_size_mb": 0.0,
                    "total_num_workers": 0,
                    "total_num_nodes": 0,
                    "task_state_counts": {},
                    "ref_type_counts": {},
                },
            )
            row["total_objects"] += counts["objects"]
            row["total_size_mb"] += counts["bytes"] / MB
            row["total_num_workers"] += 1
            holders.setdefault(line, set()).add(nodes.get(process, ""))
            for into, more in (("task_state_counts", counts["status"]), ("ref_type_counts", counts["references"])):
                for word, count in more.items():
                    row[into][word] = row[into].get(word, 0) + count
    for line, row in summary.items():
        row["total_num_nodes"] = len(holders[line])
    return {
        "summary": summary,
        "total_objects": sum(row["total_objects"] for row in summary.values()),
        "total_size_mb": sum(row["total_size_mb"] for row in summary.values()),
        "callsite_enabled": True,
        "summary_by": "callsite",
    }, []
