"""A node's picture of the cluster: what the head told, what it sent elsewhere since, and how it is put right again."""

from __future__ import annotations

import msgspec

from nbray import config
from nbray.node.ground import PROMISE_S
from nbray.wire import messages as m
from tests.node.story import Story, ident, info


def full(node: m.NodeInfo) -> m.NodeInfo:
    return msgspec.structs.replace(node, available={})


def test_changes_are_laid_over_what_is_known() -> None:
    story = Story(CPU=1)
    one, other = info("one", CPU=1), info("other", CPU=1)
    story.tell(m.ClusterView([one, other], 1))
    story.tell(m.ClusterView([full(one)], 2, 1))
    assert dict(story.state.ground.others) == {one.node: full(one), other.node: other}


def test_news_of_a_node_are_laid_over_what_else_is_known_of_it() -> None:
    story = Story(CPU=1)
    one = msgspec.structs.replace(info("one", CPU=1), labels={"zone": "a"})
    story.tell(m.ClusterView([one], 1))
    story.tell(m.ClusterView([], 2, 1, [m.NodeNews(one.node, {}, 7, [], 3, [], True)]))
    assert story.state.ground.others[one.node] == msgspec.structs.replace(
        one, available={}, store_used=7, placements=3, suspect=True
    )


def test_news_of_this_node_itself_and_of_nodes_that_left_change_nothing() -> None:
    story = Story(CPU=1)
    story.tell(m.ClusterView([info("one", CPU=1)], 1))
    story.tell(m.NodeDied(ident("one"), "drained"))
    story.tell(m.ClusterView([], 2, 1, [m.NodeNews(ident(name), {}, 0, [], 0, [], False) for name in ("one", "me")]))
    assert not story.state.ground.others


def test_a_view_of_everything_replaces_what_was_known() -> None:
    story = Story(CPU=1)
    story.tell(m.ClusterView([info("one", CPU=1)], 1))
    story.tell(m.ClusterView([info("other", CPU=1)], 5))
    assert list(story.state.ground.others) == [ident("other")]


def test_changes_to_a_view_that_never_came_are_not_believed_and_everything_is_asked_for() -> None:
    story = Story(CPU=1)
    one = info("one", CPU=1)
    story.tell(m.ClusterView([one], 1))
    story.tell(m.ClusterView([full(one)], 3, 2))
    assert story.state.ground.others[one.node] == one
    story.wait(2 * config.HEARTBEAT_S)
    assert story.sent(m.Heartbeat)[-1].astray
    story.tell(m.ClusterView([full(one)], 4))
    story.wait(2 * config.HEARTBEAT_S)
    assert not story.sent(m.Heartbeat)[-1].astray
    assert story.state.ground.others[one.node] == full(one)


def test_room_that_was_promised_to_nobody_in_the_end_is_seen_again() -> None:
    story = Story(CPU=1)
    story.tell(m.ClusterView([info("other", CPU=1)], 1))
    story.lease(1)
    story.request(2)
    assert story.sent(m.LeaseRedirected) == [m.LeaseRedirected(2, ident("other"))]
    story.request(3)
    assert not story.sent(m.LeaseRedirected)
    # Whoever asked for request 2 never went there, so the head has nothing new to tell.
    story.wait(PROMISE_S + config.HEARTBEAT_S)
    assert story.sent(m.LeaseRedirected) == [m.LeaseRedirected(3, ident("other"))]


def test_what_the_head_tells_anew_is_not_taken_back() -> None:
    story = Story(CPU=1)
    other = info("other", CPU=1)
    story.tell(m.ClusterView([other], 1))
    story.lease(1)
    story.request(2)
    story.tell(m.ClusterView([full(other)], 2, 1))
    story.wait(PROMISE_S + config.HEARTBEAT_S)
    assert story.state.ground.others[other.node] == full(other)
