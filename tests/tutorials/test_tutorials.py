"""The notebooks that people are shown, run from top to bottom as `make demo` runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "notebooks" / "run.py"


@pytest.mark.timeout(900)  # real work, made for two free cores
@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_cell_of_a_tutorial_runs_and_its_errors_are_errors(notebook: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = subprocess.run([sys.executable, RUNNER, notebook, "--html", page], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert "every cell ran" in done.stdout
    assert page.stat().st_size > 100_000


def write(path: Path, *cells: tuple[str, list[str]]) -> Path:
    """A notebook of code cells, each with its tags."""
    code = [nbformat.v4.new_code_cell(source, metadata={"tags": tags}) for source, tags in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code), path)
    return path


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([("1 / 0", [])], "a cell failed with ZeroDivisionError"),
        ([("1 + 1", ["raises-exception"])], "was to raise an error and did not: 1 + 1"),
    ],
)
def test_the_runner_fails_when_a_cell_does_not_do_what_it_should(
    tmp_path: Path, cells: list[tuple[str, list[str]]], said: str
) -> None:
    notebook = write(tmp_path / "broken.ipynb", *cells)
    done = subprocess.run([sys.executable, RUNNER, notebook], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
