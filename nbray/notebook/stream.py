"""What one cell shows of what its tasks print and display: a pure machine, told the time, that answers with messages.

    pieces arrive -> queue -> at most RATE messages a second, text of one stream joined
                       '--> beyond the head's share of `limit`: only the tail is kept, and what lies between is counted

A Jupyter server *drops* messages when they come too fast, so the rate is kept here, before they leave.
"""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nbray.cards.words import count_text
from nbray.notebook import display

ONE = 1 - 1e-6  #: a token, less what rounding takes: time that does not advance would ask again for ever
RATE = 10.0  #: messages a second of one cell, and how many may go at once after a pause
QUIET_S = 1.0  #: a flood that pauses this long shows its tail
TAIL_LIMIT = 64 * 1024  #: characters
SETTLE_S = 0.05  #: before the first line of a cell shows: by then it is known whether several tasks write under it
DISPLAYS = 100  #: rich displays of one cell; updates of one display count once
MERGE_ABOVE = 10  #: pieces left at the end: more than this are joined per stream, whatever order they came in


class Message(NamedTuple):
    """For the page: a Jupyter message type and its content."""

    type: str
    content: dict[str, Any]


@dataclass(slots=True)
class Piece:
    """Text of one task on one stream, or a display."""

    who: str
    stream: str
    text: str = ""
    display: Message | None = None


@dataclass(slots=True)
class CellStream:
    """The output of one cell. `badges`: several tasks print here, so that each line says whose it is."""

    limit: int = 10**6
    badges: bool = False
    held: bool = False  #: show nothing before `finish`
    queue: deque[Piece] = field(default_factory=deque)
    tail: deque[Piece] = field(default_factory=deque)
    tail_size: int = 0
    taken: int = 0  #: characters that went to the queue
    left_out: int = 0  #: characters between head and tail
    left_out_lines: int = 0
    rate_dropped: int = 0  #: lines that the workers left out, which nothing has said yet
    wrote: str = "stderr"  #: the stream that was written to last
    displays: int = 0
    displays_dropped: int = 0
    tokens: float = RATE
    last: float = 0.0  #: when tokens were counted
    heard: float = 0.0  #: when something arrived
    writers: set[bytes] = field(default_factory=set)  #: tasks that wrote
    ask_at: float | None = None  #: a task wrote; from this time on ask whether the cell has others
    open_line: str | None = None  #: whose line has no end yet

    # -- facts

    def text(self, task: bytes, who: str, stream: str, text: str, dropped: int, now: float) -> None:
        """A task, called `who`, wrote `text`; `dropped` lines were left out before it by the worker."""
        self.heard = now
        self.rate_dropped += dropped
        if task not in self.writers:
            self.writers.add(task)
            if not self.many and self.ask_at is None:
                self.ask_at = now + SETTLE_S
        if text and self.rate_dropped:
            self._take("", stream, self._too_fast() + "\n")
            self.rate_dropped = 0
        self._take(who, stream, text)

    def _take(self, who: str, stream: str, text: str) -> None:
        self.wrote = stream
        head = self.limit - min(self.limit // 2, TAIL_LIMIT)
        if not self.tail and not self.left_out and self.taken < head:
            room = head - self.taken
            if len(text) > room:  # whole lines, where there are any: the mark of what is left out comes after them
                self.taken, room = head, text.rfind("\n", 0, room) + 1 or room
            else:
                self.taken += len(text)
            self._append(self.queue, Piece(who, stream, text[:room]))
            text = text[room:]
        if text:
            self._append(self.tail, Piece(who, stream, text))
            self.tail_size += len(text)
            self._trim()

    def display(self, message: Message, now: float) -> None:
        """A task displayed something, or updated a display."""
        self.heard = now
        display_id = message.content.get("transient", {}).get("display_id")
        if message.type == "update_display_data":
            for piece in self.queue:
                if piece.display is not None and piece.display.content.get("transient", {}).get("display_id") == display_id:
                    piece.display = Message(piece.display.type, message.content)
                    return
        elif self.displays >= DISPLAYS:
            self.displays_dropped += 1
            return
        else:
            self.displays += 1
        self.queue.append(Piece("", "display", display=message))

    def omit(self, lines: int, characters: int) -> None:
        """Text that was never told here is left out too."""
        self.left_out_lines += lines
        self.left_out += characters

    def note(self, message: Message, now: float) -> None:
        """A line of nbray's own: why something waits, that the cluster was started again."""
        self.heard = now
        self.queue.append(Piece("", "note", display=message))

    def told_whether(self, several: bool) -> None:
        """Whether the cell has several tasks, when it was asked at `ask_at`."""
        self.badges, self.ask_at = self.badges or several, None

    # -- orders

    def due(self, now: float) -> list[Message]:
        """What may go out now."""
        if self.held or self.ask_at is not None:
            return []
        self.tokens = min(RATE, self.tokens + (now - self.last) * RATE)
        self.last = now
        out: list[Message] = []
        while self.queue and self.tokens >= ONE:
            out.append(self._next())
            self.tokens -= 1
        if not self.queue and now >= self.heard + QUIET_S:  # the same sum as in next_due: rounding must agree
            out += self._ending()
        return out

    def next_due(self, now: float) -> float | None:
        """When `due` should be asked again; None when there is nothing to say."""
        if self.held:
            return None
        if self.ask_at is not None:
            return self.ask_at
        if self.queue:
            return now if self.tokens + (now - self.last) * RATE >= ONE else self.last + (1 - self.tokens) / RATE
        return self.heard + QUIET_S if self.tail or self._notes() else None

    def flush(self) -> list[Message]:
        """Everything but the tail of a flood: the cell's prompt is about to return."""
        if self.held:
            return []
        if len(self.queue) > MERGE_ABOVE:
            self._merge()
        return [self._next() for _ in iter(lambda: len(self.queue), 0)]

    def finish(self) -> list[Message]:
        """Everything: the cell's tasks are done."""
        self.held = False
        return self.flush() + self._ending()

    @property
    def many(self) -> bool:
        return self.badges or len(self.writers) > 1

    # -- how

    @staticmethod
    def _append(queue: deque[Piece], piece: Piece) -> None:
        last = queue[-1] if queue else None
        if last is not None and last.display is None and (last.who, last.stream) == (piece.who, piece.stream):
            last.text += piece.text
        else:
            queue.append(piece)

    def _trim(self) -> None:
        share = min(self.limit // 2, TAIL_LIMIT)
        while self.tail_size > share:
            first = self.tail[0]
            cut = min(len(first.text), self.tail_size - share)
            # Whole lines, where there are any: half a line reads as something that was never printed.
            end = first.text.find("\n", cut - 1)
            cut = end + 1 if 0 <= end < len(first.text) - 1 else cut
            self.left_out += cut
            self.left_out_lines += first.text.count("\n", 0, cut)
            self.tail_size -= cut
            first.text = first.text[cut:]
            if not first.text:
                self.tail.popleft()

    def _merge(self) -> None:
        texts: dict[tuple[str, str], Piece] = {}
        rest: deque[Piece] = deque()
        for piece in self.queue:
            if piece.display is not None:
                rest.append(piece)
            elif (piece.stream, piece.who) in texts:
                texts[piece.stream, piece.who].text += piece.text
            else:
                texts[piece.stream, piece.who] = piece
        self.queue = deque([*sorted(texts.values(), key=lambda piece: piece.stream, reverse=True), *rest])

    def _next(self) -> Message:
        piece = self.queue.popleft()
        if piece.display is not None:
            return piece.display
        text = self._written(piece)
        while self.queue and self.queue[0].display is None and self.queue[0].stream == piece.stream:
            text += self._written(self.queue.popleft())
        return Message("stream", {"name": piece.stream, "text": text})

    def _written(self, piece: Piece) -> str:
        """The text of `piece`, with its badge at the start of every line where several tasks write."""
        start = ""
        if self.open_line is not None and self.open_line != piece.who:
            start, self.open_line = "\n", None
        continues = self.open_line == piece.who
        self.open_line = None if piece.text.endswith("\n") else piece.who
        if not self.many or not piece.who:
            return start + piece.text
        lines = piece.text.splitlines(keepends=True)
        return start + "".join(line if continues and i == 0 else f"({piece.who}) {line}" for i, line in enumerate(lines))

    def _notes(self) -> list[str]:
        notes = []
        if self.left_out:
            lines, characters = self.left_out_lines, count_text(self.left_out, "character")
            what = f"{count_text(lines, 'line')} ({characters})" if lines else characters
            notes.append(f"… {what} left out; %nbray logs has the rest …")
        if self.rate_dropped:
            notes.append(self._too_fast())
        if self.displays_dropped:
            notes.append(f"… {self.displays_dropped:,} displays left out after the first {DISPLAYS} …")
        return notes

    def _too_fast(self) -> str:
        return f"… {count_text(self.rate_dropped, 'line')} left out, printed too fast to show; %nbray logs has them …"

    def _ending(self) -> list[Message]:
        out = []
        notes = self._notes()
        if notes:
            start = "\n" if self.open_line is not None else ""
            self.open_line = None
            # On the stream of what follows: front ends keep the order of one stream, and not that of two.
            name = next((piece.stream for piece in self.tail), self.wrote)
            out.append(Message("stream", {"name": name, "text": start + "\n".join(notes) + "\n"}))
        self.left_out = self.left_out_lines = self.rate_dropped = self.displays_dropped = 0
        if self.tail:
            self.queue.extend(self.tail)
            self.tail.clear()
            self.tail_size = 0
            if len(self.queue) > MERGE_ABOVE:
                self._merge()
            out += [self._next() for _ in iter(lambda: len(self.queue), 0)]
            self.left_out = 0
        # A flood that went on stays a flood: what comes next is the tail's again.
        return out


def note(text: str) -> Message:
    """A line of nbray's own that is no warning: quiet, where a page has more than text."""
    return Message("display_data", {"data": display.note(text), "metadata": {}, "transient": {}})


def warning(text: str) -> Message:
    """One that is: what went wrong, though nothing raises it."""
    return Message("stream", {"name": "stderr", "text": f"nbray: {text}\n"})


def display_message(data: dict[str, Any], metadata: dict[str, Any], transient: dict[str, Any], *, update: bool) -> Message:
    """A mimebundle as a task sent it, as a Jupyter message: bytes become base64 text."""
    content = {"data": {mime: _encoded(value) for mime, value in data.items()}, "metadata": metadata, "transient": transient}
    return Message("update_display_data" if update else "display_data", content)


def _encoded(value: Any) -> Any:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes | bytearray | memoryview) else value
