"""Tasks that raise, crash, leave, or are cancelled: what their references say, and what goes on regardless."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

import pytest

import nbray as ray
from nbray import session
from nbray.exceptions import RayTaskError, TaskCancelledError, WorkerCrashedError
from tests.cluster.conditions import is_running, lines_of, until


def note(path, word):
    """One line, whole, whoever else writes."""
    with open(path, "a") as file:
        file.write(f"{word}\n")


# ------------------------------------------------------------------------------------------ raising


def test_an_exception_arrives_as_its_own_class_with_its_attributes():
    class Wrong(Exception):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    @ray.remote
    def fail():
        raise Wrong(42)

    with pytest.raises(Wrong) as caught:
        ray.get(fail.remote())
    assert caught.value.code == 42
    assert isinstance(caught.value, RayTaskError)
    assert "fail" in str(caught.value)
    assert "raise Wrong(42)" in str(caught.value)


def test_the_first_failure_is_raised_without_waiting_for_the_others(tmp_path):
    @ray.remote
    def after():
        while not (tmp_path / "go").exists():
            time.sleep(0.005)

    @ray.remote
    def fail():
        raise KeyError("at once")

    slow = after.remote()
    with pytest.raises(KeyError):
        ray.get([slow, fail.remote()], timeout=20)
    (tmp_path / "go").touch()
    ray.get(slow)


def test_a_dependant_of_a_failed_task_fails_with_the_same_class_and_both_names():
    @ray.remote
    def fail():
        raise ZeroDivisionError("the root")

    @ray.remote
    def depends(x):
        return x

    with pytest.raises(ZeroDivisionError) as caught:
        ray.get(depends.remote(depends.remote(fail.remote())))
    assert "depends" in str(caught.value)
    assert "the root" in str(caught.value)


def test_every_one_of_several_results_fails():
    @ray.remote(num_returns=3)
    def fail():
        raise KeyError("all")

    for ref in fail.remote():
        with pytest.raises(KeyError):
            ray.get(ref)


def test_another_number_of_results_than_promised_is_an_error_that_has_both():
    @ray.remote(num_returns=3)
    def two():
        return 1, 2

    with pytest.raises(ValueError, match=r"3.*2"):
        ray.get(two.remote())


def test_an_exception_of_a_worker_does_not_end_it():
    @ray.remote
    def pid(fail):
        if fail:
            raise KeyError
        return os.getpid()

    before = ray.get(pid.remote(False))
    for _ in range(5):
        with pytest.raises(KeyError):
            ray.get(pid.remote(True))
    assert is_running(before)


def test_a_keyboard_interrupt_that_user_code_raises_is_an_error_and_no_cancellation():
    @ray.remote
    def fail():
        raise KeyboardInterrupt("mine")

    with pytest.raises(RayTaskError) as caught:
        ray.get(fail.remote())
    assert not isinstance(caught.value, TaskCancelledError | KeyboardInterrupt)
    assert isinstance(caught.value.cause, KeyboardInterrupt)


def test_stop_iteration_and_an_exception_group_arrive_whole():
    @ray.remote
    def stop():
        raise StopIteration("over")

    @ray.remote
    def group():
        raise ExceptionGroup("several", [KeyError(1), ValueError(2)])

    with pytest.raises(StopIteration):
        ray.get(stop.remote())
    with pytest.raises(RayTaskError) as caught:
        ray.get(group.remote())
    cause = caught.value.cause if caught.value.cause is not None else caught.value
    assert [type(e) for e in cause.exceptions] == [KeyError, ValueError]


def test_an_exception_is_retried_as_often_as_asked_and_no_more(tmp_path):
    @ray.remote(max_retries=2, retry_exceptions=True)
    def fail():
        note(tmp_path / "runs", "run")
        raise KeyError("again")

    with pytest.raises(KeyError):
        ray.get(fail.remote())
    assert lines_of(tmp_path / "runs") == ["run"] * 3


def test_only_the_listed_exceptions_are_retried(tmp_path):
    @ray.remote(max_retries=5, retry_exceptions=[KeyError])
    def fail():
        note(tmp_path / "runs", "run")
        raise KeyError if len(lines_of(tmp_path / "runs")) < 3 else ValueError

    with pytest.raises(ValueError):
        ray.get(fail.remote())
    assert len(lines_of(tmp_path / "runs")) == 3


def test_a_task_that_succeeds_at_last_has_a_value(tmp_path):
    @ray.remote(max_retries=5, retry_exceptions=True)
    def third_time():
        note(tmp_path / "runs", "run")
        if len(lines_of(tmp_path / "runs")) < 3:
            raise KeyError
        return "done"

    assert ray.get(third_time.remote()) == "done"


# ------------------------------------------------------------------------------------------ crashing

CRASHES = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "exited with code 7": lambda: os._exit(7),
    "exited with code 3": lambda: sys.exit(3),
}


@pytest.mark.parametrize("how", CRASHES)
def test_a_crash_says_how_the_process_ended_and_which_it_was(how, tmp_path):
    crash = CRASHES[how]

    @ray.remote(max_retries=0)
    def doomed():
        note(tmp_path / "pids", os.getpid())
        crash()

    with pytest.raises(WorkerCrashedError) as caught:
        ray.get(doomed.remote(), timeout=30)
    [pid] = lines_of(tmp_path / "pids")
    assert how in str(caught.value)
    assert pid in str(caught.value)
    assert "doomed" in str(caught.value)
    assert "attempt 1 of 1" in str(caught.value)


def test_a_segmentation_fault_shows_the_python_stack_that_led_to_it():
    @ray.remote(max_retries=0)
    def reads_nowhere():
        ctypes.string_at(0)

    with pytest.raises(WorkerCrashedError, match="in reads_nowhere"):
        ray.get(reads_nowhere.remote(), timeout=30)


def test_a_crash_is_retried_and_the_attempts_are_counted(tmp_path):
    @ray.remote(max_retries=2)
    def doomed():
        note(tmp_path / "runs", "run")
        os._exit(9)

    with pytest.raises(WorkerCrashedError, match="attempt 3 of 3"):
        ray.get(doomed.remote(), timeout=30)
    assert lines_of(tmp_path / "runs") == ["run"] * 3


def test_a_task_that_crashes_once_has_its_value_from_the_second_attempt(tmp_path):
    @ray.remote
    def once():
        note(tmp_path / "runs", "run")
        if len(lines_of(tmp_path / "runs")) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

    assert ray.get(once.remote(), timeout=30) == "alive"
    assert len(lines_of(tmp_path / "runs")) == 2


def test_tasks_pushed_behind_one_that_crashes_run_all_the_same():
    @ray.remote(max_retries=0)
    def short(i):
        if i == 50:
            os._exit(1)
        return i

    refs = [short.remote(i) for i in range(100)]
    ready = []
    for i, ref in enumerate(refs):
        try:
            ready.append(ray.get(ref, timeout=30))
        except WorkerCrashedError:
            assert i == 50
    assert ready == [i for i in range(100) if i != 50]


def test_two_hundred_tasks_finish_though_their_workers_are_killed_again_and_again(tmp_path):
    @ray.remote(max_retries=-1)
    def work(i):
        note(tmp_path / "pids", os.getpid())
        time.sleep(0.005)
        return i

    refs = [work.remote(i) for i in range(200)]
    for _ in range(8):
        seen = len(lines_of(tmp_path / "pids"))
        until(
            lambda before=seen: len(lines_of(tmp_path / "pids")) > before or not ray.wait(refs, num_returns=200, timeout=0)[1],
            "it goes on",
        )
        try:
            os.kill(int(lines_of(tmp_path / "pids")[-1]), signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert ray.get(refs, timeout=60) == list(range(200))


def test_what_a_task_started_ends_with_its_worker(tmp_path):
    @ray.remote(max_retries=0)
    def breed():
        for _ in range(20):
            if (pid := os.fork()) == 0:
                time.sleep(1000)
            note(tmp_path / "pids", pid)
        os._exit(1)

    with pytest.raises(WorkerCrashedError):
        ray.get(breed.remote(), timeout=30)
    pids = [int(pid) for pid in lines_of(tmp_path / "pids")]
    assert len(pids) == 20
    until(lambda: not any(map(is_running, pids)), "every grandchild is gone")


# ------------------------------------------------------------------------------------------ cancelling


@ray.remote
def sleeper(path, word):
    note(path, f"{word} began")
    try:
        while True:
            time.sleep(0.01)
    finally:
        note(path, f"{word} ended")


def test_a_running_task_is_interrupted_and_cleans_up(tmp_path):
    log = tmp_path / "log"
    ref = sleeper.remote(log, "it")
    until(lambda: lines_of(log), "the task runs")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError, match="while it ran"):
        ray.get(ref, timeout=20)
    assert lines_of(log) == ["it began", "it ended"]


def test_a_task_that_has_not_begun_never_runs(tmp_path):
    log = tmp_path / "log"
    running = [sleeper.remote(log, "first"), sleeper.remote(log, "second")]
    until(lambda: len(lines_of(log)) == 2, "both CPUs are taken")
    queued = sleeper.remote(log, "third")
    ray.cancel(queued)
    with pytest.raises(TaskCancelledError, match="before it began"):
        ray.get(queued, timeout=20)
    for ref in running:
        ray.cancel(ref)
    ray.wait(running, num_returns=2)
    assert not any(line.startswith("third") for line in lines_of(log))


def test_a_task_that_waits_for_its_arguments_is_cancelled_and_they_are_not(tmp_path):
    @ray.remote
    def after():
        while not (tmp_path / "go").exists():
            time.sleep(0.005)
        return 1

    @ray.remote
    def depends(x):
        return x

    argument = after.remote()
    ref = depends.remote(argument)
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=20)
    (tmp_path / "go").touch()
    assert ray.get(argument) == 1


def test_dependants_of_a_cancelled_task_fail(tmp_path):
    @ray.remote
    def depends(x):
        return x

    ref = sleeper.remote(tmp_path / "log", "it")
    dependant = depends.remote(ref)
    ray.cancel(ref)
    with pytest.raises(RayTaskError, match="cancelled"):
        ray.get(dependant, timeout=20)


def test_cancelling_what_has_finished_changes_nothing():
    @ray.remote
    def one():
        return 1

    ref = one.remote()
    assert ray.get(ref) == 1
    ray.cancel(ref)
    ray.cancel(ref, force=True)
    assert ray.get(ref) == 1


def test_cancelling_by_force_kills_a_task_that_does_not_listen(tmp_path):
    @ray.remote
    def deaf():
        note(tmp_path / "pid", os.getpid())
        while True:
            try:
                while True:
                    time.sleep(0.01)
            except KeyboardInterrupt:
                note(tmp_path / "heard", "so what")

    ref = deaf.remote()
    [pid] = until(lambda: lines_of(tmp_path / "pid"), "the task runs")
    ray.cancel(ref)
    until(lambda: lines_of(tmp_path / "heard"), "the task was interrupted and went on")
    ray.cancel(ref, force=True)
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):
        ray.get(ref, timeout=20)
    until(lambda: not is_running(int(pid)), "its worker is gone")
    assert len(lines_of(tmp_path / "pid")) == 1


def test_a_task_that_catches_its_interrupt_may_return_a_value(tmp_path):
    @ray.remote
    def stubborn():
        note(tmp_path / "log", "began")
        try:
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            return "what I have"

    ref = stubborn.remote()
    until(lambda: lines_of(tmp_path / "log"), "the task runs")
    ray.cancel(ref)
    assert ray.get(ref, timeout=20) == "what I have"


def test_cancelling_a_parent_cancels_its_children_and_their_children(tmp_path):
    log = tmp_path / "log"

    @ray.remote
    def parent(depth):
        note(log, f"parent {depth} began")
        return ray.get(parent.remote(depth - 1) if depth else sleeper.remote(log, "leaf"))

    ref = parent.remote(2)
    until(lambda: "leaf began" in lines_of(log), "the leaf runs")
    ray.cancel(ref, recursive=True)
    with pytest.raises((TaskCancelledError, RayTaskError)):
        ray.get(ref, timeout=20)
    until(lambda: "leaf ended" in lines_of(log), "the leaf was interrupted")


def test_without_recursion_the_children_go_on(tmp_path):
    log = tmp_path / "log"

    @ray.remote
    def child():
        note(log, "child began")
        while not (tmp_path / "go").exists():
            time.sleep(0.005)
        note(log, "child done")

    @ray.remote
    def parent():
        ray.get(child.remote())

    ref = parent.remote()
    until(lambda: lines_of(log), "the child runs")
    ray.cancel(ref, recursive=False)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=20)
    (tmp_path / "go").touch()
    until(lambda: "child done" in lines_of(log), "the child finished")


def test_a_borrower_can_cancel_a_task_of_another_process(tmp_path):
    log = tmp_path / "log"

    @ray.remote
    def stop(refs):
        ray.cancel(refs[0])

    ref = sleeper.remote(log, "it")
    until(lambda: lines_of(log), "the task runs")
    ray.get(stop.remote([ref]))
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=20)


def test_a_task_cancelled_while_its_argument_is_loaded_does_not_run(tmp_path):
    class Slow:
        def __reduce__(self):
            return load_slowly, (str(tmp_path),)

    def load_slowly(folder):
        note(f"{folder}/log", "loading")
        while not os.path.exists(f"{folder}/go"):
            time.sleep(0.005)
        return "loaded"

    @ray.remote
    def run(argument):
        note(tmp_path / "log", "running")

    ref = run.remote(Slow())
    until(lambda: lines_of(tmp_path / "log"), "the argument is being loaded")
    ray.cancel(ref)

    @ray.remote
    def busy(i):
        return i

    # The order is under way to a worker that cannot answer yet; a hundred tasks on its neighbour are time enough for it to arrive.
    ray.get([busy.remote(i) for i in range(100)])
    (tmp_path / "go").touch()
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=20)
    assert "running" not in lines_of(tmp_path / "log")


def test_a_thousand_tasks_that_are_cancelled_at_once_are_all_over():
    @ray.remote
    def forever():
        while True:
            time.sleep(0.01)

    refs = [forever.remote() for _ in range(1000)]
    for ref in refs:
        ray.cancel(ref)
    outcomes = set()
    for ref in refs:
        try:
            ray.get(ref, timeout=30)
        except Exception as error:
            outcomes.add(type(error))
    assert outcomes == {TaskCancelledError}


def test_tasks_cancelled_in_the_moment_they_begin_are_cancelled():
    """Between the order to run and the first line of the task there is a moment in which nothing can be interrupted yet."""

    @ray.remote
    def forever():
        while True:
            time.sleep(0.01)

    @ray.remote
    def nothing():
        return None

    ray.get([nothing.remote() for _ in range(20)])
    for _ in range(60):
        ref = forever.remote()
        until(lambda task=ref: session.engine.facts_of(task).get("task_state") == "PUSHED", "the task is on its way")
        ray.cancel(ref)
        with pytest.raises(TaskCancelledError):
            ray.get(ref, timeout=20)


def test_other_tasks_are_untouched_by_a_cancellation(tmp_path):
    @ray.remote
    def count():
        total = 0
        for _ in range(200):
            time.sleep(0.001)
            total += 1
        return total

    log = tmp_path / "log"
    ref, other = sleeper.remote(log, "it"), count.remote()
    until(lambda: lines_of(log), "the task runs")
    ray.cancel(ref)
    assert ray.get(other) == 200
