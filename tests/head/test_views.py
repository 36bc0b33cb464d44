"""What nodes are told of the cluster: everything once, then what changes; and less often where much changes."""

from __future__ import annotations

import pytest

from nbray import config
from nbray.head import groups, members
from nbray.ids import Address
from nbray.machine import Effect, Send, Tick
from nbray.sched.resources import to_amounts
from nbray.wire import messages as m
from tests.head.story import Story, address, ident, node_info


def views(effects: list[Effect]) -> dict[Address, m.ClusterView]:
    return {e.to: e.message for e in effects if isinstance(e, Send) and isinstance(e.message, m.ClusterView)}


def told_of(view: m.ClusterView) -> list[bytes]:
    return [each.node for each in (*view.nodes, *view.news)]


def later(story: Story, effects: list[Effect]) -> dict[Address, m.ClusterView]:
    """The views of `effects`, or of the next Tick that the head asks for."""
    while not views(effects):
        due = story.head.next_deadline()
        assert due is not None
        story.now = max(story.now, due)
        effects = story.take(Tick())
    return views(effects)


@pytest.fixture
def story() -> Story:
    made = Story()
    for line in ("node a CPU=4", "node b CPU=4", "node c CPU=4"):
        made.tell(line)
    made.now += 5
    for name in "abc":
        made.take(m.Heartbeat(node_info(name, {"CPU": 4})))
    return made


def beat(story: Story, name: str, free: float, **more: bool) -> list[Effect]:
    return story.take(m.Heartbeat(node_info(name, {"CPU": 4}, {"CPU": free}), **more))


def test_who_has_a_view_is_told_what_has_changed_and_of_nothing_else(story: Story) -> None:
    found = later(story, beat(story, "b", 1))
    assert set(found) == {address("a"), address("b"), address("c")}
    (view,) = {id(view): view for view in found.values()}.values()
    assert told_of(view) == [ident("b")]
    assert view.since == view.serial - 1 > 0


def test_of_a_node_that_works_only_that_is_told_which_changes(story: Story) -> None:
    (news,) = later(story, beat(story, "b", 1))[address("a")].news
    assert (news.node, news.available) == (ident("b"), to_amounts({"CPU": 1}))
    story.now += 2
    larger = m.NodeInfo(ident("b"), "host-b", 100, to_amounts({"CPU": 8}), to_amounts({"CPU": 2}))
    view = later(story, story.take(m.Heartbeat(larger)))[address("a")]
    assert (view.nodes, view.news) == ([larger], [])


def test_each_view_builds_on_the_one_before(story: Story) -> None:
    first = later(story, beat(story, "b", 1))[address("a")]
    story.now += 2
    second = later(story, beat(story, "c", 1))[address("a")]
    assert second.since == first.serial
    assert told_of(second) == [ident("c")]


def test_a_node_that_lost_count_is_told_everything(story: Story) -> None:
    later(story, beat(story, "b", 1))
    story.now += 2
    found = later(story, beat(story, "c", 4, astray=True))
    assert found[address("c")].since == 0
    assert {info.node for info in found[address("c")].nodes} == {ident("a"), ident("b"), ident("c")}
    assert all(view.since for to, view in found.items() if to != address("c"))


def test_after_a_restart_of_the_head_everybody_is_told_everything(story: Story) -> None:
    story.restart(ident("e"))
    found = later(story, story.take(m.RegisterNode(node_info("e", {"CPU": 4}))))
    assert {view.since for view in found.values()} == {0}
    assert set(found) == {address(name) for name in "abce"}


def test_a_node_that_left_is_in_no_later_view(story: Story) -> None:
    beat(story, "b", 1)
    story.take(m.NodeDied(ident("b"), "drained"))
    story.now += 2
    found = later(story, beat(story, "c", 1))
    assert {node for view in found.values() for node in told_of(view)} == {ident("c")}


def test_where_much_changes_views_come_less_often_than_heartbeats(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "TOLD_PER_S", 1.0)  # as if these were very many nodes
    story.now += 60
    later(story, beat(story, "b", 1))  # one node told of to three: three seconds' worth
    told_at = story.now
    later(story, beat(story, "b", 2))
    assert story.now - told_at == pytest.approx(3.0)
    assert story.now - told_at > config.HEARTBEAT_S


def test_a_group_that_waits_in_a_large_cluster_is_not_sought_a_place_for_at_every_heartbeat(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SEARCHED", 2)
    monkeypatch.setattr(groups, "RETRY_S_PER_NODE", 0.1)
    tries = []
    search = groups.place
    monkeypatch.setattr(groups, "place", lambda *given: tries.append(1) or search(*given))
    for name in "abc":
        beat(story, name, 0)
    spec = m.GroupSpec(b"g" * 16, [to_amounts({"CPU": 4})], "PACK", address("d@a"), address("d@a"))
    story.take(m.CreateGroup(spec, 1))
    tries.clear()
    for number in range(20):
        beat(story, "b", number % 4)
    assert len(tries) <= 4, "a search among few and one among all, once each"
    beat(story, "b", 4)  # room, and it is not forgotten
    told_at = story.now
    while not story.head.groups.live[b"g" * 16].reserving:
        due = story.head.next_deadline()
        assert due is not None
        story.now = max(story.now, due)
        story.take(Tick())
    assert set(story.head.groups.live[b"g" * 16].reserving.values()) == {ident("b")}
    assert story.now - told_at <= 0.3 + 1e-6


def test_a_place_for_a_group_is_found_among_few_nodes_or_else_among_all(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "SEARCHED", 1)
    spec = m.GroupSpec(b"g" * 16, [to_amounts({"CPU": 4})] * 3, "STRICT_SPREAD", address("d@a"), address("d@a"))
    asked = story.take(m.CreateGroup(spec, 1))
    assert {e.to.node for e in asked if isinstance(e, Send) and isinstance(e.message, m.ReserveBundles)} == {
        ident("a"), ident("b"), ident("c"),
    }  # fmt: skip
