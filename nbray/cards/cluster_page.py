"""A snapshot of a cluster (cluster.py) as text, and as static HTML: no script and no style sheet, everything in it escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nbray.cards.page import BORDER, MUTED
from nbray.cards.words import bytes_text, count_text, seconds_text

BLOCKS = "▁▂▃▄▅▆▇█"
TEXT_WORKERS = 8  #: busy ones told in the text, of each node
HTML_WORKERS = 64
SPARK_WIDTH, SPARK_HEIGHT = 120, 18
SIGNS = {"alive": "●", "late": "◐", "dead": "✗"}
BAD, WARN = "var(--jp-error-color1,#c62828)", "var(--jp-warn-color0,#8a5200)"
LINE = "var(--jp-brand-color1,#1565c0)"


def sparkline(past: Sequence[int | None], width: int = 20) -> str:
    """The last figures as blocks: `▁▂▅█`."""
    step = max(1, -(-len(past) // width))
    cut = [past[i : i + step] for i in range(0, len(past), step)]
    highest = [max((each for each in part if each is not None), default=None) for part in cut]
    return "".join(" " if each is None else BLOCKS[min(len(BLOCKS) - 1, each * len(BLOCKS) // 100)] for each in highest)


def node_title(node: Mapping[str, Any]) -> str:
    said = f"{SIGNS[node['state']]} {'head' if node['head'] else 'node'} {node['id'][:4]} on {node['host']}"
    if node["state"] == "dead":
        return f"{said}: dead, {node['cause']}" if node["cause"] else f"{said}: dead"
    return f"{said}: its heartbeats are late" if node["state"] == "late" else said


def workers_text(node: Mapping[str, Any]) -> str:
    """`3 workers: 2 busy, 1 idle`."""
    total = len(node["workers"]) + node["more_workers"]
    states = ", ".join(f"{count} {state}" for state, count in node.get("states", {}).items())
    return count_text(total, "worker") + (f": {states}" if states else "")


def doing(worker: Mapping[str, Any]) -> str:
    """What a worker does, in a few words."""
    who = f"actor {worker['actor']}" if worker["actor"] else ""
    what = worker["task"] and (f"{worker['task']}, waits for others" if worker["state"] == "waiting" else worker["task"])
    return ": ".join(part for part in (who, what) if part) or worker["state"]


def text(snapshot: Mapping[str, Any]) -> str:
    """Everything that the picture says."""
    lines = [snapshot["sentence"]]
    for node in snapshot["nodes"]:
        lines.append(node_title(node))
        lines += [f"  {meter['label']:<13} {sparkline(meter['past']):<20} {meter['text']}" for meter in node["meters"]]
        if node["meters"]:
            lines.append(f"  {workers_text(node)}")
        busy = [worker for worker in node["workers"] if worker["task"] or worker["actor"]]
        lines += [f"    {' · '.join(_worker_facts(worker))}" for worker in busy[:TEXT_WORKERS]]
        if len(busy) > TEXT_WORKERS:
            lines.append(f"    and {len(busy) - TEXT_WORKERS:,} more; in all {', '.join(node['runs'])}")
        lines += [f"  {why}" for why in node["waiting"]]
    if snapshot["more_nodes"]:
        lines.append(f"and {count_text(snapshot['more_nodes'], 'more node')}")
    lines += [f"actor {said}" for said in _actors(snapshot)]
    lines += [f"not told: {who}" for who in snapshot["silent"]]
    return "\n".join(lines)


def _worker_facts(worker: Mapping[str, Any]) -> list[str]:
    facts = [doing(worker), f"pid {worker['pid']}"]
    facts += [seconds_text(worker["since_s"])] if worker["since_s"] is not None else []
    facts += [f"{worker['cpu']:.0%} CPU"] if worker["cpu"] is not None else []
    return facts + ([bytes_text(worker["memory"])] if worker["memory"] is not None else [])


def _actors(snapshot: Mapping[str, Any]) -> Iterable[str]:
    """Those that are not seen at their workers: they wait, or begin again."""
    for actor in snapshot["actors"]:
        if actor["state"] != "alive":
            yield f"{actor['name']} is {actor['state']}" + (f": {actor['why']}" if actor["why"] else "")


def page(snapshot: Mapping[str, Any]) -> str:
    """The same for a notebook that nobody keeps up to date."""
    parts = [f'<div style="font-weight:600">{html.escape(snapshot["sentence"])}</div>']
    parts += [_node(node) for node in snapshot["nodes"]]
    notes = [f"and {count_text(snapshot['more_nodes'], 'more node')}"] * bool(snapshot["more_nodes"])
    notes += [f"actor {said}" for said in _actors(snapshot)] + [f"not told: {who}" for who in snapshot["silent"]]
    parts += [f'<div style="color:{MUTED};font-size:85%">{html.escape(note)}</div>' for note in notes]
    return f'<div role="group" aria-label="nbray cluster">{"".join(parts)}</div>'


def _node(node: Mapping[str, Any]) -> str:
    ink = {"dead": f"color:{BAD}", "late": f"color:{WARN}"}.get(node["state"], "")
    head = f'<div style="margin-top:8px;border-top:1px solid {BORDER};padding-top:4px;{ink}">{html.escape(node_title(node))}</div>'
    cell = 'style="text-align:left;padding:1px 12px 1px 0"'
    meters = "".join(
        f'<tr><th scope="row" {cell}>{html.escape(meter["label"])}</th><td {cell}>{_spark(meter)}</td>'
        f"<td {cell}>{html.escape(meter['text'])}</td></tr>"
        for meter in node["meters"]
    )
    table = f'<table style="font-size:85%"><tbody>{meters}</tbody></table>' if meters else ""
    waiting = "".join(f"<li>{html.escape(why)}</li>" for why in node["waiting"])
    waits = f'<ul style="margin:2px 0;font-size:85%;color:{WARN}">{waiting}</ul>' if waiting else ""
    return head + table + waits + (_workers(node) if node["meters"] else "")


def _workers(node: Mapping[str, Any]) -> str:
    cell = 'style="text-align:left;padding:1px 12px 1px 0"'
    shown = node["workers"][:HTML_WORKERS]
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td {cell}>{html.escape(value)}</td>"
            for value in (
                str(worker["pid"]),
                doing(worker),
                "" if worker["since_s"] is None else seconds_text(worker["since_s"]),
                "" if worker["cpu"] is None else f"{worker['cpu']:.0%}",
                "" if worker["memory"] is None else bytes_text(worker["memory"]),
            )
        )
        + "</tr>"
        for worker in shown
    )
    names = "".join(f'<th scope="col" {cell}>{name}</th>' for name in ("pid", "runs", "for", "CPU", "memory"))
    hidden = len(node["workers"]) + node["more_workers"] - len(shown)
    more = f'<div style="color:{MUTED};font-size:85%">and {hidden:,} more</div>' if hidden else ""
    table = f'<table style="font-size:85%"><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>{more}' if shown else ""
    summary = f'<summary style="cursor:pointer;font-size:85%;color:{MUTED}">{html.escape(workers_text(node))}</summary>'
    return f"<details{' open' if 0 < len(shown) <= 8 else ''}>{summary}{table}</details>"


def _spark(meter: Mapping[str, Any]) -> str:
    """The last minute as a line; a gap where nobody looked."""
    runs: list[list[tuple[float, float]]] = [[]]
    for i, value in enumerate(meter["past"]):
        if value is None:
            runs.append([])
            continue
        at = (SPARK_WIDTH * (i + 60 - len(meter["past"])) / 59, SPARK_HEIGHT - 1 - (SPARK_HEIGHT - 2) * value / 100)
        runs[-1] += [at] if runs[-1] else [(at[0] - 2, at[1]), at]
    points = (" ".join(f"{x:.1f},{y:.1f}" for x, y in run) for run in runs if run)
    lines = "".join(f'<polyline points="{each}" fill="none" stroke="{LINE}" stroke-width="1.5"/>' for each in points)
    label = html.escape(f"{meter['label']} {meter['share']:.0%}; the last {len(meter['past'])} s")
    return (
        f'<svg role="img" aria-label="{label}" width="{SPARK_WIDTH}" height="{SPARK_HEIGHT}" '
        f'style="background:rgba(128,128,128,.12);vertical-align:middle">{lines}</svg>'
    )
