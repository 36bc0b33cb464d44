"""`python -m benchmarks.microseconds`: where each microsecond of a task goes: driver, worker, daemon; into docs/performance.md.

CPU time only, so that other work on the machine does not count:

    how much    what the scheduler has given each thread (/proc/PID/task/*/schedstat), over a run that nobody looks at
    of what     shares of py-spy's samples of that thread, over a second run: the innermost function of nbray on its stack

A step is a function of nbray with all that it calls outside nbray: pickling, zmq, msgspec. Where such a call is most of what a step
does, its price alone on this machine stands beside it (`bounds.steps`).
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks import bounds, document

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- microseconds: begin -->", "<!-- microseconds: end -->"
RATE_HZ = 400
#: Steps below this share of a path's CPU are counted together, and those beyond the first MOST of a thread.
SMALL, MOST = 0.01, 10

#: A step by the beginning of its name, and what of bounds.steps() it can hardly do without.
BOUNDS = {
    "wire.mailbox.Mailbox.receive": "take and decode a frame",
    "wire.mailbox.receive": "take and decode a frame",
    "wire.mailbox._post": "encode and send a frame",
    "wire.mailbox.send": "encode and send a frame",
    "wire.mailbox.": "encode and send a frame",
    "wire.values.": "pickle a small value",
    "wire.codec.": "encode and send a frame",
    "owner.packing.": "pickle a small value",
    "owner.runtime.wait_for": "wake another thread",
    "owner.waiting.": "wake another thread",
    "store.arena.": "copy 1 KiB",
}


Clocks = dict[tuple[int, int], int]
Samples = dict[tuple[int, str], collections.Counter[str]]


class Thread(msgspec.Struct):
    """One thread of one process: its CPU for each operation, and what of it went where."""

    name: str
    us: float = 0.0
    shares: dict[str, float] = {}


class Process(msgspec.Struct):
    role: str  #: driver, worker (all of them together) or daemon
    threads: dict[str, Thread] = {}

    @property
    def us(self) -> float:
        return sum(thread.us for thread in self.threads.values())


# ---------------------------------------------------------------------------------------------------- what is driven


def sync_task(api: Any) -> Callable[[], int]:
    small = _small(api)

    def once() -> int:
        for _ in range(100):
            api.get(small.remote())
        return 100

    return once


def async_task(api: Any) -> Callable[[], int]:
    small = _small(api)

    def once() -> int:
        api.get([small.remote() for _ in range(1000)])
        return 1000

    return once


def actor_call(api: Any) -> Callable[[], int]:
    actor = _actor(api)

    def once() -> int:
        for _ in range(100):
            api.get(actor.small.remote())
        return 100

    return once


def actor_calls(api: Any) -> Callable[[], int]:
    actor = _actor(api)

    def once() -> int:
        api.get([actor.small.remote() for _ in range(1000)])
        return 1000

    return once


def put_and_get(api: Any) -> Callable[[], int]:
    def once() -> int:
        for _ in range(1000):
            api.get(api.put(0))
        return 1000

    return once


def _small(api: Any) -> Any:
    @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
    def small_value() -> bytes:
        return b"ok"

    return small_value


def _actor(api: Any) -> Any:
    @api.remote(num_cpus=0)
    class Plain:
        def small(self) -> bytes:
            return b"ok"

    return Plain.remote()


PATHS: dict[str, tuple[str, Callable[[Any], Callable[[], int]]]] = {
    "sync task": ("a task, one at a time", sync_task),
    "async task": ("a task, 1,000 at a time", async_task),
    "sync call": ("a call of an actor, one at a time", actor_call),
    "async call": ("a call of an actor, 1,000 at a time", actor_calls),
    "put and get": ("a small value put and got", put_and_get),
}


def drive(path: str) -> None:
    """The measured driver: says who its processes are, and works for as many seconds as each line that it reads says."""
    import nbray  # not needed by the process that measures

    nbray.init(address="local", num_cpus=2)
    once = PATHS[path][1](nbray)
    until = time.perf_counter() + 2.0
    while time.perf_counter() < until:
        once()
    print(json.dumps(_roles()), flush=True)
    for line in sys.stdin:
        until, done = time.perf_counter() + float(line), 0
        while time.perf_counter() < until:
            done += once()
        print(done, flush=True)
    nbray.shutdown()


def _roles() -> dict[str, list[int]]:
    me = psutil.Process()
    found: dict[str, list[int]] = {"driver": [me.pid], "daemon": [], "worker": []}
    for child in me.children(recursive=True):
        parent = child.parent()
        if parent is not None and parent.pid == me.pid:
            found["daemon"].append(child.pid)
        elif parent is not None and parent.parent() is not None and parent.pid not in found["daemon"]:
            found["worker"].append(child.pid)
    return found


# ---------------------------------------------------------------------------------------------------- measuring


def measure(path: str, seconds: float) -> list[Process]:
    command = [sys.executable, "-m", "benchmarks.microseconds", "--drive", path]
    driver = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdin is not None
        assert driver.stdout is not None
        roles: dict[str, list[int]] = json.loads(driver.stdout.readline())
        before = _clocks(roles)
        driver.stdin.write(f"{seconds}\n")
        driver.stdin.flush()
        done = int(driver.stdout.readline())
        after = _clocks(roles)
        names = _comms(roles)
        # Longer than the profilers look: what they see last must be work.
        with tempfile.TemporaryDirectory() as directory:
            driver.stdin.write(f"{seconds + 3.0}\n")
            driver.stdin.flush()
            samples = _sample(roles, seconds, Path(directory), names)
            driver.stdout.readline()
        driver.stdin.close()
        driver.wait(30)
    finally:
        driver.kill()
        driver.wait()
    return [_process(role, pids, before, after, names, samples, done) for role, pids in roles.items()]


def _clocks(roles: dict[str, list[int]]) -> Clocks:
    """Nanoseconds of CPU by process and thread."""
    found = {}
    for pid in (pid for pids in roles.values() for pid in pids):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found[pid, int(task.name)] = int((task / "schedstat").read_text().split()[0])
    return found


def _comms(roles: dict[str, list[int]]) -> dict[tuple[int, int], str]:
    """libzmq's threads say who they are; the names of Python's come with the samples."""
    found = {}
    for pid in (pid for pids in roles.values() for pid in pids):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "comm").read_text().startswith("ZMQ"):
                found[pid, int(task.name)] = "libzmq"
    return found


def _sample(roles: dict[str, list[int]], seconds: float, directory: Path, names: dict[tuple[int, int], str]) -> Samples:
    """Counts by process, thread and step; puts the threads' names into `names`."""
    running = []
    for pid in (pid for pids in roles.values() for pid in pids):
        out = directory / str(pid)
        command = ["py-spy", "record", "-p", str(pid), "-r", str(RATE_HZ), "-d", str(max(1, round(seconds))), "-f", "raw", "-t"]
        running.append(
            (pid, out, subprocess.Popen([*command, "-F", "-o", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        )
    found: Samples = collections.defaultdict(collections.Counter)
    for pid, out, profiler in running:
        profiler.wait(seconds + 60)
        for line in out.read_text().splitlines() if out.exists() else ():
            stack, _, count = line.rpartition(" ")
            thread, *frames = stack.split(";")
            name = re.match(r"thread \((\d+)\): (.*)", thread)
            if name:
                tid = int(name[1])
                called = names[pid, tid] = _named(pid, tid, name[2])
                found[pid, called][_step(frames)] += int(count)
    return found


def _named(pid: int, tid: int, said: str) -> str:
    """What a thread is called in the table: as Python calls it, without numbers that differ from run to run."""
    return "main thread" if pid == tid else re.sub(r"[-_ ]*[0-9a-f]{6,}$|[-_ ]+\d+$", "", said)


def _step(frames: Sequence[str]) -> str:
    """The innermost function of nbray on a stack, as module.function; "the program" if there is none."""
    for frame in reversed(frames):
        match = re.match(r"(\S+) \((?:.*/)?nbray/(.+)\.py", frame)
        if match:
            return f"{match[2].replace('/', '.')}.{match[1]}"
    return "the program itself"


def _process(
    role: str,
    pids: list[int],
    before: Clocks,
    after: Clocks,
    names: dict[tuple[int, int], str],
    samples: Samples,
    done: int,
) -> Process:
    process = Process(role)
    for (pid, tid), ns in after.items():
        if pid in pids:
            name = names.get((pid, tid), "main thread" if pid == tid else "other threads")
            thread = process.threads.setdefault(name, Thread(name))
            thread.us += (ns - before.get((pid, tid), ns)) / done / 1000
    counted: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for (pid, name), steps in samples.items():
        if pid in pids:
            counted[name].update(steps)
    for name, thread in process.threads.items():
        total = sum(counted[name].values())
        thread.shares = {step: count / total for step, count in counted[name].items()} if total else {}
    return process


# ---------------------------------------------------------------------------------------------------- the page


def tables(found: dict[str, list[Process]], prices: dict[str, float]) -> str:
    lines = ["| for one operation | driver | workers | daemon | together |", "|---|---|---|---|---|"]
    for path, processes in found.items():
        by_role = {process.role: process.us for process in processes}
        cells = [f"{by_role.get(role, 0.0):.1f} us" for role in ("driver", "worker", "daemon")]
        lines.append(f"| {PATHS[path][0]} | {' | '.join(cells)} | {sum(by_role.values()):.1f} us |")
    for path, processes in found.items():
        lines += [
            "",
            f"**{PATHS[path][0].capitalize()}.**",
            "",
            "| where | step | CPU | share | price of its main call |",
            "|---|---|---|---|---|",
        ]
        lines += _rows(processes, prices)
    lines += ["", "Prices alone, on the same machine: " + "; ".join(f"{what} {us:.1f} us" for what, us in prices.items()) + "."]
    return "\n".join(lines)


def _rows(processes: list[Process], prices: dict[str, float]) -> Iterator[str]:
    total = sum(process.us for process in processes)
    for process in processes:
        for thread in process.threads.values():
            if thread.us < SMALL * total:
                continue
            rest = thread.us
            where = f"{process.role}, {thread.name}"
            yield f"| **{where}** | | **{thread.us:.1f} us** | **{thread.us / total:.0%}** | |"
            for step, share in sorted(thread.shares.items(), key=lambda item: -item[1])[:MOST]:
                us = share * thread.us
                if us < SMALL * total:
                    break
                rest -= us
                price = next((name for begin, name in BOUNDS.items() if step.startswith(begin)), "")
                said = f"{price}: {prices[price]:.1f} us" if price in prices else ""
                yield f"| | `{step}` | {us:.1f} us | {us / total:.0%} | {said} |"
            yield f"| | {'the rest' if thread.shares else 'sockets; no Python there'} | {rest:.1f} us | {rest / total:.0%} | |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.microseconds", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", metavar="PATTERN", help=f"of {', '.join(PATHS)}")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each of the two runs of a path (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"into docs/{DOCUMENT.name}; else to standard output")
    arguments = parser.parse_args(argv)
    if arguments.drive:
        drive(arguments.drive)
        return 0
    found = {path: measure(path, arguments.seconds) for path in PATHS if re.search(arguments.only, path)}
    text = tables(found, bounds.steps())
    if not arguments.write:
        print(text)
        return 0
    document.put(DOCUMENT, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
