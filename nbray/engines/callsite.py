"""Where the caller's own code is: "script.py:40", or "In[12] line 3" in a notebook. Asked at every submit, so it is cached.

A line number is worked out by walking the code's line table, and a text by joining: both once for each place in the code.
"""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType

from nbray.exceptions import PACKAGE_DIRECTORY
from nbray.sourcelines import cell_of

#: Frames of nbray's own between the user's code and here; a call from deeper inside has no place worth naming.
DEEPEST = 40
#: Codes remembered: those of a cell that was run again are not used any more.
REMEMBERED = 4096

#: What runs a magic in IPython, and where it is.
MAGICS = frozenset({"run_cell_magic", "run_line_magic"})
#: What pickles, between a frame of nbray's and another.
PICKLER = os.path.join("cloudpickle", "cloudpickle.py")
SHELL = os.path.join("IPython", "core", "interactiveshell.py")

#: id of a code -> (the code, so that the id stays its own; instruction -> text).
_known: dict[int, tuple[CodeType, dict[int, str]]] = {}
_getframe = sys._getframe


def here() -> str:
    """The place in the user's code that called the API, which called the engine, which asks."""
    try:
        frame = _getframe(3)
    except ValueError:  # the engine itself was called
        return ""
    code = frame.f_code
    known = _known.get(id(code))
    if known is not None:
        text = known[1].get(frame.f_lasti)
        if text is not None:
            return text
    return _found(frame)


def _found(start: FrameType) -> str:
    frame: FrameType | None = start
    for _ in range(DEEPEST):
        if frame is None:
            return ""
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE_DIRECTORY):
            if code.co_filename.endswith(PICKLER):  # which pickles an input of a cell, and calls us again for what it refers to
                frame = frame.f_back
                continue
            return _of_magic(frame) if code.co_name in MAGICS and code.co_filename.endswith(SHELL) else _described(code, frame)
        frame = frame.f_back
    return ""


def _of_magic(frame: FrameType) -> str:
    """The cell above IPython's own frames. Not cached for them: every cell with a magic goes through them."""
    above: FrameType | None = frame
    while above is not None:
        if cell_of(above.f_code.co_filename):
            return _described(above.f_code, above)
        above = above.f_back
    return _described(frame.f_code, frame)


def _described(code: CodeType, frame: FrameType) -> str:
    known = _known.get(id(code))
    text = known[1].get(frame.f_lasti) if known is not None else None
    if text is not None:
        return text
    cell = cell_of(code.co_filename)
    text = f"{cell} line {frame.f_lineno}" if cell else f"{os.path.basename(code.co_filename)}:{frame.f_lineno}"
    if known is None:
        if len(_known) >= REMEMBERED:
            _known.clear()
        known = _known[id(code)] = (code, {})
    known[1][frame.f_lasti] = text
    return text
