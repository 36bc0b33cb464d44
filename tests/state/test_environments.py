"""What the State API shows of a runtime environment."""

from __future__ import annotations

import json
from typing import Any

from nbray.engines import task_rows
from nbray.util.state import listing
from nbray.wire import messages as m
from tests.owner.desk import Desk

ASKED = {"env_vars": {"A": "1"}}
TRAVELS = json.dumps({**ASKED, "_generation": 3, "_hook": "gcs://hook.zip"})


class Head:
    """Answers as a head with one actor would."""

    def head(self, _question: str) -> list[dict[str, Any]]:
        names = "name namespace node_id actor_id group line waiting job_id pid class_name owner"
        known = {**dict.fromkeys(names.split(), ""), "resources": {}, "detached": False, "restarts": 0}
        return [{**known, "state": "ALIVE", "env": TRAVELS}]


def test_our_own_notes_in_an_environment_are_not_shown_of_tasks() -> None:
    task = Desk().task(shape=m.Shape({"CPU": 10_000}, env=TRAVELS))
    shown = task_rows.UNFINISHED["runtime_env_info"](task, None)  # type: ignore[arg-type]
    assert json.loads(shown["serialized_runtime_env"]) == ASKED


def test_our_own_notes_in_an_environment_are_not_shown_of_actors() -> None:
    rows, _, _ = listing.SOURCES["actors"](Head(), listing.Query("actors", [], 10, detail=True))  # type: ignore[arg-type]
    assert [json.loads(row["serialized_runtime_env"]) for row in rows] == [ASKED]
