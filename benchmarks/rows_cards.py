"""A card that is open while its cell runs very many tasks: what it costs the cell, and how soon it answers a click."""

from __future__ import annotations

import functools
import os
import queue
import statistics
import tempfile
import time
from typing import Any

from benchmarks.rows_notebook import BOUND_S, Kernel
from nbray.microbenchmark.row import Block, Row

#: NBRAY_BENCH_TASKS makes it smaller, to see that it works.
TASKS = int(os.environ.get("NBRAY_BENCH_TASKS", "100000"))
WIDGET = "application/vnd.jupyter.widget-view+json"
CLICK_EVERY_S = 0.2

PREPARED = """
import threading, time, nbray
@nbray.remote
def noop():
    return None
def cards_cpu():
    found = [thread for thread in threading.enumerate() if thread.name == "nbray-cards"]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(thread.ident)) for thread in found)
nbray.get([noop.remote() for _ in range(1000)])
"""
CELL = f"""
cpu, began = cards_cpu(), time.perf_counter()
refs = [noop.remote() for _ in range({TASKS})]
ready, rest = nbray.wait(refs, num_returns=len(refs), fetch_local=False)
took, cpu = time.perf_counter() - began, cards_cpu() - cpu
del refs, ready
"""


class Page(Kernel):
    """A front end with the card in view: it takes what the kernel publishes, and clicks."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.answered_s: list[float] = []
        self._model = ""
        self._clicked: tuple[int, float] | None = None
        self._clicks = 0
        client = self._client
        client.control_channel.send(client.session.msg("create_subshell_request", {}))
        self._subshell = client.get_control_msg(timeout=BOUND_S)["content"]["subshell_id"]

    def watch(self, code: str) -> None:
        """Run a cell, and click on its card again and again while it runs."""
        running = self._client.execute(code)
        until, clicked_at = time.monotonic() + 3 * BOUND_S, 0.0
        idle = False
        while not idle:
            if time.monotonic() > until:
                raise TimeoutError(f"the cell of {TASKS:,} tasks has not ended within {3 * BOUND_S:.0f} s")
            try:
                message = self._client.get_iopub_msg(timeout=0.02)
            except queue.Empty:
                message = {"msg_type": "", "content": {}, "parent_header": {}}
            self._take(message)
            mine = message["parent_header"].get("msg_id") == running
            idle = mine and message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
            if self._model and self._clicked is None and time.monotonic() > clicked_at + CLICK_EVERY_S:
                clicked_at = time.monotonic()
                self._click("objects")

    def _take(self, message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "display_data" and WIDGET in content["data"]:
            self._model = content["data"][WIDGET]["model_id"]
        elif message["msg_type"] == "comm_msg" and content["comm_id"] == self._model and self._clicked is not None:
            number, at = self._clicked
            if content["data"].get("content", {}).get("answer") == number:
                self.answered_s.append(time.perf_counter() - at)
                self._clicked = None

    def _click(self, command: str) -> None:
        self._clicks += 1
        self._clicked = self._clicks, time.perf_counter()
        custom = {"method": "custom", "content": {"id": self._clicks, "command": command, "args": {}}}
        message = self._client.session.msg("comm_msg", {"comm_id": self._model, "data": custom})
        message["header"]["subshell_id"] = self._subshell
        self._client.shell_channel.send(message)


@functools.cache
def _watched(_turn: int = os.getpid()) -> dict[str, float]:
    """Both rows are of one run."""
    with tempfile.TemporaryDirectory() as directory:
        page = Page(directory)
        try:
            page.run(PREPARED)
            page.watch(CELL)
            if not page.answered_s:
                raise RuntimeError(f"a cell of {TASKS:,} tasks was over before its card could be clicked on")
            took_s, cpu_s = page.value("took"), page.value("cpu")
        finally:
            page.close()
    return {"share": 100 * cpu_s / took_s, "ms": statistics.median(page.answered_s) * 1000}


def share(peer: Any, seconds: float) -> float:
    """CPU of the thread that draws cards, in the notebook's process, over the time of the cell, in percent."""
    return _watched()["share"]


def click(peer: Any, seconds: float) -> float:
    """From a click to its answer while the cell runs; the median of all clicks of one run, in ms."""
    return _watched()["ms"]


CARDS = Block(
    "cards",
    "Cards",
    (
        Row(
            "a card on a cell of 100,000 tasks: its share of the run", "%", share,
            more_is_better=False, limit=5, standalone=True, timeout_s=240, most_pairs=3,
        ),
        Row(
            "a click on that card while the cell runs, answered after", "ms", click,
            more_is_better=False, limit=200, standalone=True, timeout_s=240, most_pairs=3,
        ),
    ),
    peers=(),
)  # fmt: skip
