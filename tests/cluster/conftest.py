"""A cluster of real processes for each module: two CPUs, or what the module says in CLUSTER; None: its tests start their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

import nbray as ray
from nbray import session
from tests.cluster.conditions import until


@pytest.fixture(scope="module", autouse=True)
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    wanted = getattr(request.module, "CLUSTER", {"num_cpus": 2})
    if wanted is not None:
        ray.init(**wanted)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def consistent(cluster: None) -> Iterator[None]:
    """After every test the owner's invariants hold and the cluster's resources are free again."""
    yield
    if session.engine is None:
        return
    with session.engine.runtime.locked() as state:
        state.check()
    # What a failed test still runs is its own failure, and not that of the next.
    total = ray.cluster_resources()
    until(lambda: ray.available_resources() == total, lambda: f"all of {total} is free again.{holders()}", within_s=5)


def holders() -> str:
    """Who holds resources, as the owner and as the node see it."""
    engine = session.engine
    assert engine is not None
    said = []
    with engine.runtime.locked() as state:
        for key, pool in state.tasks.pools.items():
            said.append(f"{key}: {len(pool.queue)} queued, requests {pool.requests}")
            for lease in pool.leases.values():
                tasks = [(task.push.name, task.state) for task in lease.running.values()]
                said.append(f"  lease {lease.id} on {lease.pid}, blocked {lease.blocked}, recalled {lease.recalled}, {tasks}")
        said += [f"task {task.push.name} {task.state} missing {task.missing}" for task in state.tasks.tasks.values()]
    said += [str(worker) for worker in engine.questions.ask("workers", {})]
    return "".join(f"\n    {line}" for line in said)


class Script:
    """A driver of its own: Python text run by another process, which says "line" by line what a test waits for."""

    def __init__(self, text: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(text)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        self.said: list[str] = []

    def line(self, start: str) -> str:
        """The rest of the next line that begins with `start`. Fails when the script ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith(start):
                return line.removeprefix(start).strip()
        assert self.process.stderr is not None
        raise AssertionError(f"the script ended without saying {start!r}; it said {self.said}\n{self.process.stderr.read()}")

    def finish(self, within_s: float = 60.0) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) once it has ended."""
        out, err = self.process.communicate(timeout=within_s)
        return self.process.returncode, "".join(self.said) + out, err


@pytest.fixture
def script() -> Iterator[Callable[[str], Script]]:
    """Start scripts; whatever still runs at the end of the test is killed."""
    started: list[Script] = []

    def start(text: str) -> Script:
        started.append(Script(text))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()
