"""A node that does not hear from the head: what it begins, what it ends, and what it goes on with."""

from __future__ import annotations

import msgspec

from nbray import config
from nbray.node import records as r
from nbray.node.fence import CLOSED_SHARE, ENDED_SHARE
from nbray.wire import messages as m
from tests.node.story import Story, actor_spec, address, ident

CLOSED_S, ENDED_S = CLOSED_SHARE * config.NODE_DEAD_S, ENDED_SHARE * config.NODE_DEAD_S


def taken(story: Story, ago: float = 0.0) -> m.HeartbeatTaken:
    return m.HeartbeatTaken(ident("me"), story.now - ago)


def with_an_actor(max_restarts: int) -> Story:
    story = Story(head="head", CPU=2)
    spec = msgspec.structs.replace(actor_spec("a"), max_restarts=max_restarts)
    story.tell(m.PlaceActor(spec, 0))
    story.greet_all()
    assert story.sent(m.StartActor)
    return story


def test_without_its_lease_a_node_grants_nothing_says_why_and_goes_on_when_it_is_renewed() -> None:
    story = Story(head="head", CPU=2)
    story.greet_all()
    story.wait(CLOSED_S + 1)
    story.request(1)
    story.wait(1)
    assert not story.sent(m.LeaseGranted)
    [waiting] = story.sent(m.LeaseWaiting)
    assert "not heard from the head" in waiting.why
    story.tell(taken(story))
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [1]


def test_a_heartbeat_taken_counts_from_when_it_was_sent() -> None:
    """A daemon that was stopped finds old answers in its mailbox."""
    story = Story(head="head", CPU=2)
    story.greet_all()
    story.now += 2 * config.NODE_DEAD_S
    story.tell(taken(story, ago=2 * config.NODE_DEAD_S))
    story.request(1)
    assert not story.sent(m.LeaseGranted)
    story.tell(m.NodeDied(ident("me"), "silent"))
    assert story.ordered(r.Stop)[0].rejoin


def test_before_others_may_run_its_work_again_a_node_ends_that_and_nothing_else() -> None:
    story = Story(head="head", CPU=3)
    again = story.lease(1, owner=address("d", "there"), retriable=True)
    story.lease(2, owner=address("d", "there"), retriable=False)
    story.lease(3, owner=address("d", "me"), retriable=True)
    story.wait(ENDED_S - 0.1)
    assert not story.ordered(r.KillWorker)
    story.wait(0.2)
    assert [order.process for order in story.ordered(r.KillWorker)] == [again.worker.process]
    story.wait(config.NODE_DEAD_S)
    assert not story.ordered(r.KillWorker)


def test_an_actor_that_may_be_restarted_elsewhere_is_ended_and_one_that_may_not_goes_on() -> None:
    story = with_an_actor(max_restarts=1)
    story.wait(ENDED_S + 0.1)
    assert len(story.ordered(r.KillWorker)) == 1
    story = with_an_actor(max_restarts=0)
    story.wait(ENDED_S + 0.1)
    assert not story.ordered(r.KillWorker)


def test_the_node_of_the_head_has_no_lease_to_lose() -> None:
    story = Story(head="me", CPU=2)
    story.greet_all()
    story.wait(2 * config.NODE_DEAD_S)
    story.request(1)
    assert story.sent(m.LeaseGranted)


def test_a_head_in_the_place_of_the_old_one_gets_this_node_in_a_new_life() -> None:
    story = Story(head="head", CPU=2)
    story.tell(r.HeadMoved(ident("new")))
    [stop] = story.ordered(r.Stop)
    assert stop.rejoin
