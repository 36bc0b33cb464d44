"""Submitted jobs of one node: each waits for its environment and its resources, holds them while its command line runs, and is
ended when asked. Pure.

RunEntrypoint -> waits -> StartEntrypoint ordered -> EntrypointBegun -> EntrypointEnded

The head may be another one by the time that something is said, so it may ask for the same submission again: what has been said
of it is said again, and nothing is started twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from nbray import config
from nbray.node.environments import Standing
from nbray.node.ground import Ground
from nbray.node.records import (
    SIGKILL,
    Entrypoint,
    EntrypointExited,
    EntrypointStarted,
    ForgetEntrypoint,
    LogEntrypoint,
    SignalEntrypoint,
    StartEntrypoint,
)
from nbray.sched.resources import in_words
from nbray.wire.environment import in_words as environment_in_words
from nbray.wire.environment import setup_of
from nbray.wire.messages import EndEntrypoint, EntrypointBegun, EntrypointEnded, EntrypointWaits, RunEntrypoint

SIGTERM = 15
#: Ends that are remembered for a head that did not hear of them.
ENDS_KEPT = 100


class EntrypointDesk:
    """Entrypoints by submission, in the order in which they came."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.running: dict[str, Entrypoint] = {}  #: waiting, starting, running or ending
        self.dropped = 0  #: events about entrypoints that are gone
        self.stopping = ""  #: why the node ends, if it does: then that is how its jobs end, too
        self._ends: OrderedDict[str, EntrypointEnded] = OrderedDict()
        self.handlers: dict[type, Callable[[Any, float], None]] = {
            RunEntrypoint: lambda e, _: self.run(e),
            EndEntrypoint: self.end,
            EntrypointStarted: lambda e, _: self.started(e),
            EntrypointExited: lambda e, _: self.exited(e),
        }

    # -- events

    def run(self, said: RunEntrypoint) -> None:
        known, ended = self.running.get(said.submission), self._ends.get(said.submission)
        if known is not None:
            known.told = ""
            if known.pid:
                self._tell_begun(known)
        elif ended is not None:
            self.ground.send(self.ground.head, ended)
        else:
            self.running[said.submission] = Entrypoint(said)

    def end(self, said: EndEntrypoint, now: float) -> None:
        entrypoint = self.running.get(said.submission)
        if entrypoint is None and said.forget:
            self._ends.pop(said.submission, None)
            self.ground.out.append(ForgetEntrypoint(said.submission))
        elif entrypoint is None:
            self.dropped += 1
        elif entrypoint.held is None:
            self._close(entrypoint, EntrypointExited(said.submission, None, None, "it was stopped before it began", ""))
        elif entrypoint.kill_at is None:
            entrypoint.kill_at = now + config.JOB_STOP_S
            self.ground.out.append(SignalEntrypoint(said.submission, SIGTERM))

    def started(self, event: EntrypointStarted) -> None:
        entrypoint = self.running.get(event.submission)
        if entrypoint is None:
            self.dropped += 1
            return
        entrypoint.pid = event.pid
        self._tell_begun(entrypoint)

    def exited(self, event: EntrypointExited) -> None:
        entrypoint = self.running.get(event.submission)
        if entrypoint is None:
            self.dropped += 1
        else:
            reason = event.reason or (self.stopping and f"its node was stopped ({self.stopping})")
            self._close(entrypoint, msgspec.structs.replace(event, reason=reason))

    # -- decisions

    def settle(self, now: float) -> None:
        """Start what can start, and kill what did not end when it was told to."""
        for name, entrypoint in list(self.running.items()):
            if entrypoint.held is None:
                self._try(entrypoint, now)
            elif entrypoint.kill_at is not None and now >= entrypoint.kill_at:
                # Again after as long: the order may have met a process that was not there yet.
                entrypoint.kill_at = now + config.JOB_STOP_S
                self.ground.out.append(SignalEntrypoint(name, SIGKILL))

    def _try(self, entrypoint: Entrypoint, now: float) -> None:
        said, environments = entrypoint.said, self.ground.environments
        environment = environments.want(said.env, now, self.ground.out) if said.env else None
        if environment is not None and environment.standing is Standing.FAILED:
            self._give_up(entrypoint, environment.reason)
        elif environment is not None and environment.standing is Standing.MAKING:
            self._tell_waits(entrypoint, f"Its runtime environment is being made: {environment_in_words(setup_of(said.env))}.")
        elif self.has_room(said):
            entrypoint.held = self.ground.hold(said.amounts)
            entrypoint.devices = self.ground.devices.take(said.amounts)
            self.ground.out.append(StartEntrypoint(said, environments.command(said.env), entrypoint.devices))
        else:
            self._tell_waits(entrypoint, f"It waits for {in_words(said.amounts)}, which its node has, but not free.")

    def has_room(self, said: RunEntrypoint) -> bool:
        return self.ground.fits(said.amounts) and self.ground.devices.choose(said.amounts) is not None

    def _give_up(self, entrypoint: Entrypoint, reason: str) -> None:
        self.ground.out.append(LogEntrypoint(entrypoint.said.submission, reason))
        self._close(entrypoint, EntrypointExited(entrypoint.said.submission, None, None, reason, ""), unmade=True)

    def _tell_waits(self, entrypoint: Entrypoint, why: str) -> None:
        said = entrypoint.said
        if why != entrypoint.told:
            entrypoint.told = why
            self.ground.send(self.ground.head, EntrypointWaits(said.submission, self.ground.me.node, why))

    def deadline(self) -> float | None:
        return min((one.kill_at for one in self.running.values() if one.kill_at is not None), default=None)

    def check(self) -> None:
        for name, entrypoint in self.running.items():
            assert entrypoint.said.submission == name
            assert name not in self._ends, f"submission {name} runs after its end"
            waits = entrypoint.held is None and not self.ground.environments.is_making(entrypoint.said.env)
            assert not (waits and self.has_room(entrypoint.said)), f"{name} waits beside free room"

    def _tell_begun(self, entrypoint: Entrypoint) -> None:
        said = EntrypointBegun(entrypoint.said.submission, self.ground.me.node, entrypoint.pid)
        self.ground.send(self.ground.head, said)

    def _close(self, entrypoint: Entrypoint, event: EntrypointExited, *, unmade: bool = False) -> None:
        name = event.submission
        del self.running[name]
        if entrypoint.held is not None:
            self.ground.release(entrypoint.held)
            self.ground.devices.give(entrypoint.devices, entrypoint.said.amounts)
        self.ground.environments.waiter_left()
        me = self.ground.me.node
        ended = EntrypointEnded(name, me, event.exit_code, event.signal, event.reason, event.log_tail, unmade)
        self._ends[name] = ended
        if len(self._ends) > ENDS_KEPT:
            self._ends.popitem(last=False)
        self.ground.send(self.ground.head, ended)
