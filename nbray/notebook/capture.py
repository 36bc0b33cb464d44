"""What a cell takes from the notebook and what it leaves there. Pure: source in, names out; nothing is run.

An ordered pass over the syntax tree (`walk.py`), because `x += 1` is an input and an output, and `x = 1; print(x)` is neither. At
every point the pass knows two sets: names that the cell has *surely* bound so far, and names that it *may* have bound.

    read of a name              surely bound    may be bound or read later    neither
    what it becomes             nothing         an input if it exists         an input that must exist

"Read later" are the bodies of functions and branches that may never run: a name that does not exist there is an error only
when the line runs, as in any cell. `globals()`, `exec` and mutating calls (`xs.append(1)`) are beyond what names can tell:
`-i` and `-o` are for them.
"""

from __future__ import annotations

import ast
from typing import NamedTuple

from IPython.core.displayhook import DisplayHook
from IPython.core.inputtransformer2 import TransformerManager

from nbray.notebook.walk import IPythonLine, Read, Walker

#: IPython rebinds these after each cell; a loop variable called `_` must not fight it.
PRIVATE_TO_IPYTHON = frozenset(
    {"_", "__", "___", "_i", "_ii", "_iii", "_dh", "_ih", "_oh", "In", "Out", "exit", "quit", "get_ipython"}
)


class Capture(NamedTuple):
    """What one cell reads and binds, each in the order of first appearance."""

    code: str  #: plain Python, with the line numbers of the notebook's cell
    reads: tuple[Read, ...]
    binds: tuple[str, ...]  #: assigned, defined, imported, deleted or changed in place
    mutated: frozenset[str]  #: changed in place by `x[i] = ...` or `x.a = ...`
    magics: tuple[IPythonLine, ...]
    stars: tuple[str, ...]  #: modules of `from m import *`: the names they bind are not known here
    shows: bool  #: the last statement is an expression without a semicolon after it


def capture(source: str, first: int = 2) -> Capture:
    """Read `source`, the body of a cell that begins on line `first` of it.

    Raises SyntaxError, with the line number of the notebook's cell and the text of that line.
    """
    code = to_python(source, first)
    tree = parse(code, source, first)
    walker = Walker()
    walker.block(tree.body)
    shows = bool(tree.body) and isinstance(tree.body[-1], ast.Expr) and not DisplayHook.semicolon_at_end_of_expression(code)
    return Capture(
        code,
        tuple(walker.reads.values()),
        tuple(name for name in walker.binds if name not in PRIVATE_TO_IPYTHON),
        frozenset(walker.mutated),
        tuple(walker.magics),
        tuple(walker.stars),
        shows,
    )


def to_python(source: str, first: int = 2) -> str:
    """`source` with `!shell` and `%magic` lines as Python, padded so that its lines count as those of the cell."""
    lines = source.splitlines(keepends=True)
    # IPython drops leading empty lines; counted here, so that a traceback points at the line that the user sees.
    leading = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    python: str = TransformerManager().transform_cell("".join(lines[leading:]))
    return "\n" * (first - 1 + leading) + python


def parse(code: str, source: str, first: int = 2) -> ast.Module:
    """The tree of `code`. A SyntaxError shows the line as written, not as transformed."""
    try:
        tree = ast.parse(code, "<cell>")
        compile(tree, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        written = source.splitlines()
        if error.lineno is not None and 0 <= error.lineno - first < len(written):
            error.text = written[error.lineno - first]
        raise
    return tree
