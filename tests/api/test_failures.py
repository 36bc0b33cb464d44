from __future__ import annotations

import threading
from typing import Any, Self

import msgspec
import pytest

from nbray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    RayError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
    UnserializableException,
    WorkerCrashedError,
)
from nbray.wire.failures import DEPENDENCY_FAILED, TEXT_LIMIT, dependency_failure, error_of, failure_of, system_failure
from nbray.wire.messages import Failure

WHERE: dict[str, Any] = {
    "name": "f",
    "pid": 41,
    "node": bytes.fromhex("b71e000000000000"),
    "task": b"\x3f\x2a" + b"\0" * 13 + b"\x07",
    "attempt": 1,
}
HEADER = "nbray::f() (pid=41, ip=127.0.0.1) [task 3f2a#7, attempt 2, node b71e]"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def through_the_wire(error: BaseException) -> BaseException:
    failure = failure_of(raised(error), **WHERE)
    return error_of(msgspec.msgpack.decode(msgspec.msgpack.encode(failure), type=Failure))


def test_the_text_is_one_line_that_says_where_and_then_the_users_frames() -> None:
    lines = str(through_the_wire(ZeroDivisionError("division by zero"))).split("\n")
    assert lines[0] == HEADER
    assert lines[1].startswith(f'  File "{__file__}"')
    assert "raise error" in lines[2]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "Traceback" not in "\n".join(lines)


def test_an_actors_header_has_its_id_and_its_repr() -> None:
    failure = failure_of(raised(ValueError(1)), **{**WHERE, "name": "A.f"}, actor_repr="A(3)", actor_id="ab12")
    assert failure.traceback.startswith("nbray::A.f() (pid=41, ip=127.0.0.1, actor_id=ab12, repr=A(3)) [task")
    error = error_of(failure)
    assert isinstance(error, RayTaskError)
    assert (error.actor_id, error.actor_repr) == ("ab12", "A(3)")


def test_frames_of_nbray_itself_are_cut() -> None:
    with pytest.raises(AttributeError) as caught:
        error_of("no failure")  # type: ignore[arg-type]
    assert "nbray/wire/failures.py" not in failure_of(caught.value, **WHERE).traceback


def test_the_facts_are_attributes() -> None:
    error = through_the_wire(ValueError(1))
    assert isinstance(error, RayTaskError)
    assert (error.function_name, error.pid, error.ip, error.attempt, error.node) == ("f", 41, "127.0.0.1", 1, "b71e000000000000")


def test_a_cause_chain_is_told_with_the_header_in_place_of_pythons() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as outer:
        text = failure_of(outer, **WHERE).traceback
    assert text.count(HEADER) == 2
    assert (
        text.index("KeyError: 'inner'") < text.index("The above exception was the direct cause") < text.index("ValueError: outer")
    )


def test_an_error_got_from_another_task_keeps_both_stories_and_the_users_class() -> None:
    inner = through_the_wire(ZeroDivisionError("x"))
    outer = error_of(failure_of(raised(inner), **{**WHERE, "name": "g"}))
    assert isinstance(outer, ZeroDivisionError)
    assert isinstance(outer, RayTaskError)
    assert str(outer).startswith("nbray::g()")
    assert "nbray.exceptions.RayTaskError(ZeroDivisionError): nbray::f()" in str(outer)


def test_an_exception_that_does_not_pickle_says_so_and_keeps_its_text() -> None:
    error = through_the_wire(ValueError("bad lock", threading.Lock()))
    assert type(error) is RayTaskError
    assert isinstance(error.cause, RayError)
    assert "isn't serializable" in str(error.cause)
    assert "bad lock" in str(error)


class TwoArguments(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def test_an_exception_with_more_arguments_than_it_passes_on_arrives_as_itself() -> None:
    error = through_the_wire(TwoArguments(1, "the disk is on fire"))
    assert isinstance(error, TwoArguments)
    assert (error.code, error.args) == (1, ("the disk is on fire",))


class Unmakeable(Exception):
    def __new__(cls, *args: object) -> Self:
        if len(args) < 2:
            raise TypeError("two arguments are needed")
        return super().__new__(cls, *args)

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


def test_an_exception_that_does_not_load_again_is_an_unserializable_one_with_the_original_text() -> None:
    error = through_the_wire(Unmakeable(1, "the disk is on fire"))
    assert isinstance(error, UnserializableException)
    assert isinstance(error, RayTaskError)
    assert "the disk is on fire" in str(error)
    assert "the disk is on fire" in str(error.cause)


def test_a_pickle_that_does_not_load_in_this_process_keeps_the_original_text() -> None:
    failure = Failure("RayTaskError", "pkg.Gone", "lost", "nbray::f()\npkg.Gone: lost", b"cno_such_module\nGone\n.", {"name": "f"})
    error = error_of(failure)
    assert isinstance(error, UnserializableException)
    assert "pkg.Gone: lost" in str(error)
    assert "no_such_module" in str(error.cause)  # type: ignore[attr-defined]


def test_bytes_that_load_as_something_else_are_no_exception() -> None:
    assert isinstance(error_of(Failure("RayTaskError", "X", "m", "text", b"I1\n.", {})), UnserializableException)


class RaisesInStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text today")


def test_a_hostile_text_does_not_break_the_failure() -> None:
    failure = failure_of(raised(RaisesInStr()), **WHERE)
    assert "raised RuntimeError" in failure.message
    assert "RaisesInStr" in failure.traceback


def test_causes_in_a_circle_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert "ValueError: one" in failure_of(raised(one), **WHERE).traceback


def test_a_group_of_ten_thousand_and_deep_recursion_stay_readable() -> None:
    def deep(n: int) -> int:
        return deep(n + 1)

    with pytest.raises(RecursionError) as caught:
        deep(0)
    assert len(failure_of(caught.value, **WHERE).traceback) < TEXT_LIMIT
    group = failure_of(raised(ExceptionGroup("many", [ValueError(i) for i in range(10_000)])), **WHERE)
    assert len(group.traceback) < TEXT_LIMIT
    assert group.traceback.startswith(HEADER)


def test_a_text_of_a_gigabyte_is_cut_in_the_middle() -> None:
    failure = failure_of(raised(ValueError("x" * 10_000_000)), **WHERE)
    assert len(failure.traceback) < 2 * TEXT_LIMIT
    assert "characters left out" in failure.traceback


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_exits_in_a_task_are_task_errors(error: BaseException) -> None:
    arrived = through_the_wire(error)
    assert type(arrived) is RayTaskError
    assert type(arrived.cause) is type(error)


def test_a_system_failure_becomes_the_class_that_it_names_with_its_facts() -> None:
    failure = system_failure("WorkerCrashedError", "killed", pid=7, node=b"\xb7\x1e", signal=9, exit_code=None)
    error = error_of(msgspec.msgpack.decode(msgspec.msgpack.encode(failure), type=Failure))
    assert isinstance(error, WorkerCrashedError)
    assert (error.pid, error.node, error.signal, error.exit_code, str(error)) == (7, "b71e", 9, None, "killed")


@pytest.mark.parametrize("kind", ["NoSuchError", "PACKAGE_DIRECTORY", "traceback", "Any", ""])
def test_a_kind_that_is_no_error_is_a_system_error_that_names_it(kind: str) -> None:
    error = error_of(Failure(kind, message="text"))
    assert type(error) is RaySystemError
    assert f"{kind}: text" in str(error)


def test_a_dependent_of_a_failed_task_has_the_same_cause_and_says_which() -> None:
    failure = dependency_failure(failure_of(raised(ZeroDivisionError("x")), **WHERE), "g")
    error = error_of(failure)
    assert isinstance(error, ZeroDivisionError)
    lines = str(error).split("\n")
    assert lines[:2] == ["nbray::g()", DEPENDENCY_FAILED]
    assert lines[2] == f"nbray.exceptions.RayTaskError(ZeroDivisionError): {HEADER}"
    assert error.function_name == "g"  # type: ignore[attr-defined]


def test_a_chain_of_dependents_tells_the_first_failure_once() -> None:
    failure = failure_of(raised(ZeroDivisionError("x")), **WHERE)
    for name in ("g", "h", "i"):
        failure = dependency_failure(failure, name)
    text = str(error_of(failure))
    assert text.startswith(f"nbray::i()\n{DEPENDENCY_FAILED}\nnbray.exceptions.RayTaskError(ZeroDivisionError): nbray::f()")
    assert text.count(DEPENDENCY_FAILED) == 1


@pytest.mark.parametrize("cls", [WorkerCrashedError, TaskCancelledError, ActorDiedError, GetTimeoutError])
def test_a_dependent_of_a_system_failure_is_a_task_error_and_that_error(cls: type[RayError]) -> None:
    failure = dependency_failure(dependency_failure(system_failure(cls.__name__, "died", node=b"\xb7"), "g"), "h")
    error = error_of(failure)
    assert isinstance(error, cls)
    assert isinstance(error, RayTaskError)
    assert error.cause.node == "b7"  # type: ignore[union-attr]
    assert "died" in str(error)
