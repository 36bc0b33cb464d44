"""`breakpoint()` inside a task: pdb here, its prompt where the task was submitted. A worker has no terminal.

What pdb prints is the task's output; each line it reads is an InputWanted to the driver, answered by an InputGiven. A driver with
nobody to ask answers so at once, and the task goes on. A cancelled task stops waiting as it stops anything else.
"""

from __future__ import annotations

import itertools
import pdb  # noqa: T100 -- this is the debugger
import queue
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from nbray.exceptions import PACKAGE_DIRECTORY
from nbray.ids import Address
from nbray.wire.messages import InputGiven, InputWanted, Message
from nbray.worker.output import Source

PROMPT = "(nbray) "


class Breakpoints:
    """This worker's questions to drivers. `answered` is called from the I/O thread, the rest from whichever thread stops."""

    def __init__(self, post: Callable[[Address, Message], None], source: Callable[[], Source], me: Callable[[], Address]) -> None:
        self._post, self._source, self._me = post, source, me
        self.flush: Callable[[], None] = lambda: None  #: what was printed leaves before the question does
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[str | None]] = {}

    def install(self) -> None:
        sys.breakpointhook = self.stop

    def stop(self, *_args: Any, **_kwargs: Any) -> None:
        """What `breakpoint()` calls: stop at the caller's next line."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE_DIRECTORY):
            frame = frame.f_back  # nbray.util.rpdb.set_trace
        _TaskPdb(self).set_trace(frame)

    def answered(self, message: InputGiven) -> None:
        waiting = self._waiting.get(message.number)
        if waiting is not None:
            waiting.put(message.text)

    def ask(self) -> str | None:
        """A line that a person typed, or None where there is nobody to type one. Raises KeyboardInterrupt when cancelled."""
        source, number = self._source(), next(self._numbers)
        answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._waiting[number] = answer
        self.flush()
        asked = InputWanted(source.cell, source.task, source.name, self._me(), number, PROMPT)
        self._post(source.driver, asked)
        try:
            return answer.get()
        except BaseException:
            self._post(source.driver, InputWanted(source.cell, source.task, source.name, self._me(), number, "", withdrawn=True))
            raise
        finally:
            del self._waiting[number]


class _TaskPdb(pdb.Pdb):
    """Ends with the task: stepping out of the user's code is continuing."""

    def __init__(self, breakpoints: Breakpoints) -> None:
        super().__init__(stdin=self, stdout=sys.stdout, skip=["nbray", "nbray.*"], nosigint=True, readrc=False)  # type: ignore[arg-type]
        self.prompt = ""  # it is part of the question
        self._breakpoints = breakpoints
        self._outermost: FrameType | None = None

    def set_trace(self, frame: FrameType | None = None) -> None:
        outermost = frame
        while outermost and outermost.f_back and not outermost.f_back.f_code.co_filename.startswith(PACKAGE_DIRECTORY):
            outermost = outermost.f_back
        self._outermost = outermost
        super().set_trace(frame)

    def dispatch_return(self, frame: FrameType, arg: Any) -> Any:
        if frame is self._outermost:
            self.clear_all_breaks()
            self.set_continue()
            return None
        return super().dispatch_return(frame, arg)

    def readline(self) -> str:
        """As a file's: pdb reads its commands from itself."""
        line = self._breakpoints.ask()
        if line is None:
            print("breakpoint(): nobody can be asked for input here, so the task goes on", file=sys.stderr)
            self.clear_all_breaks()
            return "continue\n"
        return line.rstrip("\n") + "\n"

    def _cmdloop(self) -> None:
        self.cmdloop()  # KeyboardInterrupt is the task's cancellation: pdb's own would go on asking
