"""A cell that was sent: what it is doing, what came of it, and how to stop it. What `%%remote --bg` and `%nbray last` return.

    running -> done | failed | cancelled | timed out        (detached: left alone by the stop button; it still ends as one of those)

`settle` happens once, in whichever thread sees the last task end; `result` binds the outputs in the notebook, in the caller's.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from nbray.cards import words
from nbray.cards.flame import Flame
from nbray.engines.port import Engine
from nbray.exceptions import GetTimeoutError, RayTaskError, SentToBackground, TaskCancelledError
from nbray.notebook import display, told
from nbray.notebook.plan import Chunk, Plan
from nbray.notebook.remote_cell import CellTask, Report
from nbray.wire.failures import error_of

SNAPSHOT_BYTES = 32 * 2**20  #: of all failures of one job


class Failed(NamedTuple):
    """One task or item that failed."""

    item: int | None  #: its place in --each
    error: BaseException


class Job:
    """The handle of a cell. `await job`, `job.result(timeout)`, `job.cancel()`, `job.status`, `job.errors`, `job.items()`."""

    def __init__(self, plan: Plan, engine: Engine, tag: str, chunks: list[Chunk], sent_bytes: int, begun: float) -> None:
        """`begun` is when the cell was run, monotonic seconds."""
        # Names only: a handle is kept for a while, and must not keep the notebook's variables.
        self.plan = plan._replace(values=dict.fromkeys(plan.values))
        self.engine, self.tag, self.chunks, self.sent_bytes = engine, tag, chunks, sent_bytes
        self.label = plan.task_name
        self.reports: list[Report | BaseException] = []
        self.failures: list[Failed] = []
        self.elapsed_s = 0.0
        self.notes: list[str] = []
        self.deliver: Callable[[Job], Any] = lambda _job: None  #: binds the outputs; the notebook sets it
        self.on_settled: Callable[[Job], None] = lambda _job: None
        self._begun = begun
        self._state = "running"
        self._lock = threading.Lock()
        self._settled: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._waiting = len(chunks)
        self._watched = False
        self.line_shown = False
        self.told = False  #: how it ended is on the page
        self.released = threading.Event()  #: nobody need wait any more: it settled, or goes on in the background
        self._timer: threading.Timer | None = None
        self.again: tuple[CellTask, list[Any]] | None = None  #: the task and its objects, for %nbray debug --rerun
        self.profile: Flame | None = None  #: of --profile, once it has ended: shows itself, and `.folded()` is for other programs
        self._shown: list[Any] = []  # the delivered value, once delivered

    # -- what a user asks

    @property
    def status(self) -> str:
        """running, done, failed, cancelled, timed out or detached."""
        return self._state

    def done(self) -> bool:
        """Whether every task has ended."""
        return self._settled.done()

    @property
    def ended(self) -> float:
        """When it settled, monotonic seconds."""
        return self._begun + self.elapsed_s

    @property
    def errors(self) -> list[BaseException]:
        """What failed, in the order of the items."""
        return [failed.error for failed in self.failures]

    def counts(self) -> dict[str, int]:
        """How many of its tasks are queued, running, done, failed and cancelled."""
        return self.engine.cell_counts(self.tag)

    def cancel(self, force: bool = False) -> int:
        """Stop what is left of it: `force` kills the workers. Returns how many tasks that was. Does not wait."""
        return self.engine.cancel_cell(self.tag, force)

    def result(self, timeout: float | None = None) -> Any:
        """Wait, bind the outputs in the notebook, and return the value of the last expression (of --each: a list).

        A cell that was waited for has shown its value already: then this is None, and `Out` has it.
        Raises what the cell raised; GetTimeoutError after `timeout` seconds, and the cell goes on.
        """
        try:
            self._settled.result(timeout)
        except concurrent.futures.TimeoutError:
            raise told.told(
                GetTimeoutError(f"{self.label} has not ended after {timeout:g} s; it goes on, and job.cancel() stops it")
            ) from None
        return self.value()

    def value(self) -> Any:
        """The value of the settled job, its outputs bound. Raises what the cell raised."""
        if self.failures:
            raise self._error()
        if not self._shown:
            self._shown.append(self.deliver(self))
            self._let_go()
        return self._shown[0]

    def _let_go(self) -> None:
        """The notebook has the outputs now: a second hold on them, or on the inputs, would keep them for as long as the handle."""
        self.chunks = [Chunk(chunk.refs[:1], chunk.items) for chunk in self.chunks]
        items = None if self.plan.items is None else [None] * len(self.plan.items)
        self.plan = self.plan._replace(items=items)

    def forget_value(self) -> None:
        """The value, if there was one, was shown, and `Out` has it."""
        self._shown = [None] * len(self._shown)

    def items(self) -> list[dict[str, Any] | BaseException]:
        """Per item of --each (per cell otherwise): its outputs by name, and as "Out" the value of its last expression; or its
        error. What succeeded is always there."""
        self._settled.result()
        if self._shown:
            raise LookupError(
                f"{self.label} succeeded and its outputs are the notebook's: {', '.join(self.plan.outputs) or 'none'}"
            )
        failed = {failure.item: failure.error for failure in self.failures}
        found: list[dict[str, Any] | BaseException] = []
        for chunk, report in zip(self.chunks, self.reports, strict=True):
            if isinstance(report, BaseException):
                found += [report] * len(chunk.items)
                continue
            first = 1 if self.plan.capture.shows else 2  # refs[1] is the value of the last expression
            names = ("Out", *self.plan.outputs)[first - 1 :]
            columns = self.engine.get(chunk.refs[first:], None)
            for i, item in enumerate(chunk.items):
                values = [chunk.per_item(column)[i] for column in columns]
                found.append(failed.get(item) or dict(zip(names, values, strict=True)))
        return found

    def __await__(self) -> Generator[Any, None, Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        ended = asyncio.wrap_future(self._settled)
        # Woken ten times a second: a kernel notices the stop button in an `await` only when its loop turns.
        while not ended.done():
            await asyncio.wait({ended}, timeout=0.1)
        return self.value()

    def __repr__(self) -> str:
        return display.line(self._state, self.facts())["text/plain"]

    def _repr_html_(self) -> str:
        return display.line(self._state, self.facts())["text/html"]

    # -- how it goes

    def wait(self, timeout: float | None) -> bool:
        """Wait in this thread, interruptibly; settles and returns True when every task ended within `timeout` seconds."""
        refs = [chunk.report for chunk in self.chunks]
        if refs:
            try:
                _, pending = self.engine.wait(refs, len(refs), timeout, False)
            except SentToBackground:  # the plain cell that it is in
                self.put_in_background()
                return False
            if pending:
                return False
        self.settle()
        return True

    def watch(self, timeout: float | None) -> None:
        """Settle by itself when the last task ends; cancel after `timeout` seconds."""
        if timeout is not None:
            self._timer = threading.Timer(timeout, self.expire)
            self._timer.daemon = True
            self._timer.start()
        if not self.chunks:
            self.settle()
        if not self._watched:
            self._watched = True
            for chunk in self.chunks:
                self.engine.on_ready(chunk.report, self._one_ended)

    def _one_ended(self) -> None:
        with self._lock:
            self._waiting -= 1
            last = self._waiting == 0
        if last:
            # Not on the engine's own thread: fetching reports may wait for it.
            threading.Thread(target=self.settle, name=f"nbray-{self.label}", daemon=True).start()

    def expire(self) -> None:
        """Its time is up."""
        with self._lock:
            if self._state == "running":
                self._state = "timed out"
        self.engine.cancel_cell(self.tag, False)

    def put_in_background(self) -> None:
        """Give the prompt back; the cell goes on."""
        self.released.set()

    def when_settled(self, callback: Callable[[Job], None]) -> None:
        """Call it after the job has settled; at once if it has."""
        self._settled.add_done_callback(lambda _: callback(self))

    def detach(self) -> None:
        """Leave it alone: it ends when it ends."""
        with self._lock:
            if self._state == "running":
                self._state = "detached"
        self.watch(None)

    def settle(self) -> None:
        """Take in how every task ended. Once; later calls do nothing."""
        with self._lock:
            if self._settled.done() or self.reports:
                return
            self.reports = self._fetched()
        try:
            if self._timer is not None:
                self._timer.cancel()
            self._take_in()
            self.on_settled(self)
        finally:
            self._settled.set_result(None)
            self.released.set()

    def _take_in(self) -> None:
        for chunk, report in zip(self.chunks, self.reports, strict=True):
            if isinstance(report, BaseException):
                self.failures += [Failed(item if self.plan.items is not None else None, report) for item in chunk.items]
            else:
                self.failures += [Failed(chunk.items[i], error_of(failure)) for i, failure in sorted(report.failures.items())]
        self.elapsed_s = time.monotonic() - self._begun
        self._state = self._ended_as()
        if not self.failures:
            self.again = None
        self._bound_snapshots()

    def _bound_snapshots(self) -> None:
        """The first failures keep their frames: those of thousands would be more than a notebook should hold."""
        left = SNAPSHOT_BYTES
        for error in self.errors:
            if isinstance(error, RayTaskError) and error._snapshot:
                left -= len(error._snapshot)
                if left < 0:
                    error._snapshot = b""

    def _fetched(self) -> list[Report | BaseException]:
        refs = [chunk.report for chunk in self.chunks]
        try:
            return list(self.engine.get(refs, None))
        except Exception:  # noqa: BLE001 -- a user's exception; below each is kept with its task
            return [self._fetched_one(ref) for ref in refs]

    def _fetched_one(self, ref: Any) -> Report | BaseException:
        try:
            report: Report = self.engine.get([ref], None)[0]
        except Exception as error:  # noqa: BLE001 -- as above
            return error
        return report

    def _ended_as(self) -> str:
        if self._state == "timed out" and self.failures:
            return "timed out"
        if not self.failures:
            return "done"
        return "cancelled" if all(isinstance(failed.error, TaskCancelledError) for failed in self.failures) else "failed"

    def _error(self) -> BaseException:
        if self._state == "timed out":
            what, total = ("item", len(self.plan.items)) if self.plan.items is not None else ("task", len(self.chunks))
            kept = self._kept(total)
            return told.told(
                GetTimeoutError(
                    f"{self.label} did not end within --timeout {self.plan.options.timeout:g} s; "
                    f"{words.count_text(len(self.failures), what)} cancelled{kept}"
                )
            )
        genuine = [failed for failed in self.failures if not isinstance(failed.error, TaskCancelledError)]
        first = (genuine or self.failures)[0]
        if self.plan.items is None or first.item is None:
            return told.remote(first.error)
        name, total = (self.plan.options.each or ("item", ""))[0], len(self.plan.items)
        kept = self._kept(total)
        return told.remote(
            first.error,
            f"{name} = {_short(self.plan.items[first.item])} (item {first.item} of --each) failed, "
            f"{len(self.failures)} of {total} in all{kept}",
        )

    def _kept(self, total: int) -> str:
        done = total - len(self.failures)
        return f"; the other {done} are kept: %nbray last, then .items()" if done else ""

    # -- how it reads

    def facts(self) -> list[str]:
        """The parts of its line."""
        reports = [report for report in self.reports if isinstance(report, Report)]
        parts = [self.label, self._tasks()]
        if self._settled.done() or self.reports:
            parts.append(words.seconds_text(self.elapsed_s))
        else:
            # What is shown as Out stays as it is when the cell goes on: so it says when it was true.
            parts.append(
                f"{words.seconds_text(time.monotonic() - self._begun)} after its beginning, at {time.strftime('%H:%M:%S')}"
            )
        if reports:
            workers = {(report.node, report.pid) for report in reports}
            one = reports[0]
            nodes = len({report.node for report in reports})
            parts.append(
                f"worker {one.pid} on {one.host}"
                if len(workers) == 1
                else f"{len(workers)} workers on {one.host if nodes == 1 else words.count_text(nodes, 'node')}"
            )
        sent, received = self.moved()
        parts.append(f"in {words.bytes_text(sent)}, out {words.bytes_text(received)}")
        return parts

    def moved(self) -> tuple[int, int]:
        """Bytes sent with its tasks, and received from those that have reported."""
        reports = (report for report in self.reports if isinstance(report, Report))
        return self.sent_bytes, sum(sum(report.sizes.values()) + report.shown_size for report in reports)

    def _tasks(self) -> str:
        total = len(self.chunks)
        if self.plan.items is not None:
            items = len(self.plan.items)
            said = words.count_text(items, "item") + (f" in {words.count_text(total, 'task')}" if total != items else "")
        else:
            said = words.count_text(total, "task")
        how = "cancelled" if self._state == "timed out" else "failed"
        return f"{said}, {len(self.failures)} {how}" if self.failures and self._state != "cancelled" else said


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
