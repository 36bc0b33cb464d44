"""Objects: what goes in comes out, arrays are views that pin, memory comes back, borrowed references hold."""

from __future__ import annotations

import gc
import os
import pickle
import weakref

import cloudpickle
import numpy as np
import pytest

import nbray as ray
from nbray import session
from nbray.config import INLINE_LIMIT
from nbray.exceptions import ObjectFreedError, ObjectLostError, ResultDeserializationError
from tests.cluster.conditions import until

MIB = 2**20


def store_used():
    """Bytes of the store that objects take, by the ledger's own account; what is lent to writers is no object yet."""
    gc.collect()
    stats = session.engine.questions.ask("store", {})
    return stats["used"] - stats["lent"]


@pytest.fixture(autouse=True)
def nothing_stays_in_the_store(cluster):
    yield
    until(lambda: store_used() == 0, f"the store is empty, and not at {store_used()} bytes", within_s=5)


@ray.remote
def identity(x):
    return x


SIZES = [0, 1, 1000, INLINE_LIMIT - 200, INLINE_LIMIT - 1, INLINE_LIMIT, INLINE_LIMIT + 1, 2 * INLINE_LIMIT, 5 * MIB]


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_any_size_survive_put_argument_result_and_reference(size):
    value = os.urandom(size)
    ref = ray.put(value)
    assert ray.get(ref) == value
    assert ray.get(identity.remote(value)) == value
    assert ray.get(identity.remote(ref)) == value


ARRAYS = {
    "no elements": np.zeros(0),
    "no rows": np.zeros((0, 5)),
    "no dimensions": np.array(3.5),
    "Fortran order": np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
    "negative strides": np.arange(60_000)[::-1],
    "every third": np.arange(90_000)[::3],
    "structured": np.zeros(5000, dtype=[("a", "i4"), ("b", "f8"), ("c", "S20")]),
    "text": np.array(["ä", "longer text"] * 20_000),
    "objects": np.array([None, "x", {"k": 1}] * 100, dtype=object),
    "read-only": np.frombuffer(bytes(200_000), dtype="u1"),
    "times": np.arange(20_000).astype("M8[s]"),
    "big-endian": np.arange(50_000, dtype=">i8"),
    "booleans": np.tile([True, False], 100_000),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_every_kind_come_back_equal_and_of_the_same_type(kind):
    array = ARRAYS[kind]
    for back in (ray.get(ray.put(array)), ray.get(identity.remote(array))):
        np.testing.assert_array_equal(back, array)
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.flags.f_contiguous == array.flags.f_contiguous or not array.flags.contiguous
        del back


def test_a_masked_array_and_a_memory_map_survive(tmp_path):
    masked = np.ma.masked_array(np.arange(40_000), mask=np.arange(40_000) % 2 == 0)
    back = ray.get(identity.remote(masked))
    assert back.sum() == masked.sum()
    mapped = np.memmap(tmp_path / "map", dtype="f8", mode="w+", shape=30_000)
    mapped[:] = 2
    assert ray.get(identity.remote(mapped)).sum() == 60_000


def test_a_large_array_is_read_only_and_not_copied():
    ref = ray.put(np.zeros(MIB))
    one, two = ray.get(ref), ray.get(ref)
    assert not one.flags.writeable
    assert one.__array_interface__["data"][0] == two.__array_interface__["data"][0]
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1


def test_an_array_keeps_its_bytes_after_its_reference_is_gone():
    array = ray.get(ray.put(np.arange(MIB)))
    view, expected = array[10:20], list(range(10, 20))
    del array
    gc.collect()
    # Were the memory free, these would be written over it: the allocator hands out what was freed last.
    refs = [ray.put(np.full(MIB, i)) for i in range(8)]
    assert list(view) == expected
    assert store_used() >= 9 * 8 * MIB
    del refs, view


def test_memory_is_reused_once_the_array_and_the_reference_are_gone():
    for i in range(50):
        array = ray.get(ray.put(np.full(MIB, i)))
        assert array[-1] == i
        del array
    until(lambda: store_used() < 3 * 8 * MIB, "the store has not kept fifty arrays")


def test_an_argument_in_a_task_is_a_view_that_a_kept_slice_pins():
    @ray.remote
    class Keeper:
        def keep(self, array):
            self.slice = array[100:110]

        def look(self):
            return self.slice.tolist()

        def drop(self):
            del self.slice

    keeper = Keeper.remote()
    ref = ray.put(np.arange(MIB))
    ray.get(keeper.keep.remote(ref))
    del ref
    others = [ray.put(np.zeros(MIB)) for _ in range(4)]
    assert ray.get(keeper.look.remote()) == list(range(100, 110))
    ray.get(keeper.drop.remote())
    del others


def test_store_use_is_shown_by_nodes_and_goes_down_again():
    def used():
        return ray.nodes()[0]["ObjectStoreUsed"]

    ref = ray.put(np.zeros(16 * MIB))
    until(lambda: used() >= 128 * MIB, "the object is seen")
    del ref
    until(lambda: used() < 128 * MIB, "its memory is seen to be free")


def test_results_that_nobody_fetched_are_freed_too():
    @ray.remote
    def big():
        return np.zeros(MIB)

    refs = [big.remote() for _ in range(5)]
    ray.wait(refs, num_returns=5)
    assert store_used() >= 5 * 8 * MIB
    del refs


def test_results_dropped_before_they_are_made_are_freed():
    @ray.remote
    def big(i):
        return np.full(MIB, i)

    @ray.remote
    def nothing():
        return None

    for i in range(10):
        big.remote(i)
    ray.get([nothing.remote() for _ in range(10)])


def test_arguments_of_tasks_that_were_taken_back_unbegun_are_let_go(tmp_path):
    """Pushed behind a task that then blocks, their arguments were pinned by a worker that never ran them."""

    @ray.remote
    def short(i):
        return i

    @ray.remote
    def size(array):
        return array.nbytes

    @ray.remote
    def blocks(array):
        return ray.get(short.remote(array.nbytes))

    array = ray.put(np.zeros(MIB))
    ray.get([size.remote(array) for _ in range(40)])
    for _ in range(10):
        refs = [blocks.remote(array)] + [size.remote(array) for _ in range(30)]
        assert set(ray.get(refs)) == {8 * MIB}


# ------------------------------------------------------------------------------------------ borrowing


def test_a_borrowed_reference_holds_the_object_after_its_owner_dropped_its_own():
    @ray.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs

        def look(self):
            return [int(ray.get(ref)[-1]) for ref in self.refs]

        def drop(self):
            del self.refs

    keeper = Keeper.remote()
    refs = [ray.put(np.full(MIB, i)) for i in range(3)]
    ray.get(keeper.keep.remote(refs))
    del refs
    gc.collect()
    assert ray.get(keeper.look.remote()) == [0, 1, 2]
    assert store_used() >= 3 * 8 * MIB
    ray.get(keeper.drop.remote())


def test_a_reference_passed_on_by_a_borrower_holds_the_object():
    @ray.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs

        def pass_on(self, other):
            return ray.get(other.keep.remote(self.refs))

        def look(self):
            return int(ray.get(self.refs[0])[-1])

    first, second = Keeper.remote(), Keeper.remote()
    ref = ray.put(np.full(MIB, 7))
    ray.get(first.keep.remote([ref]))
    del ref
    ray.get(first.pass_on.remote(second))
    ray.kill(first)
    assert ray.get(second.look.remote()) == 7
    ray.kill(second)


def test_the_object_of_a_borrower_that_dies_is_freed():
    @ray.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs

    keeper = Keeper.remote()
    ray.get(keeper.keep.remote([ray.put(np.zeros(MIB))]))
    assert store_used() >= 8 * MIB
    ray.kill(keeper)


def test_a_reference_inside_a_value_holds_what_it_refers_to():
    outer = ray.put({"inner": ray.put(np.full(MIB, 5))})
    gc.collect()
    inner = ray.get(outer)["inner"]
    del outer
    assert ray.get(inner)[0] == 5


class Tells:
    """Looks at its reference while it is unpickled, and drops it if it is told to."""

    def __init__(self, ref, keep):
        self.ref, self.keep = ref, keep

    def __setstate__(self, state):
        self.value = int(ray.get(state["ref"])[0])
        self.ref = state["ref"] if state["keep"] else None


def test_references_inside_a_value_work_while_it_is_unpickled_and_go_when_they_are_not_kept():
    before = store_used()
    kept, dropped = ray.put(np.full(MIB, 1)), ray.put(np.full(MIB, 2))
    outer = ray.put([Tells(kept, True), Tells(dropped, False), kept, pickle.loads(pickle.dumps(kept))])
    del kept, dropped
    first, second, again, twin = ray.get(outer)
    del outer
    assert (first.value, second.value, second.ref) == (1, 2, None)
    assert first.ref == again == twin
    del again, twin
    until(lambda: store_used() - before < 16 * MIB, "what was not kept to be freed")
    assert ray.get(first.ref)[0] == 1


def test_a_value_that_does_not_load_leaves_no_references_behind():
    class Refuses:
        def __init__(self, ref):
            self.ref = ref

        def __setstate__(self, state):
            raise ValueError("not here")

    before = store_used()
    outer = ray.put(Refuses(ray.put(np.full(MIB, 1))))
    with pytest.raises(ResultDeserializationError, match="not here"):
        ray.get(outer)
    del outer
    gc.collect()
    until(lambda: store_used() <= before, "the object inside to be freed")


def test_a_reference_that_went_to_a_task_and_came_back_is_the_same():
    ref = ray.put("value")
    [back] = ray.get(identity.remote([ref]))
    assert back == ref
    assert hash(back) == hash(ref)
    del ref
    assert ray.get(back) == "value"


def test_what_a_finished_task_put_is_had_while_its_worker_lives():
    @ray.remote
    def make():
        return [ray.put(np.full(MIB, i)) for i in range(3)]

    refs = ray.get(make.remote())
    assert [int(ray.get(ref)[0]) for ref in refs] == [0, 1, 2]


def test_a_reference_pickled_by_the_user_works_while_the_object_lives():
    ref = ray.put("out of band")
    again = pickle.loads(cloudpickle.dumps(ref))
    assert ray.get(again) == "out of band"


def test_a_reference_pickled_by_the_user_keeps_nothing_alive_and_says_so():
    ref = ray.put("out of band")
    kept = cloudpickle.dumps(ref)
    del ref
    ray.get(ray.put(1))  # any step releases what was dropped
    with pytest.raises((ObjectFreedError, ObjectLostError)):
        ray.get(pickle.loads(kept), timeout=20)


def test_ten_thousand_small_puts_are_all_there_and_all_freed():
    refs = [ray.put(i) for i in range(10_000)]
    assert ray.get(refs) == list(range(10_000))
    del refs
    gc.collect()

    def owned():
        with session.engine.runtime.locked() as state:
            return len(state.objects.objects)

    until(lambda: owned() < 100, "the owner has forgotten them")


def test_one_large_argument_given_to_many_tasks_is_stored_once():
    @ray.remote
    def first(array):
        return array[0]

    ref = ray.put(np.ones(MIB))
    before = store_used()
    assert ray.get([first.remote(ref) for _ in range(20)]) == [1.0] * 20
    assert store_used() == before
    del ref


def test_the_same_large_array_twice_in_one_call_is_stored_once():
    @ray.remote
    def same(a, b):
        return a.__array_interface__["data"][0] == b.__array_interface__["data"][0]

    array = np.zeros(MIB)
    assert ray.get(same.remote(array, array))


def test_values_do_not_outlive_their_references_in_the_driver():
    class Thing:
        pass

    ref = ray.put(Thing())
    seen = weakref.ref(ray.get(ref))
    gc.collect()
    assert seen() is None
