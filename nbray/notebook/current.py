"""The notebook as nbray sees it: its shell, its cells and their tags, its jobs, and the engine that they run on.

One per loaded extension, kept by the shell itself. A *tag* names a cell: the id of its execute request; the jobs in it add a
number. Whatever the engine says about a tag finds its cell by it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from typing import Any

from nbray import connection, session
from nbray.cards.lineage import Lineage
from nbray.cards.widget import View
from nbray.engines.asking import ask_terminal
from nbray.engines.port import Engine, OutputEvent
from nbray.exceptions import SentToBackground
from nbray.notebook import background
from nbray.notebook.background import Left
from nbray.notebook.captured import Captures
from nbray.notebook.cards import APPEARS_AFTER_S, Card, Desk
from nbray.notebook.history import History
from nbray.notebook.holders import first_rows, held_objects, names_of_objects, release
from nbray.notebook.inputs import InputStore
from nbray.notebook.interrupt import Heartbeat, Interrupts
from nbray.notebook.job import Job
from nbray.notebook.output import SEPARATOR, OutputRouter, to_kernel, to_terminal
from nbray.notebook.profiles import Profiles
from nbray.notebook.prompting import Prompts
from nbray.notebook.sampling import MIME as PROFILE
from nbray.notebook.stream import Message

MOST_ROWS = 200  #: of objects on a card
JOBS_KEPT = 20  #: handles, and with them the outputs that nobody else holds


class Notebook:
    """What the magics share."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        kernel = getattr(shell, "kernel", None)
        self.router = OutputRouter(to_kernel(kernel) if kernel is not None else to_terminal)
        self.inputs = InputStore()
        self.prompts = None if kernel is None else Prompts(kernel, self.router)
        self.interrupts = Interrupts()
        self.heartbeat = Heartbeat()
        self.jobs: deque[Job] = deque(maxlen=JOBS_KEPT)
        self.left: deque[Left] = deque(maxlen=JOBS_KEPT)  #: by plain cells that were sent to the background
        self.latest: Job | Left | None = None
        self.sent = ""  #: the cell that was sent there last
        self.configured: dict[str, Any] = {}
        self.tag = ""
        self.failed_at = 0.0  #: when a cell last ended with an error, monotonic seconds
        self.job_tags: set[str] = set()  #: of the running cell, for which its prompt waits
        self.stopped_in = ""  #: the cell whose interrupt a job has dealt with already
        self.titles: dict[str, str] = {}  #: of jobs, for their cards
        self.cardless: set[str] = set()  #: jobs that asked for no card
        self.delays: dict[str, float] = {}  #: of jobs: seconds before their cards appear
        self.captures = Captures(shell)
        self.running = False  #: a cell is
        self._task: asyncio.Task[Any] | None = None  #: of the running cell, if it may await
        if kernel is not None:
            self.router.captures = self._captured
        self.profiles = Profiles()
        self.router.on_profile = self.profiles.take
        self.desk: Desk | None = None if kernel is None else Desk(self.router.show, self._view_of)
        if self.desk is not None:
            self.desk.wanted = self._wants_card
            self.desk.profiles = self.profiles
            self.desk.say = lambda tag, text: self.router.notice(tag, "waiting", text)
            self.desk.title = lambda tag: self.titles.get(tag) or self.label
            self.desk.delay = lambda tag: self.delays.get(tag, float(self.configured.get("progress_after", APPEARS_AFTER_S)))
        self.history = History(lambda: self.namespace, Lineage() if self.desk is None else self.desk.lineage)
        if self.desk is not None:  # which cards' pages ask for it too
            self.history.unfinished = self.desk.unfinished
            self.desk.lineage_of = self.history.graph
            self.desk.objects_of = self._objects
            self.desk.running = lambda: self.tag if self.running else ""
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

    def begin_cell(self, source: str = "") -> None:
        """A cell starts: what it submits from here on is its own."""
        self.heartbeat.begin()
        self.running = True
        self._task = background.own_task(self.shell)
        self.job_tags.clear()
        parent = self.parent_message()
        self.tag = str(parent["header"]["msg_id"]) if parent else f"cell-{next(self._numbers)}"
        self.router.begin(self.tag, parent)
        cell = str((parent or {}).get("metadata", {}).get("cellId") or "")
        self.history.begin_cell(f"In[{len(self.shell.history_manager.input_hist_parsed)}]", self.tag, cell, source)
        if self.prompts is not None:
            self.prompts.begin_cell(self.tag, parent)
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
        if self.prompts is not None:
            self.prompts.end_cell()
        engine, self._task = self._engine, None
        # The stop button ends an `await` with CancelledError.
        stopped = isinstance(error, KeyboardInterrupt | asyncio.CancelledError) and self.stopped_in != self.tag
        awaited = None if engine is None else engine.cell_ended()
        if engine is not None and error is not None and self.was_sent(error):
            self._leave(engine, error, awaited or [])
            stopped = False
        elif error is not None:
            self.failed_at = time.monotonic()
        if engine is not None and stopped:
            # A stop may come between a job's first task and the wait for the job: then it is dealt with here.
            cancelled = self.interrupts.stopped(engine, [self.tag, *sorted(self.job_tags)])
            if cancelled.tasks:
                self.router.notice(self.tag, "cancelled", f"stopped; of this cell, {cancelled}")
        self.history.end_cell(self.label)
        self.router.flush(self.tag)
        self.running = False
        if self.desk is not None:
            self.desk.end_cell(self.tag)

    def was_sent(self, error: BaseException) -> bool:
        """Whether `error` is how the running cell was told that it is in the background."""
        return isinstance(error, SentToBackground) or (self.sent == self.tag and isinstance(error, asyncio.CancelledError))

    def _leave(self, engine: Engine, error: BaseException, awaited: list[Any]) -> None:
        """Keep what the cell waited for, and say what goes on."""
        line = background.stopped_at(error.__traceback__, self.label)
        left = Left(engine, self.tag, self.label, line, background.waited_for(error, awaited))
        error.__traceback__ = None  # its frames hold what the cell's functions had
        if left.refs:
            self.left.append(left)
            self.latest = left
        self.router.notice(self.tag, "background", background.said(left))

    def new_tag(self, title: str, *, card: bool, after_s: float = APPEARS_AFTER_S) -> str:
        """For a job in the running cell, whose card appears after `after_s` seconds."""
        if not self.tag:
            self.begin_cell()
        tag = f"{self.tag}{SEPARATOR}{next(self._numbers)}"
        self.job_tags.add(tag)
        self.titles[tag] = title
        self.delays[tag] = after_s
        if not card:
            self.cardless.add(tag)
        return tag

    # -- cards

    def _captured(self, tag: str, message: Message) -> bool:
        return self.running and tag.partition(SEPARATOR)[0] == self.tag and self.captures.take(message)

    def _wants_card(self, tag: str) -> bool:
        if self.captures.active():
            return False  # it would be captured too, and shown when nothing is behind it any more
        return tag not in self.cardless if tag in self.titles else self.configured.get("view", "card") == "card"

    def _view_of(self, card: Card) -> Any:
        """The live view of a card, and what its page may ask for."""
        job = next((job for job in reversed(self.jobs) if job.tag == card.tag), None)
        commands: dict[str, Any] = {
            "resync": card.resync,
            "cancel": lambda force=False: self._cancel_card(card, force=force),
            "tasks": card.run.latest,
            "lineage": lambda whole=False, opened=(), shut=(): self.history.graph("" if whole else card.tag, opened, shut),
            "objects": lambda: self._objects(card),
            "release": lambda names: release(self.namespace, names, card.engine),
            "output": card.printed.told,
            "perfetto": card.chrome_trace,
            "plan": card.plan,
            "profile": card.profile_data,
        }
        if job is not None and not job.plan.options.background:
            card.can_background = True
            commands["background"] = lambda: self._put_in_background(card, job)
        elif SEPARATOR not in card.tag:
            card.can_background = True
            commands["background"] = lambda: self._send_to_background(card)
        return View(commands, card.snapshot(time.time_ns()))

    def _objects(self, card: Card) -> dict[str, Any]:
        return first_rows(held_objects(self.namespace, card.engine, self.history.stale), MOST_ROWS)

    def _cancel_card(self, card: Card, *, force: bool) -> int:
        return card.engine.cancel_cell(card.tag, force) if force else self.interrupts.stopped(card.engine, [card.tag]).tasks

    def _put_in_background(self, card: Card, job: Job) -> str:
        job.put_in_background()
        card.can_background = False
        return "now"

    def _send_to_background(self, card: Card) -> str:
        """End the wait of a plain cell, and of jobs in it. From a kernel's subshell. Returns "now" or "later": where its code
        waits for nothing of ours."""
        waits = card.engine.send_to_background(card.tag)
        self.sent, card.can_background = card.tag, False
        for job in [job for job in self.jobs if job.tag.startswith(card.tag + SEPARATOR)]:
            job.put_in_background()
        if (task := self._task) is not None:
            task.get_loop().call_soon_threadsafe(task.cancel)
            waits = True
        card.leaves_later = not waits
        return "now" if waits else "later"

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
            engine.on_output(self._output)
            engine.on_notice(self.notice)
            engine.on_names(lambda: names_of_objects(self.namespace))
            if self.prompts is not None:
                engine.on_input(self.prompts.ask)
            if self.desk is not None:
                self.desk.attach(engine)
            engine.set_default_cell(self.tag)
            if not self.running:
                engine.cell_ended()

    def _output(self, event: OutputEvent) -> None:
        """Under its cell, and onto its card. From the I/O thread."""
        self.router.take(event)
        if self.desk is not None and PROFILE not in (event.mime or ()):
            self.desk.take(event)

    def notice(self, tag: str, kind: str, text: str) -> None:
        """Why a cell waits goes onto its card, if it has one; all else under the cell."""
        if kind == "unhandled" and tag in self.titles:
            return  # of a job: its card or line says it, and its handle has it
        if kind == "waiting" and self.desk is not None and self.desk.notice(tag, text):
            return
        self.router.notice(tag, kind, text)

    def open(self) -> None:
        if self.prompts is not None:
            self.prompts.open()
        session.watchers.append(self.attach)
        self.attach(session.engine)

    def close(self) -> None:
        """Leave nothing behind: output of tasks goes where it would without a notebook."""
        if self.attach in session.watchers:
            session.watchers.remove(self.attach)
        if self._engine is not None and self._engine is session.engine:
            self._engine.on_output(print_plainly)
            self._engine.on_notice(lambda _cell, _kind, text: print(f"nbray: {text}"))
            self._engine.on_input(ask_terminal)
            self._engine.on_names(dict)
            self._engine.set_default_cell("")
            self._engine.on_new_cell(lambda _tag: False)
        self._engine = None
        self.heartbeat.end()
        if self.prompts is not None:
            self.prompts.close()
        if self.desk is not None:
            self.desk.close()
        self.router.close()


def print_plainly(event: Any) -> None:
    """Output of a task, where no notebook routes it."""
    for line in event.text.splitlines():
        print(f"({event.name} pid={event.pid}) {line}")
