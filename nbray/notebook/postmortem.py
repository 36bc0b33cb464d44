"""The prompt of `%nbray debug`: the standard library's debugger over the frames of a snapshot, long after the task has ended.

pdb asks little of a frame that only is looked at: its code's name and file, its line, its locals and globals. Those are made
here from what travelled. What would run the task on is refused in words.
"""

from __future__ import annotations

import builtins
import pickle
from collections.abc import Iterable
from typing import Any

from IPython.core.debugger import OldPdb  # a kernel replaces `pdb.Pdb` by IPython's, which looks at real frames
from IPython.core.error import StdinNotImplementedError

from nbray.wire.snapshots import Frame, Snapshot, Value

#: Commands of pdb that need a program that runs.
RUNNING = frozenset(
    {
        *("s", "step", "n", "next", "c", "cont", "continue", "r", "return", "unt", "until", "j", "jump", "run", "restart", "debug"),
        *("b", "break", "tbreak", "cl", "clear", "commands", "condition", "ignore", "enable", "disable"),
    }
)


class NotTaken:
    """Stands for a value that stayed in the worker: shown as it was shown there."""

    def __init__(self, value: Value, why: str) -> None:
        self.__dict__.update(value.facts, _value=value, _why=why)

    def __repr__(self) -> str:
        return str(self._value.text)

    def __len__(self) -> int:
        if "len" not in self._value.facts:
            raise TypeError(f"{self._value.name} is not here, only its repr: {self._why}")
        return int(self._value.facts["len"])

    def __getattr__(self, name: str) -> Any:
        value = self.__dict__.get("_value")
        if value is None or name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"{value.name} ({value.type_name}) is not here, only its repr: {self._why}", name=name, obj=None)


def loaded(value: Value) -> Any:
    """The value, or what stands for it."""
    if not value.pickle:
        return NotTaken(value, value.why)
    try:
        return pickle.loads(value.pickle)  # noqa: S301 -- a variable of the user's own task
    except Exception as error:  # noqa: BLE001 -- user code runs in here; its module may not exist here
        return NotTaken(value, f"it does not load here ({type(error).__name__}: {error})")


class _Code:
    def __init__(self, frame: Frame) -> None:
        self.co_filename, self.co_name, self.co_firstlineno = frame.filename, frame.function, frame.first
        self.co_qualname, self.co_argcount, self.co_flags, self.co_varnames = frame.function, 0, 0, ()


class SeenFrame:
    """As much of a frame as pdb looks at."""

    f_back = f_trace = None

    def __init__(self, frame: Frame) -> None:
        self.taken, self.f_code, self.f_lineno = frame, _Code(frame), frame.line
        self._namespaces: tuple[dict[str, Any], dict[str, Any]] | None = None

    def _loaded(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if self._namespaces is None:
            found = {value.name: loaded(value) for value in self.taken.locals}
            outer = {value.name: loaded(value) for value in self.taken.globals}
            # Comprehensions and lambdas of an expression find free names among the globals only.
            self._namespaces = found, {**outer, **found, "__builtins__": builtins}
        return self._namespaces

    @property
    def f_locals(self) -> dict[str, Any]:
        return self._loaded()[0]

    @property
    def f_globals(self) -> dict[str, Any]:
        return self._loaded()[1]

    def source(self, line: int) -> str:
        at = line - self.taken.first
        return self.taken.lines[at] if 0 <= at < len(self.taken.lines) else ""


class SnapshotPdb(OldPdb):  # type: ignore[misc]
    """pdb's commands for looking: up, down, where, list, p, pp, locals, whatis, any expression, quit."""

    def __init__(self, snapshot: Snapshot, again: str) -> None:
        """`again` is what to write to have the task run here."""
        super().__init__(readrc=False, nosigint=True)
        self.prompt = "(nbray) "
        self.snapshot, self.again = snapshot, again

    def setup(self, f: Any, tb: Any) -> None:
        """As pdb's own, from the snapshot rather than from a traceback."""
        del f, tb
        self.forget()
        frames = [SeenFrame(frame) for frame in self.snapshot.frames]
        self.stack: Any = [(frame, frame.f_lineno) for frame in frames]
        self.curindex = len(frames) - 1
        self.curframe: Any = frames[-1]
        self.curframe_locals = frames[-1].f_locals

    def look(self, commands: Iterable[str] | None = None) -> None:
        """Carry out `commands`; without any, ask for them at a prompt."""
        self.reset()
        self.setup(None, None)
        if commands is not None:
            self.cmdqueue += [*commands, "quit"]
        else:
            self.print_stack_entry(self.stack[self.curindex])
        try:
            self.cmdloop()
        except StdinNotImplementedError:
            self.do_where("")
            self.do_locals("")
            self.message('This front end takes no input. Say what to do in the line: %nbray debug -c "up" -c "p x"')
        except KeyboardInterrupt:
            self.message("left the debugger")

    # -- how it is shown

    def print_stack_entry(self, frame_lineno: Any, prompt_prefix: str = "\n-> ") -> None:
        """As pdb's own, with the source that travelled: the file may not exist here, or be another."""
        frame, line = frame_lineno
        source = frame.source(line).strip()
        where = f"{frame.f_code.co_filename}({line}){frame.f_code.co_name}()"
        self.message(("> " if frame is self.curframe else "  ") + where + (f"{prompt_prefix}{source}" if source else ""))

    def do_where(self, arg: str) -> None:
        """w(here): the frames, outermost first; the arrow is at the one that is looked at."""
        if self.snapshot.left_out:
            self.message(f"... {self.snapshot.left_out} frames further out were not taken along")
        for frame_lineno in self.stack:
            self.print_stack_entry(frame_lineno)

    do_w = do_bt = do_where

    def do_list(self, arg: str) -> None:
        """l(ist): the source around the frame's line."""
        frame = self.curframe
        if not frame.taken.lines:
            self.error(f"the source of {frame.f_code.co_filename} was not found in the worker")
        for number, text in enumerate(frame.taken.lines, start=frame.taken.first):
            self.message(f"{number:4d} {'->' if number == frame.f_lineno else '  '} {text}".rstrip())

    do_l = do_ll = do_longlist = do_list

    def do_locals(self, arg: str) -> None:
        """locals: the frame's variables as they were shown in the worker, whether or not they travelled."""
        taken = self.curframe.taken
        for value in taken.locals:
            self.message(f"{value.name} = {value.text}" + (f"    [repr only: {value.why}]" if value.why else ""))
        if not taken.locals:
            self.message("no variables")
        if taken.left_out:
            self.message(f"... {taken.left_out} more were not taken along")

    do_a = do_args = do_locals

    def onecmd(self, line: str) -> bool:
        """Refuse what would run the task on, unless the frame has a variable of that name to look at."""
        word = self.parseline(line)[0]
        if word in RUNNING and line.strip() == word and word in self.curframe_locals:
            line = f"p {word}"
        elif word in RUNNING:
            self.error(f"{word}: the task has ended, there is nothing to run on; {self.again} runs it here, step by step")
            return False
        return bool(super().onecmd(line))
