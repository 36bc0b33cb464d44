"""Functions and classes on their way to workers: what they capture, how large they may be, what does not pickle."""

import sys
import threading

import numpy as np
import pytest

from tests.conformance.subject import ray


def test_a_function_sees_what_it_captured_when_it_was_first_called():
    values = [1]

    @ray.remote
    def f():
        return values

    assert ray.get(f.remote()) == [1]


def test_a_function_that_is_decorated_again_is_the_new_one():
    def make(n):
        @ray.remote
        def f():
            return n

        return f

    assert ray.get([make(n).remote() for n in range(5)]) == list(range(5))


def test_an_actor_class_that_is_decorated_again_is_the_new_one():
    def make(n):
        @ray.remote
        class A:
            def f(self):
                return n

        return A

    assert ray.get([make(n).remote().f.remote() for n in range(3)]) == [0, 1, 2]


def test_mutually_recursive_functions():
    @ray.remote
    def even(n):
        return True if n == 0 else ray.get(odd.remote(n - 1))

    @ray.remote
    def odd(n):
        return False if n == 0 else ray.get(even.remote(n - 1))

    assert ray.get([even.remote(4), odd.remote(4)], timeout=60) == [True, False]


def test_a_method_of_an_actor_makes_actors_of_its_own_class():
    @ray.remote(num_cpus=0)
    class Tree:
        def depth(self, n):
            if n == 0:
                return 0
            child = Tree.remote()
            return 1 + ray.get(child.depth.remote(n - 1))

    assert ray.get(Tree.remote().depth.remote(3), timeout=60) == 3


def test_a_remote_function_is_an_argument_like_any_other():
    @ray.remote
    def double(x):
        return 2 * x

    @ray.remote
    def apply(f, x):
        return ray.get(f.remote(x))

    assert ray.get(apply.remote(double, 4)) == 8


def test_a_function_beyond_the_limit_is_refused():
    array = np.zeros(110 * 2**20, dtype=np.uint8)

    @ray.remote
    def too_large():
        return array.sum()

    with pytest.raises(ValueError, match=r"The remote function .*too_large.* is too large"):
        too_large.remote()


def test_an_actor_class_beyond_the_limit_is_refused():
    array = np.zeros(110 * 2**20, dtype=np.uint8)

    @ray.remote
    class TooLarge:
        def total(self):
            return array.sum()

    with pytest.raises(ValueError, match=r"The actor .*TooLarge.* is too large"):
        TooLarge.remote()


def test_what_a_function_captures_and_does_not_pickle_is_named():
    lock = threading.Lock()

    @ray.remote
    def captures():
        return lock

    with pytest.raises(TypeError, match=r"(?s)Could not serialize the function .*captures.*lock"):
        captures.remote()


def test_what_a_class_captures_and_does_not_pickle_is_named():
    lock = threading.Lock()

    @ray.remote
    class Captures:
        def f(self):
            return lock

    with pytest.raises(TypeError, match=r"(?s)Could not serialize the actor class .*Captures.*lock"):
        Captures.remote()


def test_an_argument_of_an_actor_that_does_not_pickle_is_an_error_in_the_calling_line():
    @ray.remote
    class A:
        def __init__(self, x=None):
            pass

        def f(self, x):
            return x

    with pytest.raises(TypeError, match="Could not serialize the argument"):
        A.remote(threading.Lock())
    with pytest.raises(TypeError, match="Could not serialize the argument"):
        A.remote().f.remote(threading.Lock())


def test_classes_of_the_program_are_the_same_class_when_they_come_back():
    class Point:
        def __init__(self, x):
            self.x = x

    @ray.remote
    def move(point):
        assert type(point).__name__ == "Point"
        point.x += 1
        return point

    moved = ray.get(move.remote(Point(1)))
    assert moved.x == 2
    assert type(moved) is Point


def test_own_reductions_are_respected():
    class Odd:
        def __init__(self, n):
            self.n = n
            self.lock = threading.Lock()

        def __reduce__(self):
            return Odd, (self.n + 1,)

    assert ray.get(ray.put(Odd(1))).n == 2


def test_deep_recursion_in_a_task_is_a_recursion_error():
    @ray.remote
    def deep(n):
        return deep_local(n)

    def deep_local(n):
        return deep_local(n + 1)

    with pytest.raises(RecursionError):
        ray.get(deep.remote(0))


def test_a_worker_imports_what_the_driver_can_import(tmp_path, monkeypatch):
    (tmp_path / "beside_the_program.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = str(tmp_path)

    @ray.remote
    def f():
        sys.path.insert(0, path)
        import beside_the_program  # noqa: PLC0415 -- this is what the test is about

        return beside_the_program.answer()

    assert ray.get(f.remote()) == 42
