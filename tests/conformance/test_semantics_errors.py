"""What Ray's own tests pin down about errors: classes, texts, dependants, exits."""

import os
import sys
import threading

import pytest

from tests.conformance.subject import ray

ON_NODES_TOO = True


def test_an_error_is_both_the_users_class_and_a_task_error():
    class Custom(Exception):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    @ray.remote
    def f():
        raise Custom(7)

    with pytest.raises(Custom) as caught:
        ray.get(f.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert caught.value.code == 7
    assert "RayTaskError(Custom)" in repr(caught.value)


@pytest.mark.differs("text-of-tracebacks")
def test_the_text_has_the_users_frames_only_and_says_where():
    @ray.remote
    def f():
        return helper()

    def helper():
        return 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        ray.get(f.remote())
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("nbray::f() (pid=")
    assert [line.split(", in ")[1] for line in lines if line.startswith("  File")] == ["f", "helper"]
    assert lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.differs("text-of-tracebacks")
def test_an_error_through_two_tasks_tells_both():
    @ray.remote
    def bar():
        return 1 / 0

    @ray.remote
    def foo():
        return ray.get(bar.remote())

    with pytest.raises(ZeroDivisionError) as caught:
        ray.get(foo.remote())
    assert str(caught.value).startswith("nbray::foo()")
    assert "nbray.exceptions.RayTaskError(ZeroDivisionError): nbray::bar()" in str(caught.value)


@pytest.mark.differs("text-of-tracebacks")
def test_a_dependant_of_a_failed_task_fails_with_its_cause():
    @ray.remote
    def bar():
        raise KeyError("k")

    ran = ray.put([])

    @ray.remote
    def foo(x, y):
        return "ran"

    for ref in (foo.remote(bar.remote(), ran), foo.remote(1, y=bar.remote())):
        with pytest.raises(KeyError) as caught:
            ray.get(ref)
        assert str(caught.value).startswith("nbray::foo()")
        assert "At least one of the input arguments for this task could not be computed:" in str(caught.value)


@pytest.mark.differs("error-with-its-process")
def test_an_actors_error_names_the_actor_and_leaves_it_alive():
    @ray.remote
    class A:
        def __repr__(self):
            return "A(me)"

        def fail(self):
            raise ValueError("no")

        def work(self):
            return "fine"

    a = A.remote()
    with pytest.raises(ValueError, match="no") as caught:
        ray.get(a.fail.remote())
    assert f"nbray::A.fail() (pid={caught.value.pid}, ip=127.0.0.1, actor_id={a._actor_id.hex()}, repr=A(me))" in str(caught.value)
    assert ray.get(a.work.remote()) == "fine"


def test_an_error_in_init_is_told_at_every_call():
    @ray.remote
    class A:
        def __init__(self):
            raise ValueError("not today")

        def f(self):
            return 1

    a = A.remote()
    for _ in range(2):
        with pytest.raises(ray.exceptions.RayActorError, match="The actor died because of an error raised in its creation task") as caught:
            ray.get(a.f.remote(), timeout=20)
        assert "not today" in str(caught.value)
        assert "A.__init__" in str(caught.value)


def test_one_failing_reference_raises_without_waiting_for_the_others():
    @ray.remote
    def slow():
        threading.Event().wait(30)

    @ray.remote
    def fails():
        raise ValueError("first")

    waiting = slow.remote()
    with pytest.raises(ValueError, match="first"):
        ray.get([waiting, fails.remote()], timeout=20)
    ray.cancel(waiting, force=True)


def test_an_error_that_does_not_pickle_says_so():
    @ray.remote
    def f():
        raise ValueError("with a lock", threading.Lock())

    with pytest.raises(ray.exceptions.RayTaskError, match="with a lock") as caught:
        ray.get(f.remote())
    assert isinstance(caught.value.cause, ray.exceptions.RayError)
    assert "isn't serializable" in str(caught.value.cause)


def test_an_error_that_does_not_load_keeps_its_text():
    class TwoArguments(Exception):
        def __new__(cls, one, two):
            return super().__new__(cls, one)

        def __init__(self, one, two):
            super().__init__(one)

    @ray.remote
    def f():
        raise TwoArguments("the text", 2)

    with pytest.raises(ray.exceptions.UnserializableException, match="the text"):
        ray.get(f.remote())


def test_groups_and_base_exceptions_arrive():
    @ray.remote
    def group():
        raise ExceptionGroup("several", [ValueError(1), KeyError(2)])

    class Base(BaseException):
        pass

    @ray.remote
    def base():
        raise Base("enough")

    with pytest.raises(ExceptionGroup) as caught:
        ray.get(group.remote())
    assert len(caught.value.exceptions) == 2
    with pytest.raises(Base):
        ray.get(base.remote())


@pytest.mark.differs("path-to-what-does-not-pickle")
def test_a_result_that_does_not_pickle_is_a_type_error_with_the_path():
    @ray.remote
    def f():
        return {"a": [threading.Lock()]}

    with pytest.raises(TypeError, match=r"\['a'\]\[0\]") as caught:
        ray.get(f.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)

    @ray.remote
    def g():
        return 1

    assert ray.get(g.remote()) == 1


@pytest.mark.differs("path-to-what-does-not-pickle")
def test_an_argument_that_does_not_pickle_is_an_error_in_the_calling_line():
    @ray.remote
    def f(x, y):
        return 1

    class Config:
        def __init__(self):
            self._lock = threading.Lock()

    with pytest.raises(TypeError, match=r"Could not serialize the argument args\[1\]\._lock for a task or actor .*f: it does not pickle"):
        f.remote(1, Config())
    with pytest.raises(TypeError, match="Could not serialize the put value"):
        ray.put(threading.Lock())


def test_a_result_that_fails_to_load_here_says_so_and_can_be_asked_for_again():
    class Evil:
        def __reduce__(self):
            return explode, ()

    def explode():
        if "PYTEST_CURRENT_TEST" in os.environ:
            raise RuntimeError("not in this process")

    @ray.remote
    def f():
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        return Evil()

    ref = f.remote()
    for _ in range(2):
        with pytest.raises(ray.exceptions.RayError, match="not in this process"):
            ray.get(ref)


def test_the_wrong_number_of_returns_is_a_value_error():
    @ray.remote(num_returns=3)
    def f():
        return 1, 2

    with pytest.raises(ValueError, match="3"):
        ray.get(f.remote())


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_in_a_task_is_an_error_of_the_task_and_no_exit_of_ours(code):
    @ray.remote(max_retries=0)
    def f():
        sys.exit(code)

    with pytest.raises(ray.exceptions.RayError) as caught:
        ray.get(f.remote(), timeout=20)
    assert not isinstance(caught.value, SystemExit)


@pytest.mark.differs("exit-code-of-a-crash")
def test_a_worker_that_ends_itself_is_a_crash_that_names_the_code():
    @ray.remote(max_retries=0)
    def f():
        os._exit(17)

    with pytest.raises(ray.exceptions.WorkerCrashedError, match="17"):
        ray.get(f.remote(), timeout=20)


def test_an_actor_that_ends_itself_fails_its_calls():
    @ray.remote
    class A:
        def leave(self):
            os._exit(1)

        def f(self):
            return 1

    a = A.remote()
    assert ray.get(a.f.remote()) == 1
    with pytest.raises(ray.exceptions.RayActorError, match="its worker process has died"):
        ray.get(a.leave.remote(), timeout=20)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(a.f.remote(), timeout=20)


def test_a_timeout_is_rays_and_pythons():
    @ray.remote
    def f():
        threading.Event().wait(30)

    ref = f.remote()
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(ref, timeout=0.05)
    with pytest.raises(TimeoutError):
        ray.get(ref, timeout=0)
    ray.cancel(ref, force=True)
