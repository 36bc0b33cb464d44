"""What waits for company, between two real mailboxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbray.ids import Address
from nbray.owner.outgoing import SOON_MOST, SOON_S, Outgoing
from nbray.wire.mailbox import Mailbox
from nbray.wire.messages import CancelTask

NODE = b"node-one"
ME, OTHER, THIRD = (Address(NODE, name) for name in (b"me------", b"other---", b"third---"))


def word(number: int) -> CancelTask:
    return CancelTask(number.to_bytes(16, "big"))


def frame(mailbox: Mailbox) -> list[int]:
    """The numbers in the next frame; none if nothing comes for a while."""
    return [int.from_bytes(message.task) for message in mailbox.receive(0.2) if isinstance(message, CancelTask)]


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[list[Mailbox]]:
    made = [Mailbox(address, str(tmp_path)) for address in (ME, OTHER, THIRD)]
    yield made
    for mailbox in made:
        mailbox.close(linger=False)


@pytest.fixture
def outgoing(boxes: list[Mailbox]) -> Outgoing:
    made = Outgoing()
    made.mailbox = boxes[0]
    return made


def test_what_waits_leaves_in_one_frame_in_its_order(outgoing: Outgoing, boxes: list[Mailbox]) -> None:
    for number in range(3):
        outgoing.send_soon(OTHER, word(number), 100.0)
    assert outgoing.due == 100.0 + SOON_S
    outgoing.flush()
    assert outgoing.due is None
    assert frame(boxes[1]) == [0, 1, 2]


def test_who_is_to_see_to_the_time_is_woken_once(outgoing: Outgoing, boxes: list[Mailbox]) -> None:
    for number in range(3):
        outgoing.send_soon(OTHER, word(number), 100.0)
    assert boxes[0].receive(5) == []  # the wake-up: a frame without messages
    assert outgoing.due is not None
    assert boxes[0]._inbox.poll(50) == 0


def test_a_message_that_cannot_wait_takes_along_what_waits_for_the_same_mailbox(outgoing: Outgoing, boxes: list[Mailbox]) -> None:
    outgoing.send_soon(OTHER, word(1), 100.0)
    outgoing.send_soon(THIRD, word(9), 100.0)
    outgoing.send(OTHER, [word(2)])
    assert frame(boxes[1]) == [1, 2]
    assert outgoing.due is not None, "one for another mailbox still waits"
    outgoing.flush()
    assert frame(boxes[2]) == [9]


def test_no_more_wait_than_keep_the_receiver_busy(outgoing: Outgoing, boxes: list[Mailbox]) -> None:
    for number in range(SOON_MOST):
        outgoing.send_soon(OTHER, word(number), 100.0)
    assert outgoing.due is None
    assert frame(boxes[1]) == list(range(SOON_MOST))


def test_when_the_time_is_over_the_next_one_takes_all_along(outgoing: Outgoing, boxes: list[Mailbox]) -> None:
    outgoing.send_soon(OTHER, word(1), 100.0)
    outgoing.send_soon(OTHER, word(2), 100.0 + 2 * SOON_S)
    assert outgoing.due is None
    assert frame(boxes[1]) == [1, 2]


def test_without_a_mailbox_nothing_is_kept(outgoing: Outgoing, boxes: list[Mailbox]) -> None:
    outgoing.mailbox = None
    outgoing.send_soon(OTHER, word(1), 100.0)
    outgoing.flush()
    outgoing.mailbox = boxes[0]
    outgoing.send(OTHER, [word(2)])
    assert frame(boxes[1]) == [2]
