"""Questions to processes that hang, to owners that are gone, and to nodes elsewhere: what is missing is said."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys

import pytest

import nbray as ray
from nbray import session
from nbray.trace import decode_records
from nbray.util import state
from nbray.util.state.api import entries
from tests.cluster.conditions import until
from tests.cluster.test_two_nodes import command


def test_a_process_that_holds_the_interpreter_is_named_and_nobody_waits_for_it_for_ever(tmp_path):
    @ray.remote
    def hold(path, release):
        open(path, "w").close()
        libc = ctypes.PyDLL(None)  # calls do not let go of the interpreter
        while not os.path.exists(release):
            libc.usleep(900_000)

    held, release = tmp_path / "held", tmp_path / "release"
    ref = hold.remote(str(held), str(release))
    until(held.exists, "the task holds the interpreter")
    found = entries("tasks", [("name", "=", "hold")], timeout=0.25)
    assert [task.state for task in found] == ["RUNNING"], "its owner knows all the same"
    [said] = {problem for problem in found.problems if "did not answer in time" in problem}
    assert re.search(r"process [0-9a-f]{4} of node [0-9a-f]{4}", said)
    with pytest.raises(state.RayStateApiException, match=r"did not answer in time.*raise_on_missing_output=False"):
        state.list_tasks(timeout=0.25)
    with pytest.warns(UserWarning, match="did not answer in time"):
        assert state.list_tasks(filters=[("name", "=", "hold")], timeout=0.25, raise_on_missing_output=False)
    release.touch()
    ray.get(ref)


def traced(name):
    """How many tasks of a name the head's trace has."""
    return sum(record.name == name for blob in session.engine.ask("trace") for record in decode_records(blob))


def test_tasks_of_an_owner_that_is_gone_are_told_from_the_trace():
    @ray.remote
    def grandchild():
        pass

    @ray.remote(num_cpus=0)
    class Parent:
        def run(self):
            ray.get([grandchild.remote() for _ in range(3)])
            return os.getpid()

    parent = Parent.remote()
    pid = ray.get(parent.run.remote())
    job = ray.get_runtime_context().get_job_id()
    until(lambda: traced("grandchild") == 3, "the head has been told of them")
    os.kill(pid, signal.SIGKILL)
    until(lambda: [a.state for a in state.list_actors(filters=[("pid", "=", pid)])] == ["DEAD"], "the actor is dead")
    found = state.list_tasks(filters=[("name", "=", "grandchild")])
    assert [(task.state, task.job_id) for task in found] == [("FINISHED", job)] * 3
    [dead] = state.list_workers(filters=[("pid", "=", pid)], detail=True)
    assert (dead.is_alive, dead.exit_type) == (False, "SYSTEM_ERROR")
    assert "signal 9" in dead.exit_detail
    assert pid in [int(re.search(r"worker (\d+)", e.message)[1]) for e in state.list_cluster_events() if e.source_type == "WORKER"]


ELSEWHERE = """
import sys
import nbray as ray
from nbray.util import state
ray.init(sys.argv[1])

@ray.remote(resources={"alice": 1})
def speak():
    print("far words")
    return ray.get_runtime_context().get_node_id()

ref = speak.remote()
node = ray.get(ref, timeout=60)
[task] = state.list_tasks(filters=[("name", "=", "speak")], detail=True)
assert (task.state, task.node_id) == ("FINISHED", node) and node != ray.get_runtime_context().get_node_id()
assert task.worker_pid in [w.pid for w in state.list_workers(filters=[("node_id", "=", node)])]
assert "far words" in "".join(state.get_log(task_id=task.task_id))
assert len(state.list_nodes()) == 2
print("told")
"""


def test_another_node_tells_of_its_processes_and_logs():
    said = command("start", "--head", "--port", "0", "--num-cpus", "1")
    try:
        address, token = re.search(r"at (\S+) \(pid", said), re.search(r"NBRAY_TOKEN=(\S+)", said)
        assert address
        assert token
        command("start", "--address", address[1], "--num-cpus", "1", "--resources", '{"alice": 2}', NBRAY_TOKEN=token[1])
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE, address[1]], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "told" in done.stdout
    finally:
        command("stop", "--force")
