"""A Ray tutorial of 2019: objects, remote functions, dependencies, nested tasks."""

import time

import numpy as np
import pytest

from tests.conformance.subject import ray


@pytest.mark.differs("init-twice")
def test_init_returns_at_once_when_it_runs_already():
    ray.init()
    assert ray.is_initialized()


def test_put_and_get():
    x = "example"
    ray.put(x)  # ObjectID(b49a32d72057bdcfc4dda35584b3d838aad89f5d)

    x_id = ray.put("example")
    assert ray.get(x_id) == "example"

    result_ids = [ray.put(i) for i in range(10)]
    assert ray.get(result_ids) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert ray.get(result_ids[5]) == 5
    assert ray.get(result_ids[1]) == 1


def test_an_object_cannot_be_changed():
    value = {"key": np.zeros(1_000_000)}
    x_id = ray.put(value)
    value["key"][0] = 1
    assert ray.get(x_id)["key"][0] == 0
    with pytest.raises(ValueError, match="read-only"):
        ray.get(x_id)["key"][0] = 1


def test_remote_functions():
    def add1(a, b):
        return a + b

    @ray.remote
    def add2(a, b):
        return a + b

    assert add1(1, 2) == 3
    x_id = add2.remote(1, 2)
    assert isinstance(x_id, ray.ObjectID)
    assert ray.get(x_id) == 3

    # The same behaviour by value and by object id.
    refs = [add2.remote(1, 2), add2.remote(1, ray.put(2)), add2.remote(ray.put(1), ray.put(2))]
    assert ray.get(refs) == [3, 3, 3]


@pytest.mark.differs("timeline-at-once")
def test_tasks_run_in_parallel(most_at_once):
    @ray.remote
    def f2():
        time.sleep(0.2)

    assert ray.get([f2.remote() for _ in range(10)]) == [None] * 10
    assert most_at_once("f2") == 2


@pytest.mark.differs("old-spellings")
def test_several_return_values():
    with pytest.warns(DeprecationWarning, match="num_returns"):

        @ray.remote(num_return_vals=3)
        def return_multiple():
            return 1, 2, 3

    a_id, b_id, c_id = return_multiple.remote()
    assert ray.get([a_id, b_id, c_id]) == [1, 2, 3]


def test_dependencies_between_tasks():
    @ray.remote
    def f(x):
        return x + 1

    x = f.remote(0)
    y = f.remote(x)
    z = f.remote(y)
    assert ray.get(z) == 3


def test_tree_reduction():
    @ray.remote
    def generate_data(seed):
        return np.random.default_rng(seed).normal(size=1000)

    @ray.remote
    def aggregate_data(x, y):
        return x + y

    data = [generate_data.remote(seed) for seed in range(100)]
    leaves = list(data)
    while len(data) > 1:
        data.append(aggregate_data.remote(data.pop(0), data.pop(0)))
    [result] = ray.get(data)
    assert result.shape == (1000,)
    np.testing.assert_allclose(result, sum(ray.get(leaves)))


def test_remote_functions_inside_remote_functions():
    @ray.remote
    def sub_experiment(i, j):
        # Run the jth sub-experiment for the ith experiment.
        return i + j

    @ray.remote
    def run_experiment(i):
        sub_results = []
        # Launch tasks to perform 10 sub-experiments in parallel.
        for j in range(10):
            sub_results.append(sub_experiment.remote(i, j))
        # Return the sum of the results of the sub-experiments.
        return sum(ray.get(sub_results))

    results = [run_experiment.remote(i) for i in range(5)]
    assert ray.get(results) == [45, 55, 65, 75, 85]
