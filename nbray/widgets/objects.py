"""Which names hold objects of the cluster."""

from __future__ import annotations

from typing import Any

from nbray import session
from nbray.cards.lineage import STALE
from nbray.cards.words import bytes_text
from nbray.notebook import display
from nbray.notebook.holders import first_rows, held_objects, objects_text, release
from nbray.widgets.notebook import namespace_here, notebook_here
from nbray.widgets.picture import Picture, Snapshot, projector

COLUMNS = ("held by", "what", "size", "state", "node", "also held by")
MOST_ROWS = 200  #: the largest


class Objects(Picture):
    """The names that hold references, or values whose bytes lie in the store, the largest first: what each is, how large, where.

    The page offers to take names away (Release), so that what only they held is freed.
    """

    _make = "createObjectsView"

    def _look(self) -> Snapshot:
        engine = session.engine
        if engine is None:
            return {"gone": "This notebook is not attached to a cluster.", "rows": [], "more": 0}
        notebook = notebook_here()
        found = held_objects(namespace_here(), engine, *(() if notebook is None else (notebook.history.stale,)))
        return first_rows(found, MOST_ROWS)

    def _bundle(self, snapshot: Snapshot) -> display.Bundle:
        cells = [
            (
                row["names"],
                row["type"],
                "" if row["size"] is None else bytes_text(row["size"]),
                _state(row),
                row["where"],
                row["holders"],
            )
            for row in snapshot.get("rows", ())
        ]
        title = objects_text(snapshot) if cells else "objects"
        return display.table(title, COLUMNS, cells, str(snapshot.get("gone") or "no name holds a reference"))

    def _text(self, snapshot: Snapshot) -> str:
        more = f"\nand {snapshot['more']:,} more" if snapshot.get("more") else ""
        return self._bundle(snapshot)["text/plain"] + more

    def _html(self, snapshot: Snapshot) -> str:
        more = f"<div>and {snapshot['more']:,} more</div>" if snapshot.get("more") else ""
        return self._bundle(snapshot)["text/html"] + more

    def _commands(self) -> dict[str, Any]:
        return {
            "release": lambda names: release(namespace_here(), names, session.engine),
            "resync": lambda: projector.resync(self),
        }


def _state(row: dict[str, Any]) -> str:
    return f"{row['state']}, {STALE}: {row['stale']}" if row["stale"] else str(row["state"])
