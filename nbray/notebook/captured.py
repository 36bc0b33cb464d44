"""`%%capture`, `capture_output()` and `redirect_stdout()` around tasks: what they print goes where the cell's own prints go.

Only while the cell runs: what comes later belongs on the page, as whoever captured has read the result by then.
"""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple

from IPython.core.displaypub import CapturingDisplayPublisher

from nbray.notebook.stream import Message

_INSIDE = re.compile(r"((?:[ \t]*\n)*)%%capture\b([^\n]*)(?:\n|$)")


class Captures:
    """Whether something of `shell` is being captured, and the way into it."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._own = {"stdout": type(sys.stdout), "stderr": type(sys.stderr)}

    def active(self) -> bool:
        """Whether displays, or what is printed, go somewhere else than to the page."""
        return self._displays() or self._text("stdout")

    def take(self, message: Message) -> bool:
        """Give `message` to who captures; False where nobody does."""
        content = message.content
        if message.type == "stream":
            name = content["name"]
            if not self._text(name):
                return False
            (sys.stderr if name == "stderr" else sys.stdout).write(content["text"])
            return True
        if not self._displays():
            return False
        self._shell.display_pub.publish(
            data=content["data"],
            metadata=content["metadata"],
            transient=content["transient"],
            update=message.type == "update_display_data",
        )
        return True

    def _displays(self) -> bool:
        return isinstance(self._shell.display_pub, CapturingDisplayPublisher)

    def _text(self, name: str) -> bool:
        return type(sys.stderr if name == "stderr" else sys.stdout) is not self._own[name]


class Inside(NamedTuple):
    """A cell whose `%%remote` stands over `%%capture`."""

    line: str  #: of %%capture
    body: str  #: the rest, on the lines that it has in the cell


def captured_inside(cell: str) -> Inside | None:
    """What `%%capture` below `%%remote` captures: the same as above it."""
    found = _INSIDE.match(cell)
    if found is None:
        return None
    blank = found[1].count("\n") + 1
    return Inside(found[2].strip(), "\n" * blank + cell[found.end() :])
