"""Values made to do harm: what does not pickle, what does not load, what raises when looked at; and wrong arguments everywhere."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import os
import threading
import time

import numpy as np
import pytest

import nbray as ray
from nbray.exceptions import GetTimeoutError, RayError, RayTaskError, WorkerCrashedError


@ray.remote
def identity(x):
    return x


@ray.remote
class Holder:
    def __init__(self, x=None):
        self.x = x

    def take(self, x):
        return x


# ------------------------------------------------------------------------------------------ what does not pickle


def unpicklable():
    return {"cfg": {"lock": threading.Lock()}}


@pytest.mark.parametrize("call", ["task", "actor", "call", "put"])
def test_what_does_not_pickle_is_named_with_its_path_at_the_calling_line(call):
    calls = {"task": identity.remote, "actor": Holder.remote, "call": Holder.remote().take.remote, "put": ray.put}
    with pytest.raises(TypeError, match=r"\['cfg'\]\['lock'\]"):
        calls[call](unpicklable())


def test_a_generator_and_an_open_file_are_refused_too(tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(TypeError, match=r"not pickle|cannot pickle"):
        identity.remote(iter(i for i in [file]))


def test_a_closure_that_does_not_pickle_says_which_function():
    lock = threading.Lock()

    @ray.remote
    def guarded():
        return lock.locked()

    with pytest.raises(TypeError, match="guarded"):
        guarded.remote()


def test_a_result_that_does_not_pickle_is_an_error_and_the_worker_stays():
    @ray.remote
    def make():
        return {"pid": os.getpid(), "lock": threading.Lock()}

    @ray.remote
    def pid():
        return os.getpid()

    before = {ray.get(pid.remote()) for _ in range(10)}
    with pytest.raises(TypeError, match="lock"):
        ray.get(make.remote())
    assert {ray.get(pid.remote()) for _ in range(10)} & before


def test_a_reduce_that_raises_or_never_ends_is_an_error_here():
    class Raises:
        def __reduce__(self):
            raise RuntimeError("you shall not pickle")

    class Recurses:
        def __reduce__(self):
            return Recurses, (Recurses(),)

    with pytest.raises(TypeError, match="you shall not pickle"):
        ray.put(Raises())
    with pytest.raises((TypeError, RecursionError)):
        ray.put(Recurses())
    assert ray.get(identity.remote(1)) == 1


def test_a_list_nested_ten_thousand_deep_is_an_error_and_no_crash():
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises((TypeError, RecursionError)):
        ray.put(deep)
    while deep:
        [deep] = deep


# ------------------------------------------------------------------------------------------ what does not load


class LoadsBadly:
    """Pickles, and raises where it is loaded."""

    def __reduce__(self):
        return _raise, ("not here",)


def _raise(text):
    raise RuntimeError(text)


def test_a_result_that_does_not_load_is_an_error_every_time_it_is_asked_for():
    @ray.remote
    def make():
        return LoadsBadly()

    ref = make.remote()
    for _ in range(2):
        with pytest.raises(Exception, match="not here"):
            ray.get(ref)
    assert ray.get(identity.remote(1)) == 1


def test_an_argument_that_does_not_load_fails_the_task_and_not_the_worker():
    with pytest.raises(Exception, match="not here"):
        ray.get(identity.remote(LoadsBadly()))
    with pytest.raises(Exception, match="not here"):
        ray.get(identity.remote(ray.put(LoadsBadly())))
    with pytest.raises(Exception, match="not here"):
        ray.get(Holder.remote(LoadsBadly()).take.remote(1), timeout=20)
    assert ray.get(identity.remote(1)) == 1


def test_a_function_that_does_not_load_fails_its_task():
    bad = LoadsBadly()

    @ray.remote
    def uses():
        return bad

    with pytest.raises(Exception, match="not here"):
        ray.get(uses.remote(), timeout=20)


def test_an_actor_call_whose_argument_kills_its_process_ends_as_a_death():
    class Kills:
        def __reduce__(self):
            return os._exit, (11,)

    with pytest.raises(WorkerCrashedError, match="11"):
        ray.get(identity.options(max_retries=0).remote(Kills()), timeout=20)
    with pytest.raises(RayError, match="11"):
        ray.get(Holder.remote().take.remote(Kills()), timeout=20)


# ------------------------------------------------------------------------------------------ exceptions


def test_an_exception_that_takes_other_arguments_than_it_passes_on_arrives_as_itself():
    class TwoArguments(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")

    @ray.remote
    def fail():
        raise TwoArguments("this", "that")

    with pytest.raises(TwoArguments, match="this and that"):
        ray.get(fail.remote())


def test_an_exception_that_holds_a_lock_arrives_as_text():
    class Locked(Exception):
        def __init__(self):
            super().__init__("locked in")
            self.lock = threading.Lock()

    @ray.remote
    def fail():
        raise Locked

    with pytest.raises(RayTaskError, match="locked in"):
        ray.get(fail.remote())


def test_an_exception_whose_str_and_repr_raise_is_still_an_error():
    class Rude(Exception):
        def __str__(self):
            raise RuntimeError("no text")

        __repr__ = __str__

    @ray.remote
    def fail():
        raise Rude

    with pytest.raises(RayTaskError) as caught:
        ray.get(fail.remote())
    assert "Rude" in str(caught.value)


def test_an_exception_that_causes_itself_and_a_traceback_of_many_frames_arrive():
    @ray.remote
    def circle():
        first, second = KeyError("first"), KeyError("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    @ray.remote
    def deep():
        def down(n):
            return 1 / 0 if n == 0 else down(n - 1)

        return down(900)

    with pytest.raises(KeyError, match="first"):
        ray.get(circle.remote())
    with pytest.raises(ZeroDivisionError) as caught:
        ray.get(deep.remote())
    assert len(str(caught.value)) < 200_000


def test_an_exception_group_of_ten_thousand_arrives():
    @ray.remote
    def fail():
        raise ExceptionGroup("many", [ValueError(i) for i in range(10_000)])

    with pytest.raises(RayTaskError):
        ray.get(fail.remote())


# ------------------------------------------------------------------------------------------ what raises when looked at


class Touchy:
    """Everything that code might do with a value in passing raises."""

    def _no(self, *_):
        raise RuntimeError("do not touch")

    __eq__ = __bool__ = __len__ = __repr__ = __str__ = __iter__ = __contains__ = _no
    __hash__ = None  # type: ignore[assignment]


def test_a_value_that_raises_when_looked_at_passes_through_untouched():
    for back in (ray.get(ray.put(Touchy())), ray.get(identity.remote(Touchy())), ray.get(Holder.remote().take.remote(Touchy()))):
        assert type(back).__name__ == "Touchy"
    ready, _ = ray.wait([identity.remote(Touchy())])
    assert len(ready) == 1


def test_an_actor_whose_repr_raises_works_and_fails_like_any_other():
    @ray.remote
    class Rude:
        def __repr__(self):
            raise RuntimeError("no name")

        def speak(self):
            print("hello")
            return 1

        def fail(self):
            raise KeyError("k")

    actor = Rude.remote()
    assert ray.get(actor.speak.remote(), timeout=20) == 1
    with pytest.raises(KeyError):
        ray.get(actor.fail.remote(), timeout=20)


def test_a_value_whose_del_raises_or_gets_objects_harms_nobody():
    class Last:
        def __del__(self):
            ray.get(identity.remote(1))

    @ray.remote
    def take(x):
        return 1

    assert ray.get([take.remote(Last()) for _ in range(5)], timeout=30) == [1] * 5


def test_a_value_that_submits_tasks_while_it_is_pickled_and_loaded():
    class Busy:
        def __init__(self, ref):
            self.ref = ref

        def __getstate__(self):
            return {"ref": self.ref, "value": ray.get(identity.remote("pickled"))}

        def __setstate__(self, state):
            self.ref = state["ref"]
            self.value = state["value"], ray.get(self.ref)

    back = ray.get(identity.remote(Busy(ray.put("loaded"))), timeout=30)
    assert back.value == ("pickled", "loaded")


# ------------------------------------------------------------------------------------------ what a task does to its worker


HARM = {
    "changes its directory": lambda: os.chdir("/"),
    "closes its input": lambda: os.close(0),
    "ignores SIGINT": lambda: __import__("signal").signal(2, 1),
    "forks": lambda: os.waitpid(os.fork() or os._exit(0), 0),
    "spoils pickle": lambda: setattr(__import__("pickle"), "dumps", None),
    "changes its mask": lambda: os.umask(0o777),
    "patches time": lambda: setattr(time, "time", lambda: 0.0),
}


@pytest.mark.parametrize("what", HARM)
def test_the_cluster_goes_on_after_a_task_that(what):
    harm = HARM[what]

    @ray.remote(max_retries=0)
    def misbehave():
        harm()
        return "done"

    @ray.remote
    def work(i):
        return i

    with contextlib.suppress(RayError):  # it may fail; what others see of it is what counts
        assert ray.get(misbehave.remote(), timeout=20) == "done"
    ok = 0
    for i in range(20):
        try:
            ok += ray.get(work.remote(i), timeout=20) == i
        except RayTaskError:
            continue  # the same worker, spoiled by its own task
    if what != "spoils pickle":
        assert ok == 20


# ------------------------------------------------------------------------------------------ wrong arguments

BAD_TASK_OPTIONS = [
    ("num_cpus", -1, ValueError),
    ("num_cpus", float("nan"), ValueError),
    ("num_cpus", float("inf"), ValueError),
    ("num_cpus", "2", TypeError),
    ("num_cpus", 10**400, (ValueError, OverflowError)),
    ("num_cpus", 1e-9, ValueError),
    ("num_gpus", -0.5, ValueError),
    ("memory", -1, ValueError),
    ("resources", {"CPU": 1}, ValueError),
    ("resources", {"a": -1}, ValueError),
    ("resources", ["a"], TypeError),
    ("num_returns", -1, ValueError),
    ("num_returns", "many", (ValueError, TypeError)),
    ("max_retries", -2, ValueError),
    ("max_retries", 1.5, (ValueError, TypeError)),
    ("retry_exceptions", [1], (ValueError, TypeError)),
    ("num_cpu", 1, (TypeError, ValueError)),
]


@pytest.mark.parametrize(("name", "value", "error"), BAD_TASK_OPTIONS)
def test_a_bad_option_is_refused_where_it_is_given_and_by_name(name, value, error):
    with pytest.raises(error, match=name):
        identity.options(**{name: value}).remote(1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_restarts", -2), ("max_concurrency", 0), ("name", ""), ("lifetime", "eternal"), ("max_pending_calls", "x")],
)
def test_a_bad_option_of_an_actor_is_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        Holder.options(**{name: value}).remote()


def test_unusual_numbers_are_taken_for_what_they_are():
    for cpus in (0, 0.5, 0.1 + 0.2, np.float64(1), np.int32(1), True, decimal.Decimal("0.5")):
        try:
            ref = identity.options(num_cpus=cpus).remote(1)
        except (TypeError, ValueError):
            continue
        assert ray.get(ref, timeout=20) == 1


@pytest.mark.parametrize("timeout", [-1, "1", float("nan"), dt.timedelta(seconds=1)])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises((ValueError, TypeError)):
        ray.get(ray.put(1), timeout=timeout)
    with pytest.raises((ValueError, TypeError)):
        ray.wait([ray.put(1)], timeout=timeout)


@pytest.mark.parametrize("timeout", [0, 1e20, float("inf"), None, np.float64(2)])
def test_a_timeout_of_any_size_is_a_timeout(timeout):
    assert ray.get(ray.put(1), timeout=timeout) == 1


def test_a_timeout_of_nothing_asks_for_what_is_there():
    @ray.remote
    def slow():
        time.sleep(0.2)

    ref = slow.remote()
    with pytest.raises(GetTimeoutError):
        ray.get(ref, timeout=0)
    ray.get(ref)


@pytest.mark.parametrize("wrong", [1, "ref", None, b"\0" * 20, [[1]], {"a": 1}, [None]])
def test_get_and_wait_refuse_what_is_no_reference(wrong):
    with pytest.raises((TypeError, ValueError)):
        ray.get(wrong)
    with pytest.raises((TypeError, ValueError)):
        ray.wait(wrong)


def test_get_of_a_hundred_thousand_times_the_same_reference():
    ref = ray.put("same")
    assert ray.get([ref] * 100_000) == ["same"] * 100_000


def test_cancel_and_kill_refuse_what_they_cannot_take():
    with pytest.raises((TypeError, ValueError)):
        ray.kill("actor")
    with pytest.raises((TypeError, ValueError)):
        ray.cancel("ref")
    holder = Holder.remote()
    with pytest.raises(ValueError, match="force"):
        ray.cancel(holder.take.remote(1), force=True)


def test_get_inside_a_signal_handler_of_the_driver(script):
    driver = script("""
        import signal, os
        import nbray as ray
        ray.init(num_cpus=1)

        @ray.remote
        def one():
            return 1

        got = []
        signal.signal(signal.SIGUSR1, lambda *_: got.append(ray.get(one.remote())))
        ray.get(one.remote())
        for _ in range(30):
            os.kill(os.getpid(), signal.SIGUSR1)
            ray.get([one.remote() for _ in range(5)])
        print("GOT", len(got))
        ray.shutdown()
    """)
    code, out, err = driver.finish(60)
    assert (code, err) == (0, ""), err
    assert "GOT 30" in out


def test_garbage_that_submits_tasks_wherever_it_is_collected_locks_nothing_up(script):
    """Any allocation may collect garbage, also one inside of a step: its __del__ runs in the thread that holds the lock."""
    driver = script("""
        import gc, time
        import nbray as ray
        from nbray import session
        from nbray.exceptions import RaySystemError

        ray.init(num_cpus=2)

        @ray.remote
        def one():
            return 1

        refs, refused, large = [], [], bytes(200_000)

        class Last:
            def __init__(self, how):
                self.me, self.how = self, how  # a cycle: only the collector ends it

            def __del__(self):
                if not ray.is_initialized():
                    return
                try:
                    refs.append(one.remote() if self.how % 3 else ray.put(1))
                    if self.how % 7 == 0:
                        ray.get(refs[-1])
                        ray.put(large)
                except RaySystemError as error:
                    refused.append(error)

        gc.set_threshold(60, 2, 2)
        for i in range(3000):
            Last(i)
            one.remote()
            if i % 100 == 0:
                ray.get(one.remote())
        gc.set_threshold(700, 10, 10)
        deadline = time.monotonic() + 30
        while len(refs) < 3000 and time.monotonic() < deadline:
            gc.collect()  # does nothing while another thread collects
        assert set(ray.get(refs, timeout=60)) == {1}
        with session.engine.runtime.locked() as state:
            state.check()
        assert all("__del__" in str(error) for error in refused), refused
        print("SUBMITTED", len(refs), "REFUSED", len(refused))
        ray.shutdown()
    """)
    code, out, err = driver.finish(60)
    assert (code, err) == (0, ""), err
    assert "SUBMITTED 3000" in out
