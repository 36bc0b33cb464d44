"""What Ray's command line has and nbray's has not: commands and options that somebody's script may use, and what to do instead."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

_CLOUD = "starts and looks after machines at a cloud"
_MACHINES = "`nbray start --head` on one machine and `nbray start --address HOST:PORT` on the others, by whatever starts them"

#: Command -> (what it does in Ray, the nearest that works).
COMMANDS: dict[str, tuple[str, str]] = {
    "up": (_CLOUD, _MACHINES),
    "down": (_CLOUD, "`nbray stop` on each machine"),
    "attach": (_CLOUD, "ssh to the machine, and `nbray status` there"),
    "exec": (_CLOUD, "ssh, or `nbray job submit -- COMMAND`"),
    "submit": (_CLOUD, "`nbray job submit -- python script.py`"),
    "rsync-up": (_CLOUD, "rsync; runtime_env={'working_dir': ...} sends a program's own files"),
    "rsync-down": (_CLOUD, "rsync"),
    "monitor": (_CLOUD, "`nbray status`, which says what waits and why"),
    "get-head-ip": (_CLOUD, "`nbray status`"),
    "get-worker-ips": (_CLOUD, "`nbray list nodes`"),
    "kill-random-node": ("tests a cluster at a cloud", "`nbray stop` on a machine"),
    "symmetric-run": ("runs one command on every machine of a batch job", _MACHINES + ", then `nbray job submit`"),
    "debug": ("attaches to a task that stopped", "breakpoint() in a task asks in the cell or terminal that submitted it"),
    "get-auth-token": ("prints a cluster's token", "`nbray start --head` says NBRAY_TOKEN; the connection file has it too"),
    "cpp": ("unpacks C++ headers", "wrap C++ for Python (pybind11), and make that function remote"),
    "health-check": ("asks whether the head lives", "`nbray status`, whose exit code is 0 when it does"),
    "drain-node": ("empties a node", "`nbray stop` there; tasks are retried elsewhere"),
    "cluster-dump": ("collects logs of all machines", "`nbray logs`, and `nbray stack`"),
    "local-dump": ("collects the logs of this machine", "`nbray logs`"),
    "global-gc": ("collects garbage in every process", "nothing: objects are freed when the last reference goes"),
    "enable-usage-stats": ("sends statistics to Ray's makers", "nothing: nbray sends none"),
    "disable-usage-stats": ("stops statistics to Ray's makers", "nothing: nbray sends none"),
    "check-open-ports": ("looks for open ports", "nothing: one port per node, encrypted, and none on a single machine"),
    "install-nightly": ("installs Ray", "pip install nbray"),
}

_ONE_PORT = "each node has one port: --port"
_AGENT = "there is no agent: a node answers for itself"
_RESOURCES = "nbray keeps to the limits of the cgroup or container that it is started in"
#: Option of `start` -> why it has no effect.
OPTIONS: dict[str, str] = {
    "--dashboard-agent-listen-port": _AGENT,
    "--dashboard-agent-grpc-port": _AGENT,
    "--object-manager-port": _ONE_PORT,
    "--node-manager-port": _ONE_PORT,
    "--min-worker-port": _ONE_PORT,
    "--max-worker-port": _ONE_PORT,
    "--worker-port-list": _ONE_PORT,
    "--runtime-env-agent-port": _ONE_PORT,
    "--ray-client-server-port": "drivers elsewhere connect to --port",
    "--redis-shard-ports": "there is no Redis",
    "--redis-username": "there is no Redis",
    "--redis-password": "there is no Redis; the secret is in the connection file, and in NBRAY_TOKEN",
    "--node-name": "a node is known by its id; give it --labels",
    "--plasma-directory": "the object store is in memory without a name",
    "--object-spilling-directory": "spilled objects are below --temp-dir",
    "--system-config": "every number has an environment variable: NBRAY_<NAME> of nbray/config.py",
    "--metrics-export-port": "`nbray metrics` has the figures, and the Jupyter server's /nbray/metrics",
    "--tracing-startup-hook": "`nbray timeline` has what ran where and when",
    "--autoscaling-config": "there is no autoscaler",
    "--labels-file": "say --labels",
    "--include-log-monitor": "a node sends the output of its workers itself",
    "--system-reserved-cpu": "give fewer CPUs: --num-cpus",
    "--system-reserved-memory": "give less memory: --memory",
    "--cgroup-path": _RESOURCES,
    "--proxy-server-url": "there is no proxy",
    "--logging-level": "logs have everything; `nbray logs` shows them",
    "--logging-format": "logs have one format",
    "--log-style": "there is one style",
    "--log-color": "there are no colours",
}
#: The same, for options without a value.
FLAGS: dict[str, str] = {
    "--no-monitor": "there is no autoscaler",
    "--no-redirect-output": "the daemon's output is in its log: `nbray logs`",
    "--enable-object-reconstruction": "lost objects are always made again where that is possible",
    "--ray-debugger-external": "breakpoint() asks in the cell or terminal that submitted the task",
    "--enable-resource-isolation": _RESOURCES,
}


def refusal(arguments: Sequence[str]) -> str | None:
    """What to say when the command is one of Ray's that nbray has not."""
    if not arguments or arguments[0] not in COMMANDS:
        return None
    what, instead = COMMANDS[arguments[0]]
    return f"`nbray {arguments[0]}` is not built (Ray's {what}). What works here: {instead}."


def add_options(start: argparse.ArgumentParser) -> None:
    """Let `start` take Ray's other options, which its help does not list."""
    for option in OPTIONS:
        start.add_argument(option, help=argparse.SUPPRESS)
    for flag in FLAGS:
        start.add_argument(flag, action="store_true", help=argparse.SUPPRESS)


def notices(arguments: argparse.Namespace) -> list[str]:
    """A line for each reason why options of Ray's that were given have no effect."""
    given: dict[str, list[str]] = {}
    for option, why in {**OPTIONS, **FLAGS}.items():
        if getattr(arguments, option.removeprefix("--").replace("-", "_")) not in (None, False):
            given.setdefault(why, []).append(option)
    return [f"No effect: {', '.join(options)}; {why}." for why, options in given.items()]
