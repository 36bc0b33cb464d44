"""Entering a runtime environment: what a worker does to itself before its first task, in this order.

    env_vars        into os.environ; ${NAME} stands for what was there
    py_modules      their directories to the front of sys.path, and of PYTHONPATH for processes that tasks start
    working_dir     before those, and the current directory; the driver's own directory is no longer on the path
    hook            worker_process_setup_hook is called once

The interpreter was decided before: a worker for pip, uv, conda or py_executable was started as one.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import cloudpickle

from nbray.engines.native import NativeEngine
from nbray.environments.cache import ARCHIVE
from nbray.exceptions import RuntimeEnvSetupError
from nbray.ids import Address
from nbray.wire import environment
from nbray.wire.failures import system_failure
from nbray.wire.messages import Failure, ModulesLoaded
from nbray.wire.rundir import ENVIRONMENTS
from nbray.worker.modules import ImportedModules


class Entered:
    """The environment of this worker, as far as it has been entered. A worker enters one in its life, and stays."""

    def __init__(self, engine: NativeEngine) -> None:
        self.modules = ImportedModules()
        self.environment = ""
        self._engine = engine
        self.failure: RuntimeEnvSetupError | None = None  #: why no task can run here
        self._drivers: set[str] = set()  #: the driver's own directories that we put on our path
        self._has_directory = False  #: a working_dir of its own

    def job_joined(self, path: list[str], directory: str) -> None:
        """Where the driver's modules are, this worker finds them too; but for its own directory, when that was packed."""
        own = {directory, *path[:1]}
        for entry in reversed(path):
            if entry not in sys.path and not (self._has_directory and entry in own):
                sys.path.insert(0, entry)
                self._drivers |= {entry} & own
        if os.path.isdir(directory) and not self._has_directory:
            os.chdir(directory)

    def tell_modules(self, job: Address, since_ns: int) -> None:
        """Which of its files we have imported since then, before the result: whoever has that and edits a module knows which."""
        files = self.modules.new_files(since_ns)
        if files:
            generation = int(environment.parsed(self.environment).get(environment.GENERATION, 0))
            self._engine.runtime.post(job, ModulesLoaded(self._engine.runtime.me, generation, files))

    def failure_for(self, error: BaseException) -> Failure | None:
        """What tasks fail with if `error` is why the environment could not be entered."""
        return system_failure("RuntimeEnvSetupError", str(error)) if error is self.failure else None

    def enter(self, env: str) -> None:
        """This worker is kept for one environment: what is set here stays, and what it submits inherits it.

        Raises RuntimeEnvSetupError, now and on every later call, when it fails.
        """
        if env != self.environment:
            self.environment = self._engine.environments.base = env
            self.failure = None
            welcome = self._engine.runtime.welcome
            assert welcome is not None
            places = f"{os.path.dirname(welcome.log_directory)}/{ENVIRONMENTS}"
            try:
                self._enter(environment.parsed(env), places)
            except RuntimeEnvSetupError as failure:
                self.failure = failure
            except Exception as error:  # noqa: BLE001 -- half entered is not entered: no task may run here
                self.failure = RuntimeEnvSetupError(
                    f"worker {os.getpid()} could not enter its runtime environment: {type(error).__name__}: {error}"
                )
        if self.failure is not None:
            raise self.failure

    def _enter(self, env: dict[str, Any], places: str) -> None:
        """`places` is where this node unpacks packages."""
        os.environ.update(environment.expanded(env.get("env_vars", {}), dict(os.environ)))
        modules = [f"{places}/{environment.place_name(uri)}" for uri in env.get("py_modules", [])]
        directory = f"{places}/{environment.place_name(env['working_dir'])}" if "working_dir" in env else None
        if directory is not None:
            sys.path[:] = [entry for entry in sys.path if entry not in self._drivers]
            self._has_directory = True
            os.chdir(directory)
            modules.insert(0, directory)
        if modules:
            sys.path[:0] = modules
            os.environ["PYTHONPATH"] = os.pathsep.join([*modules, *filter(None, [os.environ.get("PYTHONPATH", "")])])
        hook = env.get("worker_process_setup_hook")
        if hook is not None:
            uri = env.get("_hook")
            _run_hook(hook, f"{places}/{environment.place_name(uri)}/{ARCHIVE}" if uri else None)


def _run_hook(name: str, pickled: str | None) -> None:
    try:
        _hook(name, pickled)()
    except Exception as error:
        raise RuntimeEnvSetupError(
            f"Failed to execute the setup hook method. worker_process_setup_hook {name} raised in worker {os.getpid()}:\n"
            f"{traceback.format_exc()}"
        ) from error


def _hook(name: str, pickled: str | None) -> Callable[[], Any]:
    if pickled is not None:
        with open(pickled, "rb") as file:
            return cloudpickle.load(file)  # type: ignore[no-any-return]
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
