"""Output of many tasks, one group after the other: what shows, what waits, what is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbray.notebook.grouping import Fact, Grouping


class Page:
    """What has been passed on, and what was left out."""

    def __init__(self, by: str = "order", limit: int = 1000) -> None:
        self.shown = ""
        self.omitted = (0, 0)
        self.groups = Grouping(by, limit, self._omit)

    def _omit(self, lines: int, characters: int) -> None:
        self.omitted = (self.omitted[0] + lines, self.omitted[1] + characters)

    def prints(self, key: object, text: str) -> None:
        self.groups.take(key, Fact(lambda: self._show(text), len(text), text.count("\n")))  # type: ignore[arg-type]

    def _show(self, text: str) -> None:
        self.shown += text


def test_the_first_task_shows_as_it_prints_and_the_next_when_it_has_ended() -> None:
    page = Page()
    page.groups.expect(["a", "b", "c"])
    page.prints("b", "b1 ")
    page.prints("a", "a1 ")
    assert page.shown == "a1 "
    page.groups.end("c")
    page.groups.end("a")
    assert page.shown == "a1 b1 "
    page.prints("b", "b2 ")
    assert page.shown == "a1 b1 b2 "


def test_what_prints_before_the_order_is_known_waits_for_it() -> None:
    page = Page()
    page.prints("b", "b ")
    page.prints("a", "a ")
    page.groups.end("b")
    assert page.shown == ""
    page.groups.expect(["a", "b"])
    assert page.shown == "a "
    page.groups.end("a")
    assert page.shown == "a b "


def test_tasks_of_tasks_come_last() -> None:
    page = Page()
    page.groups.expect(["a"])
    page.prints("nested", "n ")
    page.prints("a", "a ")
    page.groups.finish()
    assert page.shown == "a n "


def test_workers_show_in_the_order_in_which_they_first_print() -> None:
    page = Page("worker")
    for key, text in [(2, "x1 "), (1, "y1 "), (2, "x2 ")]:
        page.prints(key, text)
    assert page.shown == "x1 x2 "
    page.groups.finish()
    assert page.shown == "x1 x2 y1 "


def test_what_waits_is_bounded_and_what_is_left_out_is_counted() -> None:
    page = Page(limit=100)
    page.groups.expect(["a", "b", "c"])
    page.prints("c", "short\n")
    for i in range(50):
        page.prints("b", f"line {i}\n")
    page.groups.finish()
    assert page.shown.endswith("line 49\nshort\n")
    assert len(page.shown) <= 100
    assert page.omitted == (51 - page.shown.count("\n"), 6 + sum(len(f"line {i}\n") for i in range(50)) - len(page.shown))


facts = st.lists(st.tuples(st.sampled_from(["prints", "ends"]), st.sampled_from("abcd"), st.text("x\n", min_size=1, max_size=9)))


@given(facts, st.sampled_from(["order", "worker"]), st.integers(0, 10), st.integers(5, 50))
def test_every_character_shows_or_is_counted(story: list[tuple[str, str, str]], by: str, told_at: int, limit: int) -> None:
    page, given_text = Page(by, limit), 0
    for i, (what, key, text) in enumerate(story):
        if i == told_at and by == "order":
            page.groups.expect(["a", "b", "c"])
        if what == "prints":
            page.prints(key, text)
            given_text += len(text)
        elif by == "order":
            page.groups.end(key)
    page.groups.finish()
    assert len(page.shown) + page.omitted[1] == given_text
