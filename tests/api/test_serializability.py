from __future__ import annotations

import threading
import types
from typing import Any

import pytest

from nbray.serializability import captured, explain, path_to_culprit


class Slotted:
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def method(self) -> None: ...


def space(**attributes: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(**attributes)


def with_default(x: Any = threading.Lock()) -> Any:  # noqa: B008 -- the default is what is looked for
    return x


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (threading.Lock(), "args"),
        ((1, space(cfg=space(_lock=threading.Lock()))), "args[1].cfg._lock"),
        ({"a": {"b": [0, threading.Lock()]}}, "args['a']['b'][1]"),
        (Slotted(), "args.lock"),
        (Slotted().method, "args.__self__.lock"),
        ((i for i in range(3)), "args"),
        ([1, "fine"], "args"),
        (with_default, "args(x=)"),
    ],
)
def test_the_path_leads_to_the_part_that_does_not_pickle(value: Any, path: str) -> None:
    assert path_to_culprit(value, "args") == path


def test_what_a_function_captures_is_part_of_the_path() -> None:
    lock = threading.Lock()

    def inner() -> Any:
        return lock

    def outer() -> Any:
        return inner()

    assert path_to_culprit(outer, "outer") == "outer -> inner -> lock"
    assert set(captured(outer)) == {"inner"}


def test_a_value_that_contains_itself_ends_the_search() -> None:
    value: list[Any] = [threading.Lock()]
    value.insert(0, value)
    assert path_to_culprit(value) == "value[1]"


def test_a_very_deep_culprit_is_named_by_as_much_path_as_a_person_reads() -> None:
    value: Any = threading.Lock()
    for _ in range(100):
        value = [value]
    assert path_to_culprit(value) == "value" + "[0]" * 30


def test_an_object_that_raises_while_it_is_pickled_is_the_culprit() -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            raise RuntimeError("not me")

    assert path_to_culprit({"h": Hostile()}) == "value['h']"


def test_the_error_says_what_where_which_and_what_to_do() -> None:
    error = explain("the argument of f()", (1, threading.Lock()), "args", TypeError("cannot pickle"))
    assert str(error).startswith(
        "Could not serialize the argument of f(): args[1] is a _thread.lock, which does not pickle (TypeError: cannot"
    )
