"""A real kernel, driven as a front end drives it."""

from __future__ import annotations

import ast
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

from nbray.microbenchmark.row import Block, Row, seconds_of

ROOT = Path(__file__).resolve().parents[1]
BOUND_S = 60.0
CELLS = 20
TASKS = 10_000

#: Tasks that wait for a gate, so that submitting them is over when they begin. The gate opens after `delay` s.
BACKGROUND = f"""
import threading, time, nbray
@nbray.remote(num_cpus=0)
def gate(at):
    time.sleep(max(0, at - time.time()))
    return time.time()
@nbray.remote
def noop(opened):
    return opened
def throughput(computes):
    opened = gate.remote(time.time() + 2.0)
    refs = [noop.remote(opened) for _ in range({TASKS})]
    done, ended = threading.Event(), []
    def collect():
        nbray.wait(refs, num_returns=len(refs), fetch_local=False)
        ended.append(time.time())
        done.set()
    threading.Thread(target=collect).start()
    total = 0
    if computes:
        while not done.is_set():
            total += sum(i * i for i in range(100))
    else:
        done.wait()
    return len(refs) / (ended[0] - nbray.get(opened))
"""


class Kernel:
    """A kernel with the extension loaded and a cluster of as many CPUs as there are."""

    def __init__(self, directory: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "IPYTHONDIR": f"{directory}/ipython",
        }
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(cwd=directory, env=environment)
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=BOUND_S)
        self.run("%load_ext nbray\nimport nbray; nbray.init()")

    def run(self, code: str) -> None:
        """Run a cell up to its reply and the message that the kernel is idle again. Raises RuntimeError with its error."""
        reply = self._client.execute_interactive(code, timeout=BOUND_S, output_hook=lambda _message: None)
        self._raise(reply)

    def value(self, expression: str) -> Any:
        """The value of an expression with a literal repr."""
        reply = self._client.execute_interactive(
            "", timeout=BOUND_S, user_expressions={"value": expression}, output_hook=lambda _message: None
        )
        self._raise(reply)
        answer = reply["content"]["user_expressions"]["value"]
        if answer["status"] != "ok":
            raise RuntimeError(f"{answer['ename']}: {answer['evalue']}")
        return ast.literal_eval(answer["data"]["text/plain"])

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=False)
        self._manager.cleanup_resources()

    def _raise(self, reply: dict[str, Any]) -> None:
        content = reply["content"]
        if content["status"] != "ok":
            raise RuntimeError(f"{content['ename']}: {content['evalue']}")


@contextlib.contextmanager
def _kernel() -> Iterator[Kernel]:
    with tempfile.TemporaryDirectory() as directory:
        kernel = Kernel(directory)
        try:
            yield kernel
        finally:
            kernel.close()


def cell_overhead(peer: Any, seconds: float) -> float:
    """Median of `%%remote` cells minus median of the same cell run in the notebook, in turns, in ms, to the idle message."""
    body = "y = sum(range(x))\ny"
    local, remote = [], []
    with _kernel() as kernel:
        kernel.run("x = 1000")
        for _ in range(3):
            kernel.run(f"%%remote\n{body}")
        for _ in range(CELLS):
            local.append(seconds_of(lambda: kernel.run(body)))
            remote.append(seconds_of(lambda: kernel.run(f"%%remote\n{body}")))
            time.sleep(0.02)  # a person's pause: what the last cell left to be sent later is no part of the next
    return (statistics.median(remote) - statistics.median(local)) * 1000


def background(peer: Any, seconds: float) -> dict[str, float]:
    with _kernel() as kernel:
        kernel.run(BACKGROUND)
        kernel.run("throughput(False)")
        return {"baseline": kernel.value("throughput(False)"), "nbray": kernel.value("throughput(True)")}


NOTEBOOK = Block(
    "notebook",
    "In a notebook",
    (
        Row(
            "a `%%remote` cell over the same cell run locally", "ms", cell_overhead,
            more_is_better=False, limit=15, standalone=True, timeout_s=90, most_pairs=3,
        ),
        Row(
            "background no-ops while the notebook's thread computes in Python", "/s", background,
            target=0.5, baseline="the notebook idle", standalone=True, timeout_s=90, most_pairs=3,
        ),
    ),
    peers=(),
)  # fmt: skip
