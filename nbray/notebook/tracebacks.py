"""Errors that the API raises on purpose, shown in a plain cell without the way through our own code.

Only what is printed is shortened: `%debug` and `sys.last_exc` have every frame. An error that we did not mean to raise keeps all of
them, as they are what a report of it needs.
"""

from __future__ import annotations

import dis
import os
import sysconfig
import types
from collections.abc import Callable
from typing import Any

from nbray.exceptions import PACKAGE_DIRECTORY

RAISES = frozenset({dis.opmap["RAISE_VARARGS"], dis.opmap["RERAISE"]})
LIBRARIES = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")})
NAME = "structured_traceback"


def install(shell: Any) -> None:
    """From now on `shell` shows shortened tracebacks."""
    original = shell.InteractiveTB.structured_traceback

    def structured_traceback(
        kind: type, error: BaseException | None, trace: types.TracebackType | None = None, *rest: Any, **named: Any
    ) -> Any:
        if error is None or trace is None or not is_meant(trace):
            return original(kind, error, trace, *rest, **named)
        return _without_ours(original, kind, error, trace, *rest, **named)

    shell.InteractiveTB.structured_traceback = structured_traceback


def remove(shell: Any) -> None:
    vars(shell.InteractiveTB).pop(NAME, None)


def _without_ours(original: Callable[..., Any], kind: type, error: BaseException, trace: Any, *rest: Any, **named: Any) -> Any:
    cause, context, hidden = error.__cause__, error.__context__, error.__suppress_context__
    if any(each is not None and is_ours(each.__traceback__) for each in (cause, context)):
        error.__cause__, error.__suppress_context__ = None, True  # what it says is in our message
    try:
        return original(kind, error, shortened(trace), *rest, **named)
    finally:
        error.__cause__, error.__context__, error.__suppress_context__ = cause, context, hidden


def is_meant(trace: types.TracebackType) -> bool:
    """Whether the error was raised by a `raise` of ours."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return code.co_filename.startswith(PACKAGE_DIRECTORY) and code.co_code[trace.tb_lasti] in RAISES


def is_ours(trace: types.TracebackType | None) -> bool:
    """Whether an error came from code that we called, and none of the user's."""
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return bool(frames) and frames[0].startswith(PACKAGE_DIRECTORY) and all(not _is_users(name) for name in frames)


def shortened(trace: types.TracebackType) -> types.TracebackType:
    """`trace` without our frames; as it is, where nothing else would be left."""
    kept = []
    each: types.TracebackType | None = trace
    while each is not None:
        if not each.tb_frame.f_code.co_filename.startswith(PACKAGE_DIRECTORY):
            kept.append(each)
        each = each.tb_next
    made: types.TracebackType | None = None
    for each in reversed(kept):
        made = types.TracebackType(made, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return made or trace


def _is_users(filename: str) -> bool:
    return not filename.startswith((PACKAGE_DIRECTORY, *LIBRARIES, "<"))
