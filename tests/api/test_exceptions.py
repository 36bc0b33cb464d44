from __future__ import annotations

import copy
import copyreg
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest
from tblib import pickling_support

import nbray
from nbray import exceptions
from nbray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from nbray.wire.failures import error_of, failure_of

EVERY = sorted(
    (
        c
        for _, c in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(c, RayError) and c.__module__ == exceptions.__name__
    ),
    key=lambda c: c.__name__,
)
RAYS = [
    "RayError",
    "RayTaskError",
    "RayActorError",
    "GetTimeoutError",
    "TaskCancelledError",
    "WorkerCrashedError",
    "ActorDiedError",
    "ActorUnavailableError",
    "ObjectLostError",
    "OwnerDiedError",
    "ObjectReconstructionFailedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ReferenceCountingAssertionError",
    "OutOfMemoryError",
    "ObjectStoreFullError",
    "RuntimeEnvSetupError",
    "PendingCallsLimitExceeded",
    "AsyncioActorExit",
    "UnserializableException",
    "RaySystemError",
    "OutOfDiskError",
    "NodeDiedError",
    "LocalRayletDiedError",
    "TaskUnschedulableError",
    "ActorUnschedulableError",
    "TaskPlacementGroupRemoved",
    "ActorPlacementGroupRemoved",
    "ActorAlreadyExistsError",
    "ActorHandleNotFoundError",
    "PlasmaObjectNotAvailable",
    "ObjectRefStreamEndOfStreamError",
    "StreamingGeneratorReplayInconsistentError",
    "CrossLanguageError",
    "UserCodeException",
    "RpcError",
    "AuthenticationError",
    "OufOfBandObjectRefSerializationException",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayCgraphCapacityExceeded",
    "RayDirectTransportError",
]


@pytest.mark.parametrize("name", RAYS)
def test_every_error_of_ray_has_its_name_here(name: str) -> None:
    assert issubclass(getattr(nbray.exceptions, name), RayError)


@pytest.mark.parametrize("cls", EVERY, ids=lambda c: c.__name__)
def test_every_error_is_drawn_in_the_tree(cls: type) -> None:
    assert exceptions.__doc__ is not None
    assert cls.__name__ in exceptions.__doc__


@pytest.mark.parametrize("cls", [c for c in EVERY if c is not RayTaskError], ids=lambda c: c.__name__)
def test_every_error_keeps_its_facts_through_pickle(cls: type[RayError]) -> None:
    error = cls("it broke", node="b71e", pid=4121)
    error.add_note("seen on a Monday")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (again.message, again.node, again.pid, str(again), again.__notes__) == (
        "it broke",
        "b71e",
        4121,
        str(error),
        ["seen on a Monday"],
    )


@pytest.mark.parametrize("cls", [c for c in EVERY if c is not RayTaskError], ids=lambda c: c.__name__)
def test_an_error_without_a_message_says_what_its_class_means(cls: type[RayError]) -> None:
    assert len(str(cls())) > 10


def test_bases_are_those_that_except_clauses_name() -> None:
    assert issubclass(GetTimeoutError, TimeoutError)
    assert issubclass(ActorDiedError, RayActorError)
    assert issubclass(exceptions.ActorAlreadyExistsError, ValueError)
    assert issubclass(exceptions.ActorHandleNotFoundError, ValueError)
    assert issubclass(exceptions.ReferenceCountingAssertionError, AssertionError)
    assert issubclass(exceptions.ResultSerializationError, TypeError)
    assert issubclass(exceptions.StaleRefError, exceptions.ObjectLostError)


def test_log_tail_and_hint_follow_the_message() -> None:
    error = WorkerCrashedError("killed by SIGKILL", log_tail="loading...\n", log_path="w.log", hint="Ask for memory.")
    assert str(error) == "killed by SIGKILL\nLast output (w.log):\nloading...\nAsk for memory."


class Custom(ValueError):
    def __init__(self, value: int, *, unit: str) -> None:
        super().__init__(f"{value} {unit}")
        self.value, self.unit = value, unit

    def __reduce__(self) -> object:
        return _custom, (self.value, self.unit)

    def doubled(self) -> int:
        return self.value * 2


def _custom(value: int, unit: str) -> Custom:
    return Custom(value, unit=unit)


def task_error(cause: BaseException) -> RayTaskError:
    return RayTaskError("f", "nbray::f() (pid=1, ip=x)\nthe story", cause, pid=1, ip="x", node="b71e").as_instanceof_cause()


def test_a_task_error_is_both_classes_with_the_attributes_of_the_users() -> None:
    error = task_error(Custom(3, unit="m"))
    assert isinstance(error, RayTaskError)
    assert isinstance(error, Custom)
    assert (error.value, error.unit, error.doubled(), error.args) == (3, "m", 6, ("3 m",))
    assert (error.pid, error.function_name, error.node) == (1, "f", "b71e")
    assert "RayTaskError(Custom)" in repr(error)
    assert str(error).endswith("the story")


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(cloudpickle.dumps(e)), lambda e: e.with_traceback(None)])
def test_a_dual_error_survives_copies_and_pickle(again: object) -> None:
    error = again(task_error(Custom(3, unit="m")))
    assert isinstance(error, Custom)
    assert isinstance(error, RayTaskError)
    assert (error.value, error.cause.unit, type(error).__name__) == (3, "m", "RayTaskError(Custom)")


@pytest.mark.parametrize(
    ("cause", "attribute", "value"),
    [
        (FileNotFoundError(2, "No such file", "x.csv"), "errno", 2),
        (FileNotFoundError(2, "No such file", "x.csv"), "filename", "x.csv"),
        (UnicodeDecodeError("utf8", b"\xff", 0, 1, "bad"), "reason", "bad"),
        (StopIteration(7), "value", 7),
        (KeyError("k"), "args", ("k",)),
        (ImportError("no", name="pandas"), "name", "pandas"),
    ],
)
def test_attributes_that_live_outside_of_the_instance_dict_are_carried(cause: Exception, attribute: str, value: object) -> None:
    assert getattr(task_error(cause), attribute) == value
    assert getattr(pickle.loads(pickle.dumps(task_error(cause))), attribute) == value


@pytest.fixture
def tblib() -> Iterator[None]:
    """Its reducers are registered for every exception class, as they are after `import dask.distributed`."""
    before = copyreg.dispatch_table.copy()
    pickling_support.install()
    yield
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(before)


@pytest.mark.parametrize(
    ("cause", "attribute", "value"),
    [(StopIteration(7), "value", 7), (ImportError("no", name="pandas"), "name", "pandas"), (ValueError("x"), "args", ("x",))],
)
@pytest.mark.usefixtures("tblib")
def test_what_tblib_registers_for_exceptions_loses_no_attribute(cause: Exception, attribute: str, value: object) -> None:
    failure = failure_of(cause, name="f", pid=1, node=b"n" * 8, task=b"t" * 16, attempt=0)
    for error in (task_error(cause), error_of(failure)):
        for again in (pickle.loads(pickle.dumps(error)), pickle.loads(cloudpickle.dumps(error)), copy.copy(error)):
            assert isinstance(again, RayTaskError)
            assert getattr(again, attribute) == value
            assert type(again.cause) is type(cause)
            assert getattr(again.cause, attribute) == value


def test_a_class_with_slots_and_a_constructor_of_its_own_is_not_constructed_again() -> None:
    made = []

    class Slotted(Exception):
        __slots__ = ("code",)

        def __new__(cls, code: int) -> Any:
            made.append(code)
            return super().__new__(cls, code)

        def __init__(self, code: int) -> None:
            self.code = code

    error = task_error(Slotted(5))
    assert (error.code, made) == (5, [5])


def test_groups_can_be_split_by_except_star() -> None:
    error = task_error(ExceptionGroup("several", [ValueError(1), KeyError("k")]))
    assert isinstance(error, ExceptionGroup)
    assert [type(e) for e in error.exceptions] == [ValueError, KeyError]
    caught = []
    try:
        raise error
    except* ValueError as group:
        caught.append(group)
    except* KeyError:
        pass
    assert [str(e) for e in caught[0].exceptions] == ["1"]


def test_a_class_that_refuses_subclasses_gives_a_plain_task_error_and_a_warning() -> None:
    class Final(Exception):
        def __init_subclass__(cls) -> None:
            raise TypeError("Final is final")

    with pytest.warns(RuntimeWarning, match="Final is final"):
        error = task_error(Final(1))
    assert type(error) is RayTaskError
    assert isinstance(error.cause, Final)


def test_a_base_exception_of_the_user_is_caught_by_its_class() -> None:
    class Stop(BaseException):
        pass

    with pytest.raises(Stop):
        raise task_error(Stop("enough"))


@pytest.mark.parametrize("cause", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_or_interrupt_the_driver_stays_inside_the_error(cause: BaseException) -> None:
    error = task_error(cause)
    assert type(error) is RayTaskError
    assert error.cause is cause


def test_a_hostile_repr_does_not_break_the_error() -> None:
    class Hostile(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("no repr today")

    assert "repr raised RuntimeError" in repr(task_error(Hostile()))


def test_ipython_shows_the_remote_story_first_and_then_the_line_that_asked() -> None:
    try:
        raise task_error(ValueError(1))
    except RayTaskError as error:
        shown = error._render_traceback_()
    assert shown[:2] == ["nbray::f() (pid=1, ip=x)", "the story"]
    assert shown.index("asked for here:") == 3
    assert "raise task_error(ValueError(1))" in "\n".join(shown[4:])


def test_cancelled_names_its_task() -> None:
    assert pickle.loads(pickle.dumps(TaskCancelledError("cancelled", task_id="3f2a"))).task_id == "3f2a"
