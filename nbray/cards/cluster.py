"""A cluster at work, as a model: what it has, what is used of it, who runs what, and why what waits does. Pure.

    facts of the cluster, a few times a second --Watch.take--> a snapshot (JSON), with the last minute of each figure

The side panel, the Cluster widget and `%nbray status` show the same snapshot; `cluster_page.py` has it as text and as HTML.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nbray.cards.words import MOST_CHARACTERS, bytes_text, count_text, cut
from nbray.sched.resources import BYTES, NODE, UNIT, to_floats

REMEMBERED_S = 60  #: seconds of each figure
MOST_NODES = 100  #: told one by one
MOST_WORKERS = 256  #: of one node, the busy ones first
MOST_ACTORS = 100
MOST_RUNS = 5  #: names of what the workers of one node run
MOST_WAITING = 10  #: reasons of one node
MOST_AMOUNTS = 16  #: resources of one node, besides the usual ones
CARRIED_S = 3  #: a figure that was not read for so long is taken to be what it was
STATES = ("busy", "waiting", "actor", "idle", "starting", "ending")  #: of workers, in the order in which they are told


class Facts(NamedTuple):
    """What was heard of a cluster at one moment. Ids are hex strings."""

    nodes: list[dict[str, Any]]  #: as the head tells them
    vitals: dict[str, dict[str, Any]]  #: node id -> {"workers", "store", "load"}
    pulses: dict[str, dict[str, Any]]  #: process id -> {"rows", "counts"}
    actors: list[dict[str, Any]]
    silent: list[str]  #: who did not answer


class Watch:
    """Looks at one cluster again and again. `now_s` is any clock that only goes forward."""

    def __init__(self) -> None:
        self._past: dict[tuple[str, str], deque[tuple[int, int]]] = {}
        self._spent: dict[str, tuple[float, float]] = {}  #: what has CPU time -> (when it was read, seconds spent)
        self._fresh: dict[str, tuple[float, float]] = {}
        self._now_s = 0.0

    def take(self, facts: Facts, now_s: float, wall_ns: int) -> dict[str, Any]:
        """The cluster now. `wall_ns` is the time of day, for how long things have run."""
        self._now_s, self._fresh = now_s, {}
        running = {
            process: [(row[2], row[0], max(0.0, (wall_ns - row[1]) / 1e9) if row[1] else None) for row in pulse["rows"].values()]
            for process, pulse in facts.pulses.items()
        }
        classes = {actor["actor_id"]: _actor_name(actor) for actor in facts.actors}
        known = sorted(facts.nodes, key=lambda node: (not node["alive"], not node["is_head"]))
        nodes = [self._node(node, facts.vitals.get(node["node_id"]), running, classes) for node in known[:MOST_NODES]]
        self._spent = self._fresh
        for key in [key for key, past in self._past.items() if past[-1][0] < now_s - REMEMBERED_S]:
            del self._past[key]
        actors = [actor for actor in facts.actors if actor["state"] != "DEAD"]
        found = {
            "v": 1,
            "at_ms": wall_ns / 1e6,
            "tasks": _tasks(facts.pulses),
            "nodes": nodes,
            "more_nodes": max(0, len(known) - MOST_NODES),
            "actors": [_actor(actor) for actor in actors[:MOST_ACTORS]],
            "more_actors": max(0, len(actors) - MOST_ACTORS),
            "silent": facts.silent,
        }
        return {**found, "sentence": sentence(found)}

    # -- one node

    def _node(
        self, node: dict[str, Any], vitals: dict[str, Any] | None, running: Mapping[str, list[Any]], classes: Mapping[str, str]
    ) -> dict[str, Any]:
        name = node["node_id"]
        told = {
            "id": name,
            "host": cut(node["host"]),
            "head": node["is_head"],
            "state": "dead" if not node["alive"] else "late" if node["suspect"] else "alive",
            "cause": cut(node["death_cause"] or ""),
            "cpus": node["total"].get("CPU", 0) / UNIT,
            "meters": [],
            "workers": [],
            "more_workers": 0,
            "waiting": [_why(queued) for queued in node["queued"][:MOST_WAITING]],
        }
        if not node["alive"]:
            return told
        load = vitals["load"] if vitals is not None else None
        told["meters"] = [self._remembered(name, meter) for meter in self._meters(node, vitals, load)]
        if vitals is not None:
            rows = [self._worker(row, load, running, classes) for row in vitals["workers"] if row["worker_type"] != "DRIVER"]
            rows.sort(key=lambda row: (STATES.index(row["state"]), -(row["since_s"] or 0.0), row["pid"]))
            told["workers"], told["more_workers"] = rows[:MOST_WORKERS], max(0, len(rows) - MOST_WORKERS)
            told["runs"] = _runs(rows)
            told["states"] = {state: n for state in STATES if (n := sum(row["state"] == state for row in rows))}
        return told

    def _meters(self, node: dict[str, Any], vitals: dict[str, Any] | None, load: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
        total, free = to_floats(node["total"]), to_floats(node["available"])
        given = {name: total[name] - free.get(name, 0.0) for name in total}
        cpus = total.get("CPU", 0.0)
        if cpus:
            words = [f"{given['CPU']:g} of {cpus:g} given out"]
            busy = None if load is None else self._rate(f"node {node['node_id']}", load["at_s"], load["cpu_s"])
            if busy is None or load is None:
                yield _meter("CPU", words, given["CPU"] / cpus)
            else:
                yield _meter("CPU", [*words, f"{busy:.1f} of {count_text(load['cores'], 'core')} busy"], busy / load["cores"])
        if load is not None:
            used, limit = load["memory_used"], load["memory_limit"]
            yield _meter("memory", [f"{bytes_text(used)} of {bytes_text(limit)}"], used / limit if limit else 0.0)
        if total.get("GPU"):
            yield _gpus(given["GPU"], total["GPU"], [] if load is None else load["gpus"])
        if node["store_bytes"]:
            yield _store(node, vitals["store"] if vitals is not None else None)
        others = [name for name in total if name not in {"CPU", "GPU", *BYTES} and not name.startswith(NODE)]
        for name in sorted(others)[:MOST_AMOUNTS]:
            yield _meter(
                cut(name, 40), [f"{given[name]:g} of {total[name]:g} given out"], given[name] / total[name] if total[name] else 0.0
            )

    def _worker(
        self, row: dict[str, Any], load: dict[str, Any] | None, running: Mapping[str, list[Any]], classes: Mapping[str, str]
    ) -> dict[str, Any]:
        process = row["worker_id"]
        tasks = running.get(process)
        begun = [task for task in tasks or () if task[1].startswith("RUNNING")]
        spent = load["processes"].get(row["pid"]) if load is not None else None
        oldest = max((task for task in begun if task[2] is not None), key=lambda task: task[2], default=None)
        names = Counter(task[0] for task in begun or tasks or ())
        return {
            "id": process,
            "pid": row["pid"],
            "state": _worker_state(row, tasks, begun),
            "task": ", ".join(cut(name) if n == 1 else f"{cut(name)} ×{n:,}" for name, n in names.most_common(3)),
            "since_s": None if oldest is None else round(oldest[2], 3),
            "actor": classes.get(row["actor_id"] or "", ""),
            "cpu": None if spent is None or load is None else self._rate(f"process {process}", load["at_s"], spent[0]),
            "memory": None if spent is None else int(spent[1]),
        }

    # -- figures over time

    def _rate(self, what: str, at_s: float, spent_s: float) -> float | None:
        """Cores that something has kept busy since it was read before; None at the first reading."""
        before = self._spent.get(what)
        if before is not None and at_s <= before[0]:
            self._fresh[what] = before
            return None
        self._fresh[what] = (at_s, spent_s)
        return None if before is None else max(0.0, round((spent_s - before[1]) / (at_s - before[0]), 3))

    def _remembered(self, node: str, meter: dict[str, Any]) -> dict[str, Any]:
        """The meter with its last minute: percent, one a second, None where nobody looked. The latest comes last."""
        past, now = self._past.setdefault((node, meter["label"]), deque(maxlen=2 * REMEMBERED_S)), int(self._now_s)
        percent = round(100 * min(1.0, max(0.0, meter["share"])))
        if past and past[-1][0] == now:
            past[-1] = (now, percent)
        else:
            past.append((now, percent))
        told: list[int | None] = []
        seen = iter(past)
        at, value, following = -REMEMBERED_S * 2, 0, next(seen, None)
        for second in range(now - REMEMBERED_S + 1, now + 1):
            while following is not None and following[0] <= second:
                (at, value), following = following, next(seen, None)
            told.append(value if second - at <= CARRIED_S else None)
        first = next((i for i, each in enumerate(told) if each is not None), len(told))
        return {**meter, "past": told[first:]}


def _runs(rows: list[dict[str, Any]]) -> list[str]:
    """What most workers of a node run: `simulate ×48`."""
    names = Counter(row["task"] or f"actor {row['actor']}" for row in rows if row["task"] or row["actor"])
    told = [name if n == 1 else f"{name} ×{n:,}" for name, n in names.most_common(MOST_RUNS)]
    return [*told, f"{len(names) - MOST_RUNS:,} others"] if len(names) > MOST_RUNS else told


def _why(queued: Mapping[str, Any]) -> str:
    # Requests, not tasks: whoever has a long queue asks for a few workers at a time.
    return cut(f"{count_text(queued['count'], 'more worker')} asked for: {queued['why']}", 2 * MOST_CHARACTERS)


def _meter(label: str, words: list[str], share: float) -> dict[str, Any]:
    return {"label": label, "text": " · ".join(words), "share": round(share, 4)}


def _gpus(given: float, total: float, gauges: list[list[float]]) -> dict[str, Any]:
    words = [f"{given:g} of {total:g} given out"]
    if not gauges:
        return _meter("GPU", words, given / total)
    busy = sum(gauge[0] for gauge in gauges) / len(gauges)
    used, room = sum(gauge[1] for gauge in gauges), sum(gauge[2] for gauge in gauges)
    return _meter("GPU", [*words, f"{busy:.0%} busy", f"{bytes_text(used)} of {bytes_text(room)}"], busy)


def _store(node: dict[str, Any], stats: dict[str, int] | None) -> dict[str, Any]:
    size, used = node["store_bytes"], node["store_used"] if stats is None else stats["used"]
    words = [f"{bytes_text(used)} of {bytes_text(size)}"]
    if stats is not None:
        words += [f"{bytes_text(stats[what])} {what}" for what in ("pinned", "spilled") if stats[what]]
        words += [count_text(stats["objects"], "object")] if stats["objects"] else []
    return _meter("object store", words, used / size)


def _worker_state(row: dict[str, Any], tasks: list[Any] | None, begun: list[Any]) -> str:
    if row["state"] in {"STARTING", "ENDING"}:
        return str(row["state"]).lower()
    if begun:
        return "waiting" if all(task[1] != "RUNNING" for task in begun) else "busy"
    if row["actor_id"]:
        return "actor"
    # Who did not say what it runs holds a lease, and something keeps it from answering.
    return "busy" if row["state"] == "LEASED" and tasks is None else "waiting" if tasks else "idle"


def _tasks(pulses: Mapping[str, dict[str, Any]]) -> dict[str, int]:
    """Tasks by state, in the words of people."""
    submitted, done, failed, cancelled = (sum(pulse["counts"][i] for pulse in pulses.values()) for i in range(4))
    running = sum(row[0].startswith("RUNNING") for pulse in pulses.values() for row in pulse["rows"].values())
    queued = max(0, submitted - done - failed - cancelled - running)
    counts = {"running": running, "queued": queued, "finished": done, "failed": failed, "cancelled": cancelled}
    return {word: count for word, count in counts.items() if count}


def _actor_name(actor: dict[str, Any]) -> str:
    name = actor.get("name") or ""
    return cut(f"{actor['class_name']} {name!r}" if name else actor["class_name"])


def _actor(actor: dict[str, Any]) -> dict[str, Any]:
    why = cut(actor.get("waiting") or "")
    return {"name": _actor_name(actor), "state": actor["state"].lower(), "pid": actor.get("pid") or 0, "why": why}


def sentence(snapshot: Mapping[str, Any]) -> str:
    """The cluster in one line: nodes, CPUs, workers, tasks."""
    alive = [node for node in snapshot["nodes"] if node["state"] != "dead"]
    dead = len(snapshot["nodes"]) - len(alive)
    parts = [count_text(len(alive) + snapshot["more_nodes"], "node") + (f" ({dead} dead)" if dead else "")]
    parts.append(count_text(round(sum(node["cpus"] for node in alive)), "CPU"))
    parts.append(count_text(sum(len(node["workers"]) + node["more_workers"] for node in alive), "worker"))
    tasks = snapshot["tasks"]
    parts.append(", ".join(f"{count:,} {word}" for word, count in tasks.items()) if tasks else "no tasks yet")
    return " · ".join(parts)
