"""Every number that governs behaviour, with its unit and its reason. `NBRAY_<NAME>` in the environment overrides one."""

from __future__ import annotations

import os
from typing import Any


def _number(name: str, default: Any) -> Any:
    raw = os.environ.get(f"NBRAY_{name}")
    if raw is None:
        return default
    try:
        return type(default)(raw)
    except ValueError:
        raise ValueError(f"NBRAY_{name}={raw!r} is not {type(default).__name__}; unset it or give a number") from None


INLINE_LIMIT: int = _number("INLINE_LIMIT", 100 * 1024)  #: bytes; larger values go to the store (as in Ray)
OUT_OF_BAND_LIMIT: int = _number("OUT_OF_BAND_LIMIT", 4096)  #: bytes; smaller buffers stay inside the pickle
MESSAGE_LIMIT: int = 16 * 2**20  #: bytes of one control message; more is a protocol error

PIPELINE_TARGET_S: float = _number("PIPELINE_TARGET_S", 0.005)  #: work kept at one worker
PIPELINE_MAX: int = _number("PIPELINE_MAX", 64)  #: tasks kept at one worker
LEASE_IDLE_S: float = _number("LEASE_IDLE_S", 0.1)  #: an idle lease is kept this long, so a loop of short tasks asks once
LEASE_REQUESTS: int = _number("LEASE_REQUESTS", 16)  #: requests of one class in flight
TASK_MAX_RETRIES: int = _number("TASK_MAX_RETRIES", 3)  #: crashes of a worker; -1 for ever
LINEAGE_LIMIT: int = _number("LINEAGE_LIMIT", 100_000)  #: finished tasks kept to make lost objects again, per process

HEARTBEAT_S: float = _number("HEARTBEAT_S", 1.0)  #: a node tells the head that it lives, and renews its lease on being alive
NODE_SUSPECT_S: float = _number("NODE_SUSPECT_S", 4.0)  #: no new work goes there
NODE_DEAD_S: float = _number("NODE_DEAD_S", 15.0)  #: survives a blackout of 5 s with room
HEAD_GRACE_S: float = _number("HEAD_GRACE_S", 300.0)  #: how long nodes and drivers wait for a head that is gone
WORKER_IDLE_S: float = _number("WORKER_IDLE_S", 60.0)  #: workers beyond one per CPU end after this
START_DEATHS: int = 5  #: workers that die before their first task, within START_DEATHS_S: the pool stops with one error
START_DEATHS_S: float = 30.0  #: the window for START_DEATHS
KILL_TERM_S: float = 3.0  #: after KeyboardInterrupt
KILL_S: float = 5.0  #: after SIGTERM: SIGKILL of the process group
ACTOR_EXIT_S: float = _number(
    "ACTOR_EXIT_S", 30.0
)  #: for `__ray_shutdown__` and atexit handlers of a worker that leaves (as in Ray)

STORE_FRACTION: float = _number("STORE_FRACTION", 0.3)  #: of memory, for the arena (as in Ray)
STORE_MAX: int = _number("STORE_MAX", 200 * 10**9)  #: bytes
SPILL_START: float = _number("SPILL_START", 0.8)  #: of the arena
DISK_STOP: float = _number("DISK_STOP", 0.95)  #: of the file system that takes spilled objects
STORE_WAIT_S: float = _number("STORE_WAIT_S", 10.0)  #: a put waits this long for room, then ObjectStoreFullError
SPILL_RETRY_S: float = _number("SPILL_RETRY_S", 10.0)  #: spilling is tried again this long after a write failed
SEAL_GRACE_S: float = _number("SEAL_GRACE_S", 1.0)  #: how long a copy that is probably gone may still turn out to be on its way
LOAN_BYTES: int = _number("LOAN_BYTES", 4 * 2**20)  #: region lent for small objects
CHUNK_BYTES: int = _number("CHUNK_BYTES", 4 * 2**20)  #: of a transfer between nodes
TRANSFER_WINDOW: int = _number("TRANSFER_WINDOW", 8)  #: chunks in flight per transfer

OUTPUT_LINES_PER_S: int = _number("OUTPUT_LINES_PER_S", 200)  #: per task, to the notebook; the log file has all
LOG_BYTES: int = _number("LOG_BYTES", 50 * 2**20)  #: of one log file; then it becomes an earlier part, and a new one begins
LOG_BACKUPS: int = _number("LOG_BACKUPS", 1)  #: earlier parts kept per worker
LOGS_BYTES: int = _number("LOGS_BYTES", 2 * 2**30)  #: of all logs of a node; beyond, those of workers long dead go
LOG_TAIL_LINES: int = 20  #: shown with the death of a worker
TRACE_RECORDS: int = _number("TRACE_RECORDS", 200_000)  #: kept per process
PRE_AUTH_S: float = 5.0  #: from connect to Hello
PRE_AUTH_BYTES: int = 1024  #: of the Hello, the only thing that a stranger may send

JOB_STOP_S: float = _number("JOB_STOP_S", 3.0)  #: from SIGTERM to SIGKILL of a submitted job (as in Ray)
JOB_ENDED_KEPT: int = _number("JOB_ENDED_KEPT", 1000)  #: submitted jobs that are over and stay in the listing

MEMORY_KILL: float = _number("MEMORY_KILL", 0.95)  #: of the memory limit: the node ends workers before the kernel chooses one
MEMORY_CHECK_S: float = _number("MEMORY_CHECK_S", 0.25)  #: between looks at memory, while anything runs
LEASE_TOLD_S: float = 1.0  #: a lease request that waits longer is told why
RECALL_AFTER_S: float = _number("RECALL_AFTER_S", 0.1)  #: a lease request waits this long before leases of others are recalled
WORKERS_PER_CPU: int = 4  #: blocked workers free their CPU; beyond this many processes, waiting in a circle is assumed
WORKERS_MIN: int = _number("WORKERS_MIN", 256)  #: whatever the CPUs: recursion of ordinary depth is no circle
WORKERS_STARTING: int = 8  #: forked at one time; more would only slow each other
WORKERS_PRESTART: int = 8  #: at most, at the start of a node: one per CPU
HEARTBEAT_MIN_S: float = 0.05  #: between heartbeats that only say that something changed
EMBEDDED_GRACE_S: float = 20.0  #: an embedded node that no driver has attached to ends

PACKAGE_BYTES: int = _number("PACKAGE_BYTES", 500 * 2**20)  #: of one package of a runtime environment, packed (as in Ray)
PACKAGE_CHUNK: int = 4 * 2**20  #: bytes of a package in one message
PACKAGES_HELD: int = _number("PACKAGES_HELD", 2 * 2**30)  #: bytes of packages that the head keeps for jobs that run
ENVIRONMENTS_CACHED: int = _number("ENVIRONMENTS_CACHED", 10 * 2**30)  #: bytes of this user's cache that nobody uses
ENVIRONMENT_IDLE_S: float = _number("ENVIRONMENT_IDLE_S", 60.0)  #: an environment that no worker is in may be removed after this
ENVIRONMENT_RETRY_S: float = _number("ENVIRONMENT_RETRY_S", 5.0)  #: one that could not be made is not tried again for this long
ON_ERROR: str = _number("ON_ERROR", "notebook")  #: plain failures that keep frames: a cell's first; "snapshot": all; "plain": none
LOOK_S: float = 0.001  #: at least, between looks at whether the driver's own modules were edited
LOOK_SHARE: float = 0.01  #: of a driver's time, at most, goes into these looks
