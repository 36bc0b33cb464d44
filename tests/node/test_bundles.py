"""Bundles on a node: amounts of their own, out of which a group's work is given."""

from __future__ import annotations

from typing import Any

from nbray import config
from nbray.ids import short
from nbray.node import records as r
from nbray.sched.resources import to_amounts
from nbray.wire import messages as m
from tests.node.story import Story, actor_spec, ident, info

GROUP = b"g" * 16
ONE = to_amounts({"CPU": 1})


def inside(bundle: int = -1, cpus: float = 1) -> m.Shape:
    return m.Shape(to_amounts({"CPU": cpus}), group=GROUP, bundle=bundle)


def update(state: str = "CREATED", *places: str, why: str = "") -> m.GroupUpdate:
    return m.GroupUpdate(GROUP, state, [ident(place) if place else b"" for place in places], [ONE] * len(places), why)


def with_group(*cpus: float, **resources: Any) -> Story:
    """A node with a driver and an open group of bundles of these sizes."""
    story = Story(**(resources or {"CPU": 4}))
    story.drive()
    story.tell(m.ReserveBundles(GROUP, 1, [(index, to_amounts({"CPU": each})) for index, each in enumerate(cpus)]))
    assert story.sent(m.BundlesReserved)
    story.tell(update("CREATED", *["me"] * len(cpus)))
    return story


def test_bundles_are_set_aside_all_or_none() -> None:
    story = Story(CPU=2)
    story.tell(m.ReserveBundles(GROUP, 1, [(0, ONE), (1, to_amounts({"CPU": 2}))]))
    assert story.sent(m.BundlesRefused) == [m.BundlesRefused(GROUP, 1, ident("me"))]
    assert story.free == {"CPU": 2}
    story.tell(m.ReserveBundles(GROUP, 2, [(0, ONE), (1, ONE)]))
    assert story.sent(m.BundlesReserved) == [m.BundlesReserved(GROUP, 2, ident("me"))]
    assert story.free == {"CPU": 0}
    assert [bundle.index for bundle in story.state.ground.info().bundles] == [0, 1]


def test_nothing_runs_in_a_bundle_before_the_whole_group_is_created() -> None:
    story = Story(CPU=2)
    story.drive()
    story.tell(m.ReserveBundles(GROUP, 1, [(0, ONE)]))
    story.request(1, inside(0))
    story.greet_all()
    assert not story.sent(m.LeaseGranted)
    story.tell(update("CREATED", "me"))
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [1]


def test_a_bundle_gives_what_it_has_and_the_node_the_rest() -> None:
    story = with_group(1, 1, CPU=3)
    for number, where in enumerate([inside(0), inside(0), inside(1), m.Shape(ONE), m.Shape(ONE)]):
        story.request(number, where)
    story.greet_all()
    assert sorted(grant.request for grant in story.sent(m.LeaseGranted)) == [0, 2, 3]


def test_any_bundle_is_the_first_with_room() -> None:
    story = with_group(1, 2)
    for number in range(4):
        story.request(number, inside())
    story.greet_all()
    assert len(story.sent(m.LeaseGranted)) == 3


def test_a_blocked_worker_lends_its_cpu_to_its_bundle_alone() -> None:
    story = with_group(1, CPU=2)
    lease = story.lease(1, inside(0))
    story.request(2, inside(0))
    story.tell(m.WorkerBlocked(lease.worker.process))
    story.greet_all()
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [2]
    assert story.free == {"CPU": 1}
    story.tell(m.WorkerUnblocked(lease.worker.process))
    assert story.free == {"CPU": 1}


def test_a_released_bundle_is_the_nodes_again_when_its_last_worker_is_gone() -> None:
    story = with_group(1, CPU=2)
    lease = story.lease(1, inside(0))
    story.tell(update("REMOVED", "me"))
    assert [kill.process for kill in story.ordered(r.KillWorker)] == [lease.worker.process]
    assert story.free == {"CPU": 1}
    story.exit(lease.worker.process)
    assert story.free == {"CPU": 2}
    (lost,) = story.sent(m.LeaseLost)
    assert lost.death.reason == f"its placement group {short(GROUP)} was removed"
    assert not story.state.ground.info().bundles


def test_an_actor_lives_in_its_bundle_and_ends_with_it() -> None:
    story = with_group(1, CPU=2)
    where = m.Shape(ONE, group=GROUP, bundle=0)
    one, two = (m.PlaceActor(_placed(actor_spec(name, {"CPU": 1}), where), 0) for name in "XY")
    story.tell(one)
    story.tell(two)
    assert [said.actor for said in story.sent(m.ActorUnplaced)] == [two.spec.actor]
    assert story.free == {"CPU": 1}
    story.greet_all()
    assert [start.spec.actor for start in story.sent(m.StartActor)] == [one.spec.actor]
    story.tell(m.ReleaseBundles(GROUP, [0], "gone"))
    (kill,) = story.ordered(r.KillWorker)
    story.exit(kill.process)
    assert [(lost.actor, lost.intended) for lost in story.sent(m.ActorLost)] == [(one.spec.actor, True)]
    assert story.free == {"CPU": 2}


def _placed(spec: m.ActorSpec, where: m.Shape) -> m.ActorSpec:
    values = {name: getattr(spec, name) for name in spec.__struct_fields__}
    return m.ActorSpec(**{**values, "placement": where})


def test_who_waits_for_a_group_that_is_removed_is_refused() -> None:
    story = with_group(1)
    story.lease(1, inside(0))
    story.request(2, inside(0))
    story.tell(update("REMOVED", why="It was removed."))
    (refused,) = story.sent(m.LeaseRefused)
    assert (refused.request, refused.failure.kind) == (2, "TaskPlacementGroupRemoved")
    story.request(3, inside())
    (refused,) = story.sent(m.LeaseRefused)
    assert refused.failure.message == "It was removed."


def test_a_group_that_is_not_known_is_asked_about_once() -> None:
    story = Story(CPU=2)
    story.drive()
    story.request(1, inside())
    story.request(2, inside())
    assert story.sent(m.WatchGroup) == [m.WatchGroup(GROUP, story.state.ground.me)]
    assert not story.sent(m.LeaseWaiting)
    story.tell(update("PENDING", "", why="It waits for a node."))
    story.wait(config.LEASE_TOLD_S + 0.1)
    assert {waiting.why for waiting in story.sent(m.LeaseWaiting)} == {"It waits for a node."}


def test_requests_go_to_the_node_that_has_the_bundle_before_its_heartbeat_says_so() -> None:
    story = Story(CPU=2)
    story.drive()
    story.view(info("other", CPU=2))
    story.request(1, inside(0))
    assert not story.sent(m.LeaseRedirected)
    story.tell(update("CREATED", "other"))
    assert story.sent(m.LeaseRedirected) == [m.LeaseRedirected(1, ident("other"))]
    # Also after a view that was made before.
    story.view(info("other", CPU=2))
    story.request(2, inside(0))
    assert story.sent(m.LeaseRedirected) == [m.LeaseRedirected(2, ident("other"))]


def test_a_full_bundle_hands_on_only_to_one_with_room() -> None:
    story = with_group(1)
    other = info("other", CPU=2)
    busy = m.BundleInfo(GROUP, 1, ONE, to_amounts({}))
    story.view(m.NodeInfo(other.node, "other", 1, other.total, other.available, bundles=[busy]))
    story.lease(1, inside())
    story.request(2, inside(), hops=1)
    assert not story.sent(m.LeaseRedirected)
    free = m.BundleInfo(GROUP, 1, ONE, ONE)
    story.view(m.NodeInfo(other.node, "other", 1, other.total, other.available, bundles=[free]))
    assert story.sent(m.LeaseRedirected) == [m.LeaseRedirected(2, ident("other"))]


def test_processes_hear_of_a_group_from_their_node() -> None:
    story = Story(CPU=2)
    driver = story.drive()
    story.tell(m.WatchGroup(GROUP, driver))
    assert story.sent(m.WatchGroup)
    story.tell(update("CREATED", "other"))
    assert [said.state for said in story.sent_to(driver, m.GroupUpdate)] == ["CREATED"]
    story.tell(m.WatchGroup(GROUP, driver))
    assert [said.state for said in story.sent_to(driver, m.GroupUpdate)] == ["CREATED"]
    story.tell(r.ProcessLost(driver.process, "driver", 7))
    story.tell(update("REMOVED"))
    assert not story.sent_to(driver, m.GroupUpdate)


def test_work_that_asks_for_other_labels_is_not_run_here() -> None:
    story = Story(CPU=2)
    story.drive()
    story.request(1, m.Shape(ONE, selectors=[[("zone", "b")]]))
    story.greet_all()
    assert not story.sent(m.LeaseGranted)
    (waiting,) = story.sent(m.LeaseWaiting)
    assert waiting.infeasible
    assert "zone=b" in waiting.why
