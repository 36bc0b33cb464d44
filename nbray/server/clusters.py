"""The clusters of this machine, as the Jupyter server sees them: found, looked at, started and stopped. Blocks; call from a thread.

It attaches as a viewer, which submits nothing and unpickles nothing. What it starts, it starts as the command line does
(`nbray start --head`), so that it outlives kernels and this server, and `nbray stop` ends it as well.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from typing import Any

from nbray.cards.words import bytes_text
from nbray.driver import joining
from nbray.driver.viewer import Viewer
from nbray.node.spawn import interpreter
from nbray.sched.resources import to_floats
from nbray.util import prometheus
from nbray.util.state import summaries
from nbray.util.state.asking import Asker
from nbray.util.state.listing import Query, listing
from nbray.wire import connection_file, rundir

START_S = 30.0
PATIENCE_S = 2.0  #: for processes that are asked what they do
MOST_BUSY = 200  #: workers whose task is named
STATE_WORDS = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "RUNNING": "running",
    "RUNNING_IN_RAY_GET": "running",
    "RUNNING_IN_RAY_WAIT": "running",
}
BYTES = frozenset({"memory", "object_store_memory"})
#: What the panel shows of a node, in this order; other resources follow.
FIRST = ("CPU", "GPU", "memory", "object_store_memory")


class NoCluster(LookupError):
    """The id names nothing that runs here."""


class Clusters:
    """One thread at a time."""

    def __init__(self) -> None:
        self._viewers: dict[str, Viewer] = {}

    def close(self) -> None:
        for viewer in self._viewers.values():
            viewer.close()
        self._viewers.clear()

    # -- finding

    def listing(self) -> list[dict[str, Any]]:
        """Every cluster whose head runs here, those of notebooks and scripts too."""
        started = {found.connection.directory: found for found in connection_file.known()}
        found = []
        for directory in rundir.in_use():
            viewer = self._viewer(directory)
            if viewer is None or not viewer.welcome.is_head_node:
                continue
            file = started.get(directory)
            found.append(
                {
                    "id": _id(directory),
                    "name": f"cluster {file.connection.cluster[:8]}" if file else f"cluster of process {_parent(viewer.pid)}",
                    "address": file.connection.address if file else directory,
                    "pid": viewer.pid,
                    "mine": file is not None,
                }
            )
        for gone in self._viewers.keys() - set(rundir.in_use()):
            self._viewers.pop(gone).close()
        return found

    def _viewer(self, directory: str) -> Viewer | None:
        viewer = self._viewers.get(directory)
        if viewer is None or joining.pid_behind(directory) != viewer.pid:
            self._drop(directory)
            try:
                viewer = self._viewers[directory] = Viewer(directory)
            except OSError:  # it has just ended, or does not let us in: it is not there for us
                return None
        return viewer

    def _drop(self, directory: str) -> None:
        if (old := self._viewers.pop(directory, None)) is not None:
            old.close()

    def _directory(self, cluster: str) -> str:
        for directory in rundir.in_use():
            if _id(directory) == cluster:
                return directory
        raise NoCluster(f"no cluster {cluster} runs here any more")

    # -- looking

    def view(self, cluster: str) -> dict[str, Any]:
        """Nodes with their resources and what waits there, tasks by state, actors. Raises NoCluster, ConnectionError."""
        directory = self._directory(cluster)
        viewer = self._viewer(directory)
        if viewer is None:
            raise NoCluster(f"cluster {cluster} has just ended")
        asker = Asker(viewer, PATIENCE_S)
        try:
            nodes, actors, counts = asker.nodes(), asker.head("actors"), task_counts(asker)
            busy = _busy(asker) if counts.get("running") else {}
            workers = [worker for worker in asker.workers() if worker["is_alive"] and worker["worker_type"] != "DRIVER"]
        except ConnectionError:
            self._drop(directory)
            raise
        return {
            "nodes": [_node(node, [_worker(w, busy) for w in workers if w["node_id"] == node["node_id"]]) for node in nodes],
            "tasks": counts,
            "actors": [_actor(actor) for actor in actors if actor["state"] != "DEAD"],
        }

    def metrics(self, cluster: str | None) -> str:
        """A cluster's figures as Prometheus reads them; of the one that runs here if none is named. Raises NoCluster."""
        if cluster is None:
            listed = [each["id"] for each in self.listing()]
            if len(listed) != 1:
                raise NoCluster(
                    f"{len(listed)} clusters run here; name one: /nbray/metrics?cluster=ID ({', '.join(listed) or 'none'})"
                )
            cluster = listed[0]
        viewer = self._viewer(self._directory(cluster))
        if viewer is None:
            raise NoCluster(f"cluster {cluster} has just ended")
        return prometheus.text(Asker(viewer, PATIENCE_S))

    # -- steering

    def start(self, num_cpus: float | None) -> dict[str, Any]:
        """A cluster that outlives kernels and this server. Raises RuntimeError with what the daemon said."""
        command = [*interpreter(), "-m", "nbray", "start", "--head", "--port", "0"]
        if num_cpus is not None:
            command += ["--num-cpus", str(num_cpus)]
        before = {each["id"] for each in self.listing()}
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=START_S, stdin=subprocess.DEVNULL, check=False)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"`nbray start --head` did not end within {START_S:g} s") from None
        if ran.returncode:
            raise RuntimeError(ran.stderr.strip() or f"`nbray start --head` ended with code {ran.returncode}")
        return next(each for each in self.listing() if each["id"] not in before)

    def stop(self, cluster: str) -> None:
        """End a cluster that `nbray start` or `start` began. Raises NoCluster; PermissionError for one that is a notebook's."""
        directory = self._directory(cluster)
        if not any(found.connection.directory == directory for found in connection_file.known()):
            raise PermissionError("this cluster belongs to a notebook or script and ends with it; stop it there (%nbray stop)")
        self._drop(directory)
        command = [*interpreter(), "-m", "nbray", "stop", "--directory", directory]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=START_S, stdin=subprocess.DEVNULL, check=False)
        if ran.returncode:
            raise RuntimeError(ran.stderr.strip() or f"`nbray stop` ended with code {ran.returncode}")


def _id(directory: str) -> str:
    """Names a cluster in URLs: its directory's path stays here."""
    return hashlib.blake2b(directory.encode(), digest_size=8).hexdigest()


def _parent(pid: int) -> int:
    """Who started the daemon: the kernel or script that it belongs to."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return pid


def task_counts(asker: Asker) -> dict[str, int]:
    """Tasks by state, in the words of people."""
    summary, _ = summaries.tasks(asker)
    counts: Counter[str] = Counter()
    for row in summary["summary"].values():
        for state, count in row["state_counts"].items():
            counts[STATE_WORDS.get(state, "queued")] += count
    return {word: counts[word] for word in ("running", "queued", "finished", "failed") if counts[word]}


def _busy(asker: Asker) -> dict[str, str]:
    """Worker -> the name of what it runs."""
    states = [state for state, word in STATE_WORDS.items() if word == "running"]
    queries = [Query("tasks", [("state", "=", state)], MOST_BUSY, detail=False) for state in states]
    return {row["worker_id"]: row["name"] for query in queries for row in listing(asker, query)}


def _worker(worker: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {"pid": worker["pid"], "task": names.get(worker["worker_id"], "")}


def _node(node: dict[str, Any], workers: list[dict[str, Any]]) -> dict[str, Any]:
    total, free = to_floats(node["total"]), to_floats(node["available"])
    used = {name: amount - free.get(name, 0.0) for name, amount in total.items()}
    if node["store_bytes"]:
        total["object_store_memory"], used["object_store_memory"] = float(node["store_bytes"]), float(node["store_used"])
    names = [name for name in FIRST if total.get(name)]
    names += sorted(name for name in total if name not in FIRST and not name.startswith("node:"))
    return {
        "id": node["node_id"],
        "host": node["host"],
        "alive": node["alive"],
        "head": node["is_head"],
        "resources": [_resource(name, used.get(name, 0.0), total[name]) for name in names],
        "workers": workers,
        "waiting": [f"{queued['count']:,} waiting: {queued['why']}" for queued in node["queued"]],
    }


def _resource(name: str, used: float, total: float) -> dict[str, Any]:
    def written(amount: float) -> str:
        return bytes_text(amount) if name in BYTES else f"{amount:g}"

    shown = {"object_store_memory": "object store"}.get(name, name)
    return {"name": shown, "used": written(used), "total": written(total), "share": used / total if total else 0.0}


def _actor(actor: dict[str, Any]) -> dict[str, Any]:
    name = actor.get("name") or ""
    called = f"{actor['class_name']} {name!r}" if name else str(actor["class_name"])
    return {"name": called, "state": actor["state"], "pid": actor.get("pid") or 0}
