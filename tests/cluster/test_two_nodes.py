"""Two daemons on one machine as the command line starts them, and drivers that reach them by address."""

from __future__ import annotations

import os
import re
import subprocess
import sys

CLUSTER = None

DRIVER = """
import os, signal, sys
import numpy as np
import nbray as ray

ray.init(address=sys.argv[1])

@ray.remote(resources={"alice": 1})
def make():
    return np.arange(12_500_000, dtype=np.float64), ray.get_runtime_context().get_node_id()

@ray.remote(resources={"alice": 1}, max_retries=0)
def wait(path):
    import time
    open(path, "w").close()
    while True:
        time.sleep(0.01)

array, there = ray.get(make.remote(), timeout=60)
assert there != ray.get_runtime_context().get_node_id()
assert array.nbytes == 100_000_000 and np.array_equal(array, np.arange(12_500_000, dtype=np.float64))
print("pulled")
if len(sys.argv) > 2:
    waiting = wait.remote(sys.argv[2])
    import select
    while not os.path.exists(sys.argv[2]):
        select.select([], [], [], 0.01)
    (node,) = [n for n in ray.nodes() if n["NodeID"] == there]
    os.kill(node["NodeManagerPid"], signal.SIGKILL)
    try:
        ray.get(waiting, timeout=60)
    except ray.exceptions.NodeDiedError as error:
        print("died:", error)
"""


def command(*words: str, **more: str) -> str:
    """Run `nbray WORDS`; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "nbray", *words], env={**os.environ, **more}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def drive(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", DRIVER, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_arrays_come_from_the_other_node_and_its_end_fails_what_ran_there(tmp_path, monkeypatch):
    monkeypatch.setenv("NBRAY_NODE_SUSPECT_S", "2")
    monkeypatch.setenv("NBRAY_NODE_DEAD_S", "4")
    said = command("start", "--head", "--port", "0", "--num-cpus", "2", "--resources", '{"bob": 5}')
    try:
        address, token = re.search(r"at (\S+) \(pid", said), re.search(r"NBRAY_TOKEN=(\S+)", said)
        assert address
        assert token
        command("start", "--address", address[1], "--num-cpus", "2", "--resources", '{"alice": 2}', NBRAY_TOKEN=token[1])
        assert "2 nodes" in command("status", "--address", address[1])
        out = drive(address[1], str(tmp_path / "begun"))
        assert "pulled" in out
        assert re.search(r"died: wait .* was running on node .*, and the node is gone", out), out
    finally:
        command("stop")
