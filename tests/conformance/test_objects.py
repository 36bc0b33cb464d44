"""References and the three verbs get, put and wait: what they take, refuse and promise."""

import asyncio
import concurrent.futures
import gc
import threading
import time

import numpy as np
import pytest

from tests.conformance.subject import ray

ON_NODES_TOO = True


@ray.remote
def echo(value):
    return value


@pytest.fixture
def gate(tmp_path):
    """A task that waits for a file, as `wait_for_gate.remote(gate)`; opened at the end so that nothing is left waiting."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@ray.remote
def wait_for_gate(path, value=None):
    while not path.exists():
        time.sleep(0.01)
    return value


# ------------------------------------------------------------------------------------------ get


def test_get_of_a_list_keeps_its_order_and_what_is_in_it_twice():
    one, two = ray.put(1), echo.remote(2)
    assert ray.get([two, one, two, one]) == [2, 1, 2, 1]
    assert ray.get([]) == []


@pytest.mark.parametrize("given", [(), {}, "ref", 1, None, {1}])
def test_get_takes_a_reference_or_a_list_and_nothing_else(given):
    with pytest.raises(ValueError, match="Invalid type of object refs, <class .*'object_refs' must either be an ObjectRef or a list of ObjectRefs"):
        ray.get(given)


def test_get_of_a_tuple_of_references_is_refused():
    with pytest.raises(ValueError, match="Invalid type of object refs"):
        ray.get((ray.put(1), ray.put(2)))


def test_what_is_no_reference_in_a_list_is_named():
    with pytest.raises(TypeError, match=r"Attempting to call `get` on the value 7, which is not an \w*ray.ObjectRef"):
        ray.get([ray.put(1), 7])


def test_a_timeout_of_zero_asks_for_what_is_ready_now(gate):
    assert ray.get(ray.put("here"), timeout=0) == "here"
    with pytest.raises(ray.exceptions.GetTimeoutError, match=r"Get timed out: some object\(s\) not ready"):
        ray.get(wait_for_gate.remote(gate), timeout=0)


def test_a_failed_reference_in_a_list_wins_over_one_that_never_comes(gate):
    @ray.remote
    def fails():
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        ray.get([wait_for_gate.remote(gate), fails.remote()], timeout=30)


def test_a_value_that_was_got_twice_is_equal_and_an_array_cannot_be_written_to():
    ref = ray.put(np.arange(200_000))
    first, second = ray.get(ref), ray.get(ref)
    assert np.array_equal(first, second)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


def test_a_value_of_builtin_types_can_be_changed_without_changing_the_object():
    ref = ray.put({"a": [1]})
    ray.get(ref)["a"].append(2)
    assert ray.get(ref) == {"a": [1]}


def test_an_array_outlives_its_reference():
    array = ray.get(ray.put(np.full(300_000, 3.0)))
    gc.collect()
    for _ in range(5):
        ray.put(np.zeros(300_000))
    assert array.sum() == 900_000


# ------------------------------------------------------------------------------------------ put


def test_a_reference_cannot_be_put_but_a_list_with_it_can():
    inner = ray.put(5)
    with pytest.raises(TypeError, match=r"Calling 'put' on an \w*ray.ObjectRef is not allowed"):
        ray.put(inner)
    [again] = ray.get(ray.put([inner]))
    assert again == inner
    assert ray.get(again) == 5


def test_the_owner_cannot_be_chosen_any_more():
    with pytest.raises(ValueError, match="_owner"):
        ray.put(1, _owner=object())


def test_none_and_empty_values_are_values():
    for value in (None, b"", "", [], {}, 0, False):
        assert ray.get(ray.put(value)) == value


def test_what_is_put_is_a_copy():
    value = [1, 2]
    ref = ray.put(value)
    value.append(3)
    assert ray.get(ref) == [1, 2]
    array = np.zeros(200_000)
    ref = ray.put(array)
    array[:] = 1
    assert ray.get(ref).sum() == 0


# ------------------------------------------------------------------------------------------ wait


def test_wait_gives_two_lists_in_the_order_of_the_input(gate):
    late = wait_for_gate.remote(gate)
    done = [ray.put(n) for n in range(3)]
    ready, rest = ray.wait([done[2], late, done[0], done[1]], num_returns=3, timeout=30)
    assert ready == [done[2], done[0], done[1]]
    assert rest == [late]


def test_wait_gives_no_more_than_it_was_asked_for():
    refs = [ray.put(n) for n in range(4)]
    for asked, count in (({"num_returns": 2}, 2), ({}, 1)):
        ready, rest = ray.wait(refs, **asked)
        assert len(ready) == count  # which of those that are ready is not said
        assert (ready, rest) == ([r for r in refs if r in ready], [r for r in refs if r not in ready])


def test_wait_gives_what_there_is_at_its_timeout(gate):
    late, done = wait_for_gate.remote(gate), ray.put(1)
    assert ray.wait([late, done], num_returns=2, timeout=0.1) == ([done], [late])
    assert ray.wait([late], timeout=0) == ([], [late])


def test_a_failed_task_is_ready():
    @ray.remote
    def fails():
        raise ValueError

    ref = fails.remote()
    assert ray.wait([ref], timeout=30) == ([ref], [])


def test_wait_for_nothing_is_nothing():
    assert ray.wait([]) == ([], [])


@pytest.mark.parametrize("fetch_local", [True, False])
def test_wait_with_and_without_fetching(fetch_local):
    ref = echo.remote(np.zeros(300_000))
    assert ray.wait([ref], fetch_local=fetch_local, timeout=30) == ([ref], [])
    assert ray.get(ref).shape == (300_000,)


@pytest.mark.parametrize(
    ("refs", "options", "error", "said"),
    [
        (lambda r: r, {}, TypeError, "wait\\(\\) expected a list of .*ObjectRef.*, got a single"),
        (lambda r: (r,), {}, TypeError, "wait\\(\\) expected a list of .*got <class 'tuple'>"),
        (lambda r: [1], {}, TypeError, "got list containing <class 'int'>"),
        (lambda r: [r, r], {}, ValueError, "Wait requires a list of unique"),
        (lambda r: [r], {"num_returns": 0}, ValueError, "Invalid number of objects to return 0"),
        (lambda r: [r], {"num_returns": -1}, ValueError, "Invalid number of objects to return -1"),
        (lambda r: [r], {"num_returns": 2}, ValueError, "num_returns cannot be greater than the number"),
        (lambda r: [r], {"timeout": -1}, ValueError, "The 'timeout' argument must be nonnegative. Received -1"),
    ],
)
def test_wait_refuses(refs, options, error, said):
    with pytest.raises(error, match=said):
        ray.wait(refs(ray.put(1)), **options)


# ------------------------------------------------------------------------------------------ references


def test_references_compare_and_hash_by_what_they_refer_to():
    ref = ray.put(1)
    [again] = ray.get(ray.put([ref]))
    assert again == ref
    assert hash(again) == hash(ref)
    assert {ref: "found"}[again] == "found"
    assert ray.put(1) != ref
    assert ref != 1


def test_a_reference_shows_its_id():
    ref = ray.put(1)
    assert repr(ref) == str(ref) == f"ObjectRef({ref.hex()})"
    assert bytes.fromhex(ref.hex()) == ref.binary()
    assert len(ref.binary()) == ref.size()
    assert not ref.is_nil()
    assert ray.ObjectRef.nil().is_nil()
    assert ray.ObjectID is ray.ObjectRef


def test_references_made_up_are_different():
    assert ray.ObjectRef.from_random() != ray.ObjectRef.from_random()


def test_a_reference_names_its_task_and_job():
    @ray.remote
    def who():
        return ray.get_runtime_context().get_task_id(), ray.get_runtime_context().get_job_id()

    ref = who.remote()
    assert ray.get(ref) == (ref.task_id().hex(), ref.job_id().hex())
    assert isinstance(ref.task_id(), ray.TaskID)
    assert isinstance(ref.job_id(), ray.JobID)


def test_what_a_task_makes_belongs_to_the_job_of_its_driver():
    @ray.remote
    def makes():
        return ray.put(1).job_id().hex()

    assert ray.get(makes.remote()) == ray.get_runtime_context().get_job_id()


def test_a_get_of_what_is_here_already_keeps_the_cpu():
    @ray.remote
    def busy():
        began, ref = time.monotonic(), ray.put(1)
        while time.monotonic() < began + 0.1:
            ray.get(ref)
        return began, time.monotonic()

    spans = ray.get([busy.remote() for _ in range(6)])
    assert max(sum(start <= at < end for start, end in spans) for at, _ in spans) == 2


def test_a_reference_made_of_the_bytes_of_another_is_equal_to_it():
    ref = ray.put(1)
    assert ray.ObjectRef(ref.binary()) == ref
    assert len(ref.binary()) == ray.ObjectRef.size()


def test_returns_of_one_task_have_one_task_and_different_ids():
    @ray.remote(num_returns=3)
    def three():
        return 1, 2, 3

    refs = three.remote()
    assert len({ref.task_id().hex() for ref in refs}) == 1
    assert len(set(refs)) == 3


def test_a_future_gives_the_value_and_its_cancel_does_not_stop_the_task(gate):
    ref = wait_for_gate.remote(gate, "late")
    future = ref.future()
    assert isinstance(future, concurrent.futures.Future)
    future.cancel()
    gate.touch()
    assert ray.get(ref) == "late"
    assert echo.remote(4).future().result(timeout=30) == 4


def test_a_callback_is_called_with_the_value():
    got = concurrent.futures.Future()
    echo.remote("done")._on_completed(got.set_result)
    assert got.result(timeout=30) == "done"


def test_readiness_can_be_awaited_without_the_value(gate):
    @ray.remote
    def fails():
        raise KeyError("k")

    refs = [echo.remote(1), fails.remote()]

    async def main():
        return await asyncio.gather(*(ref._ready() for ref in refs))

    assert asyncio.run(main()) == refs
    told = concurrent.futures.Future()
    refs[0]._on_ready(told.set_result)
    assert told.result(timeout=30) is None
    told = []
    late = wait_for_gate.remote(gate)
    late._on_ready(told.append)()  # what it returns calls it off
    gate.touch()
    ray.get(late)
    assert None not in told  # Ray's says that it was called off


def test_references_are_awaited_together():
    async def main():
        refs = [echo.remote(n) for n in range(5)]
        return await asyncio.gather(*refs), await asyncio.wait_for(echo.remote("one"), 30)

    assert asyncio.run(main()) == ([0, 1, 2, 3, 4], "one")


def test_a_failed_reference_raises_where_it_is_awaited():
    @ray.remote
    def fails():
        raise KeyError("k")

    async def main():
        await fails.remote()

    with pytest.raises(KeyError):
        asyncio.run(main())


def test_a_wait_of_asyncio_can_be_given_up_and_the_reference_used_again(gate):
    ref = wait_for_gate.remote(gate, 3)

    async def impatient():
        await asyncio.wait_for(ref.as_future(), 0.05)

    with pytest.raises((asyncio.TimeoutError, TimeoutError)):
        asyncio.run(impatient())
    gate.touch()
    assert ray.get(ref) == 3


def test_a_reference_can_be_subscripted_for_type_checkers():
    assert ray.ObjectRef[int] is not None


# ------------------------------------------------------------------------------------------ who holds what


def test_an_argument_on_its_way_is_kept_after_the_driver_has_dropped_it(gate):
    @ray.remote
    def total(array, _after):
        return array.sum()

    result = total.remote(ray.put(np.ones(300_000)), wait_for_gate.remote(gate))
    gc.collect()
    gate.touch()
    assert ray.get(result) == 300_000


def test_a_reference_that_an_actor_borrowed_is_kept_after_the_driver_has_dropped_it():
    @ray.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs

        def total(self):
            return ray.get(self.refs[0]).sum()

    keeper = Keeper.remote()
    ref = ray.put(np.ones(300_000))
    ray.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    for _ in range(5):
        ray.put(np.zeros(300_000))
    assert ray.get(keeper.total.remote()) == 300_000


def test_a_borrowed_reference_can_be_lent_on():
    @ray.remote
    def depth(refs, n):
        return ray.get(refs[0]).sum() if n == 0 else ray.get(depth.remote(refs, n - 1))

    assert ray.get(depth.remote([ray.put(np.ones(300_000))], 4), timeout=60) == 300_000


def test_a_reference_in_a_put_inside_a_put_keeps_what_is_inside():
    ref = ray.put([ray.put([ray.put(np.ones(300_000))])])
    gc.collect()
    assert ray.get(ray.get(ray.get(ref)[0])[0]).sum() == 300_000


def test_a_reference_in_a_closure_is_held_by_the_function():
    big = ray.put(np.ones(300_000))

    @ray.remote
    def total():
        return ray.get(big).sum()

    assert ray.get(total.remote()) == 300_000


def test_a_reference_pickled_by_hand_comes_back_as_itself():
    ref = ray.put("by hand")
    again = ray.cloudpickle.loads(ray.cloudpickle.dumps(ref))
    assert again == ref
    assert ray.get(again) == "by hand"


def test_a_reference_inside_an_object_of_a_class_is_found():
    class Box:
        def __init__(self, ref):
            self.ref = ref

    @ray.remote
    def open_(box):
        return ray.get(box.ref)

    assert ray.get(open_.remote(Box(ray.put("inside")))) == "inside"


# ------------------------------------------------------------------------------------------ many


def test_a_thousand_references_in_one_argument_one_return_and_one_get():
    refs = [ray.put(n) for n in range(1000)]

    @ray.remote
    def pass_on(refs):
        return refs

    again = ray.get(pass_on.remote(refs))
    assert again == refs
    assert ray.get(again) == list(range(1000))


def test_a_thousand_references_as_arguments():
    @ray.remote
    def count(*values):
        return sum(values)

    assert ray.get(count.remote(*[ray.put(1) for _ in range(1000)])) == 1000


def test_a_task_of_a_thousand_returns():
    @ray.remote(num_returns=1000)
    def many():
        return range(1000)

    assert ray.get(many.remote()) == list(range(1000))


def test_a_wait_for_a_thousand_drains_them_one_by_one():
    left = [echo.remote(n) for n in range(300)]
    got = []
    while left:
        [one], left = ray.wait(left)
        got.append(ray.get(one))
    assert sorted(got) == list(range(300))


# ------------------------------------------------------------------------------------------ CPUs


def test_a_parent_that_waits_lends_its_cpu_however_deep():
    @ray.remote(num_cpus=2)
    def nested(n):
        return n if n == 0 else 1 + ray.get(nested.remote(n - 1))

    assert ray.get(nested.remote(3), timeout=60) == 3


def test_a_parent_that_waits_with_wait_lends_its_cpu():
    @ray.remote(num_cpus=2)
    def child():
        return 1

    @ray.remote(num_cpus=2)
    def parent():
        [ref], _ = ray.wait([child.remote()])
        return ray.get(ref)

    assert ray.get(parent.remote(), timeout=60) == 1


def test_threads_of_a_task_use_the_api():
    @ray.remote
    def threaded():
        results = [None] * 4

        def work(n):
            results[n] = ray.get(echo.remote(ray.put(n)))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return results

    assert ray.get(threaded.remote(), timeout=60) == [0, 1, 2, 3]
