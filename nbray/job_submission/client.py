"""JobSubmissionClient: submits jobs to a cluster, looks at them, follows their logs, and ends them.

The cluster is asked through a Viewer, as `nbray status` asks: nothing is submitted as a task, and nothing in the cluster depends
on this process. Each log that is followed has a Viewer of its own, because an answer may take as long as the job is silent.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import platform
import random
import string
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from nbray import session
from nbray.driver import looking
from nbray.driver.viewer import ANSWER_S, Viewer
from nbray.engines.environments import Environments
from nbray.ids import Address
from nbray.job_submission.records import JobDetails, JobStatus, details
from nbray.options import TASK, checked
from nbray.sched.resources import to_amounts
from nbray.wire import environment
from nbray.wire.environment import holder_of

#: A question that may wait is asked again after this long: an answer that does not come then means that the cluster is gone.
WAIT_S = 20.0
ADDRESS_VARIABLES = ("NBRAY_API_SERVER_ADDRESS", "RAY_API_SERVER_ADDRESS", "NBRAY_ADDRESS", "RAY_ADDRESS")
_LETTERS = string.ascii_letters + string.digits


class JobSubmissionClient:
    """A client of the cluster at `address`.

    None: what NBRAY_API_SERVER_ADDRESS or NBRAY_ADDRESS says, else the cluster that this process is attached to, else the one
    that runs on this machine. "host:port", a connection file or "auto", as for `nbray.init`. "http://127.0.0.1:8265" also means
    the cluster of this machine: nbray has no HTTP server. Raises ConnectionError when there is no cluster.
    """

    def __init__(
        self,
        address: str | None = None,
        create_cluster_if_needed: bool = False,
        cookies: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        verify: str | bool | None = True,
    ) -> None:
        """`metadata` is added to that of every job. The others are of HTTP, and taken where they ask for nothing."""
        if address is not None and not isinstance(address, str):
            raise TypeError(f"address must be a string, got {type(address)}")
        for name, given in (("cookies", cookies), ("metadata", metadata), ("headers", headers)):
            if given is not None and not isinstance(given, Mapping):
                raise TypeError(f"{name} must be a dict, got {type(given)}")
        if not isinstance(verify, str | bool | None):
            raise TypeError(f"verify must be a str or bool, got {type(verify)}")
        if cookies or headers:
            raise ValueError(
                "cookies and headers are of HTTP, which nbray does not speak: its connections are authenticated by key"
            )
        self._metadata = _texts("metadata", metadata)
        self._open = contextlib.ExitStack()
        try:
            self._viewer, self._name = self._open.enter_context(looking.at(_cluster(address)))
        except ConnectionError as error:
            if not create_cluster_if_needed:
                raise
            why = "one of this process's own would end with it, and the job with that: nbray start --head"
            raise ConnectionError(f"{error}. create_cluster_if_needed=True starts none here: {why}") from None
        self._lock = threading.Lock()
        # The client node of a cluster elsewhere is a process: it ends with this object, if nobody calls `close`.
        self._close = weakref.finalize(self, self._open.close)

    def get_address(self) -> str:
        """The cluster in words."""
        return self._name

    def close(self) -> None:
        """Let go of the cluster; jobs go on. Idempotent, and not needed at the end of a program."""
        self._close()

    # -- jobs

    def submit_job(
        self,
        *,
        entrypoint: str,
        job_id: str | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        submission_id: str | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: Mapping[str, float] | None = None,
        entrypoint_label_selector: Mapping[str, str] | None = None,
    ) -> str:
        """Have the cluster run `entrypoint` in a shell; returns the id of the job, which runs from now on without us.

        It runs in `runtime_env`: `python` in it is that of `pip`, `uv` or `conda`, and `nbray.init()` attaches to this cluster with
        the same environment for its tasks. The resources are held while it runs, beside what its tasks take; its GPUs are those in
        CUDA_VISIBLE_DEVICES. A working_dir that the head can see is run in where it is; other nodes get a copy. Without one it runs
        in our directory if the cluster is on this machine. `entrypoint_label_selector`: what the labels of its node must be.
        Raises RuntimeError when the id is taken.
        """
        if not isinstance(entrypoint, str) or not entrypoint.strip():
            raise TypeError(f"entrypoint is a command line, not {entrypoint!r}")
        if job_id:
            warnings.warn("job_id is called submission_id today", DeprecationWarning, stacklevel=2)
        name = submission_id or job_id or "raysubmit_" + "".join(random.SystemRandom().choices(_LETTERS, k=16))
        asked: dict[str, Any] = {"num_cpus": entrypoint_num_cpus, "num_gpus": entrypoint_num_gpus, "memory": entrypoint_memory}
        asked["resources"] = dict(entrypoint_resources) if entrypoint_resources else None
        asked["label_selector"] = entrypoint_label_selector or None
        held = checked(TASK, {key: value for key, value in asked.items() if value is not None})
        resources = {"CPU": held.get("num_cpus") or 0, "GPU": held.get("num_gpus") or 0, "memory": held.get("memory") or 0}
        said = {**self._metadata, **_texts("metadata", metadata)}
        env, directory = self._environment(runtime_env)
        with contextlib.closing(Environments(self._ask, lambda: holder_of(name), lambda: None)) as packing:
            self._ask(
                "job_submit",
                submission_id=name,
                entrypoint=entrypoint,
                metadata=said,
                runtime_env=self._packed(packing, env, directory),
                amounts={key: units for key, units in to_amounts({**resources, **(held.get("resources") or {})}).items() if units},
                directory=directory,
                cwd=os.getcwd() if self._viewer.welcome.is_head_node else "",
                labels=dict(held.get("label_selector") or ()),
            )
        return name

    def _environment(self, given: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
        """(the environment, checked; its working_dir, if the head has that under the same name)."""
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"runtime_env must be a dict, got {type(given)}")
        hook = (given or {}).get("worker_process_setup_hook")
        if hook is not None and not isinstance(hook, str):
            raise ValueError(
                f"Invalid type {type(hook)} for `worker_process_setup_hook`: of a submitted job it is named, 'module.function'; "
                "a function can be given to nbray.init in its driver"
            )
        env = dict(checked(TASK, {"runtime_env": dict(given or {})})["runtime_env"])
        directory = env.get("working_dir", "")
        return env, directory if self._viewer.welcome.is_head_node and os.path.isdir(directory) else ""

    def _packed(self, packing: Environments, env: dict[str, Any], directory: str) -> dict[str, Any]:
        """The environment with URIs in place of what is on this machine, all of it uploaded.

        A `directory` that the head can see is run in as it is; it is packed for the other nodes, if there can be any.
        """
        alone = directory and not self._has_network()
        unpacked = {key: value for key, value in env.items() if not (alone and key == "working_dir")}
        made = environment.parsed(packing.of(environment.canonical(unpacked)))
        return {**made, "excludes": env["excludes"]} if directory and "excludes" in env else made

    def _has_network(self) -> bool:
        return any(node["is_head"] and node["gateway"] for node in self._ask("nodes"))

    def stop_job(self, job_id: str) -> bool:
        """Ask the job to end: SIGTERM, and SIGKILL after NBRAY_JOB_STOP_S. Returns at once; False if it was over already."""
        return bool(self._ask("job_stop", submission_id=job_id))

    def delete_job(self, job_id: str) -> bool:
        """Forget a job that is over, with its log. Raises RuntimeError when it is not."""
        return bool(self._ask("job_delete", submission_id=job_id))

    def get_job_info(self, job_id: str) -> JobDetails:
        """What is known of the job. Raises RuntimeError when there is none of this id."""
        return details(self._ask("job_info", submission_id=job_id))

    def get_job_status(self, job_id: str) -> JobStatus:
        """The status of the job."""
        return self.get_job_info(job_id).status

    def list_jobs(self) -> list[JobDetails]:
        """Submitted jobs, oldest first, then drivers that attached by themselves."""
        return [details(told) for told in self._ask("job_list")]

    def wait_job(self, job_id: str, timeout_s: float | None = None) -> JobStatus:
        """Wait until the job is over, or `timeout_s`. Returns its status."""
        return JobStatus(self._over(job_id, timeout_s)["status"])

    def get_job_logs(self, job_id: str) -> str:
        """What the job has printed so far, stdout and stderr in their order; the beginning of a very long log is gone."""
        told = self._ask("job_info", submission_id=job_id)
        if told["node_id"]:
            _refuse_lost(told)
        read = _Reader()
        parts = []
        while told["node_id"]:
            with self._lock:
                part = _log(self._viewer, told, read.offset, 0.0)
            parts.append(read.text(part))
            if not part["data"]:
                break
        return "".join(parts) + read.rest()

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """What the job prints, from its beginning and as it comes, until it is over."""
        with looking.at(self._viewer.directory) as (viewer, _):
            parts = _follow(viewer, job_id)
            reading: asyncio.Future[str | None] | None = None
            try:
                while True:
                    reading = asyncio.ensure_future(asyncio.to_thread(next, parts, None))
                    part = await asyncio.shield(reading)
                    if part is None:
                        return
                    yield part
            finally:
                viewer.abandon()
                if reading is not None:
                    await asyncio.wait([reading])

    def follow_job_logs(self, job_id: str) -> Iterator[str]:
        """The same for code that is not asynchronous."""
        with looking.at(self._viewer.directory) as (viewer, _):
            yield from _follow(viewer, job_id)

    # -- asking

    def _ask(self, what: str, **arguments: Any) -> Any:
        with self._lock:
            return _asked(self._viewer, ANSWER_S, what, arguments)

    def _over(self, job_id: str, timeout_s: float | None) -> dict[str, Any]:
        with looking.at(self._viewer.directory) as (viewer, _):
            return _wait_over(viewer, job_id, timeout_s)


def _asked(viewer: Viewer, patience_s: float, what: str, arguments: dict[str, Any]) -> Any:
    try:
        return viewer.ask_at(viewer.welcome.head, patience_s, what, arguments)
    except ValueError as refusal:
        raise RuntimeError(f"Request failed with {refusal}.") from None


def _changed(viewer: Viewer, told: dict[str, Any], wait_s: float) -> dict[str, Any]:
    """The job once its status is another one, or after `wait_s`."""
    arguments = {"submission_id": told["submission_id"], "status": told["status"], "timeout_s": wait_s}
    return dict(_asked(viewer, wait_s + ANSWER_S, "job_wait", arguments))


def _log(viewer: Viewer, told: dict[str, Any], offset: int, wait_s: float) -> dict[str, Any]:
    node = bytes.fromhex(told["node_id"])
    arguments = {"submission_id": told["submission_id"], "offset": offset, "wait_s": wait_s}
    return dict(viewer.ask_at(Address(node, node), wait_s + ANSWER_S, "job_log", arguments))


def _wait_over(viewer: Viewer, job_id: str, timeout_s: float | None) -> dict[str, Any]:
    until = None if timeout_s is None else time.monotonic() + timeout_s
    told = dict(_asked(viewer, ANSWER_S, "job_info", {"submission_id": job_id}))
    while not JobStatus(told["status"]).is_terminal():
        left = WAIT_S if until is None else min(WAIT_S, until - time.monotonic())
        if left <= 0:
            break
        told = _changed(viewer, told, left)
    return told


def _follow(viewer: Viewer, job_id: str) -> Iterator[str]:
    """What the job has printed and prints, until it is over."""
    told = dict(_asked(viewer, ANSWER_S, "job_info", {"submission_id": job_id}))
    while told["status"] == JobStatus.PENDING.value:
        told = _changed(viewer, told, WAIT_S)
    if not told["node_id"]:
        return
    _refuse_lost(told)
    read = _Reader()
    while True:
        part = _log(viewer, told, read.offset, WAIT_S)
        if text := read.text(part):
            yield text
        if part["over"]:
            break
    if rest := read.rest():
        yield rest
    # The log ends a moment before the head knows: whoever asks for the status next means the last one.
    _wait_over(viewer, job_id, ANSWER_S)


def _refuse_lost(told: dict[str, Any]) -> None:
    if not told["reachable"]:
        raise RuntimeError(
            f"the log of job {told['submission_id']} was on node {told['node_id'][:4]}, which is gone; its status is "
            f"{told['status']}: {told['message']}"
        )


class _Reader:
    """Makes text of the parts of a log, whose bounds may lie within a character."""

    def __init__(self) -> None:
        self.offset = 0
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def text(self, part: dict[str, Any]) -> str:
        self.offset = part["offset"]
        gap = f"[{part['skipped']:,} bytes of this log are gone: it is kept to a length]\n" if part["skipped"] > 0 else ""
        return gap + self._decode(part["data"])

    def rest(self) -> str:
        return self._decode(b"", final=True)


def _texts(name: str, given: Mapping[str, Any] | None) -> dict[str, str]:
    if given is not None and not (
        isinstance(given, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in given.items())
    ):
        raise TypeError(f"{name} must be a dict of strings to strings, got {given!r}")
    return dict(given or {})


def _cluster(given: str | None) -> str | None:
    """What to look for: as `looking.at` takes it."""
    address = given or next((told for name in ADDRESS_VARIABLES if (told := os.environ.get(name))), None)
    if address is None or address.startswith(("http://", "https://")):
        if address is not None and not _is_here(address):
            raise ConnectionError(
                f"Failed to connect to nbray at address: {address}. It has no HTTP server: give the head's own address, host:port "
                "as `nbray status` shows it, with its connection file here or NBRAY_TOKEN set"
            )
        return str(session.engine.description()["directory"]) if session.engine is not None else "auto"
    if address.startswith("ray://"):
        raise ConnectionError(f"Failed to connect to nbray at address: {address}. Leave the scheme out: host:port")
    return address


def _is_here(url: str) -> bool:
    return (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1", "0.0.0.0", platform.node())
