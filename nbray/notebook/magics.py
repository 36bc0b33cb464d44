"""`%%remote`, `%remote EXPR` and `%nbray`: what IPython calls. They put the pieces together and decide nothing themselves."""

from __future__ import annotations

import linecache
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from IPython.core import magic_arguments
from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, needs_local_scope, no_var_expand

from nbray import session
from nbray.engines.port import Engine
from nbray.exceptions import RayError
from nbray.notebook import display, preflight, told
from nbray.notebook.arguments import (
    CellOptions,
    cell_args,
    data_args,
    each_args,
    options_of,
    output_args,
    parse,
    place_args,
    run_args,
)
from nbray.notebook.captured import captured_inside
from nbray.notebook.cards import APPEARS_AFTER_S
from nbray.notebook.current import Notebook
from nbray.notebook.inputs import sizes, unpicklable
from nbray.notebook.interrupt import DETACH
from nbray.notebook.job import Job
from nbray.notebook.placing import Place, find_place
from nbray.notebook.plan import Chunk, Plan, chunks_of, make_plan, submit
from nbray.notebook.results import deliver
from nbray.notebook.stream import Message, note
from nbray.notebook.subcommands import Subcommands


@magics_class
class NbrayMagics(Magics):  # type: ignore[misc]
    """The magics of one notebook."""

    def __init__(self, shell: Any, notebook: Notebook) -> None:
        super().__init__(shell)
        self.notebook = notebook
        self.subcommands = Subcommands(notebook)

    @magic_arguments.magic_arguments()
    @data_args
    @each_args
    @place_args
    @run_args
    @output_args
    @cell_args
    @no_var_expand
    @needs_local_scope
    @cell_magic("remote")
    def remote_cell(self, line: str, cell: str, local_ns: dict[str, Any] | None = None) -> Any:
        """Run the cell on the cluster.

        What it reads is taken from the notebook, what it assigns comes back, the value of its last expression is shown:
        as in any cell. What it prints and displays appears under it, and the stop button stops it.

            %%remote
            model = fit(df)

            %%remote --each seed=range(100) -o scores
            scores = simulate(seed)

            %%remote --bg --handle job --num-cpus 2
            long_training()
        """
        given = parse(self.remote_cell, line)
        if (inside := captured_inside(cell)) is not None:
            return self.shell.run_cell_magic("capture", inside.line, f"%%remote {line}\n{inside.body}")
        return self._run(line, cell, options_of(given, self.notebook.configured), local_ns)

    @no_var_expand
    @needs_local_scope
    @line_magic("remote")
    def remote_line(self, line: str, local_ns: dict[str, Any] | None = None) -> Any:
        """Evaluate one expression on the cluster: `%remote fit(df)`, `score = %remote model.score(X, y)`."""
        if not line.strip() or line.lstrip().startswith("--"):
            raise UsageError("%remote takes an expression, as in %remote fit(df); %%remote runs a whole cell, and takes options")
        options = options_of({"outputs": ()}, self.notebook.configured)
        return self._run("", line.rstrip().rstrip(";"), options, local_ns)

    @no_var_expand
    @line_magic("nbray")
    def nbray(self, line: str) -> Any:
        """Look at the cluster and steer it: `%nbray status`, and without a word what else there is."""
        return self.subcommands.run(line)

    # -- one cell

    def _run(self, line: str, cell: str, options: CellOptions, local_ns: dict[str, Any] | None) -> Any:
        notebook = self.notebook
        if notebook.captures.active() and not options.background:
            options = replace(options, view="none")
        namespace = notebook.namespace
        visible = namespace if local_ns is None or local_ns is namespace else {**namespace, **local_ns}
        place = find_place(options.on, visible, notebook.engine()) if options.on else Place()
        plan = make_plan(line, cell, options, visible, notebook.label, place)
        linecache.cache[plan.filename] = (len(plan.source), None, plan.source.splitlines(keepends=True), plan.filename)
        if options.dry_run:
            self._say_plan(plan, visible)
            return None
        if again := preflight.repeated(plan, visible):
            notebook.router.notice(notebook.tag, "repeated", again)
        job = self._submit(plan)
        if options.background:
            return self._leave_running(job)
        if not self._wait(job):
            return None
        try:
            return job.value()
        finally:
            job.forget_value()
            self._ended(job)

    def _submit(self, plan: Plan) -> Job:
        notebook, options, begun = self.notebook, plan.options, time.monotonic()
        engine = notebook.engine()
        tag = notebook.new_tag(plan.task_name, card=options.view == "card", after_s=options.progress_after)
        notebook.inputs.forget_rebound(notebook.namespace)
        many = plan.items is not None and len(plan.items) > 1
        if notebook.desk is not None and plan.items is not None and len(plan.items) != len(chunks_of(plan)):
            notebook.desk.items[tag] = len(plan.items)
        notebook.router.open(tag, limit=options.max_output, badges=many, held=not options.stream, group=options.group)
        try:
            with engine.cell(tag):
                sent = submit(plan, engine, notebook.inputs)
        except (TypeError, ValueError, RayError) as error:
            raise told.told(error) from None
        if options.group == "order":
            self._show_in_order(tag, engine, sent.chunks)
        job = Job(plan, engine, tag, sent.chunks, sent.packed.sent_bytes, begun)
        job.again = sent.again
        job.deliver = self._deliver
        notebook.jobs.append(job)
        notebook.latest = job
        if options.handle:
            notebook.namespace[options.handle] = job
        return job

    def _show_in_order(self, tag: str, engine: Engine, chunks: Sequence[Chunk]) -> None:
        router = self.notebook.router
        router.expect(tag, [chunk.report.task_id().binary() for chunk in chunks])
        for chunk in chunks:
            engine.on_ready(chunk.report, partial(router.task_ended, tag, chunk.report.task_id().binary()), local=False)

    def _deliver(self, job: Job) -> Any:
        notebook = self.notebook
        try:
            return deliver(job, notebook.namespace, notebook.inputs)
        finally:
            notebook.history.delivered(job.tag, job.plan.outputs, [chunk.report.task_id().binary() for chunk in job.chunks])
            if job.told:  # of a cell in the background, whose end is on the page already
                self._say_notes(job)

    def _leave_running(self, job: Job) -> Job | None:
        notebook, view = self.notebook, job.plan.options.view
        notebook.job_tags.discard(job.tag)  # from here on the stop button is for other things
        job.on_settled = self._ended
        if view == "card" and notebook.desk is not None:
            notebook.desk.appear(job.tag)
        elif view != "none":
            self._show_line(job)
        job.watch(job.plan.options.timeout)
        return None if job.plan.options.handle else job

    def _wait(self, job: Job) -> bool:
        """Wait for a job that blocks; False when its card put it into the background. The stop button cancels it, or leaves
        it, and gives the prompt back."""
        notebook, timeout = self.notebook, job.plan.options.timeout
        first = APPEARS_AFTER_S if timeout is None else min(timeout, APPEARS_AFTER_S)
        try:
            if job.wait(first):
                return True
            job.watch(None if timeout is None else timeout - first)
            job.released.wait()
        except KeyboardInterrupt:
            self._stopped(job)
        if job.done():
            return True
        notebook.job_tags.discard(job.tag)
        said = f"{job.label} goes on in the background; %nbray last has its handle, and .result() its value"
        notebook.router.show(job.tag, note(said))
        job.when_settled(self._ended)
        return False

    def _stopped(self, job: Job) -> NoReturn:
        notebook = self.notebook
        notebook.stopped_in = notebook.tag
        job.on_settled = lambda settled: self._ended(settled, line=False)
        if job.plan.options.on_interrupt == DETACH:
            job.detach()
            said = f"{job.label} goes on without the notebook waiting; %nbray last finds it"
        else:
            cancelled = notebook.interrupts.stopped(job.engine, [job.tag])
            said = f"{job.label} stopped; {cancelled}."
            if cancelled.tasks > cancelled.calls:
                said += " The next stop kills the workers of those that have not ended"
            job.watch(None)
        raise told.told(KeyboardInterrupt(said)) from None

    def _ended(self, job: Job, *, line: bool = True) -> None:
        """After a job: what its tasks printed, then its card as it stays, or the line."""
        notebook, view = self.notebook, job.plan.options.view
        if job.failures:  # the inputs of one failed cell are kept, to run it again
            for other in notebook.jobs:
                if other is not job and other.done():
                    other.again = None
        notebook.router.finish(job.tag)
        job.profile = notebook.profiles.of(job.tag)
        job.told = True
        self._say_notes(job)
        if notebook.desk is not None and view == "card" and notebook.desk.finish(job.tag, job.status, job.moved()):
            return
        if line and view != "none":
            self._show_line(job)
        if job.profile is not None and view != "none":  # no card has it
            data = {"text/plain": repr(job.profile), "text/html": job.profile.html()}
            notebook.router.show(job.tag, Message("display_data", {"data": data, "metadata": {}, "transient": {}}))

    def _say_notes(self, job: Job) -> None:
        while job.notes:
            self.notebook.router.show(job.tag, note(job.notes.pop(0)))

    def _show_line(self, job: Job) -> None:
        content = {"data": display.line(job.status, job.facts()), "metadata": {}, "transient": {"display_id": f"nbray-{job.tag}"}}
        self.notebook.router.show(job.tag, Message("update_display_data" if job.line_shown else "display_data", content))
        job.line_shown = True

    def _say_plan(self, plan: Plan, visible: dict[str, Any]) -> None:
        try:
            measured = sizes(plan.values, self.notebook.inputs.standing_for_values)
        except Exception as error:  # noqa: BLE001 -- any class may refuse in its own way
            raise told.told(unpicklable(plan.values, error)) from None
        for bundle in preflight.described(plan, measured, session.engine, visible):
            self.notebook.router.show(self.notebook.tag, Message("display_data", {"data": bundle, "metadata": {}, "transient": {}}))
