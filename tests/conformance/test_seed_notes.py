"""A student's notes on Ray, 2019: objects, functions, and `ray.wait` to begin with what is ready."""

import random
import time

import numpy as np
import pytest

from tests.conformance.subject import ray


@pytest.mark.differs("old-spellings")
def test_the_start_with_a_web_interface_of_old():
    with pytest.warns(DeprecationWarning, match="include_webui"):
        ray.init(include_webui=True)


def test_objects_by_their_ids():
    result_ids = [ray.put(i) for i in range(10)]
    result_ids[0]
    assert ray.get(result_ids[0]) == 0
    assert ray.get(result_ids) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.differs("timeline-at-once")
def test_normal_and_remote_functions(most_at_once):
    # Normal function
    def add1(a, b):
        return a + b

    # @: Decorator
    @ray.remote
    def add2(a, b):
        return a + b

    x_id = add2.remote(1, 2)
    assert ray.get(x_id) == add1(1, 2) == 3
    assert ray.get([add2.remote(1, 2), add2.remote(1, ray.put(2)), add2.remote(ray.put(1), ray.put(2))]) == [3, 3, 3]

    @ray.remote
    def f2():
        time.sleep(0.2)

    ray.get([f2.remote() for _ in range(10)])
    assert most_at_once("f2") == 2


@pytest.mark.differs("old-spellings")
def test_several_return_values():
    with pytest.warns(DeprecationWarning):

        @ray.remote(num_return_vals=3)
        def return_multiple():
            return 1, 2, 3

    a_id, b_id, c_id = return_multiple.remote()
    assert (ray.get(a_id), ray.get(b_id), ray.get(c_id)) == (1, 2, 3)


def test_tree_reduction(capsys):
    @ray.remote
    def generate_data():
        return np.random.normal(size=1000)

    @ray.remote
    def aggregate_data(x, y):
        return x + y

    data = [generate_data.remote() for _ in range(100)]
    print(len(ray.get(data)))  # 100
    while len(data) > 1:
        data.append(aggregate_data.remote(data.pop(0), data.pop(0)))
    assert len(ray.get(data)) == 1
    assert len(ray.get(data)[0]) == 1000
    assert capsys.readouterr().out == "100\n"


@pytest.mark.differs("timeline-at-once")
def test_all_results_at_once(most_at_once):
    @ray.remote
    def do_some_work(x):
        time.sleep(random.uniform(0, 0.4))
        return x

    def process_results(results):
        sum = 0
        for x in results:
            time.sleep(0.01)
            sum += x
        return sum

    data_list = ray.get([do_some_work.remote(x) for x in range(4)])
    sum = process_results(data_list)
    assert sum == 6
    assert most_at_once("do_some_work") == 2


@pytest.mark.differs("init-twice")
def test_each_result_as_soon_as_it_is_there():
    with pytest.warns(UserWarning, match="ignored num_cpus=4"):
        ray.init(num_cpus=4)

    @ray.remote
    def do_some_work(x):
        time.sleep(random.uniform(0, 0.4))
        return x

    def process_incremental(sum, result):
        time.sleep(0.01)
        return sum + result

    result_ids = [do_some_work.remote(x) for x in range(4)]
    sum = 0
    while len(result_ids):
        before = len(result_ids)
        done_id, result_ids = ray.wait(result_ids)
        assert (len(done_id), len(result_ids)) == (1, before - 1)
        sum = process_incremental(sum, ray.get(done_id[0]))
    assert sum == 6
