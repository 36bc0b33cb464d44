"""More nodes on this machine, or fewer: what the panel, the page and `%nbray scale` do. Blocks.

A node is begun as the command line does it (`nbray start --address`), so it outlives whoever asked, and `nbray stop` ends it as
well. Only nodes that were begun so on this machine can be taken away from here, the head never.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbray.driver import joining
from nbray.driver.viewer import Viewer
from nbray.node.spawn import interpreter
from nbray.wire import connection_file, rundir

COMMAND_S = 40.0
#: A node registers after its gateway was admitted, and is gone after it said goodbye: both well within a second.
SEEN_S = 10.0
LOOK_S = 0.05
MOST_NODES = 64  #: here at a time
MOST_CPUS = 100_000

Nodes = Callable[[], Sequence[Mapping[str, Any]]]  #: asks the head for its nodes


def run(*words: str) -> None:
    """Run `nbray WORDS`. Raises RuntimeError with what it said if it fails."""
    command = [*interpreter(), "-m", "nbray", *words]
    what = f"`nbray {words[0]}`"
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{what} did not end within {COMMAND_S:g} s") from None
    if ran.returncode:
        raise RuntimeError(ran.stderr.strip() or f"{what} ended with code {ran.returncode}")


def file_of(directory: str) -> str:
    """The connection file of the cluster whose head is in `directory`. Raises PermissionError when it has none."""
    for found in connection_file.known():
        if found.connection.directory == directory:
            return found.source
    raise PermissionError(
        "this cluster belongs to a notebook or script: it has no port that a node could join. "
        "Start one with `nbray start --head`, or in JupyterLab's panel; nbray.init() attaches to it"
    )


def removable(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Node id -> its runtime directory: those of `nodes` that `nbray start --address` began on this machine."""
    if all(node["is_head"] for node in nodes):
        return {}
    begun = {}
    for directory in rundir.in_use():
        noted = os.path.exists(f"{connection_file.connections_directory()}/{os.path.basename(directory)}.node")
        if noted and (pid := joining.pid_behind(directory)) is not None:
            with contextlib.suppress(OSError):  # it has just ended
                begun[_node_in(directory, pid)] = directory
    joined = [node["node_id"] for node in nodes if node["alive"] and not node["is_head"]]
    return {node: begun[node] for node in joined if node in begun}


@functools.lru_cache(maxsize=256)
def _node_in(directory: str, pid: int) -> str:  # noqa: ARG001 -- the answer holds for this process in it
    """The id of the node whose daemon is in `directory`."""
    with Viewer(directory) as viewer:
        return viewer.welcome.node.hex()


def checked_cpus(num_cpus: object) -> float | None:
    """Raises ValueError for what is no number of CPUs."""
    if num_cpus is None:
        return None
    if isinstance(num_cpus, bool) or not isinstance(num_cpus, int | float) or not 0 < num_cpus <= MOST_CPUS:
        raise ValueError(f"num_cpus is a number above 0 and at most {MOST_CPUS:,}, not {num_cpus!r:.50}")
    return float(num_cpus)


def add(directory: str, nodes: Nodes, num_cpus: float | None = None) -> str:
    """Begin one more node here, of the cluster whose head is in `directory`. Returns its id once the head has it.

    Raises PermissionError for a cluster that no node can join, RuntimeError with what went wrong.
    """
    file = file_of(directory)
    before = {node["node_id"] for node in nodes()}
    if len(removable(nodes())) >= MOST_NODES:
        raise RuntimeError(f"{MOST_NODES} nodes of it run on this machine already")
    run("start", "--address", file, *(("--num-cpus", f"{num_cpus:g}") if num_cpus is not None else ()))
    came = _wait(lambda: [node["node_id"] for node in nodes() if node["node_id"] not in before])  # it may be ended again by now
    if not came:
        raise RuntimeError(f"the node runs, and the head does not know it after {SEEN_S:g} s; `nbray status` may say more")
    return str(came[0])


def remove(node: str, nodes: Nodes) -> None:
    """End a node that was begun here; what runs there runs again elsewhere if it may. Raises LookupError, PermissionError."""
    every = nodes()
    known = next((each for each in every if each["node_id"] == node and each["alive"]), None)
    if known is None:
        raise LookupError(f"the cluster has no node {node[:8]} any more")
    directory = removable(every).get(node)
    if directory is None:
        why = (
            "it is the head, and the cluster ends with it"
            if known["is_head"]
            else f"it was not begun on this machine: use `nbray stop` on {known['host']}"
        )
        raise PermissionError(f"node {node[:4]} is not taken away from here: {why}")
    run("stop", "--directory", directory)
    _wait(lambda: not any(each["alive"] and each["node_id"] == node for each in nodes()))


def scale(directory: str, nodes: Nodes, wanted: int, num_cpus: float | None = None) -> list[str]:
    """Begin or end nodes here until the cluster has `wanted` with CPUs. Returns what was done, in words.

    Raises ValueError when it cannot have so few or so many, and as `add` does.
    """
    there = [node for node in nodes() if node["alive"] and node["total"]]
    can_go = [node for node in there if node["node_id"] in removable(there)]
    least = len(there) - len(can_go)
    if not least <= wanted <= MOST_NODES:
        raise ValueError(
            f"the cluster has {len(there)} nodes, of which {len(can_go)} can be ended from here: "
            f"it can have {least} to {MOST_NODES}, not {wanted}"
        )
    done = [f"began node {add(directory, nodes, num_cpus)[:4]}" for _ in range(wanted - len(there))]
    for node in reversed(can_go[: max(0, len(there) - wanted)] if wanted < len(there) else []):
        remove(node["node_id"], nodes)
        done.append(f"ended node {node['node_id'][:4]}")
    return done


def _wait(look: Callable[[], Any]) -> Any:
    """What `look` gives, as soon as that is something, or after SEEN_S."""
    deadline = time.monotonic() + SEEN_S
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return found
