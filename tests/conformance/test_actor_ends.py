"""How actors end: by the last handle, by themselves, by kill, by a crash; what runs then, and what their callers are told."""

import asyncio
import atexit
import os
import sys
import threading
import time

import cloudpickle
import pytest

from tests.conformance.subject import ray

ActorDiedError, RayActorError = ray.exceptions.ActorDiedError, ray.exceptions.RayActorError


def eventually(condition, timeout=30):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def gone(pid):
    return not os.path.exists(f"/proc/{pid}")


class Hooked:
    """Writes down what runs at its end."""

    def __init__(self, path, leave_at_once=False):
        self.path = path
        atexit.register(self.note, "atexit")
        if leave_at_once:
            ray.actor.exit_actor()

    def note(self, word):
        with open(self.path, "a") as file:
            file.write(f"{word}\n")

    def __ray_shutdown__(self):
        self.note("shutdown")

    def pid(self):
        return os.getpid()

    def leave(self):
        try:
            ray.actor.exit_actor()
        except Exception:  # noqa: BLE001 -- the point: it is not swallowed
            return "swallowed"

    def leave_by(self, code):
        sys.exit(code)


def hooks_of(path):
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def test_without_a_handle_it_finishes_its_calls_and_then_runs_its_hooks_in_order(log):
    @ray.remote
    class A(Hooked):
        def work(self):
            time.sleep(0.2)
            self.note("worked")

    actor = A.remote(log)
    pid = ray.get(actor.pid.remote())
    actor.work.remote()
    actor.work.remote()
    del actor
    eventually(lambda: gone(pid))
    assert hooks_of(log) == ["worked", "worked", "shutdown", "atexit"]


@pytest.mark.parametrize("no_restart", [True, False])
def test_kill_runs_no_hook(log, no_restart):
    actor = ray.remote(Hooked).options(max_restarts=0 if no_restart else 1).remote(log)
    pid = ray.get(actor.pid.remote())
    ray.kill(actor, no_restart=no_restart)
    eventually(lambda: gone(pid))
    assert hooks_of(log) == []


@pytest.mark.differs("cause-of-exit-actor", sometimes=True)
@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=["one by one", "threaded"])
def test_exit_actor_cannot_be_swallowed_and_runs_the_hooks(log, options):
    actor = ray.remote(Hooked).options(max_restarts=-1, max_task_retries=-1, **options).remote(log)
    pid = ray.get(actor.pid.remote())
    with pytest.raises(ActorDiedError, match=r"exit_actor\(\)"):
        ray.get(actor.leave.remote(), timeout=30)
    with pytest.raises(ActorDiedError, match=r"exit_actor\(\)"):
        ray.get(actor.pid.remote(), timeout=30)
    eventually(lambda: gone(pid))
    assert hooks_of(log) == ["shutdown", "atexit"]


@pytest.mark.differs("cause-of-exit-actor", sometimes=True)
@pytest.mark.parametrize("method", ["coroutine", "sync", "inner_task"])
def test_exit_actor_in_an_async_actor(log, method):
    @ray.remote
    class A(Hooked):
        async def coroutine(self):
            try:
                ray.actor.exit_actor()
            except ValueError:
                return "swallowed"

        def sync(self):
            ray.actor.exit_actor()

        async def inner_task(self):
            await asyncio.gather(self.coroutine())

    actor = A.remote(log)
    pid = ray.get(actor.pid.remote())
    with pytest.raises(ActorDiedError, match=r"exit_actor\(\)"):
        ray.get(getattr(actor, method).remote(), timeout=30)
    eventually(lambda: gone(pid))
    assert hooks_of(log) == ["shutdown", "atexit"]


def test_exit_actor_in_init(log):
    actor = ray.remote(Hooked).remote(log, leave_at_once=True)
    with pytest.raises(ActorDiedError, match=r"exit_actor\(\)"):
        ray.get(actor.pid.remote(), timeout=30)
    eventually(lambda: hooks_of(log) == ["shutdown", "atexit"])


@pytest.mark.differs("calls-behind-exit-actor", sometimes=True)
def test_calls_that_run_beside_exit_actor_finish_and_those_that_have_not_begun_never_run(tmp_path):
    @ray.remote(max_concurrency=2)
    class A:
        def __init__(self):
            self.running, self.left = threading.Event(), threading.Event()

        def finish(self):
            self.running.set()
            return "finished" if self.left.wait(20) else "alone"

        def leave(self):
            self.running.wait(20)
            try:
                ray.actor.exit_actor()
            finally:
                self.left.set()

        def touch(self):
            (tmp_path / "ran").touch()

    actor = A.remote()
    finishing, leaving, queued = actor.finish.remote(), actor.leave.remote(), actor.touch.remote()
    assert ray.get(finishing, timeout=30) == "finished"
    for ref in (leaving, queued):
        with pytest.raises(ActorDiedError):
            ray.get(ref, timeout=30)
    assert not (tmp_path / "ran").exists()


def test_terminate_is_an_end_in_order(log):
    actor = ray.remote(Hooked).remote(log)
    pid = ray.get(actor.pid.remote())
    with pytest.raises(ActorDiedError):
        ray.get(actor.__ray_terminate__.remote(), timeout=30)
    eventually(lambda: gone(pid))
    assert hooks_of(log) == ["shutdown", "atexit"]


def test_exit_actor_outside_of_an_actor_is_a_type_error():
    @ray.remote
    def task():
        ray.actor.exit_actor()

    with pytest.raises(TypeError, match="exit_actor"):
        ray.actor.exit_actor()
    with pytest.raises(TypeError, match="exit_actor"):
        ray.get(task.remote(), timeout=30)


def test_sys_exit_of_0_is_on_purpose_and_of_anything_else_a_crash(log):
    actor = ray.remote(Hooked).options(max_restarts=1).remote(log)
    first = ray.get(actor.pid.remote())
    with pytest.raises(RayActorError):
        ray.get(actor.leave_by.remote(3), timeout=30)
    eventually(lambda: hooks_of(log) == ["shutdown", "atexit"])

    def again():
        try:
            return ray.get(actor.pid.remote(), timeout=30)
        except ray.exceptions.ActorUnavailableError:
            return first

    eventually(lambda: again() != first)
    assert hooks_of(log) == ["shutdown", "atexit"]
    other = ray.remote(Hooked).options(max_restarts=1).remote(log)
    ray.get(other.pid.remote())
    with pytest.raises(ActorDiedError):
        ray.get(other.leave_by.remote(0), timeout=30)
    with pytest.raises(ActorDiedError):
        ray.get(other.pid.remote(), timeout=30)


# ------------------------------------------------------------------------------------------ what their callers are told


def call_until_it_fails(actor):
    """What ends an actor is on its way: a call may be there before it."""
    for _ in range(1000):
        ray.get(actor.pid.remote(), timeout=30)
        time.sleep(0.02)


@ray.remote
class Plain:
    def pid(self):
        return os.getpid()

    def crash(self):
        os._exit(7)

    def block(self, path):
        open(path, "w").close()
        time.sleep(60)


def test_a_killed_actor_says_so():
    actor = Plain.remote()
    ray.get(actor.pid.remote())
    ray.kill(actor)
    with pytest.raises(ActorDiedError, match="it was killed by `(nb)?ray.kill") as raised:
        call_until_it_fails(actor)
    assert raised.value.actor_id == actor._actor_id.hex()


def test_an_actor_whose_process_ended_says_so():
    actor = Plain.remote()
    with pytest.raises(ActorDiedError, match="its worker process has died"):
        ray.get(actor.crash.remote(), timeout=30)
    with pytest.raises(ActorDiedError, match="its worker process has died"):
        ray.get(actor.pid.remote(), timeout=30)


def test_an_actor_whose_init_raised_says_what():
    @ray.remote
    class A:
        def __init__(self):
            raise ValueError("no actor today")

        def f(self):
            return 1

    with pytest.raises(RayActorError, match="an error raised in its creation task") as raised:
        ray.get(A.remote().f.remote(), timeout=30)
    assert "ValueError: no actor today" in str(raised.value)
    assert raised.value.actor_init_failed


def test_an_actor_whose_owner_ended_says_so(tmp_path):
    @ray.remote
    class Owner:
        def make(self):
            self.child = Plain.remote()
            ray.get(self.child.pid.remote())
            return self.child

        def crash(self):
            os._exit(1)

    owner = Owner.remote()
    child = ray.get(owner.make.remote(), timeout=30)
    assert ray.get(child.pid.remote(), timeout=30)
    owner.crash.remote()
    with pytest.raises(ActorDiedError, match="its owner has died"):
        call_until_it_fails(child)


def test_a_call_under_way_at_a_crash_is_unavailable_while_the_actor_restarts(tmp_path):
    actor = Plain.options(max_restarts=1).remote()
    ray.get(actor.pid.remote())
    ref = actor.block.remote(str(tmp_path / "begun"))
    eventually((tmp_path / "begun").exists)
    ray.kill(actor, no_restart=False)
    with pytest.raises(ray.exceptions.ActorUnavailableError, match="The actor is restarting|The actor .* is unavailable"):
        ray.get(ref, timeout=30)


# ------------------------------------------------------------------------------------------ who keeps it alive


def test_its_own_handle_and_one_by_name_do_not_keep_it():
    @ray.remote
    class A:
        def __init__(self):
            self.me = ray.get_runtime_context().current_actor

        def pid(self):
            return os.getpid()

    actor = A.options(name="kept by nobody").remote()
    pid = ray.get(actor.pid.remote())
    found = ray.get_actor("kept by nobody")
    assert found == actor
    del actor
    eventually(lambda: gone(pid))
    with pytest.raises(RayActorError):
        ray.get(found.pid.remote(), timeout=30)


def test_a_handle_that_was_pickled_out_of_band_does_not_keep_it():
    actor = Plain.remote()
    pid = ray.get(actor.pid.remote())
    pickled = cloudpickle.dumps(actor)
    copy = cloudpickle.loads(pickled)
    assert copy == actor
    assert ray.get(copy.pid.remote(), timeout=30) == pid
    del copy, actor
    eventually(lambda: gone(pid))


def test_a_handle_inside_a_value_keeps_it():
    actor = Plain.remote()
    pid = ray.get(actor.pid.remote())
    box = ray.put([actor])
    del actor
    (again,) = ray.get(box)
    assert ray.get(again.pid.remote(), timeout=30) == pid
    del again, box
    eventually(lambda: gone(pid))
