"""GPUs, threads and memory: what tasks and actors are given, and what they see of it."""

from __future__ import annotations

import os

import pytest

from tests.conformance.subject import ray

CLUSTER = {"num_cpus": 4, "num_gpus": 2}


@ray.remote
class Holder:
    def ids(self):
        return [str(i) for i in ray.get_gpu_ids()], os.environ.get("CUDA_VISIBLE_DEVICES")

    def threads(self):
        return os.environ.get("OMP_NUM_THREADS")


@pytest.fixture(autouse=True, scope="module")
def nothing_of_ours_in_the_environment():
    """The cluster is started with what a user has; these tests are about one who has neither."""
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_task_sees_the_gpus_that_it_has_and_no_others():
    @ray.remote(num_gpus=1)
    def one():
        return [str(i) for i in ray.get_gpu_ids()], os.environ["CUDA_VISIBLE_DEVICES"]

    ids, visible = ray.get(one.remote())
    assert len(ids) == 1
    assert visible == ids[0]


def test_two_holders_of_whole_gpus_have_different_ones():
    first, second = Holder.options(num_gpus=1).remote(), Holder.options(num_gpus=1).remote()
    (a, seen_a), (b, seen_b) = ray.get([first.ids.remote(), second.ids.remote()])
    assert {*a, *b} == {"0", "1"}
    assert {seen_a, seen_b} == {"0", "1"}


def test_shares_of_a_gpu_are_packed_on_one():
    halves = [Holder.options(num_gpus=0.5).remote() for _ in range(2)]
    (a, _), (b, _) = ray.get([half.ids.remote() for half in halves])
    assert a == b
    whole = Holder.options(num_gpus=1).remote()
    assert ray.get(whole.ids.remote())[0] != a


def test_both_gpus_of_a_task_are_named():
    @ray.remote(num_gpus=2)
    def both():
        context = ray.get_runtime_context()
        return os.environ["CUDA_VISIBLE_DEVICES"], context.get_accelerator_ids()["GPU"], context.get_assigned_resources()["GPU"]

    visible, ids, amount = ray.get(both.remote())
    assert sorted(visible.split(",")) == sorted(ids) == ["0", "1"]
    assert amount == 2.0


def test_gpu_tasks_and_cpu_tasks_run_in_different_processes():
    @ray.remote
    def process():
        return os.getpid()

    on_cpus = set(ray.get([process.remote() for _ in range(8)]))
    on_gpus = set(ray.get([process.options(num_gpus=1).remote() for _ in range(4)]))
    assert not on_cpus & on_gpus


def test_without_gpus_there_are_no_ids():
    @ray.remote
    def none():
        return ray.get_gpu_ids(), ray.get_runtime_context().get_accelerator_ids()["GPU"]

    assert ray.get(none.remote()) == ([], [])
    assert ray.get_gpu_ids() == []


def test_num_cpus_is_the_number_of_openmp_threads():
    @ray.remote
    def threads():
        return os.environ.get("OMP_NUM_THREADS")

    assert ray.get(threads.options(num_cpus=2).remote()) == "2"
    assert ray.get(threads.options(num_cpus=0.5).remote()) == "1"
    assert ray.get(threads.remote()) == "1"
    actor = Holder.options(num_cpus=3).remote()
    assert ray.get(actor.threads.remote()) == "3"


def test_a_number_of_openmp_threads_that_the_user_has_set_stays():
    @ray.remote(num_cpus=2, runtime_env={"env_vars": {"OMP_NUM_THREADS": "7"}})
    def threads():
        return os.environ.get("OMP_NUM_THREADS")

    assert ray.get(threads.remote()) == "7"


def test_gpus_come_back_when_their_holder_has_ended():
    @ray.remote(num_gpus=2)
    def both():
        return len(ray.get_gpu_ids())

    assert ray.get([both.remote() for _ in range(3)]) == [2, 2, 2]


def test_nodes_and_the_head_are_resources():
    total = ray.cluster_resources()
    [node] = [name for name in total if name.startswith("node:") and name != "node:__internal_head__"]
    assert total[node] == total["node:__internal_head__"] == 1.0
    assert total["memory"] > 0
    assert total["GPU"] == 2.0

    @ray.remote(resources={node: 0.01, "node:__internal_head__": 0.01})
    def here():
        return ray.get_runtime_context().get_assigned_resources()[node]

    assert ray.get(here.remote()) == 0.01


def test_memory_is_a_resource_that_tasks_take():
    total = ray.cluster_resources()["memory"]

    @ray.remote(memory=100 * 2**20)
    def taking():
        return ray.get_runtime_context().get_assigned_resources()["memory"], ray.available_resources()["memory"]

    held, left = ray.get(taking.remote())
    assert held == 100 * 2**20
    assert left <= total


def test_what_a_user_says_of_devices_stays_where_no_gpu_is_asked_for():
    @ray.remote(num_gpus=0, runtime_env={"env_vars": {"CUDA_VISIBLE_DEVICES": "7"}})
    def visible():
        return os.environ["CUDA_VISIBLE_DEVICES"], ray.get_gpu_ids()

    assert ray.get(visible.remote()) == ("7", [])
