"""Cards under cells: which cells get one, when it appears, how often it is drawn, what it leaves behind.

    submitted --0.3 s--> live (a widget, drawn at most 4 times a second) --last task ended--> static (text, HTML, JSON)

A cell that ends sooner shows no card. One thread serves all cards; it sleeps unless some run is live. What is static has no
widget behind it: it survives the kernel, and a saved notebook shows it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nbray.cards import page, words
from nbray.cards.flame import Flame
from nbray.cards.lanes import lanes
from nbray.cards.lineage import Group, Lineage, Unfinished
from nbray.cards.printed import Printed
from nbray.cards.run import Run
from nbray.cards.saved import MIME, Extras, bundle, kept_lineage
from nbray.engines.cells import OTHERS
from nbray.engines.port import Engine, OutputEvent, UnfinishedTask
from nbray.notebook.output import SEPARATOR
from nbray.notebook.profiles import Profiles
from nbray.notebook.stream import Message
from nbray.trace import chrome_events

if TYPE_CHECKING:
    from nbray.planning import Forecast, Graph

APPEARS_AFTER_S = 0.3
PERIOD_S = 0.25
SEEN_WITHIN_S = 1.0  #: a page that draws cards has drawn a new one by then
SENT_SPANS = 20_000  #: in one message
PLANNABLE = 20  #: cells whose graphs are kept for %nbray plan

Show = Callable[[str, Message], None]


class Card:
    """One run and where it is drawn. The desk's thread, the page's commands and the cell that ends use it: hence the lock."""

    def __init__(self, tag: str, run: Run, engine: Engine, show: Show, lineage: Lineage, *, silent: bool = False) -> None:
        """`silent`: it takes in what its cell does, for the lineage and for plans, and is not shown."""
        self.tag, self.run, self.engine, self.silent = tag, run, engine, silent
        self._desk_lineage = lineage
        self._extras = Extras()
        self.printed = Printed()
        self.shown = False  #: a display with our id is in the page
        self.seen = False  #: a page draws it live
        self.over = False
        self.after_s = APPEARS_AFTER_S
        self.profiles: Profiles | None = None  #: where --profile's pictures are
        self.profile: Flame | None = None  #: of all tasks, once the run is over
        self.can_background = False
        self.unsaid = ""  #: why nothing moves, until a page draws the card, or it is said under the cell
        self.leaves_later = False  #: it was sent to the background, and its code waits for nothing yet
        self.holds = True  #: the cell's code still runs, and may submit more
        self.ends_as = ""  #: the state that its job has given it, while tasks of its tasks go on
        self.quiet = 0  #: how often in turn there was nothing new
        self._show = show
        self._lock = threading.RLock()
        self._view: Any = None
        self._number = 0
        self._sent = 0
        self._last: dict[str, Any] = {}
        self._graph: Graph | None = None

    @property
    def display_id(self) -> str:
        return f"nbray-{self.tag}"

    def refresh(self, now_ns: int) -> None:
        """Take in what is new."""
        with self._lock:
            if not self.over:
                progress = self.engine.cell_progress(self.tag)
                self.quiet = 0 if progress.records or progress.names != self.run.names else self.quiet + 1
                self.run.take(progress, now_ns)
                self._desk_lineage.add(self.run.title, progress.records, self.tag.partition(SEPARATOR)[0])

    @property
    def settled(self) -> bool:
        """Whether nothing is left. What workers say of the tasks that tasks submitted may be a moment behind the last result."""
        return not self.run.unfinished and (not self.run.nested or self.quiet > 0)

    def appear(self, make_view: Callable[[Card], Any]) -> None:
        """Put the live card under its cell."""
        with self._lock:
            if self.shown or self.over or self.silent:
                return
            self.shown = True
            self._view = make_view(self)  # before the page can ask it anything
            if self._view is None:
                self._display("display_data", self._static(time.time_ns()))
                return
            data = self._still(self.run.snapshot(time.time_ns()))
            data["application/vnd.jupyter.widget-view+json"] = {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self._view.model_id,
            }
            self._display("display_data", data)

    def draw(self, now_ns: int) -> None:
        """Send what changed since the last time."""
        with self._lock:
            if self._view is None or self.over:
                return
            snapshot = self.snapshot(now_ns)
            last = min(len(self.run.spans), self._sent + SENT_SPANS)
            if last == self._sent and _same(snapshot, self._last):
                return
            self._last = snapshot
            self._send(snapshot, self._sent, last)

    def resync(self) -> None:
        """The page has missed something, or is new: everything again."""
        self.seen = True
        with self._lock:
            if self._view is None or self.over:
                return
            self._last = self.snapshot(time.time_ns())
            self._send(self._last, 0, min(len(self.run.spans), SENT_SPANS))

    def part(self, first: int, most: int) -> tuple[dict[str, Any], bytes]:
        """The run now, and up to `most` of its spans from `first` on."""
        with self._lock:
            return self.run.snapshot(time.time_ns()), self.run.spans.packed(first, min(len(self.run.spans), first + most))

    def chrome_trace(self) -> list[dict[str, Any]]:
        """What ran, in Chrome's trace format, which Perfetto opens."""
        return chrome_events([record for record in self.engine.trace() if record["cell"] == self.tag])

    def bundle(self) -> dict[str, Any]:
        """The card as it is now, in every form that needs no kernel."""
        with self._lock:
            self.refresh(now := time.time_ns())
            data = self._static(now)
            data["text/plain"] = "\n".join([data["text/plain"], *lanes(self.run.spans)])
            return data

    def graph(self) -> Graph:
        """The tasks that have ended, for a forecast."""
        with self._lock:
            if self._graph is not None:
                return self._graph
            records = self.run.records.copy()
        from nbray.planning import MOST_TASKS, folded, graph_of

        graph = folded(graph_of(records), MOST_TASKS)
        with self._lock:
            if self.over and self._graph is None:
                self._graph, self.run.records = graph, []
        return graph

    def profile_data(self) -> dict[str, Any] | None:
        """The flame graph so far, for the page."""
        seen = None if self.profiles is None else self.profiles.of(self.tag)
        return None if seen is None else seen.to_data()

    def plan(self) -> dict[str, Any]:
        """What the cell would take elsewhere. Raises ValueError while no task has ended."""
        from nbray.planning import grid

        return self._extras.plan or grid(self.graph())

    def forecast(self, cores: Sequence[int] | None, nodes: int) -> Forecast:
        """The same for any cluster. Raises ValueError where `plan` does, and for numbers that no cluster has."""
        from nbray.planning import CORES, forecast

        return forecast(self.graph(), cores or CORES, nodes)

    def keep_rest(self, lineage: dict[str, Any], objects: dict[str, Any] | None) -> None:
        """The run is over: its lineage, what the notebook's names hold now, and its forecast join what stays in the page."""
        if not self.shown:
            return
        around = self.tag.partition(SEPARATOR)[0]
        self._extras = Extras(
            lambda most: kept_lineage(lineage, most, around), objects, self.plan() if self.graph().tasks else None
        )
        self._display("update_display_data", self._static(time.time_ns()))

    def _send(self, snapshot: dict[str, Any], first: int, last: int) -> None:
        self._number += 1
        message = {"number": self._number, "snapshot": snapshot, "first": first, "last": last}
        self._view.send(message, [self.run.spans.packed(first, last)])
        self._sent = last

    def finish(self, now_ns: int, state: str = "") -> None:
        """Nothing is left: what is shown becomes static."""
        with self._lock:
            if self.over:
                return
            self.refresh(now_ns)
            self.run.end(now_ns, state)
            self.profile = None if self.profiles is None else self.profiles.of(self.tag)
            self.over = True
            self.engine.forget_cell(self.tag)
            view, self._view = self._view, None
            if self.shown:
                self._display("update_display_data", self._static(now_ns))
            elif self.profile is not None or not self.after_s:  # asked for, however short the run was
                self.shown = True
                self._display("display_data", self._static(now_ns))
            if view is not None:
                view.close()

    def snapshot(self, now_ns: int) -> dict[str, Any]:
        """Everything but the spans, for the page."""
        return {
            **self.run.snapshot(now_ns),
            "printed": self.printed.lines,
            "can_background": self.can_background and self.holds,
            "leaves_later": self.leaves_later and self.holds,
            "profiled": 0 if self.profiles is None else self.profiles.count(self.tag),
        }

    def _still(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        plan = self._extras.plan
        return {
            "text/plain": words.text(snapshot, plan, self.profile),
            "text/html": page.page(snapshot, self.run.spans, plan, self.profile),
        }

    def _static(self, now_ns: int) -> dict[str, Any]:
        snapshot = self.run.snapshot(now_ns)
        return {**self._still(snapshot), MIME: bundle(self.run, snapshot, self.printed, self.profile, self._extras)}

    def _display(self, kind: str, data: dict[str, Any]) -> None:
        self._show(self.tag, Message(kind, {"data": data, "metadata": {}, "transient": {"display_id": self.display_id}}))


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether nothing but the clock differs, and by less than a second."""
    changing = {"elapsed_s", "left_s", "speed_up"}
    if not other or int(one["elapsed_s"]) != int(other["elapsed_s"]):
        return False
    return {k: v for k, v in one.items() if k not in changing} == {k: v for k, v in other.items() if k not in changing}


class Desk:
    """All cards of a notebook."""

    def __init__(self, show: Show, make_view: Callable[[Card], Any]) -> None:
        self._show, self._make_view = show, make_view
        self.wanted: Callable[[str], bool] = lambda _tag: True  #: whether a cell is to have a card
        self.title: Callable[[str], str] = lambda tag: tag
        self.items: dict[str, int] = {}  #: of jobs whose tasks have several each, by tag
        self.say: Callable[[str, str], None] = lambda _tag, _text: None  #: why a cell waits, under the cell
        self.delay: Callable[[str], float] = lambda _tag: APPEARS_AFTER_S  #: seconds before a cell's card appears
        self.profiles: Profiles | None = None
        self.lineage_of: Callable[[str], dict[str, Any]] = lambda _tag: {"nodes": [], "edges": []}  #: around a cell or job
        self.objects_of: Callable[[Card], dict[str, Any] | None] = lambda _card: None  #: what the notebook's names hold
        self.running: Callable[[], str] = str  #: the tag of the cell whose code runs
        self.cards: dict[str, Card] = {}  #: live ones, by tag
        self.lineage = Lineage()
        self.ended: dict[str, Card] = {}  #: the latest PLANNABLE, by title
        self._unplanned: deque[Card] = deque()
        self._planning = False
        self._engine: Engine | None = None
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def attach(self, engine: Engine | None) -> None:
        self._engine = engine
        if engine is not None:
            engine.on_new_cell(self._first_task)

    def _first_task(self, tag: str) -> bool:
        """In the thread that submits, before the task leaves."""
        engine = self._engine
        if engine is None or self._closed or not tag:
            return False
        # What was packed for its first task is a part of the run.
        begun_ns = time.time_ns() - round(engine.cell_progress(tag).packing_s * 1e9)
        run, silent = Run(self.title(tag), begun_ns), not self.wanted(tag)
        run.items = self.items.pop(tag, 0)
        with self._wake:
            card = self.cards[tag] = Card(tag, run, engine, self._show, self.lineage, silent=silent)
            card.after_s, card.profiles = self.delay(tag), self.profiles
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="nbray-cards", daemon=True)
                self._thread.start()
            self._wake.notify()
        return True

    def notice(self, tag: str, text: str) -> bool:
        """Why nothing moves. Whether the card says it, or will see to it that it is said."""
        card = self.cards.get(tag)
        if card is None:
            return False
        card.run.notice = text
        if card.silent or self._closed:
            return False
        if not card.seen:
            card.unsaid = text
        return True

    def take(self, event: OutputEvent) -> None:
        """A task printed or displayed something. From the I/O thread."""
        card = self.cards.get(event.cell)
        if card is None:
            return
        if event.mime is not None:
            card.printed.add(event.name or "task", event.task, "display", f"{', '.join(event.mime)}\n")
        if event.text or event.dropped:
            card.printed.add(event.name, event.task, event.stream, event.text, event.dropped)

    def end_cell(self, tag: str) -> None:
        """The cell's code has ended: before its prompt returns, what is finished becomes static."""
        card = self.cards.get(tag)
        if card is not None:
            card.holds = False
            card.refresh(time.time_ns())
            if card.settled:
                self.finish(tag)
        with self._wake:
            self._wake.notify()

    def appear(self, tag: str) -> None:
        """Show the card now: its cell does not wait for it."""
        if (card := self.cards.get(tag)) is not None:
            card.refresh(time.time_ns())
            card.appear(self._make_view)

    def finish(self, tag: str, state: str = "", moved: tuple[int, int] = (0, 0)) -> bool:
        """The run is over; `moved` are bytes sent and received. Whether a card shows it.

        Tasks that its tasks have submitted, and that go on, keep the card: it becomes static when the last of them has ended.
        """
        card = self.cards.get(tag)
        if card is None:
            return False
        card.run.moved = moved
        card.refresh(time.time_ns())
        if not (self._closed or card.silent or card.settled) and card.run.nested and (card.shown or card.run.unfinished):
            card.holds, card.ends_as = False, state
            card.appear(self._make_view)
            return True
        return self._finish(card, state)

    def _finish(self, card: Card, state: str) -> bool:
        with self._wake:
            if self.cards.pop(card.tag, None) is None:
                return card.shown
        card.finish(time.time_ns(), state)
        self.ended.pop(card.run.title, None)
        self.ended[card.run.title] = card
        if len(self.ended) > PLANNABLE:
            del self.ended[next(iter(self.ended))]
        with self._wake:
            self._unplanned.append(card)
            self._wake.notify()
        return card.shown

    def find(self, title: str = "") -> Card | None:
        """The card of a cell, running or over, by its title; without one the latest that is over."""
        running = next((card for card in self.cards.values() if title and card.run.title == title), None)
        ended = self.ended.get(title) if title else next(reversed(self.ended.values()), None)
        return running or ended

    def unfinished(self, tasks: Sequence[bytes]) -> Unfinished:
        """What has not ended, for the lineage: counts of all, and of some tasks, `tasks` among them, what they need."""
        engine = self._engine
        counts: dict[Group, tuple[int, int]] = {}
        titles: dict[str, str] = {}
        for tag, card in list(self.cards.items()):
            titles[tag] = card.run.title
            for name, count in card.run.names.items():
                if count.running or count.queued:
                    group = Group(tag.partition(SEPARATOR)[0], card.run.title, name)
                    counts[group] = (count.running, count.queued)
        if engine is None or not counts:
            return Unfinished()
        known: dict[Group, list[UnfinishedTask]] = {}
        for task in engine.unfinished(tasks):
            group = Group(task.cell.partition(SEPARATOR)[0], titles.get(task.cell, ""), task.name)
            if group not in counts:
                group = group._replace(name=OTHERS)
            if group in counts:
                known.setdefault(group, []).append(task)
        return Unfinished(counts, known)

    def close(self) -> None:
        """Every card becomes static, and the thread ends."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        for card in list(self.cards.values()):
            self._finish(card, card.ends_as)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    # -- the thread

    def _serve(self) -> None:
        took = 0.0
        while not self._closed:
            with self._wake:
                if self.cards:
                    # From one turn's begin to the next, but never more than half of the time: the cell needs the interpreter.
                    self._wake.wait(max(PERIOD_S - took, took))
                elif self._next_unplanned() is None:
                    self._wake.wait()
            began = time.perf_counter()
            for card in list(self.cards.values()):
                self._turn(card, time.time_ns())
            took = time.perf_counter() - began
            with self._wake:
                ended = None if self._closed else self._next_unplanned()
                if ended is not None:
                    self._planning = True
                    self._unplanned.remove(ended)
            if ended is not None:
                threading.Thread(target=self._plan, args=(ended,), name="nbray-plan", daemon=True).start()

    def _next_unplanned(self) -> Card | None:
        """The next card to be completed. What a cell has made is known once its code has ended."""
        running = self.running()
        return None if self._planning else next((c for c in self._unplanned if c.tag.partition(SEPARATOR)[0] != running), None)

    def _plan(self, card: Card) -> None:
        """In a thread of its own: a rehearsal may take a second, and cards of other cells are to appear meanwhile."""
        try:
            if card.shown:
                objects, now_ms = self.objects_of(card), time.time_ns() / 1e6
                card.keep_rest(self.lineage_of(card.tag), objects and {**objects, "at_ms": now_ms})
        finally:
            with self._wake:
                self._planning = False
                self._wake.notify()

    def _turn(self, card: Card, now_ns: int) -> None:
        card.refresh(now_ns)
        if not card.holds and card.settled:
            self._finish(card, card.ends_as)
            return
        if not card.shown and card.run.elapsed_s(now_ns) >= card.after_s and card.run.unfinished:
            card.appear(self._make_view)
        if card.unsaid and card.run.elapsed_s(now_ns) >= card.after_s + SEEN_WITHIN_S:
            text, card.unsaid = card.unsaid, ""
            if not card.seen:  # a front end without widgets, which shows the card's first state
                self.say(card.tag, text)
        card.draw(now_ns)
