"""Progress bars: what a line says, and how many of them share a terminal without garbling it."""

from __future__ import annotations

import io

import pytest

from nbray.driver import bars
from nbray.driver.bars import Bars
from nbray.progress import Progress, as_html, line


class Screen(io.StringIO):
    """A terminal that understands what Bars writes: text, line ends, "n lines up" and "erase to the end"."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        shown: list[str] = [""]
        at = 0
        for part in self.getvalue().replace("\x1b[J", "\x1bJ").split("\x1b"):
            text = part
            if part.startswith("J"):
                del shown[at:]
                shown.append("")
                text = part[1:]
            elif part.startswith("["):
                up, _, text = part[1:].partition("A")
                at -= int(up)
            for i, piece in enumerate(text.split("\n")):
                if i:
                    at += 1
                    if at == len(shown):
                        shown.append("")
                shown[at] += piece
        return shown[:-1] if not shown[-1] else shown


def progress(bar: str, n: float, *, total: float | None = 10, closed: bool = False) -> Progress:
    return Progress(bar, bar, n, total, "it", 1.0, "", closed)


def test_a_line_says_how_far_and_how_fast() -> None:
    half = Progress("id", "fit", 50, 100, "it", 5.0, "f pid=7")
    assert line(half, 70) == "(f pid=7) fit:  50%|█████████         | 50/100 [00:05<00:05, 10.0it/s]"
    assert line(half, 60) == "(f pid=7) fit:  50% 50/100 [00:05<00:05, 10.0it/s]", "no room for a bar"
    assert line(half, 40) == "(f pid=7) fit:  50% 50/100 [00:05<00:05, 10.0it/s]"[:40]
    assert line(Progress("id", "", 3, None, "rows", 3661.0)) == "3rows [1:01:01, 1220.3s/rows]"
    assert "0/10 [00:00<?, ?it/s]" in line(Progress("id", "", 0, 10))


@pytest.mark.parametrize(("n", "total", "share"), [(0, 10, 0.0), (20, 10, 1.0), (-1, 10, 0.0), (5, None, None), (5, 0, None)])
def test_a_share_is_between_nothing_and_all(n: float, total: float | None, share: float | None) -> None:
    assert Progress("id", n=n, total=total).share == share


def test_html_is_escaped_and_has_a_label() -> None:
    shown = as_html(Progress("id", "<b>'x'", 1, 4))
    assert "<b>" not in shown
    assert "value='0.2500'" in shown
    assert "aria-label='&lt;b&gt;&#x27;x&#x27;'" in shown
    assert "<progress" not in as_html(Progress("id", "x", 1, None))


def test_bars_of_many_tasks_are_a_block_below_what_is_printed() -> None:
    screen = Screen()
    block = Bars(lambda: screen)
    block.take(progress("a", 1), 0.0)
    block.take(progress("b", 2), 0.0)
    with block.aside():
        screen.write("printed\n")
    block.take(progress("a", 5), 1.0)
    assert [each.split("|")[0].strip() for each in screen.lines()] == ["printed", "a:  50%", "b:  20%"]
    block.take(progress("a", 10, closed=True), 1.01)
    assert [each.split("|")[0].strip() for each in screen.lines()] == ["printed", "a: 100%", "b:  20%"]
    block.finish()
    with block.aside():
        screen.write("later\n")
    assert [each.split("|")[0].strip() for each in screen.lines()] == ["printed", "a: 100%", "b:  20%", "later"]


def test_drawing_is_bounded_however_many_reports_come() -> None:
    screen = Screen()
    block = Bars(lambda: screen)
    for i in range(1000):
        block.take(progress("a", i, total=1000), 0.0)
    assert screen.getvalue().count("a:") == 1
    for i in range(bars.SHOWN + 5):
        block.take(progress(f"bar{i}", 1), 1.0)
    assert screen.lines()[-1] == "... and 6 more"


def test_without_a_terminal_a_bar_is_a_line_when_it_is_done_or_takes_long() -> None:
    out = io.StringIO()
    block = Bars(lambda: out)
    block.take(progress("a", 1), 0.0)
    assert out.getvalue() == ""
    block.take(progress("a", 2), bars.PLAIN_S)
    block.take(progress("a", 3), bars.PLAIN_S + 1)
    block.take(progress("a", 10, closed=True), bars.PLAIN_S + 2)
    assert [each.split("|")[0] for each in out.getvalue().splitlines()] == ["a:  20%", "a: 100%"]
    assert "\x1b" not in out.getvalue()
