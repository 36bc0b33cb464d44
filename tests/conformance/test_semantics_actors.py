"""What Ray's own tests pin down about actors: order, lifetime, names, restarts, concurrency, ends."""

import asyncio
import os
import threading
import time

import pytest

from tests.conformance.subject import ray

ON_NODES_TOO = True


@pytest.fixture
def eventually():
    def check(condition, timeout=15):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.05)

    return check


def test_calls_of_one_caller_run_in_order_also_when_arguments_are_late():
    @ray.remote
    def slow(x):
        time.sleep(0.3)
        return x

    @ray.remote
    class Log:
        def __init__(self):
            self.seen = []

        def add(self, x):
            self.seen.append(x)

        def get(self):
            return self.seen

    log = Log.remote()
    log.add.remote(slow.remote(0))
    for i in range(1, 20):
        log.add.remote(i)
    assert ray.get(log.get.remote(), timeout=20) == list(range(20))


def test_a_thousand_calls_in_flight():
    @ray.remote
    class Counter:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    counter = Counter.remote()
    assert ray.get([counter.add.remote() for _ in range(1000)], timeout=30) == list(range(1, 1001))


def test_an_actor_ends_after_its_pending_calls_when_the_last_handle_goes(tmp_path, eventually):
    @ray.remote
    class A:
        def pid(self):
            return os.getpid()

        def work(self):
            time.sleep(0.3)
            (tmp_path / "done").touch()

        def __ray_shutdown__(self):
            (tmp_path / "farewell").touch()

    a = A.remote()
    pid = ray.get(a.pid.remote())
    a.work.remote()
    del a
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    assert (tmp_path / "done").exists()
    assert (tmp_path / "farewell").exists()


def test_a_killed_actor_runs_no_farewell_and_says_who_did_it(tmp_path):
    @ray.remote
    class A:
        def f(self):
            return 1

        def __ray_shutdown__(self):
            (tmp_path / "farewell").touch()

    a = A.remote()
    assert ray.get(a.f.remote()) == 1
    ray.kill(a)
    with pytest.raises(ray.exceptions.RayActorError, match="it was killed by `(nb)?ray.kill"):
        ray.get(a.f.remote(), timeout=20)
    assert not (tmp_path / "farewell").exists()


def test_a_call_under_way_fails_when_its_actor_is_killed(tmp_path, eventually):
    @ray.remote
    class A:
        def block(self):
            (tmp_path / "started").touch()
            time.sleep(30)

    a = A.remote()
    ref = a.block.remote()
    eventually((tmp_path / "started").exists)
    ray.kill(a)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(ref, timeout=20)


def test_exit_actor_ends_it_and_cannot_be_swallowed():
    @ray.remote
    class A:
        def leave(self):
            try:
                ray.actor.exit_actor()
            except Exception:
                return "swallowed"

        def f(self):
            return 1

    a = A.remote()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(a.leave.remote(), timeout=20)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(a.f.remote(), timeout=20)


def test_a_restarted_actor_has_a_fresh_state(eventually):
    @ray.remote(max_restarts=1, max_task_retries=2)
    class A:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n, os.getpid(), ray.get_runtime_context().was_current_actor_reconstructed

        def crash(self):
            os._exit(1)

    a = A.remote()
    first = ray.get(a.add.remote())
    assert (first[0], first[2]) == (1, False)
    a.crash.options(max_task_retries=0).remote()
    n, pid, again = ray.get(a.add.remote(), timeout=20)
    assert (n, again) == (1, True)
    assert pid != first[1]
    a.crash.options(max_task_retries=0).remote()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(a.add.remote(), timeout=20)


@pytest.mark.differs("calls-while-restarting")
def test_a_call_with_retries_is_repeated_after_a_restart(tmp_path):
    @ray.remote(max_restarts=-1)
    class A:
        def flaky(self):
            path = tmp_path / "once"
            if not path.exists():
                path.touch()
                os._exit(1)
            return "second time"

    assert ray.get(A.remote().flaky.options(max_task_retries=1).remote(), timeout=20) == "second time"


def test_exceptions_of_a_method_are_retried_when_asked_for():
    @ray.remote
    class A:
        def __init__(self):
            self.n = 0

        @ray.method(max_task_retries=3, retry_exceptions=[ValueError])
        def third(self):
            self.n += 1
            if self.n < 3:
                raise ValueError(self.n)
            return self.n

    assert ray.get(A.remote().third.remote(), timeout=20) == 3


def test_named_actors_and_their_namespaces(eventually):
    @ray.remote
    class A:
        def whoami(self):
            context = ray.get_runtime_context()
            return context.get_actor_name(), context.get_actor_id()

    a = A.options(name="the one").remote()
    assert ray.get(ray.get_actor("the one").whoami.remote()) == ("the one", a._actor_id.hex())
    with pytest.raises(ValueError, match="already taken|Please use a different name"):
        A.options(name="the one").remote()
    other = A.options(name="the one", namespace="elsewhere").remote()
    assert ray.get_actor("the one", namespace="elsewhere") == other != a
    assert A.options(name="the one", get_if_exists=True).remote() == a
    with pytest.raises(ValueError, match="Failed to look up actor with name"):
        ray.get_actor("nobody")
    assert ray.get(A.remote().whoami.remote())[0] == ""
    ray.kill(a)

    def free():
        try:
            ray.get_actor("the one")
        except ValueError:
            return True
        return False

    eventually(free)


def test_get_if_exists_from_many_threads_makes_one_actor():
    @ray.remote
    class A:
        def pid(self):
            return os.getpid()

    found = []

    def ask():
        found.append(A.options(name="shared", get_if_exists=True).remote())

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 30
    assert len(set(found)) == 1
    assert len(set(ray.get([a.pid.remote() for a in found], timeout=20))) == 1


def test_a_handle_from_get_actor_does_not_keep_the_actor(eventually):
    @ray.remote
    class A:
        def pid(self):
            return os.getpid()

    a = A.options(name="weak").remote()
    weak = ray.get_actor("weak")
    pid = ray.get(weak.pid.remote())
    del a
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(weak.pid.remote(), timeout=20)


def test_a_handle_held_by_an_actor_keeps_another_alive():
    @ray.remote
    class Inner:
        def f(self):
            return "alive"

    @ray.remote
    class Outer:
        def keep(self, inner):
            self.inner = inner

        def ask(self):
            return ray.get(self.inner.f.remote())

    outer, inner = Outer.remote(), Inner.remote()
    ray.get(outer.keep.remote(inner))
    del inner
    assert ray.get(outer.ask.remote(), timeout=20) == "alive"


def test_an_actor_can_be_made_by_a_task_and_live_on():
    @ray.remote
    class A:
        def f(self):
            return 5

    @ray.remote
    def make():
        a = A.remote()
        ray.get(a.f.remote())
        return a

    a = ray.get(make.remote())
    try:
        assert ray.get(a.f.remote(), timeout=20) == 5
    except ray.exceptions.RayActorError as error:
        assert "its owner has died" in str(error)  # only if the task's worker went away meanwhile


def test_an_async_actor_runs_its_calls_together():
    @ray.remote
    class Barrier:
        def __init__(self):
            self.here = 0
            self.all_here = asyncio.Event()

        async def meet(self, n):
            self.here += 1
            if self.here == n:
                self.all_here.set()
            await self.all_here.wait()
            return self.here

    barrier = Barrier.remote()
    assert ray.get([barrier.meet.remote(50) for _ in range(50)], timeout=20) == [50] * 50


def test_an_async_method_awaits_references():
    @ray.remote
    def f(x):
        return x * 2

    @ray.remote
    class A:
        async def run(self, n):
            return sum(await asyncio.gather(*[f.remote(i) for i in range(n)]))

    assert ray.get(A.remote().run.remote(10), timeout=20) == 90


def test_max_concurrency_runs_calls_in_threads():
    @ray.remote(max_concurrency=3)
    class A:
        def __init__(self):
            self.barrier = threading.Barrier(3)

        def meet(self):
            return self.barrier.wait(10) >= 0

    assert ray.get([A.remote().meet.remote() for _ in range(0)]) == []
    a = A.remote()
    assert ray.get([a.meet.remote() for _ in range(3)], timeout=20) == [True] * 3


def test_cancelling_an_async_call_raises_inside_it(tmp_path, eventually):
    @ray.remote
    class A:
        async def sleep(self):
            (tmp_path / "started").touch()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                (tmp_path / "cancelled").touch()
                raise

        async def f(self):
            return 1

    a = A.remote()
    ref = a.sleep.remote()
    eventually((tmp_path / "started").exists)
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=10)
    assert (tmp_path / "cancelled").exists()
    assert ray.get(a.f.remote(), timeout=10) == 1


def test_a_call_cannot_be_cancelled_by_force():
    @ray.remote
    class A:
        def f(self):
            time.sleep(0.5)

    a = A.remote()
    ref = a.f.remote()
    with pytest.raises(ValueError, match="force=True is not supported"):
        ray.cancel(ref, force=True)


def test_a_sync_call_sees_that_it_was_cancelled(tmp_path, eventually):
    @ray.remote
    class A:
        def loop(self):
            (tmp_path / "started").touch()
            while not ray.get_runtime_context().is_canceled():
                time.sleep(0.01)
            (tmp_path / "noticed").touch()

    a = A.remote()
    ref = a.loop.remote()
    eventually((tmp_path / "started").exists)
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=10)
    eventually((tmp_path / "noticed").exists)


def test_pending_calls_are_limited():
    @ray.remote(max_pending_calls=2)
    class A:
        def block(self):
            time.sleep(1)

    a = A.remote()
    refs = [a.block.remote(), a.block.remote()]
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
        a.block.remote()
    ray.get(refs, timeout=20)
    ray.get(a.block.remote(), timeout=20)


def test_an_actor_knows_itself():
    @ray.remote
    class A:
        def f(self):
            return 3

        def me(self):
            return ray.get_runtime_context().current_actor

    a = A.remote()
    me = ray.get(a.me.remote())
    assert me == a
    assert ray.get(me.f.remote()) == 3


def test_the_built_in_methods():
    @ray.remote
    class A:
        def __init__(self):
            self.x = 4

    a = A.remote()
    assert ray.get(a.__ray_ready__.remote(), timeout=20) is True
    assert ray.get(a.__ray_call__.remote(lambda self, y: self.x + y, 1)) == 5
    a.__ray_terminate__.remote()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(a.__ray_ready__.remote(), timeout=20)


def test_an_actor_with_resources_holds_them_and_one_without_does_not(eventually):
    @ray.remote
    class Free:
        def f(self):
            return 1

    actors = [Free.remote() for _ in range(4)]
    assert ray.get([a.f.remote() for a in actors], timeout=60) == [1] * 4
    eventually(lambda: ray.available_resources().get("CPU") == 2.0)
    held = Free.options(num_cpus=1).remote()
    ray.get(held.f.remote(), timeout=20)
    eventually(lambda: ray.available_resources().get("CPU") == 1.0)


@pytest.mark.differs("handles-of-another-session")
def test_an_old_handle_after_a_new_start_says_so():
    @ray.remote
    class A:
        def f(self):
            return 1

    a = A.remote()
    assert ray.get(a.f.remote()) == 1
    old = ray.put(1)
    ray.shutdown()
    ray.init(num_cpus=2)
    with pytest.raises(ray.exceptions.ActorHandleNotFoundError):
        a.f.remote()
    with pytest.raises(ray.exceptions.StaleRefError):
        ray.get(old)
    assert ray.get(A.remote().f.remote(), timeout=20) == 1
