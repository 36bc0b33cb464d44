"""The clusters of this machine, as a page sees them: found, looked at, started, scaled and stopped. Blocks; call from threads.

It attaches as a viewer, which submits nothing and unpickles nothing. What it starts, it starts as the command line does
(`nbray start --head`), so that it outlives kernels and this process, and `nbray stop` ends it as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from nbray.cards.lineage import View
from nbray.cards.words import cut
from nbray.dashboard import past
from nbray.dashboard.past import NOTHING_KNOWN, Drawing, Past
from nbray.dashboard.plans import Plans, What
from nbray.driver import joining, scaling
from nbray.driver.viewer import Viewer
from nbray.util import prometheus
from nbray.util.state import tables
from nbray.util.state.asking import Asker
from nbray.util.state.watching import Lookout, scale
from nbray.wire import connection_file, rundir

PATIENCE_S = 2.0  #: for processes that are asked what they do
#: A daemon that took so long not to let us in is left alone for a while: each try would hold up all other clusters.
SLOW_S, DEAF_S = 1.0, 10.0
OVERVIEW = "overview"
MOST_VIEWS = 4  #: of one request


class NoCluster(LookupError):
    """The id names nothing that runs here."""


class Seat:
    """Our place at one cluster: its viewer, which one thread uses at a time."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.lookout = Lookout()
        self.past = Past()
        self.notebook, self.whose = _whose(viewer.pid)
        self.using = threading.Lock()

    def close(self) -> None:
        self.viewer.abandon()  # whoever waits for an answer stops
        with self.using:
            self.viewer.close()


class Clusters:
    """Any thread. `only`: the runtime directory of a node of the one cluster that may be seen here, which is then called `name`;
    "": all of this machine."""

    def __init__(self, only: str = "", name: str = "") -> None:
        self.only, self._name = only, name
        self._seats: dict[str, Seat] = {}
        self._deaf: dict[str, float] = {}
        self._plans = Plans()
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            seats = list(self._seats.values())
            self._seats.clear()
        for seat in seats:
            seat.close()

    # -- finding

    def listing(self) -> list[dict[str, Any]]:
        """Every cluster whose head runs here, those of notebooks and scripts too."""
        started = {found.connection.directory: found for found in connection_file.known()}
        found = []
        directories = self._directories()
        for directory in directories:
            seat = self._seat(directory)
            if seat is None or not (seat.viewer.welcome.is_head_node or self.only):
                continue
            file = started.get(directory)
            own = f"cluster {file.connection.cluster[:8]}" if file else f"cluster of {seat.whose}"
            found.append(
                {
                    "id": _id(directory),
                    "name": self._name or own,
                    "address": file.connection.address if file else directory,
                    "pid": seat.viewer.pid,
                    "mine": file is not None,
                    "notebook": "" if file else seat.notebook,
                }
            )
        for gone in self._seats.keys() - set(directories):
            self._drop(gone)
        return found

    def _directories(self) -> list[str]:
        return [directory for directory in rundir.in_use() if not self.only or directory == self.only]

    def _seat(self, directory: str) -> Seat | None:
        with self._lock:
            seat = self._seats.get(directory)
            if seat is not None and joining.pid_behind(directory) == seat.viewer.pid:
                return seat
            if self._deaf.get(directory, 0.0) > time.monotonic():
                return None
            old = self._seats.pop(directory, None)
            began = time.monotonic()
            try:
                seat = self._seats[directory] = Seat(Viewer(directory))
            except OSError:  # it has just ended, or does not let us in: it is not there for us
                seat, now = None, time.monotonic()
                if now - began > SLOW_S:
                    self._deaf[directory] = now + DEAF_S
        if old is not None:
            old.close()
        return seat

    def _drop(self, directory: str) -> None:
        with self._lock:
            old = self._seats.pop(directory, None)
        if old is not None:
            old.close()

    def _directory(self, cluster: str) -> str:
        for directory in self._directories():
            if _id(directory) == cluster:
                return directory
        raise NoCluster(f"no cluster {cut(cluster, 20)} runs here any more")

    @contextlib.contextmanager
    def _at(self, directory: str) -> Iterator[Seat]:
        """Raises NoCluster, ConnectionError."""
        seat = self._seat(directory)
        if seat is None:
            raise NoCluster(f"cluster {_id(directory)} has just ended, or does not let us in")
        try:
            with seat.using:
                yield seat
        except ConnectionError:
            self._drop(directory)
            raise

    # -- looking

    def snapshot(self, cluster: str, views: Iterable[str]) -> dict[str, Any]:
        """What a page is told, by socket and by request alike: the clusters, and `views` of one of them ("": of none).

        {"clusters": [...], "cluster": id, "views": {view: ...}, "problem": why a view is missing}
        """
        told: dict[str, Any] = {"clusters": self.listing(), "cluster": cluster, "views": {}, "problem": ""}
        try:
            if cluster:
                told["views"] = self.look(cluster, views)
        except (OSError, LookupError, ValueError) as error:
            told["problem"] = cut(error, 500)
        told["scope"] = "one" if self.only else "machine"
        return told

    def look(self, cluster: str, views: Iterable[str]) -> dict[str, Any]:
        """View -> what it shows: OVERVIEW (cards/cluster.py), a job's past (past.py), or a table (util/state/tables.py). Raises
        NoCluster, ConnectionError, ValueError."""
        directory = self._directory(cluster)
        found = {}
        for view in views:
            with self._at(directory) as seat:
                if view == OVERVIEW:
                    found[view] = {**seat.lookout.look(seat.viewer), "removable": list(scaling.removable(seat.viewer.ask("nodes")))}
                elif past.known(view):
                    seat.past.read(seat.viewer)
                    found[view] = seat.past.look(seat.viewer, past.job_of(view))
                else:
                    found[view] = tables.look(Asker(seat.viewer, PATIENCE_S), view)
        return found

    def metrics(self, cluster: str | None) -> str:
        """A cluster's figures as Prometheus reads them; of the one that runs here if none is named. Raises NoCluster."""
        if cluster is None:
            listed = [each["id"] for each in self.listing()]
            if len(listed) != 1:
                raise NoCluster(
                    f"{len(listed)} clusters run here; name one: /nbray/metrics?cluster=ID ({', '.join(listed) or 'none'})"
                )
            cluster = listed[0]
        with self._at(self._directory(cluster)) as seat:
            return prometheus.text(Asker(seat.viewer, PATIENCE_S))

    # -- a job's past: what is too long for a snapshot

    def spans(self, cluster: str, job: bytes, edition: int, first: int) -> dict[str, Any]:
        """Spans of a timeline, for a page that has those before `first` of this edition. Raises NoCluster, as do the others."""
        with self._at(self._directory(cluster)) as seat:
            return self._drawing(seat, job).part(edition, first)

    def lineage(self, cluster: str, job: bytes, view: View) -> dict[str, Any]:
        """What was made from what; with what has not ended and the names that the notebook has, if the job's driver answers in
        time."""
        with self._at(self._directory(cluster)) as seat:
            drawing = self._drawing(seat, job)
            asker = Asker(seat.viewer, PATIENCE_S)
            now = asker.each_process("lineage", process=job).get(job)  # None of a driver that is gone, or busy
            return {**seat.past.graph(job, drawing, view, now or NOTHING_KNOWN), "silent": asker.say_who()}

    def events(self, cluster: str, job: bytes) -> Iterator[str]:
        """A job's trace for Perfetto, as JSON in pieces."""
        return past.events(self._batches(cluster, job)[1])

    def plan(self, cluster: str, job: bytes, cell: str) -> dict[str, Any]:
        """What a job, or one cell of it, would take elsewhere. Raises ValueError where no task of it has run."""
        latest, batches = self._batches(cluster, job)
        return self._plans.plan(What(cluster, job, cell, latest), batches)

    def _batches(self, cluster: str, job: bytes) -> tuple[int, list[bytes]]:
        """Which is the latest, and all of them."""
        with self._at(self._directory(cluster)) as seat:
            return self._drawing(seat, job).upto, seat.past.batches(job)

    @staticmethod
    def _drawing(seat: Seat, job: bytes) -> Drawing:
        drawing = seat.past.drawing(job)
        if drawing is None:
            raise NoCluster(f"the cluster remembers no task of job {job.hex()[:8]}")
        return drawing

    # -- steering

    def start(self, num_cpus: float | None) -> dict[str, Any]:
        """A cluster that outlives kernels and this process. Raises RuntimeError with what the daemon said."""
        if self.only:
            raise PermissionError("this page is of one cluster; `nbray start --head` begins another")
        before = {each["id"] for each in self.listing()}
        scaling.run("start", "--head", "--port", "0", *(("--num-cpus", f"{num_cpus:g}") if num_cpus is not None else ()))
        made = [each for each in self.listing() if each["id"] not in before]
        if not made:
            raise RuntimeError("the cluster was started and has ended again")
        return made[0]

    def stop(self, cluster: str) -> None:
        """End a cluster that `nbray start` or `start` began. Raises NoCluster; PermissionError for one that is a notebook's."""
        directory = self._directory(cluster)
        if not any(found.connection.directory == directory for found in connection_file.known()):
            raise PermissionError("this cluster belongs to a notebook or script and ends with it; stop it there (%nbray stop)")
        joined = scaling.removable(self._nodes(directory))
        self._drop(directory)
        for each in joined.values():
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                scaling.run("stop", "--directory", each)
        scaling.run("stop", "--directory", directory)

    def scale(self, cluster: str, node: str, num_cpus: int) -> dict[str, Any]:
        """Give a node so many CPUs. Raises NoCluster, ConnectionError, ValueError."""
        with self._at(self._directory(cluster)) as seat:
            return scale(seat.viewer, node, num_cpus)

    def add_node(self, cluster: str, num_cpus: float | None) -> dict[str, Any]:
        """One more node on this machine -> {"id"}. Raises NoCluster, PermissionError for a notebook's, RuntimeError."""
        directory = self._directory(cluster)
        return {"id": scaling.add(directory, lambda: self._nodes(directory), num_cpus)}

    def remove_node(self, cluster: str, node: str) -> None:
        """End a node that was begun on this machine. Raises NoCluster, PermissionError."""
        directory = self._directory(cluster)
        try:
            scaling.remove(node, lambda: self._nodes(directory))
        except LookupError as error:
            raise NoCluster(str(error)) from None

    def _nodes(self, directory: str) -> list[dict[str, Any]]:
        with self._at(directory) as seat:
            return list(seat.viewer.ask("nodes"))


def _id(directory: str) -> str:
    """Names a cluster in URLs: its directory's path stays here."""
    return hashlib.blake2b(directory.encode(), digest_size=8).hexdigest()


def _whose(pid: int) -> tuple[str, str]:
    """Who started the daemon: the notebook's file and `analysis.ipynb (4121)`, or "" and `process 4121` where that is no kernel
    whose notebook Jupyter named."""
    parent = _parent(pid)
    try:
        with open(f"/proc/{parent}/cmdline", "rb") as line, open(f"/proc/{parent}/environ", "rb") as environment:
            is_kernel, variables = b"ipykernel" in line.read(), environment.read().split(b"\0")
    except OSError:  # it has just ended, or is somebody else's
        return "", f"process {parent}"
    named = [each.partition(b"=")[2] for each in variables if each.startswith(b"JPY_SESSION_NAME=")]
    notebook = cut(os.path.basename(named[0].decode(errors="replace"))) if is_kernel and named else ""
    return notebook, f"{notebook} ({parent})" if notebook else f"process {parent}"


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return pid
