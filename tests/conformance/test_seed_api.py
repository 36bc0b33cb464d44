"""The Ray API's documentation of 2018: starting, remote functions, get, put, wait, errors."""

import time

import numpy as np
import pytest

from tests.conformance.subject import ray


@pytest.mark.differs("old-spellings")
def test_the_address_of_a_redis_server_is_an_address_today():
    refused = pytest.raises(ray.exceptions.RaySystemError, match="it was not attached to '12.345.67.89:6379'")
    with pytest.warns(DeprecationWarning, match="address="), refused:
        ray.init(redis_address="12.345.67.89:6379")


def test_a_remote_function_takes_values_and_ids():
    @ray.remote
    def f(x):
        return x + 1

    x_id = f.remote(0)
    assert ray.get(x_id) == 1
    y_id = f.remote(x_id)
    assert ray.get(y_id) == 2


@pytest.mark.differs("old-spellings")
def test_two_return_values():
    with pytest.warns(DeprecationWarning):

        @ray.remote(num_return_vals=2)
        def f():
            return 1, 2

    x_id, y_id = f.remote()
    assert ray.get(x_id) == 1
    assert ray.get(y_id) == 2


def test_get_of_one_and_of_a_list():
    @ray.remote
    def f():
        return {"key1": ["value"]}

    assert ray.get(f.remote()) == {"key1": ["value"]}
    assert ray.get([f.remote() for _ in range(2)]) == [{"key1": ["value"]}, {"key1": ["value"]}]


def test_arrays_are_shared_and_must_be_copied_to_be_changed():
    @ray.remote
    def zeros():
        return np.zeros(10**6)

    array = ray.get(zeros.remote())
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    changed = array.copy()
    changed[0] = 1
    assert (array[0], changed[0]) == (0, 1)


def test_put():
    x_id = ray.put(1)
    assert ray.get(x_id) == 1


def test_a_large_argument_by_value_and_by_id():
    @ray.remote
    def f(x):
        return x.nbytes

    x = np.zeros(10**6)

    # Method 1: here x is copied into the object store for each call.
    assert ray.get([f.remote(x) for _ in range(10)]) == [8_000_000] * 10

    # Method 2: here x is copied into the object store once.
    x_id = ray.put(x)
    assert ray.get([f.remote(x_id) for _ in range(10)]) == [8_000_000] * 10


@pytest.mark.differs("milliseconds")
def test_wait_for_the_first_and_for_at_most_a_time():
    @ray.remote
    def f(n):
        time.sleep(n / 10)
        return n

    results = [f.remote(i) for i in range(3)]
    ready_ids, remaining_ids = ray.wait(results, num_returns=2)
    assert (len(ready_ids), len(remaining_ids)) == (2, 1)
    assert sorted(ready_ids + remaining_ids, key=results.index) == results

    results = [f.remote(i) for i in range(3)]
    with pytest.warns(DeprecationWarning, match=r"timeout=2.5 today"), pytest.raises(ValueError, match="num_returns cannot be greater"):
        ray.wait(results, num_returns=4, timeout=2500)  # as printed: four of three
    results = [f.remote(i) for i in (0, 0, 0, 0, 100)]
    ready_ids, remaining_ids = ray.wait(results, num_returns=4, timeout=2.5)
    assert (ready_ids, remaining_ids) == (results[:4], results[4:])
    ray.cancel(remaining_ids[0], force=True)


def test_wait_gives_up_after_its_timeout():
    @ray.remote
    def f():
        time.sleep(60)

    ref = f.remote()
    assert ray.wait([ref], timeout=0.1) == ([], [ref])
    ray.cancel(ref, force=True)


def test_a_loop_that_starts_a_task_for_each_that_ends(capsys):
    @ray.remote
    def f():
        return 1

    remaining_ids = [f.remote() for i in range(5)]
    for _ in range(100):
        ready_ids, remaining_ids = ray.wait(remaining_ids)
        print(ray.get(ready_ids))
        remaining_ids.append(f.remote())
    assert capsys.readouterr().out == "[1]\n" * 100
    assert ray.get(remaining_ids) == [1] * 5


@pytest.mark.differs("old-spellings")
def test_the_error_of_a_task_is_raised_by_get_and_listed():
    @ray.remote
    def f():
        raise Exception("This task failed!!")

    ref = f.remote()
    with pytest.raises(Exception, match="This task failed!!"):
        ray.get(ref)
    with pytest.warns(DeprecationWarning, match="error_info"):
        errors = ray.error_info()
    assert [e["name"] for e in errors if e["task"] == ref.task_id().hex()] == ["f"]
