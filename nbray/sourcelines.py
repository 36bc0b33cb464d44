"""What only the notebook's own process knows of its cells: their numbers, and the text of their lines."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Sequence
from typing import Any

_FRAME = re.compile(r'(?P<indent> *)File "(?P<file>[^"]+)", line (?P<line>\d+)(?P<rest>.*)')


def cell_of(filename: str) -> str:
    """ "In[12]" for the code of a notebook's cell; "" for other code."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    numbers = getattr(getattr(shell, "compile", None), "_filename_map", None) or {}
    return f"In[{numbers[filename]}]" if filename in numbers else ""


def with_cells(lines: Sequence[str]) -> list[str]:
    """A traceback that was made where the cells are not known, with their names and lines."""
    told = []
    for i, line in enumerate(lines):
        frame = _FRAME.match(line)
        cell = cell_of(frame["file"]) if frame is not None else ""
        if frame is None or not cell:
            told.append(line)
            continue
        told.append(f"{frame['indent']}Cell {cell}, line {frame['line']}{frame['rest']}")
        following = lines[i + 1] if i + 1 < len(lines) else ""
        source = linecache.getline(frame["file"], int(frame["line"])).strip()
        if source and not following.startswith(frame["indent"] + "  "):
            told.append(f"{frame['indent']}  {source}")
    return told
