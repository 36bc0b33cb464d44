"""Counter, Gauge and Histogram: numbers that programs report about themselves, from any process, as Prometheus reads them.

    requests = Counter("requests", description="...", tag_keys=("path",))
    requests.inc(tags={"path": "/"})
    print(prometheus_text())

A process adds up what happens in it and tells the head about once a second, while there is something to tell.
"""

from __future__ import annotations

import atexit
import bisect
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

from nbray import session
from nbray.engines.port import Engine
from nbray.exceptions import RayError
from nbray.util.prometheus import prometheus_text

__all__ = ["Counter", "Gauge", "Histogram", "prometheus_text"]

REPORT_S = 1.0
REPORT_MOST = 2000  #: series in one report: it has to fit into a message

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class _Changes:
    """What this process has not reported. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, Any]] = {}
        self._timer: threading.Timer | None = None
        session.watchers.append(self._engine_changed)
        atexit.register(self.report)

    def add(self, metric: Metric, tags: Mapping[str, str], value: float, bucket: int | None = None) -> None:
        key = (metric._name, tuple(sorted(tags.items())))
        with self._lock:
            change = self._series.get(key)
            if change is None:
                change = self._series[key] = metric._change(tags)
            change["value"] = value if metric._kind == "gauge" else change["value"] + value
            if bucket is not None:
                change["buckets"][bucket] += 1
            if self._timer is None and session.engine is not None:
                self._arm()

    def _arm(self) -> None:
        self._timer = threading.Timer(REPORT_S, self.report)
        self._timer.name, self._timer.daemon = "nbray-metrics", True
        self._timer.start()

    def _engine_changed(self, engine: Engine | None) -> None:
        with self._lock:
            if engine is not None and self._series and self._timer is None:
                self._arm()

    def report(self) -> None:
        """Tell the head now. What it cannot be told because it is gone is lost, with a warning."""
        with self._lock:
            self._timer = None
            engine = session.engine
            if engine is None or not self._series:
                return
            series, self._series = self._series, {}
        changes = list(series.values())
        for at in range(0, len(changes), REPORT_MOST):
            try:
                refused = engine.ask("metrics_report", changes=changes[at : at + REPORT_MOST])
            except RayError as error:
                warnings.warn(f"metrics were not reported: {error}", RuntimeWarning, stacklevel=2)
                return
            if refused:
                warnings.warn(
                    f"{refused} metrics were not taken: there are too many combinations of tags, or a name is used for two kinds",
                    RuntimeWarning,
                    stacklevel=2,
                )


_changes = _Changes()


class Metric:
    """What the three have in common."""

    _kind = ""

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        if not name:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        self._discarded = _NAME.fullmatch(name) is None
        if self._discarded:
            warnings.warn(
                f"Invalid metric name: {name}. Metric will be discarded: a name has letters, digits, _ and :, and does not begin "
                "with a digit.",
                UserWarning,
                stacklevel=3,
            )
        self._name, self._description = name, description
        self._tag_keys = tag_keys or ()
        if not isinstance(self._tag_keys, tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(self._tag_keys)}")
        for key in self._tag_keys:
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
        self._default_tags: dict[str, str] = {}

    def set_default_tags(self, default_tags: dict[str, str]) -> Self:
        """Tags for every record that does not give its own. Returns the metric itself."""
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = default_tags
        return self

    @property
    def info(self) -> dict[str, Any]:
        """name, description, tag_keys and default_tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _record(self, value: float, tags: Mapping[str, str] | None, bucket: int | None = None) -> None:
        if self._discarded:
            return
        given = {**self._default_tags, **(tags or {})}
        for each in given.values():
            if not isinstance(each, str):
                raise TypeError(f"Tag values must be str, got {type(each)}.")
        missing = [key for key in self._tag_keys if key not in given]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
        _changes.add(self, given, float(value), bucket)

    def _change(self, tags: Mapping[str, str]) -> dict[str, Any]:
        """An entry of a report, with nothing in it yet."""
        return {"kind": self._kind, "name": self._name, "help": self._description, "tags": dict(tags), "value": 0.0}

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), (self._name, self._description, self._tag_keys), self._default_tags)


def _again(cls: type[Metric], arguments: tuple[Any, ...], default_tags: dict[str, str]) -> Metric:
    return cls(*arguments).set_default_tags(default_tags)


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"value must be int or float, got {type(value)}.")
    return value


class Counter(Metric):
    """Goes up only. Summed over all processes."""

    _kind = "counter"

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        if _number(value) <= 0:
            raise ValueError(f"value must be >0, got {value}")
        self._record(value, tags)


class Gauge(Metric):
    """The last value, of each process that sets it; gone with the process."""

    _kind = "gauge"

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """None changes nothing."""
        if value is not None:
            self._record(_number(value), tags)


class Histogram(Metric):
    """How many observations were at most each of `boundaries`, and their sum. Summed over all processes."""

    _kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(name, description, tag_keys)
        if not boundaries:
            raise ValueError('boundaries argument should be provided for a Histogram: Histogram("name", boundaries=[1.0, 2.0])')
        for i, boundary in enumerate(boundaries):
            if boundary <= 0:
                raise ValueError(
                    f"Invalid `boundaries` argument at index {i}, {boundaries}. Use positive values for the arguments."
                )
        self.boundaries = boundaries
        self._limits = sorted(float(boundary) for boundary in boundaries)

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._record(_number(value), tags, bisect.bisect_left(self._limits, value))

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, "boundaries": self.boundaries}

    def _change(self, tags: Mapping[str, str]) -> dict[str, Any]:
        return {**super()._change(tags), "boundaries": self._limits, "buckets": [0] * (len(self._limits) + 1)}

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), (self._name, self._description, self.boundaries, self._tag_keys), self._default_tags)
