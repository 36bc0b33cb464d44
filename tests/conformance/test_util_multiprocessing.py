"""multiprocessing.Pool on actors: what programs written for the standard library's pool rely on."""

import gc
import itertools
import multiprocessing
import os
import threading

import pytest

from tests.conformance.subject import ray

if ray.__name__ == "ray":
    from ray.util.multiprocessing import Pool, TimeoutError
    from ray.util.queue import Queue
else:
    from nbray.util.multiprocessing import Pool, TimeoutError
    from nbray.util.queue import Queue

NBRAY = ray.__name__ == "nbray"


@pytest.fixture(scope="module")
def pool(cluster):
    shared = Pool(2)
    yield shared
    shared.terminate()
    shared.join()


@pytest.fixture
def gate():
    queue = Queue()
    yield queue
    queue.shutdown()


def square(x):
    return x * x


def add(a, b=0):
    return a + b


def fail_at_three(x):
    if x == 3:
        raise KeyError("three")
    return x


def held(gate, x):
    return x if gate is None else gate.get()


def test_apply_takes_arguments_and_keywords(pool):
    assert pool.apply(square, (4,)) == 16
    assert pool.apply(add, (1,), {"b": 2}) == 3
    assert pool.apply(lambda: "from a lambda") == "from a lambda"
    with pytest.raises(KeyError, match="three"):
        pool.apply(fail_at_three, (3,))


def test_calls_run_in_other_processes(pool):
    assert os.getpid() not in pool.map(lambda _: os.getpid(), range(8), chunksize=1)


def test_an_async_result_is_ready_when_its_call_is(pool, gate):
    result = pool.apply_async(held, (gate, 0))
    assert not result.ready()
    with pytest.raises(TimeoutError):
        result.get(timeout=0.01)
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    with pytest.raises(ValueError):
        result.successful()
    result.wait(timeout=0.01)
    gate.put("now")
    assert result.get(timeout=30) == "now"
    assert result.ready()
    assert result.successful()


def test_a_failed_result_is_not_successful(pool):
    result = pool.map_async(fail_at_three, range(5), chunksize=1)
    result.wait()
    assert not result.successful()
    with pytest.raises(KeyError):
        result.get()


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
def test_map_keeps_the_order(pool, chunksize):
    assert pool.map(square, range(20), chunksize=chunksize) == [x * x for x in range(20)]
    assert pool.starmap(add, zip(range(5), range(5)), chunksize=chunksize) == [0, 2, 4, 6, 8]
    assert pool.map_async(square, iter([1, 2, 3]), chunksize).get() == [1, 4, 9]
    assert pool.starmap_async(add, [(1, 2), (3, 4)], chunksize).get() == [3, 7]


def test_map_of_nothing_is_nothing(pool):
    assert pool.map(square, []) == []
    assert list(pool.imap(square, [])) == []
    assert list(pool.imap_unordered(square, [])) == []


def test_imap_is_in_order_and_imap_unordered_as_it_comes(pool, gate):
    assert list(pool.imap(square, range(10))) == [x * x for x in range(10)]
    assert list(pool.imap(square, range(10), chunksize=4)) == [x * x for x in range(10)]
    assert sorted(pool.imap_unordered(square, range(10), chunksize=3)) == [x * x for x in range(10)]


@pytest.mark.skipif(not NBRAY, reason="Ray assigns calls to actors beforehand: one that is held holds up those behind it")
def test_a_long_call_holds_up_no_other(pool, gate):
    results = pool.imap_unordered(lambda x: held(gate if x == 0 else None, x), range(3))
    assert {results.next(timeout=30), results.next(timeout=30)} == {1, 2}
    with pytest.raises(TimeoutError):
        results.next(timeout=0.01)
    gate.put("late")
    assert next(results) == "late"
    with pytest.raises(StopIteration):
        next(results)


def test_imap_takes_endless_input(pool):
    for method in (pool.imap, pool.imap_unordered):
        assert len(list(itertools.islice(method(square, itertools.count()), 20))) == 20


@pytest.mark.skipif(not NBRAY, reason="Ray gives the error as a value, unlike the standard library")
def test_an_error_in_imap_comes_in_its_place_and_the_rest_after_it(pool):
    results = pool.imap(fail_at_three, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == [4, 5]


@pytest.mark.skipif(not NBRAY, reason="Ray hands the callback results in the order in which they came, unlike the standard library")
def test_callbacks_are_called_once_with_everything(pool):
    got, done = [], threading.Event()

    def callback(value):
        got.append(value)
        done.set()

    pool.apply_async(square, (3,), callback=callback).wait()
    assert done.wait(30)
    done.clear()
    pool.map_async(square, range(4), chunksize=1, callback=callback).wait()
    assert done.wait(30)
    assert got == [9, [0, 1, 4, 9]]


@pytest.mark.skipif(not NBRAY, reason="Ray hands the callback a PoolTaskError, unlike the standard library")
def test_the_error_callback_gets_the_error_and_the_callback_nothing(pool):
    errors, done = [], threading.Event()

    def on_error(error):
        errors.append(error)
        done.set()

    pool.map_async(fail_at_three, range(6), chunksize=2, callback=errors.append, error_callback=on_error).wait()
    assert done.wait(30)
    assert [type(e) for e in errors] == [KeyError]


def test_references_among_the_items_are_passed_as_they_are(pool):
    refs = [ray.put(i) for i in range(3)]
    assert pool.map(lambda ref: ray.get(ref), refs) == [0, 1, 2]


def test_the_initializer_runs_in_each_process():
    def initialize(value):
        os.environ["INITIALIZED"] = value

    with Pool(2, initializer=initialize, initargs=("yes",)) as pool:
        assert set(pool.map(lambda _: os.environ.get("INITIALIZED"), range(8), chunksize=1)) == {"yes"}


def test_processes_are_replaced_after_their_number_of_tasks():
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(os.getpid) for _ in range(6)]
    assert pids[0] == pids[1]
    assert len(set(pids)) == 3


def test_a_closed_pool_finishes_and_takes_no_more():
    pool = Pool(2)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    result = pool.map_async(square, range(10), chunksize=1)
    pool.close()
    for call in (lambda: pool.apply(square, (1,)), lambda: pool.map(square, [1]), lambda: pool.imap(square, [1])):
        with pytest.raises(ValueError, match="not running"):
            call()
    pool.join()
    assert result.get(timeout=30) == [x * x for x in range(10)]


def test_a_terminated_pool_ends_at_once(gate):
    with Pool(1) as pool:
        running, waiting = pool.apply_async(held, (gate, 1)), pool.apply_async(square, (1,))
    pool.join()
    for result in (running, waiting):
        with pytest.raises(ray.exceptions.RayActorError):
            result.get(timeout=30)


@pytest.mark.parametrize(("processes", "said"), [(0, "must be >0"), (-1, "must be >0"), (1000, "Tried to start a pool with 1000 processes")])
def test_the_number_of_processes_is_checked(processes, said):
    with pytest.raises(ValueError, match=said):
        Pool(processes)


def test_ray_remote_args_are_options_of_the_actors():
    with Pool(1, ray_remote_args={"num_cpus": 1}) as pool:
        assert pool.apply(lambda: ray.get_runtime_context().get_assigned_resources()) == {"CPU": 1.0}


@pytest.mark.skipif(not NBRAY, reason="Ray fails every later call that lands on the dead actor")
def test_a_process_that_dies_fails_its_own_call_only(pool):
    results = [pool.apply_async(os._exit if i == 3 else square, (i,)) for i in range(12)]
    with pytest.raises(ray.exceptions.RayActorError):
        results[3].get(timeout=60)
    assert [r.get(timeout=60) for i, r in enumerate(results) if i != 3] == [i * i for i in range(12) if i != 3]


@pytest.mark.skipif(not NBRAY, reason="Ray drops what an imap has not submitted when the pool is closed")
def test_close_lets_an_imap_finish():
    pool = Pool(1)
    results = pool.imap(square, range(20))
    pool.close()
    pool.join()
    assert list(results) == [x * x for x in range(20)]


@pytest.mark.skipif(not NBRAY, reason="in Ray such an error makes the call hang")
def test_an_exception_that_does_not_pickle_is_told_and_so_is_an_argument(pool):
    def raises():
        error = ValueError("held")
        error.lock = threading.Lock()
        raise error

    with pytest.raises(ray.exceptions.RayError, match="ValueError: held .* isn't serializable"):
        pool.apply(raises)
    with pytest.raises(TypeError, match="lock"):
        pool.apply(square, (threading.Lock(),))
    assert pool.apply(square, (2,)) == 4


@pytest.mark.skipif(not NBRAY, reason="counted through the list of actors")
def test_a_dropped_pool_leaves_no_actors(pool):
    from nbray.state import list_actors

    def alive():
        return {a.actor_id for a in list_actors(filters=[("class_name", "=", "_Runner"), ("state", "!=", "DEAD")])}

    before = alive()
    dropped = Pool(2)
    assert len(alive() - before) == 2
    del dropped
    gc.collect()
    while alive() - before:  # bounded by the test's own time limit
        threading.Event().wait(0.02)
