"""Options of tasks and actors: what is refused, and in which words."""

import time

import pytest

from tests.conformance.subject import ray


def function():
    return 1


class Class:
    def method(self):
        return 1


@pytest.mark.parametrize("kind", ["decorator", "options"])
@pytest.mark.parametrize(("target", "said"), [(function, "remote functions"), (Class, "actors")])
def test_an_unknown_option_is_named(target, said, kind):
    with pytest.raises(ValueError, match=f"Invalid option keyword num_cpu for {said}"):
        ray.remote(num_cpu=1)(target) if kind == "decorator" else ray.remote(target).options(num_cpu=1)


@pytest.mark.parametrize("option", ["max_restarts", "max_concurrency", "lifetime", "namespace", "get_if_exists", "max_pending_calls"])
def test_an_option_of_actors_is_none_of_functions(option):
    with pytest.raises(ValueError, match=f"Invalid option keyword {option} for remote functions"):
        ray.remote(**{option: 1})(function)


@pytest.mark.parametrize("option", ["max_retries", "max_calls", "num_returns", "retry_exceptions"])
def test_an_option_of_functions_is_none_of_actors(option):
    with pytest.raises(ValueError, match=f"Invalid option keyword {option} for actors"):
        ray.remote(**{option: 1})(Class)


@pytest.mark.parametrize(
    ("target", "option", "value"),
    [
        (function, "num_cpus", "1"),
        (function, "num_gpus", [1]),
        (function, "resources", 1),
        (function, "resources", ["a"]),
        (function, "memory", "1g"),
        (function, "num_returns", 1.5),
        (function, "max_retries", "3"),
        (function, "retry_exceptions", "all"),
        (function, "name", 3),
        (function, "runtime_env", "pip"),
        (function, "scheduling_strategy", 1),
        (function, "enable_task_events", "no"),
        (Class, "max_restarts", 1.5),
        (Class, "max_task_retries", "2"),
        (Class, "max_concurrency", "2"),
        (Class, "namespace", 1),
        (Class, "get_if_exists", "yes"),
    ],
)
def test_a_value_of_another_type_is_a_type_error_that_names_option_and_type(target, option, value):
    with pytest.raises(TypeError, match=f"The type of keyword '{option}' must be .*, but received type <class '{type(value).__name__}'>"):
        ray.remote(**{option: value})(target)


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        (function, {"max_retries": -2}, "The keyword 'max_retries' only accepts None, 0, -1 or a positive integer, where -1 represents infinity"),
        (Class, {"max_restarts": -2}, "The keyword 'max_restarts' only accepts None, 0, -1 or a positive integer"),
        (Class, {"max_task_retries": -2}, "The keyword 'max_task_retries' only accepts None, 0, -1 or a positive integer"),
        (function, {"max_calls": -1}, "The keyword 'max_calls' only accepts None, 0 or a positive integer"),
        (function, {"num_returns": -1}, "(?s)num_returns|non-negative integer"),
        (function, {"num_cpus": -1}, "cannot be negative"),
        (function, {"num_gpus": -0.5}, "cannot be negative"),
        (function, {"resources": {"a": -1}}, "cannot be negative"),
        (function, {"num_cpus": 0.00001}, "cannot go beyond 0.0001"),
        (function, {"resources": {"a": 0.00001}}, "cannot go beyond 0.0001"),
        (function, {"resources": {"CPU": 1}}, "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword"),
        (Class, {"resources": {"GPU": 1}}, "Use the 'num_cpus' and 'num_gpus' keyword instead"),
        (Class, {"lifetime": "for ever"}, "actor `lifetime` argument must be one of 'detached', 'non_detached' and"),
        (Class, {"get_if_exists": True}, "actor name must be specified"),
    ],
)
def test_a_value_that_makes_no_sense_is_a_value_error(target, options, said):
    with pytest.raises(ValueError, match=said):
        ray.remote(target).options(**options).remote() if "get_if_exists" in options else ray.remote(**options)(target)


@pytest.mark.parametrize("value", [0, -1, 3])
def test_retries_and_restarts_take_zero_infinite_and_numbers(value):
    assert ray.get(ray.remote(max_retries=value)(function).remote()) == 1
    assert ray.get(ray.remote(max_restarts=value, max_task_retries=value)(Class).remote().method.remote()) == 1


def test_none_is_the_default():
    options = {"num_cpus": None, "num_gpus": None, "resources": None, "memory": None, "runtime_env": None, "num_returns": None}
    assert ray.get(ray.remote(**options)(function).remote()) == 1


def test_what_may_not_change_for_one_call_says_so():
    with pytest.raises(ValueError, match=r"Setting 'max_calls' is not supported in '.options\(\)'"):
        ray.remote(function).options(max_calls=2)
    with pytest.raises(ValueError, match=r"Setting 'concurrency_groups' is not supported in '.options\(\)'"):
        ray.remote(Class).options(concurrency_groups={"io": 1})


def test_options_leave_the_function_as_it_was():
    f = ray.remote(num_returns=2)(lambda: (1, 2))
    assert ray.get(f.options(num_returns=1).remote()) == (1, 2)
    assert ray.get(f.remote()) == [1, 2]
    assert f.options(num_returns=0).remote() is None


def test_a_later_option_wins_and_the_others_stay():
    @ray.remote(num_cpus=2, max_retries=0)
    def assigned():
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(assigned.options(num_cpus=1).remote()) == {"CPU": 1.0}
    assert ray.get(assigned.remote()) == {"CPU": 2.0}


def test_the_decorator_without_arguments_but_with_parentheses_is_refused():
    with pytest.raises(AssertionError, match=r"The @\w*ray.remote decorator must be applied either with no arguments and no parentheses"):
        ray.remote()


@pytest.mark.parametrize("target", [1, "f", [function], None])
def test_only_functions_and_classes_are_made_remote(target):
    with pytest.raises((TypeError, AssertionError), match=r"The @\w*ray.remote decorator must be applied"):
        ray.remote(target)


def test_an_async_function_is_refused():
    async def f():
        return 1

    with pytest.raises(ValueError, match="'async def' should not be used for remote tasks"):
        ray.remote(f)


def test_a_remote_function_cannot_be_called_and_says_what_to_write():
    with pytest.raises(TypeError, match=r"Remote functions cannot be called directly. Instead of running '.*function\(\)', try '.*function.remote\(\)'"):
        ray.remote(function)()


def test_a_call_that_does_not_fit_is_an_error_in_the_calling_line():
    @ray.remote
    def f(a, b, *, c=1):
        return a + b + c

    for wrong in (lambda: f.remote(1), lambda: f.remote(1, 2, 3), lambda: f.remote(1, 2, d=3), lambda: f.remote(1, 2, a=3)):
        with pytest.raises(TypeError):
            wrong()
    assert ray.get(f.remote(1, b=2, c=3)) == 6


def test_defaults_star_arguments_and_keywords_are_pythons():
    @ray.remote
    def f(a, b=2, /, c=3, *rest, d=4, **others):
        return a, b, c, rest, d, others

    assert ray.get(f.remote(1)) == (1, 2, 3, (), 4, {})
    assert ray.get(f.remote(1, 5, 6, 7, 8, d=9, e=10)) == (1, 5, 6, (7, 8), 9, {"e": 10})


@pytest.mark.differs("name-of-a-remote-function")
def test_a_function_keeps_its_name_and_documentation():
    @ray.remote
    def documented():
        """What it does."""

    assert documented.__name__ == "documented"
    assert documented.__doc__ == "What it does."
    assert documented.__module__ == __name__


def test_underscore_remote_takes_arguments_and_options():
    @ray.remote
    def f(a, b=0):
        return a, b

    assert ray.get(f._remote(args=[1], kwargs={"b": 2}, num_returns=1)) == (1, 2)
    assert ray.get(f._remote(args=[1], kwargs={"b": 2}, num_returns=2)) == [1, 2]


def test_a_lambda_can_be_made_remote():
    assert ray.get(ray.remote(lambda x: x + 1).remote(1)) == 2


@pytest.mark.parametrize(("returned", "number"), [((1, 2), 3), ((1, 2, 3), 2), (5, 2)])
def test_the_wrong_number_of_values_fails_every_reference(returned, number):
    @ray.remote(num_returns=number, max_retries=0)
    def f():
        return returned

    for ref in f.remote():
        with pytest.raises((ValueError, TypeError)) as caught:
            ray.get(ref)
        assert isinstance(caught.value, ray.exceptions.RayTaskError)


def test_no_returns_are_none_and_the_task_runs(tmp_path):
    @ray.remote(num_returns=0)
    def f():
        (tmp_path / "ran").touch()

    @ray.remote
    def ran():
        return (tmp_path / "ran").exists()

    assert f.remote() is None
    deadline = time.monotonic() + 30
    while not ray.get(ran.remote()):
        assert time.monotonic() < deadline
