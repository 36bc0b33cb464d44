"""A cluster's page without Jupyter: started beside its daemon, found again by its file, and left to end with the cluster.

    <runtime directory>/dashboard.json    0600: where it listens, its process, and the key that gets a visitor in

Whoever can read that directory can run code in the cluster anyway.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import Any

import msgspec

from nbray.driver import launch
from nbray.wire import rundir

FILE = "dashboard.json"
#: Ray's, so that habits and firewalls fit; another if it is taken and nobody asked for it by number.
PORT = 8265
MORE_PORTS = 20
START_S = 30.0
ANSWER_S = 2.0
END_S = 3.0
#: Of one that has no cluster any more.
LARGEST_BYTES = 16_384


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a dashboard process is told, on a pipe. `port` None: PORT, or the next that is free."""

    directory: str  #: of the cluster that it shows and ends with; "": all of this machine
    host: str = "127.0.0.1"
    port: int | None = None
    name: str = ""  #: what to call the cluster; "": as every page does


class Place(msgspec.Struct, frozen=True):
    """Where one listens, as its file says."""

    host: str
    port: int
    pid: int
    key: str

    def __repr__(self) -> str:
        return f"Place({self.address}, pid={self.pid}, key=...)"

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def write(directory: str, place: Place) -> str:
    """Note it; returns the path. What another left there is replaced."""
    path = f"{directory}/{FILE}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(place))
    return path


def place(directory: str) -> Place | None:
    """The dashboard of the cluster in `directory`, if it has one that answers."""
    try:
        rundir.check(directory)
        fd = os.open(f"{directory}/{FILE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        try:
            found = msgspec.json.decode(file.read(LARGEST_BYTES), type=Place)
        except msgspec.DecodeError:
            return None
    return found if _ask(found, "GET", "/nbray/api/here") is not None else None


def url(directory: str) -> str:
    """`host:port/nbray?token=...`, good for one visit; "" when the cluster in `directory` has no dashboard."""
    found = place(directory)
    told = _ask(found, "POST", "/nbray/api/tokens") if found is not None else None
    return f"{found.address}/nbray?token={told['token']}" if found is not None and told is not None else ""


def _ask(found: Place, verb: str, path: str) -> dict[str, Any] | None:
    """The JSON that it answers; None if it does not."""
    import http.client  # half as slow to import as all of nbray, and most clusters have no page

    line = http.client.HTTPConnection(found.host, found.port, timeout=ANSWER_S)
    headers = {"Authorization": f"Bearer {found.key}", "X-NBRAY": "1", "Content-Type": "application/json"}
    try:
        line.request(verb, path, b"{}" if verb == "POST" else None, headers)
        reply = line.getresponse()
        told = json.loads(reply.read())
        return told if reply.status < 300 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        line.close()


def start(settings: Settings) -> subprocess.Popen[bytes]:
    """Start one as a process of its own. Raises NodeStartError with its own words if it does not come up."""
    begun = launch.Beginning("nbray.dashboard", "dashboard", msgspec.json.encode(settings))
    begun.wait(START_S)
    return begun.process


def ended(process: subprocess.Popen[bytes]) -> None:
    """Its cluster has ended, so it does too: see to it. Idempotent."""
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
