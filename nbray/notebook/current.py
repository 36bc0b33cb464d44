"""The notebook as nbray sees it: its shell, its cells and their tags, its jobs, and the engine that they run on.

One per loaded extension, kept by the shell itself. A *tag* names a cell: the id of its execute request; the jobs in it add a
number. Whatever the engine says about a tag finds its cell by it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Any

from nbray import connection, session
from nbray.engines.port import Engine
from nbray.notebook.inputs import InputStore
from nbray.notebook.interrupt import Heartbeat, Interrupts
from nbray.notebook.job import Job
from nbray.notebook.output import SEPARATOR, OutputRouter, to_kernel, to_terminal

JOBS_KEPT = 20  #: handles, and with them the outputs that nobody else holds


class Notebook:
    """What the magics share."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        kernel = getattr(shell, "kernel", None)
        self.router = OutputRouter(to_kernel(kernel) if kernel is not None else to_terminal)
        self.inputs = InputStore()
        self.interrupts = Interrupts()
        self.heartbeat = Heartbeat()
        self.jobs: deque[Job] = deque(maxlen=JOBS_KEPT)
        self.configured: dict[str, Any] = {}
        self.tag = ""
        self.job_tags: set[str] = set()  #: of the running cell, for which its prompt waits
        self.stopped_in = ""  #: the cell whose interrupt a job has dealt with already
        self._numbers = itertools.count(1)
        self._engine: Engine | None = None

    @property
    def namespace(self) -> dict[str, Any]:
        found: dict[str, Any] = self.shell.user_ns
        return found

    @property
    def label(self) -> str:
        # The history has the running cell as its last entry; `execution_count` is one ahead of it in some versions of IPython.
        return f"In[{len(self.shell.history_manager.input_hist_parsed) - 1}]"

    # -- cells

    def begin_cell(self) -> None:
        """A cell starts: what it submits from here on is its own."""
        self.heartbeat.begin()
        self.job_tags.clear()
        parent = self.parent_message()
        self.tag = str(parent["header"]["msg_id"]) if parent else f"cell-{next(self._numbers)}"
        self.router.begin(self.tag, parent)
        if self._engine is not None:
            self._engine.set_default_cell(self.tag)

    def parent_message(self) -> dict[str, Any] | None:
        """The execute request of the running cell; None outside a kernel."""
        ask = getattr(self.shell, "get_parent", None)
        parent = ask() if ask is not None else None
        return dict(parent) if parent and parent.get("header", {}).get("msg_id") else None

    def end_cell(self, error: BaseException | None) -> None:
        """A cell ends: its output is sent before the prompt; an interrupt cancels what it submitted."""
        self.heartbeat.end()
        engine = self._engine
        # The stop button ends an `await` with CancelledError.
        stopped = isinstance(error, KeyboardInterrupt | asyncio.CancelledError) and self.stopped_in != self.tag
        if engine is not None and stopped:
            # A stop may come between a job's first task and the wait for the job: then it is dealt with here.
            cancelled = self.interrupts.stopped(engine, [self.tag, *sorted(self.job_tags)])
            if cancelled:
                self.router.notice(self.tag, "cancelled", f"stopped; tasks of this cell cancelled: {cancelled}")
        self.router.flush(self.tag)

    def new_tag(self) -> str:
        """For a job in the running cell."""
        if not self.tag:
            self.begin_cell()
        tag = f"{self.tag}{SEPARATOR}{next(self._numbers)}"
        self.job_tags.add(tag)
        return tag

    # -- the engine

    def engine(self) -> Engine:
        """The engine; the first use starts a local cluster."""
        engine = connection.engine()
        self.attach(engine)
        return engine

    def attach(self, engine: Engine | None) -> None:
        """`engine` is the current one from now on. Called whenever it changes."""
        if engine is self._engine:
            return
        self._engine = engine
        self.interrupts.forget()
        self.router.count_tasks = (lambda tag: sum(engine.cell_counts(tag).values())) if engine is not None else (lambda _tag: 1)
        if engine is not None and engine.is_driver:
            engine.on_output(self.router.take)
            engine.on_notice(self.router.notice)
            engine.set_default_cell(self.tag)

    def open(self) -> None:
        session.watchers.append(self.attach)
        self.attach(session.engine)

    def close(self) -> None:
        """Leave nothing behind: output of tasks goes where it would without a notebook."""
        if self.attach in session.watchers:
            session.watchers.remove(self.attach)
        if self._engine is not None and self._engine is session.engine:
            self._engine.on_output(print_plainly)
            self._engine.on_notice(lambda _cell, _kind, text: print(f"nbray: {text}"))
            self._engine.set_default_cell("")
        self._engine = None
        self.heartbeat.end()
        self.router.close()


def print_plainly(event: Any) -> None:
    """Output of a task, where no notebook routes it."""
    for line in event.text.splitlines():
        print(f"({event.name} pid={event.pid}) {line}")
