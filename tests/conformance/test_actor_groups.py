"""Concurrency groups, calls out of order, and functions that a worker runs a limited number of times."""

import asyncio
import os
import threading
import time

import pytest

from tests.conformance.subject import ray


def eventually(condition, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


@pytest.fixture
def late(tmp_path):
    """A reference that is ready once its file is there, and the file."""

    @ray.remote(num_cpus=0)
    def wait_for(path):
        while not os.path.exists(path):
            time.sleep(0.01)
        return "late"

    path = tmp_path / "go"
    yield wait_for.remote(str(path)), path
    path.touch()


@ray.remote(concurrency_groups={"io": 2, "compute": 1})
class Grouped:
    def __init__(self):
        self.barrier = threading.Barrier(2)
        self.released = threading.Event()
        self.mine = threading.local()
        self.log = []

    def block(self):
        return self.released.wait(20)

    @ray.method(concurrency_group="compute")
    def release(self):
        self.released.set()

    @ray.method(concurrency_group="io")
    def meet(self):
        return self.barrier.wait(20) >= 0

    @ray.method(concurrency_group="compute")
    def count(self):
        self.mine.n = getattr(self.mine, "n", 0) + 1
        return self.mine.n

    def note(self, value):
        self.log.append(value)
        return list(self.log)


def test_a_group_that_is_busy_does_not_hold_up_the_others():
    actor = Grouped.remote()
    blocked = actor.block.remote()
    ray.get(actor.release.remote(), timeout=20)
    assert ray.get(blocked, timeout=20) is True


def test_a_group_runs_as_many_calls_as_it_says():
    actor = Grouped.remote()
    assert ray.get([actor.meet.remote() for _ in range(4)], timeout=20) == [True] * 4


def test_the_group_can_be_chosen_for_one_call():
    actor = Grouped.remote()
    actor.block.remote()
    assert ray.get(actor.note.options(concurrency_group="io").remote(1), timeout=20) == [1]
    ray.get(actor.release.remote(), timeout=20)


def test_a_group_keeps_its_threads():
    actor = Grouped.remote()
    assert [ray.get(actor.count.remote(), timeout=20) for _ in range(4)] == [1, 2, 3, 4]


def test_a_busy_actor_answers_in_its_system_group():
    actor = Grouped.remote()
    blocked = actor.block.remote()
    assert ray.get(actor.note.options(concurrency_group="_ray_system").remote(1), timeout=20) == [1]
    ray.get(actor.release.remote(), timeout=20)
    ray.get(blocked, timeout=20)


def test_a_group_of_nobody_is_refused():
    with pytest.raises(Exception):  # noqa: B017, PT011 -- Ray's actor dies of it, which is seen at the first call

        @ray.remote(concurrency_groups={"io": 0})
        class A:
            def f(self):
                return 1

        ray.get(A.remote().f.remote(), timeout=20)


def test_a_method_of_a_group_that_is_not_there_makes_no_actor():
    @ray.remote(concurrency_groups={"io": 1})
    class A:
        @ray.method(concurrency_group="oi")
        def f(self):
            return 1

    with pytest.raises((ValueError, AssertionError)):
        A.remote()


def test_groups_belong_to_the_class_and_not_to_options():
    with pytest.raises(ValueError, match=r"Setting 'concurrency_groups' is not supported in '.options\(\)'"):
        Grouped.options(concurrency_groups={"io": 5})


def test_a_group_of_an_async_actor_bounds_its_coroutines():
    @ray.remote(concurrency_groups={"two": 2})
    class A:
        def __init__(self):
            self.now = self.most = 0

        @ray.method(concurrency_group="two")
        async def run(self):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.05)
            self.now -= 1
            return self.most

    actor = A.remote()
    assert max(ray.get([actor.run.remote() for _ in range(6)], timeout=20)) == 2


def test_a_blocked_loop_of_an_async_actor_does_not_block_another_group(tmp_path):
    go = tmp_path / "go"

    @ray.remote(concurrency_groups={"other": 1})
    class A:
        async def block(self):
            while not go.exists():
                time.sleep(0.01)
            return threading.get_ident()

        @ray.method(concurrency_group="other")
        def sync(self):
            return threading.get_ident()

        @ray.method(concurrency_group="other")
        async def coroutine(self):
            return threading.get_ident()

    actor = A.remote()
    blocked = actor.block.remote()
    threads = {ray.get(actor.sync.remote(), timeout=20), ray.get(actor.coroutine.remote(), timeout=20)}
    assert len(threads) == 1, "a group of an async actor is one loop"
    go.touch()
    assert ray.get(blocked, timeout=20) not in threads


# ------------------------------------------------------------------------------------------ order


@ray.remote
class Log:
    def __init__(self):
        self.seen = []

    def add(self, value):
        self.seen.append(value)
        return list(self.seen)


def test_a_call_out_of_order_does_not_wait_for_the_arguments_of_another(late):
    ref, go = late
    log = Log.options(allow_out_of_order_execution=True).remote()
    first = log.add.remote(ref)
    assert ray.get(log.add.remote("at once"), timeout=20) == ["at once"]
    go.touch()
    assert ray.get(first, timeout=20) == ["at once", "late"]


def test_in_order_it_waits(late):
    ref, go = late
    log = Log.remote()
    first, second = log.add.remote(ref), log.add.remote("second")
    assert ray.wait([second], timeout=0.2)[0] == []
    go.touch()
    assert ray.get([first, second], timeout=20) == [["late"], ["late", "second"]]


def test_an_async_actor_runs_its_calls_out_of_order(late):
    ref, go = late

    @ray.remote
    class A:
        async def echo(self, value):
            return value

    actor = A.remote()
    first = actor.echo.remote(ref)
    assert ray.get(actor.echo.remote("at once"), timeout=20) == "at once"
    go.touch()
    assert ray.get(first, timeout=20) == "late"


def test_a_handle_found_by_name_knows_the_order_too(late):
    ref, go = late
    log = Log.options(name="unordered log", allow_out_of_order_execution=True).remote()
    found = ray.get_actor("unordered log")
    first = found.add.remote(ref)
    assert ray.get(found.add.remote("at once"), timeout=20) == ["at once"]
    go.touch()
    assert ray.get(first, timeout=20) == ["at once", "late"]
    del log


@pytest.mark.parametrize(("what", "options"), [("async", {}), ("multi-threaded", {"max_concurrency": 2})])
def test_order_cannot_be_asked_of_async_and_threaded_actors(what, options):
    class Async:
        async def f(self):
            return 1

    class Sync:
        def f(self):
            return 1

    cls = Async if what == "async" else Sync
    with pytest.raises(ValueError, match=f"{what} actors.*can't execute actor tasks in order"):
        ray.remote(cls).options(allow_out_of_order_execution=False, **options).remote()


# ------------------------------------------------------------------------------------------ max_calls


def test_a_worker_ends_after_max_calls_of_a_function_and_nothing_is_lost():
    @ray.remote(max_calls=2)
    def pid(_i):
        return os.getpid()

    pids = ray.get([pid.remote(i) for i in range(10)], timeout=60)
    assert len(pids) == 10
    assert max(pids.count(one) for one in pids) <= 2
    spent = [one for one in pids if pids.count(one) == 2]
    assert spent
    eventually(lambda: not any(os.path.exists(f"/proc/{one}") for one in spent))


def test_tasks_of_other_functions_behind_the_last_call_run_elsewhere():
    @ray.remote(max_calls=1)
    def once():
        return os.getpid()

    @ray.remote
    def often(i):
        return i

    refs = [f for i in range(20) for f in (often.remote(i), once.remote())]
    values = ray.get(refs, timeout=120)
    assert values[::2] == list(range(20))
    assert len(set(values[1::2])) == 20


def test_what_the_last_call_put_stays_until_nobody_needs_it():
    @ray.remote(max_calls=1)
    def owner():
        return os.getpid(), [ray.put("kept")]

    pid, (ref,) = ray.get(owner.remote(), timeout=20)
    assert ray.get(ref, timeout=20) == "kept"
    del ref
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_call_that_fails_counts():
    @ray.remote(max_calls=1)
    def fail():
        raise ValueError(os.getpid())

    pids = []
    for _ in range(3):
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            ray.get(fail.remote(), timeout=20)
        pids.append(raised.value.args[0])
    assert len(set(pids)) == 3


def test_max_calls_belongs_to_the_function_and_not_to_options():
    @ray.remote
    def f():
        return 1

    with pytest.raises(ValueError, match=r"Setting 'max_calls' is not supported in '.options\(\)'"):
        f.options(max_calls=1)
    with pytest.raises(ValueError, match="max_calls"):
        ray.remote(max_calls=-1)(lambda: 1)
