"""Starting with numbers of CPUs and GPUs, as the documentation of 2018 does."""

from tests.conformance.subject import ray

CLUSTER = {"num_cpus": 20, "num_gpus": 2}


def test_the_numbers_given_are_what_the_cluster_has():
    have = ray.cluster_resources()
    assert (have["CPU"], have["GPU"]) == (20, 2)
    assert ray.available_resources()["CPU"] == 20


def test_a_task_can_ask_for_a_gpu():
    @ray.remote(num_gpus=1, num_cpus=0)
    def on_a_gpu():
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(on_a_gpu.remote(), timeout=60) == {"GPU": 1.0}
