"""What every state machine of the runtime shares: `handle(event, now) -> [effect]`, and nothing else.

A machine decides; a daemon carries out. Events are facts in the past tense and effects are orders. `now` is monotonic
seconds, handed in, so that the same machine runs in a process, in the simulator and in the planner.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from nbray.ids import Address


class Effect(msgspec.Struct, frozen=True, gc=False):
    """An order to the shell around a machine. Subclassed by every role; `Send` is the one that all share."""


class Send(Effect, frozen=True, gc=False):
    """Deliver `message` to the mailbox at `to`. Delivery is in order and exactly once while both ends live.

    `soon`: it may wait a millisecond for company, because the receiver has enough to do until then.
    """

    to: Address
    message: Any
    soon: bool = False


class IllegalTransition(Exception):
    """A machine was told something impossible. Late is not impossible: late events are dropped and counted.

    `story` is what happened to the subject so far, oldest first, so that the failure explains itself.
    """

    def __init__(self, subject: str, event: object, state: object, story: list[object] | None = None) -> None:
        self.subject, self.event, self.state, self.story = subject, event, state, list(story or [])
        super().__init__(subject, event, state, self.story)

    def __str__(self) -> str:
        told = "".join(f"\n    {line}" for line in self.story)
        return f"{self.subject} cannot take {self.event!r} in state {self.state!r}" + (f"; its story:{told}" if told else "")


class Machine(Protocol):
    """The shape of every `state.py`. `check()` raises AssertionError when an invariant is broken; tests call it always."""

    def handle(self, event: Any, now: float) -> list[Effect]: ...

    def next_deadline(self) -> float | None:
        """When the machine next wants a `Tick`, in the same seconds as `now`; None if it waits for events only."""
        ...

    def check(self) -> None: ...


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time passed. A shell sends it at `next_deadline()`, never by polling."""
