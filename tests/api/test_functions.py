from __future__ import annotations

import pickle
import threading
import types
from typing import Any

import cloudpickle
import numpy as np
import pytest

import nbray
from nbray.definitions import LIMIT_BYTES, WARN_BYTES
from nbray.functions import RemoteFunction
from nbray.ids import short


@nbray.remote
def add(a: int, b: int = 10, *, scale: int = 1) -> int:
    """Add."""
    return (a + b) * scale


def cell(source: str, scope: dict[str, Any]) -> Any:
    """Run `source` as a notebook cell would run: in `__main__`, whose functions are pickled by value."""
    exec(compile(source, "<cell>", "exec"), scope)
    return scope


@pytest.fixture
def scope() -> dict[str, Any]:
    return {"__name__": "__main__", "ray": nbray}


def test_remote_returns_a_reference_and_get_its_value(engine: Any) -> None:
    assert nbray.get(add.remote(1, 2)) == 3
    assert nbray.get(add.remote(1)) == 11
    assert nbray.get(add.remote(b=1, a=2, scale=3)) == 9
    assert nbray.get(add.remote(add.remote(1, 1), 1)) == 3


def test_calling_it_directly_says_how_to_call_it() -> None:
    with pytest.raises(
        TypeError, match=r"Remote functions cannot be called directly. Instead of running 'add\(\)', try 'add.remote\(\)'."
    ):
        add(1, 2)


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"c": 1}, "got an unexpected keyword argument 'c'"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
    ],
)
def test_arguments_that_do_not_fit_are_type_errors_in_the_calling_line(engine: Any, args: Any, kwargs: Any, said: str) -> None:
    with pytest.raises(TypeError, match=rf"add\(\): .*{said}"):
        add.remote(*args, **kwargs)
    assert engine.submitted == []


def test_any_number_of_arguments_reaches_a_function_that_takes_them(engine: Any) -> None:
    @nbray.remote
    def total(*numbers: int, **more: int) -> int:
        return sum(numbers) + sum(more.values())

    assert nbray.get(total.remote(*range(100), x=1, y=2)) == 4953


def test_a_required_keyword_is_asked_for(engine: Any) -> None:
    @nbray.remote
    def f(a: int, *, key: int) -> int:
        return a + key

    assert nbray.get(f.remote(1, key=2)) == 3
    with pytest.raises(TypeError, match=r"missing a required (argument|keyword).*'key'"):
        f.remote(1)


def test_positional_only_arguments_are_not_taken_by_name(engine: Any) -> None:
    @nbray.remote
    def f(a: int, /, **rest: int) -> Any:
        return a, rest

    assert nbray.get(f.remote(1, a=2)) == (1, {"a": 2})
    with pytest.raises(TypeError, match="'a'"):
        f.remote(a=2)


def test_the_number_of_returns_decides_what_remote_returns(engine: Any) -> None:
    @nbray.remote(num_returns=3)
    def three() -> Any:
        return 1, 2, 3

    a, b, c = three.remote()
    assert nbray.get([c, a, b]) == [3, 1, 2]
    assert three.options(num_returns=0).remote() is None
    assert nbray.get(three.options(num_returns=1).remote()) == (1, 2, 3)


def test_options_are_for_one_use_and_keep_the_definition(engine: Any) -> None:
    two = add.options(num_cpus=2, name="sum")
    nbray.get([two.remote(1), add.remote(1)])
    (first, given), (second, default) = engine.submitted
    assert (given.amounts, given.name, default.amounts, default.name) == ({"CPU": 20_000}, "sum", {"CPU": 10_000}, "")
    assert first.id == second.id
    assert first.name == "add"
    with pytest.raises(ValueError, match=r"num_cpu .* Did you mean num_cpus"):
        add.options(num_cpu=1)
    assert nbray.get(add._remote((1,), {"b": 2}, num_cpus=0.5)) == 3


def test_it_keeps_the_name_and_the_docstring() -> None:
    assert (add.__name__, add.__doc__, add.options(num_cpus=2).__doc__) == ("add", "Add.", "Add.")


def test_the_function_is_pickled_once(engine: Any, scope: dict[str, Any]) -> None:
    counted = []

    class Captured:
        def __reduce__(self) -> Any:
            counted.append(self)
            return list, ([1],)

    scope["y"] = Captured()
    cell("@ray.remote\ndef f(x): return x + y[0]", scope)
    assert nbray.get([scope["f"].remote(i) for i in range(5)]) == [1, 2, 3, 4, 5]
    assert len(counted) == 1
    assert len({spec.id for spec, _ in engine.submitted}) == 1


def test_a_global_that_was_replaced_reaches_the_next_call(engine: Any, scope: dict[str, Any]) -> None:
    cell("scale = 2\n@ray.remote\ndef f(x): return x * scale", scope)
    assert nbray.get(scope["f"].remote(10)) == 20
    cell("scale = 3", scope)
    assert nbray.get(scope["f"].remote(10)) == 30


def test_a_helper_that_was_redefined_reaches_the_next_call(engine: Any, scope: dict[str, Any]) -> None:
    cell("k = 1\ndef inner(x): return x + k\ndef helper(x): return inner(x)\n@ray.remote\ndef f(x): return helper(x)", scope)
    assert nbray.get(scope["f"].remote(1)) == 2
    cell("k = 100", scope)
    assert nbray.get(scope["f"].remote(1)) == 101
    cell("def inner(x): return -x", scope)
    assert nbray.get(scope["f"].remote(1)) == -1


def test_a_global_that_did_not_exist_yet_is_found_when_it_does(engine: Any, scope: dict[str, Any]) -> None:
    cell("@ray.remote\ndef f(): return later", scope)
    with pytest.raises(NameError):
        nbray.get(scope["f"].remote())
    cell("later = 5", scope)
    assert nbray.get(scope["f"].remote()) == 5


def test_a_closure_variable_that_was_replaced_reaches_the_next_call(engine: Any) -> None:
    factor = 2

    @nbray.remote
    def f(x: int) -> int:
        return x * factor

    assert nbray.get(f.remote(10)) == 20
    factor = 3
    assert nbray.get(f.remote(10)) == 30


def test_a_class_that_a_function_uses_was_redefined(engine: Any, scope: dict[str, Any]) -> None:
    cell("v = 1\nclass A:\n    def get(self): return v\n@ray.remote\ndef f(): return A().get()", scope)
    before = scope["f"]._definition.spec()
    assert scope["f"]._definition.spec() is before
    cell("v = 2", scope)
    assert scope["f"]._definition.spec().id != before.id


def test_comparing_identities_never_compares_values(engine: Any, scope: dict[str, Any]) -> None:
    class Hostile:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("do not compare me")

        __hash__ = None  # type: ignore[assignment]

    scope["h"], scope["a"] = Hostile(), np.zeros(3)
    cell("@ray.remote\ndef f(): return len(a) if h is not None else 0", scope)
    assert nbray.get(scope["f"].remote()) == 3
    scope["h"], scope["a"] = Hostile(), np.zeros(4)
    assert nbray.get(scope["f"].remote()) == 4


def test_a_remote_function_travels_with_its_options_and_its_identity(engine: Any) -> None:
    add.remote(1)
    again = pickle.loads(cloudpickle.dumps(add.options(num_cpus=2)))
    assert isinstance(again, RemoteFunction)
    assert nbray.get(again.remote(1, scale=2)) == 22
    (sent, _), (received, options) = engine.submitted
    assert sent == received
    assert options.amounts == {"CPU": 20_000}
    with pytest.raises(TypeError, match="too many positional"):
        again.remote(1, 2, 3)


def test_a_function_that_calls_itself_and_one_that_calls_another(engine: Any, scope: dict[str, Any]) -> None:
    cell(
        """
@ray.remote
def fact(n): return 1 if n == 0 else n * ray.get(fact.remote(n - 1))
@ray.remote
def even(n): return True if n == 0 else ray.get(odd.remote(n - 1))
@ray.remote
def odd(n): return False if n == 0 else ray.get(even.remote(n - 1))
""",
        scope,
    )
    assert nbray.get(scope["fact"].remote(5)) == 120
    assert nbray.get([scope["even"].remote(6), scope["odd"].remote(6)]) == [True, False]


def test_an_inner_remote_function_that_was_redefined_reaches_the_outer(engine: Any, scope: dict[str, Any]) -> None:
    cell("@ray.remote\ndef inner(): return 1\n@ray.remote\ndef outer(): return ray.get(inner.remote())", scope)
    assert nbray.get(scope["outer"].remote()) == 1
    cell("@ray.remote\ndef inner(): return 2", scope)
    assert nbray.get(scope["outer"].remote()) == 2
    cell("n = 3\n@ray.remote\ndef inner(): return n", scope)
    assert nbray.get(scope["outer"].remote()) == 3
    cell("n = 4", scope)
    assert nbray.get(scope["outer"].remote()) == 4


def test_a_static_method_of_a_class_can_be_remote(engine: Any) -> None:
    class Test:
        @staticmethod
        @nbray.remote
        def encrypt(key: int, num: int) -> int:
            return key + num

    assert nbray.get([Test().encrypt.remote(key=1, num=2), Test.encrypt.remote(3, 4)]) == [3, 7]


def test_async_functions_are_refused_where_they_are_defined() -> None:
    async def f() -> None: ...

    with pytest.raises(ValueError, match="'async def' should not be used for remote tasks"):
        nbray.remote(f)


def test_a_generator_function_streams_unless_it_is_told_otherwise(engine: Any) -> None:
    @nbray.remote
    def numbers() -> Any:
        yield 1
        yield 2

    generator = numbers.remote()
    assert repr(generator) == f"ObjectRefGenerator(numbers, task {short(generator.completed().task_id().binary())})"
    assert [nbray.get(ref) for ref in generator] == [1, 2]
    assert numbers.options(num_cpus=2).remote().next_ready()
    assert nbray.get(numbers.options(num_returns=2).remote()) == [1, 2]


def test_lambdas_and_built_in_functions_can_be_remote(engine: Any) -> None:
    assert nbray.get([nbray.remote(lambda x: x + 1).remote(1), nbray.remote(len).remote([1, 2])]) == [2, 2]


@pytest.mark.parametrize("target", [3, "f", None, types.SimpleNamespace(), staticmethod(len)])
def test_what_is_no_function_and_no_class_cannot_be_remote(target: Any) -> None:
    with pytest.raises((TypeError, AssertionError), match=r"function|no parentheses"):
        nbray.remote(target)


def test_remote_with_empty_parentheses_is_an_assertion_error() -> None:
    with pytest.raises(AssertionError, match="no arguments and no parentheses"):
        nbray.remote()
    with pytest.raises(TypeError, match="remote already"):
        nbray.remote(add)


def test_a_closure_that_does_not_pickle_names_the_path(engine: Any) -> None:
    config = types.SimpleNamespace(db=types.SimpleNamespace(lock=threading.Lock()))

    @nbray.remote
    def f() -> Any:
        return config

    with pytest.raises(TypeError, match=r"Could not serialize the function f: f -> config.db.lock is a _thread.lock"):
        f.remote()


def test_a_large_closure_is_warned_about_and_a_huge_one_refused(engine: Any) -> None:
    small, table = b"x", bytes(WARN_BYTES + 1)

    @nbray.remote
    def f() -> int:
        return len(table) + len(small)

    with pytest.warns(UserWarning, match=r"The remote function f is very large .*`table`.*nbray.put"):
        assert nbray.get(f.remote()) == WARN_BYTES + 2
    table = bytes(LIMIT_BYTES + 1)
    with pytest.raises(ValueError, match=r"The remote function f is too large .*`table`"):
        f.remote()


def test_a_bound_call_is_checked_and_not_made() -> None:
    assert repr(add.bind(1, 2)) == "FunctionNode(RemoteFunction(add))"
    with pytest.raises(TypeError):
        add.bind(1, 2, 3)


def test_a_function_with_gpus_ends_its_worker_after_each_call_unless_it_says_otherwise() -> None:
    @nbray.remote(num_gpus=1)
    def plain() -> None: ...

    @nbray.remote(num_gpus=1, max_calls=0)
    def keeps() -> None: ...

    @nbray.remote
    def without() -> None: ...

    assert [f._task_options.max_calls for f in (plain, keeps, without, without.options(num_gpus=1))] == [1, 0, 0, 0]
    assert plain.options(num_gpus=0.5)._task_options.max_calls == 1
