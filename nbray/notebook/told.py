"""One clear error: exceptions that the notebook layer raises say it in their own lines, without the way through IPython.

`_render_traceback_` is what IPython asks an exception for; here it is an attribute of the one exception, so that the class
stays the ordinary one (`except NameError` works) and `%tb` shows the same lines.
"""

from __future__ import annotations

from typing import TypeVar

from nbray.exceptions import RayTaskError
from nbray.sourcelines import with_cells

E = TypeVar("E", bound=BaseException)


def told(error: E, *details: str) -> E:
    """`error`, shown as its class, its message and `details`."""
    lines = [*f"{type(error).__name__}: {error}".splitlines(), *details, *getattr(error, "__notes__", ())]
    error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
    return error


def of_line(error: E, source: str, number: int | None) -> E:
    """`error`, shown with line `number` of the cell's `source`."""
    lines = source.splitlines()
    if number is None or not 1 <= number <= len(lines):
        return told(error)
    return told(error, f"----> {number} {lines[number - 1]}")


def remote(error: BaseException, heading: str = "") -> BaseException:
    """An error that came from the cluster, below `heading`. A task's traceback is shown as it is."""
    if not isinstance(error, RayTaskError):
        return told(error, *([heading] if heading else []))
    if heading:
        error.traceback_str = f"{heading}\n{error.traceback_str}"
    lines = with_cells(error.traceback_str.rstrip().split("\n"))
    # The class adds where the notebook asked: here that is the cell itself, which the traceback shows already.
    error._render_traceback_ = lambda: lines  # type: ignore[method-assign]
    return error


class CellSyntaxError(SyntaxError):
    """A SyntaxError of a %%remote cell: IPython would show the way through its own code as well, so it has a handler."""


CellSyntaxError.__name__ = CellSyntaxError.__qualname__ = "SyntaxError"
