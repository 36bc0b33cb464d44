"""Errors that the API raises on purpose, and the KeyboardInterrupt of the stop button, which comes anywhere: shown in a plain cell
without the way through our own code.

Only what is printed is shortened: `%debug` and `sys.last_exc` have every frame. An error that we did not mean to raise keeps all of
them, as they are what a report of it needs.
"""

from __future__ import annotations

import dis
import itertools
import os
import sysconfig
import types
from collections.abc import Callable, Iterator
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
        if error is None or trace is None or not (isinstance(error, KeyboardInterrupt) or is_meant(trace)):
            return original(kind, error, trace, *rest, **named)
        # It is raised in our handler, wherever the user's code waits: what lies below our first frame says nothing.
        left = above_ours(trace) if isinstance(error, KeyboardInterrupt) else shortened(trace)
        return _without_ours(original, kind, error, left, *rest, **named)

    shell.InteractiveTB.structured_traceback = structured_traceback


def remove(shell: Any) -> None:
    vars(shell.InteractiveTB).pop(NAME, None)


def _without_ours(original: Callable[..., Any], kind: type, error: BaseException, trace: Any, *rest: Any, **named: Any) -> Any:
    cause, context, hidden = error.__cause__, error.__context__, error.__suppress_context__
    if any(each is not None and is_ours(each.__traceback__) for each in (cause, context)):
        error.__cause__, error.__suppress_context__ = None, True  # what it says is in our message
    try:
        return original(kind, error, trace, *rest, **named)
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
    frames = [step.tb_frame.f_code.co_filename for step in _steps(trace)]
    return bool(frames) and frames[0].startswith(PACKAGE_DIRECTORY) and all(not _is_users(name) for name in frames)


def shortened(trace: types.TracebackType) -> types.TracebackType:
    """`trace` without our frames; as it is, where nothing else would be left."""
    return _of([each for each in _steps(trace) if not _is_our_frame(each)]) or trace


def above_ours(trace: types.TracebackType) -> types.TracebackType:
    """`trace` as far as our first frame; as it is, where nothing would be left."""
    return _of(list(itertools.takewhile(lambda each: not _is_our_frame(each), _steps(trace)))) or trace


def _steps(trace: types.TracebackType | None) -> Iterator[types.TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _of(steps: list[types.TracebackType]) -> types.TracebackType | None:
    made: types.TracebackType | None = None
    for each in reversed(steps):
        # A signal may come at an instruction that has no line.
        made = types.TracebackType(made, each.tb_frame, each.tb_lasti, each.tb_lineno or -1)
    return made


def _is_our_frame(step: types.TracebackType) -> bool:
    return step.tb_frame.f_code.co_filename.startswith(PACKAGE_DIRECTORY)


def _is_users(filename: str) -> bool:
    return not filename.startswith((PACKAGE_DIRECTORY, *LIBRARIES, "<"))
