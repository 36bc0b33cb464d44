"""What comes back from a cell: its outputs, bound in the notebook as if the cell had run there; what could not come, and why."""

from __future__ import annotations

import types
from typing import Any

from nbray.cards.words import bytes_text
from nbray.exceptions import ResultDeserializationError
from nbray.notebook import told
from nbray.notebook.inputs import InputStore
from nbray.notebook.job import Job
from nbray.notebook.packing import at_home
from nbray.notebook.remote_cell import Report, Unshippable
from nbray.refs import ObjectRef


def deliver(job: Job, namespace: dict[str, Any], store: InputStore) -> Any:
    """Bind the outputs of a job that succeeded in `namespace`; returns the value of its last expression.

    Outputs that stay in the cluster are bound as references, with a note in `job.notes`. An output that was asked for and
    cannot be had raises, after the others are bound: NameError for one never assigned, TypeError for one that does not pickle.
    """
    reports = [report for report in job.reports if isinstance(report, Report)]
    problems: list[Exception] = []
    arrived: dict[str, Any] = {}
    for column, name in enumerate(job.plan.outputs, start=2):
        if not job.chunks:
            arrived[name] = []  # --each over nothing
            continue
        if all(name in report.unchanged for report in reports):
            continue
        if all(name in report.missing for report in reports):
            _missing(job, name, namespace, reports, problems)
            continue
        refused = next((report.unpicklable[name] for report in reports if name in report.unpicklable), None)
        if refused is not None:
            _refused(job, name, refused, problems)
            continue
        try:
            arrived[name] = _column(job, column, name, sum(report.sizes.get(name, 0) for report in reports), store)
        except ResultDeserializationError as error:
            arrived[name] = _stays(job, column, f"the output {name}", error, store)
            if not job.plan.auto:
                problems.append(told.told(TypeError(job.notes.pop()).with_traceback(None)))
    if job.plan.items is not None and job.plan.auto:
        arrived = {name: _imported(value) for name, value in arrived.items()}
    # All before any is made at home: functions of the cell call each other.
    namespace.update(arrived)
    for name, value in arrived.items():
        if not isinstance(value, ObjectRef):
            in_list = job.plan.items is not None and isinstance(value, list)
            namespace[name] = [_at_home(v, namespace) for v in value] if in_list else _at_home(value, namespace)
    shown = _shown(job, sum(report.shown_size for report in reports), store, namespace)
    if problems:
        raise problems[0]
    return shown


def _imported(values: Any) -> Any:
    """A module that every item imported is that module, and no list of it."""
    first = values[0] if isinstance(values, list) and values else None
    return first if isinstance(first, types.ModuleType) and all(value is first for value in values) else values


def _at_home(value: Any, namespace: dict[str, Any]) -> Any:
    return value if isinstance(value, types.ModuleType) else at_home(value, namespace)


def _missing(job: Job, name: str, namespace: dict[str, Any], reports: list[Report], problems: list[Exception]) -> None:
    if not job.plan.auto:
        bound = sorted({each for report in reports for each in report.bound})
        assigned = f"it assigned {', '.join(bound)}" if bound else "it assigned nothing"
        problems.append(told.told(NameError(f"the cell never assigned {name}, which --out names; {assigned}", name=name)))
    elif name in job.plan.values:
        namespace.pop(name, None)  # it went there and was deleted there: here too, as in any cell


def _refused(job: Job, name: str, why: str, problems: list[Exception]) -> None:
    if job.plan.auto:
        job.notes.append(f"{name} stays in the worker and is lost with it: it does not pickle ({why})")
    else:
        problems.append(
            told.told(
                TypeError(f"the output {name} does not pickle: {why}. Bring back what it holds instead, or keep it in an actor.")
            )
        )


def _column(job: Job, column: int, name: str, size: int, store: InputStore) -> Any:
    """One output: its value, or references where it is to stay."""
    refs = [chunk.refs[column] for chunk in job.chunks]
    options = job.plan.options
    if options.refs or size > options.max_fetch:
        store.standing_for_values.update(refs)
        if not options.refs:
            what, limit = "a reference" if job.plan.items is None else f"{len(refs)} references", bytes_text(options.max_fetch)
            job.notes.append(
                f"{name} ({bytes_text(size)}) stays in the cluster as {what}, being over --max-fetch {limit}; "
                "later %%remote cells take it as it is, nbray.get() fetches it"
            )
        return refs if job.plan.items is not None else refs[0]
    values = job.engine.get(refs, None)
    return values[0] if job.plan.items is None else _flat(job, values)


def _stays(job: Job, column: int, what: str, error: ResultDeserializationError, store: InputStore) -> Any:
    """References to what does not load in the notebook, and a note that says why."""
    refs = [chunk.refs[column] for chunk in job.chunks]
    store.standing_for_values.update(refs)
    cause = error.__cause__
    why = f"{type(cause).__name__}: {cause}" if cause is not None else str(error)
    kind = "a reference, which" if job.plan.items is None else f"{len(refs)} references, which"
    job.notes.append(
        f"{what} does not load in the notebook ({why}); it stays in the cluster as {kind} later %%remote cells take as "
        "it is. Import here what it needs, or bring back plain data made of it"
    )
    return refs if job.plan.items is not None else refs[0]


def _flat(job: Job, values: list[Any]) -> list[Any]:
    """One value per item."""
    return [each for chunk, value in zip(job.chunks, values, strict=True) for each in chunk.per_item(value)]


def _shown(job: Job, size: int, store: InputStore, namespace: dict[str, Any]) -> Any:
    if not job.plan.capture.shows:
        return None
    refs = [chunk.refs[1] for chunk in job.chunks]
    if size > job.plan.options.max_fetch:
        store.standing_for_values.update(refs)
        return refs[0] if job.plan.items is None else refs
    try:
        values = job.engine.get(refs, None)
    except ResultDeserializationError as error:
        return _stays(job, 1, "the value of the last line", error, store)
    if job.plan.items is None:
        return values[0] if isinstance(values[0], Unshippable) else at_home(values[0], namespace)
    every = _flat(job, values)
    # A cell that ends in an assignment or a call for its effect shows nothing, and a list of Nones is nothing.
    return None if all(value is None for value in every) else at_home(every, namespace)
