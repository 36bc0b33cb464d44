"""`nbray list`, `get`, `summary` and `memory`: the State API at the command line."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from nbray import cli_tables
from nbray.columns import COLUMNS, ID_COLUMN, told
from nbray.util.state import api
from nbray.util.state.asking import Asker, asking
from nbray.util.state.common import Listing
from nbray.util.state.listing import SOURCES, Query, listing

#: What fits first into a narrow terminal; the other columns follow in their own order.
FIRST = {
    "tasks": "name state task_id worker_pid error_type attempt_number",
    "actors": "class_name name state pid actor_id",
    "objects": "object_size call_site reference_type object_id",
    "nodes": "node_id state node_ip is_head_node resources_total",
    "workers": "pid worker_type is_alive exit_type worker_id",
    "jobs": "submission_id job_id status type entrypoint",
}
BYTES = ("memory", "object_store_memory")
UNITS = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}
GROUPS = {"NODE_ADDRESS": "ip", "STACK_TRACE": "call_site"}
SORTS = {"OBJECT_SIZE": "object_size", "PID": "pid", "REFERENCE_TYPE": "reference_type"}


def add_commands(commands: Any, address_option: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the parsers; `address_option` gives each its --address."""
    kinds = [kind.replace("_", "-") for kind in SOURCES]
    list_ = commands.add_parser("list", help="tasks, actors, objects, nodes, workers, jobs ... that there are")
    list_.add_argument("resource", choices=kinds, metavar="RESOURCE", help=", ".join(kinds))
    list_.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help="or KEY!=VALUE; several must all hold"
    )
    list_.add_argument("--limit", type=int, default=api.LIMIT, help="default: %(default)s")
    list_.add_argument("--detail", action="store_true", help="all columns; as YAML unless --format says otherwise")
    list_.set_defaults(run=_list)
    get = commands.add_parser("get", help="everything about one of them")
    ids = [kind.replace("_", "-") for kind in ID_COLUMN if kind in SOURCES]
    get.add_argument("resource", choices=ids, metavar="RESOURCE", help=", ".join(ids))
    get.add_argument("id", help="as `nbray list` shows it")
    get.set_defaults(run=_get)
    for each in (list_, get):
        each.add_argument("--format", choices=cli_tables.FORMATS, default="default")
    summary = commands.add_parser("summary", help="how many there are of each, and in which states")
    summary.add_argument("resource", choices=["tasks", "actors", "objects"])
    summary.set_defaults(run=_summary)
    memory = commands.add_parser("memory", help="who refers to which objects, and what the object stores hold")
    _memory_options(memory)
    memory.set_defaults(run=_memory)
    for each in (list_, get, summary, memory):
        each.add_argument("--timeout", type=float, default=api.TIMEOUT_S, metavar="S", help="default: %(default)s s")
        address_option(each)


def _memory_options(memory: argparse.ArgumentParser) -> None:
    memory.add_argument("--group-by", type=str.upper, choices=GROUPS, default="NODE_ADDRESS")
    memory.add_argument("--sort-by", type=str.upper, choices=SORTS, default="OBJECT_SIZE")
    memory.add_argument("--units", type=str.upper, choices=UNITS, default="B")
    memory.add_argument("--stats-only", action="store_true", help="only what the object stores hold")
    memory.add_argument("-n", "--num-entries", type=int, default=api.MOST, metavar="N", help="of each group")


def _kind(resource: str) -> str:
    return resource.replace("-", "_")


def _list(arguments: argparse.Namespace) -> int:
    kind = _kind(arguments.resource)
    filters = [parsed_filter(each) for each in arguments.filter]
    found = api.entries(
        kind, filters, arguments.limit, arguments.timeout, detail=arguments.detail, address=arguments.address or "auto"
    )
    form = "yaml" if arguments.detail and arguments.format == "default" else arguments.format
    if form in ("default", "table"):
        print(_listed(kind, found, detail=arguments.detail))
        if len(found) < found.total:
            _aside(f"{len(found):,} of {found.total:,} are shown; --limit and --filter choose others")
    else:
        print(_formatted([dict(entry) for entry in found], form))
        if len(found) < found.total:
            _aside(f"{len(found):,} of {found.total:,} {kind} are shown")
    _say_missing(found.problems)
    return 0


def parsed_filter(text: str) -> tuple[str, str, str]:
    """KEY=VALUE or KEY!=VALUE. Raises ValueError."""
    key, equals, value = text.partition("=")
    if not equals or not key.rstrip("!"):
        raise ValueError(f"--filter {text}: give KEY=VALUE or KEY!=VALUE")
    return key.rstrip("!").strip(), "!=" if key.endswith("!") else "=", value.strip()


def _listed(kind: str, found: Listing, *, detail: bool) -> str:
    if not found:
        return f"No {kind.replace('_', ' ')}" + ("" if found.total else " found") + "."
    columns = told(kind, detail=detail)
    first = [column for column in FIRST.get(kind, "").split() if column in columns]
    rows = [_for_people(entry) for entry in found]
    others = [column for column in columns if column not in first]
    return cli_tables.table(rows, [*first, *others], cli_tables.width(), "--format yaml has everything")


def _for_people(entry: Mapping[str, Any]) -> dict[str, Any]:
    row = dict(entry)
    if "object_size" in row:
        row["object_size"] = _bytes(row["object_size"])
    for name, value in row.items():
        if name.startswith("resources_"):
            row[name] = {key: _bytes(int(each)) if key in BYTES else each for key, each in value.items()}
        if name.endswith("_time_ms") and value and not name.startswith("cpu"):
            row[name] = dt.datetime.fromtimestamp(value / 1000, dt.UTC).astimezone().isoformat(" ", "milliseconds")
    return row


def _bytes(size: int) -> str:
    if size < 0:
        return "?"
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def _formatted(value: Any, form: str) -> str:
    return cli_tables.as_json(value) if form == "json" else f"---\n{cli_tables.as_yaml(value)}\n..."


def _get(arguments: argparse.Namespace) -> int:
    kind = _kind(arguments.resource)
    found = api.one(kind, arguments.id, arguments.timeout, arguments.address or "auto")
    _say_missing(found.problems)
    if not found:
        raise ValueError(
            f"there is no {kind.removesuffix('s')} with the id {arguments.id}; `nbray list {arguments.resource}` has ids"
        )
    if arguments.format == "table":
        columns = [column.name for column in COLUMNS[kind]]
        print(cli_tables.table([_for_people(entry) for entry in found], columns, cli_tables.width()))
    else:
        print(_formatted([dict(entry) for entry in found], "json" if arguments.format == "json" else "yaml"))
    return 0


def _summary(arguments: argparse.Namespace) -> int:
    result, problems = api.summary(arguments.resource, arguments.timeout, arguments.address or "auto")
    rows = []
    for key, row in sorted(result["summary"].items()):
        words = {name: value for name, value in row.items() if not isinstance(value, Mapping)}
        counts = {name: value for name, value in row.items() if isinstance(value, Mapping)}
        start = {result["summary_by"]: key} if key not in words.values() else {}
        rows.append({**start, **words, **{name: _counted(value) for name, value in counts.items()}})
    totals = ", ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in result.items() if name.startswith("total"))
    print(f"{arguments.resource.capitalize()} by {result['summary_by'].replace('_', ' ')}: {totals}")
    if rows:
        print(cli_tables.table(rows, list(rows[0]), cli_tables.width()))
    _say_missing(problems)
    return 0


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {count:,}" for word, count in sorted(counts.items(), key=lambda item: -item[1]))


def _figure(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def _memory(arguments: argparse.Namespace) -> int:
    with asking(arguments.address or "auto", arguments.timeout) as asker:
        if not arguments.stats_only:
            print(_references(asker, arguments))
        print(_stores(asker))
        _say_missing(asker.say_who())
    return 0


def _references(asker: Asker, arguments: argparse.Namespace) -> str:
    found = listing(asker, Query("objects", [], api.MOST, detail=True))
    sort, group_by = SORTS[arguments.sort_by], GROUPS[arguments.group_by]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in found:
        groups.setdefault(str(entry[group_by]), []).append(entry)
    scale, unit = UNITS[arguments.units], arguments.units
    blocks = []
    for name, entries in sorted(groups.items()):
        entries.sort(key=lambda entry: entry[sort], reverse=sort == "object_size")
        size = sum(max(0, entry["object_size"]) for entry in entries)
        kinds = Counter(entry["reference_type"] for entry in entries)
        heading = (
            f"{arguments.group_by.replace('_', ' ').lower()} {name or '(unknown)'}: {size / scale:,.10g} {unit} ({_counted(kinds)})"
        )
        rows = [_reference_row(entry, scale, unit) for entry in entries[: arguments.num_entries]]
        more = len(entries) - len(rows)
        text = cli_tables.table(rows, list(rows[0]), cli_tables.width()) if rows else ""
        blocks.append("\n".join(filter(None, [heading, text, f"... and {more:,} more (-n)" if more else ""])))
    if len(found) < found.total:
        blocks.append(f"{len(found):,} of {found.total:,} references are shown")
    return "\n\n".join(blocks) + "\n" if blocks else "No process refers to any object.\n"


def _reference_row(entry: Mapping[str, Any], scale: int, unit: str) -> dict[str, Any]:
    size = entry["object_size"]
    return {
        "size": "?" if size < 0 else f"{size / scale:,.10g} {unit}",
        "call_site": entry["call_site"] or "(elsewhere)",
        "reference_type": entry["reference_type"],
        "pid": entry["pid"],
        "object_id": entry["object_id"],
        "status": entry["task_status"],
        "type": entry["type"],
        "ip": entry["ip"],
    }


def _stores(asker: Asker) -> str:
    lines = ["Object stores:"]
    for node, _, stats in asker.said_by_nodes("store"):
        spilled = f", {_bytes(stats['spilled'])} spilled to disk" if stats["spilled"] else ""
        used = f"{_bytes(stats['used'])} of {_bytes(stats['capacity'])} used by {stats['objects']:,} objects"
        lines.append(
            f"  node {node.hex()[:4]} on {asker.hosts().get(node.hex(), '?')}: {used}, {_bytes(stats['pinned'])} pinned{spilled}"
        )
    return "\n".join(lines)


def _aside(text: str) -> None:
    print(text, file=sys.stderr)


def _say_missing(problems: list[str]) -> None:
    for problem in problems:
        _aside(f"nbray: this is not everything: {problem}")
