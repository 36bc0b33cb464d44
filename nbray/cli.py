"""The `nbray` command: start a cluster, join one, look at it, end what was started here.

    nbray start --head ...        nbray status      nbray timeline
    nbray start --address ...     nbray stop        nbray list|get|summary|memory|logs|stack
    nbray job submit|status|logs|stop|list|delete            nbray dashboard|microbenchmark

A failure is one line on stderr and exit code 1. What `start` began is noted beside the connection files, in a file per
daemon that names its runtime directory; `stop` believes only the kernel about which process stands behind that directory.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

import nbray
from nbray import cli_actors, cli_dashboard, cli_jobs, cli_logs, cli_microbenchmark, cli_ray, cli_state
from nbray.driver import joining, launch, looking
from nbray.exceptions import NodeStartError, RayError
from nbray.node.settings import NetworkSettings, NodeSettings
from nbray.sched.labels import check_labels
from nbray.sched.resources import NODE, to_floats
from nbray.trace import as_dict, chrome_events, decode_records
from nbray.util import prometheus
from nbray.util.state.asking import Asker
from nbray.util.state.exception import RayStateApiException
from nbray.wire import connection_file, rundir
from nbray.wire.addresses import is_loopback
from nbray.wire.connection_file import Connection, Found

DEFAULT_PORT = 6379
STOP_S = 10.0
BYTES = {"memory", "object_store_memory"}


class Refusal(Exception):
    """The command cannot be carried out; the text is for the person who typed it."""


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    refusal = cli_ray.refusal(words)
    if refusal is not None:
        print(f"nbray: {refusal}", file=sys.stderr)
        return 2
    arguments = _parser().parse_args(words)
    try:
        return int(arguments.run(arguments) or 0)
    except NodeStartError as error:
        # The last line of a process that did not start is its own account; what is around it is for developers.
        print(f"nbray: {str(error).splitlines()[-1].partition('Error: ')[2] or error}", file=sys.stderr)
    except (Refusal, RayError, RayStateApiException, OSError, ValueError, RuntimeError, TypeError) as error:
        print(f"nbray: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("nbray: interrupted", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nbray", description="Run ordinary Python on every core and machine you have.")
    parser.add_argument("--version", action="version", version=f"nbray {nbray.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    start = commands.add_parser("start", help="start a cluster on this machine (--head), or add this machine to one (--address)")
    _start_arguments(start)
    start.set_defaults(run=_start)

    stop = commands.add_parser("stop", help="stop what `nbray start` started on this machine")
    stop.add_argument(
        "--directory", metavar="DIR", help="only the daemon with this runtime directory; default: all that was started"
    )
    stop.add_argument("--force", "-f", action="store_true", help="kill at once instead of ending in order")
    stop.add_argument(
        "--grace-period", "-g", type=_period, default=STOP_S, metavar="S", help="then kill what has not ended; default: %(default)g"
    )
    stop.set_defaults(run=_stop)

    cli_jobs.add(commands)
    cli_actors.add(commands)
    status = commands.add_parser("status", help="nodes, resources, and what waits and why, submitted jobs too")
    status.add_argument(
        "-v", "--verbose", action="store_true", help="with the resources and labels of each node, and jobs that run"
    )
    status.set_defaults(run=_status)
    timeline = commands.add_parser("timeline", help="write what ran where and when, for ui.perfetto.dev or chrome://tracing")
    timeline.add_argument(
        "-o", "--output", metavar="FILE", default="nbray-timeline.json", help="default: %(default)s; - is standard output"
    )
    timeline.set_defaults(run=_timeline)
    metrics = commands.add_parser("metrics", help="the cluster's figures, and those of its programs, as Prometheus reads them")
    metrics.set_defaults(run=_metrics)
    for each in (status, timeline, metrics):
        _address_option(each)
    cli_state.add_commands(commands, _address_option)
    cli_microbenchmark.add(commands)
    cli_logs.add_commands(commands, _address_option)
    cli_dashboard.add_command(commands, _address_option, _port)
    return parser


def _address_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help=f"host:port, a connection file or a runtime directory; default: ${looking.ADDRESS_VARIABLE}, else what runs here",
    )


def _start_arguments(start: argparse.ArgumentParser) -> None:
    which = start.add_mutually_exclusive_group(required=True)
    which.add_argument("--head", action="store_true", help="start a new cluster here")
    which.add_argument(
        "--address", metavar="ADDRESS", help="join the cluster at host:port (with NBRAY_TOKEN), or of a connection file"
    )
    start.add_argument(
        "--port", type=_port, help=f"port of this node's gateway; default: {DEFAULT_PORT} for a head, else any; 0: any"
    )
    start.add_argument(
        "--node-ip-address",
        metavar="HOST",
        help="address to listen on; default: 127.0.0.1 for a head, else the one that faces the head",
    )
    start.add_argument(
        "--listen-all", action="store_true", help="needed to listen on 0.0.0.0 or ::, and for a page beyond this machine"
    )
    start.add_argument("--num-cpus", type=float, metavar="N")
    start.add_argument("--num-gpus", type=float, metavar="N")
    start.add_argument("--resources", type=_resources, default={}, metavar="JSON", help="""own resources: '{"disk": 2}'""")
    start.add_argument("--labels", type=_labels, default={}, metavar="LABELS", help="k=v,k=v or JSON")
    start.add_argument("--memory", type=int, metavar="BYTES")
    start.add_argument("--object-store-memory", type=int, metavar="BYTES")
    start.add_argument("--temp-dir", metavar="DIR", help="runtime root: sockets, logs, spilled objects; ours alone (0700)")
    start.add_argument("--state", metavar="PATH", help="of a head: journal, so that a head started again with it carries on")
    start.add_argument("--block", action="store_true", help="stay in the foreground; Ctrl-C stops the node")
    start.add_argument("--disable-usage-stats", action="store_true", help="nbray has no usage statistics; accepted for Ray's sake")
    cli_dashboard.add_options(start, _port)
    cli_ray.add_options(start)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _period(text: str) -> float:
    try:
        period = float(text)
    except ValueError:
        period = -1.0
    if not 0 <= period < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return period


def _resources(text: str) -> dict[str, float]:
    try:
        return msgspec.json.decode(text, type=dict[str, float])
    except msgspec.DecodeError:
        raise argparse.ArgumentTypeError(f"""{text!r} is not JSON of names and amounts, such as '{{"disk": 2}}'""") from None


def _labels(text: str) -> dict[str, str]:
    try:
        if text.lstrip().startswith("{"):
            given = msgspec.json.decode(text, type=dict[str, str])
        else:
            given = {key: value for key, _, value in (_split_label(pair) for pair in text.split(",") if pair)}
    except (msgspec.DecodeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is neither k=v,k=v nor JSON of names and texts") from None
    try:
        return check_labels(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _split_label(pair: str) -> tuple[str, str, str]:
    key, equals, value = pair.partition("=")
    if not (key and equals):
        raise ValueError(pair)
    return key.strip(), equals, value.strip()


# ---------------------------------------------------------------------------------------------------- start


def _start(arguments: argparse.Namespace) -> int:
    for line in cli_ray.notices(arguments):
        print(line)
    if cli_dashboard.wanted(arguments):
        if arguments.head:
            cli_dashboard.check_host(arguments.dashboard_host or "127.0.0.1", arguments.listen_all, "--dashboard-host")
        else:
            print("A cluster's page is served by its head: `nbray start --head --dashboard-port N`. This node serves none.")
    if arguments.state and not arguments.head:
        raise Refusal("--state is the head's journal; a node that joins keeps none")
    if arguments.address is not None and arguments.address.startswith(connection_file.TOKEN_PREFIX):
        raise Refusal("a token on the command line shows in `ps`: set NBRAY_TOKEN to it, and give --address HOST:PORT")
    launched, say = _start_head(arguments) if arguments.head else _start_node(arguments)
    if arguments.block:
        return _stay(launched, say)
    for line in say:
        print(line, flush=True)
    return 0


def _start_head(arguments: argparse.Namespace) -> tuple[launch.Launched, list[str]]:
    bind = arguments.node_ip_address or "127.0.0.1"
    host = _own_address("192.0.2.1") if _checked_bind(bind, arguments.listen_all) else bind
    port = DEFAULT_PORT if arguments.port is None else arguments.port
    draft = _credentials_for(host, port, resumes=arguments.state is not None)
    network = joining.network(Found(draft, "this cluster's connection file"), bind=(bind, port), joins=False)
    state = os.path.abspath(arguments.state) if arguments.state else None
    launched = launch.start(_settings(arguments, "head", host, network, state))
    connection = msgspec.structs.replace(draft, port=launched.port or port, directory=launched.directory)
    _forget_the_dead(connection.address)
    path = connection_file.write(connection)
    _note(launched, "head", connection.address, path)
    say = [f"Started the head of cluster {connection.cluster[:8]} at {connection.address} (pid {launched.process.pid})."]
    if is_loopback(host):
        say.append("Only this machine can reach it; give --node-ip-address for others to join.")
    say += ["To join, with the secret in the environment and not in `ps`:", f"  {_joining_line(connection)}"]
    say.append(f"On this machine: nbray.init('auto'), nbray status, nbray stop. Connection file: {path}")
    if cli_dashboard.wanted(arguments):
        say += _page(launched, arguments)
    return launched, say


def _page(launched: launch.Launched, arguments: argparse.Namespace) -> list[str]:
    """Serve the new cluster's page. A cluster without the page that was asked for is none."""
    try:
        return cli_dashboard.start(launched.directory, arguments)
    except BaseException:
        launch.stop(launched, STOP_S)
        _forget(launched.directory)
        raise


def _joining_line(connection: Connection) -> str:
    return f"{connection_file.TOKEN_VARIABLE}={connection.token()} nbray start --address {connection.address}"


def _credentials_for(host: str, port: int, *, resumes: bool) -> Connection:
    """A new cluster's, or, for a head that carries on, those that its nodes have."""
    if resumes:
        for found in connection_file.known():
            if (found.connection.host, found.connection.port) == (host, port):
                return found.connection
    created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return connection_file.new(host, port, created=created)


def _start_node(arguments: argparse.Namespace) -> tuple[launch.Launched, list[str]]:
    found = connection_file.find(arguments.address)
    connection = found.connection
    bind = arguments.node_ip_address or _own_address(connection.host)
    host = _own_address(connection.host) if _checked_bind(bind, arguments.listen_all) else bind
    network = joining.network(found, bind=(bind, arguments.port or 0))
    launched = launch.start(_settings(arguments, "join", host, network, None))
    _note(launched, "node", connection.address, "")
    where = f"cluster {connection.cluster[:8]} at {connection.address}"
    return launched, [f"Joined {where} as node {launched.node.hex()[:4]} (pid {launched.process.pid})."]


def _settings(arguments: argparse.Namespace, role: Any, host: str, network: NetworkSettings, state: str | None) -> NodeSettings:
    return NodeSettings(
        role=role,
        num_cpus=arguments.num_cpus,
        num_gpus=arguments.num_gpus,
        resources=arguments.resources,
        memory=arguments.memory,
        object_store_memory=arguments.object_store_memory,
        labels=arguments.labels,
        root=os.path.abspath(arguments.temp_dir) if arguments.temp_dir else None,
        keep=True,
        host=host,
        state_path=state,
        network=network,
    )


def _checked_bind(bind: str, listen_all: bool) -> bool:
    """Whether `bind` means all addresses. Raises Refusal unless that is wanted in so many words."""
    if bind not in ("0.0.0.0", "::", "*"):
        return False
    if not listen_all:
        raise Refusal(f"--node-ip-address {bind} listens on every network of this machine; if that is meant, add --listen-all")
    return True


def _own_address(towards: str) -> str:
    """This machine's address on the way to `towards`. Nothing is sent: connecting a datagram socket only asks the routes."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(towards, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _stay(launched: launch.Launched, say: list[str]) -> int:
    """Say that it runs, and wait for the node to end; Ctrl-C or SIGTERM ends it, from the first word on."""

    def ends(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, ends)
    try:
        for line in say:
            print(line, flush=True)
        code = int(launched.process.wait())
    except KeyboardInterrupt:
        launch.stop(launched, STOP_S)
        code = 0
        print("Stopped.", flush=True)
    _forget(launched.directory)
    return 1 if code else 0


# ---------------------------------------------------------------------------------------------------- what was started here


class Note(msgspec.Struct, frozen=True):
    """One daemon that `nbray start` began. `file` is the connection file of a head."""

    directory: str
    role: str
    address: str
    file: str


def _note_path(directory: str) -> str:
    return f"{connection_file.connections_directory()}/{os.path.basename(directory)}.node"


def _note(launched: launch.Launched, role: str, address: str, file: str) -> None:
    for place in (None, connection_file.connections_directory()):
        os.close(rundir.open_root(place)[1])
    fd = os.open(_note_path(launched.directory), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as out:
        out.write(msgspec.json.encode(Note(launched.directory, role, address, file)))


def _notes() -> Iterator[Note]:
    directory = connection_file.connections_directory()
    with contextlib.suppress(FileNotFoundError):
        os.close(rundir.open_private(directory))
        for name in sorted(os.listdir(directory)):
            if name.endswith(".node"):
                with open(f"{directory}/{name}", "rb") as file, contextlib.suppress(msgspec.DecodeError):
                    yield msgspec.json.decode(file.read(), type=Note)


def _forget(directory: str) -> None:
    """The daemon is gone: its note goes, and the connection file of a head."""
    for note in _notes():
        if note.directory == directory:
            if note.file:
                connection_file.remove(note.file)
            connection_file.remove(_note_path(directory))


def _forget_the_dead(address: str) -> None:
    """A head at the address of ours was killed: nobody can find it there any more. Others may be started again where they were."""
    for note in list(_notes()):
        if note.role == "head" and note.address == address and joining.pid_behind(note.directory) is None:
            _forget(note.directory)


# ---------------------------------------------------------------------------------------------------- stop


def _stop(arguments: argparse.Namespace) -> int:
    # Nodes before heads: a node that ends in order says goodbye to its head.
    notes = sorted(_notes(), key=lambda note: note.role == "head")
    found = 0
    if arguments.directory is not None:
        notes = [note for note in notes if note.directory == arguments.directory]
    for note in notes:
        pid = joining.pid_behind(note.directory)
        if pid is not None:
            how = _end(pid, arguments.force, arguments.grace_period)
            print(f"Stopped the {note.role} of {note.address} (pid {pid}, {how}).", flush=True)
        else:
            print(f"The {note.role} of {note.address} had ended without a word: what it left behind is removed.", flush=True)
        found += 1
        _forget(note.directory)
        rundir.clean_stale(os.path.dirname(note.directory))
    if not found:
        raise Refusal("nothing that `nbray start` began is running here; clusters of notebooks and scripts end with them")
    return 0


def _end(pid: int, force: bool, grace_s: float) -> str:
    """End the process, by force after `grace_s`; returns how it went, in words."""
    began = time.monotonic()
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return "it had just ended"
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL if force else signal.SIGTERM)
            how = "killed" if force else "in order"
            if not select.select([handle], [], [], grace_s)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                how = f"killed, because it had not ended after {grace_s:g} s"
                select.select([handle], [], [], STOP_S)
            return f"{how}, {time.monotonic() - began:.1f} s"
        return "it had just ended"
    finally:
        os.close(handle)


# ---------------------------------------------------------------------------------------------------- looking


def _status(arguments: argparse.Namespace) -> int:
    with looking.at(arguments.address) as (viewer, name):
        nodes, jobs = viewer.ask("nodes"), viewer.ask("job_list")
    print("\n".join([_described(name, nodes, verbose=arguments.verbose), *cli_jobs.waiting(jobs, verbose=arguments.verbose)]))
    return 0


def _described(name: str, nodes: list[dict[str, Any]], *, verbose: bool = False) -> str:
    """What `nbray status` prints, from the head's answer to "nodes". `verbose`: the amounts and labels of each node too."""
    workers = [n for n in nodes if n["alive"] and n["total"]]
    guests = sum(1 for n in nodes if n["alive"] and not n["total"])
    dead = [n for n in nodes if not n["alive"]]
    lines = [
        f"{name[0].upper()}{name[1:]}: {_count(len(workers), 'node')}"
        + (f", {_count(guests, 'guest')} without CPUs" if guests else "")
    ]
    for node in workers:
        lines.append(f"  {_node_line(node)}")
        lines += [f"    {line}" for line in _node_details(node)] if verbose else []
    total: dict[str, float] = {}
    free: dict[str, float] = {}
    for node in workers:
        for key, amount in to_floats(node["total"]).items():
            total[key] = total.get(key, 0) + amount
            free[key] = free.get(key, 0) + to_floats(node["available"]).get(key, 0)
    shared = sorted(key for key in total if not key.startswith(NODE))
    lines += ["In use:"] + [f"  {_amount(key, total[key] - free[key], total[key])}" for key in shared]
    waiting = [(node, queued) for node in nodes if node["alive"] for queued in node["queued"]]
    lines.append("Waiting:" if waiting else "Nothing waits.")
    for node, queued in waiting:
        shape = (
            ", ".join(f"{key} {_quantity(key, value)}" for key, value in sorted(to_floats(queued["amounts"]).items())) or "nothing"
        )
        lines.append(f"  {queued['count']} x ({shape}) on node {node['node_id'][:4]}: {queued['why']}")
    if dead:
        lines.append("Dead:")
        lines += [f"  node {n['node_id'][:4]} on {n['host']}: {n['death_cause'] or 'no reason known'}" for n in dead[-10:]]
    return "\n".join(lines)


def _node_details(node: dict[str, Any]) -> list[str]:
    """Every resource of one node, and its labels."""
    total, free = to_floats(node["total"]), to_floats(node["available"])
    lines = [f"id {node['node_id']}" + (f", gateway {node['gateway']}" if node["gateway"] else "")]
    lines += [_amount(key, total[key] - free.get(key, 0), total[key]) for key in sorted(total)]
    lines += [f"label {key}={value}" for key, value in sorted(node["labels"].items())]
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _node_line(node: dict[str, Any]) -> str:
    total, free = to_floats(node["total"]), to_floats(node["available"])
    first = [key for key in ("CPU", "GPU") if total.get(key)]
    used = ", ".join(_amount(key, total[key] - free.get(key, 0), total[key]) for key in first)
    what = " (head)" if node["is_head"] else ""
    store = f"store {_gib(node['store_used'])} of {_gib(node['store_bytes'])}"
    doubt = ", SUSPECT: its heartbeats are late" if node.get("suspect") else ""
    return f"node {node['node_id'][:4]} on {node['host']}{what}, pid {node['pid']}: {used + ', ' if used else ''}{store}{doubt}"


def _amount(key: str, used: float, total: float) -> str:
    return f"{key} {_quantity(key, used)} of {_quantity(key, total)}"


def _quantity(key: str, value: float) -> str:
    return _gib(value) if key in BYTES else f"{round(value, 4):g}"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 or not size else f"{size / 2**20:.1f} MiB"


def _metrics(arguments: argparse.Namespace) -> int:
    with looking.at(arguments.address) as (viewer, _):
        print(prometheus.text(Asker(viewer, prometheus.TIMEOUT_S)), end="")
    return 0


def _timeline(arguments: argparse.Namespace) -> int:
    with looking.at(arguments.address) as (viewer, _):
        records = [as_dict(record) for blob in viewer.ask("trace") for record in decode_records(blob)]
    events = chrome_events(sorted(records, key=lambda record: record["started_ns"]))
    if arguments.output == "-":
        json.dump(events, sys.stdout)
        return 0
    with open(arguments.output, "w", encoding="utf-8") as file:
        json.dump(events, file)
    print(f"{len(records)} tasks in {arguments.output}; open it at https://ui.perfetto.dev or chrome://tracing")
    return 0
