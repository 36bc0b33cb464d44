"""`set_trace()` as Ray's debugger has it: `breakpoint()` under its older name. `nbray.util.pdb` is the same module."""

from __future__ import annotations

import sys


def set_trace(breakpoint_uuid: str | None = None) -> None:
    """Stop at the caller's next line; the prompt opens in the cell that submitted the task. The argument is for compatibility."""
    del breakpoint_uuid
    sys.breakpointhook()  # noqa: T100 -- this is what it is for
