"""The clusters of this machine, as the Jupyter server sees them: found, looked at, started and stopped. Blocks; call from a thread.

It attaches as a viewer, which submits nothing and unpickles nothing. What it starts, it starts as the command line does
(`nbray start --head`), so that it outlives kernels and this server, and `nbray stop` ends it as well.
"""

from __future__ import annotations

import hashlib
import subprocess
from typing import Any

from nbray.driver import joining
from nbray.driver.viewer import Viewer
from nbray.node.spawn import interpreter
from nbray.util import prometheus
from nbray.util.state.asking import Asker
from nbray.util.state.watching import Lookout, scale
from nbray.wire import connection_file, rundir

START_S = 30.0
PATIENCE_S = 2.0  #: for processes that are asked for their figures


class NoCluster(LookupError):
    """The id names nothing that runs here."""


class Clusters:
    """One thread at a time."""

    def __init__(self) -> None:
        self._viewers: dict[str, Viewer] = {}
        self._lookouts: dict[str, Lookout] = {}

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
            self._drop(gone)
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
        self._lookouts.pop(directory, None)
        if (old := self._viewers.pop(directory, None)) is not None:
            old.close()

    def _directory(self, cluster: str) -> str:
        for directory in rundir.in_use():
            if _id(directory) == cluster:
                return directory
        raise NoCluster(f"no cluster {cluster} runs here any more")

    # -- looking

    def view(self, cluster: str) -> dict[str, Any]:
        """The cluster now (cards/cluster.py). Raises NoCluster, ConnectionError."""
        directory = self._directory(cluster)
        viewer = self._viewer(directory)
        if viewer is None:
            raise NoCluster(f"cluster {cluster} has just ended")
        try:
            return self._lookouts.setdefault(directory, Lookout()).look(viewer)
        except ConnectionError:
            self._drop(directory)
            raise

    def scale(self, cluster: str, node: str, num_cpus: int) -> dict[str, Any]:
        """Give a node so many CPUs. Raises NoCluster, ConnectionError, ValueError."""
        viewer = self._viewer(self._directory(cluster))
        if viewer is None:
            raise NoCluster(f"cluster {cluster} has just ended")
        return scale(viewer, node, num_cpus)

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
