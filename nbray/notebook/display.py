"""What the notebook shows of nbray's own things: static HTML, everything in it escaped, and the same as text.

No script, no style sheet: it must look right in a saved notebook, in light and dark, and read well without HTML.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from nbray import shown
from nbray.cards.page import PALETTE, STATE_COLOURS
from nbray.cards.words import SIGNS, count_text, seconds_text
from nbray.shown import MUTED

if TYPE_CHECKING:
    from nbray.planning import Forecast

Bundle = shown.Bundle


def line(state: str, parts: Sequence[str]) -> Bundle:
    """The line under a cell: its state, then facts."""
    text = f"{SIGNS[state]} {state} · " + " · ".join(parts)
    facts = html.escape(" · ".join(parts))
    return {
        "text/plain": text,
        "text/html": (
            f'<div role="status" style="font-size:85%;{MUTED}">'
            f'<span style="color:{STATE_COLOURS[state]}">{SIGNS[state]} {state}</span>'
            f" · {facts}</div>"
        ),
    }


def note(text: str) -> Bundle:
    """One quiet line of nbray's own, for what is no error."""
    said = html.escape(f"nbray: {text}")
    return {"text/plain": f"nbray: {text}", "text/html": f'<div role="note" style="font-size:85%;{MUTED}">{said}</div>'}


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> Bundle:
    """A table with a title; `empty` is what to say when it has no rows."""
    cells = [[str(value) for value in row] for row in rows]
    if not cells:
        return {"text/plain": f"{title}: {empty}", "text/html": f"<div><b>{html.escape(title)}</b>: {html.escape(empty)}</div>"}
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in [columns, *cells]]
    head = "".join(f'<th style="text-align:left">{html.escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f'<td style="text-align:left">{html.escape(v)}</td>' for v in row) + "</tr>" for row in cells)
    return {
        "text/plain": "\n".join([title, *lines]),
        "text/html": (
            f'<table><caption style="text-align:left;white-space:nowrap"><b>{html.escape(title)}</b></caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        ),
    }


def lines(told: Sequence[str]) -> Bundle:
    """Text whose columns and indents mean something; its first line is the title."""
    text = "\n".join(told)
    shown = f"<b>{html.escape(told[0])}</b>\n{html.escape(chr(10).join(told[1:]))}"
    style = "margin:0;white-space:pre-wrap;font-family:var(--jp-code-font-family,monospace);color:var(--jp-ui-font-color1,inherit)"
    return {"text/plain": text, "text/html": f'<pre style="{style}">{shown}</pre>'}


def plan(title: str, told: Forecast) -> Bundle:
    """A forecast: a row for each number of cores, with a bar as long as the time, and what else there is to know."""
    longest = max((seconds for seconds in told.seconds if seconds is not None), default=0.0) or 1.0
    rows = []
    for cores, seconds in zip(told.cores, told.seconds, strict=True):
        said = f"a task asks for {told.widest:g} CPUs" if seconds is None else seconds_text(seconds)
        width = (seconds or 0) / longest * 240
        bar = f'<div aria-hidden="true" style="height:8px;width:{width:.0f}px;background:{PALETTE[0]}"></div>'
        cells = (count_text(cores, "core"), said, bar)
        rows.append("<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>")
    where = "" if told.nodes == 1 else f", on each of {told.nodes} nodes"
    notes = "".join(f'<div style="font-size:85%;{MUTED}">{html.escape(note)}</div>' for note in told.notes())
    caption = html.escape(f"{title} elsewhere{where}")
    return {
        "text/plain": "\n".join([f"{title} elsewhere", *(f"  {line}" for line in told.lines())]),
        "text/html": (
            f'<table><caption style="text-align:left;white-space:nowrap">{caption}</caption>'
            f"<tbody>{''.join(rows)}</tbody></table>{notes}"
        ),
    }


def facts(title: str, pairs: Mapping[str, object]) -> Bundle:
    """A title and what is known under it."""
    told = {name: str(value) for name, value in pairs.items()}
    items = "".join(f"<div><span style='{MUTED}'>{html.escape(n)}</span> {html.escape(v)}</div>" for n, v in told.items())
    return {
        "text/plain": "\n".join([title, *(f"  {name}: {value}" for name, value in told.items())]),
        "text/html": f"<div><b>{html.escape(title)}</b>{items}</div>",
    }
