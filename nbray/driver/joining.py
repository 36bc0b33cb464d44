"""How a process that is not on a node of its cluster gets one: from a connection to a runtime directory to attach to."""

from __future__ import annotations

import os
import socket

from nbray.driver import launch
from nbray.node.settings import NetworkSettings, NodeSettings
from nbray.wire import connection_file, lifeline, rundir
from nbray.wire.connection_file import Found

PATIENCE_S = 10.0


def network(found: Found, *, role: str = "node", bind: tuple[str, int] | None = None, joins: bool = True) -> NetworkSettings:
    """What a daemon is told of its cluster. A head `joins` nobody; `bind` None: it only dials out."""
    connection = found.connection
    mine = connection.credentials(found.source)
    join = (connection.host, connection.port) if joins else None
    return NetworkSettings(mine.cluster, mine.secret, mine.server_public, mine.source, role, bind, join)


def directory_here(found: Found) -> str | None:
    """The runtime directory of the cluster's head if that runs on this machine: attach there. None: start a client node.

    Raises ConnectionError when the head was here and is gone.
    """
    directory = found.connection.directory
    if not directory:
        return None
    if pid_behind(directory) is None:
        where = f"cluster {found.connection.cluster[:8]} at {found.connection.address}"
        raise ConnectionError(f"{where} is not running: its head's directory {directory} is gone or deserted; see {found.source}")
    return directory


def running_here() -> str | None:
    """The connection file of the cluster that was started last on this machine and still runs; None if there is none."""
    running = set(rundir.in_use())
    return next((found.source for found in connection_file.known() if found.connection.directory in running), None)


def start_client(found: Found, object_store_memory: int | None = None) -> launch.Launched:
    """Start a node without CPUs that dials the head: a driver's way into a cluster elsewhere. End it with `launch.stop`, or by
    leaving it as its last driver. Raises NodeStartError with the daemon's words when it is not let in."""
    settings = NodeSettings(role="client", object_store_memory=object_store_memory, network=network(found, role="client"))
    return launch.start(settings)


def pid_behind(directory: str) -> int | None:
    """The process that listens on the lifeline in `directory`, from the kernel; None if nobody does. Asks nothing of it, so
    a daemon that hangs is found too."""
    try:
        rundir.check(directory)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.settimeout(PATIENCE_S)
            line.connect(f"{directory}/{rundir.LIFELINE}")
            pid, uid = lifeline.peer_of(line)
            return pid if uid == os.geteuid() else None
    except (FileNotFoundError, ConnectionRefusedError):
        return None
