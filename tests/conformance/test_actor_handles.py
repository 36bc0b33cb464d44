"""What a handle and an actor class are to their users, names and namespaces, async actors, and the cancelling of calls."""

import asyncio
import os
import threading
import time

import pytest

from tests.conformance.subject import ray

ON_NODES_TOO = True

TaskCancelledError, RayActorError = ray.exceptions.TaskCancelledError, ray.exceptions.RayActorError


def eventually(condition, timeout=30):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------ classes and handles


class Base:
    factor = 3

    def __init__(self, n=0):
        self.n = n

    def get(self):
        return self.n

    @staticmethod
    def twice(x):
        return 2 * x

    @classmethod
    def thrice(cls, x):
        return cls.factor * x


class Derived(Base):
    def get(self):
        return super().get() + 100


def test_inherited_static_and_class_methods_are_methods_of_the_actor():
    actor = ray.remote(Derived).remote(1)
    assert ray.get([actor.get.remote(), actor.twice.remote(4), actor.thrice.remote(4)], timeout=30) == [101, 8, 12]


def test_static_and_class_methods_can_be_called_on_the_class():
    cls = ray.remote(Derived)
    assert (cls.twice(5), cls.thrice(5)) == (10, 15)


def test_an_actor_class_cannot_be_derived_from_nor_called():
    actor_class = ray.remote(Base)
    with pytest.raises(TypeError, match="[Ii]nherit"):

        class Child(actor_class):
            pass

    with pytest.raises(TypeError, match="cannot be instantiated directly"):
        actor_class()


def test_a_class_that_calls_its_base_by_super_works_as_an_actor():
    @ray.remote
    class Child(Base):
        def __init__(self, n):
            super().__init__(n + 1)

    assert ray.get(Child.remote(1).get.remote(), timeout=30) == 2


def test_handles_of_one_actor_are_equal_and_of_two_are_not():
    @ray.remote
    def echo(handle):
        return handle, hash(handle)

    one, other = ray.remote(Base).remote(), ray.remote(Base).remote()
    again, its_hash = ray.get(echo.remote(one), timeout=30)
    assert again == one
    assert its_hash == hash(one) == hash(again)
    assert one != other
    assert len({one, other, again}) == 2
    assert one != "handle"


def test_a_handle_shows_its_class_and_id():
    actor = ray.remote(Base).remote()
    assert repr(actor) == f"Actor(Base, {actor._actor_id.hex()})"
    assert actor._ray_actor_id.hex() == actor._actor_id.hex()
    assert isinstance(actor._actor_id, ray.ActorID)


def test_a_handle_lists_its_methods():
    actor = ray.remote(Base).remote()
    built_in = {"__ray_ready__", "__ray_call__", "__ray_terminate__"}
    assert set(dir(actor)) == {"__init__", "get", "twice", "thrice"} | built_in

    class Plain:
        def only(self):
            return 1

    assert set(dir(ray.remote(Plain).remote())) == {"__init__", "only"} | built_in


def test_what_is_no_method_is_an_attribute_error_and_a_direct_call_a_type_error():
    actor = ray.remote(Base).remote()
    with pytest.raises(AttributeError, match="nothing"):
        actor.nothing.remote()
    with pytest.raises(AttributeError):
        _ = actor.n
    with pytest.raises(TypeError, match="Actor methods cannot be called directly"):
        actor.get()


def test_wrong_arguments_are_an_error_in_the_calling_line():
    cls = ray.remote(Base)
    with pytest.raises(TypeError, match="too many positional arguments|unexpected"):
        cls.remote(1, 2, 3)
    actor = cls.remote()
    with pytest.raises(TypeError, match="too many positional arguments|unexpected"):
        actor.get.remote(1)
    with pytest.raises(TypeError, match="unexpected|got some"):
        actor.get.remote(x=1)


def test_kill_wants_a_handle():
    for wrong in (3, ray.put(1), Base):
        with pytest.raises(ValueError, match=r"kill\(\) only supported for actors"):
            ray.kill(wrong)


def test_the_built_in_methods():
    actor = ray.remote(Base).remote(4)
    ray.get(actor.__ray_ready__.remote(), timeout=30)
    assert ray.get(actor.__ray_call__.remote(lambda self, x, y=0: self.n + x + y, 1, y=2), timeout=30) == 7


def test_method_options():
    @ray.remote
    class A:
        @ray.method(num_returns=2)
        def two(self):
            return 1, 2

    actor = A.remote()
    assert ray.get(actor.two.remote(), timeout=30) == [1, 2]
    assert ray.get(actor.two.options(num_returns=1).remote(), timeout=30) == (1, 2)
    assert actor.two.options(num_returns=0).remote() is None
    with pytest.raises((ValueError, AssertionError, TypeError)):
        ray.method(nothing=1)(lambda self: 1)


def test_a_call_without_events_is_not_in_the_timeline():
    @ray.remote
    class A:
        def seen(self):
            return 1

        @ray.method(enable_task_events=False)
        def unseen(self):
            return 1

    actor = A.remote()
    ray.get([actor.seen.remote(), actor.unseen.remote()], timeout=30)

    def names():
        return {str(event.get("name", "")).split(".")[-1].strip("()") for event in ray.timeline()}

    eventually(lambda: "seen" in names())
    assert "unseen" not in names()


@pytest.mark.differs("events-of-methods")
def test_an_actor_without_events_has_methods_with_some():
    @ray.remote(enable_task_events=False)
    class A:
        def quiet(self):
            return 1

        @ray.method(enable_task_events=True)
        def loud(self):
            return 1

    @ray.remote(enable_task_events=False)
    def quiet_task():
        return 1

    actor = A.remote()
    ray.get([actor.quiet.remote(), actor.loud.remote(), quiet_task.remote()], timeout=30)
    ray.get(actor.quiet.options(enable_task_events=True, name="aloud").remote(), timeout=30)

    def names():
        return {str(event.get("name", "")).split(".")[-1].strip("()") for event in ray.timeline()}

    eventually(lambda: {"loud", "aloud"} <= names())
    assert not {"quiet", "quiet_task"} & names()


# ------------------------------------------------------------------------------------------ names


def test_a_name_is_free_again_when_its_actor_is_killed_or_dropped():
    cls = ray.remote(Base)

    def free():
        try:
            ray.get_actor("again")
        except ValueError:
            return True
        return False

    first = cls.options(name="again").remote(1)
    ray.get(first.get.remote(), timeout=30)
    with pytest.raises(ValueError, match="already taken|Please use a different name"):
        cls.options(name="again").remote(2)
    ray.kill(first)
    eventually(free)
    second = cls.options(name="again").remote(2)
    assert ray.get(ray.get_actor("again").get.remote(), timeout=30) == 2
    del second
    eventually(free)


def test_get_if_exists_from_a_hundred_threads_makes_one_actor():
    cls = ray.remote(Base)
    found, failed = [], []
    begin = threading.Barrier(100)

    def ask(n):
        begin.wait()
        try:
            found.append(cls.options(name="of all", get_if_exists=True).remote(n))
        except Exception as error:  # noqa: BLE001 -- told below
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert len(found) == 100
    assert len(set(found)) == 1
    assert len(set(ray.get([actor.get.remote() for actor in found], timeout=30))) == 1


def test_names_and_their_rules():
    cls = ray.remote(Base)
    with pytest.raises(ValueError, match="Failed to look up actor with name"):
        ray.get_actor("never made")
    with pytest.raises(ValueError, match="non-empty"):
        ray.get_actor("")
    with pytest.raises(ValueError, match="cannot be an empty string"):
        cls.options(name="").remote()
    with pytest.raises(TypeError):
        cls.options(name=3).remote()
    with pytest.raises(ValueError, match="actor name must be specified"):
        cls.options(get_if_exists=True).remote()
    with pytest.raises(ValueError, match="detached"):
        cls.options(lifetime="for ever").remote()


def test_namespaces_hold_the_same_name_apart():
    cls = ray.remote(Base)
    here = cls.options(name="twin").remote(1)
    there = cls.options(name="twin", namespace="there").remote(2)
    assert ray.get_actor("twin") == here
    assert ray.get_actor("twin", namespace="there") == there
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor("twin", namespace="nowhere")

    @ray.remote
    def look():
        return ray.get_runtime_context().namespace, ray.get(ray.get_actor("twin").get.remote())

    assert ray.get(look.remote(), timeout=30) == (ray.get_runtime_context().namespace, 1)


def test_a_detached_actor_needs_no_handle_and_no_creator():
    @ray.remote
    def make():
        ray.get(ray.remote(Base).options(name="stays", lifetime="detached").remote(5).__ray_ready__.remote())
        return os.getpid()

    ray.get(make.remote(), timeout=30)
    assert ray.get(ray.get_actor("stays").get.remote(), timeout=30) == 5
    ray.kill(ray.get_actor("stays"))


# ------------------------------------------------------------------------------------------ async actors


@ray.remote
class Async:
    def __init__(self):
        self.here = 0
        self.all_here = asyncio.Event()

    async def meet(self, n):
        self.here += 1
        if self.here == n:
            self.all_here.set()
        await self.all_here.wait()
        return threading.get_ident()

    def thread(self):
        return threading.get_ident()

    async def sleep(self, path):
        open(path, "w").close()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            os.remove(path)
            raise

    async def asked(self):
        return ray.get_runtime_context().is_canceled()

    async def swallow(self, path):
        open(path, "w").close()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "swallowed"


def test_an_async_actor_runs_a_thousand_calls_at_once_and_its_sync_methods_on_their_thread():
    actor = Async.remote()
    threads = set(ray.get([actor.meet.remote(1000) for _ in range(1000)], timeout=60))
    assert threads == {ray.get(actor.thread.remote(), timeout=30)}


def test_an_async_actor_runs_no_more_than_it_may():
    actor = Async.options(max_concurrency=2).remote()
    refs = [actor.meet.remote(3) for _ in range(3)]
    assert ray.wait(refs, timeout=0.3)[0] == []
    ray.kill(actor)


def test_a_cancelled_call_of_an_async_actor_is_told_inside(tmp_path):
    actor = Async.remote()
    path = tmp_path / "sleeps"
    ref = actor.sleep.remote(str(path))
    eventually(path.exists)
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
    eventually(lambda: not path.exists())
    assert ray.get(actor.thread.remote(), timeout=30)


def test_is_canceled_is_not_for_async_actors():
    with pytest.raises(RuntimeError, match="This method is not supported in an async actor"):
        ray.get(Async.remote().asked.remote(), timeout=30)


# ------------------------------------------------------------------------------------------ cancel

better_than_ray = pytest.mark.skipif(ray.__name__ == "ray", reason="docs/differences.md has it")


@ray.remote
class Worker:
    def wait(self, path, then="return"):
        open(path, "w").close()
        while not ray.get_runtime_context().is_canceled():
            time.sleep(0.01)
        os.remove(path)
        if then == "raise":
            raise ValueError("mine")
        return "a value"

    def touch(self, path):
        open(path, "w").close()

    def fine(self):
        return "fine"


@pytest.mark.parametrize("then", ["return", "raise"])
@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=["one by one", "threaded"])
def test_a_sync_call_sees_that_it_was_cancelled_and_its_value_does_not_matter(tmp_path, options, then):
    actor = Worker.options(**options).remote()
    path = tmp_path / "runs"
    ref = actor.wait.remote(str(path), then)
    eventually(path.exists)
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError if then == "return" else ValueError):
        ray.get(ref, timeout=30)
    eventually(lambda: not path.exists())
    assert ray.get(actor.fine.remote(), timeout=30) == "fine"


@better_than_ray
def test_a_queued_call_that_is_cancelled_never_runs_and_says_its_id(tmp_path):
    actor = Worker.remote()
    running, queued = tmp_path / "running", tmp_path / "queued"
    first = actor.wait.remote(str(running))
    eventually(running.exists)
    second, third = actor.touch.remote(str(queued)), actor.fine.remote()
    ray.cancel(second)
    ray.cancel(first)
    with pytest.raises(TaskCancelledError, match=second.task_id().hex()):
        ray.get(second, timeout=30)
    assert ray.get(third, timeout=30) == "fine"
    assert not queued.exists()


@better_than_ray
def test_a_call_that_waits_for_its_arguments_can_be_cancelled(tmp_path):
    @ray.remote(num_cpus=0)
    def late(path):
        while not os.path.exists(path):
            time.sleep(0.01)

    actor = Worker.remote()
    ray.get(actor.fine.remote(), timeout=30)
    ref = actor.touch.remote(late.remote(str(tmp_path / "go")))
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
    (tmp_path / "go").touch()
    assert ray.get(actor.fine.remote(), timeout=30) == "fine"


def test_a_finished_call_is_not_cancelled_and_none_by_force():
    actor = Worker.remote()
    ref = actor.fine.remote()
    assert ray.get(ref, timeout=30) == "fine"
    ray.cancel(ref)
    assert ray.get(ref, timeout=30) == "fine"
    with pytest.raises(ValueError, match="force=True is not supported"):
        ray.cancel(actor.fine.remote(), force=True)


def test_a_dependant_of_a_cancelled_call_fails(tmp_path):
    @ray.remote
    def after(x):
        return x

    actor = Worker.remote()
    path = tmp_path / "runs"
    ref = actor.wait.remote(str(path))
    eventually(path.exists)
    dependant = after.remote(ref)
    ray.cancel(ref)
    with pytest.raises((TaskCancelledError, ray.exceptions.RayTaskError)):
        ray.get(dependant, timeout=30)


@better_than_ray
def test_cancelling_a_call_cancels_what_it_submitted(tmp_path):
    @ray.remote(num_cpus=0)
    def child(path):
        try:  # the interrupt may come as soon as the file is there
            open(path, "w").close()
            time.sleep(60)
        finally:
            os.remove(path)

    @ray.remote
    class Parent:
        async def run(self, path):
            await child.remote(path)

    actor = Parent.remote()
    path = tmp_path / "child"
    ref = actor.run.remote(str(path))
    eventually(path.exists)
    ray.cancel(ref, recursive=True)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
    eventually(lambda: not path.exists())


def test_a_borrower_can_cancel_a_call(tmp_path):
    @ray.remote
    def cancel(refs):
        ray.cancel(refs[0])

    actor = Worker.remote()
    path = tmp_path / "runs"
    ref = actor.wait.remote(str(path))
    eventually(path.exists)
    ray.get(cancel.remote([ref]), timeout=30)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
