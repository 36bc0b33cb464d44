"""`ray.util.state`: lists, single things and summaries of tasks, actors, objects, nodes, workers and jobs; filters and limits."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.subject import needs_dashboard, ray

pytestmark = needs_dashboard

NBRAY = ray.__name__ == "nbray"
state = importlib.import_module(f"{ray.__name__}.util.state")


def until(found: Callable[[], Any], within_s: float = 20.0) -> Any:
    """The first true value: what a cluster tells of itself may be a moment behind, in Ray a second or more."""
    deadline = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < deadline, value
        time.sleep(0.05)
    return value


def tasks(name: str, **options: Any) -> Any:
    return state.list_tasks(filters=[("name", "=", name)], **options)


def workers(*filters: Any) -> Any:
    return state.list_workers(filters=list(filters), raise_on_missing_output=False)  # Ray counts what it filters as missing


def states_of(name: str) -> list[str]:
    return sorted(task.state for task in tasks(name))


class Gate:
    """A file that tasks wait for, so that a test knows where they are. (Waiting in `get` would give up their CPU.)"""

    def __init__(self, path):
        self.path = path

    def open(self):
        with open(self.path, "w"):
            pass


@pytest.fixture
def gate(tmp_path):
    made = Gate(str(tmp_path / "open"))
    yield made
    made.open()


@ray.remote(num_cpus=0)
class Listed:
    def pid(self):
        return os.getpid()


@ray.remote(num_cpus=1000)
class Huge:
    pass


@ray.remote(num_cpus=0)
class Summed:
    pass


def test_a_finished_task_says_where_it_ran_and_when():
    @ray.remote
    def finished_one():
        return os.getpid()

    ref = finished_one.remote()
    pid = ray.get(ref)
    [task] = until(lambda: [t for t in tasks("finished_one", detail=True) if t.state == "FINISHED"])
    assert task.task_id == ref.task_id().hex()
    assert (task.type, task.func_or_class_name.rpartition(".")[2]) == ("NORMAL_TASK", "finished_one")
    assert (task.attempt_number, task.worker_pid, task.error_type) == (0, pid, None)
    assert task.node_id == ray.get_runtime_context().get_node_id()
    assert task.creation_time_ms <= task.start_time_ms <= task.end_time_ms
    assert task["name"] == "finished_one"


def test_a_failed_task_says_why():
    @ray.remote(max_retries=0)
    def failed_one():
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        ray.get(failed_one.remote())
    [task] = until(lambda: [t for t in tasks("failed_one", detail=True) if t.state == "FAILED"])
    assert task.error_type == "TASK_EXECUTION_EXCEPTION"
    assert "on purpose" in task.error_message


def test_a_task_by_another_name_keeps_its_function():
    @ray.remote
    def plain_function():
        pass

    ray.get(plain_function.options(name="by another name").remote())
    [task] = until(lambda: tasks("by another name"))
    assert task.func_or_class_name.rpartition(".")[2] == "plain_function"


def test_a_running_task_and_what_waits_for_it(gate):
    @ray.remote
    def running_one(gate):
        while not os.path.exists(gate):
            time.sleep(0.02)

    @ray.remote
    def waiting_for_argument(_):
        pass

    first = running_one.remote(gate.path)
    second = waiting_for_argument.remote(first)
    until(lambda: states_of("running_one") == ["RUNNING"])
    until(lambda: states_of("waiting_for_argument") == ["PENDING_ARGS_AVAIL"])
    gate.open()
    ray.get(second)


def test_tasks_beyond_the_resources_wait_for_a_node(gate):
    @ray.remote(num_cpus=2)
    def greedy(gate):
        while not os.path.exists(gate):
            time.sleep(0.02)

    refs = [greedy.remote(gate.path) for _ in range(3)]
    until(lambda: states_of("greedy").count("PENDING_NODE_ASSIGNMENT") == 2)
    gate.open()
    ray.get(refs)
    until(lambda: states_of("greedy") == ["FINISHED"] * 3)


def test_a_task_that_waits_in_get_or_wait_says_so(gate):
    @ray.remote(num_cpus=0)
    def held(gate):
        while not os.path.exists(gate):
            time.sleep(0.02)

    @ray.remote(num_cpus=0)
    def gets(gate):
        ray.get(held.remote(gate))

    @ray.remote(num_cpus=0)
    def waits(gate):
        ray.wait([held.remote(gate)])

    refs = [gets.remote(gate.path), waits.remote(gate.path)]
    until(lambda: states_of("gets") == ["RUNNING_IN_RAY_GET" if NBRAY else "RUNNING"])
    until(lambda: states_of("waits") == ["RUNNING_IN_RAY_WAIT" if NBRAY else "RUNNING"])
    assert len(state.list_tasks(filters=[("name", "=", "gets"), ("state", "=", "RUNNING")])) == 1
    gate.open()
    ray.get(refs)


def test_a_child_names_its_parent():
    @ray.remote
    def child_of_one():
        pass

    @ray.remote
    def parent_of_one():
        ray.get(child_of_one.remote())

    ref = parent_of_one.remote()
    ray.get(ref)
    [task] = until(lambda: [t for t in tasks("child_of_one") if t.state == "FINISHED"])
    assert task.parent_task_id == ref.task_id().hex()


def test_calls_and_creations_of_actors_are_tasks():
    @ray.remote
    class Called:
        def method(self):
            pass

    actor = Called.remote()
    ray.get(actor.method.remote())
    id_ = actor._actor_id.hex()
    found = until(lambda: (f := state.list_tasks(filters=[("actor_id", "=", id_)])) if _both_finished(id_) else None)
    assert {t.type for t in found} == {"ACTOR_TASK", "ACTOR_CREATION_TASK"}
    assert {t.name for t in found} == {"Called.method", "Called.__init__"}


def _both_finished(actor_id):
    return [t.state for t in state.list_tasks(filters=[("actor_id", "=", actor_id)])] == ["FINISHED"] * 2


def test_calls_that_wait_their_turn_at_an_actor(gate):
    @ray.remote(num_cpus=0)
    class Slow:
        def first(self, gate):
            while not os.path.exists(gate):
                time.sleep(0.02)

        def second(self):
            pass

    actor = Slow.remote()
    first, second = actor.first.remote(gate.path), actor.second.remote()
    until(lambda: states_of("Slow.first") == ["RUNNING"])
    [waiting] = until(lambda: states_of("Slow.second"))
    assert waiting in ("PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY", "" if NBRAY else "SUBMITTED_TO_WORKER")
    gate.open()
    ray.get([first, second])


def test_tasks_without_events_are_not_told_of(gate):
    @ray.remote(num_cpus=0, enable_task_events=False)
    def untold(gate):
        while not os.path.exists(gate):
            time.sleep(0.02)

    @ray.remote(num_cpus=0)
    def told(gate):
        while not os.path.exists(gate):
            time.sleep(0.02)

    refs = [untold.remote(gate.path), told.remote(gate.path)]
    until(lambda: states_of("told") == ["RUNNING"])
    assert tasks("untold") == []
    gate.open()
    ray.get(refs)
    until(lambda: states_of("told") == ["FINISHED"])
    assert tasks("untold") == []


def test_one_task_by_its_id_or_reference():
    @ray.remote
    def found_by_id():
        pass

    ref = found_by_id.remote()
    ray.get(ref)
    id_ = ref.task_id().hex()
    assert until(lambda: state.get_task(id_)).name == "found_by_id"
    assert state.get_task(ref).task_id == id_
    assert state.get_task("f" * len(id_)) is None


def test_actors_and_their_states():
    actor = Listed.options(name="the listed one").remote()
    pid = ray.get(actor.pid.remote())
    [found] = state.list_actors(filters=[("class_name", "=", "Listed")], detail=True)
    assert (found.actor_id, found.state, found.name, found.pid) == (actor._actor_id.hex(), "ALIVE", "the listed one", pid)
    assert found.node_id == ray.get_runtime_context().get_node_id()
    assert found.ray_namespace == ray.get_runtime_context().namespace
    assert (found.death_cause, found.is_detached, found.num_restarts) == (None, False, 0)
    ray.kill(actor)
    dead = until(lambda: (a := state.get_actor(actor._actor_id.hex())).state == "DEAD" and a)
    assert "killed" in str(dead.death_cause)
    assert state.list_actors(filters=[("class_name", "=", "Listed"), ("state", "=", "ALIVE")]) == []


def test_an_actor_that_does_not_fit_is_pending():
    actor = Huge.remote()
    until(lambda: [a.state for a in state.list_actors(filters=[("class_name", "=", "Huge")])] == ["PENDING_CREATION"])
    del actor


def test_filters_take_both_relations_and_disregard_case():
    @ray.remote
    def filtered():
        pass

    ray.get([filtered.remote() for _ in range(3)])
    until(lambda: len(tasks("filtered")) == 3)
    assert len(tasks("FILTERED")) == 3
    assert state.list_tasks(filters=[("name", "=", "filtered"), ("state", "!=", "FINISHED")]) == []
    assert len(state.list_tasks(filters=[("name", "=", "filtered"), ("attempt_number", "=", "0")])) == 3


def test_a_filter_that_does_not_exist_is_an_error():
    with pytest.raises((ValueError, state.api.RayStateApiException)):
        state.list_tasks(filters=[("colour", "=", "red")])
    with pytest.raises(ValueError, match="filter predicate"):
        state.list_tasks(filters=[("state", ">", "1")])


def test_details_come_when_asked_for():
    @ray.remote
    def detailed():
        pass

    ray.get(detailed.remote())
    assert until(lambda: tasks("detailed"))[0].creation_time_ms is None
    assert tasks("detailed", detail=True)[0].creation_time_ms > 0


def test_nodes_workers_and_jobs():
    [node] = state.list_nodes()
    assert (node.node_id, node.state, node.is_head_node) == (ray.get_runtime_context().get_node_id(), "ALIVE", True)
    assert node.resources_total["CPU"] == 2
    assert state.get_node(node.node_id).node_id == node.node_id
    [driver] = until(lambda: workers(("worker_type", "=", "DRIVER"), ("is_alive", "=", True)))
    assert driver.pid == os.getpid()

    @ray.remote
    def pid():
        return os.getpid()

    one = ray.get(pid.remote())
    [worker] = until(lambda: workers(("pid", "=", one)))
    assert (worker.worker_type, worker.is_alive, worker.node_id) == ("WORKER", True, node.node_id)
    assert state.get_worker(worker.worker_id).pid == one
    [job] = [job for job in state.list_jobs() if job.status == "RUNNING"]
    assert job.type == "DRIVER"
    assert (job.driver_info["pid"] if NBRAY else job.driver_info.pid) == str(os.getpid())


def test_objects_and_who_refers_to_them():
    ref = ray.put(b"x" * 300_000)
    [entry] = until(lambda: state.get_objects(ref.hex()))
    assert (entry.object_id, entry.type, entry.pid) == (ref.hex(), "DRIVER", os.getpid())
    assert 300_000 <= entry.object_size < 310_000
    assert (entry.task_status, entry.reference_type) == ("FINISHED", "LOCAL_REFERENCE")
    id_ = ref.hex()
    del ref
    until(lambda: not state.get_objects(id_))


def test_placement_groups_and_what_is_in_them():
    group = ray.util.placement_group([{"CPU": 1}], name="the listed group")
    assert group.wait(30)

    @ray.remote(num_cpus=1)
    class Inside:
        pass

    strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group)
    actor = Inside.options(scheduling_strategy=strategy).remote()
    ray.get(actor.__ray_ready__.remote())
    [found] = until(lambda: state.list_placement_groups(filters=[("name", "=", "the listed group")], detail=True))
    assert (found.state, found.is_detached) == ("CREATED", False)
    assert found.placement_group_id == group.id.hex()
    assert found.bundles[0]["unit_resources"]["CPU"] == 1
    assert state.get_actor(actor._actor_id.hex()).placement_group_id == found.placement_group_id
    ray.util.remove_placement_group(group)
    until(lambda: state.get_placement_group(found.placement_group_id).state == "REMOVED")


def test_runtime_environments_that_workers_have():
    @ray.remote(runtime_env={"env_vars": {"LISTED": "yes"}})
    def inside():
        return os.environ["LISTED"]

    assert ray.get(inside.remote()) == "yes"
    [env] = until(lambda: [e for e in state.list_runtime_envs() if e.runtime_env.get("env_vars", {}).get("LISTED")])
    assert (env.success, env.node_id) == (True, ray.get_runtime_context().get_node_id())


def test_summaries_count():
    @ray.remote
    def counted():
        pass

    actors = [Summed.remote() for _ in range(2)]
    ray.get([a.__ray_ready__.remote() for a in actors])
    ray.get([counted.remote() for _ in range(7)])
    counts = until(lambda: (s := state.summarize_tasks()["cluster"]["summary"].get("counted")) and _all_finished(s, 7) and s)
    assert counts["type"] == "NORMAL_TASK"
    summary = state.summarize_actors()["cluster"]["summary"]["Summed"]
    assert summary["state_counts"] == {"ALIVE": 2}
    objects = state.summarize_objects()["cluster"]
    assert objects["total_objects"] >= 2
    assert objects["summary_by"] == "callsite"


def _all_finished(summary, count):
    return summary["state_counts"] == {"FINISHED": count}


def test_the_state_can_be_asked_inside_a_task():
    @ray.remote
    def asks():
        module = importlib.import_module(f"{ray.__name__}.util.state")
        return [t.name for t in module.list_tasks(filters=[("name", "=", "asks"), ("state", "=", "RUNNING")])]

    if NBRAY:
        assert ray.get(asks.remote()) == ["asks"]


@pytest.mark.skipif(not NBRAY, reason="a promise of nbray's own")
def test_nothing_is_cut_silently():
    @ray.remote
    def many():
        pass

    ray.get([many.remote() for _ in range(120)])
    with pytest.warns(UserWarning, match="100 of 120 tasks are listed"):
        assert len(tasks("many")) == 100
    assert len(tasks("many", limit=1000)) == 120


@pytest.mark.skipif(not NBRAY, reason="Ray records no call sites unless told to")
def test_tasks_and_objects_know_the_line_that_made_them():
    @ray.remote
    def placed():
        pass

    ref = placed.remote()
    kept = ray.put(1)
    ray.get(ref)
    [task] = tasks("placed", detail=True)
    number = test_tasks_and_objects_know_the_line_that_made_them.__code__.co_firstlineno
    assert task.call_site == f"test_state.py:{number + 6}"
    assert state.get_objects(kept.hex())[0].call_site == f"test_state.py:{number + 7}"
    assert ref.call_site() == task.call_site
    actor = Summed.remote()
    ray.get(actor.__ray_ready__.remote())
    assert state.get_actor(actor._actor_id.hex()).call_site == f"test_state.py:{number + 14}"
    assert state.get_task(actor._actor_id.hex()).call_site == f"test_state.py:{number + 14}"
