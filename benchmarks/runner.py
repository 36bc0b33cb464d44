"""Turns: nbray, a peer, nbray, a peer ... each turn a fresh process, so that neither finds what the other left.

A row that fails is an entry that says so. A turn that says nothing for as long as its row may take is ended with everything that it
started, and a fresh process goes on with the row after.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.table_of_contents import BLOCKS
from nbray.microbenchmark.row import Block, Row

ROOT = Path(__file__).resolve().parents[1]
Item = tuple[Block, Row]
#: Added to the time that a row may take: starting a peer, and ending it.
START_S, END_S = 60.0, 20.0
#: After an error in this many turns a row is no longer tried with that peer.
GIVE_UP = 2


class Results(msgspec.Struct):
    """Everything that was measured, by block and row name. A list has one entry per turn; None: that turn failed."""

    machine: dict[str, str]
    bounds: list[dict[str, float]] = []
    rows: dict[str, dict[str, list[float | None]]] = {}  #: "block/row" -> peer (or "baseline") -> figures
    errors: dict[str, dict[str, str]] = {}  #: "block/row" -> peer -> the last error
    took_s: float = 0.0
    load: list[float] = []  #: of the whole machine, at the beginning of each round of turns

    def values(self, block: Block, row: Row, peer: str) -> list[float | None]:
        return self.rows.get(f"{block.key}/{row.name}", {}).get(peer, [])

    def error(self, block: Block, row: Row, peer: str) -> str:
        return self.errors.get(f"{block.key}/{row.name}", {}).get(peer, "")


class Runner:
    """Measures what matches `only`, `pairs` times. `say` is told what happens, a line at a time."""

    def __init__(
        self,
        results: Results,
        *,
        only: str,
        pairs: int,
        peers: list[str],
        seconds: float,
        limit_s: float,
        say: Callable[[str], None],
    ) -> None:
        self.results = results
        self._only = re.compile(only, re.IGNORECASE)
        self._pairs, self._peers, self._seconds, self._limit_s, self._say = pairs, peers, seconds, limit_s, say

    def run(self) -> None:
        """Round after round, one pair of every row in each, so that a busy quarter of an hour falls on all rows alike.

        Another round is begun only if one more like the last fits in: when others load the machine there are fewer pairs, not
        fewer rows.
        """
        began = time.monotonic()
        try:
            self._bounds()
            for turn in range(self._pairs):
                begun = time.monotonic()
                self._round(turn)
                now = time.monotonic()
                if now + (now - begun) > began + self._limit_s:
                    self._say(f"no time for another round after {turn + 1}")
                    break
            self._bounds()
        finally:
            self.results.took_s += time.monotonic() - began

    def _round(self, turn: int) -> None:
        for first in (block for block in BLOCKS if not block.first):
            wanted = [
                (block, row)
                for block in BLOCKS
                if first.key in (block.key, block.first)
                for row in block.rows
                if row.measure and self._wanted(block, row) and turn < (row.most_pairs or self._pairs)
            ]
            if not wanted:
                continue
            self.results.load.append(os.getloadavg()[0])
            for peer in ["nbray", *(p for p in first.peers if p in self._peers)]:
                self._turn(wanted, peer, turn)

    def _wanted(self, block: Block, row: Row) -> bool:
        # A fresh process has to start before it can do anything else: those rows go together.
        names = (r.name for r in block.rows) if block.key == "startup" else (row.name,)
        return any(self._only.search(f"{block.key}/{name}") for name in names)

    def _bounds(self) -> None:
        self._say("bounds of this machine")
        done = subprocess.run([sys.executable, "-m", "benchmarks.bounds"], cwd=ROOT, capture_output=True, timeout=120, check=True)
        self.results.bounds.append(msgspec.json.decode(done.stdout, type=dict[str, float]))

    def _turn(self, wanted: list[Item], peer: str, turn: int) -> None:
        left = [(block, row) for block, row in wanted if not self._pointless(block, row, peer)]
        while left:
            self._say(f"{left[0][0].key}, turn {turn + 1}: {peer}, {len(left)} row(s)")
            began = last = time.monotonic()
            for (block, row), answer in self._process(tuple(left), peer):
                self._take(block, row, peer, answer)
                left.remove((block, row))
                self._say(f"    {time.monotonic() - last:5.1f} s  {block.key}/{row.name}: {answer.get('value')}")
                last = time.monotonic()
            self._say(f"    {time.monotonic() - began:5.1f} s  in all")

    def _pointless(self, block: Block, row: Row, peer: str) -> bool:
        if peer == "nbray" and row.note:
            return True
        return self.results.values(block, row, peer).count(None) >= GIVE_UP

    def _take(self, block: Block, row: Row, peer: str, answer: dict[str, Any]) -> None:
        key = f"{block.key}/{row.name}"
        value = answer.get("value")
        found = value if isinstance(value, dict) else {peer: value}
        for name, figure in found.items():
            self.results.rows.setdefault(key, {}).setdefault(name, []).append(figure)
        if "error" in answer:
            self.results.errors.setdefault(key, {})[peer] = answer["error"]
            self._say(f"    {row.name}: {answer['error']}")

    def _process(self, items: tuple[Item, ...], peer: str) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Rows with their answers, as they come. Ends early, with the failure of one row, when the process does."""
        names = [f"{block.key}/{block.rows.index(row)}" for block, row in items]
        command = [sys.executable, "-m", "benchmarks.turn", peer, str(self._seconds), *names]
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
        with open(ROOT / "build" / "benchmarks.log", "ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True, bufsize=0
            )
        lines = _Lines(process)
        try:
            for number, item in enumerate(items):
                limit_s = item[1].timeout_s + (START_S if number == 0 else 0.0)
                line = lines.next(limit_s)
                if not line:
                    yield item, {"error": lines.why(limit_s)}
                    return
                yield item, json.loads(line)
            lines.next(END_S)  # its end of file
        finally:
            _end_all(process)


class _Lines:
    """What a process says, line by line, with a limit on waiting."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process, self._fd, self._rest = process, process.stdout.fileno(), b""

    def next(self, limit_s: float) -> bytes:
        """b"" at the end of file, or when the time is up."""
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return b""
            part = os.read(self._fd, 65536)
            if not part:
                return b""
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def why(self, limit_s: float) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1)
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            return f"the process {ended} before it had an answer"
        return f"no answer within {limit_s:.0f} s"


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """End a turn, and whatever it started that is still there. Nothing is, if it ended by itself."""
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    for each in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
