"""How tasks end that are cancelled or raise: what runs, what is told, what becomes of those that wait for them."""

import os
import re
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.subject import ray

ON_NODES_TOO = True

RayTaskError, TaskCancelledError = ray.exceptions.RayTaskError, ray.exceptions.TaskCancelledError
WorkerCrashedError = ray.exceptions.WorkerCrashedError
PREFIX = ray.__name__


def eventually(condition, timeout=30):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def doze():
    """For a minute, in short naps: Ray interrupts between two lines, and not in the middle of a long sleep."""
    for _ in range(6000):
        time.sleep(0.01)


@ray.remote
def sleep(path, log=None):
    """Makes the file `path`, and writes a dot to `log` for each run."""
    if log is not None:
        with open(log, "a") as file:
            file.write(".")
    open(path, "w").close()
    doze()


@ray.remote
def fine():
    return "fine"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "began"


# ------------------------------------------------------------------------------------------ cancel


def test_2500_tasks_submitted_and_cancelled_at_once_are_all_cancelled():
    @ray.remote
    def never():
        doze()

    def submit_and_cancel(_i):
        ref = never.remote()
        ray.cancel(ref)
        return ref

    with ThreadPoolExecutor(20) as threads:
        refs = list(threads.map(submit_and_cancel, range(2500)))
    for ref in refs:
        with pytest.raises(TaskCancelledError):
            ray.get(ref, timeout=60)
    assert ray.get(fine.remote(), timeout=60) == "fine"


def test_a_cancelled_task_is_not_retried(path, tmp_path):
    log = tmp_path / "log"
    ref = sleep.options(max_retries=5, retry_exceptions=True).remote(str(path), str(log))
    eventually(path.exists)
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError, match=ref.task_id().hex()):
        ray.get(ref, timeout=30)
    assert ray.get(fine.remote(), timeout=30) == "fine"
    assert log.read_text() == "."


def test_a_task_that_is_killed_by_a_forced_cancel_is_not_retried(path, tmp_path):
    log = tmp_path / "log"
    ref = sleep.options(max_retries=5).remote(str(path), str(log))
    eventually(path.exists)
    ray.cancel(ref, force=True)
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):
        ray.get(ref, timeout=30)
    assert ray.get(fine.remote(), timeout=30) == "fine"
    assert log.read_text() == "."


def test_a_cancelled_task_that_raises_something_else_instead_is_its_error(path):
    @ray.remote
    def replaces(path):
        open(path, "w").close()
        try:
            doze()
        except KeyboardInterrupt:
            raise ValueError("instead") from None

    ref = replaces.remote(str(path))
    eventually(path.exists)
    ray.cancel(ref)
    with pytest.raises((ValueError, TaskCancelledError)):
        ray.get(ref, timeout=30)


@pytest.mark.parametrize("force", [False, True])
def test_cancelling_a_finished_task_changes_nothing(force):
    ref = fine.remote()
    assert ray.get(ref, timeout=30) == "fine"
    ray.cancel(ref, force=force)
    assert ray.get(ref, timeout=30) == "fine"


@pytest.mark.parametrize("force", [False, True])
def test_cancelling_one_task_leaves_the_others_alone(path, tmp_path, force):
    @ray.remote
    def finish(path, go):
        open(path, "w").close()
        while not os.path.exists(go):
            time.sleep(0.01)
        return "finished"

    beside, go = tmp_path / "beside", tmp_path / "go"
    other = finish.remote(str(beside), str(go))
    ref = sleep.remote(str(path))
    behind = [fine.remote() for _ in range(5)]
    eventually(lambda: path.exists() and beside.exists())
    ray.cancel(ref, force=force)
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):
        ray.get(ref, timeout=30)
    go.touch()
    assert ray.get([other, *behind], timeout=30) == ["finished"] + ["fine"] * 5


@pytest.mark.parametrize(
    "force", [False, pytest.param(True, marks=pytest.mark.skipif(PREFIX == "ray", reason="Ray's driver ends by it"))]
)
def test_a_task_that_waits_for_its_arguments_is_cancelled_at_once(path, force):
    @ray.remote
    def after(_x):
        return "ran"

    first = sleep.remote(str(path))
    second = after.remote(first)
    third = after.remote(second)
    ray.cancel(second, force=force)
    for ref in (second, third):
        with pytest.raises((TaskCancelledError, RayTaskError)):
            ray.get(ref, timeout=30)
    ray.cancel(first, force=True)


def test_a_task_that_waits_in_get_is_interrupted_there(path):
    @ray.remote(num_cpus=0)
    def waits(path, refs):
        open(path, "w").close()
        try:
            ray.get(refs[0])
        except KeyboardInterrupt:
            return "interrupted"

    inner = sleep.remote(str(path) + "-inner")
    ref = waits.remote(str(path), [inner])
    eventually(path.exists)
    ray.cancel(ref)
    try:
        assert ray.get(ref, timeout=30) == "interrupted"
    except TaskCancelledError:
        assert PREFIX == "ray", "Ray raises it inside"
    ray.cancel(inner, force=True)


@pytest.mark.parametrize("recursive", [True, False])
def test_children_are_cancelled_if_asked_for(tmp_path, recursive):
    @ray.remote
    def child(path):
        open(path, "w").close()
        while not os.path.exists(path + "-go"):
            time.sleep(0.01)
        open(path + "-done", "w").close()

    @ray.remote(num_cpus=0)
    def parent(path):
        ref = child.remote(path)
        ray.get(ref)

    path = str(tmp_path / "child")
    ref = parent.remote(path)
    eventually(lambda: os.path.exists(path))
    eventually(lambda: ray.available_resources().get("CPU") == 1)
    ray.cancel(ref, recursive=recursive)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
    if recursive:
        eventually(lambda: ray.available_resources().get("CPU") == 2)  # the child has ended
        open(path + "-go", "w").close()
        assert ray.get(fine.remote(), timeout=30) == "fine"
        assert not os.path.exists(path + "-done")
    else:
        open(path + "-go", "w").close()
        eventually(lambda: os.path.exists(path + "-done"))


def test_a_cancelled_task_frees_its_cpus(path):
    ref = sleep.options(num_cpus=2).remote(str(path))
    eventually(path.exists)
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
    assert ray.get(fine.options(num_cpus=2).remote(), timeout=30) == "fine"


def test_only_references_can_be_cancelled():
    with pytest.raises(TypeError, match=r"cancel\(\) only supported for object refs"):
        ray.cancel("a string")


# ------------------------------------------------------------------------------------------ errors


class Final(type):
    def __new__(cls, name, bases, namespace):
        if any(isinstance(base, Final) for base in bases):
            raise TypeError("it is final")
        return super().__new__(cls, name, bases, namespace)


def test_a_class_that_refuses_to_be_derived_from_leaves_the_plain_task_error():
    @ray.remote
    def f():
        class Refuses(Exception, metaclass=Final):
            pass

        raise Refuses("mine")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RayTaskError) as raised:
            ray.get(f.remote(), timeout=30)
    assert "mine" in str(raised.value)
    assert type(raised.value.cause).__name__ == "Refuses"


def test_exceptions_keep_their_attributes_through_two_tasks():
    class Coded(Exception):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    @ray.remote
    def inner():
        raise Coded(41)

    @ray.remote
    def outer(ref):
        try:
            ray.get(ref[0])
        except Coded as error:
            raise Coded(error.code + 1) from error

    with pytest.raises(Coded) as raised:
        ray.get(outer.remote([inner.remote()]), timeout=30)
    assert raised.value.code == 42
    assert isinstance(raised.value, RayTaskError)
    assert raised.value.cause.code == 42


def test_a_group_inside_a_group_arrives_whole():
    @ray.remote
    def f():
        raise ExceptionGroup("outer", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])])

    with pytest.raises(ExceptionGroup) as raised:
        ray.get(f.remote(), timeout=30)
    one, inner = raised.value.exceptions
    assert (type(one), type(inner.exceptions[0])) == (ValueError, KeyError)
    caught = []
    try:
        ray.get(f.remote(), timeout=30)
    except* KeyError as group:
        caught.append(group)
    except* ValueError:
        pass
    assert caught


def test_the_traceback_names_the_task_its_process_and_the_users_frames():
    @ray.remote
    def named():
        raise ValueError("told")

    with pytest.raises(ValueError, match="told") as raised:
        ray.get(named.remote(), timeout=30)
    text = re.sub(r"\x1b\[\d+m", "", str(raised.value))  # Ray colours it
    assert re.search(rf"^{PREFIX}::named\(\) \(pid=\d+, ip=", text)
    assert "in named" in text
    assert text.rstrip().endswith("ValueError: told")


def test_a_dependant_tells_of_the_argument_that_failed_and_never_runs(tmp_path):
    @ray.remote
    def fail():
        raise ValueError("first")

    @ray.remote
    def after(_x):
        (tmp_path / "ran").touch()

    with pytest.raises(ValueError, match="At least one of the input arguments for this task could not be computed:") as raised:
        ray.get(after.remote(after.remote(fail.remote())), timeout=30)
    assert "first" in str(raised.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("exits", ["os._exit", "sys.exit", "kill"])
def test_a_task_whose_process_ends_is_a_crash_after_its_retries(tmp_path, exits):
    log = tmp_path / "log"

    @ray.remote(max_retries=1)
    def crash():
        import signal
        import sys

        with open(log, "a") as file:
            file.write(".")
        if exits == "os._exit":
            os._exit(1)
        if exits == "sys.exit":
            sys.exit(1)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerCrashedError):
        ray.get(crash.remote(), timeout=60)
    assert log.read_text() == ".."


def test_crashes_and_exceptions_use_up_the_same_retries(tmp_path):
    log = tmp_path / "log"

    @ray.remote(max_retries=3, retry_exceptions=True)
    def both():
        with open(log, "a") as file:
            file.write(".")
        if log.read_text() == "..":
            os._exit(1)
        raise ValueError("again")

    with pytest.raises(ValueError, match="again"):
        ray.get(both.remote(), timeout=60)
    assert log.read_text() == "...."


def test_what_does_not_pickle_is_a_type_error_that_says_what_it_was_for():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="Could not serialize the put value"):
        ray.put(lock)
    with pytest.raises(TypeError, match=r"Could not serialize the argument .+ for a task or actor"):
        ray.remote(lambda x: x).remote(lock)
    with pytest.raises(TypeError, match="Could not serialize the function"):
        ray.remote(lambda: lock).remote()
    with pytest.raises(TypeError, match="Could not serialize the actor class"):

        @ray.remote
        class B:
            mine = lock

        B.remote()
