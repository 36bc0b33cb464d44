"""Collectives on numpy arrays between actors, tasks and the driver."""

import os

import numpy as np
import pytest

from tests.conformance.subject import ray

if ray.__name__ == "ray":
    pytest.skip("Ray's gloo backend needs torch", allow_module_level=True)

from nbray.util import collective as col
from nbray.util.collective import CollectiveError, ReduceOp

LARGE = 50_001  #: float64: over the limit for messages, and not divisible by the number of members
OPS = {ReduceOp.SUM: np.sum, ReduceOp.PRODUCT: np.prod, ReduceOp.MIN: np.min, ReduceOp.MAX: np.max}


@ray.remote(num_cpus=0)
class Member:
    def init(self, world, rank, group="default", timeout=30_000):
        col.init_collective_group(world, rank, "gloo", group, timeout)
        return col.get_rank(group), col.get_collective_group_size(group)

    def call(self, name, *arrays, **options):
        """The operation's arrays after it; lists of arrays are lists."""
        own = [[a.copy() for a in each] if isinstance(each, list) else each.copy() for each in arrays]
        getattr(col, name)(*own, **options)
        return own

    def destroy(self, group="default"):
        col.destroy_collective_group(group)
        return col.is_group_initialized(group)

    def die(self):
        os._exit(1)


@pytest.fixture(scope="module")
def members(cluster):
    """Groups of 2, 3 and 4 of the same actors, by their size."""
    actors = [Member.remote() for _ in range(4)]
    for size in (2, 3, 4):
        col.create_collective_group(actors[:size], size, list(range(size)), "gloo", f"group{size}")
    yield actors
    for size in (2, 3, 4):
        assert ray.get([actor.destroy.remote(f"group{size}") for actor in actors[:size]]) == [False] * size


def each(members, size, name, arguments, **options):
    """Call the operation in every member; arguments(rank) are its arrays."""
    return ray.get([m.call.remote(name, *arguments(rank), group_name=f"group{size}", **options) for rank, m in enumerate(members[:size])])


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (LARGE,)])
def test_allreduce_sums(members, size, shape):
    def array(rank):
        return np.asarray(np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape) + rank)

    expected = np.sum([array(r) for r in range(size)], axis=0)
    found = each(members, size, "allreduce", lambda rank: [array(rank)])
    assert all(np.array_equal(mine, expected) for (mine,) in found)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "float16"])
@pytest.mark.parametrize("op", list(ReduceOp))
def test_every_operation_and_dtype_is_reduced(members, op, dtype):
    def array(rank):
        return (np.arange(1, 6) + rank).astype(dtype)

    expected = OPS[op]([array(r) for r in range(3)], axis=0, **({"dtype": dtype} if op.name in ("SUM", "PRODUCT") else {}))
    for (mine,) in each(members, 3, "allreduce", lambda rank: [array(rank)], op=op):
        assert mine.dtype == np.dtype(dtype)
        assert np.array_equal(mine, expected)


@pytest.mark.parametrize("length", [4, LARGE])
@pytest.mark.parametrize("target", [0, 2])
def test_reduce_changes_the_array_of_its_target_only(members, length, target):
    found = each(members, 3, "reduce", lambda rank: [np.full(length, float(rank + 1))], dst_rank=target)
    assert [set(mine.tolist()) for (mine,) in found] == [{6.0} if rank == target else {rank + 1.0} for rank in range(3)]


@pytest.mark.parametrize("length", [4, LARGE])
def test_broadcast_allgather_and_reducescatter(members, length):
    def own(rank):
        return np.full(length, float(rank))

    assert [set(mine.tolist()) for (mine,) in each(members, 4, "broadcast", lambda rank: [own(rank)], src_rank=3)] == [{3.0}] * 4
    gathered = each(members, 4, "allgather", lambda rank: [[own(-1) for _ in range(4)], own(rank)])
    assert all([part[0] for part in parts] == [0, 1, 2, 3] for parts, _ in gathered)
    scattered = each(members, 4, "reducescatter", lambda rank: [own(-1), [own(10 * i + rank) for i in range(4)]])
    assert [mine[0] for mine, _ in scattered] == [40 * i + 6 for i in range(4)]


@pytest.mark.parametrize("length", [3, LARGE])
def test_what_is_sent_is_received_in_order(members, length):
    a, b = members[:2]
    sent = [a.call.remote("send", np.full(length, float(i)), dst_rank=1, group_name="group2") for i in range(3)]
    got = [b.call.remote("recv", np.zeros(length), src_rank=0, group_name="group2") for _ in range(3)]
    assert [mine[0] for (mine,) in ray.get(got)] == [0, 1, 2]
    ray.get(sent)


def test_a_barrier_lets_nobody_through_before_the_last(members):
    early = members[0].call.remote("barrier", group_name="group2")
    assert ray.wait([early], timeout=0.1) == ([], [early])
    ray.get([early, members[1].call.remote("barrier", group_name="group2")])


def test_tasks_and_the_driver_are_members_too():
    @ray.remote
    def member(rank):
        col.init_collective_group(2, rank, group_name="mixed")
        array = np.array([rank + 1.0])
        col.allreduce(array, "mixed")
        col.destroy_collective_group("mixed")
        return array[0]

    task = member.remote(1)
    col.init_collective_group(2, 0, group_name="mixed")
    array = np.array([1.0])
    col.allreduce(array, "mixed")
    assert (array[0], ray.get(task)) == (3.0, 3.0)
    col.destroy_collective_group("mixed")
    assert (col.get_rank("mixed"), col.get_collective_group_size("mixed")) == (-1, -1)


def test_a_group_is_made_again_under_its_name():
    actors = [Member.remote() for _ in range(2)]
    for _ in range(2):
        assert ray.get([a.init.remote(2, rank, "again") for rank, a in enumerate(actors)]) == [(0, 2), (1, 2)]
        ray.get([a.call.remote("barrier", group_name="again") for a in actors])
        ray.get([a.destroy.remote("again") for a in actors])


def test_a_dead_member_fails_the_others():
    actors = [Member.remote() for _ in range(3)]
    col.create_collective_group(actors, 3, [0, 1, 2], "gloo", "mortal")
    waiting = [a.call.remote("allreduce", np.ones(3), group_name="mortal") for a in actors[:2]]
    actors[2].die.remote()
    for each in waiting:
        with pytest.raises(CollectiveError, match="'mortal', rank [01] of 3: rank 2 died"):
            ray.get(each, timeout=60)
    with pytest.raises(CollectiveError, match="rank 2 died"):
        ray.get(actors[0].call.remote("barrier", group_name="mortal"))


def test_a_member_that_leaves_does_not_come_or_calls_something_else_fails_the_others():
    a, b = Member.remote(), Member.remote()
    col.create_collective_group([a, b], 2, [0, 1], "gloo", "leaving")
    waiting = a.call.remote("barrier", group_name="leaving")
    ray.get(b.destroy.remote("leaving"))
    with pytest.raises(CollectiveError, match="rank 1 left the group"):
        ray.get(waiting)
    col.create_collective_group([a, b], 2, [0, 1], "gloo", "slow", 100)
    with pytest.raises(CollectiveError, match=r"ranks \[1\] did not call barrier within 0.1 s"):
        ray.get(a.call.remote("barrier", group_name="slow"))
    col.create_collective_group([a, b], 2, [0, 1], "gloo", "odd")
    different = [a.call.remote("allreduce", np.ones(3), group_name="odd"), b.call.remote("allreduce", np.ones(4), group_name="odd")]
    for each in different:
        with pytest.raises(CollectiveError, match=r"calls allreduce SUM \([34],\) float64 while rank"):
            ray.get(each)
    with pytest.raises(CollectiveError, match=r"ranks \[1\] had not joined after 0.1 s"):
        ray.get(a.init.remote(2, 0, "alone", 100))


def test_what_cannot_be_is_refused(members):
    a = members[0]
    for call, error, said in (
        (lambda: col.init_collective_group(0, 0), ValueError, "World size"),
        (lambda: col.init_collective_group(2, 2), ValueError, "rank 2"),
        (lambda: col.init_collective_group(2, 0, "nccl"), NotImplementedError, "torch.distributed"),
        (lambda: col.init_collective_group(2, 0, "carrier pigeon"), ValueError, "Unrecognized backend"),
        (lambda: col.init_collective_group(2, 0, "gloo", ""), ValueError, "group_name"),
        (lambda: col.create_collective_group(members[:2], 2, [0, 0]), RuntimeError, "permutation"),
        (lambda: col.create_collective_group(members[:2], 2, [0]), RuntimeError, "one rank"),
        (lambda: col.allreduce(np.ones(2)), RuntimeError, "not initialized"),
        (lambda: ray.get(a.init.remote(2, 0, "group2")), RuntimeError, "twice"),
        (lambda: ray.get(a.call.remote("send", np.ones(2), dst_rank=0, group_name="group2")), RuntimeError, "is self"),
        (lambda: ray.get(a.call.remote("broadcast", np.ones(2), src_rank=2, group_name="group2")), ValueError, "less than world size"),
        (lambda: ray.get(a.call.remote("broadcast", np.ones(2), src_rank=-1, group_name="group2")), ValueError, "negative"),
        (lambda: ray.get(a.call.remote("allgather", [np.ones(2)], np.ones(2), group_name="group2")), RuntimeError, "length"),
        (lambda: ray.get(a.__ray_call__.remote(lambda _, x: col.allreduce(x, "group2"), [1])), RuntimeError, "Unrecognized tensor"),
        (lambda: ray.get(a.__ray_call__.remote(lambda _, x: col.allreduce(x, "group2"), np.ones(10**5))), ValueError, "read-only"),
    ):
        with pytest.raises(error, match=said):
            call()
    assert (col.gloo_available(), col.nccl_available(), col.is_backend_available("gloo")) == (True, False, True)
