"""Collective operations on arrays between actors, tasks and drivers: allreduce, broadcast and the others, in place.

    init_collective_group(world_size=2, rank=rank, backend="gloo")     in every member, or once for actors:
    create_collective_group([a, b], 2, [0, 1], backend="gloo")
    allreduce(array)

Arrays are numpy's, or torch's in memory; they travel through the object store. Members call the same operations in the same
order. When a member dies, leaves, or does not come for `gloo_timeout` milliseconds, the others get a CollectiveError.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbray import absent, api, connection
from nbray.actors import ActorHandle
from nbray.util.collective.group import Array, Group
from nbray.util.collective.types import Backend, CollectiveError, ReduceOp

__all__ = [
    "Backend",
    "CollectiveError",
    "ReduceOp",
    "allgather",
    "allreduce",
    "barrier",
    "broadcast",
    "create_collective_group",
    "destroy_collective_group",
    "get_collective_group_size",
    "get_group_handle",
    "get_rank",
    "gloo_available",
    "init_collective_group",
    "is_backend_available",
    "is_group_initialized",
    "nccl_available",
    "recv",
    "reduce",
    "reducescatter",
    "send",
]

TIMEOUT_MS = 30_000  #: as in Ray

_groups: dict[str, Group] = {}  #: of this process
_lock = threading.Lock()


# ------------------------------------------------------------------------------------------------------- groups


def gloo_available() -> bool:
    return True


def nccl_available() -> bool:
    return False


def is_backend_available(backend: str) -> bool:
    return backend.upper() in ("GLOO", "TORCH_GLOO")


def is_group_initialized(group_name: str) -> bool:
    return group_name in _groups


def init_collective_group(
    world_size: int, rank: int, backend: str = Backend.GLOO, group_name: str = "default", gloo_timeout: int = TIMEOUT_MS
) -> None:
    """Become member `rank` of `world_size` of the group, and wait for the others.

    `gloo_timeout` is how many milliseconds this member waits for others, now and in each operation.
    """
    Backend(backend)
    _check_numbers(world_size, [rank])
    if not group_name:
        raise ValueError(f"group_name '{group_name}' needs to be a string.")
    connection.engine()
    with _lock:
        if group_name in _groups:
            raise RuntimeError(f"Trying to initialize a group twice: this process is in {group_name!r} already")
        _groups[group_name] = Group(group_name, rank, world_size, gloo_timeout / 1000)


def create_collective_group(
    actors: Sequence[ActorHandle],
    world_size: int,
    ranks: Sequence[int],
    backend: str = Backend.GLOO,
    group_name: str = "default",
    gloo_timeout: int = TIMEOUT_MS,
) -> None:
    """Make `actors` the members, actor i with `ranks[i]`: called once, by whoever has their handles. Waits for all."""
    Backend(backend)
    if len(ranks) != len(actors):
        raise RuntimeError(f"Each actor should correspond to one rank. Got '{len(ranks)}' ranks but '{len(actors)}' actors")
    if sorted(ranks) != list(range(len(ranks))):
        raise RuntimeError(f"Ranks must be a permutation from 0 to '{len(ranks)}'. Got '{list(ranks)}'.")
    _check_numbers(world_size, ranks)
    if len(actors) != world_size:
        raise RuntimeError(f"a group of {world_size} needs as many actors, not {len(actors)}")
    api.get(
        [
            actor.__ray_call__.remote(_join, world_size, rank, backend, group_name, gloo_timeout)
            for actor, rank in zip(actors, ranks, strict=True)
        ]
    )


def _join(_instance: Any, *arguments: Any) -> None:
    init_collective_group(*arguments)


def destroy_collective_group(group_name: str = "default") -> None:
    """Leave. For the other members the group is over too."""
    with _lock:
        group = _groups.pop(group_name, None)
    if group is None:
        warnings.warn(f"The group '{group_name}' does not exist.", RuntimeWarning, stacklevel=2)
        return
    group.destroy()


def get_rank(group_name: str = "default") -> int:
    """-1 in a process that is not a member."""
    group = _groups.get(group_name)
    return -1 if group is None else group.rank


def get_collective_group_size(group_name: str = "default") -> int:
    """-1 in a process that is not a member."""
    group = _groups.get(group_name)
    return -1 if group is None else group.world_size


def get_group_handle(group_name: str = "default") -> Group:
    group = _groups.get(group_name)
    if group is None:
        raise RuntimeError(f"The collective group '{group_name}' is not initialized in the process.")
    return group


# ------------------------------------------------------------------------------------------------------- operations


def allreduce(tensor: Any, group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """`tensor` of every member becomes the combination of all."""
    get_group_handle(group_name).allreduce(_array(tensor, written=True), op)


def reduce(tensor: Any, dst_rank: int = 0, group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """`tensor` of `dst_rank` becomes the combination of all."""
    group = _with_rank(group_name, dst_rank)
    group.reduce(_array(tensor, written=group.rank == dst_rank), dst_rank, op)


def broadcast(tensor: Any, src_rank: int = 0, group_name: str = "default") -> None:
    """`tensor` of every member becomes that of `src_rank`."""
    group = _with_rank(group_name, src_rank)
    group.broadcast(_array(tensor, written=group.rank != src_rank), src_rank)


def allgather(tensor_list: list[Any], tensor: Any, group_name: str = "default") -> None:
    """`tensor_list[i]` becomes the tensor of rank i."""
    group = get_group_handle(group_name)
    group.allgather(_arrays(tensor_list, group, written=True), _array(tensor))


def reducescatter(tensor: Any, tensor_list: list[Any], group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """`tensor` of rank i becomes the combination of everybody's `tensor_list[i]`."""
    group = get_group_handle(group_name)
    group.reducescatter(_array(tensor, written=True), _arrays(tensor_list, group), op)


def send(tensor: Any, dst_rank: int, group_name: str = "default") -> None:
    """Send `tensor` to `dst_rank`, which calls `recv`."""
    group = _with_rank(group_name, dst_rank)
    if dst_rank == group.rank:
        raise RuntimeError(f"The destination rank '{dst_rank}' is self.")
    group.send(_array(tensor), dst_rank)


def recv(tensor: Any, src_rank: int, group_name: str = "default") -> None:
    """`tensor` becomes what `src_rank` sent next."""
    group = _with_rank(group_name, src_rank)
    if src_rank == group.rank:
        raise RuntimeError(f"The source rank '{src_rank}' is self.")
    group.recv(_array(tensor, written=True), src_rank)


def barrier(group_name: str = "default") -> None:
    """Return when every member has called it."""
    get_group_handle(group_name).barrier()


# ------------------------------------------------------------------------------------------------------- checks


def _check_numbers(world_size: int, ranks: Sequence[int]) -> None:
    if world_size <= 0:
        raise ValueError(f"World size must be greater than zero. Got '{world_size}'.")
    for rank in ranks:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is outside of a group of {world_size}: ranks count from 0")


def _with_rank(group_name: str, rank: int) -> Group:
    group = get_group_handle(group_name)
    if rank < 0:
        raise ValueError(f"rank '{rank}' is negative.")
    if rank >= group.world_size:
        raise ValueError(f"rank '{rank}' must be less than world size '{group.world_size}'")
    return group


def _array(tensor: Any, *, written: bool = False) -> Array:
    """A numpy array over the tensor's own memory."""
    array = tensor
    if not isinstance(tensor, np.ndarray) and type(tensor).__module__.split(".")[0] == "torch":
        array = tensor.detach().numpy()  # raises for what is on a GPU, and says so
    if not isinstance(array, np.ndarray):
        raise RuntimeError(
            f"Unrecognized tensor type '{type(tensor)}'. Supported types are: numpy.ndarray, torch.Tensor in memory."
        )
    if written and not array.flags.writeable:
        raise ValueError(
            "this operation writes into the array, and it is read-only: arguments and results of tasks are views of the object "
            "store. Give it a copy."
        )
    return array


def _arrays(tensors: Any, group: Group, *, written: bool = False) -> list[Array]:
    if not isinstance(tensors, list):
        raise RuntimeError(f"The input must be a list of tensors. Got '{type(tensors)}'.")
    if len(tensors) != group.world_size:
        raise RuntimeError(
            f"The length of the tensor list operands must be equal to world_size: {len(tensors)} for {group.world_size} ranks"
        )
    return [_array(each, written=written) for each in tensors]


def __getattr__(name: str) -> Any:
    raise absent.missing(__name__, name)
