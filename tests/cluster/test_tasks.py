"""Tasks that end well: what they take, what they return, how they nest, and that their resources come back."""

from __future__ import annotations

import sys
import threading
import time

import pytest

import nbray as ray
from nbray import session
from nbray.exceptions import GetTimeoutError
from tests.cluster.conditions import until


@ray.remote
def plus_one(x):
    return x + 1


@ray.remote
def total(*numbers):
    return sum(numbers)


def test_a_chain_of_a_hundred_tasks_is_followed_to_its_end():
    ref = ray.put(0)
    for _ in range(100):
        ref = plus_one.remote(ref)
    assert ray.get(ref) == 100


def test_a_task_takes_a_thousand_results_of_others():
    assert ray.get(total.remote(*[plus_one.remote(i) for i in range(1000)])) == sum(range(1, 1001))


def test_a_task_takes_ten_thousand_references():
    refs = [ray.put(i) for i in range(10_000)]
    assert ray.get(total.remote(*refs)) == sum(range(10_000))


def test_a_reference_that_is_listed_ten_thousand_times_is_one_dependency():
    one = plus_one.remote(0)
    assert ray.get(total.remote(*[one] * 10_000)) == 10_000


def test_several_results_have_a_reference_each():
    @ray.remote(num_returns=3)
    def three():
        return 1, [2], {"three": 3}

    one, two, three_ = three.remote()
    assert ray.get([three_, one, two]) == [{"three": 3}, 1, [2]]


def test_a_task_without_results_has_no_reference_and_runs(tmp_path):
    @ray.remote(num_returns=0)
    def leave_a_mark():
        (tmp_path / "mark").touch()

    assert leave_a_mark.remote() is None
    until((tmp_path / "mark").exists, "the task has run")


def test_keyword_references_are_resolved_and_nested_ones_are_not():
    @ray.remote
    def look(a, *, b, c):
        return a, b, type(c[0]).__name__, ray.get(c[0])

    assert ray.get(look.remote(ray.put(1), b=plus_one.remote(1), c=[ray.put(3)])) == (1, 2, "ObjectRef", 3)


def test_a_task_may_return_references_of_its_own_tasks_and_puts():
    @ray.remote
    def outer():
        return [plus_one.remote(1), ray.put("put"), plus_one.remote(plus_one.remote(1))]

    assert ray.get(ray.get(outer.remote())) == [2, "put", 3]


def test_references_within_references_are_followed_twenty_five_deep():
    @ray.remote
    def wrap(inner):
        return inner

    ref = ray.put("the core")
    for _ in range(25):
        ref = wrap.remote([ref])
    for _ in range(25):
        [ref] = ray.get(ref)
    assert ray.get(ref) == "the core"


def test_recursion_wider_than_the_machine_finishes():
    @ray.remote
    def fib(n):
        return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert ray.get(fib.remote(7), timeout=60) == 13


def test_tasks_that_wait_for_tasks_ten_deep_do_not_lock_up_two_cpus():
    @ray.remote
    def dive(depth):
        return 0 if depth == 0 else 1 + ray.get(dive.remote(depth - 1))

    assert ray.get([dive.remote(10), dive.remote(10), dive.remote(10)], timeout=60) == [10, 10, 10]


def test_short_tasks_behind_one_that_waits_for_another_task_are_run_elsewhere():
    """They may have been pushed to the worker that blocks: it has to give them back, or they wait for their own sibling."""

    @ray.remote
    def short(i):
        return i

    @ray.remote
    def waits(refs):
        return sum(ray.get(refs))

    ray.get([short.remote(i) for i in range(50)])
    refs = [short.remote(i) for i in range(200)]
    parents = [waits.remote([short.remote(i), short.remote(i + 1)]) for i in range(20)]
    assert ray.get(refs) == list(range(200))
    assert ray.get(parents) == [2 * i + 1 for i in range(20)]


def test_wait_gives_what_is_ready_and_keeps_the_order(tmp_path):
    @ray.remote
    def after(name):
        while not (tmp_path / name).exists():
            time.sleep(0.005)
        return name

    slow, fast = after.remote("slow"), plus_one.remote(0)
    ready, rest = ray.wait([slow, fast], num_returns=1)
    assert (ready, rest) == ([fast], [slow])
    assert ray.wait([slow], timeout=0) == ([], [slow])
    (tmp_path / "slow").touch()
    assert ray.wait([slow, fast], num_returns=2) == ([slow, fast], [])


def test_get_gives_up_after_its_timeout_and_the_task_goes_on(tmp_path):
    @ray.remote
    def after():
        while not (tmp_path / "go").exists():
            time.sleep(0.005)
        return "done"

    ref = after.remote()
    with pytest.raises(GetTimeoutError, match=r"Get timed out: some object\(s\) not ready after .* s: 1 of 1"):
        ray.get(ref, timeout=0.05)
    (tmp_path / "go").touch()
    assert ray.get(ref) == "done"


def test_a_demand_that_no_node_can_hold_says_so_within_a_moment_and_in_the_error_of_get():
    notices: list[tuple[str, str]] = []
    session.engine.on_notice(lambda cell, kind, text: notices.append((kind, text)))
    ref = plus_one.options(num_cpus=17).remote(0)
    kind, text = until(lambda: notices and notices[0], "somebody says that the task cannot run", within_s=5)
    assert kind == "waiting"
    assert "num_cpus=17" in text
    assert "has 2" in text
    with pytest.raises(GetTimeoutError, match="num_cpus=17"):
        ray.get(ref, timeout=0.05)
    ray.cancel(ref)


def test_a_named_resource_that_nobody_has_is_named():
    ref = plus_one.options(resources={"unobtainium": 1}).remote(0)
    with pytest.raises(GetTimeoutError, match="unobtainium"):
        ray.get(ref, timeout=2)
    ray.cancel(ref)


def test_resources_follow_use_and_return(tmp_path):
    @ray.remote(num_cpus=2)
    def hold():
        (tmp_path / "holding").touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.005)

    ref = hold.remote()
    until((tmp_path / "holding").exists, "the task holds both CPUs")
    until(lambda: "CPU" not in ray.available_resources(), "both CPUs are seen to be taken")
    (tmp_path / "go").touch()
    ray.get(ref)
    until(lambda: ray.available_resources().get("CPU") == 2, "both CPUs are seen to be free")


def test_fractions_of_a_cpu_share_it():
    @ray.remote(num_cpus=0.5)
    def half(name):
        return name

    assert sorted(ray.get([half.remote(i) for i in range(8)])) == list(range(8))


def test_many_threads_submit_and_get_at_once():
    wrong: list[object] = []

    def work(start):
        try:
            refs = [plus_one.remote(start + i) for i in range(100)]
            if ray.get(refs) != [start + i + 1 for i in range(100)]:
                wrong.append(start)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_object_is_waited_for_by_many_threads(tmp_path):
    @ray.remote
    def after():
        while not (tmp_path / "go").exists():
            time.sleep(0.005)
        return list(range(10))

    ref, got = after.remote(), []
    threads = [threading.Thread(target=lambda: got.append(ray.get(ref))) for _ in range(16)]
    for thread in threads:
        thread.start()
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    assert got == [list(range(10))] * 16


def test_a_future_of_a_reference_settles_with_the_value_and_with_the_error():
    @ray.remote
    def fail():
        raise KeyError("k")

    assert plus_one.remote(1).future().result(timeout=20) == 2
    assert isinstance(fail.remote().future().exception(timeout=20), KeyError)


def test_what_a_task_sees_of_its_modules_is_what_the_driver_sees():
    @ray.remote
    def path():
        return sys.path

    assert set(sys.path) - {""} <= set(ray.get(path.remote()))


def test_a_function_that_changes_is_run_as_it_is_now():
    factor = 2

    def scale(x):
        return x * factor

    first = ray.get(ray.remote(scale).remote(10))
    factor = 3
    assert (first, ray.get(ray.remote(scale).remote(10))) == (20, 30)


def test_tasks_that_submit_without_waiting_leave_their_children_running(tmp_path):
    @ray.remote
    def child(i):
        (tmp_path / str(i)).touch()

    @ray.remote
    def parent():
        for i in range(20):
            child.remote(i)

    ray.get(parent.remote())
    until(lambda: len(list(tmp_path.iterdir())) == 20, "every child has run")


def test_a_task_pushed_behind_one_that_turns_out_long_is_run_elsewhere(tmp_path):
    """All were short so far, so two may be sent to one worker; the other CPU must not stand idle meanwhile."""

    @ray.remote
    def work(waits):
        if waits:
            (tmp_path / waits).touch()
            while not (tmp_path / "go").exists():
                time.sleep(0.005)

    def leases():
        with session.engine.runtime.locked() as state:
            return sum(len(pool.leases) for pool in state.tasks.leases.pools.values())

    for _ in range(5):
        ray.get([work.remote("") for _ in range(20)])
        until(lambda: not leases(), "every lease went back for being idle, so that one has to be asked for")
        refs = [work.remote("one"), work.remote("two")]
        until(lambda: (tmp_path / "one").exists() and (tmp_path / "two").exists(), "both run at the same time", within_s=5)
        (tmp_path / "go").touch()
        ray.get(refs)
        for path in tmp_path.iterdir():
            path.unlink()
