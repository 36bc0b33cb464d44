"""Which attempts an actor's calls get: N retries are N + 1 runs, for crashes and for exceptions, whoever says so."""

import os
import time

import pytest

from tests.conformance.subject import ray

ON_NODES_TOO = True

ActorDiedError, ActorUnavailableError = ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError


class Counted:
    """Its runs are counted in a file, which outlives it."""

    def __init__(self, path):
        self.path = path

    def run(self):
        with open(self.path, "a") as file:
            file.write(".")
        return os.path.getsize(self.path)

    def runs(self):
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0


class Sync(Counted):
    def fail(self, times, error=ValueError):
        if self.run() <= times:
            raise error("again")
        return "done"

    def exit(self, times):
        if self.run() <= times:
            os._exit(1)
        return "done"

    def succeed(self):
        return "well"


class Async(Counted):
    async def fail(self, times, error=ValueError):
        if self.run() <= times:
            raise error("again")
        return "done"

    async def exit(self, times):
        if self.run() <= times:
            os._exit(1)
        return "done"


KINDS = [("sync", Sync, {}), ("async", Async, {}), ("threaded", Sync, {"max_concurrency": 3})]
of_each_kind = pytest.mark.parametrize(("cls", "options"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "runs")


def runs(path):
    return os.path.getsize(path)


# ------------------------------------------------------------------------------------------ exceptions


@of_each_kind
def test_an_exception_is_retried_as_often_as_the_call_says(path, cls, options):
    actor = ray.remote(cls).options(**options).remote(path)
    call = actor.fail.options(max_task_retries=2, retry_exceptions=True)
    assert ray.get(call.remote(2), timeout=30) == "done"
    assert runs(path) == 3


@of_each_kind
def test_the_last_exception_is_the_result(path, cls, options):
    actor = ray.remote(cls).options(**options).remote(path)
    with pytest.raises(ValueError, match="again"):
        ray.get(actor.fail.options(max_task_retries=2, retry_exceptions=True).remote(9), timeout=30)
    assert runs(path) == 3


@pytest.mark.parametrize(("wanted", "count"), [([ValueError], 3), ([KeyError], 1), ([KeyError, ValueError], 3), (False, 1)])
def test_only_the_exceptions_that_are_named_are_retried(path, wanted, count):
    actor = ray.remote(Sync).remote(path)
    with pytest.raises(ValueError, match="again"):
        ray.get(actor.fail.options(max_task_retries=2, retry_exceptions=wanted).remote(9), timeout=30)
    assert runs(path) == count


def test_retries_alone_do_not_cover_exceptions(path):
    actor = ray.remote(Sync).options(max_task_retries=5).remote(path)
    with pytest.raises(ValueError, match="again"):
        ray.get(actor.fail.remote(9), timeout=30)
    assert runs(path) == 1


def test_an_exception_retried_without_bound(path):
    actor = ray.remote(Sync).remote(path)
    assert ray.get(actor.fail.options(max_task_retries=-1, retry_exceptions=True).remote(20), timeout=30) == "done"
    assert runs(path) == 21


class Says(Sync):
    @ray.method(max_task_retries=1, retry_exceptions=True)
    def by_method(self, times):
        return self.fail(times)

    @ray.method(retry_exceptions=[ValueError])
    def by_actor(self, times):
        return self.fail(times)


def test_the_call_comes_before_the_method_and_the_method_before_the_actor(path):
    cls = ray.remote(Says).options(max_task_retries=2)

    def count(name, **options):
        actor = cls.remote(f"{path}-{name}-{'-'.join(options)}")
        method = getattr(actor, name)
        with pytest.raises(ValueError, match="again"):
            ray.get((method.options(**options) if options else method).remote(99), timeout=30)
        return ray.get(actor.runs.remote(), timeout=30)

    assert count("by_actor") == 3
    assert count("by_method") == 2
    assert count("by_method", max_task_retries=4) == 5
    assert count("by_method", retry_exceptions=False) == 1


def test_a_method_of_a_base_class_keeps_its_options_and_an_override_has_its_own(path):
    class Overrides(Says):
        def by_method(self, times):
            return self.fail(times)

    for cls, count in ((Says, 2), (Overrides, 1)):
        class Derived(cls):
            pass

        actor = ray.remote(Derived).remote(f"{path}{count}")
        with pytest.raises(ValueError, match="again"):
            ray.get(actor.by_method.remote(99), timeout=30)
        assert ray.get(actor.runs.remote(), timeout=30) == count


# ------------------------------------------------------------------------------------------ crashes


@of_each_kind
def test_a_crash_is_retried_in_the_next_life(path, cls, options):
    actor = ray.remote(cls).options(max_restarts=-1, max_task_retries=2, **options).remote(path)
    assert ray.get(actor.exit.remote(2), timeout=60) == "done"
    assert runs(path) == 3


@of_each_kind
def test_a_last_attempt_that_crashes_is_unavailable_while_the_actor_may_live_again(path, cls, options):
    actor = ray.remote(cls).options(max_restarts=3, max_task_retries=1, **options).remote(path)
    with pytest.raises(ActorUnavailableError):
        ray.get(actor.exit.remote(9), timeout=60)
    assert runs(path) == 2


def test_crashes_are_bounded_by_the_restarts_too(path):
    actor = ray.remote(Sync).options(max_restarts=1).remote(path)
    with pytest.raises(ActorDiedError):
        ray.get(actor.exit.options(max_task_retries=-1).remote(9), timeout=60)
    assert runs(path) == 2


def test_crashes_and_exceptions_use_up_the_same_retries(path):
    class Both(Counted):
        def go(self):
            if self.run() == 2:
                os._exit(1)
            raise ValueError("again")

    actor = ray.remote(Both).options(max_restarts=-1, max_task_retries=3).remote(path)
    with pytest.raises(ValueError, match="again"):
        ray.get(actor.go.options(retry_exceptions=True).remote(), timeout=60)
    assert runs(path) == 4


def test_other_calls_go_on_in_the_next_life(path):
    actor = ray.remote(Sync).options(max_restarts=1, max_task_retries=1).remote(path)
    crash = actor.exit.options(max_task_retries=0).remote(9)
    after = [actor.succeed.remote() for _ in range(5)]
    with pytest.raises(ActorUnavailableError):
        ray.get(crash, timeout=60)
    assert ray.get(after, timeout=60) == ["well"] * 5


def test_a_restarted_actor_begins_anew():
    @ray.remote(max_restarts=1)
    class Counter:
        def __init__(self, start):
            self.n = start

        def add(self):
            self.n += 1
            return self.n, os.getpid(), ray.get_runtime_context().was_current_actor_reconstructed

    counter = Counter.remote(10)
    before = ray.get([counter.add.remote() for _ in range(3)], timeout=30)[-1]
    assert (before[0], before[2]) == (13, False)
    ray.kill(counter, no_restart=False)
    deadline = time.monotonic() + 30
    while True:
        try:
            n, pid, again = ray.get(counter.add.remote(), timeout=30)
            if pid != before[1]:
                break
        except ActorUnavailableError:
            assert time.monotonic() < deadline
    assert (n, again) == (11, True)
    ray.kill(counter, no_restart=False)
    deadline = time.monotonic() + 30
    with pytest.raises(ActorDiedError):
        while time.monotonic() < deadline:  # what kills it is on its way: a call may be there before it
            ray.get(counter.add.remote(), timeout=30)
            time.sleep(0.02)


# ------------------------------------------------------------------------------------------ pending calls


def test_pending_calls_are_limited_for_every_handle():
    @ray.remote(max_pending_calls=2)
    class A:
        def block(self):
            time.sleep(20)

    actor = A.options(name="limited").remote()
    refs = [actor.block.remote(), actor.block.remote()]
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
        actor.block.remote()
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
        found = ray.get_actor("limited")
        for _ in range(3):
            found.block.remote()
    ray.kill(actor)
    for ref in refs:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(ref, timeout=30)
