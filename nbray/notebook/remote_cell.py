"""What runs on the worker when a cell does: its inputs become a namespace, its code runs there, and its outputs are taken out.

    run_cell       one cell, one task                 returns (Report, shown value, *outputs)
    run_items      some items of `--each`             the same, every output a list with one entry per item; one item: no list
    run_in_actor   inside an actor                    the same; the namespace stays in the actor between cells

Nothing here imports IPython: a forked worker must begin at once.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import hashlib
import inspect
import linecache
import os
import sys
import time
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from nbray import session
from nbray.notebook.packing import pickled_size, unpack
from nbray.notebook.sampling import Profiled
from nbray.notebook.shell import CellShell
from nbray.serializability import path_to_culprit
from nbray.wire.failures import failure_of
from nbray.wire.messages import Failure
from nbray.worker.snapshots import snapshot_of

SHOWN = "__nbray_shown__"
KEPT = "_nbray_cell_namespace"  #: the actor's attribute that holds the namespace of `--on ACTOR` cells
READ_ONLY = "read-only"
SNAPSHOTS_PER_TASK = 3  #: of the failed items of one task; taking one may last two seconds


class CellTask(NamedTuple):
    """A cell, ready to run. `inputs` is a pickle (packing.py) of a dict of names to values."""

    filename: str  #: as it appears in tracebacks
    source: str  #: the lines as the user sees them, the magic's own line first
    code: str  #: plain Python with the same line numbers
    inputs: bytes
    references: list[Any]  #: ObjectRefs that `inputs` contains
    arrays: int  #: how many of the objects sent beside are large arrays; the rest are `bound`
    bound: tuple[str, ...]  #: inputs that are whole objects of the store, in order
    outputs: tuple[str, ...]
    shows: bool
    mutated: frozenset[str]  #: inputs that need memory of their own
    auto: bool = True  #: outputs were not named: one that still is the input it was need not come back
    strong: frozenset[str] = frozenset()  #: inputs that win over what an actor's namespace has
    item: str = ""  #: the name of `--each`
    sources: dict[str, str] = {}  #: other cells, whose functions this one may call
    snapshot: bool = False  #: keep the frames of a failure, for %nbray debug
    profile: str = ""  #: "cpu" or "mem": watch it (sampling.py)
    cells: dict[str, str] = {}  #: with `profile`: what the cells in `sources` are called, this one first


class Report(NamedTuple):
    """How it went, small enough to travel inside a message."""

    node: bytes
    pid: int
    host: str
    started: float  #: epoch seconds, the worker's clock
    seconds: float
    sizes: dict[str, int]  #: bytes of each output that comes back
    missing: tuple[str, ...] = ()  #: outputs that the cell never assigned
    unchanged: tuple[str, ...] = ()  #: outputs that still are the input they were
    unpicklable: dict[str, str] = {}  #: outputs that stay, with why
    bound: tuple[str, ...] = ()  #: everything the namespace had at the end, for an error's text
    shown_size: int = 0
    failures: dict[int, Failure] = {}  #: items of `--each` that failed, by their place in this task


class Unshippable(NamedTuple):
    """Stands for a shown value that does not pickle: its text, made where it lives."""

    text: str

    def __repr__(self) -> str:
        return self.text


def run_cell(task: CellTask, *objects: Any) -> tuple[Any, ...]:
    """Run `task` in a namespace of its own. Raises what the cell raises."""
    started, begun = time.time(), time.perf_counter()
    namespace, inputs = namespace_of(task, objects, {})
    before = _before(task, inputs)
    with _watched(task):
        shown = _executed(task, namespace)
    return _results(task, namespace, inputs, before, shown, (started, begun))


def run_items(task: CellTask, items: Sequence[Any], *objects: Any) -> tuple[Any, ...]:
    """Run `task` once per item, each in a namespace of its own, so that the result does not depend on how items are grouped.

    One item: raises what the cell raises. Several: failures are collected, and the other items go on.
    """
    with _watched(task):
        return _run_items(task, items, objects)


def _watched(task: CellTask) -> contextlib.AbstractContextManager[None]:
    return Profiled(task.profile, task.cells) if task.profile else contextlib.nullcontext()


def _run_items(task: CellTask, items: Sequence[Any], objects: Sequence[Any]) -> tuple[Any, ...]:
    started, begun = time.time(), time.perf_counter()
    if len(items) == 1:
        return _run_item(task, items[0], objects, (started, begun))
    reports: list[Report] = []
    shown: list[Any] = []
    values: list[list[Any]] = [[] for _ in task.outputs]
    failures: dict[int, Failure] = {}
    for i, item in enumerate(items):
        try:
            report, last, *outputs = _run_item(task, item, objects, (started, begun))
        except Exception as error:  # noqa: BLE001 -- whatever the cell raises for this item
            failures[i] = _failure(error, task, snapshot=len(failures) < SNAPSHOTS_PER_TASK)
            last, outputs = None, [None] * len(task.outputs)
        else:
            reports.append(report)
        shown.append(last)
        for column, output in zip(values, outputs, strict=True):
            column.append(output)
    return (_merged(reports, failures, (started, begun)), shown, *values)


def _run_item(task: CellTask, item: Any, objects: Sequence[Any], clock: tuple[float, float]) -> tuple[Any, ...]:
    namespace, inputs = namespace_of(task, objects, {task.item: item})
    before = _before(task, inputs)
    shown = _executed(task, namespace)
    return _results(task, namespace, inputs, before, shown, clock)


def run_in_actor(actor: Any, task: CellTask, *objects: Any) -> tuple[Any, ...]:
    """Run `task` where the actor lives. Names that earlier cells left there win over inputs taken automatically."""
    started, begun = time.time(), time.perf_counter()
    kept: dict[str, Any] = actor.__dict__.setdefault(KEPT, {})
    before = {name: value for name, value in kept.items() if name not in task.strong}
    namespace, inputs = namespace_of(task, objects, {"self": actor}, kept)
    namespace.update(before)
    before = _before(task, inputs)
    with _watched(task):
        shown = _executed(task, namespace)
    return _results(task, namespace, inputs, before, shown, (started, begun))


def namespace_of(
    task: CellTask, objects: Sequence[Any], extra: dict[str, Any], kept: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The globals that the cell runs in, and the inputs that they were made from."""
    namespace: dict[str, Any] = {} if kept is None else kept
    namespace.update({"__name__": "__main__", "__builtins__": __builtins__})
    entries = {"array": objects[: task.arrays], "reference": task.references}
    inputs: dict[str, Any] = unpack(task.inputs, entries, namespace)
    inputs.update(zip(task.bound, objects[task.arrays :], strict=True))
    for name in task.mutated:
        value = inputs.get(name)
        if isinstance(value, np.ndarray) and not value.flags.writeable:
            inputs[name] = value.copy()
    namespace.update(inputs)
    namespace.update(extra)
    if "get_ipython" in task.code:
        shell = CellShell(namespace)
        namespace["get_ipython"] = lambda: shell
    return namespace, inputs


def _executed(task: CellTask, namespace: dict[str, Any]) -> Any:
    """Run the code; the value of its last expression, or None."""
    _nbray_snapshot = task.snapshot  # worker/snapshots.py looks for it in the traceback
    code = compiled(task)
    try:
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(eval(code, namespace))  # running the user's cell is what this is for
        else:
            exec(code, namespace)
    except ValueError as error:
        if READ_ONLY in str(error):
            error.add_note("Inputs over 100 KiB arrive as read-only views of shared memory. Write to a copy: x = x.copy()")
        raise
    finally:
        _show_figures()
    return namespace.pop(SHOWN, None)


def compiled(task: CellTask) -> types.CodeType:
    """The cell's code, which leaves the value of its last expression in SHOWN."""
    for filename, source in {**task.sources, task.filename: task.source}.items():
        remember_source(filename, source)
    tree = ast.parse(task.code, task.filename)
    if task.shows:
        last = tree.body[-1]
        assert isinstance(last, ast.Expr)
        tree.body[-1] = ast.copy_location(ast.Assign([ast.Name(SHOWN, ast.Store())], last.value), last)
        ast.fix_missing_locations(tree)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: types.CodeType = compile(tree, task.filename, "exec", flags=flags, dont_inherit=True)
    return code


def _show_figures() -> None:
    """Display the figures that the cell drew and left open, as a notebook does at the end of a cell."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    show = getattr(builtins, "display", None)
    if pyplot is None or show is None:
        return
    for number in pyplot.get_fignums():
        show(pyplot.figure(number))
    pyplot.close("all")


def remember_source(filename: str, source: str) -> None:
    """Let tracebacks show the lines of a cell. No time of modification: nothing on disk is asked whether it changed."""
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)


def _before(task: CellTask, inputs: dict[str, Any]) -> dict[str, bytes | None]:
    """What the inputs are that the cell may assign again: `m = m.fit()` gives the same object back, and another value."""
    if not task.auto:
        return {}
    return {name: _fingerprint(inputs[name]) for name in task.outputs if name in inputs and name not in task.mutated}


def _fingerprint(value: Any) -> bytes | None:
    """Equal for values that have not changed in between; None for one that cannot be told."""
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        return b"read-only"
    try:
        return hashlib.blake2b(cloudpickle.dumps(value, protocol=5), digest_size=16).digest()
    except Exception:  # noqa: BLE001 -- any class may refuse in its own way
        return None


def _results(
    task: CellTask,
    namespace: dict[str, Any],
    inputs: dict[str, Any],
    before: dict[str, bytes | None],
    shown: Any,
    clock: tuple[float, float],
) -> tuple[Any, ...]:
    sizes: dict[str, int] = {}
    missing: list[str] = []
    unchanged: list[str] = []
    unpicklable: dict[str, str] = {}
    values: list[Any] = []
    for name in task.outputs:
        value = None
        if name not in namespace:
            missing.append(name)
        elif before.get(name) is not None and namespace[name] is inputs[name] and before[name] == _fingerprint(namespace[name]):
            unchanged.append(name)
        else:
            try:
                sizes[name] = pickled_size(namespace[name])
                value = namespace[name]
            except Exception as error:  # noqa: BLE001 -- any class may refuse in its own way
                unpicklable[name] = why_not(namespace[name], name, error)
        values.append(value)
    shown, shown_size = _shippable(shown)
    names = tuple(name for name in namespace if not name.startswith("__") and name not in inputs)
    node, seconds = session.current().facts().node, time.perf_counter() - clock[1]
    report = Report(
        node, os.getpid(), os.uname().nodename, clock[0], seconds, sizes, tuple(missing), tuple(unchanged), unpicklable, names,
        shown_size,
    )  # fmt: skip
    return (report, shown, *values)


def _shippable(shown: Any) -> tuple[Any, int]:
    if shown is None:
        return None, 0
    try:
        return shown, pickled_size(shown)
    except Exception:  # noqa: BLE001 -- as above
        return Unshippable(repr(shown)), 0


def why_not(value: Any, name: str, error: Exception) -> str:
    """Why `value` does not pickle: the way to the culprit, and what pickle said."""
    said = str(error).splitlines() or [type(error).__name__]
    return f"{path_to_culprit(value, name)}: {said[0]}"


def _failure(error: Exception, task: CellTask, *, snapshot: bool) -> Failure:
    facts = session.current().facts()
    name = facts.task_name or task.filename
    return failure_of(
        error,
        name=name,
        pid=os.getpid(),
        node=facts.node,
        task=facts.task or b"",
        attempt=facts.attempt,
        snapshot=snapshot_of(error) if snapshot else b"",
    )


def _merged(reports: list[Report], failures: dict[int, Failure], clock: tuple[float, float]) -> Report:
    sizes: dict[str, int] = {}
    unpicklable: dict[str, str] = {}
    for report in reports:
        for name, size in report.sizes.items():
            sizes[name] = sizes.get(name, 0) + size
        unpicklable.update(report.unpicklable)
    common = set.intersection(*(set(report.missing) for report in reports)) if reports else set()
    unchanged = set.intersection(*(set(report.unchanged) for report in reports)) if reports else set()
    last = reports[-1] if reports else None
    return Report(
        node=session.current().facts().node,
        pid=os.getpid(),
        host=os.uname().nodename,
        started=clock[0],
        seconds=time.perf_counter() - clock[1],
        sizes=sizes,
        missing=tuple(sorted(common)),
        unchanged=tuple(sorted(unchanged)),
        unpicklable=unpicklable,
        bound=last.bound if last else (),
        shown_size=sum(report.shown_size for report in reports),
        failures=failures,
    )
