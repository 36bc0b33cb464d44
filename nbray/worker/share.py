"""What the environment of a worker says of its share of the machine: CUDA_VISIBLE_DEVICES and OMP_NUM_THREADS.

Both are set before the user's code runs, for every task anew where they differ. A worker that has no devices leaves
CUDA_VISIBLE_DEVICES as it was; and OMP_NUM_THREADS is left alone once somebody else has set it. Libraries read it when they are
loaded. numpy is loaded before workers are forked, with one thread: `threadpoolctl`, if it is installed, tells those that are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from nbray.sched.resources import UNIT

try:
    from threadpoolctl import threadpool_limits
except ImportError:
    threadpool_limits = None

VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"
THREADS_UNSET = "NBRAY_OMP_NUM_THREADS_UNSET"  #: node/spawn.py sets it where the user has said nothing of THREADS


class Share:
    """`devices` are the ids of the GPUs that the task or actor has, as this machine's CUDA names them."""

    def __init__(self) -> None:
        self.devices: list[int] | list[str] = []
        self.amounts: Mapping[str, int] | None = None  #: of the last task; None: one CPU
        visible = os.environ.get(VISIBLE)
        self._named = None if visible is None else visible.split(",")  # as the node was started
        self._ours = os.environ.get(THREADS) if os.environ.pop(THREADS_UNSET, "") else None

    def take(self, amounts: Mapping[str, int] | None, devices: list[int]) -> None:
        """The next task, or the actor for life, holds `amounts` and the devices of these numbers."""
        self.amounts = amounts
        self._set_threads(1 if amounts is None else max(1, amounts.get("CPU", 0) // UNIT))
        self.devices = self._ids(devices)
        if devices:
            os.environ[VISIBLE] = ",".join(map(str, self.devices))

    def _ids(self, numbers: list[int]) -> list[int] | list[str]:
        if self._named is None or max(numbers, default=0) >= len(self._named):
            return list(numbers)
        return [self._named[number] for number in numbers]

    def _set_threads(self, count: int) -> None:
        if self._ours is None or os.environ.get(THREADS) != self._ours or self._ours == str(count):
            return
        self._ours = os.environ[THREADS] = str(count)
        if threadpool_limits is not None:
            threadpool_limits(count)
