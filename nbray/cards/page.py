"""A run that is over, as static HTML: no script and no style sheet, so that it looks right in a saved notebook, on a page made
by nbconvert and on a code host, in light and in dark. Everything in it is escaped.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from nbray.cards import words
from nbray.cards.flame import Flame
from nbray.cards.spans import Spans

MUTED = "var(--jp-ui-font-color2,#767676)"
BORDER = "var(--jp-border-color2,rgba(128,128,128,.35))"
#: Told apart by eyes that see few colours, on white and on black; names beyond the last share it. `card.js` has the same.
PALETTE = ("#4c78a8", "#e08214", "#3f9b5c", "#a5669a", "#c9a227", "#4aa3a2", "#9d755d", "#8a8a8a")
FAILED = "#d1403f"
STATE_COLOURS = {
    "done": "var(--jp-success-color1,#2e7d32)",
    "failed": "var(--jp-error-color1,#c62828)",
    "cancelled": "var(--jp-warn-color1,#b26a00)",
    "timed out": "var(--jp-warn-color1,#b26a00)",
    "running": "var(--jp-brand-color1,#1565c0)",
    "detached": "var(--jp-brand-color1,#1565c0)",
}
BINS = 240  #: across the timeline
MOST_ROWS = 24
ROW, GAP, WIDTH = 12, 2, 960
FLAW = 4  #: the red line under failures


def page(snapshot: dict[str, Any], spans: Spans, plan: dict[str, Any] | None = None, profile: Flame | None = None) -> str:
    """The card of a finished run. `plan`: what `planning.grid` says of it."""
    state = snapshot["state"]
    sign, _, facts = words.line(snapshot).partition(" · ")
    head = f'<span style="color:{STATE_COLOURS[state]}">{html.escape(sign)}</span> · {html.escape(facts)}'
    flame = "" if profile is None else profile.html()
    inside = [_bar(snapshot), _timeline(snapshot, spans), flame, _names(snapshot), _errors(snapshot), _plan(plan)]
    body = "".join(part for part in inside if part)
    summary = f'<summary style="cursor:pointer;color:{MUTED};font-size:85%">{head}</summary>'
    label = html.escape(f"nbray run {snapshot['title']}")
    return f'<details role="group" aria-label="{label}">{summary}<div style="padding:6px 0 4px 14px">{body}</div></details>'


def colour(index: int) -> str:
    return PALETTE[min(index, len(PALETTE) - 1)]


def _bar(snapshot: dict[str, Any]) -> str:
    """Time by function."""
    rows = [row for row in snapshot["names"] if row["total_s"]]
    total = sum(row["total_s"] for row in rows)
    if len(rows) < 2 or not total:
        return ""
    order = {name: i for i, name in enumerate(snapshot["span_names"])}
    x, parts = 0.0, []
    for row in rows:
        width = row["total_s"] / total * WIDTH
        said = html.escape(f"{row['name']}: {words.seconds_text(row['total_s'])}, {row['total_s'] / total:.0%}")
        fill = colour(order.get(row["name"], len(PALETTE)))
        parts.append(f'<rect x="{x:.1f}" width="{max(width, 0.5):.1f}" height="10" fill="{fill}"><title>{said}</title></rect>')
        x += width
    return _svg(10, "".join(parts), "time by function")


def _timeline(snapshot: dict[str, Any], spans: Spans) -> str:
    """One row a worker; each stretch has the colour of its longest task's name, underlined in red where a task failed."""
    table = spans.table()
    if not len(spans) or not len(table["end"]):
        return ""
    until = max(float(table["end"].max()), 1e-3)
    rows = min(len(spans.rows), MOST_ROWS)
    parts = []
    for row in range(rows):
        mine = table["row"] == row
        start, end, name = table["start"][mine], table["end"][mine], table["name"][mine]
        parts += [_rect(each, row * (ROW + GAP), ROW) for each in _stretches(start, end, name, until)]
        bad = table["state"][mine] == 1
        failed = _stretches(start[bad], end[bad], name[bad], until)
        parts += [_rect((first, last, FAILED), row * (ROW + GAP) + ROW - FLAW, FLAW) for first, last, _ in failed]
    hidden = len(spans.rows) - rows
    note = f" (and {hidden} more workers)" if hidden > 0 else ""
    caption = html.escape(
        f"{words.count_text(len(spans.rows), 'worker')}{note}, 0 to {words.seconds_text(until / 1000)}; colours are functions"
        + (", red: failed" if snapshot["counts"]["failed"] else "")
    )
    legend = " ".join(
        f'<span style="white-space:nowrap"><span style="color:{colour(i)}">■</span> {html.escape(name)}</span>'
        for i, name in enumerate(snapshot["span_names"][: len(PALETTE)])
    )
    title = f'<div style="color:{MUTED};font-size:85%;margin-top:6px">{caption} {legend}</div>'
    return title + _svg(rows * (ROW + GAP), "".join(parts), caption)


def _stretches(start: Any, end: Any, name: Any, until: float) -> list[tuple[int, int, str]]:
    """(first bin, last bin, colour) of one row, busy bins only. The longest task of a bin gives its colour."""
    codes = np.full(BINS, -1)
    code = np.minimum(name, len(PALETTE) - 1)
    first = np.clip((start / until * BINS).astype(int), 0, BINS - 1)
    last = np.clip(np.ceil(end / until * BINS).astype(int), first + 1, BINS)
    order = np.argsort(end - start, kind="stable")
    long = (end - start)[order] > until / BINS
    codes[first[order]] = code[order]  # of several in a bin, the last in order stays
    for i in order[long]:
        codes[first[i] : last[i]] = code[i]
    found: list[tuple[int, int, str]] = []
    for b, each in enumerate(codes):
        if each < 0:
            continue
        fill = PALETTE[each]
        if found and found[-1][1] == b and found[-1][2] == fill:
            found[-1] = (found[-1][0], b + 1, fill)
        else:
            found.append((b, b + 1, fill))
    return found


def _rect(stretch: tuple[int, int, str], y: int, height: int) -> str:
    first, last, fill = stretch
    x, width = first / BINS * WIDTH, (last - first) / BINS * WIDTH
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{fill}"/>'


def _svg(height: int, content: str, label: str) -> str:
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none" '
        f'style="width:100%;max-width:{WIDTH}px;height:{height}px;display:block;background:rgba(128,128,128,.12);margin:4px 0">'
        f"{content}</svg>"
    )


def _names(snapshot: dict[str, Any]) -> str:
    cells = [
        (
            row["name"],
            words.counts_text(row),
            "" if row["mean_s"] is None else words.seconds_text(row["mean_s"]),
            words.seconds_text(row["total_s"]) if row["total_s"] else "",
        )
        for row in snapshot["names"]
    ]
    style = 'style="text-align:left;padding:1px 12px 1px 0"'
    head = "".join(f"<th {style}>{name}</th>" for name in ("function", "tasks", "each", "in all"))
    body = "".join("<tr>" + "".join(f"<td {style}>{html.escape(value)}</td>" for value in row) + "</tr>" for row in cells)
    return (
        f'<table style="font-size:85%;border-top:1px solid {BORDER};margin-top:6px"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _errors(snapshot: dict[str, Any]) -> str:
    times = ((error["text"], f" ×{error['count']:,}" if error["count"] > 1 else "") for error in snapshot["errors"])
    items = "".join(f"<li>{html.escape(text)}{often}</li>" for text, often in times)
    return f'<ul style="font-size:85%;color:{STATE_COLOURS["failed"]};margin:4px 0">{items}</ul>' if items else ""


def _plan(plan: dict[str, Any] | None) -> str:
    """Seconds by cores and nodes, as a table."""
    if plan is None:
        return ""
    style = 'style="text-align:left;padding:1px 12px 1px 0"'
    head = "".join(f'<th scope="col" {style}>{words.count_text(cores, "core")}</th>' for cores in plan["cores"])
    rows = ""
    for nodes, row in zip(plan["nodes"], plan["seconds"], strict=True):
        cells = "".join(f"<td {style}>{'' if value is None else words.seconds_text(value)}</td>" for value in row)
        rows += f'<tr><th scope="row" {style}>{words.count_text(nodes, "node")} of</th>{cells}</tr>'
    notes = "<br>".join(html.escape(note) for note in plan["notes"])
    return (
        f'<div style="color:{MUTED};font-size:85%;margin-top:6px">Plan: how long it would take elsewhere</div>'
        f'<table style="font-size:85%;border-top:1px solid {BORDER}"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        f'<div style="color:{MUTED};font-size:85%">{notes}</div>'
    )
