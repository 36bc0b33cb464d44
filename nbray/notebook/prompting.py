"""The input prompt of a cell, for a task of it that stopped at `breakpoint()`.

The cell's own thread waits for the task, so the kernel's socket for input is used from another one: `_input_request` of the kernel
takes the same lock, and so code of the cell and a task of it ask one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import zmq
from IPython.core.error import StdinNotImplementedError

from nbray.notebook.output import SEPARATOR, OutputRouter
from nbray.wire.messages import InputWanted

POLL_MS = 50


class Prompts:
    """Asks the front end of the running cell."""

    def __init__(self, kernel: Any, router: OutputRouter) -> None:
        self._kernel, self._router = kernel, router
        self._lock = threading.Lock()
        self._cell: tuple[str, Any] | None = None  #: the running cell, and who sent it

    def open(self) -> None:
        original = self._kernel._input_request

        def one_at_a_time(*args: Any, **kwargs: Any) -> Any:
            if not self._lock.acquire(blocking=False):
                raise StdinNotImplementedError("a task of this cell asks for input at its breakpoint(); answer that first")
            try:
                return original(*args, **kwargs)
            finally:
                self._lock.release()

        self._kernel._input_request = one_at_a_time

    def close(self) -> None:
        self._kernel.__dict__.pop("_input_request", None)

    def begin_cell(self, tag: str, parent: dict[str, Any] | None) -> None:
        """From the cell's thread. Without `allow_stdin` in the request there is nobody to ask."""
        allowed = bool(parent and parent.get("content", {}).get("allow_stdin"))
        self._cell = (tag, _sender(self._kernel)) if allowed else None

    def end_cell(self) -> None:
        self._cell = None

    def ask(self, message: InputWanted, stands: Callable[[], bool]) -> str | None:
        """The line that was typed; None where the cell has ended, or its front end takes no input."""
        cell = self._cell
        if cell is None or message.cell.partition(SEPARATOR)[0] != cell[0]:
            return None
        self._router.flush(cell[0])  # what the debugger printed shows before its prompt
        kernel = self._kernel
        with self._lock:
            socket = kernel.stdin_socket
            while socket.poll(0):
                kernel.session.recv(socket, zmq.NOBLOCK)  # an answer to a question that was withdrawn
            content = {"prompt": f"{message.name} {message.prompt}", "password": False}
            kernel.session.send(socket, "input_request", content, self._router.parent(cell[0]), ident=cell[1])
            while stands() and self._cell is cell:
                if socket.poll(POLL_MS):
                    _, reply = kernel.session.recv(socket, zmq.NOBLOCK)
                    value = str(reply["content"]["value"]) if reply else ""
                    return None if value == "\x04" else value
        return None


def _sender(kernel: Any) -> Any:
    context = getattr(kernel, "_shell_parent_ident", None)
    if context is not None:  # ipykernel 7
        return kernel._get_shell_context_var(context)
    return kernel._parent_ident["shell"]
