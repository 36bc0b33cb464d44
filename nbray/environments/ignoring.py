"""The rules of ignore files. In a module of their own because of what it imports, which few workers need and all would wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pathspec


def rules(lines: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path is left out by these lines, which are those of a .gitignore."""
    return pathspec.GitIgnoreSpec.from_lines(lines).match_file
