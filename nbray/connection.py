"""How this process comes to have an engine, and loses it: init, the first use that starts one, shutdown.

init(address=...)                           what happens
None, and no NBRAY_ADDRESS                  a local cluster of this process's own, which ends with it
"local"                                     the same, whatever NBRAY_ADDRESS says
"auto", "host:port", a connection file      attach to a cluster that runs already
"ray://host:port"                           an existing Ray cluster
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import threading
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from nbray import __version__, pages, session, shown
from nbray.config import STORE_MAX
from nbray.driver import launch
from nbray.driver.dashboard import Settings
from nbray.engines.port import Engine
from nbray.exceptions import RaySystemError
from nbray.job_config import JobConfig, combined, of_submission
from nbray.logging_config import LoggingConfig
from nbray.options import TASK, checked, environment, unknown_keyword
from nbray.sched.labels import check_labels
from nbray.wire import rundir

#: Held while this process starts or leaves a cluster. A __del__ that collects in the midst of that may come here again.
_starting = threading.RLock()
_forked_from: list[int] = []  #: the process that this one was forked from, when that one uses nbray

#: Ray's other options. True: they ask for nothing that nbray would do otherwise, so they are accepted in silence.
#: A string: what takes their place, said when the option is used.
OTHER_OPTIONS: dict[str, bool | str] = {
    "local_mode": "tasks always run in workers",
    "enable_resource_isolation": "limit the machine's memory from outside (cgroup, container); nbray keeps to it",
    "cgroup_path": "start nbray inside of the cgroup: it keeps to its limits",
    "system_reserved_cpu": "give fewer CPUs: num_cpus",
    "system_reserved_memory": "give less memory: memory, object_store_memory",
    "proxy_server_url": "there is no proxy",
    "_temp_dir": "set XDG_RUNTIME_DIR",
    "_memory": "the option is called memory",
    "_system_config": "every number has an environment variable: NBRAY_<NAME> of nbray/config.py",
    "_node_ip_address": "a local cluster opens no TCP port",
    "_node_name": "a node is known by its id",
    "_metrics_export_port": "nbray.timeline() and the trace have the figures",
    "_tracing_startup_hook": "nbray.timeline() has what ran where and when",
    "_enable_object_reconstruction": True,
    "_driver_object_store_memory": "driver and workers share one store: object_store_memory",
    "_redis_username": "there is no Redis",
    "_redis_password": "there is no Redis",
    "_redis_max_memory": "there is no Redis",
    "_plasma_directory": "the object store is in memory without a name",
    "object_spilling_directory": "spilled objects are in the runtime directory",
}
#: Spellings of older Ray: (today's name or None, what to say).
OLD_OPTIONS: dict[str, tuple[str | None, str]] = {
    "redis_address": ("address", "redis_address is called address today: nbray.init(address='host:port')"),
    "include_webui": (None, "include_webui does nothing: `%nbray status` and the cards show the cluster in the notebook"),
}


class RayContext(Mapping[str, Any]):
    """What `init()` returns: where this process is attached. As a context manager it shuts down at the end."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self._facts = dict(description)
        self.address_info: dict[str, Any] = {
            "address": self._facts.get("address"),
            "node_id": self._facts.get("node"),
            "session_dir": self._facts.get("log_directory"),
            "webui_url": self._facts.get("dashboard") or None,
        }
        self.python_version = "{}.{}.{}".format(*sys.version_info[:3])
        self.nbray_version = self.ray_version = __version__

    @property
    def dashboard_url(self) -> str:
        """`host:port/nbray?token=...`, where the cluster's page is, good for one visit; "" when it has none (include_dashboard)."""
        return pages.url(self._facts.get("directory"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        shutdown()

    def __getitem__(self, key: str) -> Any:
        warnings.warn(f"ctx[{key!r}] is deprecated; use ctx.address_info[{key!r}]", DeprecationWarning, stacklevel=2)
        return self.address_info[key]

    def __iter__(self) -> Any:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __repr__(self) -> str:
        return f"RayContext(address={self.address_info['address']!r}, {self._said()})"

    def _said(self) -> str:
        facts = self._facts
        embedded = "local cluster of this process" if facts.get("embedded") else "shared cluster"
        cpus = f", begun with {facts['cpus_from']}" if facts.get("cpus_from") else ""
        return f"nbray {self.nbray_version}, Python {self.python_version}, {embedded}{cpus}"

    def _repr_html_(self) -> str:
        return self._repr_mimebundle_()["text/html"]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> shown.Bundle:
        """What a notebook shows."""
        del include, exclude
        facts, here = self._facts, session.engine
        address = self.address_info["address"]
        attached = here is not None and here.description().get("address") == address
        told = (
            self._said(),
            f"driver {facts['pid']}" if facts.get("pid") else "",
            f"logs in {facts['log_directory']}" if facts.get("log_directory") else "",
            f"page at {facts['dashboard']}/nbray, and .dashboard_url lets a browser in" if facts.get("dashboard") else "",
        )
        state = shown.State("attached", "good") if attached else shown.State("no longer attached", "over")
        return shown.bundle(f"RayContext(address={address!r})", state, told)


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    memory: int | None = None,
    object_store_memory: int | None = None,
    namespace: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    log_to_driver: bool | None = None,
    logging_level: int | str | None = None,
    logging_config: LoggingConfig | None = None,
    configure_logging: bool = True,
    logging_format: str | None = None,
    job_config: JobConfig | Mapping[str, Any] | None = None,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str | None = None,
    dashboard_port: int | None = None,
    **others: Any,
) -> RayContext:
    """Attach this process to a cluster. Returns what it is attached to.

    Without an address that is the cluster that `nbray start` (or JupyterLab's panel) began on this machine, if one runs and
    no amounts are given; else a local one is started, which ends with this process. `address="local"` always starts one.

    Called again it returns the running context, and warns when it was asked for something else. `namespace` is where
    named actors live; without one every job has its own. `include_dashboard`, or a port, serves the local cluster's page on this
    machine (`dashboard_url` of what is returned). Raises ConnectionError when there is no cluster at `address`.
    """
    address = _older(others, address)
    page = pages.asked(include_dashboard, dashboard_host, dashboard_port)
    own = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources, "memory": memory}
    own |= {"object_store_memory": object_store_memory}
    own_labels = check_labels(labels or {})
    job = _job(job_config, namespace, runtime_env)
    job.set_py_logging_config(logging_config)
    check_namespace(job.ray_namespace)
    amounts = checked(TASK, {k: v for k, v in own.items() if k != "object_store_memory"})
    store = _store_bytes(object_store_memory)
    env = environment(checked(TASK, {"runtime_env": job.runtime_env or None}))
    chosen, source = _address(address)
    if configure_logging:
        _configure_logging(logging_level, logging_format)
    _forked_from.clear()
    if _starting._is_owned():  # type: ignore[attr-defined]
        raise RaySystemError("this thread is starting or leaving a cluster: a __del__ that it ran meanwhile cannot start another")
    with _starting:
        running = _in_use()
        if running is not None:
            if not ignore_reinit_error:
                _refuse_another(running, chosen, address)
                _say_ignored({**own, "address": address, "namespace": namespace, "runtime_env": runtime_env, "labels": labels})
            return _context(running, page)
        chosen = _own_or_theirs(chosen, source, {**own, "labels": own_labels or None})
        made = _connect(chosen, {**amounts, "object_store_memory": store}, own_labels, job, log_to_driver, env)
        return _context(made, page)


def _context(running: Engine, page: Settings | None) -> RayContext:
    facts = running.description()
    if page is not None:
        pages.serve(facts, page)
    return RayContext({**facts, "dashboard": pages.address(facts.get("directory"))})


def _in_use() -> Engine | None:
    """The engine of this process, unless its cluster is gone: then it is left."""
    if session.engine is not None and session.engine.lost:
        shutdown()
    return session.engine


def _refuse_another(running: Engine, chosen: str | None, asked: str | None) -> None:
    here = running.description().get("address")
    if chosen not in (None, "local", here):
        raise RaySystemError(
            f"this process is attached to {here!r} already, so it was not attached to {asked!r}; call nbray.shutdown() "
            "first (%nbray stop in a notebook), which ends a local cluster and what runs there"
        )


def _own_or_theirs(chosen: str | None, source: str, amounts: Mapping[str, Any]) -> str | None:
    """Whoever says what a cluster has gets one of their own. Raises ValueError when they named one that runs already."""
    given = [name for name, value in amounts.items() if value is not None]
    if not given or chosen == "local":
        return chosen
    if chosen is None:
        return "local"
    raise ValueError(
        f"When connecting to an existing cluster ({source}), {', '.join(given)} must not be provided: its nodes say what they have"
    )


def _connect(
    address: str | None,
    amounts: Mapping[str, Any],
    labels: Mapping[str, str] | None,
    job: JobConfig,
    log_to_driver: bool | None,
    env: str,
) -> Engine:
    store = amounts.get("object_store_memory")
    begin_local = functools.partial(launch.begin_local, **amounts, labels=dict(labels) if labels else None)
    # It takes as long as the import below, so it is begun before: where nothing of ours runs here that might be joined instead.
    begun = begin_local() if address == "local" or (address is None and not rundir.in_use()) else None
    # Imported when needed: it brings zmq and numpy with it, and `import nbray` is in every notebook's first cell.
    from nbray.engines import connecting

    if log_to_driver is None:
        log_to_driver = _environment("LOG_TO_DRIVER") not in ("0", "false", "False")
    engine: Engine = connecting.connect(
        address,
        begin_local,
        begun,
        object_store_memory=store,
        namespace=job.ray_namespace,
        log_to_driver=log_to_driver,
        job_name=_program(),
        runtime_env=env,
        job=job,
    )
    session.set_current(engine)
    return engine


def _program() -> str:
    """What people call this process: the notebook, whose name Jupyter tells its kernel, or the script."""
    script = sys.argv[0] if sys.argv and sys.argv[0] else "python"
    # A script that a notebook runs inherits the variable.
    notebook = os.path.basename(os.environ.get("JPY_SESSION_NAME", "")) if "ipykernel" in script else ""
    return notebook or os.path.basename(script)


def _configure_logging(level: int | str | None, pattern: str | None) -> None:
    """The logger "nbray", and those below it: how much is said, and in which form."""
    logger = logging.getLogger("nbray")
    if level is not None:
        logger.setLevel(level)
    if pattern is not None:
        for old in list(logger.handlers):
            logger.removeHandler(old)
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(pattern))
        logger.addHandler(handler)
        logger.propagate = False


def _job(given: JobConfig | Mapping[str, Any] | None, namespace: str | None, runtime_env: Mapping[str, Any] | None) -> JobConfig:
    """What `init` was told of the job: by its own arguments first, then by `job_config`, and by who submitted this process."""
    if given is not None and not isinstance(given, JobConfig | Mapping):
        raise TypeError(f"job_config is a JobConfig, not {type(given)}")
    told = given if isinstance(given, JobConfig) else JobConfig.from_json(given or {})
    env: Any = told.runtime_env if runtime_env is None else runtime_env
    submitted = of_submission()
    if submitted is not None and isinstance(env, Mapping):
        env = combined(submitted.runtime_env, env)
    job = JobConfig(
        code_search_path=told.code_search_path,
        metadata={**(submitted.metadata if submitted is not None else {}), **told.metadata},
        ray_namespace=told.ray_namespace if namespace is None else namespace,
    )
    job.runtime_env = env
    return job


def engine() -> Engine:
    """The engine of this process; the first use starts a local cluster, unless NBRAY_ENABLE_AUTO_CONNECT=0."""
    running = session.engine
    if running is None:
        if _forked_from:
            raise RaySystemError(
                f"process {os.getpid()} was forked from process {_forked_from[0]}, which uses nbray; a fork inherits none of its "
                "connections. Use tasks in place of the fork, start processes with 'spawn', or call nbray.init() here."
            )
        if _environment("ENABLE_AUTO_CONNECT") == "0":
            raise RaySystemError("nbray has not been started yet. You can start it with 'nbray.init()'.")
        init(ignore_reinit_error=True)
        running = session.current()
    return running


def attached(what: str) -> Engine:
    """The engine of this process, for calls that start none. Raises RaySystemError naming `what`."""
    running = session.engine
    if running is None:
        raise RaySystemError(f"nbray.{what}() asks a running cluster, and nbray has not been started yet; call nbray.init() first.")
    return running


def was_forked() -> bool:
    """Whether this is a forked child of a process that uses nbray, and has not called `init` itself."""
    return bool(_forked_from)


def is_initialized() -> bool:
    """Whether this process is attached to a cluster."""
    return session.engine is not None and not session.engine.lost


def shutdown(*, wait_for_processes: bool = False) -> None:
    """Leave the cluster; a local one ends with everything in it. Does nothing when there is none.

    Decorated functions and classes stay usable: the next call starts anew. References and handles do not.
    """
    del wait_for_processes  # the engine always waits for what it started
    with _starting:
        running = session.engine
        if running is None or not running.is_driver:
            return  # a worker leaves with its process: a task that calls this must not cut it off
        session.set_current(None)
        running.shutdown()
        pages.ended()


atexit.register(shutdown)


def _after_fork() -> None:
    """In a forked child: the engine is the parent's, its threads are not here, and nothing here may shut it down."""
    global _starting  # noqa: PLW0603 -- it may have been held by a thread that the child has not
    if session.engine is not None:
        _starting = threading.RLock()
        _forked_from[:] = [os.getppid()]
        session.engine = None  # not set_current: its watchers belong to the parent


os.register_at_fork(after_in_child=_after_fork)


def _environment(name: str) -> str | None:
    return os.environ.get(f"NBRAY_{name}", os.environ.get(f"RAY_{name}"))


def _address(given: str | None) -> tuple[str | None, str]:
    """(address, "local", or None for whatever there is; where it came from)."""
    if given is not None and not isinstance(given, str):
        raise TypeError(f"address is a str or None, not {type(given)}")
    source = "address="
    if given is None or (given == "auto" and _environment("ADDRESS")):
        given, source = _environment("ADDRESS"), "NBRAY_ADDRESS"
    if given is None:
        return None, source
    if not given:
        raise ValueError("address is empty; leave it out to attach to what runs here, or start a local cluster")
    return given, f"{source}{given}" if source.endswith("=") else f"{source}={given}"


def check_namespace(namespace: object) -> None:
    """Raise TypeError or ValueError unless this can be the name of a namespace, or None."""
    if namespace is None:
        return
    if not isinstance(namespace, str):
        raise TypeError("namespace must be None or a string.")
    if not namespace:
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')


def _store_bytes(given: object) -> int | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or (isinstance(given, float) and not given.is_integer()):
        raise TypeError(f"object_store_memory is a whole number of bytes, not {given!r}")
    if not 2**20 <= given <= STORE_MAX:
        raise ValueError(f"object_store_memory={given} is outside of 1 MiB to {STORE_MAX:,} bytes")
    return int(given)


def _older(others: Mapping[str, Any], address: str | None) -> str | None:
    """Accept or refuse what is not in the signature of `init`. Returns the address, which may be under its old name."""
    for name, value in others.items():
        if name in OLD_OPTIONS:
            today, said = OLD_OPTIONS[name]
            warnings.warn(said, DeprecationWarning, stacklevel=3)
            address = value if today == "address" else address
            continue
        known = OTHER_OPTIONS.get(name)
        if known is None:
            raise TypeError(unknown_keyword(name, [*(init.__kwdefaults__ or ()), "address", *OTHER_OPTIONS], "nbray.init()"))
        if isinstance(known, str) and value not in (None, False):
            warnings.warn(f"nbray.init({name}={value!r}) has no effect: {known}", UserWarning, stacklevel=3)
    return address


def _say_ignored(asked: Mapping[str, Any]) -> None:
    ignored = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
    if ignored:
        warnings.warn(
            f"nbray.init() was called before, and its cluster is still in use: ignored {ignored}. Call nbray.shutdown() first.",
            UserWarning,
            stacklevel=3,
        )
