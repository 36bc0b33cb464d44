"""The metrics of the cluster's programs, as their processes report them: counted up here, so that a worker's end loses nothing.

    counter, histogram    every process reports what was added since its last report; one series per name and tags
    gauge                 the last value of each process, until the process ends

metrics_report   changes=[{kind, name, help, tags, value, boundaries, buckets}] -> how many were not taken (too many series,
                 or another kind under the same name)
metrics          -> [{kind, name, help, tags, value, boundaries, buckets, process, node}]; ids as hex, "" but for gauges
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nbray.ids import Address, NodeId, ProcessId

SERIES_MOST = 20_000  #: of all names; more is a tag with too many values, a user's id say
KINDS = ("counter", "gauge", "histogram")

Key = tuple[str, tuple[tuple[str, str], ...], bytes]  #: name, tags in order, and for a gauge whose


class Change(msgspec.Struct):
    """One entry of a report. `buckets[i]` counts what was at most `boundaries[i]`; the last one, all above."""

    kind: str
    name: str
    help: str = ""
    tags: dict[str, str] = {}
    value: float = 0.0
    boundaries: list[float] = []
    buckets: list[int] = []


class Metrics:
    """Every series."""

    def __init__(self) -> None:
        self.series: dict[Key, Change] = {}
        self.reporters: dict[ProcessId, NodeId] = {}  #: processes that have gauges
        self._forms: dict[str, tuple[str, list[float]]] = {}  #: name -> kind and boundaries

    def report(self, reporter: Address, arguments: Mapping[str, Any]) -> int:
        """Raises msgspec.ValidationError for what is no report."""
        return sum(not self._take(reporter, change) for change in msgspec.convert(arguments.get("changes"), list[Change]))

    def _take(self, reporter: Address, change: Change) -> bool:
        form = (change.kind, change.boundaries)
        well_formed = change.kind != "histogram" or len(change.buckets) == len(change.boundaries) + 1
        if change.kind not in KINDS or not well_formed or self._forms.get(change.name, form) != form:
            return False
        whose = reporter.process if change.kind == "gauge" else b""
        key = (change.name, tuple(sorted(change.tags.items())), whose)
        known = self.series.get(key)
        if known is None:
            if len(self.series) >= SERIES_MOST:
                return False
            self._forms[change.name] = form
            self.series[key] = change
            if whose:
                self.reporters[whose] = reporter.node
        elif change.kind == "gauge":
            known.value = change.value
        else:
            known.value += change.value
            known.buckets = [a + b for a, b in zip(known.buckets, change.buckets, strict=True)]
        return True

    def forget(self, process: ProcessId) -> None:
        """The process has ended: what it last measured is no longer so."""
        if self.reporters.pop(process, None) is not None:
            self.series = {key: series for key, series in self.series.items() if key[2] != process}

    def forget_node(self, node: NodeId) -> None:
        for process in [process for process, where in self.reporters.items() if where == node]:
            self.forget(process)

    def listing(self, _: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {**msgspec.structs.asdict(series), "process": whose.hex(), "node": self.reporters.get(whose, b"").hex()}
            for (_, _, whose), series in sorted(self.series.items())
        ]
