"""Runtime environments of one node: which are there, which are being made, which cannot be made and why. Pure.

    (unknown) --wanted--> MAKING --EnvironmentMade--> READY --nobody in it for ENVIRONMENT_IDLE_S--> (unknown)
                          |    |
                          |    +--EnvironmentFailed, too long--> FAILED --ENVIRONMENT_RETRY_S--> (unknown)
                          +--all who waited have ended--> (unknown)

Making happens in a process beside the daemon (node/making.py). Environments that differ only in what a worker does itself when it
enters (variables, a hook by name) have the same `setup` (wire/environment.py) and share one record here; an empty setup is always
ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

import msgspec

from nbray import config
from nbray.ids import ProcessId
from nbray.machine import Effect
from nbray.node.records import EndEnvironment, EnvironmentFailed, EnvironmentMade, MakeEnvironment, Worker
from nbray.wire.environment import in_words, setup_of, timeout_of


class Standing(Enum):
    MAKING = "making"
    READY = "ready"
    FAILED = "failed"


class Environment(msgspec.Struct):
    """One setup. `since` is when `standing` began; for READY, when somebody was last seen in it."""

    setup: str
    standing: Standing
    since: float
    timeout_s: float | None = None
    command: str = ""  #: READY: what starts a worker in it; empty for a fork of the zygote
    reason: str = ""  #: FAILED: why
    drivers: set[ProcessId] = set()  #: MAKING: those that said beforehand that they will want it


class Environments:
    """By setup. Methods that order something append to `out`."""

    def __init__(self) -> None:
        self.records: dict[str, Environment] = {}
        self.dropped = 0  #: news of environments that are no longer made
        self._left = False  #: somebody who may have waited for one has ended

    # -- what others ask

    def want(self, environment: str, now: float, out: list[Effect]) -> Environment | None:
        """The record behind an environment, begun now if it is not there; None when nothing has to be made."""
        setup = setup_of(environment)
        if not setup:
            return None
        record = self.records.get(setup)
        if record is None:
            record = self.records[setup] = Environment(setup, Standing.MAKING, now, timeout_of(environment))
            out.append(MakeEnvironment(setup))
        return record

    def command(self, environment: str) -> str:
        """What starts a worker for it; empty for a fork of the zygote."""
        record = self.records.get(setup_of(environment)) if environment else None
        return "" if record is None else record.command

    def listing(self) -> list[dict[str, Any]]:
        """For the State API: setup, state, and the error of a failed one."""
        return [{"setup": r.setup, "state": r.standing.name, "error": r.reason or None} for r in self.records.values()]

    def is_making(self, environment: str) -> bool:
        record = self.records.get(setup_of(environment)) if environment else None
        return record is not None and record.standing is Standing.MAKING

    def why_waiting(self, environment: str, now: float) -> str:
        """For whoever waits for it; empty when it is not that."""
        record = self.records.get(setup_of(environment)) if environment else None
        if record is None or record.standing is not Standing.MAKING:
            return ""
        return f"Its runtime environment is being made, for {now - record.since:.0f} s now: {in_words(record.setup)}."

    # -- events

    def waiter_left(self, job: ProcessId = b"") -> None:
        """Somebody has ended who may have waited: what nobody waits for any more is not made to its end. `job`: a driver."""
        for record in self.records.values():
            if record.standing is Standing.MAKING:
                record.drivers.discard(job)
                self._left = True

    def made(self, event: EnvironmentMade, now: float) -> None:
        record = self._making(event.setup)
        if record is not None:
            record.standing, record.since, record.command = Standing.READY, now, event.command

    def failed(self, event: EnvironmentFailed, now: float) -> None:
        record = self._making(event.setup)
        if record is not None:
            self._fail(record, event.reason, now)

    def worker_died_unused(self, command: str, how: str, now: float, out: list[Effect]) -> None:
        """A worker that was started by this command ended before its first task."""
        for record in self.records.values():
            if record.command == command and record.standing is Standing.READY:
                out.append(EndEnvironment(record.setup))
                self._fail(record, f"its interpreter `{command}` was no worker that could take a task: {how}", now)

    def start_due(self, worker: Worker) -> float | None:
        """By when a worker that is starting must have said Hello; None: no limit."""
        if not worker.command:
            return None
        timeout_s = next((record.timeout_s for record in self.records.values() if record.command == worker.command), None)
        return None if timeout_s is None else worker.since + timeout_s

    def _making(self, setup: str) -> Environment | None:
        record = self.records.get(setup)
        if record is None or record.standing is not Standing.MAKING:
            self.dropped += 1
            return None
        return record

    def _fail(self, record: Environment, reason: str, now: float) -> None:
        record.standing, record.since = Standing.FAILED, now
        record.reason = f"Failed to set up the runtime environment ({in_words(record.setup)}): {reason}"

    # -- time

    def settle(self, inhabited: Iterable[str], now: float, out: list[Effect]) -> None:
        """`inhabited` are the environments of workers and of whoever waits for one. Looked at only when something is due: a node
        may have thousands of them, and this is asked after every event."""
        due = self.deadline()
        if not self._left and (due is None or now < due):
            return
        self._left = False
        used = {setup_of(environment) for environment in inhabited}
        for record in list(self.records.values()):
            if record.standing is Standing.MAKING and record.setup not in used and not record.drivers:
                out.append(EndEnvironment(record.setup))
                del self.records[record.setup]
            elif record.standing is Standing.READY and record.setup in used:
                record.since = now
            elif (due := self._due(record)) is not None and now >= due:
                self._expire(record, now, out)

    def _expire(self, record: Environment, now: float, out: list[Effect]) -> None:
        if record.standing is Standing.MAKING:
            out.append(EndEnvironment(record.setup))
            self._fail(record, f"it was not made within setup_timeout_seconds={record.timeout_s:g} and given up", now)
            return
        if record.standing is Standing.READY:
            out.append(EndEnvironment(record.setup))
        del self.records[record.setup]

    @staticmethod
    def _due(record: Environment) -> float | None:
        match record.standing:
            case Standing.MAKING:
                return None if record.timeout_s is None else record.since + record.timeout_s
            case Standing.READY:
                return record.since + config.ENVIRONMENT_IDLE_S
            case Standing.FAILED:
                return record.since + config.ENVIRONMENT_RETRY_S

    def deadline(self) -> float | None:
        return min((due for due in map(self._due, self.records.values()) if due is not None), default=None)

    def check(self) -> None:
        for setup, record in self.records.items():
            assert setup, "an empty setup has a record"
            assert setup == record.setup
            assert bool(record.reason) == (record.standing is Standing.FAILED), f"{record}"
