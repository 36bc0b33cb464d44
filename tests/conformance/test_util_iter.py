"""Parallel iterators: where items are made and transformed, in which order they are gathered, and how iterators are joined."""

from __future__ import annotations

import importlib
import itertools
import time

import pytest

from tests.conformance.subject import ray

it = importlib.import_module(f"{ray.__name__}.util.iter")

CLUSTER = {"num_cpus": 4}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def double(x):
    return 2 * x


def is_even(x):
    return x % 2 == 0


def test_items_are_dealt_out_in_turn_and_gathered_in_turn():
    items = it.from_items([1, 2, 3, 4, 5], num_shards=2)
    assert items.num_shards() == 2
    assert list(items.gather_sync()) == [1, 2, 3, 4, 5]
    assert [list(shard) for shard in items.shards()] == [[1, 3, 5], [2, 4]]


def test_a_range_is_cut_into_stretches():
    numbers = it.from_range(5, num_shards=2)
    assert [list(shard) for shard in numbers.shards()] == [[0, 1], [2, 3, 4]]
    assert list(numbers.gather_sync()) == [0, 2, 1, 3, 4]
    assert numbers.take(2) == [0, 2]


def test_iterables_and_functions_that_give_one_are_shards():
    assert list(it.from_iterators([range(2), lambda: (x for x in "ab")]).gather_sync()) == [0, "a", 1, "b"]
    with pytest.raises(TypeError):
        it.from_iterators([(x for x in range(3))])


def test_what_repeats_begins_again():
    assert it.from_items([1, 2], num_shards=1, repeat=True).take(5) == [1, 2, 1, 2, 1]
    assert it.from_iterators([lambda: iter([1, 2])], repeat=True).take(3) == [1, 2, 1]


def test_it_says_what_it_is_and_is_gathered_and_not_iterated_over():
    numbers = it.from_range(4).for_each(double).filter(is_even).batch(2)
    assert repr(numbers) == "ParallelIterator[from_range[4, shards=2].for_each().filter().batch(2)]"
    assert str(numbers.gather_sync()) == f"LocalIterator[{numbers!r}.gather_sync()]"
    with pytest.raises(TypeError, match=r"You must use it.gather_sync\(\) or it.gather_async\(\)"):
        iter(numbers)


def test_items_are_transformed_in_their_shards():
    numbers = it.from_range(8, num_shards=2)
    assert list(numbers.for_each(double).gather_sync()) == [0, 8, 2, 10, 4, 12, 6, 14]
    assert list(numbers.filter(is_even).gather_sync()) == [0, 4, 2, 6]
    assert list(numbers.batch(3).gather_sync()) == [[0, 1, 2], [4, 5, 6], [3], [7]]
    assert list(numbers.batch(3).flatten().gather_sync()) == [0, 4, 1, 5, 2, 6, 3, 7]
    assert list(numbers.combine(lambda x: [x] * x).gather_sync())[:4] == [1, 4, 2, 4]
    assert list(numbers.transform(lambda items: (x for x in items if x % 4 == 1)).gather_sync()) == [1, 5]


def test_batches_across_shards_have_an_item_of_each():
    assert list(it.from_iterators([range(3), range(2)]).batch_across_shards()) == [[0, 0], [1, 1], [2]]


def test_items_are_gathered_as_they_come():
    def slow():
        time.sleep(1)
        yield "slow"

    numbers = it.from_iterators([slow, range(3)])
    assert list(numbers.gather_async()) == [0, 1, 2, "slow"]
    assert sorted(it.from_range(100, 3).gather_async(batch_ms=10, num_async=2)) == list(range(100))
    with pytest.raises(ValueError, match="queue depth must be positive"):
        numbers.gather_async(num_async=0)
    with pytest.raises(ValueError, match="batch time must be positive"):
        numbers.gather_async(batch_ms=-1)


def test_many_calls_of_one_shard_run_at_once_as_tasks():
    def wait(x):
        time.sleep(0.2)
        return x

    began = time.monotonic()
    numbers = it.from_range(8, num_shards=1).for_each(wait, max_concurrency=0, resources={"num_cpus": 0})
    assert sorted(numbers.gather_sync()) == list(range(8))
    assert time.monotonic() - began < 30
    with pytest.raises(AssertionError, match="max_concurrency must be non-negative"):
        numbers.for_each(wait, max_concurrency=-1)


def test_an_error_in_a_shard_is_raised_where_it_is_gathered():
    with pytest.raises(ZeroDivisionError):
        list(it.from_range(4).for_each(lambda x: 1 / x).gather_sync())


def test_shuffling_is_repeatable_with_a_seed_and_loses_nothing():
    numbers = it.from_range(20, num_shards=1)
    shuffled = list(numbers.local_shuffle(shuffle_buffer_size=10, seed=1).gather_sync())
    assert shuffled == list(numbers.local_shuffle(shuffle_buffer_size=10, seed=1).gather_sync())
    assert sorted(shuffled) == list(range(20)) != shuffled
    assert "local_shuffle(shuffle_buffer_size=10, seed=1)" in repr(numbers.local_shuffle(shuffle_buffer_size=10, seed=1))
    assert sorted(numbers.gather_sync().shuffle(5)) == list(range(20))


@pytest.mark.differs("shards-of-a-repartition", hangs=True)
def test_another_number_of_shards_has_the_same_items():
    parts = it.from_range(8, 2).repartition(3)
    assert parts.num_shards() == 3
    assert [sorted(shard) for shard in parts.shards()] == [[0, 3, 4, 7], [1, 5], [2, 6]]
    doubled = it.from_range(4, 2).for_each(double).repartition(1, batch_ms=5).for_each(double)
    assert sorted(doubled.gather_async()) == [0, 4, 8, 12]


def test_a_union_has_the_shards_of_both():
    both = it.from_items(["a", "b"], 1).for_each(lambda x: x * 2).union(it.from_items([1, 2], 1).for_each(double))
    assert both.num_shards() == 2
    assert list(both.gather_sync()) == ["aa", 2, "bb", 4]
    assert "ParallelUnion" in repr(both)
    with pytest.raises(ValueError, match=r"not allowed after union"):
        both.select_shards([0])
    with pytest.raises(TypeError, match="ParallelIterator"):
        both.union([1])


def test_shards_are_selected():
    numbers = it.from_items([1, 2, 3, 4], num_shards=4).for_each(double)
    assert sorted(numbers.select_shards([0, 2]).gather_sync()) == [2, 6]
    with pytest.raises(ValueError, match="at least one shard"):
        numbers.select_shards([])
    with pytest.raises(AssertionError, match="Invalid actor index"):
        numbers.select_shards([7])
    with pytest.raises(ValueError, match="Shard index out of range"):
        numbers.get_shard(4)


def test_a_shard_is_read_by_a_task():
    @ray.remote
    def read(shard):
        return list(shard)

    numbers = it.from_range(4).for_each(double)
    assert ray.get([read.remote(shard) for shard in numbers.shards()]) == [[0, 2], [4, 6]]


def test_actors_of_ones_own_are_shards():
    @ray.remote
    class Letters(it.ParallelIteratorWorker):
        def __init__(self, letters):
            super().__init__(letters, False)

    assert list(it.from_actors([Letters.remote("ab"), Letters.remote("cd")]).gather_sync()) == ["a", "c", "b", "d"]


def test_gathered_items_are_transformed_here():
    gathered = it.from_range(6, num_shards=1).gather_sync().for_each(double).filter(lambda x: x != 4).batch(2)
    assert list(gathered) == [[0, 2], [6, 8], [10]]
    steps = it.from_range(3, 1).gather_sync().combine(lambda x: [x, x]).transform(lambda items: (-x for x in items))
    assert steps.take(4) == [0, 0, -1, -1]
    assert list(steps) == [-2, -2], "take leaves the rest"
    assert next(it.from_range(3, 1).gather_sync()) == 0


def test_items_are_zipped_with_the_actor_that_they_came_from():
    pairs = list(it.from_range(4).gather_async().for_each(double).zip_with_source_actor())
    assert sorted(item for _, item in pairs) == [0, 2, 4, 6]
    assert len({actor for actor, _ in pairs}) == 2
    with pytest.raises(ValueError, match="Could not identify source actor"):
        list(it.from_range(4).gather_sync().zip_with_source_actor())


def test_local_iterators_are_joined_in_turn_or_as_they_come():
    one, other = it.from_items([1, 2, 3], 1), it.from_items([7, 8], 1)
    assert list(one.gather_sync().union(other.gather_sync(), deterministic=True)) == [1, 7, 2, 8, 3]
    assert sorted(one.gather_sync().union(other.gather_async())) == [1, 2, 3, 7, 8]
    weighted = one.gather_sync().union(other.gather_sync(), round_robin_weights=[2, 1])
    assert list(weighted) == [1, 2, 7, 3, 8]
    with pytest.raises(ValueError, match="LocalIterator"):
        one.gather_sync().union([1])
    with pytest.raises(ValueError, match="Length of round robin weights"):
        one.gather_sync().union(other.gather_sync(), round_robin_weights=[1])


def test_a_slow_iterator_of_a_union_does_not_hold_up_the_other():
    def slow():
        for x in range(2):
            time.sleep(1)
            yield f"slow {x}"

    joined = it.from_iterators([slow]).gather_sync().union(it.from_range(10, 1).gather_sync())
    assert list(joined) == [*range(10), "slow 0", "slow 1"]


def test_as_many_as_are_there_are_taken_of_a_star():
    one, other = it.from_items([1, 2, 3], 1), it.from_items([7, 8], 1)
    joined = one.gather_sync().union(other.gather_sync(), round_robin_weights=[1, "*"])
    assert sorted(joined) == [1, 2, 3, 7, 8]


def test_an_error_in_a_union_is_raised_where_it_is_read():
    bad = it.from_range(2, 1).gather_sync().for_each(lambda x: 1 / x)
    with pytest.raises(ZeroDivisionError):
        list(bad.union(it.from_range(2, 1).gather_sync()))


def test_copies_have_all_the_items():
    one, other = it.from_range(5, 1).gather_sync().duplicate(2)
    assert list(itertools.chain.from_iterable(zip(one, other, strict=False))) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    joined = it.from_range(5, 1).gather_sync().duplicate(2)
    assert sorted(joined[0].for_each(double).union(joined[1], deterministic=True)) == [0, 0, 1, 2, 2, 3, 4, 4, 6, 8]
    with pytest.raises(ValueError, match=">= 2"):
        it.from_range(5, 1).gather_sync().duplicate(1)


def test_items_are_shown(capsys):
    it.from_range(4, 1).show(2)
    assert capsys.readouterr().out == "0\n1\n"
