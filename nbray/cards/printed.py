"""What the tasks of a run printed, task by task: the tail of it, for a page. The whole of it is under the cell and in the logs."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple

CHARACTERS = 200_000  #: kept
LONGEST = 20_000  #: characters of one piece on a page


class Piece(NamedTuple):
    """Text of one task on one stream. `task` is its id's last four hex digits, to tell tasks of one name apart."""

    who: str
    task: str
    stream: str  #: "stdout", "stderr" or "display"
    text: str


class Printed:
    """Grows with what arrives, forgets its beginning. The I/O thread adds, pages ask."""

    def __init__(self) -> None:
        self.lines = 0  #: in all
        self.forgotten = 0  #: characters
        self._pieces: deque[Piece] = deque()
        self._size = 0
        self._lock = threading.Lock()

    def add(self, who: str, task: bytes, stream: str, text: str, dropped: int = 0) -> None:
        """`dropped` lines were left out before it by the worker."""
        with self._lock:
            self.lines += text.count("\n") + dropped
            if dropped:
                text = f"… {dropped:,} lines left out, printed too fast …\n{text}"
            name, last = task.hex()[-4:], self._pieces[-1] if self._pieces else None
            if last is not None and (last.who, last.task, last.stream) == (who, name, stream) and len(last.text) < LONGEST:
                self._pieces[-1] = last._replace(text=last.text + text)
            else:
                self._pieces.append(Piece(who, name, stream, text))
            self._size += len(text)
            while self._size > CHARACTERS and len(self._pieces) > 1:
                gone = len(self._pieces.popleft().text)
                self._size -= gone
                self.forgotten += gone

    def told(self, most: int = CHARACTERS) -> dict[str, Any]:
        """The last `most` characters, in the order in which they came, and how many are not among them."""
        with self._lock:
            pieces, forgotten = list(self._pieces), self.forgotten
        chosen: list[Piece] = []
        for piece in reversed(pieces):
            text = piece.text[-most:] if most > 0 else ""
            forgotten += len(piece.text) - len(text)
            most -= len(text)
            if text:
                chosen.append(piece._replace(text=text))
        return {"pieces": [piece._asdict() for piece in reversed(chosen)], "forgotten": forgotten}
