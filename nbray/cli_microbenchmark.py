"""`nbray microbenchmark`: how fast nbray is on this machine, row by row as Ray's own microbenchmark has it."""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any

import msgspec

NAME_WIDTH = 44


def add(commands: Any) -> None:
    command = commands.add_parser("microbenchmark", help="how fast nbray is on this machine, in the rows of `ray microbenchmark`")
    command.add_argument("--only", metavar="PATTERN", default="", help="rows whose name has this regular expression in it")
    command.add_argument("--seconds", type=_seconds, default=0.5, metavar="S", help="of each of three measurements (default: 0.5)")
    command.add_argument("--json", action="store_true", help="one JSON list at the end, for programs")
    command.set_defaults(run=_run)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no time between 0 and 3600 seconds")
    return value


def _run(arguments: argparse.Namespace) -> int:
    # By name: the rows bring numpy, which no other command needs.
    alone = importlib.import_module("nbray.microbenchmark.alone")
    rows = alone.matching(arguments.only)
    figures = []
    if not arguments.json:
        print(f"{'ROW':{NAME_WIDTH}} {'PER SECOND':>14}   SPREAD", flush=True)
    for figure in alone.run(rows, arguments.seconds):
        figures.append(figure)
        if not arguments.json:
            print(_line(figure), flush=True)
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(figures), indent=2))
    return 1 if any(figure.error for figure in figures) else 0


def _line(figure: Any) -> str:
    if figure.error:
        return f"{figure.name:{NAME_WIDTH}} {'failed':>14}   {figure.error}"
    unit = "" if figure.unit == "/s" else f" {figure.unit.removesuffix('/s')}"
    said = f"{_number(figure.per_second)}{unit}"
    return f"{figure.name:{NAME_WIDTH}} {said:>14}   {_number(figure.least)} – {_number(figure.most)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
