"""An actor without handles ends wherever it is caught: also between two places."""

from __future__ import annotations

from tests.head.story import Story, actor_id, letters


def living() -> Story:
    story = Story()
    for line in ("node a CPU=4", "node b CPU=4", "job d@a", "actor X d@a restarts=-1 run.CPU=1"):
        story.tell(line)
    return story


def place_of_x(story: Story) -> str:
    node = story.head.directory.live[actor_id("X")].node
    assert node is not None
    return letters(node)


def test_a_released_actor_whose_place_had_no_room_gets_no_other() -> None:
    story = living()
    story.tell("kill X restart")
    story.tell("release X")
    said = story.tell(f"unplaced X {place_of_x(story)} epoch=1")
    assert "PlaceActor" not in said
    assert "DEAD" in said


def test_a_released_actor_that_was_starting_does_not_come_back_with_a_restarted_head() -> None:
    story = living()
    where = place_of_x(story)
    story.tell("release X")
    story.tell("restart-head c")
    said = story.tell(f"beat {where}")
    assert "PlaceActor" not in said
    assert actor_id("X") in story.head.directory.dead
