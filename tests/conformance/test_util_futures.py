"""`concurrent.futures` on the cluster. Ray has no such executor: this is nbray's own."""

import asyncio
import concurrent.futures
import functools
import os
import threading
import time

import pytest

import nbray as ray
from nbray.util.futures import Executor
from nbray.util.queue import Queue

pytestmark = pytest.mark.skipif(os.environ.get("CONFORMANCE_SUBJECT") == "ray", reason="Ray has no executor")


@pytest.fixture
def executor():
    with Executor() as made:
        yield made


@pytest.fixture
def gate():
    queue = Queue()
    yield queue
    queue.shutdown()


def square(x):
    return x * x


def held(gate):
    return gate.get()


def test_submit_returns_a_future_of_the_standard_library(executor):
    future = executor.submit(square, 3)
    assert isinstance(future, concurrent.futures.Future)
    assert isinstance(executor, concurrent.futures.Executor)
    assert future.result(timeout=30) == 9
    assert future.done()
    assert not future.running()
    assert executor.submit(os.getpid).result() != os.getpid()
    assert executor.submit(functools.partial(pow, 2), 5).result() == 32
    assert executor.submit(int, "7").result() == 7
    assert executor.submit(dict, a=1).result() == {"a": 1}


def test_an_error_is_the_futures(executor):
    assert isinstance(executor.submit(square, "x").exception(timeout=30), TypeError)
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 / 0).result()
    for call in (lambda: executor.submit(square), lambda: executor.submit(square, threading.Lock())):
        with pytest.raises(TypeError):
            call().result()


def test_map_keeps_the_order_with_and_without_chunks(executor):
    assert list(executor.map(square, range(10))) == [x * x for x in range(10)]
    assert list(executor.map(square, range(10), chunksize=3)) == [x * x for x in range(10)]
    assert list(executor.map(pow, [2, 3], [4, 5, 6])) == [16, 243]
    assert list(executor.map(square, [])) == []
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)


def test_map_times_out(executor, gate):
    results = executor.map(held, [gate], timeout=0.05)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    gate.put(None)


def test_wait_and_as_completed_take_the_futures(executor, gate):
    late, early = executor.submit(held, gate), executor.submit(square, 2)
    done, rest = concurrent.futures.wait([late, early], return_when=concurrent.futures.FIRST_COMPLETED)
    assert (done, rest) == ({early}, {late})
    with pytest.raises(TimeoutError):
        late.result(timeout=0.01)
    gate.put("late")
    assert [f.result() for f in concurrent.futures.as_completed([late])] == ["late"]


def test_callbacks_are_called(executor):
    got = []
    done = threading.Event()
    executor.submit(square, 4).add_done_callback(lambda f: (got.append(f.result()), done.set()))
    assert done.wait(30)
    assert got == [16]


def test_what_has_not_begun_is_cancelled_and_what_runs_is_not(gate):
    with Executor(max_workers=1) as executor:
        running, waiting = executor.submit(held, gate), executor.submit(square, 1)
        assert waiting.cancel()
        assert waiting.cancelled()
        assert waiting.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result()
        while not running.running():
            time.sleep(0.01)  # until the worker has it: bounded by the test's own time limit
        assert not running.cancel()
        gate.put("ran")
        assert running.result() == "ran"
        assert concurrent.futures.wait([running, waiting]).not_done == set()


def test_a_task_that_waits_for_a_cpu_is_cancelled(gate):
    with Executor(num_cpus=2) as executor:
        running = executor.submit(held, gate)
        while not running.running():
            time.sleep(0.01)
        waiting = executor.submit(square, 1)
        assert waiting.cancel()
        assert not running.cancel()
        gate.put(None)
        running.result()


def test_max_workers_bounds_what_runs(most_at_once):
    def few():
        time.sleep(0.02)

    with Executor(max_workers=1) as executor:
        list(executor.map(lambda _: few(), range(4)))
    assert most_at_once("<lambda>") == 1
    with pytest.raises(ValueError, match="max_workers"):
        Executor(max_workers=0)


def test_shutdown_waits_or_cancels(gate):
    executor = Executor(max_workers=1)
    running, waiting = executor.submit(held, gate), executor.submit(square, 1)
    executor.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    gate.put("finished")
    executor.shutdown(wait=True)
    assert running.result() == "finished"


def test_asyncio_runs_functions_in_it(executor):
    async def both():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*[loop.run_in_executor(executor, square, x) for x in range(3)])

    assert asyncio.run(both()) == [0, 1, 4]


def test_a_task_with_an_executor_gives_its_cpu_to_the_tasks_it_waits_for():
    @ray.remote(num_cpus=2)
    def parent():
        with Executor(num_cpus=2) as executor:
            return executor.submit(square, 6).result()

    assert ray.get(parent.remote(), timeout=60) == 36


def test_options_are_checked():
    with pytest.raises(ValueError, match="Invalid option keyword cpus"):
        Executor(cpus=1)
    with pytest.raises(ValueError, match="one result"):
        Executor(num_returns=2)


def test_the_end_of_the_session_ends_its_calls_and_starts_no_other():
    """The last test here: it ends the module's cluster."""
    from nbray.util.multiprocessing import Pool

    executor, pool = Executor(max_workers=1), Pool(1)
    futures = [executor.submit(time.sleep, 60) for _ in range(2)]
    results = [pool.apply_async(time.sleep, (60,)) for _ in range(2)]
    ray.shutdown()
    for call in [future.result for future in futures] + [result.get for result in results] + [executor.submit(int).result]:
        with pytest.raises(ray.exceptions.RayError):
            call(timeout=30)
    pool.terminate()
    pool.join()
    executor.shutdown()
    assert not ray.is_initialized()
