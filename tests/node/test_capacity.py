"""More CPUs, or fewer, while the node runs."""

from __future__ import annotations

from typing import Any

import pytest

from nbray.wire import messages as m
from tests.node.story import Story, address

ASKER = address("viewer")


def scale(story: Story, cpus: Any) -> m.Answer:
    story.tell(m.Ask(9, ASKER, "scale", {"cpus": cpus}))
    (answer,) = story.sent_to(ASKER, m.Answer)
    return answer


def test_what_waits_begins_when_there_are_more_cpus() -> None:
    story = Story(CPU=1)
    story.drive()
    story.lease(1)
    story.request(2)
    story.greet_all()
    assert story.sent(m.LeaseGranted) == []
    assert scale(story, 3).result == {"cpus": 3, "was": 1.0}
    story.greet_all()
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [2]
    assert story.free["CPU"] == 1
    assert story.state.ground.info().total["CPU"] == 30_000, "the cluster is told"


def test_with_fewer_cpus_what_runs_goes_on_and_nothing_new_begins() -> None:
    story = Story(CPU=3)
    story.drive()
    first, second, third = (story.lease(number) for number in (1, 2, 3))
    assert not scale(story, 1).error
    assert story.state.ground.info().available["CPU"] == 0
    story.request(4)
    story.give_back(first)
    story.give_back(second)
    assert story.sent(m.LeaseGranted) == []
    story.give_back(third)
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [4]
    assert story.free["CPU"] == 0


@pytest.mark.parametrize("cpus", [0, -1, 1.5, "many", None, 10**9])
def test_a_number_that_no_node_has_is_refused(cpus: Any) -> None:
    story = Story(CPU=2)
    assert "1 to 100,000 whole CPUs" in (scale(story, cpus).error or "")
    assert story.free == {"CPU": 2}


def test_a_node_that_only_connects_a_driver_runs_nothing_afterwards_either() -> None:
    story = Story(memory=1)
    assert "runs nothing" in (scale(story, 2).error or "")
