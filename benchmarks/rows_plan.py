"""What a plan says of a cell, beside what the cell then takes: the same graph on one CPU and on two.

The tasks sleep: a CPU of a cluster is a place for a task, and what is compared is how the places are used, not how two computing
tasks share a processor.
"""

from __future__ import annotations

import time
from typing import Any

import nbray
from nbray import session, trace
from nbray.ids import task_of
from nbray.microbenchmark.row import Block, Row
from nbray.planning import Graph, forecast, graph_of

LOADS = 24


def _measured(cpus: int) -> Graph:
    """Run the graph on a cluster of so many CPUs; its records as a graph."""
    nbray.init(num_cpus=cpus)
    try:

        @nbray.remote
        def work(seconds: float, *needs: object) -> float:
            time.sleep(seconds)
            return seconds

        nbray.get([work.remote(0.0) for _ in range(4 * cpus)])
        loaded = [work.remote(0.02 + 0.005 * (i % 7)) for i in range(LOADS)]
        fitted = [work.remote(0.03 + 0.01 * (i % 5), each) for i, each in enumerate(loaded)]
        total = work.remote(0.1, *fitted)
        nbray.get(total)
        mine = {task_of(ref.binary()) for ref in (*loaded, *fitted, total)}
        return graph_of([record for record in _records() if record.id in mine])
    finally:
        nbray.shutdown()


def _records() -> list[trace.TraceRecord]:
    assert session.engine is not None
    return [
        trace.TraceRecord(**{**each, "needs": [bytes.fromhex(need) for need in each["needs"]],
                             **{name: bytes.fromhex(each[name]) for name in ("id", "parent", "node", "worker", "actor")}})
        for each in session.engine.trace()
    ]  # fmt: skip


def error(_peer: Any, _seconds: float) -> float:
    """The larger error of two forecasts, in percent: one CPU foretold from two, and two from one."""
    graphs = {cpus: _measured(cpus) for cpus in (2, 1)}
    worst = 0.0
    for cpus, other in ((1, 2), (2, 1)):
        (told,) = forecast(graphs[other], [cpus]).seconds
        assert told is not None
        worst = max(worst, abs(told / graphs[cpus].took_s - 1) * 100)
    return worst


PLAN = Block(
    "plan",
    "Plans",
    (
        Row(
            "a forecast of 49 tasks beside the run itself",
            "%",
            error,
            more_is_better=False,
            limit=15,
            standalone=True,
            most_pairs=3,
        ),
    ),
    peers=(),
)
