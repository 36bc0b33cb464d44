"""JobConfig: what a driver says of its job at `nbray.init(job_config=...)`; and what a submitted job tells its driver."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from nbray.logging_config import LoggingConfig

CONFIG_VARIABLE = "NBRAY_JOB_CONFIG_JSON"  #: set for the command line of a submitted job, by the head
ID_KEY = "job_submission_id"
LIFETIMES = ("non_detached", "detached")


class JobConfig:
    """Metadata, namespace and runtime environment of a job, as Ray bundles them."""

    def __init__(
        self,
        jvm_options: Sequence[str] | None = None,
        code_search_path: Sequence[str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        _client_job: bool = False,
        metadata: Mapping[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
        _py_driver_sys_path: Sequence[str] | None = None,
    ) -> None:
        """`code_search_path` are directories for the workers' sys.path. There is no JVM: `jvm_options` must be empty."""
        if jvm_options:
            raise NotImplementedError("JobConfig(jvm_options=...): nbray runs Python only")
        if code_search_path is not None and not isinstance(code_search_path, list | tuple):
            raise TypeError(f"The type of code search path is incorrect: {type(code_search_path)}")
        del _client_job  # a mark of Ray's own client
        self.jvm_options: list[str] = []
        self.code_search_path = [*(code_search_path or ()), *(_py_driver_sys_path or ())]
        self.metadata = dict(metadata or {})
        self.ray_namespace = ray_namespace
        self.py_logging_config: LoggingConfig | None = None
        self.set_runtime_env(runtime_env)
        self.set_default_actor_lifetime(default_actor_lifetime)

    def __repr__(self) -> str:
        return f"JobConfig(ray_namespace={self.ray_namespace!r}, runtime_env={self.runtime_env!r}, metadata={self.metadata!r})"

    def set_metadata(self, key: str, value: str) -> None:
        """Add to the metadata, which the listing of jobs shows."""
        self.metadata[key] = value

    def set_runtime_env(self, runtime_env: Mapping[str, Any] | None, validate: bool = False) -> None:
        """The runtime environment of the job. It is checked by `init`, whatever `validate` says."""
        del validate
        self.runtime_env = dict(runtime_env or {})

    def set_ray_namespace(self, ray_namespace: str) -> None:
        """Where the job's named actors live."""
        self.ray_namespace = ray_namespace

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        """Only "non_detached", Ray's default: an actor that shall outlive its job says so itself."""
        if default_actor_lifetime not in LIFETIMES:
            raise ValueError(f"Default actor lifetime must be one of {', '.join(LIFETIMES)}, not {default_actor_lifetime!r}")
        if default_actor_lifetime == "detached":
            raise NotImplementedError(
                "JobConfig(default_actor_lifetime='detached'): say it where the actor is made, .options(lifetime='detached')"
            )
        self.default_actor_lifetime = default_actor_lifetime

    def set_py_logging_config(self, logging_config: LoggingConfig | None = None) -> None:
        """How `logging` writes in the driver and in its job's workers; None leaves it alone."""
        if logging_config is not None and not isinstance(logging_config, LoggingConfig):
            raise TypeError(f"The type of logging config is incorrect: {type(logging_config)}")
        self.py_logging_config = logging_config

    @classmethod
    def from_json(cls, job_config_json: Mapping[str, Any]) -> JobConfig:
        """From {"runtime_env": ..., "metadata": ..., "ray_namespace": ..., "code_search_path": ...}, each optional."""
        return cls(
            code_search_path=job_config_json.get("code_search_path"),
            runtime_env=job_config_json.get("runtime_env"),
            metadata=job_config_json.get("metadata"),
            ray_namespace=job_config_json.get("ray_namespace"),
        )


def of_submission() -> JobConfig | None:
    """What the submitted job that began this process tells it; None in a process that was begun otherwise."""
    told = os.environ.get(CONFIG_VARIABLE)
    return JobConfig.from_json(json.loads(told)) if told else None


def combined(job: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime environment of a submitted job with that of its driver's `init`. Raises ValueError where they disagree."""
    variables = {**job.get("env_vars", {}), **own.get("env_vars", {})}
    clash = [key for key in own if key != "env_vars" and key in job and job[key] != own[key]]
    clash += [f"env_vars[{key!r}]" for key, value in job.get("env_vars", {}).items() if variables[key] != value]
    if clash:
        raise ValueError(
            f"Failed to merge the Job's runtime env {dict(job)} with nbray.init's runtime env {dict(own)} because of a conflict in "
            f"{', '.join(clash)}. Say it in one place: where the job is submitted, or in init()"
        )
    result = {**job, **own}
    return {**result, "env_vars": variables} if variables else result
