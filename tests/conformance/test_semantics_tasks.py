"""What Ray's own tests pin down about tasks: retries, cancellation, references, definitions."""

import asyncio
import os
import threading
import time

import numpy as np
import pytest

from tests.conformance.subject import ray

ON_NODES_TOO = True


def wait_for(path, timeout=20):
    deadline = time.monotonic() + timeout
    event = threading.Event()
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        event.wait(0.02)


# ------------------------------------------------------------------------------------------ retries


def test_a_crash_is_retried_and_an_exception_is_not(tmp_path):
    @ray.remote(max_retries=2)
    def crashes(directory):
        runs = len(list(directory.iterdir()))
        (directory / str(runs)).touch()
        if runs < 2:
            os._exit(1)
        return runs

    @ray.remote(max_retries=2)
    def raises(directory):
        (directory / f"r{time.time_ns()}").touch()
        raise ValueError

    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    assert ray.get(crashes.remote(tmp_path / "a"), timeout=30) == 2
    with pytest.raises(ValueError):
        ray.get(raises.remote(tmp_path / "b"))
    assert len(list((tmp_path / "b").iterdir())) == 1


def test_retries_are_counted(tmp_path):
    @ray.remote(max_retries=1)
    def crashes():
        (tmp_path / str(time.time_ns())).touch()
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crashes.remote(), timeout=30)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("wanted", "runs"), [(True, 3), ([ValueError], 3), ([KeyError], 1), (False, 1)])
def test_exceptions_are_retried_when_asked_for(tmp_path, wanted, runs):
    @ray.remote(max_retries=2, retry_exceptions=wanted)
    def raises():
        (tmp_path / str(time.time_ns())).touch()
        raise ValueError("again")

    with pytest.raises(ValueError, match="again"):
        ray.get(raises.remote(), timeout=30)
    assert len(list(tmp_path.iterdir())) == runs


# ------------------------------------------------------------------------------------------ cancellation


def test_a_cancelled_task_that_waits_never_runs(tmp_path):
    @ray.remote
    def block(path):
        while not path.exists():
            time.sleep(0.01)

    @ray.remote
    def touch():
        (tmp_path / "ran").touch()

    blockers = [block.remote(tmp_path / "go") for _ in range(2)]
    waiting = touch.remote()
    ray.cancel(waiting)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(waiting, timeout=10)
    (tmp_path / "go").touch()
    ray.get(blockers, timeout=10)
    assert not (tmp_path / "ran").exists()


@pytest.mark.differs("interrupted-sleep")
def test_a_cancelled_task_gets_a_keyboard_interrupt_and_may_answer(tmp_path):
    @ray.remote
    def stubborn():
        try:
            (tmp_path / "started").touch()
            time.sleep(30)
        except KeyboardInterrupt:
            return "cleaned up"

    ref = stubborn.remote()
    wait_for(tmp_path / "started")
    ray.cancel(ref)
    assert ray.get(ref, timeout=10) == "cleaned up"


def test_force_kills_what_ignores_the_interrupt(tmp_path):
    @ray.remote(max_retries=5)
    def deaf():
        (tmp_path / str(time.time_ns())).touch()
        while True:
            try:
                time.sleep(30)
            except KeyboardInterrupt:
                pass

    ref = deaf.remote()
    while not list(tmp_path.iterdir()):
        time.sleep(0.02)
    ray.cancel(ref, force=True)
    with pytest.raises((ray.exceptions.TaskCancelledError, ray.exceptions.WorkerCrashedError)):
        ray.get(ref, timeout=10)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dependant_of_a_cancelled_task_fails(tmp_path):
    @ray.remote
    def slow():
        (tmp_path / "started").touch()
        time.sleep(30)

    @ray.remote
    def after(x):
        return x

    first = slow.remote()
    second = after.remote(first)
    wait_for(tmp_path / "started")
    ray.cancel(first)
    with pytest.raises(ray.exceptions.RayError):
        ray.get(second, timeout=10)


@pytest.mark.differs("interrupted-sleep")
def test_cancelling_a_parent_cancels_its_children(tmp_path):
    @ray.remote
    def child():
        (tmp_path / "child").touch()
        time.sleep(30)

    @ray.remote
    def parent():
        return ray.get(child.remote())

    ref = parent.remote()
    wait_for(tmp_path / "child")
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=10)

    @ray.remote(num_cpus=2)
    def everything():
        return "both CPUs are free"

    assert ray.get(everything.remote(), timeout=10) == "both CPUs are free"


def test_many_submitted_and_cancelled_at_once_are_all_cancelled():
    @ray.remote
    def f():
        time.sleep(30)

    refs = [f.remote() for _ in range(500)]
    for ref in refs:
        ray.cancel(ref)
    for ref in refs:
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(ref, timeout=20)

    @ray.remote
    def g():
        return 1

    assert ray.get(g.remote(), timeout=20) == 1


# ------------------------------------------------------------------------------------------ references


def test_nested_references_are_not_resolved_and_stay_alive():
    @ray.remote
    def f(values):
        return isinstance(values[0], ray.ObjectRef), ray.get(values[0])

    assert ray.get(f.remote([ray.put("inner")])) == (True, "inner")


def test_a_reference_inside_a_result_outlives_its_task():
    @ray.remote
    def make():
        return [ray.put(np.full(200_000, 7.0)), inner.remote(3)]

    @ray.remote
    def inner(x):
        return x * 2

    big, small = ray.get(make.remote())
    assert ray.get(small) == 6
    assert ray.get(big).sum() == 1_400_000


def test_a_chain_of_nested_references():
    @ray.remote
    def wrap(ref):
        return ref

    ref = ray.put("kernel")
    for _ in range(25):
        ref = wrap.remote([ref])
    for _ in range(25):
        [ref] = ray.get(ref)
    assert ray.get(ref) == "kernel"


def test_a_chain_of_a_hundred_tasks():
    @ray.remote
    def f(x):
        return x + 1

    ref = 0
    for _ in range(100):
        ref = f.remote(ref)
    assert ray.get(ref) == 100


def test_references_in_keyword_arguments_are_resolved():
    @ray.remote
    def f(a, *, b):
        return a, b

    assert ray.get(f.remote(ray.put(1), b=ray.put(2))) == (1, 2)


def test_values_keep_their_types_through_the_store():
    @ray.remote
    def echo(x):
        return x

    values = [
        None, True, 2**70, 1.5, "ünï\0", b"x" * 200_000, [], {}, (), {1}, frozenset({2}), range(3), slice(1, 2), Ellipsis, complex(1, 2),
        np.zeros(0), np.array(5), np.asfortranarray(np.arange(12).reshape(3, 4)), np.arange(10)[::-2], np.ma.masked_array([1, 2], [0, 1]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), np.arange(10**6),
    ]  # fmt: skip
    for value, got in zip(values, ray.get([echo.remote(v) for v in values])):
        assert type(got) is type(value)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(got, value)
            assert got.dtype == value.dtype
        else:
            assert got == value


def test_a_reference_can_be_awaited():
    @ray.remote
    def f(x):
        return x

    async def main():
        return await f.remote(1), await asyncio.gather(*[f.remote(i) for i in range(5)])

    assert asyncio.run(main()) == (1, [0, 1, 2, 3, 4])


def test_a_reference_gives_a_future_that_fails_like_get():
    @ray.remote
    def f(x):
        return 1 / x

    assert f.remote(2).future().result(timeout=20) == 0.5
    with pytest.raises(ZeroDivisionError):
        f.remote(0).future().result(timeout=20)


def test_threads_of_the_driver_submit_and_get_at_once():
    @ray.remote
    def f(x):
        return x

    results = {}

    def work(n):
        results[n] = ray.get([f.remote(n * 100 + i) for i in range(50)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {n: [n * 100 + i for i in range(50)] for n in range(8)}


# ------------------------------------------------------------------------------------------ definitions


@pytest.mark.differs("changed-globals")
def test_a_function_that_was_redefined_and_its_globals_reach_the_same_workers():
    scope = {"__name__": "__main__", "ray": ray}
    exec("n = 1\nclass A:\n    def get(self): return n\n@ray.remote\ndef f(): return n, A().get()", scope)
    assert ray.get([scope["f"].remote() for _ in range(4)]) == [(1, 1)] * 4
    exec("n = 2", scope)
    assert ray.get([scope["f"].remote() for _ in range(4)]) == [(2, 2)] * 4


def test_recursion_through_remote_functions():
    @ray.remote
    def fib(n):
        return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert ray.get(fib.remote(6), timeout=60) == 8


# ------------------------------------------------------------------------------------------ resources and context


def test_available_resources_follow_use(tmp_path):
    @ray.remote
    def hold():
        (tmp_path / "held").touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.01)

    ref = hold.remote()
    wait_for(tmp_path / "held")
    deadline = time.monotonic() + 10
    while ray.available_resources().get("CPU") != 1.0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (tmp_path / "go").touch()
    ray.get(ref)


@pytest.mark.differs("what-a-demand-waits-for")
def test_a_demand_that_cannot_be_met_says_why():
    @ray.remote(num_gpus=2)
    def f():
        return 1

    ref = f.remote()
    with pytest.raises(ray.exceptions.GetTimeoutError, match="num_gpus=2"):
        ray.get(ref, timeout=3)
    ray.cancel(ref)


def test_the_context_of_a_task():
    @ray.remote
    def f():
        context = ray.get_runtime_context()
        return context.get_task_id(), context.get_actor_id(), context.get_job_id(), context.get_node_id(), context.get_task_name()

    ref = f.options(name="named").remote()
    task, actor, job, node, name = ray.get(ref)
    here = ray.get_runtime_context()
    assert (task, actor, job, name) == (ref.task_id().hex(), None, here.get_job_id(), "named")
    assert node in [each["NodeID"] for each in ray.nodes()]
    assert here.get_task_id() is None


def test_the_resources_of_a_task_are_in_its_context():
    @ray.remote(num_cpus=2)
    def f():
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(f.remote()) == {"CPU": 2.0}


def test_environment_variables_reach_the_task():
    @ray.remote(runtime_env={"env_vars": {"NBRAY_TEST_COLOUR": "green"}})
    def f():
        return os.environ.get("NBRAY_TEST_COLOUR")

    @ray.remote
    def g():
        return os.environ.get("NBRAY_TEST_COLOUR")

    assert ray.get(f.remote(), timeout=20) == "green"
    assert ray.get(g.remote(), timeout=20) is None
