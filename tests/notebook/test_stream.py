"""The machine behind a cell's output: rate, head and tail, badges. Time is given, nothing waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbray.notebook.stream import DISPLAYS, QUIET_S, RATE, SETTLE_S, CellStream, Message, display_message


def text_of(messages: list[Message], stream: str = "stdout") -> str:
    return "".join(m.content["text"] for m in messages if m.type == "stream" and m.content["name"] == stream)


def alone() -> CellStream:
    """The output of a cell that is known to have one task."""
    return CellStream(writers={b"t"})


def shown(number: int, display_id: str | None = None, *, update: bool = False) -> Message:
    return display_message({"text/plain": str(number)}, {}, {"display_id": display_id} if display_id else {}, update=update)


def test_text_of_one_task_goes_out_as_it_is_and_at_once() -> None:
    stream = alone()
    stream.text(b"t", "f pid=1", "stdout", "one\ntw", 0, now=5.0)
    assert stream.next_due(5.0) == 5.0
    assert stream.due(5.0) == [Message("stream", {"name": "stdout", "text": "one\ntw"})]
    assert stream.next_due(5.0) is None


def test_the_first_lines_wait_until_it_is_known_whether_there_are_other_tasks() -> None:
    stream = CellStream()
    stream.text(b"t", "f pid=1", "stdout", "first\n", 0, now=1.0)
    assert stream.next_due(1.0) == 1.0 + SETTLE_S
    assert stream.due(1.0 + SETTLE_S) == []
    stream.told_whether(True)
    assert text_of(stream.due(1.0 + SETTLE_S)) == "(f pid=1) first\n"


def test_pieces_that_follow_each_other_become_one_message() -> None:
    stream = alone()
    for word in "abc":
        stream.text(b"t", "f pid=1", "stdout", word, 0, now=0.0)
    assert len(stream.due(0.0)) == 1


def test_streams_keep_their_order() -> None:
    stream = alone()
    for i, name in enumerate(["stdout", "stderr", "stdout"]):
        stream.text(b"t", "f pid=1", name, f"{i}\n", 0, now=0.0)
    assert [(m.content["name"], m.content["text"]) for m in stream.due(0.0)] == [
        ("stdout", "0\n"),
        ("stderr", "1\n"),
        ("stdout", "2\n"),
    ]


def test_lines_have_badges_once_a_second_task_writes() -> None:
    stream = CellStream()
    stream.text(b"1", "f pid=1", "stdout", "alone\n", 0, now=0.0)
    stream.told_whether(False)
    first = stream.due(0.0)
    stream.text(b"2", "g pid=2", "stdout", "two\nlines\n", 0, now=1.0)
    stream.text(b"1", "f pid=1", "stdout", "again\n", 0, now=1.0)
    assert text_of(first) == "alone\n"
    assert text_of(stream.due(1.0)) == "(g pid=2) two\n(g pid=2) lines\n(f pid=1) again\n"


def test_a_line_that_another_task_interrupts_is_ended_first() -> None:
    stream = CellStream(badges=True)
    stream.text(b"1", "f pid=1", "stdout", "half", 0, now=0.0)
    stream.text(b"1", "f pid=1", "stdout", " more", 0, now=0.0)
    stream.text(b"2", "g pid=2", "stdout", "other\n", 0, now=0.0)
    assert text_of(stream.due(0.0)) == "(f pid=1) half more\n(g pid=2) other\n"


def test_a_line_continued_in_a_later_message_has_one_badge() -> None:
    stream = CellStream(badges=True)
    stream.text(b"1", "f pid=1", "stdout", "half", 0, now=0.0)
    before = text_of(stream.due(0.0))
    stream.text(b"1", "f pid=1", "stdout", " done\nnext\n", 0, now=1.0)
    assert before + text_of(stream.due(1.0)) == "(f pid=1) half done\n(f pid=1) next\n"


def test_never_more_than_the_rate() -> None:
    stream = alone()
    sent = 0
    for tenth in range(100):  # ten seconds
        for i in range(20):
            stream.text(b"t", "f pid=1", "stdout" if i % 2 else "stderr", "x\n", 0, now=tenth / 10)
        sent += len(stream.due(tenth / 10))
    assert sent <= RATE * 10 + RATE


def test_asking_when_it_says_makes_progress() -> None:
    stream = CellStream(last=0.0)
    for i in range(50):
        stream.display(shown(i), now=0.0)
    now, asked = 0.0, 0
    while (at := stream.next_due(now)) is not None:
        now = max(now, at)
        stream.due(now)
        asked += 1
        assert asked < 200
    assert now >= 50 / RATE - 1.1


def test_beyond_the_limit_only_head_and_tail_show_and_the_rest_is_counted() -> None:
    stream = CellStream(limit=100)
    text = "".join(f"{i:03d}\n" for i in range(500))
    stream.text(b"t", "f pid=1", "stdout", text, 0, now=0.0)
    out = stream.finish()
    head, _, rest = text_of(out).partition("… ")
    mark, _, tail = rest.partition(" …\n")
    assert head.startswith("000\n001\n")
    assert head.endswith("\n"), "whole lines"
    assert tail.endswith("498\n499\n")
    assert len(head + tail) <= 100
    assert f"({2000 - len(head + tail):,} characters) left out" in mark
    assert text_of(out, "stderr") == "", "a front end shows one stream in its order, and two as it likes"


def test_a_flood_that_pauses_shows_its_tail() -> None:
    stream = CellStream(limit=100, writers={b"t"})
    stream.text(b"t", "f pid=1", "stdout", "y\n" * 1000, 0, now=0.0)
    stream.due(0.0)
    assert stream.next_due(0.5) == QUIET_S
    assert text_of(stream.due(QUIET_S)).endswith("y\n")
    assert stream.next_due(5.0) is None


def test_lines_that_workers_left_out_are_told_where_they_are_missing() -> None:
    stream = CellStream(badges=True)
    stream.text(b"t", "f", "stdout", "a\n", 0, now=0.0)
    for _ in range(3):
        stream.text(b"t", "f", "stdout", "", 7, now=0.0)
    stream.text(b"t", "f", "stdout", "z\n", 1, now=0.0)
    stream.text(b"t", "f", "stdout", "", 5, now=0.0)
    told = "… {} lines left out, printed too fast to show; %nbray logs has them …\n"
    assert text_of(stream.finish()) == "(f) a\n" + told.format(22) + "(f) z\n" + told.format(5)
    assert stream.finish() == []


def test_updates_of_one_display_that_wait_are_one() -> None:
    stream = CellStream()
    stream.display(shown(0, "d"), now=0.0)
    for i in range(1, 1000):
        stream.display(shown(i, "d", update=True), now=0.0)
    assert [m.content["data"]["text/plain"] for m in stream.due(0.0)] == ["999"]


def test_displays_are_bounded() -> None:
    stream = CellStream()
    for i in range(DISPLAYS + 5):
        stream.display(shown(i), now=0.0)
    out = stream.finish()
    assert sum(m.type == "display_data" for m in out) == DISPLAYS
    assert "5 displays left out" in text_of(out, "stderr")


def test_held_output_comes_with_the_end_only() -> None:
    stream = CellStream(held=True)
    stream.text(b"t", "f pid=1", "stdout", "a\n", 0, now=0.0)
    assert (stream.due(9.0), stream.next_due(9.0), stream.flush()) == ([], None, [])
    assert text_of(stream.finish()) == "a\n"


def test_bytes_become_base64() -> None:
    assert display_message({"image/png": b"\x00\xff"}, {}, {}, update=False).content["data"] == {"image/png": "AP8="}


facts = st.one_of(
    st.tuples(st.just("text"), st.sampled_from(["1", "2"]), st.sampled_from(["stdout", "stderr"]), st.text("ab\n", max_size=30)),
    st.tuples(st.just("display"), st.booleans()),
    st.tuples(st.just("wait"), st.floats(0, 3)),
)


@given(st.lists(facts, max_size=40), st.integers(0, 200))
def test_nothing_is_lost_unsaid_whatever_comes_in_whatever_order(story: list[tuple[object, ...]], limit: int) -> None:
    stream, now, out, given_text = CellStream(limit=limit), 0.0, [], 0
    for fact in story:
        if fact[0] == "text":
            stream.text(str(fact[1]).encode(), f"f pid={fact[1]}", str(fact[2]), str(fact[3]), 0, now)
            given_text += len(str(fact[3]))
        elif fact[0] == "display":
            stream.display(shown(1, "d", update=bool(fact[1])), now)
        else:
            now += float(str(fact[1]))
        if stream.ask_at is not None and now >= stream.ask_at:
            stream.told_whether(False)
        out += stream.due(now)
    out += stream.finish()
    assert not stream.queue
    assert not stream.tail
    notes = text_of(out, "stderr") + text_of(out)
    if "left out" not in notes:
        letters = sum(m.content["text"].count("a") + m.content["text"].count("b") for m in out if m.type == "stream")
        assert letters == sum(str(f[3]).count("a") + str(f[3]).count("b") for f in story if f[0] == "text")
