"""Placement groups at the head: all or nothing, names, lifetimes, and what is said to whom."""

from __future__ import annotations

from typing import Any

from nbray.head.groups import TOLD_S
from nbray.ids import Address
from nbray.machine import Effect, Send, Tick
from nbray.sched.resources import to_amounts
from nbray.wire import messages as m
from tests.head.story import Story, actor_id, address, ident, spec

DRIVER = address("d@a")
WATCHER = address("w@b")


def group_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def sent(effects: list[Effect], kind: type) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def create(story: Story, number: int, *cpus: float, owner: Address = DRIVER, job: Address = DRIVER, **more: Any) -> list[Effect]:
    """Ask for group `number` with a bundle of each of `cpus`."""
    strategy = more.pop("strategy", "PACK")
    bundles = [to_amounts({"CPU": each}) for each in cpus]
    return story.take(m.CreateGroup(m.GroupSpec(group_id(number), bundles, strategy, owner, job, **more), 7))


def reserve(story: Story, effects: list[Effect]) -> list[Effect]:
    """Every node that was asked sets its part aside."""
    answers: list[Effect] = []
    for effect in effects:
        if isinstance(effect, Send) and isinstance(effect.message, m.ReserveBundles):
            answers += story.take(m.BundlesReserved(effect.message.group, effect.message.round, effect.to.node))
    return answers


def two_nodes(cpus: int = 2) -> Story:
    story = Story()
    for line in (f"node a CPU={cpus}", f"node b CPU={cpus}", "job d@a"):
        story.tell(line)
    return story


def state_of(story: Story, number: int) -> str:
    story.take(m.WatchGroup(group_id(number), WATCHER))
    (update,) = sent(story.take(m.WatchGroup(group_id(number), WATCHER)), m.GroupUpdate)
    return str(update.state)


def test_a_group_is_created_when_the_last_node_has_set_its_part_aside() -> None:
    story = two_nodes()
    asked = create(story, 1, 1, 1, strategy="STRICT_SPREAD")
    first, second = [e for e in asked if isinstance(e, Send) and isinstance(e.message, m.ReserveBundles)]
    assert {first.to.node, second.to.node} == {ident("a"), ident("b")}
    story.take(m.BundlesReserved(group_id(1), 1, first.to.node))
    assert state_of(story, 1) == "PENDING"
    told = story.take(m.BundlesReserved(group_id(1), 1, second.to.node))
    assert {e.to for e in told if isinstance(e, Send) and isinstance(e.message, m.GroupUpdate)} == {
        address("a"),
        address("b"),
        DRIVER,
        WATCHER,
    }
    assert state_of(story, 1) == "CREATED"


def test_one_node_that_refuses_frees_what_the_others_have_set_aside() -> None:
    story = two_nodes()
    create(story, 1, 2, 2, strategy="SPREAD")
    story.take(m.BundlesReserved(group_id(1), 1, ident("a")))
    said = story.take(m.BundlesRefused(group_id(1), 1, ident("b")))
    (released,) = sent(said, m.ReleaseBundles)
    assert released.group == group_id(1)
    assert state_of(story, 1) == "PENDING"
    # The next report of the node that had no room is the next chance; an answer to the first try means nothing then.
    again = story.take(m.Heartbeat(story.head.members.nodes[ident("b")].info))
    assert {reserve.round for reserve in sent(again, m.ReserveBundles)} == {2}
    story.take(m.BundlesReserved(group_id(1), 1, ident("a")))
    assert story.head.late["BundlesReserved"] == 1
    reserve(story, again)
    assert state_of(story, 1) == "CREATED"


def test_what_one_group_has_set_aside_no_other_gets() -> None:
    story = two_nodes()
    reserve(story, create(story, 1, 2, 2))
    assert not sent(create(story, 2, 1), m.ReserveBundles)
    removed = story.take(m.RemoveGroup(group_id(1)))
    assert {e.to for e in removed if isinstance(e, Send)} == {address("a"), address("b"), DRIVER}
    assert {update.state for update in sent(removed, m.GroupUpdate)} == {"REMOVED"}
    story.tell("beat a placements=1")
    assert story.head.groups.live[group_id(2)].reserving
    assert state_of(story, 1) == "REMOVED"


def test_a_group_that_cannot_be_is_told_at_once_and_one_that_waits_after_a_second() -> None:
    story = two_nodes()
    create(story, 1, 9)
    (update,) = sent(story.take(m.WatchGroup(group_id(1), WATCHER)), m.GroupUpdate)
    assert "bundle 0 needs num_cpus=9" in update.why
    reserve(story, create(story, 2, 2, 2))
    create(story, 3, 1)
    (update,) = sent(story.take(m.WatchGroup(group_id(3), WATCHER)), m.GroupUpdate)
    assert update.why == ""
    assert story.head.next_deadline() is not None
    story.now += TOLD_S
    told = [e for e in story.take(Tick()) if isinstance(e, Send) and isinstance(e.message, m.GroupUpdate)]
    assert {e.to for e in told} == {DRIVER, WATCHER}
    assert all("too much of it is in use" in e.message.why for e in told)


def test_a_group_ends_with_its_job_unless_it_is_detached() -> None:
    story = two_nodes()
    reserve(story, create(story, 1, 1))
    reserve(story, create(story, 2, 1, detached=True, name="kept"))
    story.tell("job-ended d@a")
    assert state_of(story, 1) == "REMOVED"
    assert state_of(story, 2) == "CREATED"


def test_a_group_of_an_actor_that_outlives_its_job_ends_with_the_actor() -> None:
    story = two_nodes()
    story.tell("actor X d@a detached name=x run.CPU=1")
    node = story.head.directory.live[actor_id("X")].node
    assert node is not None
    host = Address(node, ident("x"))
    story.take(m.ActorStarted(actor_id("X"), 0, host, 9))
    reserve(story, create(story, 1, 1, owner=host))
    story.tell("job-ended d@a")
    assert state_of(story, 1) == "CREATED"
    reserve(story, create(story, 2, 1, owner=host))
    assert state_of(story, 2) == "CREATED"
    story.take(m.ProcessDied(m.Death(host.process, host.node, 9, signal=9)))
    assert state_of(story, 1) == "REMOVED"
    assert state_of(story, 2) == "REMOVED"


def test_a_group_of_a_job_that_has_ended_is_not_made() -> None:
    story = two_nodes()
    story.tell("job-ended d@a")
    assert not sent(create(story, 1, 1, owner=address("w@a")), m.ReserveBundles)
    assert state_of(story, 1) == "REMOVED"


def test_a_name_belongs_to_one_group_of_a_namespace_that_lives() -> None:
    story = two_nodes()
    (answer,) = sent(create(story, 1, 1, name="n", namespace="s"), m.Answer)
    assert answer.error == ""
    (answer,) = sent(create(story, 2, 1, name="n", namespace="s"), m.Answer)
    assert "already exists" in answer.error
    assert group_id(2) not in story.head.groups.live
    (answer,) = sent(create(story, 3, 1, name="n", namespace="other"), m.Answer)
    assert answer.error == ""
    story.take(m.RemoveGroup(group_id(1)))
    (answer,) = sent(create(story, 4, 1, name="n", namespace="s"), m.Answer)
    assert answer.error == ""


def test_actors_wait_for_their_group_and_go_where_its_bundle_is() -> None:
    story = two_nodes()
    asked = create(story, 1, 2, strategy="STRICT_PACK", target=ident("b"))
    where = m.Shape(to_amounts({"CPU": 1}), group=group_id(1), bundle=0)
    one = spec(actor_id("X"), DRIVER, DRIVER, placement=where, running=to_amounts({"CPU": 1}))
    assert not sent(story.take(m.RegisterActor(one, 0)), m.PlaceActor)
    placed = [e for e in reserve(story, asked) if isinstance(e, Send) and isinstance(e.message, m.PlaceActor)]
    assert [e.to.node for e in placed] == [ident("b")]
    # A bundle of two CPUs takes two such actors; the third waits beside a free node.
    for letter in "YZ":
        other = spec(actor_id(letter), DRIVER, DRIVER, placement=where, running=to_amounts({"CPU": 1}))
        placed += sent(story.take(m.RegisterActor(other, 0)), m.PlaceActor)
    assert len(placed) == 2
    assert "bundle 0 of its placement group" in story.head.directory.live[actor_id("Z")].waiting
    said = story.take(m.RemoveGroup(group_id(1)))
    assert {update.failure.kind for update in sent(said, m.ActorUpdate)} == {"ActorPlacementGroupRemoved"}
    late = spec(actor_id("U"), DRIVER, DRIVER, placement=where)
    (update,) = sent(story.take(m.RegisterActor(late, 0)), m.ActorUpdate)
    assert update.failure.kind == "ActorPlacementGroupRemoved"


def test_only_a_group_with_a_name_is_answered_and_its_owner_hears_of_all_of_them() -> None:
    story = two_nodes()
    asked = create(story, 1, 1)
    assert not sent(asked, m.Answer)
    told = [e for e in reserve(story, asked) if isinstance(e, Send) and e.to == DRIVER]
    assert [update.state for update in sent(told, m.GroupUpdate)] == ["CREATED"]
    # Whoever removes its own group knows it.
    removed = story.take(m.RemoveGroup(group_id(1), DRIVER.process))
    assert {e.to for e in removed if isinstance(e, Send)} == {address("a")}


def test_an_owner_that_is_gone_is_told_nothing_more() -> None:
    story = two_nodes()
    worker = address("w@a")
    asked = create(story, 1, 1, owner=worker, detached=True)
    (watched,) = sent(asked, m.WatchProcess)
    assert watched.process == worker.process
    reserve(story, asked)
    story.take(m.ProcessDied(m.Death(worker.process, worker.node, 9, signal=9)))
    removed = story.take(m.RemoveGroup(group_id(1)))
    assert worker not in {e.to for e in removed if isinstance(e, Send)}


def test_unknown_groups_are_as_removed() -> None:
    story = two_nodes()
    (update,) = sent(story.take(m.WatchGroup(group_id(9), WATCHER)), m.GroupUpdate)
    assert update.state == "REMOVED"
    assert "no placement group" in update.why
