from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import cloudpickle
import pytest

import nbray
from nbray import session
from nbray.actor import ActorClassInheritanceException, ActorHandle, exit_actor
from nbray.exceptions import ActorHandleNotFoundError


@nbray.remote
class Counter:
    """Counts."""

    START = 7

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def increment(self, by: int = 1) -> int:
        self.count += by
        return self.count

    @nbray.method(num_returns=2)
    def both(self) -> tuple[int, int]:
        return self.count, -self.count

    @staticmethod
    def twice(x: int) -> int:
        return 2 * x

    @classmethod
    def label(cls) -> str:
        return cls.__name__

    def numbers(self) -> Any:
        yield 1


def test_an_actor_keeps_its_state(engine: Any) -> None:
    counter = Counter.remote(5)
    assert nbray.get([counter.increment.remote(), counter.increment.remote(by=10)]) == [6, 16]


def test_a_method_can_return_several_references(engine: Any) -> None:
    counter = Counter.remote(3)
    assert nbray.get(counter.both.remote()) == [3, -3]
    assert nbray.get(counter.both.options(num_returns=1).remote()) == (3, -3)
    assert counter.increment.options(num_returns=0).remote() is None


def test_static_and_class_methods_run_on_the_class_and_in_the_actor(engine: Any) -> None:
    counter = Counter.remote()
    assert (Counter.twice(4), Counter.label(), Counter.START) == (8, "Counter", 7)
    assert nbray.get([counter.twice.remote(4), counter.label.remote()]) == [8, "Counter"]


def test_every_actor_has_the_built_in_methods(engine: Any) -> None:
    counter = Counter.remote(9)
    assert nbray.get(counter.__ray_ready__.remote()) is True
    assert nbray.get(counter.__ray_call__.remote(lambda self, x: self.count + x, 1)) == 10


def test_a_built_in_class_can_be_an_actor(engine: Any) -> None:
    actor = nbray.remote(dict).remote()
    assert nbray.get(actor.__ray_call__.remote(len)) == 0


def test_wrong_arguments_are_type_errors_in_the_calling_line(engine: Any) -> None:
    counter = Counter.remote()
    with pytest.raises(TypeError, match=r"Counter.__init__\(\): too many positional arguments"):
        Counter.remote(1, 2)
    with pytest.raises(TypeError, match=r"Counter.increment\(\): got an unexpected keyword argument 'of'"):
        counter.increment.remote(of=1)
    assert engine.called == []


def test_an_unknown_method_is_an_attribute_error_that_says_what_was_meant(engine: Any) -> None:
    counter = Counter.remote()
    with pytest.raises(AttributeError, match=r"'Counter' actor has no method 'incremnt'. Did you mean increment\?"):
        counter.incremnt.remote()


def test_direct_calls_say_how_to_call(engine: Any) -> None:
    counter = Counter.remote()
    with pytest.raises(
        TypeError, match=r"Actors cannot be instantiated directly. Instead of 'Counter\(\)', use 'Counter.remote\(\)'."
    ):
        Counter()
    with pytest.raises(TypeError, match=r"Actor methods cannot be called directly. .*try 'object.increment.remote\(\)'."):
        counter.increment()
    with pytest.raises(TypeError, match=r"is an actor; call one of its methods"):
        counter()


def test_deriving_from_an_actor_class_is_refused() -> None:
    with pytest.raises(ActorClassInheritanceException, match="Counter is not supported"):

        class Derived(Counter):  # type: ignore[misc]
            pass

    assert issubclass(ActorClassInheritanceException, TypeError)


def test_deriving_from_the_plain_class_and_decorating_that_works(engine: Any) -> None:
    class Base:
        def __init__(self, x: int) -> None:
            self.x = x

        def get(self) -> int:
            return self.x

    @nbray.remote
    class Derived(Base):
        def get(self) -> int:
            return super().get() + 1

    assert nbray.get(Derived.remote(1).get.remote()) == 2


def test_dir_lists_what_can_be_called(engine: Any) -> None:
    listed = {"__init__", "increment", "both", "twice", "label", "numbers"}
    assert set(dir(Counter)) == listed | {"options", "remote", "bind"}
    assert set(dir(Counter.remote())) == listed | {"__ray_ready__", "__ray_call__", "__ray_terminate__"}


def test_the_class_keeps_its_names() -> None:
    assert (Counter.__name__, Counter.__doc__, Counter.__ray_metadata__.class_name) == ("Counter", "Counts.", "Counter")


def test_handles_of_one_actor_are_equal_and_hash_alike(engine: Any) -> None:
    one, other = Counter.remote(), Counter.remote()
    again = pickle.loads(cloudpickle.dumps(one))
    assert one == again
    assert hash(one) == hash(again)
    assert one != other
    assert len({one, again, other}) == 2
    assert repr(one) == f"Actor(Counter, {one._actor_id.hex()})"
    assert one._ray_actor_id == one._actor_id
    assert nbray.get(again.increment.remote()) == 1


def test_a_handle_that_travels_keeps_what_it_knows_of_its_methods(engine: Any) -> None:
    again = pickle.loads(cloudpickle.dumps(Counter.remote()))
    assert len(again.both.remote()) == 2
    with pytest.raises(TypeError, match="too many positional"):
        again.increment.remote(1, 2)


def test_an_actor_class_travels_with_its_options(engine: Any) -> None:
    again = pickle.loads(cloudpickle.dumps(Counter.options(num_cpus=2)))
    assert nbray.get(again.remote(4).increment.remote()) == 5
    (_, options) = engine.created[-1]
    assert options.running == {"CPU": 20_000}


def test_a_global_that_a_method_reads_was_replaced(engine: Any) -> None:
    scope: dict[str, Any] = {"__name__": "__main__", "ray": nbray}
    exec("v = 1\n@ray.remote\nclass A:\n    def get(self): return v", scope)
    # Loaded elsewhere: where the class itself lives, loading it again changes it.
    program = "import sys, pickle; print(pickle.load(sys.stdin.buffer)().get())"
    said = []
    for value in (1, 1, 2):
        exec(f"v = {value}", scope)
        payload = scope["A"]._definition.spec().payload
        said.append(subprocess.run([sys.executable, "-c", program], input=payload, capture_output=True, check=True).stdout.strip())
    assert said == [b"1", b"1", b"2"]


def test_named_actors_are_found_and_names_are_taken_once(engine: Any) -> None:
    counter = Counter.options(name="c").remote()
    assert nbray.get_actor("c") == counter
    assert nbray.get_actor("c")._token.alive is None
    with pytest.raises(ValueError, match="already taken"):
        Counter.options(name="c").remote()
    assert Counter.options(name="c", get_if_exists=True).remote() == counter
    with pytest.raises(ValueError, match="Failed to look up actor with name 'd'"):
        nbray.get_actor("d")
    for wrong in ("", None, 3):
        with pytest.raises(ValueError, match="non-empty"):
            nbray.get_actor(wrong)  # type: ignore[arg-type]


def test_async_classes_are_seen_and_run_a_thousand_calls() -> None:
    @nbray.remote
    class Async:
        async def f(self) -> None: ...

    assert Async._actor_options.is_async
    assert Async._actor_options.max_concurrency == 1000
    assert Async.options(max_concurrency=3)._actor_options.max_concurrency == 3
    assert not Counter._actor_options.is_async


def test_retries_come_from_the_call_the_method_or_the_actor_in_that_order(engine: Any) -> None:
    @nbray.remote(max_task_retries=5)
    class A:
        def plain(self) -> None: ...

        @nbray.method(max_task_retries=0)
        def never(self) -> None: ...

    actor = A.remote()
    actor.plain.remote(), actor.never.remote(), actor.plain.options(max_task_retries=2).remote()
    assert [options.max_task_retries for _, options in engine.called] == [5, 0, 2]


def test_the_exceptions_that_a_method_retries_on_travel_with_its_handle(engine: Any) -> None:
    class Mine(Exception):
        pass

    @nbray.remote
    class A:
        @nbray.method(retry_exceptions=[Mine, ValueError])
        def f(self) -> None: ...

        @nbray.method(retry_exceptions=True)
        def g(self) -> None: ...

    actor = pickle.loads(cloudpickle.dumps(A.remote()))
    actor.f.remote(), actor.g.remote(), actor.f.options(retry_exceptions=False).remote()
    assert [options.retry_exceptions for _, options in engine.called] == [(Mine, ValueError), True, False]


def test_the_method_decorator_needs_options_that_exist() -> None:
    with pytest.raises(ValueError, match="must be applied with options"):
        nbray.method(lambda self: None)
    with pytest.raises(ValueError, match="Invalid option keyword num_cpus for actor methods"):
        nbray.method(num_cpus=1)


def test_options_of_a_call_leave_what_they_do_not_name(engine: Any) -> None:
    @nbray.remote
    class Source:
        @nbray.method(_generator_backpressure_num_objects=3, _num_objects_per_yield=2)
        def items(self) -> Any:
            yield 1, 2

    items = Source.remote().items
    again = items.options(name="once").options(num_returns="streaming")
    wider = items.options(_generator_backpressure_num_objects=5)
    counted = items.options(num_returns=2)
    streams = [each._call_options.stream for each in (items, again, wider, counted)]
    assert [s and (s.window, s.per_yield) for s in streams] == [(3, 2), (3, 2), (5, 2), None]
    assert [each._call_options.returns for each in (items, counted)] == [1, 2]


def test_a_handle_of_an_ended_session_says_so(engine: Any) -> None:
    counter = Counter.remote()
    session.set_current(None)
    with pytest.raises(ActorHandleNotFoundError, match="session that has ended"):
        counter.increment.remote()


def test_killing_reaches_the_engine_and_takes_handles_only(engine: Any) -> None:
    counter = Counter.remote()
    nbray.kill(counter, no_restart=False)
    assert engine.killed == [(counter._actor_id.binary(), False)]
    with pytest.raises(ValueError, match=r"only supported for actors\. For tasks, try nbray\.cancel"):
        nbray.kill(counter.increment.remote())
    with pytest.raises(ValueError, match="only supported for actors"):
        nbray.kill("c")


def test_exit_actor_is_for_actors(engine: Any) -> None:
    with pytest.raises(TypeError, match="outside of an actor"):
        exit_actor()


def test_annotations_with_the_old_name_work() -> None:
    def f(handle: nbray.actor.ActorHandle) -> None: ...

    assert nbray.actor.ActorHandle is ActorHandle
