"""The cluster that this notebook is attached to."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from nbray import connection, session
from nbray.cards import cluster_page
from nbray.util.state.watching import Lookout, scale
from nbray.widgets.picture import Picture, Snapshot

NONE_YET = "This notebook is not attached to a cluster; one starts at the first use, or with nbray.init()."


class Cluster(Picture):
    """Nodes and workers, what they use and run, the last minute of each figure, and why what waits does.

    It looks at whatever cluster this process is attached to at the time, and never starts one. The page offers another number of
    CPUs for each node, and Stop for a cluster that is this notebook's own.
    """

    _make = "createCluster"
    _asks = True

    def __init__(self) -> None:
        super().__init__()
        self._lookout: Lookout | None = None
        self._source: Any = None

    def _look(self) -> Snapshot:
        engine = session.engine
        if engine is None:
            return {"gone": NONE_YET}
        if self._lookout is None or self._source is not engine:
            self._lookout, self._source = Lookout(), engine
        return self._lookout.look(engine)

    def _text(self, snapshot: Snapshot) -> str:
        return str(snapshot["gone"]) if "nodes" not in snapshot else cluster_page.text(snapshot)

    def _html(self, snapshot: Snapshot) -> str:
        return f"<div>{html.escape(snapshot['gone'])}</div>" if "nodes" not in snapshot else cluster_page.page(snapshot)

    def _can(self) -> list[str]:
        engine = session.engine
        return ["scale", "stop"] if engine is not None and engine.description().get("embedded") else ["scale"]

    def _commands(self) -> dict[str, Callable[..., Any]]:
        return {"scale": lambda node, cpus: scale(connection.attached("widgets.Cluster"), node, cpus), "stop": connection.shutdown}
