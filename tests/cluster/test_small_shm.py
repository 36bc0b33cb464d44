"""Containers give /dev/shm 64 MB: the store is memory of its own, and does not care."""

from __future__ import annotations

import subprocess
import sys

import pytest

CLUSTER = None
UNSHARE = ["unshare", "--mount", "--propagation", "private"]
PROGRAM = """
import os
import numpy as np
import nbray as ray

small = os.statvfs("/dev/shm")
assert small.f_blocks * small.f_frsize == 64 * 2**20, "the small /dev/shm is not there"
ray.init(num_cpus=1, object_store_memory=1200 * 2**20)
array = np.full(500 * 2**20 // 8, 7, np.int64)
assert ray.get(ray.put(array))[-1] == 7

@ray.remote
def task(given):
    return int(given[::4096].sum()), np.ones(2**24)

total, made = ray.get(task.remote(array))
assert total == 7 * len(array[::4096])
assert made.sum() == 2**24
ray.shutdown()
print("all of it")
"""


@pytest.fixture(scope="module", autouse=True)
def may_mount() -> None:
    tried = subprocess.run(
        [*UNSHARE, "mount", "-t", "tmpfs", "-o", "size=64m", "none", "/dev/shm"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"a mount namespace of our own is not permitted here: {tried.stderr.strip()}")


def test_half_a_gigabyte_is_put_and_got_where_dev_shm_has_64_megabytes() -> None:
    script = 'mount -t tmpfs -o size=64m none /dev/shm && exec "$0" -c "$1"'
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", script, sys.executable, PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "all of it" in done.stdout
