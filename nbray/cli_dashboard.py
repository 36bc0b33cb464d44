"""`nbray dashboard`, and the dashboard options of `nbray start`: the page without Jupyter."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from nbray.driver import dashboard, joining, looking
from nbray.driver.dashboard import PORT, Place, Settings
from nbray.wire import connection_file
from nbray.wire.addresses import ANYWHERE, is_loopback

NO = ("false", "0", "no")
YES = ("true", "1", "yes")


def add_command(commands: Any, address_option: Any, port: Any) -> None:
    command = commands.add_parser("dashboard", help="serve the page of this machine's clusters, until Ctrl-C")
    address_option(command)
    command.add_argument("--port", type=port, metavar="PORT", help=f"default: {PORT}, or the next that is free")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    command.add_argument("--listen-all", action="store_true", help="needed to listen where other machines can reach it")
    command.set_defaults(run=_dashboard)


def add_options(start: argparse.ArgumentParser, port: Any) -> None:
    start.add_argument(
        "--dashboard-port", type=port, metavar="PORT", help=f"of a head: serve its page there; {PORT} is usual; 0: any"
    )
    start.add_argument("--dashboard-host", metavar="HOST", help="where the page listens; default: 127.0.0.1")
    start.add_argument("--include-dashboard", type=_truth, metavar="BOOL", help="serve the page on the usual port, or do not")


def _truth(text: str) -> bool:
    if text.lower() not in (*NO, *YES):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in YES


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether `nbray start` was told to serve the page."""
    if arguments.include_dashboard is not None:
        return bool(arguments.include_dashboard)
    return arguments.dashboard_port is not None or arguments.dashboard_host is not None


def check_host(host: str, listen_all: bool, option: str) -> None:
    """Raises ValueError unless it is only for this machine, or more is wanted in so many words."""
    if is_loopback(host) or listen_all:
        return
    whom = "everyone who can reach this machine" if host in ANYWHERE else f"everyone who can reach {host}"
    raise ValueError(f"{option} {host} serves the page, over plain HTTP, to {whom}; if that is meant, add --listen-all")


def start(directory: str, arguments: argparse.Namespace) -> list[str]:
    """Serve the page of the cluster in `directory`, in a process that ends with it. Returns what to say."""
    dashboard.start(Settings(directory, arguments.dashboard_host or "127.0.0.1", arguments.dashboard_port))
    return [f"Its page: http://{dashboard.url(directory)} (good for one visit; `nbray dashboard` gives another)"]


def _dashboard(arguments: argparse.Namespace) -> int:
    check_host(arguments.host, arguments.listen_all, "--host")
    if arguments.port is None and (running := _running(arguments.address)):
        print(f"It runs already: http://{running}")
        return 0
    if arguments.address is None:
        _serve(Settings("", arguments.host, arguments.port), "the clusters of this machine")
        return 0
    with looking.at(arguments.address) as (viewer, name):
        _serve(Settings(viewer.directory, arguments.host, arguments.port, name), name)
    return 0


def _running(address: str | None) -> str:
    """Where the cluster that is meant has a dashboard of its own, with a fresh token; "" if it has none."""
    with contextlib.suppress(OSError):
        found = connection_file.find(address or "auto")
        directory = joining.directory_here(found)
        return dashboard.url(directory) if directory is not None else ""
    return ""


def _serve(settings: Settings, name: str) -> None:
    from nbray.dashboard import process  # tornado, for one command of many

    def ready(place: Place, token: str) -> None:
        print(f"The page of {name}: http://{place.address}/nbray?token={token}", flush=True)
        print("The address is good for one visit. Ctrl-C ends the page; clusters go on.", flush=True)

    process.run(settings, ready)
    print("The page has ended.", flush=True)
