"""A store of 64 MB that is asked for more: it spills, restores, and says who holds what when nothing more can go."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import nbray as ray
from nbray import session
from nbray.exceptions import ObjectStoreFullError
from tests.cluster.conditions import until

MIB = 2**20
CLUSTER = {"num_cpus": 2, "object_store_memory": 64 * MIB}


def stats():
    return session.engine.questions.ask("store", {})


def array(i, mib=8):
    return np.full(mib * MIB // 8, i, dtype=np.int64)


def test_three_times_what_fits_is_kept_and_comes_back_whole():
    refs = [ray.put(array(i)) for i in range(24)]
    for _ in range(2):
        for i, ref in enumerate(refs):
            value = ray.get(ref)
            assert (value == i).all()
            del value
    del refs, ref
    gc.collect()
    until(lambda: stats()["objects"] == 0, "everything is freed")


def test_tasks_read_what_was_spilled():
    @ray.remote
    def add(x):
        return int(x.sum())

    refs = [ray.put(array(i)) for i in range(16)]
    assert ray.get([add.remote(ref) for ref in refs]) == [i * MIB for i in range(16)]


def test_results_of_tasks_spill_too():
    @ray.remote
    def make(i):
        return array(i)

    refs = [make.remote(i) for i in range(16)]
    for i, ref in enumerate(refs):
        assert ray.get(ref)[-1] == i


def test_a_put_waits_for_room_that_another_thread_makes():
    held = [ray.get(ray.put(array(i))) for i in range(6)]
    refs = []
    thread = threading.Thread(target=lambda: refs.append(ray.put(array(99, mib=32))))
    thread.start()
    del held
    gc.collect()
    thread.join(timeout=30)
    assert ray.get(refs[0])[0] == 99


def test_a_value_larger_than_the_store_is_refused_at_once_with_both_sizes():
    with pytest.raises(ObjectStoreFullError, match=r"80\.0 MiB.*64\.0 MiB"):
        ray.put(array(0, mib=80))
    assert ray.get(ray.put("and the store works")) == "and the store works"


def test_a_task_whose_result_does_not_fit_fails_with_the_same_error():
    @ray.remote
    def too_much():
        return array(0, mib=80)

    with pytest.raises(Exception, match=r"80\.0 MiB is larger than the whole object store of its node"):
        ray.get(too_much.remote(), timeout=30)
