"""Programs as their authors wrote them for Ray, run against nbray: `import nbray as ray`, sizes scaled to two cores."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

import pytest

from tests.conformance.subject import ray


def pytest_itemcollected(item: pytest.Item) -> None:
    """With Ray itself, a test that is marked `differs("row")` has to fail: a difference that has gone is noticed. Where Ray is one
    way today and another tomorrow (`sometimes`) it may fail."""
    marker = item.get_closest_marker("differs")
    if marker is not None and ray.__name__ == "ray":
        # What hangs there is not begun: the time limit of a test is minutes.
        item.add_marker(
            pytest.mark.xfail(
                reason=marker.args[0], strict=not marker.kwargs.get("sometimes"), run=not marker.kwargs.get("hangs")
            )
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The modules of tasks, actors and objects run once more where every worker is on another node than the driver."""
    if getattr(metafunc.module, "ON_NODES_TOO", False) and ray.__name__ != "ray":
        metafunc.parametrize("cluster", ["here", "elsewhere"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two CPUs for the whole module, or what the module says in CLUSTER."""
    given = getattr(request.module, "CLUSTER", {"num_cpus": 2})
    if getattr(request, "param", "here") == "here":
        ray.init(**given)
        yield
        ray.shutdown()
        return
    try:
        said = nbray("start", "--head", "--port", "0", "--num-cpus", "0")
        address = re.search(r"at (\S+) \(pid", said)
        assert address is not None
        nbray("start", "--address", address[1], "--num-cpus", str(given["num_cpus"]))
        ray.init(address=address[1])
        yield
        ray.shutdown()
    finally:
        nbray("stop", "--force")


def nbray(*words: str) -> str:
    """Run the command line; returns what it printed."""
    ran = subprocess.run([sys.executable, "-m", "nbray", *words], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture
def most_at_once() -> Callable[[str], int]:
    """How many tasks of a name, begun since the test began, ran at the same time: from the timeline, not from a stopwatch."""
    began_us = time.time() * 1e6

    def count(name: str) -> int:
        spans = [(e["ts"], e["ts"] + e["dur"]) for e in ray.timeline() if e["ph"] == "X" and e["name"] == name and e["ts"] >= began_us]
        assert spans, f"no {name} in the timeline"
        # At equal times an end comes before a start: tasks that follow each other do not overlap.
        steps = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
        return max(accumulate(step for _, step in steps))

    return count
