"""The page of this process's own cluster, without Jupyter: what `init(include_dashboard=..., dashboard_port=...)` asks for.

It is off unless asked for: a local cluster has no listener. It is served by a process of its own, on this machine only, and ends
with the cluster.
"""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Mapping
from typing import Any

from nbray.driver import dashboard
from nbray.driver.dashboard import Settings
from nbray.wire.addresses import is_loopback

HERE = "127.0.0.1"
_processes: list[subprocess.Popen[bytes]] = []  #: that this process started


def asked(include: object, host: object, port: object) -> Settings | None:
    """What the options ask for; None: no page. Raises TypeError, ValueError for what makes no sense."""
    if include is False or (include is None and host is None and port is None):
        return None
    if port is not None and (isinstance(port, bool) or not isinstance(port, int)):
        raise TypeError(f"dashboard_port is a port number, not {port!r}")
    if port is not None and not 0 <= port <= 65535:
        raise ValueError(f"dashboard_port={port} is no port; 0 takes any that is free")
    if host is not None and not isinstance(host, str):
        raise TypeError(f"dashboard_host is an address, not {host!r}")
    if host is not None and not is_loopback(host):
        warnings.warn(
            f"nbray.init(dashboard_host={host!r}) serves the page on {HERE} only; for other machines start the cluster with "
            f"`nbray start --head --dashboard-host {host} --listen-all`, or forward the port with ssh -L",
            UserWarning,
            stacklevel=4,
        )
    return Settings("", host if host is not None and is_loopback(host) else HERE, port)


def serve(facts: Mapping[str, Any], settings: Settings) -> None:
    """Serve the page of the cluster that an engine tells of, unless it has one. That of a cluster found running is its head's."""
    directory = str(facts.get("directory") or "")
    if address(directory):
        return  # it has one
    if not (directory and facts.get("embedded")):
        warnings.warn(
            f"nbray.init(include_dashboard=True) has no effect for a cluster that runs already ({facts.get('address')}): "
            "`nbray dashboard` serves its page",
            UserWarning,
            stacklevel=4,
        )
        return
    try:
        _processes.append(dashboard.start(Settings(directory, settings.host, settings.port)))
    except Exception as error:  # noqa: BLE001 -- the cluster is there; a page that is not is no reason to be without it
        warnings.warn(f"the cluster runs, and its page does not: {error}", UserWarning, stacklevel=4)


def address(directory: str | None) -> str:
    """`host:port` of the page of the cluster in `directory`; "" without one."""
    found = dashboard.place(directory) if directory else None
    return found.address if found is not None else ""


def url(directory: str | None) -> str:
    """The same with the path and a token for one visit."""
    return dashboard.url(directory) if directory else ""


def ended() -> None:
    """The cluster of this process has ended: so have its pages."""
    while _processes:
        dashboard.ended(_processes.pop())
