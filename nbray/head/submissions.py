"""Submitted jobs: command lines that the cluster runs for somebody who may be long gone. Pure.

    PENDING --EntrypointBegun--> RUNNING --EntrypointEnded--> SUCCEEDED | FAILED | STOPPED (for ever)

A submission is placed once, on the head's own node where that can hold it, and never moved: a script that has begun is not
begun again behind its author's back. Its log stays on its node ("job_log", asked there); what is kept here says which.
`runtime_env` names packages by URI. `directory` is its working_dir as it lies on the head's machine: there it is run in, elsewhere
the package.

job_submit     submission_id, entrypoint, metadata, runtime_env, amounts, directory, cwd, labels -> the job
job_stop       submission_id -> whether it was told to end; it had ended otherwise
job_delete     submission_id -> True; only of a job that is over
job_info       submission_id -> the job
job_wait       submission_id, status, timeout_s -> the job, as soon as its status is another
job_list       -> submitted jobs, and drivers that nobody submitted
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nbray import config
from nbray.head.members import Members
from nbray.head.questions import BadQuestion
from nbray.head.records import JobRecord, NodeRecord, Persist
from nbray.ids import Address, NodeId, ProcessId, short
from nbray.machine import Effect, Send
from nbray.sched.labels import in_words as labels_in_words
from nbray.sched.labels import matches
from nbray.sched.resources import fits, in_words, shortfall
from nbray.wire.environment import SETUP, canonical, holder_of
from nbray.wire.messages import (
    Amounts,
    Answer,
    Ask,
    EndEntrypoint,
    EntrypointBegun,
    EntrypointEnded,
    EntrypointWaits,
    NodeInfo,
    RunEntrypoint,
    Selector,
    Shape,
)

TABLE = "submissions"
PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED = "PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"
OVER = (STOPPED, SUCCEEDED, FAILED)
#: A submission id is part of the name of its log file, where each byte may take three.
ID_BYTES = 80
#: `job_wait` answers after this long at most, whatever was asked for.
WAIT_S = 60.0
#: What the entrypoint's driver reads: the job's runtime environment and metadata.
CONFIG_VARIABLE = "NBRAY_JOB_CONFIG_JSON"
ID_KEY, NAME_KEY = "job_submission_id", "job_name"


class Submission(msgspec.Struct, array_like=True):
    """One submitted job, as it is kept in the journal. Times are Unix milliseconds; 0 is never."""

    id: str
    entrypoint: str
    metadata: dict[str, str]
    runtime_env: dict[str, Any]
    amounts: Amounts
    directory: str
    submitted_ms: int
    status: str = PENDING
    message: str = "Job has not started yet."
    node: NodeId = b""  #: b"" until it is placed
    pid: int = 0
    ended_ms: int = 0
    exit_code: int | None = None
    error_type: str = ""
    stopping: bool = False
    cwd: str = ""  #: to run in on the head's own node, without `directory`
    labels: dict[str, str] = {}  #: what the labels of its node must be

    def order(self, head: NodeId) -> RunEntrypoint:
        """What its node is told. `head` is the node whose files the submitter named."""
        env, modules = dict(self.runtime_env), []
        directory = self.cwd if self.node == head and "working_dir" not in env else ""
        if self.directory and (self.node == head or "working_dir" not in env):
            directory, modules = self.directory, [self.directory]
            env.pop("working_dir", None)
        # A driver ships a directory itself, as it is when it comes to that.
        told = {"runtime_env": self._shown(env), "metadata": {ID_KEY: self.id, NAME_KEY: self.id, **self.metadata}}
        variables = {**env.get("env_vars", {}), CONFIG_VARIABLE: json.dumps(told)}
        return RunEntrypoint(self.id, self.entrypoint, self.amounts, variables, directory, _to_make(env), modules)

    def _shown(self, env: dict[str, Any]) -> dict[str, Any]:
        """`env` with the directory by its name, where that is not shipped."""
        return {**env, "working_dir": self.directory} if self.directory and "working_dir" not in env else env

    def fits(self, info: NodeInfo) -> bool:
        """Whether the node could hold it when nothing else runs there."""
        return fits(info.total, self.amounts) and matches(info.labels, self.selector)

    @property
    def selector(self) -> Selector:
        return list(self.labels.items())

    @property
    def shape(self) -> Shape:
        return Shape(self.amounts, selectors=[self.selector] if self.labels else [])


class _Waiter(msgspec.Struct, frozen=True):
    ask: Ask
    status: str
    until: float


class Submissions:
    """Every submitted job, oldest first. `clock_ms` is what turns `now` into Unix milliseconds."""

    def __init__(
        self,
        head: Address,
        members: Members,
        jobs: Mapping[ProcessId, JobRecord],
        out: list[Effect],
        clock_ms: int,
        let_go: Callable[[str], None],
    ) -> None:
        """`let_go` is called with the holder of packages that are not needed any more."""
        self.all: dict[str, Submission] = {}
        self.open: dict[str, Submission] = {}  #: those of them that are not over
        self.waiters: dict[str, list[_Waiter]] = {}
        self._head = head
        self._members = members
        self._jobs = jobs
        self._out = out
        self._clock_ms = clock_ms
        self._let_go = let_go
        self._questions: dict[str, Callable[[dict[str, Any], float], Any]] = {
            "job_submit": self._submit,
            "job_stop": self._stop,
            "job_delete": self._delete,
            "job_info": lambda arguments, _: self._told(self._of(arguments)),
            "job_list": lambda _arguments, _now: self._list(),
        }

    # -- questions

    def knows(self, what: str) -> bool:
        return what == "job_wait" or what in self._questions

    def ask(self, event: Ask, now: float) -> None:
        """Answer, or promise to. Raises BadQuestion."""
        if event.what != "job_wait":
            self._answer(event, self._questions[event.what](event.arguments, now))
            return
        job = self._of(event.arguments)
        seen, patience_s = event.arguments.get("status"), event.arguments.get("timeout_s", WAIT_S)
        if job.status != seen or not isinstance(patience_s, int | float):
            self._answer(event, self._told(job))
        else:
            self.waiters.setdefault(job.id, []).append(_Waiter(event, job.status, now + min(patience_s, WAIT_S)))

    def _answer(self, to: Ask, result: Any) -> None:
        self._out.append(Send(to.asker, Answer(to.request, result)))

    def _of(self, arguments: dict[str, Any]) -> Submission:
        wanted = arguments.get("submission_id")
        job = self.all.get(wanted) if isinstance(wanted, str) else None
        if job is None:
            raise BadQuestion(f"status code 404: Job {wanted} does not exist")
        return job

    def _submit(self, arguments: dict[str, Any], now: float) -> dict[str, Any]:
        try:
            asked = msgspec.convert(arguments, _Asked)
        except msgspec.ValidationError as error:
            raise BadQuestion(f"status code 400: {error}") from None
        name = asked.submission_id
        if not name.isprintable() or not 0 < len(name.encode()) <= ID_BYTES:
            raise BadQuestion(f"status code 400: a submission_id is 1 to {ID_BYTES} printable bytes, not {name!r:.100}")
        if name in self.all:
            raise BadQuestion(
                f"status code 400: Job with submission_id {name} already exists. Please use a different submission_id"
            )
        told = (asked.entrypoint, asked.metadata, asked.runtime_env, asked.amounts, asked.directory)
        made = Submission(name, *told, submitted_ms=self._ms(now), cwd=asked.cwd, labels=asked.labels)
        self.all[name] = self.open[name] = made
        self._place(made)
        self._keep(made)
        self._forget_the_oldest()
        return self._told(made)

    def _stop(self, arguments: dict[str, Any], now: float) -> bool:
        job = self._of(arguments)
        if job.status in OVER:
            return False
        job.stopping = True
        if job.node:
            self._members.send(job.node, EndEntrypoint(job.id))
            self._keep(job)
        else:
            self._end(job, STOPPED, "Job was intentionally stopped.", now)
        return True

    def _delete(self, arguments: dict[str, Any], _now: float) -> bool:
        job = self._of(arguments)
        if job.status not in OVER:
            state = f"it is in a non-terminal state {job.status}. Stop it first"
            raise BadQuestion(f"status code 500: Attempted to delete job '{job.id}', but {state}")
        self._forget(job)
        return True

    def _list(self) -> list[dict[str, Any]]:
        drivers = [_of_driver(job) for job in self._jobs.values() if job.submission not in self.all]
        return [self._told(job) for job in self.all.values()] + drivers

    def _told(self, job: Submission) -> dict[str, Any]:
        driver = next((d for d in reversed(list(self._jobs.values())) if d.submission == job.id), None)
        return {
            "type": "SUBMISSION",
            "submission_id": job.id,
            "job_id": driver.driver.process.hex() if driver else None,
            "driver_pid": driver.pid if driver else None,
            "namespace": driver.namespace if driver else "",
            "status": job.status,
            "entrypoint": job.entrypoint,
            "message": job.message,
            "error_type": job.error_type or None,
            "start_time": job.submitted_ms,
            "end_time": job.ended_ms or None,
            "metadata": job.metadata,
            "runtime_env": {**job.runtime_env, "working_dir": job.directory} if job.directory else job.runtime_env,
            "amounts": job.amounts,
            "node_id": job.node.hex() or None,
            "host": self._host(job.node),
            "reachable": (record := self._members.nodes.get(job.node)) is not None and not record.restored,
            "exit_code": job.exit_code,
            "stopping": job.stopping,
        }

    def _host(self, node: NodeId) -> str:
        record = self._members.nodes.get(node) or self._members.dead.get(node)
        return record.info.host if record else ""

    # -- placing

    def _place(self, job: Submission) -> None:
        """Give it to a node, if one could ever hold it."""
        nodes = sorted(self._members.nodes.values(), key=lambda record: record.info.node != self._head.node)
        able = [record for record in nodes if job.fits(record.info)]
        chosen = next((record for record in able if record.has_room(job.shape)), able[0] if able else None)
        if chosen is None:
            job.message = self._why_nowhere(job, [record.info for record in nodes])
            return
        job.node = chosen.info.node
        if any(job.amounts.values()):
            job.message = f"Job has not started yet: it waits for {in_words(job.amounts)}."
        self._members.send(job.node, job.order(self._head.node))

    @staticmethod
    def _why_nowhere(job: Submission, nodes: list[NodeInfo]) -> str:
        labelled = [info for info in nodes if matches(info.labels, job.selector)]
        if not labelled:
            wanted = labels_in_words([job.selector])
            return f"The entrypoint needs a node with {wanted}; no node has such labels. Add one: nbray start --labels ..."
        lack = shortfall([info.total for info in labelled], job.amounts, [short(info.node) for info in labelled])
        return f"The entrypoint needs {lack}. Ask for less, or add a node: nbray start --address ..."

    def node_came(self, node: NodeRecord, *, returns: bool) -> None:
        """A node reports. One that was there before this head was is asked again for what was given to it."""
        for job in self.open.values():
            if not job.node and job.fits(node.info):
                self._place(job)
                self._keep(job)
            elif returns and job.node == node.info.node:
                self._members.send(job.node, job.order(self._head.node))
                if job.stopping:
                    self._members.send(job.node, EndEntrypoint(job.id))

    # -- what nodes say

    def waits(self, event: EntrypointWaits) -> None:
        job = self._running_on(event.submission, event.node)
        if job is not None and job.status == PENDING:
            job.message = f"Job has not started yet. {event.why}"

    def begun(self, event: EntrypointBegun) -> None:
        job = self._running_on(event.submission, event.node)
        if job is not None and job.status == PENDING:
            job.status, job.message, job.pid = RUNNING, "Job is currently running.", event.pid
            self._changed(job)

    def ended(self, event: EntrypointEnded, now: float) -> None:
        job = self._running_on(event.submission, event.node)
        if job is None:
            return
        job.exit_code = event.exit_code
        if job.stopping:
            self._end(job, STOPPED, "Job was intentionally stopped.", now)
        elif event.exit_code == 0:
            self._end(job, SUCCEEDED, "Job finished successfully.", now)
        elif event.unmade:
            job.error_type = "RUNTIME_ENV_SETUP_FAILURE"
            self._end(job, FAILED, f"runtime_env setup failed: {event.reason}", now)
        elif job.status == PENDING:
            job.error_type = "JOB_ENTRYPOINT_COMMAND_START_ERROR"
            self._end(job, FAILED, f"Job entrypoint command could not start: {event.reason}", now)
        else:
            job.error_type = "JOB_ENTRYPOINT_COMMAND_ERROR"
            self._end(job, FAILED, _why_failed(event), now)

    def node_died(self, node: NodeId, reason: str, now: float) -> None:
        for job in list(self.open.values()):
            if job.node == node:
                job.error_type = "JOB_SUPERVISOR_ACTOR_DIED"
                self._end(job, FAILED, f"Its node {short(node)} is gone: {reason}", now)

    def _running_on(self, name: str, node: NodeId) -> Submission | None:
        job = self.open.get(name)
        return job if job is not None and job.node == node else None

    # -- keeping

    def _end(self, job: Submission, status: str, message: str, now: float) -> None:
        job.status, job.message, job.ended_ms = status, message, self._ms(now)
        del self.open[job.id]
        self._let_go(holder_of(job.id))
        self._changed(job)

    def _changed(self, job: Submission) -> None:
        self._keep(job)
        for waiter in self.waiters.pop(job.id, []):
            self._answer(waiter.ask, self._told(job))

    def _keep(self, job: Submission) -> None:
        self._out.append(Persist(TABLE, job.id.encode(), msgspec.msgpack.encode(job)))

    def _forget(self, job: Submission) -> None:
        del self.all[job.id]
        if job.node in self._members.nodes:
            self._members.send(job.node, EndEntrypoint(job.id, forget=True))
        self._out.append(Persist(TABLE, job.id.encode(), None))

    def _forget_the_oldest(self) -> None:
        over = [job for job in self.all.values() if job.status in OVER]
        for job in over[: max(0, len(over) - config.JOB_ENDED_KEPT)]:
            self._forget(job)

    def _ms(self, now: float) -> int:
        return self._clock_ms + int(now * 1000)

    # -- time, restarts

    def next_deadline(self) -> float | None:
        return min((waiter.until for waiting in self.waiters.values() for waiter in waiting), default=None)

    def tick(self, now: float) -> None:
        for name, waiting in list(self.waiters.items()):
            left = []
            for waiter in waiting:
                if now >= waiter.until:
                    self._answer(waiter.ask, self._told(self.all[name]))
                else:
                    left.append(waiter)
            if left:
                self.waiters[name] = left
            else:
                del self.waiters[name]

    def restore(self, saved: Mapping[bytes, bytes], gone: set[NodeId], now: float) -> None:
        """What the head's own node ran ended with it (`gone`); what had not begun there begins on the new one."""
        jobs = [msgspec.msgpack.decode(value, type=Submission) for value in saved.values()]
        for job in sorted(jobs, key=lambda job: job.submitted_ms):
            self.all[job.id] = job
            if job.status in OVER:
                continue
            self.open[job.id] = job
            if job.node in self._members.nodes and job.node not in gone:
                continue
            if job.status == RUNNING:
                job.error_type = "JOB_SUPERVISOR_ACTOR_DIED"
                self._end(job, FAILED, "The head's node ended while it ran there, and it with it.", now)
            elif job.stopping:
                self._end(job, STOPPED, "Job was intentionally stopped.", now)
            else:
                job.node = b""

    def check(self) -> None:
        for name, job in self.all.items():
            assert job.id == name
            assert (job.ended_ms > 0) == (job.status in OVER), f"job {name} is {job.status} and ended at {job.ended_ms}"
            assert job.node or job.status in (PENDING, *OVER), f"job {name} is {job.status} nowhere"
            assert (name in self.open) == (job.status not in OVER), f"job {name} is {job.status}"
            assert not job.node or job.status in OVER or job.node in self._members.nodes, f"job {name} outlives its node"
        for name, waiting in self.waiters.items():
            assert all(waiter.status == self.all[name].status for waiter in waiting), f"somebody waits for {name} in vain"


class _Asked(msgspec.Struct, frozen=True):
    """The arguments of job_submit."""

    submission_id: str
    entrypoint: str
    metadata: dict[str, str] = {}
    runtime_env: dict[str, Any] = {}
    amounts: Amounts = {}
    directory: str = ""
    cwd: str = ""
    labels: dict[str, str] = {}


def _to_make(env: Mapping[str, Any]) -> str:
    """What of an environment a node has to make for the command line."""
    return canonical({name: env[name] for name in (*SETUP, "config") if name in env}) if any(name in env for name in SETUP) else ""


def _why_failed(event: EntrypointEnded) -> str:
    if event.reason:
        how = f"Job entrypoint command was ended: {event.reason}"
    elif event.exit_code is not None:
        how = f"Job entrypoint command failed with exit code {event.exit_code}"
    else:
        how = f"Job entrypoint command was killed by signal {event.signal}"
    return f"{how}, last available logs:\n{event.log_tail}" if event.log_tail else f"{how}; it printed nothing."


def _of_driver(job: JobRecord) -> dict[str, Any]:
    """A driver that attached by itself, in the form of a submitted job."""
    return {
        "type": "DRIVER",
        "submission_id": None,
        "job_id": job.driver.process.hex(),
        "driver_pid": job.pid,
        "namespace": job.namespace,
        "status": SUCCEEDED if job.ended else RUNNING,
        "entrypoint": job.name,
        "message": None,
        "error_type": None,
        "start_time": job.started_ms or None,
        "end_time": job.ended_ms or None,
        "metadata": job.metadata,
        "runtime_env": {},
        "amounts": {},
        "node_id": job.driver.node.hex(),
        "host": "",
        "reachable": False,
        "exit_code": None,
        "stopping": False,
    }
