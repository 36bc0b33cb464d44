"""The words of collectives: what is reduced how, over what, and what goes wrong."""

from __future__ import annotations

from enum import Enum

import numpy as np

from nbray.exceptions import RayError


class CollectiveError(RayError, RuntimeError):
    """A collective operation cannot be completed: a member died, left, did not come, or called something else."""


class ReduceOp(Enum):
    """How values are combined, in the order of the ranks: so every member has the same bits."""

    SUM = 0
    PRODUCT = 1
    MIN = 2
    MAX = 3

    @property
    def combine(self) -> np.ufunc:
        return _UFUNCS[self]


_UFUNCS = {ReduceOp.SUM: np.add, ReduceOp.PRODUCT: np.multiply, ReduceOp.MIN: np.minimum, ReduceOp.MAX: np.maximum}


class Backend:
    """`Backend(name)` is the name of a way to communicate, checked. There is one: CPU memory, under the name of Ray's."""

    GLOO = "GLOO"
    NCCL = "NCCL"

    def __new__(cls, name: str) -> str:  # type: ignore[misc]  # as in Ray, a name
        upper = name.upper()
        if upper in ("GLOO", "TORCH_GLOO"):
            return cls.GLOO
        if upper == "NCCL":
            raise NotImplementedError(
                "the NCCL backend is not built: for arrays on GPUs use torch.distributed inside the actors; backend='gloo' works "
                "on arrays in memory"
            )
        raise ValueError(f"Unrecognized backend: '{name}'. Only GLOO is supported")
