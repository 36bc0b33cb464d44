"""From an address to an engine in this driver: start a cluster, find one, join one; and start another when ours died.

None                   the cluster that `nbray start` began on this machine, if there is one; else as "local"
"local"                a node daemon of our own, which ends with us
"auto", "host:port"    a cluster on this machine that `nbray start` began: its connection file tells where
a file, a token        a cluster elsewhere: a client node of our own dials its head (docs/architecture.md)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from nbray import logging_config
from nbray.driver import joining, launch, turns
from nbray.driver.showing import Terminal
from nbray.engines.native import NativeEngine
from nbray.engines.port import OutputEvent
from nbray.exceptions import RayError
from nbray.ids import Address, new_process_id
from nbray.job_config import ID_KEY, JobConfig
from nbray.owner.runtime import Runtime
from nbray.wire import connection_file, environment
from nbray.wire import messages as m

#: Never changed: what is not given is empty.
NO_JOB_CONFIG = JobConfig()


class Attachment:
    """What a driver is attached to, and how to get another when it is gone."""

    def __init__(
        self, engine: NativeEngine, start: Callable[[], launch.Launched] | None, directory: str, address: str = "local"
    ) -> None:
        """`start` begins a daemon of our own; without it, `directory` is that of a daemon which runs already."""
        self._address = address
        self._engine = engine
        self._start = start
        self._directory = directory
        self._launched: launch.Launched | None = None
        self._closing = False
        self.job = NO_JOB_CONFIG

    def attach(self) -> None:
        """Start what has to be started and join it. Raises NodeStartError, ConnectionError."""
        engine, runtime = self._engine, self._engine.runtime
        if self._start is not None:
            self._launched = self._start()
            self._directory = self._launched.directory
        runtime.submission = self.job.metadata.get(ID_KEY, "")
        runtime.attach(self._directory)
        turns.shorten()
        engine.job = runtime.me
        self._introduce()
        welcome = runtime.welcome
        assert welcome is not None
        if self.job.metadata:
            # Nobody waits for the answer: this may be the thread that receives it.
            told = {"job_id": runtime.process, "metadata": self.job.metadata}
            runtime.post(welcome.head, m.Ask(0, runtime.me, "job_describe", told))
        if self.job.py_logging_config is not None:
            logging_config.apply(self.job.py_logging_config)
        engine.description_here = {
            "address": self._address,
            "session": welcome.session,
            "node": welcome.node.hex(),
            "cpus_from": welcome.cpus_from,
            "log_directory": welcome.log_directory,
            "embedded": self._address == "local",
            "directory": self._directory,
            "daemon_pid": self._launched.process.pid if self._launched is not None else None,
        }

    def _introduce(self) -> None:
        runtime = self._engine.runtime
        path = absolute_path(self.job.code_search_path)
        config = self.job.py_logging_config
        logs = config.to_json() if config is not None else ""
        runtime.state.tasks.leases.introduction = m.DefineJob(runtime.me, path, os.getcwd(), runtime.namespace, logs)

    def cell_begins(self) -> None:
        """A cell may have changed the directory or sys.path, and the next one imports accordingly. Old workers do not."""
        known = self._engine.runtime.state.tasks.leases.introduction
        try:
            here = (absolute_path(self.job.code_search_path), os.getcwd())
        except FileNotFoundError:
            return  # the directory was removed under us: workers stay where they were
        if isinstance(known, m.DefineJob) and (known.path, known.directory) != here:
            self._introduce()
            self._engine.environments.outdate()

    def lost(self, why: str) -> None:
        """Our node is gone (from the I/O thread). A cluster of our own is started again; the notebook goes on."""
        engine = self._engine
        engine.questions.abandon()
        if self._launched is not None:
            self._launched.process.wait()
        if self._start is None or self._closing:
            self._stay_detached(why)
            return
        try:
            self.attach()
        except (RayError, OSError) as error:
            self._stay_detached(f"{why}, and starting another failed: {error}")
            return
        engine.notice(
            "",
            "restarted",
            f"{why}; started another cluster. Objects in its store and its actors are gone, the notebook's variables are not.",
        )

    def _stay_detached(self, why: str) -> None:
        self._engine.lost = why
        self._engine.runtime.stay_detached(why)
        self._engine.notice("", "lost", f"{why}; nbray.init() attaches to a cluster again")

    def close(self) -> None:
        self._closing = True
        self._engine.questions.abandon()

    def ended(self) -> None:
        """After the engine left: a cluster of our own ends with its last driver; see to it that it does."""
        turns.restore()
        if self._launched is not None:
            launch.stop(self._launched)


def absolute_path(more: Sequence[str] = ()) -> list[str]:
    """sys.path as another process can use it, and `more`: the notebook's directory first, where Python has ''."""
    entries = [*sys.path, *more]
    return list(dict.fromkeys(os.path.abspath(entry or os.getcwd()) for entry in entries if isinstance(entry, str)))


def connect(
    address: str | None,
    begin_local: Callable[[], launch.Beginning],
    begun: launch.Beginning | None = None,
    *,
    object_store_memory: int | None = None,
    namespace: str | None = None,
    log_to_driver: bool = True,
    job_name: str = "",
    runtime_env: str = "",
    job: JobConfig = NO_JOB_CONFIG,
) -> NativeEngine:
    """The engine of this driver. `begin_local` begins a cluster of its own, and `begun` is one that has been begun already.

    Raises ConnectionError when there is no cluster at `address`, NodeStartError.
    """
    if begun is not None:
        address = "local"
    elif address is None:
        address = joining.running_here()
    process = new_process_id()
    runtime = Runtime(process, "driver", job_name, namespace or process.hex())
    engine = NativeEngine(runtime, Address(b"\0" * 8, process), is_driver=True)
    terminal = Terminal(log_to_driver, here=lambda: runtime.me.node)
    engine.on_output(terminal.output)
    engine.on_notice(terminal.notice)
    engine.show_here = lambda data, metadata, transient, update: engine._on_output(
        OutputEvent(engine.current_cell(), b"", "", 0, b"", "", "", 0, data, metadata, transient, update)
    )

    def start() -> launch.Launched:
        nonlocal begun
        first, begun = begun, None
        return launch.listening(first or begin_local())

    attachment = (
        Attachment(engine, start, "") if address in (None, "local") else _elsewhere(engine, str(address), object_store_memory)
    )
    runtime.on_lost = attachment.lost
    engine.on_shutdown = attachment.close
    engine.on_cell = attachment.cell_begins
    engine.environments.uploads = address not in (None, "local")

    def ended() -> None:
        terminal.flush()
        attachment.ended()

    engine.after_shutdown = ended
    attachment.job = job
    attachment.attach()
    if runtime_env:
        try:
            _prepare(engine, runtime_env)
        except BaseException:
            engine.shutdown()
            raise
    return engine


def _prepare(engine: NativeEngine, env: str) -> None:
    """The job's environment: packed and uploaded now, and made on this node before the first task asks for it."""
    engine.environments.base = env
    prepared = engine.environments.of("")
    if environment.parsed(env).get("config", {}).get("eager_install", True) and environment.setup_of(prepared):
        node = engine.runtime.me.node
        engine.runtime.post(Address(node, node), m.PrepareEnvironment(prepared, engine.runtime.me.process))


def _elsewhere(engine: NativeEngine, address: str, store: int | None) -> Attachment:
    """A cluster that runs already: through its own daemon where that is ours and here, else through a client node."""
    if address.startswith("ray://"):
        raise NotImplementedError(
            f"{address}: driving an existing Ray cluster is not built yet; without the scheme, an address means a cluster of "
            "`nbray start`"
        )
    if os.path.isdir(address):
        # The runtime directory of a node: what the driver of a submitted job is given.
        return Attachment(engine, None, address, address)
    found = connection_file.find(address)
    here = joining.directory_here(found)
    if here is not None:
        return Attachment(engine, None, here, found.connection.address)
    return Attachment(engine, lambda: joining.start_client(found, store), "", found.connection.address)


__all__ = ["Attachment", "connect"]
