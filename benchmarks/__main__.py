"""`python -m benchmarks`: measure nbray and its peers in turns, and write the table into docs/performance.md.

What was measured is also kept in build/benchmarks.json, and `--render` writes the table from there again. With `--only` the table
goes to standard output, unless `--out` says where else.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

from benchmarks import document
from benchmarks.peers import PACKAGES, TITLES
from benchmarks.runner import ROOT, Results, Runner
from benchmarks.table import BEGIN, END, markdown, svg

DOCUMENT = ROOT / "docs" / "performance.md"
KEPT = ROOT / "build" / "benchmarks.json"
PEERS = [name for name in TITLES if name != "nbray"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="nbray and its peers, side by side")
    parser.add_argument("--only", metavar="PATTERN", default="", help="rows whose block/name matches this regular expression")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="turns of each (default: %(default)s)")
    parser.add_argument("--peers", metavar="P,P", default=",".join(PEERS), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="measured time of a row in a turn (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=12.0, help="no further round of turns once they are over (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--add", action="store_true", help="add what is measured to what was measured last")
    parser.add_argument("--render", action="store_true", help="measure nothing; write what was measured last")
    arguments = parser.parse_args(argv)
    wanted = arguments.peers.split(",")
    if unknown := [p for p in wanted if p not in PEERS]:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    KEPT.parent.mkdir(exist_ok=True)
    last = arguments.render or arguments.add
    results = msgspec.json.decode(KEPT.read_bytes(), type=Results) if last else Results(machine())
    if not arguments.render:
        # As an installed package is, and as the peers are: where no bytecode is written each process would compile all of it anew.
        compileall.compile_dir(ROOT / "nbray", quiet=2)
        runner = Runner(
            results, only=arguments.only, pairs=arguments.pairs, peers=wanted, seconds=arguments.seconds,
            limit_s=arguments.minutes * 60, say=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
        try:
            runner.run()
        finally:
            if arguments.add or not arguments.only:
                KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    out = arguments.out or (None if arguments.only and not last else DOCUMENT)
    if out is None:
        print(markdown(results, "performance.svg"))
    else:
        write(results, out)
    return 0


def write(results: Results, out: Path) -> None:
    """Put the table between the markers of `out`, and the chart beside it. Raises ValueError if the markers are not there."""
    if not out.exists():
        out.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    chart = out.with_suffix(".svg")
    document.put(out, BEGIN, END, markdown(results, chart.name))
    chart.write_text(svg(results), encoding="utf-8")


def machine() -> dict[str, str]:
    versions = []
    for name, package in PACKAGES.items():
        try:
            versions.append(f"{TITLES[name]} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{TITLES[name]} not installed")
    return {
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(versions),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
