"""Log files of any node, read through its daemon: list them, read their ends, follow them as they grow.

A worker has one file for both its streams, `worker-<pid>.log`, in the order in which it was written to.
"""

from __future__ import annotations

import codecs
import fnmatch
import re
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from nbray.util.state.asking import Asker, asking
from nbray.util.state.exception import RayStateApiException
from nbray.util.state.listing import Query, listing

PIECE_BYTES = 256 * 1024
#: Between looks at a file that is followed; it rises to the second while nothing comes.
INTERVAL_S = 0.25
ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
#: Groups of `list_logs`, by how names begin.
GROUPS = {"worker-": "worker", "job-": "job", "node": "node", "zygote": "node"}


class LogFile:
    """One file on one node."""

    def __init__(self, asker: Asker, node: str, name: str) -> None:
        self._asker, self.node, self.name = asker, node, name

    def read(self, offset: int, length: int = PIECE_BYTES) -> tuple[bytes, int]:
        """(bytes from `offset` on, the file's size). Raises RayStateApiException when it cannot be read."""
        said = self._asker.each_node("log", self.node, name=self.name, offset=offset, length=length)
        if not said:
            why = "; ".join(self._asker.say_who()) or f"there is no node {self.node}"
            raise RayStateApiException(f"{self.name}: {why}")
        return said[0]["data"], said[0]["size"]

    def start_of_last(self, lines: int) -> int:
        """The offset of the last `lines` lines; 0 for all, also for -1."""
        _, end = self.read(0, 0)
        start, found = end, 0
        if lines <= 0:
            return 0 if lines else end
        while start > 0:
            before = max(0, start - PIECE_BYTES)
            data, _ = self.read(before, start - before)
            # The newline that ends the file ends a line, and begins none.
            stop = len(data) - 1 if start == end and data.endswith(b"\n") else len(data)
            while (at := data.rfind(b"\n", 0, stop)) >= 0:
                found += 1
                if found == lines:
                    return before + at + 1
                stop = at
            start = before
        return 0

    def pieces(self, start: int, *, follow: bool, interval_s: float) -> Iterator[bytes]:
        """What is there from `start` on; with `follow` also what comes, for ever."""
        offset, pause = start, interval_s
        while True:
            data, size = self.read(offset)
            if data:
                offset, pause = offset + len(data), interval_s
                yield data
            elif not follow:
                return
            elif size < offset:
                offset = 0  # it was rotated: what there is now is new
            else:
                time.sleep(pause)
                pause = max(interval_s, min(1.0, 1.5 * pause))


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: int = 30,
) -> dict[str, list[str]]:
    """Names of log files by group: {"worker": [...], "job": [...], "node": [...]}; of one node, or of all when none is named."""
    with asking(address, timeout) as asker:
        return grouped(asker, node_of(asker, node_id, node_ip) if node_id or node_ip else "", glob_filter or "*")


def grouped(asker: Asker, node: str, pattern: str) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for files in asker.each_node("logs", node):
        for file in files:
            if fnmatch.fnmatch(file["name"], pattern):
                group = next((group for start, group in GROUPS.items() if file["name"].startswith(start)), "other")
                groups.setdefault(group, []).append(file["name"])
    return groups


def node_of(asker: Asker, node_id: str | None, node_ip: str | None) -> str:
    """The id of the living node that is meant; of the only one when none is named. Raises RayStateApiException."""
    alive = [node for node in asker.nodes() if node["alive"]]
    found = [
        node["node_id"]
        for node in alive
        if (not node_id or node["node_id"].startswith(node_id)) and (not node_ip or node["host"] == node_ip)
    ]
    if len(found) == 1:
        return str(found[0])
    there = ", ".join(f"{node['node_id']} ({node['host']})" for node in alive)
    raise RayStateApiException(f"{'several nodes are' if found else 'no node is'} meant; name one by its id. There are: {there}")


def log_file(asker: Asker, *, node_id: str | None = None, node_ip: str | None = None, **what: Any) -> LogFile:
    """The file of a `filename`, `actor_id`, `task_id`, `pid` or `submission_id`. Raises RayStateApiException."""
    if name := what.get("filename"):
        return LogFile(asker, node_of(asker, node_id, node_ip), name)
    if submission := what.get("submission_id"):
        name = f"job-{urllib.parse.quote(submission, safe='')}.log"
        job = next((job for job in asker.head("job_list") if job["submission_id"] == submission), None)
        if job is None or not job["node_id"]:
            raise RayStateApiException(f"there is no submitted job {submission} that has begun; `nbray list jobs` has them")
        return LogFile(asker, job["node_id"], name)
    workers = asker.workers()
    if actor := what.get("actor_id"):
        pid, node = _of_actor(asker, actor)
    elif task := what.get("task_id"):
        pid, node = _of_task(asker, task, int(what.get("attempt_number", 0)))
    elif what.get("pid"):
        pid = int(what["pid"])
        nodes = {w["node_id"] for w in workers if w["pid"] == pid}
        node = next(iter(nodes)) if len(nodes) == 1 and not (node_id or node_ip) else node_of(asker, node_id, node_ip)
    else:
        raise RayStateApiException("say which log: a filename, actor_id, task_id, pid or submission_id")
    return LogFile(asker, node, f"worker-{pid}.log")


def _of_actor(asker: Asker, actor_id: str) -> tuple[int, str]:
    for actor in asker.head("actors"):
        if actor["actor_id"] == actor_id:
            if not actor["pid"]:
                raise RayStateApiException(f"actor {actor_id} has no process yet: {actor['waiting'] or actor['state']}")
            node = actor["node_id"] or next((w["node_id"] for w in asker.workers() if w["pid"] == actor["pid"]), "")
            return actor["pid"], node
    raise RayStateApiException(f"there is no actor {actor_id}; `nbray list actors` has them")


def _of_task(asker: Asker, task_id: str, attempt: int) -> tuple[int, str]:
    rows = listing(asker, Query("tasks", [("task_id", "=", task_id)], 100, detail=False))
    row = next((row for row in rows if row["attempt_number"] == attempt), rows[-1] if rows else None)
    if row is None:
        raise RayStateApiException(f"there is no task {task_id}; `nbray list tasks` has them")
    pid = row["worker_pid"]
    if not pid:
        raise RayStateApiException(f"task {task_id} ({row['name']}) has not been sent to a worker yet: {row['state']}")
    return pid, row["node_id"]


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = 1000,
    timeout: int = 30,
    suffix: str = "out",
    encoding: str | None = "utf-8",
    errors: str = "strict",
    submission_id: str | None = None,
    attempt_number: int = 0,
    _interval: float | None = None,
    filter_ansi_code: bool = False,
) -> Iterator[Any]:
    """Pieces of a log: its last `tail` lines (-1: all), and with `follow` what is written from then on.

    The log of a task or actor is that of its worker. `suffix` is "out" or "err" as in Ray; both are in the one file. Texts,
    or bytes with `encoding=None`. Raises RayStateApiException when there is no such log.
    """
    if suffix not in ("out", "err"):
        raise ValueError(f"suffix is 'out' or 'err', not {suffix!r}")
    with asking(address, timeout) as asker:
        what = {"filename": filename, "actor_id": actor_id, "task_id": task_id, "pid": pid, "submission_id": submission_id}
        file = log_file(asker, node_id=node_id, node_ip=node_ip, attempt_number=attempt_number, **what)
        decoder = codecs.getincrementaldecoder(encoding)(errors) if encoding is not None else None
        for data in file.pieces(file.start_of_last(tail), follow=follow, interval_s=_interval or INTERVAL_S):
            clean = ANSI.sub(b"", data) if filter_ansi_code else data
            yield decoder.decode(clean) if decoder is not None else clean
