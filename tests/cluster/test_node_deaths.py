"""What becomes of values, owners, actors and demands when one of two nodes dies: lineage, OwnerDiedError, affinity."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.cluster.test_two_nodes import command

CLUSTER = None

DRIVER = """
import os, select, signal, sys
import numpy as np
import nbray as ray
from nbray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as At

ray.init(address=sys.argv[1])
here = ray.get_runtime_context().get_node_id()
[there] = [n for n in ray.nodes() if n["NodeID"] != here]

def on(node, soft):
    return {"scheduling_strategy": At(node, soft)}

@ray.remote
def where():
    return ray.get_runtime_context().get_node_id()

@ray.remote
def make(n):
    return np.full(300_000, n, dtype=np.float64)

@ray.remote
def double(array):
    return array * 2

@ray.remote
def put():
    return [ray.put(np.ones(300_000))]

@ray.remote(max_retries=1)
def begin(path):
    open(path + str(os.getpid()), "w").close()
    while ray.get_runtime_context().get_node_id() == sys_there:
        select.select([], [], [], 0.01)
    return ray.get_runtime_context().get_node_id()

@ray.remote
class Maker:
    def make(self):
        return np.ones(300_000)
    def where(self):
        return ray.get_runtime_context().get_node_id()

sys_there = there["NodeID"]
assert ray.get(where.options(**on(sys_there, False)).remote(), timeout=60) == sys_there
assert ray.get(where.options(**on(here, True)).remote(), timeout=60) == here

lost = make.options(**on(sys_there, True)).remote(3)
chained = double.options(**on(sys_there, True)).remote(make.options(**on(sys_there, True)).remote(4))
final = make.options(max_retries=0, **on(sys_there, False)).remote(5)
maker = Maker.options(**on(sys_there, True)).remote()
of_an_actor = maker.make.remote()
living = Maker.options(max_restarts=1, max_task_retries=1, num_cpus=0, **on(sys_there, True)).remote()
assert ray.get(living.where.remote(), timeout=60) == sys_there
[of_another_owner] = ray.get(put.options(**on(sys_there, True)).remote(), timeout=60)
ray.wait([lost, chained, final, of_an_actor], num_returns=4, timeout=60, fetch_local=False)
running = begin.options(num_cpus=0, **on(sys_there, True)).remote(sys.argv[2])
while not os.listdir(os.path.dirname(sys.argv[2])):
    select.select([], [], [], 0.01)

os.kill(there["NodeManagerPid"], signal.SIGKILL)

def told(name, ask):
    try:
        print(name, "=", ask(), flush=True)
    except Exception as error:
        print(name, "!", type(error).__name__, "|", str(error).replace(chr(10), " "), flush=True)

told("running elsewhere", lambda: ray.get(running, timeout=60) == here)
told("lost", lambda: ray.get(lost, timeout=60)[0])
told("chained", lambda: ray.get(chained, timeout=60)[0])
told("argument", lambda: ray.get(double.remote(lost), timeout=60)[0])
told("restarted here", lambda: ray.get(living.where.remote(), timeout=60) == here)
told("final", lambda: ray.get(final, timeout=60))
told("of_an_actor", lambda: ray.get(of_an_actor, timeout=60))
told("of_another_owner", lambda: ray.get(of_another_owner, timeout=60))
told("hard", lambda: ray.get(where.options(**on(sys_there, False)).remote(), timeout=60))
told("soft here", lambda: ray.get(where.options(**on(sys_there, True)).remote(), timeout=60) == here)
told("hard actor", lambda: ray.get(Maker.options(**on(sys_there, False)).remote().where.remote(), timeout=60))
told("dependant", lambda: ray.get(double.remote(of_an_actor), timeout=60))
"""


def test_what_can_be_made_again_is_and_the_rest_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("NBRAY_NODE_SUSPECT_S", "2")
    monkeypatch.setenv("NBRAY_NODE_DEAD_S", "4")
    (tmp_path / "begun").mkdir()
    said = command("start", "--head", "--port", "0", "--num-cpus", "2")
    try:
        address, token = re.search(r"at (\S+) \(pid", said), re.search(r"NBRAY_TOKEN=(\S+)", said)
        assert address
        assert token
        command("start", "--address", address[1], "--num-cpus", "2", NBRAY_TOKEN=token[1])
        words = [sys.executable, "-c", DRIVER, address[1], str(tmp_path / "begun" / "by-")]
        done = subprocess.run(words, capture_output=True, text=True, timeout=170, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        command("stop")
    print(done.stdout)  # shown when something below fails
    out = dict(re.split(r" (?==|!)", line, maxsplit=1) for line in done.stdout.splitlines())
    assert out["lost"] == "= 3.0"
    assert out["chained"] == "= 8.0"
    assert out["argument"] == "= 6.0"
    assert out["running elsewhere"] == out["restarted here"] == out["soft here"] == "= True"
    for name in ("final", "of_an_actor"):
        lost = r"! ObjectReconstructionFailedError \| the object \w+ is lost: made at <string>:\d+, its only copy was on node"
        assert re.match(lost, out[name])
    assert "cannot be reconstructed because the task was created with max_retries=0" in out["final"]
    assert "cannot be reconstructed because a method of an actor made it" in out["of_an_actor"]
    assert out["of_another_owner"].startswith("! OwnerDiedError")
    assert out["hard"].startswith("! TaskUnschedulableError")
    assert out["hard actor"].startswith(("! ActorUnschedulableError", "! ActorDiedError"))
    assert out["dependant"].startswith("! RayTaskError(ObjectReconstructionFailedError)")
