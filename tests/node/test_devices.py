"""Which GPU a holder gets, and what this machine has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbray.node import records as r
from nbray.node.accelerators import kind_of, visible_ids
from nbray.node.devices import Devices
from nbray.sched.resources import UNIT, to_amounts
from nbray.wire import messages as m
from tests.node.story import Story, actor_spec, shape


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.25, 0.5, 1, 2, 3]), st.booleans()), max_size=40))
def test_no_device_is_over_used_and_whole_ones_are_nobody_elses(wanted: list[tuple[float, bool]]) -> None:
    total = to_amounts({"GPU": 4})
    devices, held = Devices(total), []
    for gpus, gives_back in wanted:
        amounts = to_amounts({"GPU": gpus})
        if gives_back and held:
            devices.give(*held.pop(0))
        if devices.choose(amounts) is not None:
            chosen = devices.take(amounts)
            assert len(chosen) == max(1, gpus)
            held.append((chosen, amounts))
        devices.check(held, total)
    for each in held:
        devices.give(*each)
    assert devices.free == [UNIT] * 4


def test_shares_go_where_they_leave_the_least() -> None:
    devices = Devices(to_amounts({"GPU": 2}))
    assert devices.take(to_amounts({"GPU": 0.5})) == [0]
    assert devices.take(to_amounts({"GPU": 1})) == [1]
    assert devices.take(to_amounts({"GPU": 0.5})) == [0]
    assert devices.choose(to_amounts({"GPU": 0.1})) is None


def test_a_lease_says_which_gpus_it_has_and_gives_them_back() -> None:
    story = Story(CPU=4, GPU=2)
    first, second = story.lease(1, shape(GPU=1)), story.lease(2, shape(GPU=1))
    assert [first.devices, second.devices] == [[0], [1]]
    story.give_back(first)
    assert story.lease(3, shape(GPU=1)).devices == [0]


def test_free_shares_of_several_devices_are_no_device_for_one() -> None:
    story = Story(CPU=8, GPU=2)
    story.lease(1, shape(GPU=0.6))
    story.lease(2, shape(GPU=0.6))
    story.request(3, shape(GPU=0.8))
    story.greet_all()
    assert not story.sent(m.LeaseGranted)


def test_a_worker_of_plain_tasks_is_not_given_a_gpu() -> None:
    story = Story(CPU=2, GPU=1)
    plain = story.lease(1)
    story.give_back(plain)
    assert story.lease(2, shape(CPU=1, GPU=1)).worker != plain.worker


def test_an_actor_starts_with_its_devices() -> None:
    story = Story(CPU=2, GPU=2)
    story.tell(m.PlaceActor(actor_spec("a", running={"GPU": 2}), 0))
    story.greet_all()
    [start] = story.sent(m.StartActor)
    assert start.devices == [0, 1]
    [worker] = [each for each in story.state.pool.workers.values() if each.phase is r.Phase.ACTOR]
    story.exit(worker.process)
    assert story.state.ground.devices.free == [UNIT, UNIT]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA H200", "H200"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "4090"),
    ],
)
def test_a_product_is_called_by_its_model(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_cuda_sees_devices_up_to_the_first_that_is_none() -> None:
    assert visible_ids("2,3") == ["2", "3"]
    assert visible_ids("") == visible_ids("-1") == []
    assert visible_ids("0,-1,1") == ["0"]
