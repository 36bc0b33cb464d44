"""One sentence about a run that ended: how much faster than one core, and what kept it from being faster."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np

from nbray.cards.spans import Spans

WORTH_SAYING = 0.15  #: share of the workers' time spent waiting below which nobody is blamed
SHORT_MS = 1.0
BLAMED_AMONG = 12  #: names looked at, the longest running first


class Waiting(NamedTuple):
    """How much of the workers' time nothing ran, between the first start and the last end, and what ran meanwhile."""

    share: float  #: 0 to 1
    blamed: str  #: the name that ran alone for the longest; empty when nothing ran then


class Times(NamedTuple):
    """Seconds of a run. `busy_s` are of work, on all workers; `packing_s` those in which the notebook pickled and stored values."""

    busy_s: float
    elapsed_s: float
    packing_s: float = 0.0


def moving(spans: Spans) -> float:
    """The share of the workers' time, 0 to 1, in which they waited for arguments that were on their way. Arguments that travel
    while the worker runs something else cost nothing."""
    table = spans.table()
    start, end, fetch = (table[column].astype(np.float64) for column in ("start", "end", "fetch"))
    if not fetch.any():
        return 0.0
    room = len(spans.rows) * float(end.max() - (start - fetch).min())
    idle = max(0.0, room - float((end - start).sum()))
    return min(float(fetch.sum()), idle) / room if room > 0 else 0.0


def waiting(spans: Spans) -> Waiting:
    """Where workers waited, and for what."""
    table = spans.table()
    start, end = table["start"].astype(np.float64), table["end"].astype(np.float64)
    lanes, window = len(spans.rows), float(end.max() - start.min()) if len(start) else 0.0
    if lanes < 2 or window <= 0:
        return Waiting(0.0, "")
    times = np.concatenate([start, end])
    order = np.argsort(times, kind="stable")
    lengths = np.diff(times[order], append=times[order[-1]])
    running = np.cumsum(np.concatenate([np.ones(len(start)), -np.ones(len(end))])[order])
    idle = np.clip(lanes - running, 0, None) * lengths
    share = float(idle.sum()) / (lanes * window)
    return Waiting(share, _blamed(table, order, idle, spans))


def _blamed(table: dict[str, np.ndarray[Any, Any]], order: np.ndarray[Any, Any], idle: np.ndarray[Any, Any], spans: Spans) -> str:
    """The name during which most of the idle time passed."""
    name, duration = table["name"], table["end"] - table["start"]
    totals = np.bincount(name, weights=duration, minlength=len(spans.names))
    names, cost = list(spans.names), defaultdict[str, float](float)
    for index in np.argsort(totals)[::-1][:BLAMED_AMONG]:
        steps = (name == index).astype(np.int8)
        active = np.cumsum(np.concatenate([steps, -steps])[order]) > 0
        cost[names[index]] = float(idle[active].sum())
    nothing = float(idle.sum()) - sum(cost.values())
    blamed, worst = max(cost.items(), key=lambda item: item[1])
    return blamed if worst > nothing else ""


def sentence(spans: Spans, times: Times, failed: int, total: int, errors: Counter[str]) -> str:
    """The verdict. `errors` counts failures by their first line."""
    if failed:
        what, often = errors.most_common(1)[0] if errors else ("an error", failed)
        others = len(errors) - 1
        rest = f", and {others} other kind{'s' if others > 1 else ''} of error" if others > 0 else ""
        return what + (f" ×{often:,}" if often > 1 else "") + rest
    if not len(spans):
        return ""
    busy_s, elapsed_s, packing_s = times
    gain, lanes = busy_s / elapsed_s if elapsed_s > 0 else 0.0, len(spans.rows)
    said = f"{gain:.1f}x faster than one core" if gain >= 1.15 else "no faster than one core"
    travels, packs = moving(spans), packing_s / elapsed_s if elapsed_s > 0 else 0.0
    if travels >= WORTH_SAYING or packs >= WORTH_SAYING:
        return f"{said}; {_shipping(travels, packs)}"
    where = Waiting(0.0, "") if lanes < 2 else waiting(spans)
    mean_ms = gain * elapsed_s * 1000 / len(spans)
    if gain < 1.15 and lanes == 1 and len(spans) > 1:
        return f"{said}: one worker ran everything"
    if gain < 1.15 and mean_ms < SHORT_MS:
        return f"{said}: tasks of {mean_ms:.2g} ms are mostly overhead; more work per task (--chunk) helps"
    if gain < 1.15 and total == 1:
        return ""
    if where.share >= WORTH_SAYING:
        last = "for the last tasks to end" if len(spans.names) == 1 else f"for {where.blamed}"
        cause = last if where.blamed else "for the notebook to submit more"
        said += f"; {where.share:.0%} of the time workers waited {cause}"
    return said


def _shipping(travels: float, packs: float) -> str:
    """That time went into moving data, and what helps."""
    parts = []
    if packs >= WORTH_SAYING:
        helps = "nbray.put what several tasks need once, and pass the reference"
        parts.append(f"{min(packs, 1):.0%} of the time the notebook packed data to send: {helps}")
    if travels >= WORTH_SAYING:
        parts.append(f"{travels:.0%} of the time workers waited for their inputs to arrive")
    return "; ".join(parts)
