"""A timeline in text: a line for each worker, as bars of how busy it was."""

from __future__ import annotations

import numpy as np

from nbray.cards import cluster_page, words
from nbray.cards.spans import Spans

TEXT_ROWS = 16
TEXT_COLUMNS = 40


def lanes(spans: Spans) -> list[str]:
    """One line for each worker: when it was busy, and how much of the time. For those who read text."""
    table = spans.table()
    if not len(table["end"]):
        return []
    begin, end = float(table["start"].min()), float(table["end"].max())
    width = max(end - begin, 1e-3) / TEXT_COLUMNS
    edges = begin + width * np.arange(TEXT_COLUMNS + 1)
    lines = []
    for (node, worker), row in list(spans.rows.items())[:TEXT_ROWS]:
        mine = table["row"] == row
        start, stop = table["start"][mine].astype(float), table["end"][mine].astype(float)
        done = np.array([np.clip(np.minimum(stop, edge) - start, 0, None).sum() for edge in edges])
        shares = np.clip(np.diff(done) / width * 100, 0, 100)
        line = cluster_page.sparkline([int(share) if share > 0 else None for share in shares], TEXT_COLUMNS)
        share = min(1.0, done[-1] / max(end - begin, 1e-3))
        lines.append(f"  {node.hex()[:4]}/{worker.hex()[:6]}  {line}  {share:.0%} busy, {words.count_text(len(start), 'task')}")
    if len(spans.rows) > TEXT_ROWS:
        lines.append(f"  and {words.count_text(len(spans.rows) - TEXT_ROWS, 'more worker')}")
    return lines
