"""What signal handlers raise, told from what the code raises in whose midst they ran.

A handler of Python's may run, and raise, in anybody's `try`. Whoever turns errors into others ("this does not pickle",
"this does not load") must let a time-out or an interrupt through.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


def run(handler: Handler, number: int, frame: FrameType | None) -> None:
    """Call the handler. What it raises is known by this frame."""
    handler(number, frame)


def is_of_signal(error: BaseException) -> bool:
    """Whether the handler of a signal raised `error`."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is run.__code__:
            return True
        trace = trace.tb_next
    return False
