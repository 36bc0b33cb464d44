"""Who waits for a process of a node that is not there any more is told so by its own node."""

from __future__ import annotations

from nbray.node.elsewhere import UNKNOWN_S
from nbray.wire import messages as m
from tests.node.story import Story, address, ident, info


def watched(story: Story, node: str) -> None:
    story.tell(m.WatchProcess(ident("owner"), address("d"), ident(node)))


def test_a_process_of_a_node_that_the_cluster_does_not_have_is_told_dead_after_a_while() -> None:
    story = Story(CPU=1)
    watched(story, "gone")
    story.wait(UNKNOWN_S - 0.1)
    assert not story.sent(m.ProcessDied)
    story.wait(0.2)
    (died,) = story.sent_to(address("d"), m.ProcessDied)
    assert died.death.process == ident("owner")
    assert "not in the cluster" in died.death.reason


def test_a_node_that_is_only_new_is_waited_for() -> None:
    story = Story(CPU=1)
    watched(story, "new")
    story.wait(1.0)
    story.view(info("new", CPU=1))
    story.wait(2 * UNKNOWN_S)
    assert not story.sent(m.ProcessDied)


def test_a_process_of_a_member_is_the_business_of_that_member() -> None:
    story = Story(CPU=1)
    story.view(info("other", CPU=1))
    watched(story, "other")
    story.wait(2 * UNKNOWN_S)
    assert not story.sent(m.ProcessDied)


def test_a_process_of_this_node_is_watched_as_ever() -> None:
    story = Story(CPU=1)
    watched(story, "me")
    assert story.sent_to(address("d"), m.ProcessDied)


def test_a_request_from_a_node_that_was_declared_dead_gets_no_lease() -> None:
    """It was sent before that node heard of its death; nobody would ever give the lease back."""
    story = Story(CPU=1)
    story.drive("d")
    story.view(info("other", CPU=1))
    story.tell(m.NodeDied(ident("other"), "silent"))
    story.request(1, owner=address("o", "other"), job=ident("d"))
    story.greet_all()
    assert not story.sent(m.LeaseGranted)
    assert not story.state.leases.queue
