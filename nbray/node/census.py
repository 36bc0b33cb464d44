"""The processes of a node as the State API tells of them: drivers, workers, and those that have ended. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nbray.ids import NodeId
from nbray.node.records import Driver, Phase, Worker
from nbray.wire.messages import Death

#: What the Death of a driver says.
LIFELINE_ENDED = "its lifeline ended"
#: Reasons of the runtime's own; whatever else ends a worker on purpose was asked for by a program.
_HOUSEKEEPING = ("idle", "another job")


def workers(node: NodeId, drivers: Iterable[Driver], alive: Iterable[Worker], dead: Iterable[Death]) -> list[dict[str, Any]]:
    """One dict per process; ids are hex strings. `state` is the worker's phase, `use` its job and environment."""
    told = [_row(node, driver.process, driver.pid, "DRIVER", state="ATTACHED", job_id=driver.process.hex()) for driver in drivers]
    for worker in alive:
        use = worker.use
        told.append(
            _row(
                node,
                worker.process,
                worker.pid,
                "WORKER",
                is_alive=worker.phase is not Phase.STARTING,
                state=worker.phase.name,
                blocked=worker.blocked,
                actor_id=worker.actor[0].hex() if worker.actor is not None else None,
                job_id=use[0].hex() if use is not None else None,
                env=use[1] if use is not None else "",
                why_ending=worker.ending,
            )
        )
    for death in dead:
        kind = "DRIVER" if death.reason == LIFELINE_ENDED else "WORKER"
        exit_type, detail = _exit(death)
        told.append(
            _row(node, death.process, death.pid, kind, is_alive=False, state="GONE", exit_type=exit_type, exit_detail=detail)
        )
    return told


def _row(node: NodeId, process: bytes, pid: int, worker_type: str, **others: Any) -> dict[str, Any]:
    fixed = {"worker_id": process.hex(), "node_id": node.hex(), "pid": pid, "worker_type": worker_type}
    usual = {"is_alive": True, "exit_type": None, "exit_detail": None, "actor_id": None, "job_id": None, "blocked": False}
    return {**fixed, **usual, "env": "", "why_ending": "", **others}


def _exit(death: Death) -> tuple[str, str]:
    """Ray's word for how a process ended, and ours."""
    if death.oom:
        return "SYSTEM_ERROR", death.reason or "killed because memory ran out"
    if death.reason.startswith(_HOUSEKEEPING):
        return "INTENDED_SYSTEM_EXIT", death.reason
    if death.reason or death.exit_code == 0:
        return "INTENDED_USER_EXIT", death.reason or "exited with code 0"
    if death.signal is not None:
        return "SYSTEM_ERROR", f"killed by signal {death.signal}"
    return "SYSTEM_ERROR", f"exited with code {death.exit_code}" if death.exit_code is not None else "nothing is known of its end"
