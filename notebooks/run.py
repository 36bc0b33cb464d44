"""Run a notebook on this machine and show each cell's output while it comes.

    python notebooks/run.py notebooks/01-quickstart.ipynb --html build/quickstart.html

Exit status 1 when a cell fails, and also when a cell tagged `raises-exception` does not: what a notebook shows off as an
error must still be one. The notebook on disk is not touched.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from traitlets.config import Config

EXPECTED = "raises-exception"  #: the tag of a cell whose error is part of the story


class LiveClient(NotebookClient):
    """A notebook client that also prints: the cell's source when it starts, its outputs the moment they arrive."""

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """What nbclient calls for each output. `outs` are the cell's so far; the new one is appended by the base class."""
        out = super().output(outs, msg, display_id, cell_index)
        if out is not None:
            write(text_of(out))
        return out

    def _update_display_id(self, display_id: str, msg: dict[str, Any]) -> None:
        # A display that replaces an earlier one (a progress line) has no output of its own to print.
        super()._update_display_id(display_id, msg)
        if msg["msg_type"] == "update_display_data":
            write(msg["content"]["data"].get("text/plain", "") + "\n")


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def text_of(out: Any) -> str:
    """An output (nbformat) as a terminal shows it."""
    if out["output_type"] == "stream":
        return str(out["text"])
    if out["output_type"] == "error":
        return "\n".join(out["traceback"]) + "\n"
    return str(out["data"].get("text/plain", f"<{', '.join(out['data'])}>")) + "\n"


def announce(cell: Any, cell_index: int) -> None:
    """Print a cell before it runs: prose as it is, code with a margin."""
    del cell_index
    margin = "    " if cell["cell_type"] == "code" else ""
    write("\n" + "".join(f"{margin}{line}\n" for line in cell["source"].splitlines()) + "\n")


def unexpected_successes(notebook: Any) -> list[str]:
    """The first lines of cells that promise an error and ran without one."""
    cells = [cell for cell in notebook["cells"] if EXPECTED in cell["metadata"].get("tags", [])]
    return [
        cell["source"].splitlines()[0]
        for cell in cells
        if not any(out["output_type"] == "error" for out in cell.get("outputs", []))
    ]


def execute(notebook: Any, directory: Path, timeout_s: int) -> str:
    """Run every cell, printing as it goes; outputs go into `notebook`. Returns what went wrong, or nothing."""
    # The kernel's sockets lie in a directory of its own, and no TCP port is opened. (A socket's path has at most 107 bytes.)
    with tempfile.TemporaryDirectory(prefix="nb-") as sockets:
        client = LiveClient(
            notebook,
            timeout=timeout_s,
            kernel_name="python3",
            # A saved widget is blank without its kernel and a network; what nbray saves is plain HTML.
            store_widget_state=False,
            resources={"metadata": {"path": str(directory)}},
            on_cell_start=announce,
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
        )
        try:
            client.execute()
        except CellExecutionError as error:
            return f"a cell failed with {error.ename}: {error.evalue}"
        except (CellTimeoutError, DeadKernelError) as error:
            return str(error)
    if tame := unexpected_successes(notebook):
        return f"this cell was to raise an error and did not: {tame[0]}"
    return ""


def run(path: Path, html: Path | None, timeout_s: int) -> int:
    """Run the notebook at `path`; return the exit status. The page is written after a failure too."""
    notebook = nbformat.read(path, as_version=4)
    began = time.monotonic()
    problem = execute(notebook, path.parent, timeout_s)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        page, _ = HTMLExporter().from_notebook_node(notebook)
        html.write_text(page, encoding="utf-8")
        write(f"\nThe page is in {html}.\n")
    if problem:
        sys.stderr.write(f"{path}: {problem}\n")
        return 1
    write(f"{path.name}: every cell ran, {time.monotonic() - began:.0f} s.\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a notebook and show each cell's output as it comes.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--html", type=Path, help="also write the result as a page")
    parser.add_argument("--timeout", type=int, default=300, metavar="S", help="seconds for one cell (default: %(default)s)")
    arguments = parser.parse_args()
    return run(arguments.notebook, arguments.html, arguments.timeout)


if __name__ == "__main__":
    raise SystemExit(main())
