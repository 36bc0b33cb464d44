"""One question to many: everybody's answer, whoever dies, whoever is late, and a share of room for each."""

from __future__ import annotations

import pytest

from nbray.ids import Address
from nbray.inquiry import Inquiries, wanted
from nbray.machine import Send
from nbray.wire.messages import Answer, Ask

ME = Address(b"headnode", b"headhead")
ASKER = Address(b"nodenode", b"driverrr")
A, B = Address(b"nodeAAAA", b"nodeAAAA"), Address(b"nodeBBBB", b"nodeBBBB")
ASK = Ask(7, ASKER, "everywhere", {"of": "workers"})


def open_question(room: int = 100) -> tuple[Inquiries, dict[Address, int]]:
    inquiries = Inquiries(ME)
    sends = inquiries.put(ASK, "workers", {"limit": 3}, [A, B], until=10.0, room=room)
    return inquiries, {send.to: send.message.request for send in sends}


def result_of(sends: list[Send]) -> dict[str, object]:
    [send] = sends
    assert (send.to, send.message.request) == (ASKER, 7)
    return send.message.result


def test_everybody_is_asked_and_gets_a_share_of_the_room() -> None:
    sends = Inquiries(ME).put(ASK, "workers", {"limit": 3}, [A, B], until=10.0, room=100)
    assert [(s.to, s.message.asker, s.message.what, s.message.arguments) for s in sends] == [
        (A, ME, "workers", {"limit": 3, "room": 50}),
        (B, ME, "workers", {"limit": 3, "room": 50}),
    ]


def test_the_answer_leaves_when_the_last_has_answered() -> None:
    inquiries, numbers = open_question()
    assert inquiries.answered(Answer(numbers[B], "from b")) == []
    assert inquiries.deadline() == 10.0
    result = result_of(inquiries.answered(Answer(numbers[A], "from a")))
    assert result == {"answers": [[*B, "from b"], [*A, "from a"]], "silent": []}
    assert inquiries.deadline() is None
    inquiries.check()


def test_the_dead_are_not_waited_for() -> None:
    inquiries, numbers = open_question()
    inquiries.answered(Answer(numbers[A], "from a"))
    result = result_of(inquiries.gone(lambda who: who.node == B.node, "is gone"))
    assert result == {"answers": [[*A, "from a"]], "silent": [[*B, "is gone"]]}
    assert inquiries.answered(Answer(numbers[B], "from the grave")) == []


def test_at_the_deadline_the_late_are_named() -> None:
    inquiries, numbers = open_question()
    inquiries.answered(Answer(numbers[A], "from a"))
    assert inquiries.expire(9.9) == []
    assert result_of(inquiries.expire(10.0))["silent"] == [[*B, "did not answer in time"]]


def test_a_refusal_is_silence_with_a_reason() -> None:
    inquiries, numbers = open_question()
    inquiries.answered(Answer(numbers[A], error="cannot be asked for that"))
    assert result_of(inquiries.answered(Answer(numbers[B], 1)))["silent"] == [[*A, "cannot be asked for that"]]


def test_nobody_to_ask_is_an_empty_answer() -> None:
    assert result_of(Inquiries(ME).put(ASK, "workers", {}, [], until=10.0, room=1)) == {"answers": [], "silent": []}


def test_a_stranger_is_answer_changes_nothing() -> None:
    inquiries, numbers = open_question()
    assert inquiries.answered(Answer(max(numbers.values()) + 1, "who?")) == []
    inquiries.check()


@pytest.mark.parametrize("arguments", [{}, {"of": 3}, {"of": "x", "patience_s": "long"}, {"of": "x", "arguments": [1]}])
def test_a_question_that_makes_no_sense_is_refused_in_words(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="does not say what to hand on"):
        wanted(Ask(1, ASKER, "everywhere", arguments))
