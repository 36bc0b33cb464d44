"""An object between two hosts, against the same bytes over bare CURVE streams.

The hosts are two network namespaces with a veth pair between them, so this row needs root and `ip`. In turns within one
measurement: nbray (a task on the other host makes an array, the driver gets it), then as many CURVE connections as nbray has bulk
lanes, one process at each end, carrying chunks of nbray's size with nothing else on top.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from nbray.microbenchmark.row import Block, Row

ROOT = Path(__file__).resolve().parents[1]
SIZE = 256 * 2**20
TIMES = 4
PORT = 7391
NEAR, FAR = "198.18.7.1", "198.18.7.2"  #: addresses that are set aside for benchmarks


def transfer(peer: Any, seconds: float) -> dict[str, float]:
    """GB (2**30 bytes) per second, the fastest of a few after one to warm up."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise RuntimeError("needs root and the `ip` command, to make two hosts out of one")
    with _two_hosts() as (near, far), tempfile.TemporaryDirectory() as directory:
        with _Ends() as ends:
            ours = _with_nbray(near, far, directory, ends)
        with _Ends() as ends:
            bare = _bare(near, far, ends)
    return {"nbray": ours, "baseline": bare}


@contextlib.contextmanager
def _two_hosts() -> Iterator[tuple[list[str], list[str]]]:
    """Prefixes of command lines that run on either host."""
    near, far = f"nbn{os.getpid()}", f"nbf{os.getpid()}"
    try:
        for name in (near, far):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", near, "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", far)
        for name, address in ((near, NEAR), (far, FAR)):
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "v0")
            _run("ip", "-n", name, "link", "set", "v0", "up")
        yield ["ip", "netns", "exec", near], ["ip", "netns", "exec", far]
    finally:
        for name in (near, far):
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


class _Ends:
    """Processes that end with the measurement, whatever becomes of it."""

    def __enter__(self) -> Self:
        self._processes: list[subprocess.Popen[str]] = []
        return self

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}
        )
        self._processes.append(process)
        return process

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _with_nbray(near: list[str], far: list[str], directory: str, ends: _Ends) -> float:
    start = [sys.executable, "-m", "nbray", "start", "--block"]
    os.mkdir(f"{directory}/near", 0o700)
    os.mkdir(f"{directory}/far", 0o700)
    homes = [{"XDG_RUNTIME_DIR": f"{directory}/{each}", "HOME": f"{directory}/{each}"} for each in ("near", "far")]
    sizes = ["--object-store-memory", str(6 * SIZE)]
    head = ends.start(
        [*near, *start, "--head", "--node-ip-address", NEAR, "--port", str(PORT), "--num-cpus", "1", *sizes], **homes[0]
    )
    token = next(word for word in _words(head) if word.startswith("NBRAY_TOKEN=")).partition("=")[2]
    joining = [*far, *start, "--address", f"{NEAR}:{PORT}", "--num-cpus", "1", "--resources", '{"far": 1}', *sizes]
    node = ends.start(joining, NBRAY_TOKEN=token, **homes[1])
    next(word for word in _words(node) if word == "Joined")
    driver = ends.start([*near, sys.executable, "-m", "benchmarks.across", "driver"], **homes[0])
    return _answer(driver)


def _bare(near: list[str], far: list[str], ends: _Ends) -> float:
    receiver = ends.start([*near, sys.executable, "-m", "benchmarks.across", "receive", NEAR, str(PORT)])
    key = next(_words(receiver))
    ends.start([*far, sys.executable, "-m", "benchmarks.across", "send", NEAR, str(PORT), key])
    return _answer(receiver)


def _words(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield from line.split()
    raise RuntimeError(f"{process.args!r} ended with code {process.wait()} before it said what was expected")


def _answer(process: subprocess.Popen[str]) -> float:
    for word in _words(process):
        if word.startswith("{"):
            return float(json.loads(word)["rate"])
    raise AssertionError("_words never ends without an error")


TRANSFER = Block(
    "transfer",
    "Between two hosts",
    (
        Row(
            "an array of 256 MiB made there, got here", "GB/s", transfer, target=0.8, baseline="the same CURVE streams, bare",
            standalone=True, timeout_s=90, most_pairs=3,
        ),
    ),
    peers=(),
)  # fmt: skip
