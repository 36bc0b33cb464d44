"""A cluster as a model: what a snapshot says of nodes, workers and figures over time; its text and its HTML say the same."""

from __future__ import annotations

from typing import Any

import pytest

from nbray.cards import cluster_page
from nbray.cards.cluster import MOST_NODES, MOST_WORKERS, REMEMBERED_S, Facts, Watch

EVIL = "<img src=x onerror=alert(1)>"
NODE = "b71e000000000000"
WALL = 1_000_000 * 10**9


def node(name: str = NODE, *, alive: bool = True, used: int = 0, queued: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    total = {"CPU": 40_000, "GPU": 10_000, "memory": 10_000, "lab": 20_000, "node:10.0.0.1": 10_000}
    free = {**total, "CPU": 40_000 - used * 10_000}
    return {
        "node_id": name, "host": EVIL, "alive": alive, "suspect": False, "is_head": name == NODE, "death_cause": "it was killed",
        "total": total, "available": free, "store_bytes": 1000, "store_used": 200, "queued": queued or [],
    }  # fmt: skip


def worker(number: int, state: str = "LEASED", **others: Any) -> dict[str, Any]:
    row = {"worker_id": f"{number:016x}", "pid": number, "worker_type": "WORKER", "state": state, "actor_id": None}
    return {**row, **others}


def vitals(workers: list[dict[str, Any]], at_s: float = 0.0, cpu_s: float = 0.0, each_s: float = 0.0) -> dict[str, Any]:
    store = {"capacity": 1000, "used": 300, "pinned": 50, "lent": 0, "spilled": 70, "objects": 2}
    processes = {row["pid"]: [each_s, 4096] for row in workers}
    load = {"at_s": at_s, "cores": 2, "cpu_s": cpu_s, "memory_used": 25, "memory_limit": 100, "processes": processes}
    return {"workers": workers, "store": store, "load": {**load, "gpus": [[0.5, 10, 40]]}}


def pulse(running: dict[bytes, tuple[str, int, str]] | None = None, counts: tuple[int, ...] = (0, 0, 0, 0)) -> dict[str, Any]:
    return {"rows": running or {}, "counts": list(counts)}


def facts(**changes: Any) -> Facts:
    usual: dict[str, Any] = {"nodes": [node()], "vitals": {NODE: vitals([])}, "pulses": {}, "actors": [], "silent": []}
    return Facts(**{**usual, **changes})


def meter(snapshot: dict[str, Any], label: str) -> dict[str, Any]:
    return next(each for each in snapshot["nodes"][0]["meters"] if each["label"] == label)


def test_a_node_has_its_figures_in_words_and_shares() -> None:
    snapshot = Watch().take(facts(nodes=[node(used=3)]), 0.0, WALL)
    assert (meter(snapshot, "CPU")["text"], meter(snapshot, "CPU")["share"]) == ("3 of 4 given out", 0.75)
    assert meter(snapshot, "memory")["text"] == "25 B of 100 B"
    assert meter(snapshot, "GPU")["text"] == "0 of 1 given out · 50% busy · 10 B of 40 B"
    assert meter(snapshot, "object store")["text"] == "300 B of 1.0 kB · 50 B pinned · 70 B spilled · 2 objects"
    assert meter(snapshot, "lab")["text"] == "0 of 2 given out"
    assert [each["label"] for each in snapshot["nodes"][0]["meters"]] == ["CPU", "memory", "GPU", "object store", "lab"]


def test_cores_are_known_to_be_busy_from_the_second_reading_on() -> None:
    watch, rows = Watch(), [worker(7)]
    watch.take(facts(vitals={NODE: vitals(rows, 10.0, 100.0, 3.0)}), 0.0, WALL)
    snapshot = watch.take(facts(vitals={NODE: vitals(rows, 12.0, 103.0, 4.0)}), 2.0, WALL)
    assert meter(snapshot, "CPU")["text"] == "0 of 4 given out · 1.5 of 2 cores busy"
    assert meter(snapshot, "CPU")["share"] == 0.75
    assert snapshot["nodes"][0]["workers"][0]["cpu"] == 0.5


def test_a_minute_is_remembered_and_what_nobody_looked_at_is_a_gap() -> None:
    watch = Watch()
    for second in (0, 1, 2, 20, 21):
        snapshot = watch.take(facts(nodes=[node(used=second % 4)], vitals={}), second + 0.5, WALL)
    past = meter(snapshot, "CPU")["past"]
    assert past == [0, 25, 50, 50, 50, 50, *[None] * 14, 0, 25]
    for second in range(22, 200):
        snapshot = watch.take(facts(vitals={}), float(second), WALL)
    assert meter(snapshot, "CPU")["past"] == [0] * REMEMBERED_S


def test_a_worker_is_told_by_what_it_runs_and_those_that_work_come_first() -> None:
    rows = [
        worker(1, "IDLE"),
        worker(2),
        worker(3),
        worker(4, "ACTOR", actor_id="aa"),
        worker(5),
        worker(6, "STARTING"),
        worker(9, worker_type="DRIVER", state="ATTACHED"),
    ]
    pulses = {
        rows[0]["worker_id"]: pulse(),
        rows[1]["worker_id"]: pulse({b"t": ("RUNNING", WALL - 2 * 10**9, EVIL)}),
        rows[2]["worker_id"]: pulse({b"u": ("RUNNING_IN_RAY_GET", WALL - 10**9, "outer")}),
        rows[3]["worker_id"]: pulse({bytes([i]): ("RUNNING", WALL - i * 10**9, "call") for i in range(1, 4)}),
    }
    actors = [{"actor_id": "aa", "class_name": "Store", "name": "s", "state": "ALIVE", "pid": 4, "waiting": ""}]
    snapshot = Watch().take(facts(vitals={NODE: vitals(rows)}, pulses=pulses, actors=actors), 0.0, WALL)
    told = snapshot["nodes"][0]["workers"]
    assert [(row["pid"], row["state"]) for row in told] == [
        (4, "busy"), (2, "busy"), (5, "busy"), (3, "waiting"), (1, "idle"), (6, "starting"),
    ]  # fmt: skip
    assert (told[0]["task"], told[0]["actor"], told[0]["since_s"]) == ("call ×3", "Store 's'", 3.0)
    assert snapshot["nodes"][0]["runs"] == ["call ×3", EVIL, "outer"]
    assert snapshot["nodes"][0]["states"] == {"busy": 3, "waiting": 1, "idle": 1, "starting": 1}


def test_tasks_are_counted_over_all_processes_and_what_runs_is_not_queued() -> None:
    pulses = {
        "d": pulse(counts=(10, 4, 1, 1)),
        "w": pulse({b"t": ("RUNNING", WALL, "f"), b"u": ("PENDING_ARGS_FETCH", 0, "f")}, (2, 2, 0, 0)),
    }
    snapshot = Watch().take(facts(pulses=pulses), 0.0, WALL)
    assert snapshot["tasks"] == {"running": 1, "queued": 3, "finished": 6, "failed": 1, "cancelled": 1}
    assert snapshot["sentence"] == "1 node · 4 CPUs · 0 workers · 1 running, 3 queued, 6 finished, 1 failed, 1 cancelled"


def test_a_dead_node_and_what_waits_say_why() -> None:
    waiting = [{"amounts": {}, "count": 1200, "why": f"no CPU is free {EVIL}"}]
    snapshot = Watch().take(
        facts(nodes=[node("dead", alive=False), node(queued=waiting)], silent=["node b71e is silent"]), 0.0, WALL
    )
    assert [each["state"] for each in snapshot["nodes"]] == ["alive", "dead"]
    assert snapshot["nodes"][0]["waiting"] == [f"1,200 more workers asked for: no CPU is free {EVIL}"]
    said = cluster_page.text(snapshot)
    assert "dead, it was killed" in said
    assert "1,200 more workers asked for: no CPU is free" in said
    assert "not told: node b71e is silent" in said


def test_what_is_told_is_bounded() -> None:
    rows = [worker(number, "IDLE") for number in range(MOST_WORKERS + 10)]
    nodes = [node(), *(node(f"{i:016x}") for i in range(MOST_NODES + 5))]
    snapshot = Watch().take(facts(nodes=nodes, vitals={NODE: vitals(rows)}), 0.0, WALL)
    assert (len(snapshot["nodes"]), snapshot["more_nodes"]) == (MOST_NODES, 6)
    assert (len(snapshot["nodes"][0]["workers"]), snapshot["nodes"][0]["more_workers"]) == (MOST_WORKERS, 10)
    assert f"{MOST_WORKERS + 10} workers" in cluster_page.text(snapshot)
    assert "and 6 more nodes" in cluster_page.text(snapshot)


@pytest.mark.parametrize("form", [cluster_page.page, cluster_page.text])
def test_text_and_html_say_the_same(form: Any) -> None:
    rows = [worker(2), worker(3, "IDLE")]
    pulses = {rows[0]["worker_id"]: pulse({b"t": ("RUNNING", WALL - 10**9, "load")}), rows[1]["worker_id"]: pulse()}
    actors = [{"actor_id": "aa", "class_name": "Late", "name": "", "state": "PENDING", "pid": 0, "waiting": "no GPU"}]
    said = form(Watch().take(facts(vitals={NODE: vitals(rows)}, pulses=pulses, actors=actors), 0.0, WALL))
    for words in ("50 B pinned", "70 B spilled", "load", "2 workers: 1 busy, 1 idle", "actor Late is pending: no GPU", "b71e"):
        assert words in said, words


def test_what_people_named_is_text_in_the_page() -> None:
    rows = [worker(2)]
    pulses = {rows[0]["worker_id"]: pulse({b"t": ("RUNNING", WALL, EVIL)})}
    said = cluster_page.page(Watch().take(facts(vitals={NODE: vitals(rows)}, pulses=pulses, silent=[EVIL]), 0.0, WALL))
    assert EVIL not in said
    assert "&lt;img" in said
    assert "<script" not in said
