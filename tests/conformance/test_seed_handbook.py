"""A handbook of Ray Core, 2024: tasks, actors, cancellation, generators, the State API."""

import asyncio
import importlib
import time

import pytest

from tests.conformance.subject import needs_dashboard, ray


def test_add(capsys):
    @ray.remote
    def add(x, y):
        return x + y

    result = add.remote(1, 2)
    print(ray.get(result))
    assert capsys.readouterr().out == "3\n"


def test_a_reference_as_an_argument(capsys):
    @ray.remote
    def f(x):
        return x + 1

    ref = f.remote(10)
    result = f.remote(ref)
    print(ray.get(result))
    assert capsys.readouterr().out == "12\n"


def test_wait_for_some():
    @ray.remote
    def slow_task(i):
        import time

        time.sleep(0.2)
        return i

    tasks = [slow_task.remote(i) for i in range(5)]
    done, not_done = ray.wait(tasks, num_returns=2)
    assert (len(done), len(not_done)) == (2, 3)
    assert set(done) | set(not_done) == set(tasks)
    assert ray.get(done) == [tasks.index(ref) for ref in done]


def test_several_returns(capsys):
    @ray.remote(num_returns=2)
    def split_data(x):
        return x[: len(x) // 2], x[len(x) // 2 :]

    part1, part2 = split_data.remote([1, 2, 3, 4])
    print(ray.get(part1), ray.get(part2))
    assert capsys.readouterr().out == "[1, 2] [3, 4]\n"


def test_cancel_a_task():
    @ray.remote
    def long_task():
        import time

        time.sleep(10)

    ref = long_task.remote()
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=9)


@pytest.mark.differs("interrupted-sleep")
def test_cancel_a_running_task_and_one_that_is_finished(tmp_path):
    started = tmp_path / "started"

    @ray.remote
    def long_task():
        started.touch()
        time.sleep(10)

    @ray.remote
    def quick_task():
        return 1

    ref = long_task.remote()
    while not started.exists():
        ray.wait([ref], timeout=0.05)
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=9)
    done = quick_task.remote()
    assert ray.get(done) == 1
    ray.cancel(done)
    assert ray.get(done) == 1


def test_nested_tasks(capsys):
    @ray.remote
    def nested_task(x):
        return x * 2

    @ray.remote
    def outer_task(x):
        ref = nested_task.remote(x)
        return ray.get(ref)

    print(ray.get(outer_task.remote(5)))
    assert capsys.readouterr().out == "10\n"


def test_a_blocked_task_lends_its_cpu_to_what_it_waits_for():
    @ray.remote
    def descend(depth):
        return depth if depth == 0 else ray.get(descend.remote(depth - 1)) + 1

    assert ray.get(descend.remote(5)) == 5


def test_a_generators_values_are_awaited_one_by_one(capsys):
    @ray.remote
    def generator_task():
        for i in range(5):
            yield i

    async def consume_generator():
        async for ref in generator_task.remote():
            print(await ref)

    # The handbook's last line gives the coroutine to `get`, which takes references only.
    coroutine = consume_generator()
    with pytest.raises(ValueError, match="coroutine"):
        ray.get(coroutine)
    coroutine.close()
    asyncio.run(consume_generator())
    assert capsys.readouterr().out == "0\n1\n2\n3\n4\n"
    assert ray.get(generator_task.options(num_returns=5).remote()) == [0, 1, 2, 3, 4]


def test_an_actor_has_state(capsys):
    @ray.remote
    class Counter:
        def __init__(self):
            self.count = 0

        def increment(self):
            self.count += 1
            return self.count

    counter = Counter.remote()
    print(ray.get(counter.increment.remote()))
    print(ray.get(counter.increment.remote()))
    assert capsys.readouterr().out == "1\n2\n"


@pytest.mark.differs("repr-of-actor-classes")
def test_an_actor_class_with_resources():
    @ray.remote(num_cpus=2, num_gpus=1)
    class MyActor:
        def __init__(self):
            pass

    assert repr(MyActor) == "ActorClass(MyActor)"


@pytest.mark.differs("timeline-at-once")
def test_actors_run_in_parallel_and_each_in_order(capsys, most_at_once):
    @ray.remote
    class Worker:
        def process(self, value):
            time.sleep(0.1)
            return value * 2

    actor1 = Worker.remote()
    actor2 = Worker.remote()
    ray.get([actor1.__ray_ready__.remote(), actor2.__ray_ready__.remote()])

    refs = [actor1.process.remote(10), actor2.process.remote(20)]
    print(ray.get(refs))
    assert most_at_once("Worker.process") == 2

    ref1 = actor1.process.remote(30)
    ref2 = actor1.process.remote(40)
    print(ray.get([ref1, ref2]))
    assert capsys.readouterr().out == "[20, 40]\n[60, 80]\n"


def test_a_handle_can_be_passed_on(capsys):
    @ray.remote
    class Worker:
        def process(self, value):
            return value * 2

    @ray.remote
    def use_actor(actor, value):
        return ray.get(actor.process.remote(value))

    actor = Worker.remote()
    result = use_actor.remote(actor, 50)
    print(ray.get(result))
    assert capsys.readouterr().out == "100\n"


def test_cancelling_an_actors_task_leaves_the_actor():
    @ray.remote
    class Worker:
        def long_task(self):
            time.sleep(1)
            return "done"

        def quick_task(self):
            return "quick"

    actor = Worker.remote()
    running = actor.long_task.remote()
    queued = actor.long_task.remote()
    ray.cancel(queued)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(queued, timeout=9)
    ray.cancel(running)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(running, timeout=9)
    assert ray.get(actor.quick_task.remote(), timeout=9) == "quick"


@needs_dashboard
def test_the_state_api_lists_actors():
    list_actors = importlib.import_module(f"{ray.__name__}.util.state").list_actors

    @ray.remote
    class Listed:
        pass

    actor = Listed.remote()
    ray.get(actor.__ray_ready__.remote())
    listed = [a for a in list_actors() if a["class_name"] == "Listed"]
    assert [(a["actor_id"], a["state"]) for a in listed] == [(actor._actor_id.hex(), "ALIVE")]
    for entry in listed:
        print(entry)
