"""Placement groups on one node: made, used, waited for, removed; and what is said when they make no sense."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conformance.subject import ray

CLUSTER = {"num_cpus": 2, "resources": {"part": 4}}


def within(group, index=-1, capture=None):
    return ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, index, capture)


@pytest.fixture
def group():
    """One of two bundles of a CPU each, removed afterwards."""
    made = ray.util.placement_group([{"CPU": 1}, {"CPU": 1}])
    assert made.wait(30)
    yield made
    ray.util.remove_placement_group(made)


@ray.remote
def where():
    context = ray.get_runtime_context()
    return context.get_placement_group_id(), context.should_capture_child_tasks_in_placement_group


@ray.remote
def where_children():
    return ray.get(where.remote()), ray.get(where.options(scheduling_strategy="DEFAULT", num_cpus=0).remote())


@ray.remote(num_cpus=1)
class Actor:
    def where(self):
        return ray.get_runtime_context().get_placement_group_id()

    def where_child(self):
        return ray.get(where.remote())


@ray.remote(max_retries=0)
def never_ends():
    while True:
        time.sleep(0.01)


def free(resource):
    return ray.available_resources().get(resource, 0)


def until(holds, timeout=20):
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ready_is_a_reference_to_the_group(group):
    assert ray.get(group.ready(), timeout=30) == group


def test_ready_can_be_awaited_and_passed(group):
    @ray.remote(num_cpus=0)
    def count(ready):
        return ready.bundle_count

    async def awaited():
        return await group.ready()

    assert asyncio.run(awaited()) == group
    assert ray.get(count.remote(group.ready()), timeout=30) == 2


def test_groups_can_be_used_and_passed_on_as_soon_as_they_are_asked_for():
    @ray.remote(num_cpus=0)
    def inside(group):
        strategy = within(group)
        return ray.get(where.options(scheduling_strategy=strategy, num_cpus=0, resources={"part": 0.01}).remote())[0]

    for _ in range(5):
        made = ray.util.placement_group([{"part": 0.01}])
        own = where.options(scheduling_strategy=within(made), num_cpus=0, resources={"part": 0.01}).remote()
        assert ray.get(inside.remote(made), timeout=30) == ray.get(own, timeout=30)[0]
        ray.util.remove_placement_group(made)


def test_a_handle_says_what_its_bundles_are(group):
    assert group.bundle_specs == [{"CPU": 1}, {"CPU": 1}]
    assert group.bundle_count == 2
    assert not group.is_empty
    assert ray.util.placement_group.__name__ == "placement_group"


def test_bundles_are_taken_from_the_node_and_given_back():
    until(lambda: free("part") == 4)
    made = ray.util.placement_group([{"part": 3}])
    assert made.wait(30)
    until(lambda: free("part") == 1)
    ray.util.remove_placement_group(made)
    until(lambda: free("part") == 4)


def test_a_group_waits_until_all_of_it_fits():
    first = ray.util.placement_group([{"part": 3}])
    assert first.wait(30)
    second = ray.util.placement_group([{"part": 1}, {"part": 1}])
    assert not second.wait(0.3)
    assert ray.util.placement_group_table(second)["state"] == "PENDING"
    ray.util.remove_placement_group(first)
    assert second.wait(30)
    ray.util.remove_placement_group(second)


def test_a_group_that_no_node_can_hold_stays_pending():
    made = ray.util.placement_group([{"CPU": 1000}])
    assert not made.wait(0.1)
    assert ray.util.placement_group_table(made)["state"] == "PENDING"
    ray.util.remove_placement_group(made)


def test_the_table_tells_of_a_group_and_of_its_removal(group):
    row = ray.util.placement_group_table(group)
    assert row["state"] == "CREATED"
    assert row["strategy"] == "PACK"
    assert row["bundles"] == {0: {"CPU": 1.0}, 1: {"CPU": 1.0}}
    assert set(row["bundles_to_node_id"].values()) == {ray.get_runtime_context().get_node_id()}
    assert row["placement_group_id"] in ray.util.placement_group_table()
    ray.util.remove_placement_group(group)
    until(lambda: ray.util.placement_group_table(group)["state"] == "REMOVED")


def test_tasks_run_in_their_bundle(group):
    id_, captures = ray.get(where.options(scheduling_strategy=within(group, 1)).remote(), timeout=30)
    assert id_ == ray.util.placement_group_table(group)["placement_group_id"]
    assert not captures
    assert ray.get(where.options(num_cpus=0).remote(), timeout=30)[0] is None


def test_children_are_captured_only_if_that_was_asked_for(group):
    inside, outside = ray.get(where_children.options(scheduling_strategy=within(group, 0, True)).remote(), timeout=30)
    assert inside == (ray.util.placement_group_table(group)["placement_group_id"], True)
    assert outside[0] is None


def test_a_get_inside_a_bundle_gives_its_cpu_back_to_the_bundle():
    made = ray.util.placement_group([{"CPU": 1}])
    assert made.wait(30)
    inside, _ = ray.get(where_children.options(scheduling_strategy=within(made, 0, True)).remote(), timeout=30)
    assert inside[1]
    ray.util.remove_placement_group(made)


def test_actors_live_in_their_bundle_and_capture_their_children(group):
    actor = Actor.options(scheduling_strategy=within(group, 0, True)).remote()
    id_ = ray.util.placement_group_table(group)["placement_group_id"]
    assert ray.get(actor.where.remote(), timeout=30) == id_
    assert ray.get(actor.where_child.remote(), timeout=30) == (id_, True)
    ray.kill(actor)


def test_the_current_group_is_known_inside(group):
    @ray.remote
    def current():
        return ray.util.get_current_placement_group()

    assert ray.util.get_current_placement_group() is None
    assert ray.get(current.options(scheduling_strategy=within(group)).remote(), timeout=30) == group


def test_removal_ends_the_tasks_in_the_group(tmp_path):
    made = ray.util.placement_group([{"CPU": 1}])
    assert made.wait(30)

    @ray.remote(max_retries=0)
    def begun(path):
        open(path, "w").close()
        while True:
            time.sleep(0.01)

    running = begun.options(scheduling_strategy=within(made)).remote(str(tmp_path / "begun"))
    until((tmp_path / "begun").exists)
    ray.util.remove_placement_group(made)
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(running, timeout=30)
    until(lambda: free("CPU") == 2)


def test_removal_ends_the_actors_in_the_group():
    made = ray.util.placement_group([{"CPU": 1}])
    alive = Actor.options(scheduling_strategy=within(made)).remote()
    waiting = Actor.options(scheduling_strategy=within(made)).remote()
    ray.get(alive.where.remote(), timeout=30)
    ray.util.remove_placement_group(made)
    with pytest.raises(ray.exceptions.RayActorError, match="placement group was removed"):
        while True:  # a call may still be quicker than the removal
            ray.get(alive.where.remote(), timeout=30)
    with pytest.raises(ray.exceptions.ActorUnschedulableError, match="placement group was removed"):
        ray.get(waiting.where.remote(), timeout=30)


def test_waiting_for_a_group_ends_with_its_removal():
    made = ray.util.placement_group([{"CPU": 1000}])
    ready = made.ready()
    ray.util.remove_placement_group(made)
    with pytest.raises(ray.exceptions.TaskPlacementGroupRemoved):
        ray.get(ready, timeout=30)
    with pytest.raises(ray.exceptions.TaskPlacementGroupRemoved):
        ray.get(made.ready(), timeout=30)


def test_removing_twice_is_removing_once(group):
    ray.util.remove_placement_group(group)
    ray.util.remove_placement_group(group)


def test_a_named_group_is_found_until_it_is_removed():
    made = ray.util.placement_group([{"part": 1}], name="found")
    assert made.wait(30)
    found = ray.util.get_placement_group("found")
    assert found == made
    assert hash(found) == hash(made)
    assert found.bundle_specs == [{"part": 1}]
    with pytest.raises(Exception, match="'found' already exists"):
        ray.util.placement_group([{"part": 1}], name="found")
    ray.util.remove_placement_group(made)
    until(lambda: ray.util.placement_group_table(made)["state"] == "REMOVED")
    with pytest.raises(ValueError, match="Failed to look up placement group with name: found"):
        ray.util.get_placement_group("found")


@pytest.mark.parametrize(
    ("bundles", "options", "said"),
    [
        ([], {}, "Bundles must be a non-empty list of resource dictionaries"),
        ([{}], {}, "Bundles cannot be an empty dictionary or resources with only 0 values"),
        ([{"CPU": 0}], {}, "Bundles cannot be an empty dictionary or resources with only 0 values"),
        ("CPU", {}, "Placement group bundles must be a list"),
        ([1], {}, "Bundles must be a non-empty list of resource dictionaries"),
        ([{"CPU": 1}], {"strategy": "PILE"}, "Invalid placement group strategy PILE"),
        ([{"CPU": 1}], {"lifetime": "long"}, "`lifetime` argument must be either `None` or 'detached'"),
        ([{"CPU": 1}], {"bundle_label_selector": [{}, {}]}, "should equal the length of `bundles`"),
    ],
)
def test_what_makes_no_sense_is_refused(bundles, options, said):
    with pytest.raises(ValueError, match=said):
        ray.util.placement_group(bundles, **options)


def test_an_index_that_is_not_there_is_refused(group):
    with pytest.raises(ValueError, match="placement group bundle index 2 is invalid"):
        where.options(scheduling_strategy=within(group, 2)).remote()
    with pytest.raises(ValueError, match="placement group bundle index -2 is invalid"):
        Actor.options(scheduling_strategy=within(group, -2)).remote()
    with pytest.raises(ValueError, match="the value of bundle index must be -1"):
        where.options(scheduling_strategy=within(None, 1)).remote()


def test_more_than_a_bundle_has_is_refused(group):
    with pytest.raises(ValueError, match="cannot fit into any bundles"):
        where.options(num_cpus=2, scheduling_strategy=within(group)).remote()

    @ray.remote
    def grow():
        where.options(num_cpus=2).remote()

    with pytest.raises(ValueError, match="cannot fit into any bundles"):
        ray.get(grow.options(scheduling_strategy=within(group, 0, True)).remote(), timeout=30)


def test_no_group_is_a_group_too():
    empty = type(ray.util.placement_group([{"part": 1}])).empty()
    assert empty.is_empty
    assert ray.get(empty.ready()).is_empty
    assert ray.get(where.options(scheduling_strategy=within(None)).remote(), timeout=30)[0] is None


def test_the_older_spelling_of_the_strategy_still_works(group):
    with pytest.warns(DeprecationWarning, match="placement_group"):
        ref = where.options(placement_group=group, placement_group_bundle_index=0).remote()
    assert ray.get(ref, timeout=30)[0] == ray.util.placement_group_table(group)["placement_group_id"]
