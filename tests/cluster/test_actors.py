"""Actors: order, names, concurrency, restarts, and every way in which one ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import nbray as ray
from nbray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayTaskError, TaskCancelledError
from tests.cluster.conditions import is_running, lines_of, until


@ray.remote
class Log:
    """Remembers what it is told, in order."""

    def __init__(self):
        self.words = []

    def say(self, word):
        self.words.append(word)
        return len(self.words)

    def all(self):
        return self.words

    def pid(self):
        return os.getpid()


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.005)


def note(path, word):
    """One line, whole, whoever else writes."""
    with open(path, "a") as file:
        file.write(f"{word}\n")


def test_calls_of_one_caller_run_in_the_order_in_which_they_were_made():
    log = Log.remote()
    for i in range(500):
        log.say.remote(i)
    assert ray.get(log.all.remote()) == list(range(500))


def test_a_call_whose_argument_is_late_holds_back_the_calls_behind_it(tmp_path):
    @ray.remote
    def late():
        wait_for_file(tmp_path / "go")
        return "first"

    log = Log.remote()
    log.say.remote(late.remote())
    for i in range(5):
        log.say.remote(i)
    (tmp_path / "go").touch()
    assert ray.get(log.all.remote()) == ["first", 0, 1, 2, 3, 4]


def test_each_of_many_callers_keeps_its_own_order():
    @ray.remote
    def tell(log, who):
        ray.get([log.say.remote((who, i)) for i in range(50)])

    log = Log.remote()
    ray.get([tell.remote(log, who) for who in range(4)])
    words = ray.get(log.all.remote())
    assert len(words) == 200
    for who in range(4):
        assert [i for w, i in words if w == who] == list(range(50))


def test_an_exception_in_a_method_leaves_the_actor_and_its_state():
    @ray.remote
    class Fails:
        def __init__(self):
            self.count = 0

        def fail(self):
            self.count += 1
            raise KeyError("method")

        def counted(self):
            return self.count

    actor = Fails.remote()
    with pytest.raises(KeyError):
        ray.get(actor.fail.remote())
    assert ray.get(actor.counted.remote()) == 1


def test_a_handle_may_be_kept_by_another_actor_after_its_maker_dropped_it():
    @ray.remote
    class Keeper:
        def keep(self, handles):
            self.handle = handles[0]

        def use(self):
            return ray.get(self.handle.say.remote("kept"))

    keeper = Keeper.remote()
    log = Log.remote()
    pid = ray.get(log.pid.remote())
    ray.get(keeper.keep.remote([log]))
    del log
    assert [ray.get(keeper.use.remote()) for _ in range(3)] == [1, 2, 3]
    assert is_running(pid)
    ray.kill(keeper)
    until(lambda: not is_running(pid), "the actor ended with its last handle")


# ------------------------------------------------------------------------------------------ names


def test_an_actor_is_found_by_its_name_from_the_driver_and_from_tasks():
    named = Log.options(name="found").remote()
    ray.get(named.say.remote("driver"))

    @ray.remote
    def tell():
        return ray.get(ray.get_actor("found").say.remote("task"))

    assert ray.get(tell.remote()) == 2
    assert ray.get(ray.get_actor("found").all.remote()) == ["driver", "task"]


def test_a_name_that_is_taken_is_refused_and_free_again_after_a_kill():
    first = Log.options(name="only one").remote()
    with pytest.raises(ValueError, match="only one"):
        Log.options(name="only one").remote()
    ray.get(first.pid.remote())
    ray.kill(first)

    def again():
        try:
            return Log.options(name="only one").remote()
        except ValueError:
            return None

    second = until(again, "the name is free again")
    assert ray.get(second.all.remote()) == []


def test_a_name_that_nobody_has_says_so():
    with pytest.raises(ValueError, match="Failed to look up actor with name"):
        ray.get_actor("nobody")


def test_twenty_threads_that_get_or_create_one_name_have_one_actor():
    def create(_):
        return Log.options(name="shared", get_if_exists=True).remote()

    with ThreadPoolExecutor(20) as pool:
        handles = list(pool.map(create, range(20)))
    assert len({ray.get(handle.pid.remote()) for handle in handles}) == 1


# ------------------------------------------------------------------------------------------ concurrency


def test_methods_of_an_async_actor_overlap():
    @ray.remote
    class Meeting:
        def __init__(self):
            self.here, self.most, self.all_here = 0, 0, asyncio.Event()

        async def meet(self, of):
            self.here += 1
            if self.here == of:
                self.all_here.set()
            await self.all_here.wait()
            return self.here

    assert ray.get([Meeting.remote().meet.remote(1)], timeout=20) == [1]
    meeting = Meeting.remote()
    assert ray.get([meeting.meet.remote(50) for _ in range(50)], timeout=20) == [50] * 50


def test_an_async_actor_awaits_references_and_other_actors():
    @ray.remote
    class Asks:
        async def ask(self, log):
            lengths = await asyncio.gather(*[log.say.remote(i) for i in range(10)])
            return sorted(lengths)

    assert ray.get(Asks.remote().ask.remote(Log.remote()), timeout=20) == list(range(1, 11))


def test_a_threaded_actor_runs_as_many_calls_at_once_as_it_says():
    @ray.remote(max_concurrency=4)
    class Barrier:
        def __init__(self):
            self.barrier = threading.Barrier(4)

        def meet(self):
            return self.barrier.wait(timeout=20)

    barrier = Barrier.remote()
    assert sorted(ray.get([barrier.meet.remote() for _ in range(4)], timeout=30)) == [0, 1, 2, 3]


def test_thirty_actors_work_on_two_cpus():
    actors = [Log.remote() for _ in range(30)]
    ray.get([actor.say.remote(i) for i, actor in enumerate(actors)], timeout=60)
    assert ray.get([actor.all.remote() for actor in actors]) == [[i] for i in range(30)]
    assert len(set(ray.get([actor.pid.remote() for actor in actors]))) == 30


def test_two_actors_may_call_each_other_while_they_wait():
    @ray.remote(max_concurrency=2)
    class Partner:
        def ask(self, other, depth):
            return depth if depth == 0 else ray.get(other.echo.remote(depth))

        def echo(self, x):
            return x

    a, b = Partner.remote(), Partner.remote()
    assert ray.get([a.ask.remote(b, 1), b.ask.remote(a, 2)], timeout=20) == [1, 2]


# ------------------------------------------------------------------------------------------ cancelling calls


def test_a_running_call_of_an_async_actor_is_cancelled_inside(tmp_path):
    @ray.remote
    class Sleeps:
        async def sleep(self):
            note(tmp_path / "log", "began")
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                note(tmp_path / "log", "cancelled")
                raise

        async def alive(self):
            return True

    actor = Sleeps.remote()
    ref = actor.sleep.remote()
    until(lambda: lines_of(tmp_path / "log"), "the call runs")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=20)
    assert lines_of(tmp_path / "log") == ["began", "cancelled"]
    assert ray.get(actor.alive.remote())


def test_calls_of_an_async_actor_that_are_cancelled_as_they_begin_are_all_cancelled():
    @ray.remote
    class Sleeps:
        async def sleep(self):
            await asyncio.sleep(1000)

    actor = Sleeps.remote()
    refs = [actor.sleep.remote() for _ in range(300)]
    for ref in refs:
        ray.cancel(ref)
    for ref in refs:
        with pytest.raises(TaskCancelledError):
            ray.get(ref, timeout=20)


def test_a_queued_call_that_is_cancelled_never_runs_and_a_running_one_is_told(tmp_path):
    @ray.remote
    class Works:
        def work(self, word):
            note(tmp_path / "log", word)
            until(lambda: ray.get_runtime_context().is_canceled(), "the running call is told")

        def alive(self):
            return True

    actor = Works.remote()
    running, queued = actor.work.remote("running"), actor.work.remote("queued")
    until(lambda: lines_of(tmp_path / "log"), "the first call runs")
    ray.cancel(queued)
    with pytest.raises(TaskCancelledError):
        ray.get(queued, timeout=20)
    ray.cancel(running)
    with pytest.raises(TaskCancelledError):
        ray.get(running, timeout=20)
    assert ray.get(actor.alive.remote())
    assert lines_of(tmp_path / "log") == ["running"]


# ------------------------------------------------------------------------------------------ endings


def test_a_killed_actor_is_dead_for_every_call_before_and_after(tmp_path):
    @ray.remote
    class Sleeps:
        def sleep(self):
            (tmp_path / "asleep").touch()
            time.sleep(1000)

    actor = Sleeps.remote()
    running, queued = actor.sleep.remote(), actor.sleep.remote()
    until((tmp_path / "asleep").exists, "the call runs")
    ray.kill(actor)
    for ref in (running, queued, actor.sleep.remote()):
        with pytest.raises(ActorDiedError, match=r"ray\.kill"):
            ray.get(ref, timeout=20)


def test_a_call_lost_with_its_actor_may_have_run_and_one_behind_it_has_not(tmp_path):
    @ray.remote
    class Dies:
        def die(self):
            os.kill(os.getpid(), signal.SIGKILL)

        def never(self):
            note(tmp_path / "ran", "ran")

    actor = Dies.remote()
    dies, never = actor.die.remote(), actor.never.remote()
    with pytest.raises(RayActorError) as lost:
        ray.get(dies, timeout=20)
    with pytest.raises(RayActorError):
        ray.get(never, timeout=20)
    assert "SIGKILL" in str(lost.value)
    assert "may have run" in str(lost.value)
    assert not (tmp_path / "ran").exists()


def test_a_restarted_actor_is_fresh_and_its_calls_are_sent_again(tmp_path):
    @ray.remote(max_restarts=2, max_task_retries=-1)
    class Phoenix:
        def __init__(self):
            note(tmp_path / "lives", os.getpid())
            self.count = 0

        def step(self, dies_in_life):
            self.count += 1
            if len(lines_of(tmp_path / "lives")) == dies_in_life:
                os._exit(1)
            return self.count

    actor = Phoenix.remote()
    assert ray.get(actor.step.remote(0), timeout=20) == 1
    assert ray.get([actor.step.remote(0), actor.step.remote(1)], timeout=30) == [2, 1]
    assert len(lines_of(tmp_path / "lives")) == 2


def test_without_task_retries_a_call_is_made_at_most_once_and_the_next_one_works(tmp_path):
    @ray.remote(max_restarts=1)
    class Phoenix:
        def die(self):
            note(tmp_path / "deaths", "died")
            os._exit(1)

        def alive(self):
            return True

    actor = Phoenix.remote()
    with pytest.raises(ActorUnavailableError):
        ray.get(actor.die.remote(), timeout=20)
    assert ray.get(actor.alive.remote(), timeout=20)
    with pytest.raises(ActorDiedError, match=r"its worker process has died|exited with code 1"):
        ray.get(actor.die.remote(), timeout=20)
    assert lines_of(tmp_path / "deaths") == ["died", "died"]


def test_a_kill_that_allows_a_restart_restarts(tmp_path):
    actor = Log.options(max_restarts=1).remote()
    before = ray.get(actor.pid.remote())
    ray.kill(actor, no_restart=False)
    until(lambda: not is_running(before), "the first life is over")

    def after():
        try:
            return ray.get(actor.pid.remote(), timeout=20)
        except ActorUnavailableError:
            return None

    assert until(after, "the second life answers") != before


def test_an_exception_in_init_is_told_by_every_call():
    @ray.remote
    class Broken:
        def __init__(self):
            raise ZeroDivisionError("no actor for you")

        def method(self):
            return 1

    actor = Broken.remote()
    refs = [actor.method.remote() for _ in range(3)]
    for ref in [*refs, actor.method.remote()]:
        with pytest.raises(ActorDiedError, match="no actor for you"):
            ray.get(ref, timeout=20)


def test_a_crash_in_init_is_told_too():
    @ray.remote
    class Broken:
        def __init__(self):
            os._exit(5)

        def method(self):
            return 1

    with pytest.raises(ActorDiedError, match="code 5"):
        ray.get(Broken.remote().method.remote(), timeout=20)


def test_an_argument_that_failed_ends_the_actor_that_was_to_be_made_of_it():
    @ray.remote
    def fail():
        raise KeyError("the argument")

    @ray.remote
    class Takes:
        def __init__(self, x):
            self.x = x

        def method(self):
            return self.x

    with pytest.raises(Exception, match="the argument"):
        ray.get(Takes.remote(fail.remote()).method.remote(), timeout=20)


def test_exit_actor_ends_it_in_order_and_its_last_call_fails(tmp_path):
    @ray.remote
    class Leaves:
        def leave(self):
            import atexit

            atexit.register(note, tmp_path / "log", "atexit")
            ray.actor.exit_actor()

        def pid(self):
            return os.getpid()

    actor = Leaves.remote()
    pid = ray.get(actor.pid.remote())
    with pytest.raises(RayActorError, match="exit_actor"):
        ray.get(actor.leave.remote(), timeout=20)
    with pytest.raises(RayActorError):
        ray.get(actor.pid.remote(), timeout=20)
    until(lambda: not is_running(pid), "its process ended")
    assert lines_of(tmp_path / "log") == ["atexit"]


def test_an_async_actor_can_leave_and_a_threaded_one_too():
    @ray.remote
    class Async:
        async def leave(self):
            ray.actor.exit_actor()

    @ray.remote(max_concurrency=3)
    class Threaded:
        def leave(self):
            ray.actor.exit_actor()

    for cls in (Async, Threaded):
        with pytest.raises(RayActorError, match="exit_actor"):
            ray.get(cls.remote().leave.remote(), timeout=20)


def test_exit_actor_outside_of_an_actor_is_a_type_error():
    @ray.remote
    def leave():
        ray.actor.exit_actor()

    with pytest.raises(TypeError, match="exit_actor"):
        ray.get(leave.remote())


def test_an_actor_out_of_scope_finishes_its_calls_and_ends(tmp_path):
    actor = Log.remote()
    pid = ray.get(actor.pid.remote())
    refs = [actor.say.remote(i) for i in range(100)]
    del actor
    assert ray.get(refs) == list(range(1, 101))
    until(lambda: not is_running(pid), "its process ended")


def test_an_actor_made_and_dropped_at_once_runs_the_call_made_on_it(tmp_path):
    @ray.remote
    class Writes:
        def write(self):
            note(tmp_path / "log", "written")

    ray.get(Writes.remote().write.remote(), timeout=20)
    assert lines_of(tmp_path / "log") == ["written"]


def test_actors_of_a_failed_creator_task_end_with_it():
    @ray.remote
    def create():
        actor = Log.remote()
        return ray.get(actor.pid.remote())

    pid = ray.get(create.remote())
    until(lambda: not is_running(pid), "the actor ended when the task dropped its handle")


def test_a_handle_returned_by_a_task_outlives_the_task():
    @ray.remote
    def create():
        return Log.remote()

    actor = ray.get(create.remote())
    assert ray.get(actor.say.remote("hello"), timeout=20) == 1


def test_what_a_dead_actor_returned_before_can_still_be_had():
    actor = Log.remote()
    ref = actor.say.remote("x")
    ray.get(ref)
    ray.kill(actor)
    assert ray.get(ref) == 1


def test_a_call_of_a_method_that_is_not_there_is_an_attribute_error_here():
    with pytest.raises(AttributeError):
        Log.remote().nothing.remote()


def test_user_errors_in_calls_are_both_task_errors_and_their_own_class():
    @ray.remote
    class Fails:
        def fail(self):
            raise LookupError("here")

    with pytest.raises(LookupError) as caught:
        ray.get(Fails.remote().fail.remote())
    assert isinstance(caught.value, RayTaskError)


def test_an_end_in_order_that_takes_too_long_is_cut_short(script, monkeypatch):
    monkeypatch.setenv("NBRAY_ACTOR_EXIT_S", "0.3")
    one = script(
        """
        import os, time
        import nbray as ray

        ray.init(num_cpus=1)

        @ray.remote
        class Hangs:
            def pid(self):
                return os.getpid()

            def __ray_shutdown__(self):
                print("hanging")
                time.sleep(1000)

        @ray.remote(max_calls=1)
        def hangs():
            import atexit

            atexit.register(time.sleep, 1000)
            return os.getpid()

        actor = Hangs.remote()
        pids = [ray.get(actor.pid.remote()), ray.get(hangs.remote())]
        del actor
        while any(os.path.exists(f"/proc/{pid}") for pid in pids):
            time.sleep(0.02)
        print("gone")
        """
    )
    one.line("gone")
    assert one.finish()[0] == 0
