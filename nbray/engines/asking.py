"""Tasks that stop at `breakpoint()` ask here for lines of input: one at a time, each in the notebook's or the terminal's way.

asked      the question waits for those before it        leaves by its turn, or by being withdrawn
open       somebody is asked                             leaves by a line, by nobody being there, or by being withdrawn
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from nbray.ids import Address
from nbray.wire.messages import InputGiven, InputWanted, Message

#: Given the question and whether it still stands: the line, or None where nobody can be asked.
Ask = Callable[[InputWanted, Callable[[], bool]], str | None]


class Asking:
    """One driver's questions. `take` is called from the I/O thread and never waits."""

    def __init__(self, post: Callable[[Address, Message], None]) -> None:
        self._post = post
        self.ask: Ask = ask_terminal
        self._turn = threading.Lock()
        self._standing: set[tuple[bytes, int]] = set()

    def take(self, message: Message) -> None:
        if not isinstance(message, InputWanted):
            return
        key = (message.worker.process, message.number)
        if message.withdrawn:
            self._standing.discard(key)
            return
        self._standing.add(key)
        threading.Thread(target=self._answer, args=(message, key), name="nbray-input", daemon=True).start()

    def _answer(self, message: InputWanted, key: tuple[bytes, int]) -> None:
        with self._turn:
            text = None
            try:
                if key in self._standing:
                    text = self.ask(message, lambda: key in self._standing)
            finally:
                stands = key in self._standing
                self._standing.discard(key)
                if stands:
                    self._post(message.worker, InputGiven(message.number, text))


def ask_terminal(message: InputWanted, _stands: Callable[[], bool]) -> str | None:
    """A script's terminal, if it has one."""
    if not (sys.stdin and sys.stdin.isatty()):
        return None
    try:
        return input(f"({message.name}) {message.prompt}")
    except EOFError:
        return None
