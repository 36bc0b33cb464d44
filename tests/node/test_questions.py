"""Questions that a node hands on to its processes, and what it tells of them itself."""

from __future__ import annotations

from nbray.driver.viewer import Viewer
from nbray.ids import HEAD, Address
from nbray.node.daemon import BATCH, Daemon
from nbray.wire import messages as m
from tests.node.story import Story, address, ident

ASKER = address("viewer")


def ask(story: Story, patience_s: float = 5.0, of: str = "tasks") -> dict[bytes, int]:
    """Ask the processes for their tasks; who was asked, under which number."""
    story.tell(m.Ask(9, ASKER, "processes", {"of": of, "patience_s": patience_s, "room": 1000}))
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


def test_one_process_is_asked_alone_when_the_question_names_it() -> None:
    story = Story(CPU=1)
    story.drive()
    story.lease(1)
    named = {"of": "lineage", "patience_s": 5.0, "process": ident("d").hex()}
    story.tell(m.Ask(9, ASKER, "processes", named))
    assert [send.to.process for send in story._take(lambda e: isinstance(getattr(e, "message", None), m.Ask))] == [ident("d")]


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


def test_workers_that_have_never_run_anything_are_not_waited_for() -> None:
    story = Story(CPU=2)
    story.drive()
    used = story.lease(1).worker.process
    (fresh,) = story.state.pool.workers.keys() - {used}
    assert set(ask(story)) == {ident("d"), used}
    assert set(ask(story, of="stack")) == {ident("d"), used, fresh}


def test_a_flood_for_the_node_does_not_hold_up_what_is_asked_of_the_head() -> None:
    class Box:
        def __init__(self, address: Address, count: int) -> None:
            self.address, self.left = address, count

        def receive_nowait(self) -> m.Message | None:
            self.left -= 1
            return m.HeartbeatTaken(ident("me"), 0.0) if self.left >= 0 else None

    daemon = Daemon.__new__(Daemon)
    flood, head = Box(address("me"), 10 * BATCH), Box(Address(ident("me"), HEAD), 1)
    daemon._mailboxes = [flood, head]  # type: ignore[list-item]
    arrived: list[Address] = []
    daemon._arrived = lambda at, _message: arrived.append(at)  # type: ignore[method-assign]
    assert daemon.fetch_mail()
    assert (len(arrived), arrived[-1], head.left) == (BATCH + 1, head.address, -1)


def test_an_answer_that_is_here_when_patience_is_over_is_taken() -> None:
    class Box:
        address = ASKER

        def send(self, _to: Address, message: m.Ask) -> None:
            self.asked = message

        def receive(self, timeout_s: float) -> list[m.Message]:
            assert timeout_s == 0.0
            return [m.Answer(self.asked.request, "the answer")]

    viewer = Viewer.__new__(Viewer)
    viewer._mailbox, viewer._requests, viewer._abandoned = Box(), 0, False  # type: ignore[assignment]
    assert viewer.ask_at(address("me"), -1.0, "nodes", {}) == "the answer"


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
