"""A real kernel, driven as a front end drives it: what is asserted is what reaches the page, by the cell that it belongs to."""

from __future__ import annotations

import ast
import contextlib
import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

BOUND_S = float(os.environ.get("NBRAY_TEST_BOUND_S", "60"))  #: nothing that is waited for takes this long; it only bounds a failure
ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Cell:
    """What one execute request led to, in the order in which it arrived. Late messages are added when they come."""

    code: str
    stdout: str = ""
    stderr: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)  #: data of display_data
    updates: list[dict[str, Any]] = field(default_factory=list)  #: data of update_display_data
    result: dict[str, Any] | None = None  #: data of execute_result
    error: dict[str, Any] | None = None
    messages: int = 0  #: stream and display messages
    idle: bool = False
    reply: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    @property
    def notes(self) -> str:
        """nbray's own quiet lines."""
        said = [str(data.get("text/plain", "")) for data in self.displays]
        return "\n".join(text for text in said if text.startswith("nbray: "))

    @property
    def value(self) -> str | None:
        """What is shown as Out, as text."""
        return None if self.result is None else str(self.result["text/plain"])

    @property
    def traceback(self) -> str:
        return "" if self.error is None else "\n".join(self.error["traceback"])


class Kernel:
    """One kernel. `run` waits for a cell; `start` does not."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient, log: Path) -> None:
        self.manager, self.client, self.log = manager, client, log
        self.cells: dict[str, Cell] = {}
        self.replaced: dict[str, dict[str, Any]] = {}  #: by display id, what stands there now, whoever's message put it there
        self.comms: list[dict[str, Any]] = []  #: contents of comm_open, comm_msg and comm_close, each with its "type"

    def start(self, code: str) -> Cell:
        cell = Cell(code)
        self.cells[self.client.execute(code, store_history=True)] = cell
        return cell

    def run(self, code: str) -> Cell:
        """Run `code` and return when its reply and everything published before its end are here."""
        cell = self.start(code)
        self.until(lambda: cell.idle and cell.reply is not None, f"the end of {code!r}")
        return cell

    def ok(self, code: str) -> Cell:
        """Run `code`, which must succeed."""
        cell = self.run(code)
        assert cell.error is None, cell.traceback
        return cell

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Take in messages until `condition()` holds."""
        deadline = time.monotonic() + BOUND_S
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited {BOUND_S:g} s for {what}; so far: {list(self.cells.values())[-3:]}; the kernel's threads:\n{self.stacks()}"
            )
            assert self.manager.is_alive(), f"the kernel died while waiting for {what}"
            self._take(0.05)

    def eval(self, expression: str) -> Any:
        """The value of an expression in the kernel, which must have a literal repr."""
        value = self.ok(f"__import__('builtins').repr({expression})").value
        assert value is not None
        return ast.literal_eval(ast.literal_eval(value))

    def stacks(self) -> str:
        """Where every thread of the kernel is."""
        os.kill(self.manager.provisioner.pid, signal.SIGUSR1)
        time.sleep(1)
        return self.log.read_text(encoding="utf-8", errors="replace")[-8000:]

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def _take(self, timeout: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._published(self.client.get_iopub_msg(timeout=timeout))
        try:
            reply = self.client.get_shell_msg(timeout=0)
        except queue.Empty:
            return
        cell = self.cells.get(reply["parent_header"].get("msg_id", ""))
        if cell is not None and reply["msg_type"] == "execute_reply":
            cell.reply = reply["content"]

    def create_subshell(self) -> str:
        """A shell of the kernel beside the one that cells block, as JupyterLab asks for one for its comms."""
        request = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(request)
        reply = self.client.get_control_msg(timeout=BOUND_S)
        return str(reply["content"]["subshell_id"])

    def command(self, comm: str, subshell: str, name: str, **arguments: Any) -> dict[str, Any]:
        """What the page of a card does when a button is pressed; returns the answer."""
        number = len(self.comms)
        custom = {"method": "custom", "content": {"id": number, "command": name, "args": arguments}}
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": custom})
        message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)

        def answers() -> list[dict[str, Any]]:
            contents = [
                said["data"].get("content", {}) for said in self.comms if said["type"] == "comm_msg" and said["comm_id"] == comm
            ]
            return [content for content in contents if content.get("answer") == number]

        self.until(lambda: bool(answers()), f"the answer to {name}")
        return answers()[0]

    def _published(self, message: dict[str, Any]) -> None:
        if message["msg_type"].startswith("comm_"):
            self.comms.append({**message["content"], "type": message["msg_type"], "buffers": message.get("buffers", [])})
            return
        if message["msg_type"] == "update_display_data":
            self.replaced[message["content"]["transient"]["display_id"]] = message["content"]["data"]
        cell = self.cells.get(message["parent_header"].get("msg_id", ""))
        if cell is None:
            return
        kind, content = message["msg_type"], message["content"]
        if kind in {"stream", "display_data", "update_display_data"}:
            cell.messages += 1
        if kind == "stream":
            if content["name"] == "stdout":
                cell.stdout += content["text"]
            else:
                cell.stderr += content["text"]
        elif kind == "display_data":
            cell.displays.append(content["data"])
        elif kind == "update_display_data":
            cell.updates.append(content["data"])
        elif kind == "execute_result":
            cell.result = content["data"]
        elif kind == "error":
            cell.error = content
        elif kind == "status" and content["execution_state"] == "idle":
            cell.idle = True


@contextlib.contextmanager
def started(directory: Path, *before: Path) -> Iterator[Kernel]:
    """A kernel with nothing loaded; modules in `before` win over installed ones."""
    path = [str(ROOT), *map(str, before), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "IPYTHONDIR": str(directory / "ipython")}
    manager = KernelManager(kernel_name="python3")
    with open(directory / "kernel.log", "w", encoding="utf-8") as log:
        manager.start_kernel(cwd=str(directory), env=environment, stdout=log, stderr=log)
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=BOUND_S)
        found = Kernel(manager, client, directory / "kernel.log")
        found.ok("__import__('faulthandler').register(__import__('signal').SIGUSR1, file=__import__('sys').__stderr__)")
        yield found
        client.stop_channels()
        manager.shutdown_kernel(now=False)
        manager.cleanup_resources()


@pytest.fixture(scope="module")
def bare_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel with nothing loaded, one for each module."""
    with started(tmp_path_factory.mktemp("kernel")) as found:
        yield found


@pytest.fixture(scope="module")
def kernel(bare_kernel: Kernel) -> Kernel:
    """The same with the extension loaded, and a cluster of two CPUs."""
    bare_kernel.ok("%load_ext nbray")
    bare_kernel.ok("import nbray, time, os; nbray.init(num_cpus=2)")
    return bare_kernel
