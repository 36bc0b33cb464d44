"""One question put to many: who has not answered, what the others said, and until when anybody is waited for. Pure.

    asker --Ask--> head --Ask--> nodes --Ask--> their processes
                   (waits for nodes)            (a node waits for its processes)

Who asks gets one Answer: {"answers": [[node, process, result]], "silent": [[node, process, why]]}. A result is opaque here.
Whoever dies is not waited for, and neither is anybody beyond the deadline: both are named among the silent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec

from nbray.ids import Address
from nbray.machine import Send
from nbray.wire.messages import Answer, Ask

#: All that one Answer may carry, below the bound of a message; each who is asked gets its share.
ROOM_BYTES = 12 * 2**20


class Wanted(msgspec.Struct):
    """The arguments of a question that is handed on: what those who are asked are to be asked."""

    of: str
    arguments: dict[str, Any] = {}
    patience_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0  #: how long processes are waited for
    node: str = ""  #: only this one, in hex
    process: str = ""  #: only this one of a node's processes, in hex
    room: int = ROOM_BYTES


def wanted(ask: Ask) -> Wanted:
    """What is asked for. Raises ValueError, with words for the asker."""
    try:
        return msgspec.convert(ask.arguments, Wanted, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"the question {ask.what!r} does not say what to hand on: {error}") from None


class Inquiry(msgspec.Struct):
    """One question that is open. `waiting`: by the number under which each was asked."""

    ask: Ask
    until: float
    waiting: dict[int, Address]
    answers: list[Any]
    silent: list[Any]


class Inquiries:
    """Open questions of one node or head. Methods return what is to be sent."""

    def __init__(self, me: Address) -> None:
        self.me = me
        self._numbers = itertools.count(1)
        self._open: dict[int, Inquiry] = {}  #: by each number under which somebody was asked

    def put(self, ask: Ask, what: str, arguments: dict[str, Any], whom: Iterable[Address], until: float, room: int) -> list[Send]:
        """Ask all of `whom`; `ask` is answered when they have, or at `until`. `room`: bytes for all their answers."""
        asked = {next(self._numbers): each for each in whom}
        inquiry = Inquiry(ask, until, asked, [], [])
        self._open.update(dict.fromkeys(asked, inquiry))
        share = {**arguments, "room": room // max(1, len(asked))}
        sends = [Send(to, Ask(number, self.me, what, share)) for number, to in asked.items()]
        return sends + self._closed(inquiry)

    def answered(self, answer: Answer) -> list[Send]:
        """Somebody answered. Late answers are dropped."""
        inquiry = self._open.pop(answer.request, None)
        if inquiry is None:
            return []
        who = inquiry.waiting.pop(answer.request)
        if answer.error:
            inquiry.silent.append([who.node, who.process, answer.error])
        else:
            inquiry.answers.append([who.node, who.process, answer.result])
        return self._closed(inquiry)

    def gone(self, whom: Callable[[Address], bool], why: str) -> list[Send]:
        """Those of whom it is true will not answer."""
        return self._give_up(lambda _inquiry, who: whom(who), why)

    def expire(self, now: float) -> list[Send]:
        return self._give_up(lambda inquiry, _who: now >= inquiry.until, "did not answer in time")

    def _give_up(self, is_over: Callable[[Inquiry, Address], bool], why: str) -> list[Send]:
        sends: list[Send] = []
        for number, inquiry in list(self._open.items()):
            who = inquiry.waiting[number]
            if is_over(inquiry, who):
                del self._open[number], inquiry.waiting[number]
                inquiry.silent.append([who.node, who.process, why])
                sends += self._closed(inquiry)
        return sends

    def _closed(self, inquiry: Inquiry) -> list[Send]:
        if inquiry.waiting:
            return []
        return [Send(inquiry.ask.asker, Answer(inquiry.ask.request, {"answers": inquiry.answers, "silent": inquiry.silent}))]

    def deadline(self) -> float | None:
        return min((inquiry.until for inquiry in self._open.values()), default=None)

    def check(self) -> None:
        for number, inquiry in self._open.items():
            assert number in inquiry.waiting, number
