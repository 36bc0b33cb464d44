"""Placement groups and labels on several real nodes, as the command line starts them: where bundles go, and what a death does."""

from __future__ import annotations

import os
import re
import subprocess
import sys

CLUSTER = None

DRIVER = """
import os, signal, subprocess, sys, time
import nbray as ray
from nbray.util import placement_group, placement_group_table, remove_placement_group
from nbray.util.scheduling_strategies import In, NodeLabelSchedulingStrategy, PlacementGroupSchedulingStrategy as Within

ray.init(address=sys.argv[1], namespace="groups")
me = ray.get_runtime_context().get_node_id()
alice = next(n for n in ray.nodes() if n["Labels"].get("name") == "alice")

@ray.remote
def where():
    return ray.get_runtime_context().get_node_id()

@ray.remote(num_cpus=1, max_restarts=1, max_task_retries=1)
class Actor:
    def where(self):
        return ray.get_runtime_context().get_node_id()

def until(holds, seconds=40):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)

# labels
assert ray.get(where.options(label_selector={"name": "alice"}).remote(), timeout=30) == alice["NodeID"]
assert ray.get(where.options(label_selector={"name": "!alice"}).remote(), timeout=30) == me
assert ray.get(where.options(label_selector={"ray.io/node-id": me}).remote(), timeout=30) == me
assert ray.get(where.options(scheduling_strategy=NodeLabelSchedulingStrategy({"name": In("alice")})).remote()) == alice["NodeID"]
on_alice = Actor.options(label_selector={"name": "in(alice, carol)"}).remote()
assert ray.get(on_alice.where.remote(), timeout=30) == alice["NodeID"]
ray.kill(on_alice)

# all or nothing, over both
spread = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
assert spread.wait(30)
nodes = placement_group_table(spread)["bundles_to_node_id"]
assert set(nodes.values()) == {me, alice["NodeID"]}
for index, node in nodes.items():
    assert ray.get(where.options(scheduling_strategy=Within(spread, index)).remote(), timeout=30) == node
anywhere = where.options(scheduling_strategy=Within(spread))
assert set(ray.get([anywhere.remote() for _ in range(20)], timeout=30)) <= set(nodes.values())
packed = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_PACK")
assert not packed.wait(0.3)
remove_placement_group(spread)
assert packed.wait(30)
assert len(set(placement_group_table(packed)["bundles_to_node_id"].values())) == 1
remove_placement_group(packed)
never = placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
assert not never.wait(0.1)
assert "not enough nodes" in placement_group_table(never)["why"]
remove_placement_group(never)

# a node dies: its bundle is placed anew, with the actor that was in it; the other stays
group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="SPREAD")
assert group.wait(30)
at = {node: index for index, node in placement_group_table(group)["bundles_to_node_id"].items()}
lost, kept = [Actor.options(scheduling_strategy=Within(group, at[node])).remote() for node in (alice["NodeID"], me)]
assert ray.get([lost.where.remote(), kept.where.remote()], timeout=30) == [alice["NodeID"], me]
os.kill(alice["NodeManagerPid"], signal.SIGKILL)
until(lambda: placement_group_table(group)["bundles_to_node_id"][at[alice["NodeID"]]] != alice["NodeID"])
assert ray.get(kept.where.remote(), timeout=30) == me
assert ray.get(lost.where.remote(), timeout=60) == me
until(lambda: placement_group_table(group)["state"] == "CREATED")
assert set(placement_group_table(group)["bundles_to_node_id"].values()) == {me}
remove_placement_group(group)
assert placement_group([{"CPU": 0.5}], name="kept", lifetime="detached").wait(30)
assert placement_group([{"CPU": 0.5}], name="mine").wait(30)
print("done")
"""

NEXT_DRIVER = """
import sys, time
import nbray as ray
from nbray.util import get_placement_group, placement_group_table, remove_placement_group

ray.init(address=sys.argv[1], namespace="groups")
kept = get_placement_group("kept")
assert kept.wait(30) and kept.bundle_specs == [{"CPU": 0.5}]
end = time.monotonic() + 30
while any(row["state"] != "REMOVED" for row in placement_group_table().values() if row["name"] != "kept"):
    assert time.monotonic() < end, placement_group_table()
    time.sleep(0.02)
remove_placement_group(kept)
print("found")
"""


def command(*words: str, **more: str) -> str:
    """Run `nbray WORDS`; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "nbray", *words], env={**os.environ, **more}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_bundles_on_two_nodes_one_of_them_dies_and_then_the_driver_leaves(monkeypatch):
    monkeypatch.setenv("NBRAY_NODE_SUSPECT_S", "2")
    monkeypatch.setenv("NBRAY_NODE_DEAD_S", "4")
    said = command("start", "--head", "--port", "0", "--num-cpus", "2")
    try:
        address, token = re.search(r"at (\S+) \(pid", said), re.search(r"NBRAY_TOKEN=(\S+)", said)
        assert address
        assert token
        command("start", "--address", address[1], "--num-cpus", "2", "--labels", "name=alice", NBRAY_TOKEN=token[1])
        done = subprocess.run([sys.executable, "-c", DRIVER, address[1]], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "done" in done.stdout
        after = subprocess.run(
            [sys.executable, "-c", NEXT_DRIVER, address[1]], capture_output=True, text=True, timeout=60, check=False
        )
        assert "found" in after.stdout, after.stdout + after.stderr
    finally:
        command("stop")
