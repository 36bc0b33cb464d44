"""`nbray microbenchmark`: the rows of the project's own table, run alone on this machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.table_of_contents import BLOCKS
from nbray import cli, cli_microbenchmark
from nbray.microbenchmark import alone
from nbray.microbenchmark.row import Row

BRIEFLY = ("--seconds", "0.01")


def test_a_row_is_measured_and_shown_with_its_spread(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["microbenchmark", "--only", "single client (get|put) calls", *BRIEFLY]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["ROW", "PER", "SECOND", "SPREAD"]
    assert [line[: cli_microbenchmark.NAME_WIDTH].strip() for line in lines] == [
        "single client get calls",
        "single client put calls",
    ]
    for line in lines:
        middle, least, _, most = (word.replace(",", "") for word in line[cli_microbenchmark.NAME_WIDTH :].split())
        assert 0 < float(least) <= float(middle) <= float(most)


def test_programs_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["microbenchmark", "--only", "single client tasks sync", "--json", *BRIEFLY]) == 0
    (figure,) = json.loads(capsys.readouterr().out)
    assert figure["name"] == "single client tasks sync"
    assert 0 < figure["least"] <= figure["per_second"] <= figure["most"]


def test_a_pattern_that_matches_nothing_names_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["microbenchmark", "--only", "nonsense"]) == 1
    assert "1:1 actor calls sync" in capsys.readouterr().err


def test_a_row_that_fails_is_a_line_and_the_command_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_peer: Any, _seconds: float) -> float:
        raise MemoryError("no room for 800 MB")

    monkeypatch.setattr(alone, "ROWS", (Row("broken", "/s", broken), *(row for row in alone.ROWS if "get calls" in row.name)))
    assert cli.main(["microbenchmark", "--only", "broken|get calls", *BRIEFLY]) == 1
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0].startswith("broken ")
    assert lines[0].endswith("failed   MemoryError: no room for 800 MB")
    assert "failed" not in lines[1]


def test_the_rows_are_those_that_the_project_measures_beside_ray() -> None:
    assert list(alone.ROWS) == [row for block in BLOCKS if block.is_rays for row in block.rows]
