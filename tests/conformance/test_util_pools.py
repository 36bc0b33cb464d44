"""What is built on actors and tasks: ActorPool, Queue, as_completed, map_unordered."""

import asyncio
import itertools
import queue
import threading

import pytest

from tests.conformance.subject import ray

if ray.__name__ == "ray":
    import ray.util.queue  # noqa: F401
    from ray.util.queue import Empty, Full, Queue
else:
    from nbray.util.queue import Empty, Full, Queue


class Doubler:
    def double(self, v):
        if v == "bad":
            raise ValueError("bad")
        return 2 * v

    def die(self):
        import os

        os._exit(1)

    def after(self, gate, v):
        gate.get()
        return v

    @ray.method(num_returns=2)
    def both(self, v):
        return v, -v


def two():
    cls = ray.remote(num_cpus=0)(Doubler)
    return cls.remote(), cls.remote()


def double(actor, v):
    return actor.double.remote(v)


# ------------------------------------------------------------------------------------------ ActorPool


def test_map_keeps_the_order():
    pool = ray.util.ActorPool(two())
    assert list(pool.map(double, range(10))) == [2 * i for i in range(10)]
    assert not pool.has_next()
    assert pool.has_free()


def test_map_unordered_gives_what_is_ready_first():
    a, b = two()
    pool = ray.util.ActorPool([a, b])
    gate = Queue()
    results = pool.map_unordered(lambda actor, v: actor.after.remote(gate, v) if v == "late" else actor.double.remote(v), ["late", 1, 2, 3])
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    gate.put(None)
    assert list(results) == ["late"]
    gate.shutdown()


def test_submit_and_get_next_are_in_order_of_submission():
    pool = ray.util.ActorPool(two())
    for v in range(5):
        pool.submit(double, v)
    assert not pool.has_free()
    taken = []
    while pool.has_next():
        taken.append(pool.get_next())
    assert taken == [0, 2, 4, 6, 8]
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_get_next_after_get_next_unordered_is_refused():
    gate = Queue()
    a, b = two()
    pool = ray.util.ActorPool([a, b])
    pool.submit(lambda actor, v: actor.after.remote(gate, v), 0)
    pool.submit(double, 1)
    assert pool.get_next_unordered() == 2
    with pytest.raises(ValueError, match="not allowed to call get_next"):
        pool.get_next()
    gate.put(None)
    assert pool.get_next_unordered() == 0
    gate.shutdown()


def test_a_timeout_leaves_the_result_to_come_and_ignoring_it_gives_it_up():
    gate = Queue()
    a, _ = two()
    pool = ray.util.ActorPool([a])
    pool.submit(lambda actor, v: actor.after.remote(gate, v), 1)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0)
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0)
    assert pool.has_next()
    with pytest.raises(TimeoutError, match="ignored"):
        pool.get_next(timeout=0, ignore_if_timedout=True)
    assert not pool.has_next()
    gate.put(None)
    pool.submit(double, 5)
    assert pool.get_next() == 10
    gate.shutdown()


def test_an_actor_whose_call_raised_is_used_again():
    a, _ = two()
    pool = ray.util.ActorPool([a])
    for v in ("bad", 1, "bad", 2):
        pool.submit(double, v)
    with pytest.raises(ValueError, match="bad"):
        pool.get_next()
    assert pool.get_next() == 2
    with pytest.raises(ValueError, match="bad"):
        pool.get_next_unordered()
    assert pool.get_next() == 4


def test_a_dead_actor_is_taken_out_and_the_others_go_on():
    pool = ray.util.ActorPool(two())
    pool.submit(lambda actor, _: actor.die.remote(), None)
    with pytest.raises(ray.exceptions.RayActorError):
        pool.get_next()
    assert list(pool.map(double, range(6))) == [2 * i for i in range(6)]


def test_idle_actors_are_popped_and_pushed():
    a, b = two()
    pool = ray.util.ActorPool([a])
    pool.submit(double, 1)
    assert pool.pop_idle() is None
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(a)
    pool.push(b)
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(b)
    assert pool.pop_idle() == b
    assert pool.get_next() == 2
    assert pool.pop_idle() == a
    assert pool.pop_idle() is None


def test_a_pushed_actor_takes_what_waits():
    a, b = two()
    pool = ray.util.ActorPool([])
    pool.submit(double, 4)
    pool.push(a)
    assert pool.get_next() == 8


# ------------------------------------------------------------------------------------------ Queue


def test_items_come_out_in_the_order_they_went_in():
    q = Queue()
    for i in range(5):
        q.put(i)
    assert (len(q), q.size(), q.qsize(), q.empty(), q.full()) == (5, 5, 5, False, False)
    assert [q.get() for _ in range(5)] == list(range(5))
    assert q.empty()
    q.shutdown()


def test_full_and_empty_are_those_of_the_standard_library():
    assert issubclass(Empty, queue.Empty)
    assert issubclass(Full, queue.Full)
    q = Queue(maxsize=2)
    with pytest.raises(Empty):
        q.get_nowait()
    with pytest.raises(Empty):
        q.get(block=False)
    with pytest.raises(Empty):
        q.get(timeout=0.01)
    q.put_nowait(1)
    q.put(2, block=False)
    assert q.full()
    with pytest.raises(Full):
        q.put_nowait(3)
    with pytest.raises(Full):
        q.put(3, timeout=0.01)
    for call in (lambda: q.get(timeout=-1), lambda: q.put(3, timeout=-1)):
        with pytest.raises(ValueError, match="non-negative"):
            call()
    q.shutdown()


def test_batches_go_wholly_or_not_at_all():
    q = Queue(maxsize=4)
    q.put_nowait_batch([1, 2, 3])
    with pytest.raises(Full):
        q.put_nowait_batch([4, 5])
    assert q.qsize() == 3
    with pytest.raises(Empty):
        q.get_nowait_batch(4)
    assert q.get_nowait_batch(0) == []
    assert q.get_nowait_batch(2) == [1, 2]
    with pytest.raises(TypeError):
        q.put_nowait_batch(1)
    with pytest.raises(TypeError):
        q.get_nowait_batch("1")
    with pytest.raises(ValueError):
        q.get_nowait_batch(-1)
    q.shutdown()


def test_the_async_methods_wait_for_one_another():
    async def both():
        q = Queue(maxsize=1)
        getting = asyncio.ensure_future(q.get_async())
        await q.put_async("a")
        assert await getting == "a"
        await q.put_async("b", block=False)
        with pytest.raises(Full):
            await q.put_async("c", block=False)
        with pytest.raises(Full):
            await q.put_async("c", timeout=0.01)
        assert await q.get_async(block=False) == "b"
        with pytest.raises(Empty):
            await q.get_async(block=False)
        with pytest.raises(Empty):
            await q.get_async(timeout=0.01)
        with pytest.raises(ValueError):
            await q.get_async(timeout=-1)
        q.shutdown()

    asyncio.run(both())


def test_a_queue_connects_tasks():
    @ray.remote
    def produce(q, items):
        for item in items:
            q.put(item)

    @ray.remote
    def consume(q, count):
        return [q.get() for _ in range(count)]

    q = Queue(maxsize=2)
    consumed = consume.remote(q, 6)
    ray.get(produce.remote(q, range(6)))
    assert ray.get(consumed) == list(range(6))
    q.shutdown()


def test_a_blocked_get_takes_what_is_put_later_and_a_blocked_put_goes_when_there_is_room():
    q = Queue(maxsize=1)
    got = []
    thread = threading.Thread(target=lambda: got.append(q.get()))
    thread.start()
    q.put("x")
    thread.join()
    assert got == ["x"]
    q.put(1)
    thread = threading.Thread(target=lambda: q.put(2))
    thread.start()
    assert [q.get(), q.get()] == [1, 2]
    thread.join()
    q.shutdown()


@pytest.mark.parametrize("force", [False, True])
def test_a_shut_down_queue_has_no_actor(force):
    q = Queue(actor_options={"num_cpus": 1})
    q.put(1)
    copy = Queue.__new__(Queue)
    copy.__dict__.update(q.__dict__)
    q.shutdown(force=force)
    assert q.actor is None
    with pytest.raises(ray.exceptions.RayActorError):
        while True:  # a kill is on its way for a moment
            copy.put(2)


# ------------------------------------------------------------------------------------------ as_completed, map_unordered


@ray.remote(num_cpus=0)
def after(gate, v):
    if gate is not None:
        gate.get()
    return v


def test_as_completed_gives_what_is_ready_and_then_the_rest():
    gate = Queue()
    refs = [after.remote(gate, "late"), after.remote(None, 1), after.remote(None, 2)]
    results = ray.util.as_completed(refs, chunk_size=1)
    assert {next(results), next(results)} == {1, 2}
    gate.put(None)
    assert list(results) == ["late"]
    gate.shutdown()


def test_as_completed_gives_references_when_asked():
    refs = [after.remote(None, i) for i in range(25)]
    found = list(ray.util.as_completed(refs, yield_obj_refs=True))
    assert set(found) == set(refs)
    assert sorted(ray.util.as_completed(refs)) == list(range(25))
    assert list(ray.util.as_completed([])) == []


def test_map_unordered_reads_no_further_than_its_backpressure():
    read = []

    def items():
        for i in itertools.count():
            read.append(i)
            yield i

    @ray.remote
    def double(v):
        return 2 * v

    results = ray.util.map_unordered(double, items(), backpressure_size=4, chunk_size=1)
    assert next(results) % 2 == 0
    assert len(read) == 4
    results.close()
    assert sorted(ray.util.map_unordered(double, range(25), backpressure_size=None)) == [2 * i for i in range(25)]
    assert sorted(ray.util.map_unordered(double, range(25), backpressure_size=5, chunk_size=9)) == [2 * i for i in range(25)]
    assert all(isinstance(r, ray.ObjectRef) for r in ray.util.map_unordered(double, range(3), yield_obj_refs=True))


def test_a_failed_item_raises_what_its_task_raised():
    @ray.remote
    def fail(v):
        raise KeyError(v)

    with pytest.raises(KeyError):
        list(ray.util.map_unordered(fail, [1]))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"chunk_size": 0}, "chunk_size"), ({"num_returns": 2}, "num_returns"), ({"backpressure_size": 0}, "backpressure_size")],
)
def test_sizes_are_checked(options, said):
    with pytest.raises(ValueError, match=said):
        list(ray.util.map_unordered(after, [1], **options))
    if "backpressure_size" not in options:
        with pytest.raises(ValueError, match=said):
            list(ray.util.as_completed([after.remote(None, 1)], **options))
