"""The table and the chart, from what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from xml.sax.saxutils import escape

from benchmarks.peers import TITLES
from benchmarks.runner import Results
from benchmarks.table_of_contents import BLOCKS
from nbray.microbenchmark.row import Block, Row

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


# ---------------------------------------------------------------------------------------------------- figures


def figure(value: float, unit: str) -> str:
    """Three digits at least, and the unit."""
    size = abs(value)
    digits = f"{value:,.0f}" if size >= 100 or value == round(value) else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return f"{digits} {unit}".rstrip() if unit not in ("/s", "x") else f"{digits}{unit}"


def _present(values: list[float | None]) -> list[float]:
    return [v for v in values if v is not None]


def _cell(results: Results, block: Block, row: Row, who: str) -> str:
    """Median, and the span from least to most."""
    values = _present(results.values(block, row, who))
    if not values:
        return results.error(block, row, who) or "–"
    said = figure(statistics.median(values), row.unit)
    if len(values) > 1:
        said += f" ({figure(min(values), '')} – {figure(max(values), '')})"
    failed = results.values(block, row, who).count(None)
    return said + (f"; {failed} turn(s) failed: {results.error(block, row, who)}" if failed else "")


def ratios(results: Results, block: Block, row: Row, other: str) -> list[float]:
    """Of each pair: how many times better nbray was."""
    pairs = zip(results.values(block, row, "nbray"), results.values(block, row, other), strict=False)
    return [(ours / theirs if row.more_is_better else theirs / ours) for ours, theirs in pairs if ours and theirs]


def bounds_of(results: Results) -> dict[str, float]:
    """The best that was seen of each."""
    names = results.bounds[0] if results.bounds else {}
    return {name: max(each[name] for each in results.bounds) for name in names}


def _reached(met: bool) -> str:
    return "reached" if met else "**missed**"


def _goal(results: Results, block: Block, row: Row, other: str) -> str:
    said = []
    if row.target is not None:
        found = ratios(results, block, row, other)
        said.append(f"{row.target:g}x: {_reached(statistics.median(found) >= row.target)}" if found else f"{row.target:g}x")
    if row.limit is not None:
        values = _present(results.values(block, row, "nbray"))
        if values:
            middle = statistics.median(values)
            met = middle >= row.limit if row.more_is_better else middle <= row.limit
            said.append(f"{figure(row.limit, row.unit)}: {_reached(met)}")
        else:
            said.append(figure(row.limit, row.unit))
    return ", ".join(said) or "–"


def _ratio_cell(found: list[float]) -> str:
    if not found:
        return "–"
    middle = statistics.median(found)
    return f"**{middle:.2f}x**" + (f" ({min(found):.2f} – {max(found):.2f})" if len(found) > 1 else "")


# ---------------------------------------------------------------------------------------------------- the table


def markdown(results: Results, chart: str) -> str:
    """Everything between the markers of the document."""
    parts = list(_head(results, chart))
    for block in BLOCKS:
        rows = [r for r in block.rows if r.measure is None or results.rows.get(f"{block.key}/{r.name}")]
        if not any(r.measure for r in rows):
            continue
        parts += ["", f"### {block.title}", ""]
        if block.key == "startup":
            parts += _peers_table(results, block, rows)
        else:
            parts += _pair_table(results, block, rows)
    return "\n".join([*parts, "", *_bounds_table(results)])


def _head(results: Results, chart: str) -> Iterator[str]:
    yield f"Measured in {results.took_s / 60:.0f} minutes on:"
    yield ""
    for name, value in results.machine.items():
        yield f"- {name}: {value}"
    if results.load:
        yield f"- load average during the run: {min(results.load):.1f} to {max(results.load):.1f}"
    yield ""
    yield geometric_mean(results)
    yield ""
    yield f"![Ratio to Ray, row by row, on a logarithmic scale]({chart})"


def rays_rows(results: Results) -> list[tuple[Block, Row, list[float]]]:
    return [(block, row, ratios(results, block, row, "ray")) for block in BLOCKS if block.is_rays for row in block.rows]


def geometric_mean(results: Results) -> str:
    rows = rays_rows(results)
    both = [statistics.median(found) for _, _, found in rows if found]
    if not both:
        return "None of Ray's rows was measured with both."
    mean = math.exp(statistics.fmean(math.log(ratio) for ratio in both))
    reached = sum(bool(found) and statistics.median(found) >= (row.target or 0) for _, row, found in rows)
    return (
        f"**{mean:.1f}x Ray**: geometric mean of the ratios of the {len(both)} rows of Ray's own microbenchmark that both can do, "
        f"of {len(rows)} in all; the smallest is {min(both):.2f}x, the largest {max(both):.1f}x. "
        f"{reached} rows reach their goal."
    )


def _pair_table(results: Results, block: Block, rows: list[Row]) -> list[str]:
    bounds = bounds_of(results)
    lines = ["| row | nbray | other | ratio of pairs | goal | of the bound |", "|---|---|---|---|---|---|"]
    for row in rows:
        other = "baseline" if row.baseline else next(iter(block.peers), "")
        ours = row.note or _cell(results, block, row, "nbray")
        theirs = _cell(results, block, row, other) if other else "–"
        if row.baseline:
            theirs += f", {row.baseline}"
        elif other:
            theirs = f"{TITLES[other]} {theirs}"
        found = ratios(results, block, row, other)
        own = _present(results.values(block, row, "nbray"))
        share = f"{statistics.median(own) / bounds[row.bound]:.0%} of {row.bound}" if row.bound in bounds and own else "–"
        lines.append(f"| {row.name} | {ours} | {theirs} | {_ratio_cell(found)} | {_goal(results, block, row, other)} | {share} |")
    return lines


def _peers_table(results: Results, block: Block, rows: list[Row]) -> list[str]:
    peers = [p for p in block.peers if any(results.values(block, r, p) for r in rows)]
    lines = [
        f"| row | nbray | {' | '.join(TITLES[p] for p in peers)} | goal, against Ray |",
        f"|---|---|{'---|' * (len(peers) + 1)}",
    ]
    for row in rows:
        cells = [_cell(results, block, row, "nbray")]
        for peer in peers:
            found = ratios(results, block, row, peer)
            ratio = f"; {statistics.median(found):.2g}x" if found and row.unit else ""
            cells.append(_cell(results, block, row, peer) + ratio)
        lines.append(f"| {row.name} | {' | '.join(cells)} | {_goal(results, block, row, 'ray')} |")
    return lines


def _bounds_table(results: Results) -> list[str]:
    if not results.bounds:
        return []
    lines = ["### Bounds of this machine", "", "| bound | best | each time |", "|---|---|---|"]
    for name, best in bounds_of(results).items():
        unit = "/s" if "call" in name or "time" in name else "GB/s"
        each = ", ".join(figure(b[name], "") for b in results.bounds)
        lines.append(f"| {name} | {figure(best, unit)} | {each} |")
    return lines


# ---------------------------------------------------------------------------------------------------- the chart

_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .bar { fill: #2f6fde } .short { fill: #b35c00 } .goal { stroke: #1f2328; stroke-width: 2 } .axis { stroke: #8c959f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .bar { fill: #6ea8fe } .short { fill: #f0a04b } .goal { stroke: #e6edf3 } .axis { stroke: #6e7681 }
  }
"""
_LEFT, _WIDTH, _STEP, _TOP = 330, 420, 22, 46


def svg(results: Results) -> str:
    """One bar per row of Ray's: how many times as fast nbray is, on a logarithmic scale; a tick where the goal is."""
    rows = rays_rows(results)
    shown = [statistics.median(found) for _, _, found in rows if found]
    low = min([0.5, *shown])
    high = max([32.0, *shown, *(row.target or 1 for _, row, _ in rows)]) * 1.1

    def x(ratio: float) -> float:
        return _LEFT + _WIDTH * math.log(ratio / low) / math.log(high / low)

    height = _TOP + _STEP * len(rows) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 80} {height}" role="img"',
        '     aria-label="Ratio of nbray to Ray in each row of Ray\'s microbenchmark">',
        f"<style>{_STYLE}</style>",
        '<text x="10" y="18">How many times as fast as Ray (logarithmic). Upright tick: the goal. Striped: below it.</text>',
        '<defs><pattern id="stripes" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">',
        '<rect class="short" width="4" height="6"/></pattern></defs>',
    ]
    for mark in (0.5, 1, 2, 4, 8, 16, 32, 64, 128):
        if low <= mark <= high:
            parts.append(f'<line class="axis" x1="{x(mark):.1f}" y1="{_TOP - 6}" x2="{x(mark):.1f}" y2="{height - 14}"/>')
            parts.append(f'<text x="{x(mark):.1f}" y="{_TOP - 10}" text-anchor="middle">{mark:g}x</text>')
    for index, (_, row, found) in enumerate(rows):
        parts += _bar(row, found, _TOP + _STEP * index, x)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(row: Row, found: list[float], y: float, x: Callable[[float], float]) -> list[str]:
    parts = [f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(row.name)}</text>']
    if not found:
        parts.append(f'<text x="{x(1) + 6:.1f}" y="{y + 13}">{escape(row.note or "no figure")}</text>')
        return parts
    ratio = statistics.median(found)
    start, end = min(x(1), x(ratio)), max(x(1), x(ratio))
    met = row.target is None or ratio >= row.target
    fill = 'class="bar"' if met else 'fill="url(#stripes)"'
    parts.append(f'<rect {fill} x="{start:.1f}" y="{y + 2}" width="{max(1.0, end - start):.1f}" height="{_STEP - 7}"/>')
    label = max(end, x(row.target) if row.target else end) + 6
    parts.append(f'<text x="{label:.1f}" y="{y + 13}">{ratio:.1f}x</text>')
    if row.target is not None:
        at = x(row.target)
        parts.append(f'<line class="goal" x1="{at:.1f}" y1="{y}" x2="{at:.1f}" y2="{y + _STEP - 3}"/>')
    return parts
