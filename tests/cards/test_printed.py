"""What tasks printed, as a page gets it: in its order, by task, the tail of a flood."""

from __future__ import annotations

from nbray.cards.printed import CHARACTERS, LONGEST, Printed

ONE, TWO = b"\0" * 15 + b"\1", b"\0" * 15 + b"\2"


def test_text_of_one_task_is_joined_until_another_prints() -> None:
    printed = Printed()
    for who, task, stream, text in (
        ("f", ONE, "stdout", "a\n"),
        ("f", ONE, "stdout", "b\n"),
        ("f", TWO, "stdout", "c\n"),
        ("f", ONE, "stderr", "d\n"),
    ):
        printed.add(who, task, stream, text)
    assert [(each["task"], each["stream"], each["text"]) for each in printed.told()["pieces"]] == [
        ("0001", "stdout", "a\nb\n"),
        ("0002", "stdout", "c\n"),
        ("0001", "stderr", "d\n"),
    ]
    assert printed.lines == 4


def test_a_flood_leaves_its_tail_and_says_how_much_is_missing() -> None:
    printed = Printed()
    for i in range(100):
        printed.add("f", ONE, "stdout", f"{i:>{LONGEST - 1}}\n")
    told = printed.told()
    kept = "".join(each["text"] for each in told["pieces"])
    assert kept.endswith("99\n")
    assert len(kept) <= CHARACTERS
    assert told["forgotten"] == 100 * LONGEST - len(kept)
    assert printed.lines == 100


def test_fewer_characters_can_be_asked_for() -> None:
    printed = Printed()
    printed.add("f", ONE, "stdout", "x" * 50)
    printed.add("g", TWO, "stdout", "y" * 50)
    told = printed.told(60)
    assert [each["text"] for each in told["pieces"]] == ["x" * 10, "y" * 50]
    assert told["forgotten"] == 40


def test_lines_that_a_worker_left_out_are_told_where_they_are_missing() -> None:
    printed = Printed()
    printed.add("f", ONE, "stdout", "end\n", dropped=1234)
    assert printed.told()["pieces"][0]["text"] == "… 1,234 lines left out, printed too fast …\nend\n"
    assert printed.lines == 1235
