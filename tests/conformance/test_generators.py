"""Generators: references that come while the task runs, in the driver, in workers, in actors; what ends them, and what does not."""

import asyncio
import os
import pickle
import threading
import time
import warnings

import numpy as np
import pytest

from tests.conformance.subject import ray

ON_NODES_TOO = True

IS_RAY = ray.__name__ == "ray"


@ray.remote
def count(n):
    for i in range(n):
        yield i


@ray.remote
def fails_after(n):
    for i in range(n):
        yield i
    raise KeyError("the end")


def outcome(ref):
    """The value of a reference, or the name of what `get` raises."""
    try:
        return ray.get(ref, timeout=30)
    except Exception as error:
        return type(error).__name__


def outcomes(generator):
    return [outcome(ref) for ref in generator]


def wait_for(path, timeout=30):
    deadline, event = time.monotonic() + timeout, threading.Event()
    while not os.path.exists(path):
        assert time.monotonic() < deadline, f"{path} did not appear"
        event.wait(0.02)


@ray.remote
def yields_when_told(directory, n):
    """Item i leaves once the file `go{i}` is there; what has been made is written beside it."""
    for i in range(n):
        wait_for(os.path.join(directory, f"go{i}"))
        open(os.path.join(directory, f"made{i}"), "w").close()
        yield i


def touch(directory, name):
    (directory / name).touch()


# ------------------------------------------------------------------------------------------ iterating


def test_a_generator_function_gives_references_in_order():
    generator = count.remote(3)
    assert isinstance(generator, ray.ObjectRefGenerator)
    refs = list(generator)
    assert all(isinstance(ref, ray.ObjectRef) for ref in refs)
    assert ray.get(refs) == [0, 1, 2]


def test_an_item_can_be_had_while_the_task_still_runs(tmp_path):
    generator = yields_when_told.remote(str(tmp_path), 2)
    touch(tmp_path, "go0")
    assert ray.get(next(generator)) == 0
    assert not generator.is_finished()
    touch(tmp_path, "go1")
    assert ray.get(next(generator)) == 1
    with pytest.raises(StopIteration):
        next(generator)


def test_the_end_stays_the_end():
    generator = count.remote(1)
    assert outcomes(generator) == [0]
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(generator)


def test_a_generator_that_yields_nothing_ends_at_once():
    assert list(count.remote(0)) == []


def test_return_ends_a_generator_and_an_exception_that_is_yielded_is_a_value():
    @ray.remote
    def returns():
        yield ValueError("just a value")
        return 5
        yield 6

    (ref,) = returns.remote()
    assert isinstance(ray.get(ref), ValueError)


def test_next_ready_does_not_wait(tmp_path):
    generator = yields_when_told.remote(str(tmp_path), 1)
    assert not generator.next_ready()
    touch(tmp_path, "go0")
    ray.wait([generator], timeout=30)
    assert generator.next_ready()
    assert ray.get(next(generator)) == 0
    with pytest.raises(StopIteration):
        next(generator)
    assert not generator.next_ready()
    assert generator.is_finished()


def test_large_items_and_references_in_items_arrive_whole():
    @ray.remote
    def arrays(n):
        for i in range(n):
            yield np.full(300_000, i)
            yield [ray.put(np.full(300_000, -i))]

    values = [ray.get(ref) for ref in arrays.remote(2)]
    assert [int(value.sum()) for value in values[::2]] == [0, 300_000]
    assert [int(ray.get(value[0]).sum()) for value in values[1::2]] == [0, -300_000]


def test_items_outlive_their_generator():
    generator = count.remote(3)
    first, second = next(generator), next(generator)
    del generator
    assert ray.get([first, second]) == [0, 1]


def test_items_are_arguments_like_other_references():
    @ray.remote
    def double(x):
        return 2 * x

    assert ray.get([double.remote(ref) for ref in count.remote(4)]) == [0, 2, 4, 6]


def test_a_task_iterates_over_what_it_calls():
    @ray.remote
    def total(n):
        return sum(ray.get(ref) for ref in count.remote(n))

    @ray.remote
    def doubled(n):
        for ref in count.remote(n):
            yield 2 * ray.get(ref)

    assert ray.get(total.remote(5)) == 10
    assert outcomes(doubled.remote(3)) == [0, 2, 4]


def test_async_for_iterates_too():
    async def take(generator):
        return [await ref async for ref in generator]

    assert asyncio.run(take(count.remote(3))) == [0, 1, 2]


def test_async_iterations_of_several_generators_interleave(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()

    async def take(directory, others):
        result = []
        touch(directory, "go0")
        async for ref in yields_when_told.remote(str(directory), 2):
            result.append(await ref)
            touch(others, "go1")  # each lets the other go on
        return result

    async def both():
        return await asyncio.gather(take(first, second), take(second, first))

    assert asyncio.run(both()) == [[0, 1], [0, 1]]


# ------------------------------------------------------------------------------------------ errors


def test_an_error_is_the_item_after_the_last_and_then_comes_the_end():
    generator = fails_after.remote(2)
    assert outcomes(generator) == [0, 1, "RayTaskError(KeyError)"]
    with pytest.raises(StopIteration):
        next(generator)
    assert generator.is_finished()


def test_completed_is_ready_at_the_end_and_does_not_repeat_the_items_error():
    assert ray.get(count.remote(2).completed(), timeout=30) is None
    generator = fails_after.remote(1)
    assert ray.get(generator.completed(), timeout=30) is None
    assert not generator.is_finished()


def test_completed_raises_what_ended_the_task_from_outside():
    @ray.remote(max_retries=0)
    def dies():
        yield 1
        time.sleep(0.2)
        os._exit(1)

    generator = dies.remote()
    assert outcomes(generator)[-1] == "WorkerCrashedError"
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(generator.completed(), timeout=30)


def test_an_argument_that_failed_is_the_only_item():
    @ray.remote
    def raises():
        raise KeyError

    generator = count.remote(raises.remote())
    assert outcomes(generator) == ["RayTaskError(KeyError)"]
    with pytest.raises(ray.exceptions.RayTaskError):
        ray.get(generator.completed(), timeout=30)


def test_an_item_that_does_not_pickle_is_the_error():
    @ray.remote
    def yields_a_lock():
        yield 1
        yield threading.Lock()
        yield 3

    assert outcomes(yields_a_lock.remote()) == [1, "RayTaskError(TypeError)"]


# ------------------------------------------------------------------------------------------ retries


def test_a_generator_that_crashes_and_is_retried_yields_only_what_was_not_seen(tmp_path):
    @ray.remote(max_retries=1)
    def crashes(directory):
        yield "seen"
        path = os.path.join(directory, "crashed")
        if not os.path.exists(path):
            wait_for(os.path.join(directory, "taken"))
            open(path, "w").close()
            os._exit(1)
        yield "unseen"

    generator = crashes.remote(str(tmp_path))
    assert ray.get(next(generator), timeout=30) == "seen"
    touch(tmp_path, "taken")
    assert outcomes(generator) == ["unseen"]


def test_a_generator_that_raises_and_is_retried_yields_only_what_was_not_seen(tmp_path):
    @ray.remote(max_retries=2, retry_exceptions=[ValueError])
    def raises(directory):
        runs = len(os.listdir(directory))
        open(os.path.join(directory, str(runs)), "w").close()
        for i in range(runs + 1):
            yield i
        if runs < 2:
            raise ValueError
        raise KeyError

    assert outcomes(raises.remote(str(tmp_path))) == [0, 1, 2, "RayTaskError(KeyError)"]
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("concurrency", [1, 2])
def test_an_actors_generator_is_retried_as_its_methods_are(tmp_path, concurrency):
    @ray.remote(max_restarts=1, max_task_retries=2, max_concurrency=concurrency)
    class Flaky:
        def items(self, directory):
            runs = len(os.listdir(directory))
            open(os.path.join(directory, str(runs)), "w").close()
            yield runs > 0
            if not runs:
                wait_for(os.path.join(directory, "..", "taken"))
                os._exit(1)
            yield runs

    (tmp_path / "runs").mkdir()
    generator = Flaky.remote().items.remote(str(tmp_path / "runs"))
    assert ray.get(next(generator), timeout=30) is False
    touch(tmp_path, "taken")
    assert outcomes(generator) == [1]


# ------------------------------------------------------------------------------------------ cancel


def test_a_cancelled_generator_raises_at_the_next_item_and_then_ends(tmp_path):
    generator = yields_when_told.remote(str(tmp_path), 2)
    touch(tmp_path, "go0")
    ray.get(next(generator), timeout=30)
    ray.cancel(generator)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(next(generator), timeout=30)
    with pytest.raises(StopIteration):
        next(generator)


def test_a_generator_that_is_cancelled_in_the_queue_never_runs(tmp_path):
    blockers = [yields_when_told.remote(str(tmp_path), 1) for _ in range(2)]

    @ray.remote(num_cpus=2)
    def writes(directory):
        touch(directory, "ran")
        yield

    generator = writes.remote(tmp_path)
    ray.cancel(generator)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(next(generator), timeout=30)
    touch(tmp_path, "go0")
    assert [outcomes(each) for each in blockers] == [[0], [0]]
    assert not (tmp_path / "ran").exists()


@ray.remote
class Endless:
    def items(self):
        while True:
            time.sleep(0.01)
            yield 1

    def works(self):
        return True


@ray.remote
class EndlessAsync:
    async def items(self):
        while True:
            await asyncio.sleep(0.01)
            yield 1

    async def works(self):
        return True


@pytest.mark.parametrize("cls", [Endless, EndlessAsync], ids=["sync", "async"])
def test_the_generator_of_an_actor_is_cancelled_and_the_actor_goes_on(cls):
    actor = cls.remote()
    generator = actor.items.remote()
    assert ray.get(next(generator), timeout=30) == 1
    ray.cancel(generator)
    assert outcomes(generator)[-1] in ("TaskCancelledError", "RayTaskError(TaskCancelledError)")
    assert ray.get(actor.works.remote(), timeout=30)


# ------------------------------------------------------------------------------------------ backpressure


def test_a_window_keeps_the_generator_that_near_to_its_consumer(tmp_path):
    @ray.remote
    def notes(directory):
        for i in range(6):
            open(os.path.join(directory, str(i)), "w").close()
            yield i

    generator = notes.options(_generator_backpressure_num_objects=2).remote(str(tmp_path))
    ray.wait([generator])
    wait_for(tmp_path / "1")
    assert not (tmp_path / "2").exists()
    assert ray.get(next(generator)) == 0
    wait_for(tmp_path / "2")
    assert not (tmp_path / "3").exists()
    assert outcomes(generator) == [1, 2, 3, 4, 5]


def test_a_generator_whose_consumer_is_gone_runs_to_its_end(tmp_path):
    @ray.remote(_generator_backpressure_num_objects=1)
    def writes(directory):
        for i in range(5):
            yield i
        open(os.path.join(directory, "end"), "w").close()

    generator = writes.remote(str(tmp_path))
    ray.get(next(generator))
    del generator
    wait_for(tmp_path / "end")


def test_a_generator_that_waits_for_its_consumer_can_be_cancelled():
    @ray.remote(_generator_backpressure_num_objects=1)
    def waits():
        yield 1
        yield 2

    generator = waits.remote()
    ray.wait([generator])
    ray.cancel(generator)
    assert outcomes(generator)[-1] in ("TaskCancelledError", "RayTaskError(TaskCancelledError)")


@pytest.mark.parametrize("kind", ["sync", "threaded", "async"])
def test_methods_of_every_kind_of_actor_keep_their_window(kind):
    @ray.remote(max_concurrency=1 if kind == "sync" else 2)
    class Plain:
        def __init__(self):
            self.made = 0

        @ray.method(_generator_backpressure_num_objects=1)
        def items(self):
            for i in range(3):
                self.made += 1
                yield i, self.made

    @ray.remote
    class Async(Plain.__ray_metadata__.modified_class):
        @ray.method(_generator_backpressure_num_objects=1)
        async def items(self):
            for i in range(3):
                self.made += 1
                yield i, self.made

        async def nothing(self):
            pass

    actor = (Async if kind == "async" else Plain).remote()
    assert outcomes(actor.items.remote()) == [(0, 1), (1, 2), (2, 3)]


def test_an_actors_window_counts_all_its_generators_together():
    @ray.remote(_actor_generator_backpressure_num_objects=2, max_concurrency=3)
    class Counts:
        def __init__(self):
            self.made = 0

        def items(self):
            for i in range(5):
                self.made += 1
                yield i

        def number(self):
            return self.made

    actor = Counts.remote()
    first, second = actor.items.remote(), actor.items.remote()
    ray.wait([first, second], num_returns=1)
    assert ray.get(actor.number.remote()) <= 2
    taken = {first: [], second: []}
    waiting = [first, second]
    while waiting:
        (ready, *_), _ = ray.wait(waiting, timeout=30)
        try:
            taken[ready].append(ray.get(next(ready)))
        except StopIteration:
            waiting.remove(ready)
    assert list(taken.values()) == [[0, 1, 2, 3, 4]] * 2
    assert ray.get(actor.number.remote()) == 10


@pytest.mark.parametrize("option", ["_generator_backpressure_num_objects", "_num_objects_per_yield"])
def test_options_of_generators_refuse_zero_and_other_types(option):
    with pytest.raises(ValueError, match=option):
        ray.remote(**{option: 0})(lambda: None)
    with pytest.raises(TypeError, match=option):
        ray.remote(**{option: "x"})(lambda: None)


# ------------------------------------------------------------------------------------------ actors


@ray.remote
class Sync:
    def items(self, n):
        for i in range(n):
            yield i

    @ray.method(num_returns="streaming")
    def decorated(self):
        yield "decorated"

    @ray.method(num_returns=2)
    def two(self):
        yield 1
        yield 2


@ray.remote
class Async:
    async def items(self, n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    def sync_items(self, n):
        for i in range(n):
            yield i

    async def waits(self, directory):
        while not os.path.exists(os.path.join(directory, "go")):
            yield "waiting"
            await asyncio.sleep(0.01)

    async def opens(self, directory):
        open(os.path.join(directory, "go"), "w").close()


def test_methods_of_sync_threaded_and_async_actors_are_generators():
    assert outcomes(Sync.remote().items.remote(3)) == [0, 1, 2]
    assert outcomes(Sync.options(max_concurrency=2).remote().items.remote(3)) == [0, 1, 2]
    actor = Async.remote()
    assert outcomes(actor.items.remote(3)) == [0, 1, 2]
    assert outcomes(actor.sync_items.remote(3)) == [0, 1, 2]


def test_num_returns_of_methods():
    actor = Sync.remote()
    assert outcomes(actor.decorated.remote()) == ["decorated"]
    assert ray.get(actor.two.remote()) == [1, 2]
    assert outcomes(actor.two.options(num_returns="streaming").remote()) == [1, 2]
    assert ray.get(actor.items.options(num_returns=2).remote(2)) == [0, 1]


def test_other_calls_of_an_async_actor_run_between_two_items(tmp_path):
    actor = Async.remote()
    generator = actor.waits.remote(str(tmp_path))
    assert ray.get(next(generator)) == "waiting"
    ray.get(actor.opens.remote(str(tmp_path)), timeout=30)
    assert set(outcomes(generator)) <= {"waiting"}


def test_a_generator_ends_with_its_actor(tmp_path):
    actor = Endless.remote()
    generator = actor.items.remote()
    ray.get(next(generator), timeout=30)
    ray.kill(actor)
    assert outcomes(generator)[-1] == "ActorDiedError"
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(generator.completed(), timeout=30)


def test_a_generator_ends_with_the_process_that_called_it():
    @ray.remote
    def endless():
        while True:
            time.sleep(0.01)
            yield 1

    @ray.remote(max_retries=0)
    def calls_and_dies():
        generator = endless.options(_generator_backpressure_num_objects=2).remote()
        ray.get(next(generator))
        os._exit(1)

    @ray.remote(num_cpus=2)
    def needs_all():
        return "free"

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(calls_and_dies.remote(), timeout=30)
    assert ray.get(needs_all.remote(), timeout=60) == "free"


# ------------------------------------------------------------------------------------------ num_returns


def test_streaming_needs_a_function_that_yields():
    with pytest.raises(ValueError, match="can only be used with generator functions"):
        ray.remote(num_returns="streaming")(lambda: None)
    with pytest.raises(ValueError, match="can only be used with generator functions"):

        class _Plain:
            @ray.method(num_returns="streaming")
            def plain(self):
                return 1


def test_a_number_of_returns_is_filled_from_the_generator():
    assert ray.get(count.options(num_returns=2).remote(2)) == [0, 1]
    assert ray.get(count.options(num_returns=1).remote(2)) == 0
    assert [outcome(ref) for ref in count.options(num_returns=3).remote(2)] == [0, 1, "RayTaskError(ValueError)"]
    assert [outcome(ref) for ref in fails_after.options(num_returns=3).remote(1)] == [0, *["RayTaskError(KeyError)"] * 2]


def test_dynamic_is_one_reference_to_all_of_them_and_warns():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        ref = count.options(num_returns="dynamic").remote(3)
    assert any("dynamic" in str(warning.message) for warning in seen)
    assert isinstance(ref, ray.ObjectRef)
    generator = ray.get(ref)
    assert isinstance(generator, ray.DynamicObjectRefGenerator)
    assert len(generator) == 3
    assert ray.get(list(generator)) == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:num_returns='dynamic'")
def test_a_dynamic_generator_can_be_passed_on_and_holds_its_items():
    @ray.remote
    def total(generator):
        return len(generator), sum(ray.get(ref) for ref in generator)

    ref = count.options(num_returns="dynamic").remote(4)
    assert ray.get(total.remote(ref)) == (4, 6)
    assert ray.get(total.remote(ray.get(ref))) == (4, 6)


@pytest.mark.filterwarnings("ignore:num_returns='dynamic'")
def test_the_error_of_a_dynamic_generator_is_its_last_reference():
    assert outcomes(ray.get(fails_after.options(num_returns="dynamic").remote(2))) == [0, 1, "RayTaskError(KeyError)"]


def test_several_objects_of_one_yield_are_items_of_their_own():
    @ray.remote(_num_objects_per_yield=2)
    def pairs(n):
        for i in range(n):
            yield i, -i

    @ray.remote(_num_objects_per_yield=2)
    def singles():
        yield 1

    assert outcomes(pairs.remote(2)) == [0, 0, 1, -1]
    assert outcomes(singles.remote()) == ["RayTaskError(ValueError)"]
    with pytest.raises(ValueError, match="cannot be overridden"):
        pairs.options(_num_objects_per_yield=3)


# ------------------------------------------------------------------------------------------ get, wait, pass


def test_get_of_a_generator_is_the_generator():
    generator = count.remote(1)
    assert ray.get(generator) is generator
    with pytest.raises(TypeError):
        ray.get([generator])


def test_wait_takes_generators_and_does_not_advance_them(tmp_path):
    generator = yields_when_told.remote(str(tmp_path), 1)
    ref = ray.put(0)
    assert ray.wait([generator, ref], num_returns=1, timeout=30) == ([ref], [generator])
    touch(tmp_path, "go0")
    assert ray.wait([generator, ref], num_returns=2, timeout=30) == ([generator, ref], [])
    assert ray.get(next(generator)) == 0


def test_a_finished_generator_is_ready_for_wait():
    generator = count.remote(0)
    assert ray.wait([generator], timeout=30) == ([generator], [])
    with pytest.raises(StopIteration):
        next(generator)
    assert ray.wait([generator], timeout=30) == ([generator], [])


def test_wait_for_one_generator_alone_is_refused():
    with pytest.raises(TypeError):
        ray.wait(count.remote(1))


def test_a_generator_does_not_pickle():
    generator = count.remote(1)
    with pytest.raises(TypeError):
        pickle.dumps(generator)
    with pytest.raises(TypeError):
        count.remote(generator)
    with pytest.raises(TypeError):
        ray.put(generator)


def test_what_only_local_generators_can_do_is_not_implemented():
    generator = count.remote(1)
    for verb in ("send", "throw"):
        with pytest.raises(NotImplementedError):
            getattr(generator, verb)(None)
    with pytest.raises(NotImplementedError):
        generator.close()
    for verb, arguments in (("asend", [None]), ("athrow", [None]), ("aclose", [])):
        with pytest.raises(NotImplementedError):
            asyncio.run(getattr(generator, verb)(*arguments))


def test_a_generator_is_one_readable_line():
    text = repr(count.remote(1))
    assert "ObjectRefGenerator" in text
    assert "\n" not in text


@pytest.mark.skipif(IS_RAY, reason="there the two wait for each other")
def test_a_generator_that_waits_for_its_consumer_lends_its_cpu():
    """The consumer wants both CPUs, and the generator has one: it does not keep it while it waits for that very consumer."""

    @ray.remote(num_cpus=2)
    def double(x):
        return 2 * x

    generator = count.options(_generator_backpressure_num_objects=1).remote(3)
    assert [ray.get(double.remote(ref), timeout=30) for ref in generator] == [0, 2, 4]
