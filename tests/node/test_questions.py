"""Questions that a node hands on to its processes, and what it tells of them itself."""

from __future__ import annotations

from nbray.wire import messages as m
from tests.node.story import Story, address, ident

ASKER = address("viewer")


def ask(story: Story, patience_s: float = 5.0) -> dict[bytes, int]:
    """Ask the processes for their tasks; who was asked, under which number."""
    story.tell(m.Ask(9, ASKER, "processes", {"of": "tasks", "patience_s": patience_s, "room": 1000}))
    return {send.to.process: send.message.request for send in story._take(lambda e: isinstance(getattr(e, "message", None), m.Ask))}


def test_drivers_and_workers_are_asked_and_their_answers_come_together() -> None:
    story = Story(CPU=1)
    story.drive()
    worker = story.lease(1).worker.process
    asked = ask(story)
    assert set(asked) == {ident("d"), worker}
    story.tell(m.Answer(asked[worker], b"mine"))
    assert story.sent_to(ASKER, m.Answer) == []
    story.tell(m.Answer(asked[ident("d")], b"yours"))
    (answer,) = story.sent_to(ASKER, m.Answer)
    assert answer == m.Answer(9, {"answers": [[ident("me"), worker, b"mine"], [ident("me"), ident("d"), b"yours"]], "silent": []})


def test_a_worker_that_dies_is_not_waited_for_and_one_that_hangs_is_named() -> None:
    story = Story(CPU=2)
    story.drive()
    dying, hanging = story.lease(1).worker.process, story.lease(2).worker.process
    asked = ask(story, patience_s=5.0)
    story.tell(m.Answer(asked[ident("d")], b"yours"))
    story.exit(dying)
    assert story.sent_to(ASKER, m.Answer) == []
    story.wait(5.1)
    (answer,) = story.sent_to(ASKER, m.Answer)
    assert answer.result["silent"] == [[ident("me"), dying, "has ended"], [ident("me"), hanging, "did not answer in time"]]


def test_a_question_that_makes_no_sense_is_refused() -> None:
    story = Story(CPU=1)
    story.tell(m.Ask(9, ASKER, "processes", {}))
    (answer,) = story.sent_to(ASKER, m.Answer)
    assert "does not say what to hand on" in answer.error


def test_the_census_has_drivers_workers_and_the_dead() -> None:
    story = Story(CPU=2)
    story.drive()
    crashed, idle = story.lease(1).worker.process, story.lease(2).worker.process
    story.exit(crashed, signal=11)
    rows = {bytes.fromhex(row["worker_id"]): row for row in story.state.workers()}
    assert (rows[ident("d")]["worker_type"], rows[ident("d")]["is_alive"]) == ("DRIVER", True)
    assert (rows[idle]["state"], rows[idle]["job_id"]) == ("LEASED", ident("d").hex())
    assert (rows[crashed]["is_alive"], rows[crashed]["exit_type"]) == (False, "SYSTEM_ERROR")
    assert "signal 11" in rows[crashed]["exit_detail"]
