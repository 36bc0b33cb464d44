"""Questions that the head hands on to every node: who is gone is not waited for, and who is late is named."""

from __future__ import annotations

from nbray.head.records import NodeGone
from nbray.head.state import NODE_ANSWER_S
from nbray.machine import Effect, Send, Tick
from nbray.wire import messages as m
from tests.head.story import Story, address, ident, node_info

ASKER = address("v@a")


def story_of_two() -> Story:
    story = Story()
    for name in "ab":
        story.take(m.RegisterNode(node_info(name, {"CPU": 1})))
    return story


def asked(effects: list[Effect]) -> dict[bytes, m.Ask]:
    return {e.to.node: e.message for e in effects if isinstance(e, Send) and isinstance(e.message, m.Ask)}


def answers(effects: list[Effect]) -> list[m.Answer]:
    return [e.message for e in effects if isinstance(e, Send) and e.to == ASKER and isinstance(e.message, m.Answer)]


def test_every_node_is_asked_and_one_answer_comes_back() -> None:
    story = story_of_two()
    asks = asked(story.take(m.Ask(5, ASKER, "everywhere", {"of": "workers"})))
    assert {ask.what for ask in asks.values()} == {"workers"}
    assert answers(story.take(m.Answer(asks[ident("a")].request, ["w1"]))) == []
    (answer,) = answers(story.take(m.Answer(asks[ident("b")].request, ["w2"])))
    assert answer.result["answers"] == [[ident("a"), ident("a"), ["w1"]], [ident("b"), ident("b"), ["w2"]]]


def test_only_one_node_is_asked_when_one_is_meant() -> None:
    story = story_of_two()
    assert set(asked(story.take(m.Ask(5, ASKER, "everywhere", {"of": "logs", "node": ident("b").hex()})))) == {ident("b")}


def test_a_node_that_dies_meanwhile_is_named() -> None:
    story = story_of_two()
    asks = asked(story.take(m.Ask(5, ASKER, "everywhere", {"of": "workers"})))
    story.take(m.Answer(asks[ident("a")].request, []))
    (answer,) = answers(story.take(NodeGone(ident("b"), "it was unplugged")))
    assert answer.result["silent"] == [[ident("b"), ident("b"), "the node is gone: it was unplugged"]]


def test_at_the_deadline_the_asker_is_answered_all_the_same() -> None:
    story = story_of_two()
    story.take(m.Ask(5, ASKER, "everywhere", {"of": "workers", "patience_s": 0.5}))
    story.now += 0.5 + NODE_ANSWER_S
    (answer,) = answers(story.take(Tick()))
    assert [why for _, _, why in answer.result["silent"]] == ["did not answer in time"] * 2


def test_nonsense_is_refused_and_harms_nobody() -> None:
    story = story_of_two()
    (answer,) = answers(story.take(m.Ask(5, ASKER, "everywhere", {"patience_s": "for ever"})))
    assert "does not say what to hand on" in answer.error
