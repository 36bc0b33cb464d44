"""What is known of a job, under the names that Ray gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nbray.sched.resources import to_floats


class JobStatus(StrEnum):
    """PENDING and RUNNING change; STOPPED, SUCCEEDED and FAILED are for ever."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    def is_terminal(self) -> bool:
        """Whether a job with this status is over."""
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


class JobType(StrEnum):
    """SUBMISSION: begun by `submit_job`. DRIVER: a script or notebook that attached by itself."""

    SUBMISSION = "SUBMISSION"
    DRIVER = "DRIVER"


class JobErrorType(StrEnum):
    """Why a job FAILED."""

    RUNTIME_ENV_SETUP_FAILURE = "RUNTIME_ENV_SETUP_FAILURE"
    JOB_SUPERVISOR_ACTOR_DIED = "JOB_SUPERVISOR_ACTOR_DIED"  #: the node that it ran on, or what watched over it there
    JOB_ENTRYPOINT_COMMAND_START_ERROR = "JOB_ENTRYPOINT_COMMAND_START_ERROR"
    JOB_ENTRYPOINT_COMMAND_ERROR = "JOB_ENTRYPOINT_COMMAND_ERROR"


@dataclass
class DriverInfo:
    """The driver of a job: the process that called `nbray.init()` in it."""

    id: str
    node_ip_address: str  #: what the cluster calls the machine
    pid: str


@dataclass
class JobInfo:
    """What `submit_job` was told, and what became of it. Times are Unix milliseconds."""

    status: JobStatus
    entrypoint: str
    message: str | None = None  #: the status in words; of a failed job with its last output
    error_type: JobErrorType | None = None
    start_time: int | None = None  #: when it was submitted
    end_time: int | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: dict[str, float] | None = None
    driver_agent_http_address: str | None = None  #: None: nbray has no agents
    driver_node_id: str | None = None
    driver_exit_code: int | None = None


@dataclass
class JobDetails(JobInfo):
    """A JobInfo, and which job it is of. `submission_id` is None for type DRIVER."""

    type: JobType = JobType.SUBMISSION
    job_id: str | None = None  #: None until a driver of it has attached
    submission_id: str | None = None
    driver_info: DriverInfo | None = None


def details(told: Mapping[str, Any]) -> JobDetails:
    """A job as the head tells of it."""
    amounts = to_floats(told["amounts"])
    memory = amounts.pop("memory", None)
    driver = None
    if told["job_id"]:
        driver = DriverInfo(told["job_id"], told["host"], str(told["driver_pid"]))
    return JobDetails(
        status=JobStatus(told["status"]),
        entrypoint=told["entrypoint"],
        message=told["message"],
        error_type=JobErrorType(told["error_type"]) if told["error_type"] else None,
        start_time=told["start_time"],
        end_time=told["end_time"],
        metadata=told["metadata"],
        runtime_env=told["runtime_env"],
        entrypoint_num_cpus=amounts.pop("CPU", None),
        entrypoint_num_gpus=amounts.pop("GPU", None),
        entrypoint_memory=int(memory) if memory is not None else None,
        entrypoint_resources=amounts or None,
        driver_node_id=told["node_id"],
        driver_exit_code=told["exit_code"],
        type=JobType(told["type"]),
        job_id=told["job_id"],
        submission_id=told["submission_id"],
        driver_info=driver,
    )
