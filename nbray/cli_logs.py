"""`nbray logs` and `nbray stack`: what processes wrote, and where in their code they are."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from nbray.util.state import logs
from nbray.util.state.asking import Asker, asking

TAIL = 1000
#: Of whom to read: word -> (the option that names one, what `logs.log_file` calls it, help).
ONE = {
    "actor": ("--id", "actor_id", "the log of the worker that is, or was, an actor"),
    "task": ("--id", "task_id", "the log of the worker that runs, or ran, a task"),
    "worker": ("--pid", "pid", "the log of a worker process"),
    "job": ("--id", "submission_id", "the log of a submitted job"),
}


def add_commands(commands: Any, address_option: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the parsers; `address_option` gives each its --address."""
    command = commands.add_parser("logs", help="log files of any node: names, ends, and what is written from now on")
    kinds = command.add_subparsers(title="of whom", metavar="WHOM", required=True)
    cluster = kinds.add_parser("cluster", help="files by name; several are listed, one is shown")
    cluster.add_argument("pattern", nargs="?", default="*", metavar="GLOB", help="such as 'worker-41*'")
    cluster.set_defaults(run=_cluster)
    parsers = [cluster]
    for word, (option, name, said) in ONE.items():
        one = kinds.add_parser(word, help=said)
        one.add_argument(option, dest="which", required=True)
        if word == "task":
            one.add_argument("-a", "--attempt-number", type=int, default=0, metavar="N", help="from 0")
        one.set_defaults(run=_one, name=name)
        parsers.append(one)
    for parser in parsers:
        parser.add_argument("--node-id", metavar="ID", help="or the beginning of it")
        parser.add_argument("--node-ip", metavar="HOST")
        parser.add_argument("--follow", action="store_true", help="go on with what is written; Ctrl-C ends")
        parser.add_argument("--tail", type=int, default=TAIL, metavar="LINES", help="default: %(default)s; -1: all")
        parser.add_argument("--interval", type=float, default=logs.INTERVAL_S, metavar="S", help=argparse.SUPPRESS)
        parser.add_argument("--timeout", type=float, default=30.0, metavar="S")
        parser.add_argument("--err", action="store_true", help="as in Ray; a worker's one file has both its streams")
        address_option(parser)
    stack = commands.add_parser("stack", help="where every process of the cluster is in its Python code")
    stack.add_argument("--pid", type=int, help="only this one")
    stack.add_argument("--timeout", type=float, default=10.0, metavar="S")
    stack.set_defaults(run=_stack)
    address_option(stack)


def _cluster(arguments: argparse.Namespace) -> int:
    with asking(arguments.address or "auto", arguments.timeout) as asker:
        node = logs.node_of(asker, arguments.node_id, arguments.node_ip) if arguments.node_id or arguments.node_ip else ""
        groups = logs.grouped(asker, node, arguments.pattern)
        names = [name for group in groups.values() for name in group]
        if len(names) == 1:
            return _show(logs.log_file(asker, node_id=node or _node_with(asker, names[0]), filename=names[0]), arguments)
        if not names:
            raise ValueError(f"no log file matches {arguments.pattern!r}")
        for group, members in sorted(groups.items()):
            print(f"{group}:")
            for name in members:
                print(f"  {name}")
    return 0


def _node_with(asker: Asker, name: str) -> str:
    for node, _, files in asker.said_by_nodes("logs"):
        if any(file["name"] == name for file in files):
            return str(node.hex())
    return ""


def _one(arguments: argparse.Namespace) -> int:
    with asking(arguments.address or "auto", arguments.timeout) as asker:
        what = {arguments.name: arguments.which, "attempt_number": getattr(arguments, "attempt_number", 0)}
        return _show(logs.log_file(asker, node_id=arguments.node_id, node_ip=arguments.node_ip, **what), arguments)


def _show(file: logs.LogFile, arguments: argparse.Namespace) -> int:
    if sys.stdout.isatty():
        print(f"--- {file.name} on node {file.node[:4]} ---", file=sys.stderr)
    with contextlib.suppress(BrokenPipeError):
        for data in file.pieces(file.start_of_last(arguments.tail), follow=arguments.follow, interval_s=arguments.interval):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    return 0


def _stack(arguments: argparse.Namespace) -> int:
    """Each process describes itself, which harms nobody. Who cannot, because C code holds the interpreter, is left to py-spy."""
    with asking(arguments.address or "auto", arguments.timeout) as asker:
        workers = [w for w in asker.workers() if w["is_alive"] and arguments.pid in (None, w["pid"])]
        if not workers:
            raise ValueError(f"no process {arguments.pid} of the cluster is alive" if arguments.pid else "no process is there")
        told = asker.each_process("stack")
        for worker in workers:
            said = told.get(bytes.fromhex(worker["worker_id"]))
            kind = "actor" if worker["actor_id"] else worker["worker_type"].lower()
            print(f"=== {kind} pid {worker['pid']} on {worker['ip']} ({worker['state'].lower()})")
            print(said["text"] if said is not None else _from_outside(worker))
    return 0


def _from_outside(worker: dict[str, Any]) -> str:
    spy = shutil.which("py-spy")
    if spy is not None and worker["ip"] in (socket.gethostname(), "127.0.0.1", "localhost"):
        done = subprocess.run([spy, "dump", "--pid", str(worker["pid"])], capture_output=True, text=True, timeout=20, check=False)
        return done.stdout or done.stderr
    return (
        "It did not answer: C code that does not let Python run has it, or the machine is overloaded. "
        f"On {worker['ip']}, `py-spy dump --native --pid {worker['pid']}` shows it.\n"
    )
