"""From a cell's source and options to tasks: what it reads and leaves, checked before anything is sent, then submitted."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from IPython.core.error import UsageError

import nbray
from nbray.engines.port import Engine
from nbray.notebook import inputs
from nbray.notebook.arguments import CellOptions
from nbray.notebook.capture import Capture, capture
from nbray.notebook.inputs import InputStore, Packed
from nbray.notebook.placing import SHARE, Place
from nbray.notebook.remote_cell import CellTask, run_cell, run_in_actor, run_items
from nbray.notebook.told import CellSyntaxError, of_line, told
from nbray.refs import ObjectRef
from nbray.sourcelines import cell_of

TASKS_PER_CELL = 2000  #: of `--each`, before items share a task
PROFILED_TASKS = 64  #: the same under --profile: to begin watching a task takes longer than many a task


class Chunk(NamedTuple):
    """One task of a cell: its references (report, shown value, one per output) and the items it runs."""

    refs: list[ObjectRef[Any]]
    items: range

    @property
    def report(self) -> ObjectRef[Any]:
        return self.refs[0]

    def per_item(self, value: Any) -> list[Any]:
        """An output of this task, as one value per item."""
        return [value] if len(self.items) == 1 else value


class Plan(NamedTuple):
    """A cell, understood and checked, with nothing sent yet."""

    label: str  #: what a person calls the cell: In[7]
    source: str  #: as shown in tracebacks: the magic's line, then the body
    capture: Capture
    options: CellOptions
    values: dict[str, Any]  #: inputs by name
    outputs: tuple[str, ...]
    items: list[Any] | None  #: of --each
    place: Place

    @property
    def filename(self) -> str:
        return f"<cell {self.label}>"

    @property
    def auto(self) -> bool:
        """Whether the outputs are those that the cell assigns, rather than named."""
        return self.options.outputs is None

    @property
    def task_name(self) -> str:
        name = self.options.name or self.label
        return f"{name} [{self.options.tag}]" if self.options.tag else name


def make_plan(line: str, body: str, options: CellOptions, namespace: dict[str, Any], label: str, place: Place) -> Plan:
    """Understand a cell. Raises SyntaxError, NameError or UsageError, each with the line of the cell that it is about."""
    source = f"%%remote {line}".rstrip() + "\n" + body
    try:
        found = capture(body)
    except SyntaxError as error:
        raise CellSyntaxError(error.msg, (f"<cell {label}>", error.lineno, error.offset, error.text)) from None
    for magic in found.magics:
        raise UsageError(
            f"line {magic.line} of the cell: %{magic.name} works in the notebook, not in a worker; "
            f"take it out, or move it to a cell of its own (!commands do work)"
        )
    own = frozenset({options.each[0]} if options.each else ())
    inside_actor = place.actor is not None  # names may come from the actor's own namespace
    if inside_actor:
        own |= {"self"}
    try:
        values = inputs.chosen(found, options.inputs, namespace, own, strict=not inside_actor)
    except NameError as error:
        line_number = next((read.line for read in found.reads if read.name == error.name), None)
        raise of_line(error, source, line_number) from None
    outputs = _outputs(found, options, values, inside_actor=inside_actor)
    return Plan(label, source, found, options, values, outputs, _items(options, namespace), place)


def _outputs(found: Capture, options: CellOptions, values: Mapping[str, Any], *, inside_actor: bool) -> tuple[str, ...]:
    each = options.each[0] if options.each else None
    if options.outputs is None:
        # What a cell assigns inside an actor stays there: that is what it runs there for.
        return () if inside_actor else tuple(name for name in found.binds if name != each)
    assigned = ", ".join(found.binds) or "nothing"
    for name in options.outputs:
        if name not in found.binds and name not in values and name != each and not found.stars and not inside_actor:
            raise told(NameError(f"the cell never assigns {name}, which --out names; it assigns {assigned}", name=name))
    return options.outputs


def _items(options: CellOptions, namespace: dict[str, Any]) -> list[Any] | None:
    if options.each is None:
        return None
    name, expression = options.each
    try:
        return list(eval(expression, namespace))
    except Exception as error:  # noqa: BLE001 -- the user's own expression
        error.add_note(f"raised by --each {name}={expression}, which the notebook evaluates before anything is sent")
        raise told(error) from None


class Sent(NamedTuple):
    """A cell on its way. `again` is its task and the objects sent beside it, to run it once more here."""

    chunks: list[Chunk]
    packed: Packed
    again: tuple[CellTask, list[ObjectRef[Any]]] | None


def submit(plan: Plan, engine: Engine, store: InputStore) -> Sent:
    """Send the cell's tasks. The caller has entered `engine.cell(tag)`.

    Raises TypeError for an input that does not pickle, ValueError for an amount that cannot be.
    """
    place = plan.place
    with engine.packing():
        packed = store.pack(plan.values, engine)
    task = CellTask(
        filename=plan.filename,
        source=plan.source,
        code=plan.capture.code,
        inputs=packed.data,
        references=packed.references,
        arrays=len(packed.arrays),
        bound=tuple(packed.bound),
        outputs=plan.outputs,
        shows=plan.capture.shows,
        mutated=plan.capture.mutated,
        auto=plan.auto,
        strong=frozenset(plan.options.inputs or ()),
        item=plan.options.each[0] if plan.options.each else "",
        sources=packed.sources,
        snapshot=plan.options.on_error == "snapshot",
        profile="" if plan.options.profile == "none" else plan.options.profile,
        cells={plan.filename: plan.label, **{name: cell_of(name) or name for name in packed.sources}},
    )
    objects = [*packed.arrays, *packed.bound.values()]
    if place.actor is not None:
        return Sent(_submit_to_actor(plan, place, task, objects), packed, None)
    return Sent(_submit_tasks(plan, place, task, objects, packed), packed, (task, objects))


def chunks_of(plan: Plan) -> list[range]:
    """Which items of --each go into each task."""
    items = plan.items or []
    most = TASKS_PER_CELL if plan.options.profile == "none" else PROFILED_TASKS
    size = plan.options.chunk or (1 if plan.options.refs else -(-len(items) // most) or 1)
    return [range(i, min(i + size, len(items))) for i in range(0, len(items), size)]


def _submit_to_actor(plan: Plan, place: Place, task: CellTask, objects: Sequence[Any]) -> list[Chunk]:
    if plan.items is not None:
        raise UsageError("--each runs items in parallel and --on ACTOR in one place; leave one of them out")
    if plan.options.env or plan.options.pip:
        raise UsageError("--env and --pip are for tasks; an actor has its environment since it was created, with runtime_env=...")
    assert place.actor is not None
    call = place.actor.__ray_call__.options(num_returns=2 + len(plan.outputs), name=plan.task_name)
    return [Chunk(call.remote(run_in_actor, task, *objects), range(1))]


def _submit_tasks(plan: Plan, place: Place, task: CellTask, objects: Sequence[Any], packed: Packed) -> list[Chunk]:
    options = _task_options(plan, place)
    if plan.items is None:
        return [Chunk(nbray.remote(run_cell).options(**options).remote(task, *objects), range(1))]
    chunks = chunks_of(plan)
    shared: Any = nbray.put(task) if len(chunks) > 1 else task  # once for all, not once per task
    run = nbray.remote(run_items).options(**options)
    sent = []
    for chunk in chunks:
        part = plan.items[chunk.start : chunk.stop]
        packed.sent_bytes += sum(map(sys.getsizeof, part))
        sent.append(Chunk(run.remote(shared, part, *objects), chunk))
    return sent


def _task_options(plan: Plan, place: Place) -> dict[str, Any]:
    given = plan.options
    resources = dict(given.resources or {})
    if place.resource is not None:
        resources.setdefault(place.resource, SHARE)
    options: dict[str, Any] = {
        "num_returns": 2 + len(plan.outputs),
        "num_cpus": given.num_cpus,
        "name": plan.task_name,
        "max_retries": given.retries,
        "retry_exceptions": given.retries != 0,
        **place.options(),
    }
    if given.num_gpus:
        options["num_gpus"] = given.num_gpus
    if given.memory:
        options["memory"] = given.memory
    if resources:
        options["resources"] = resources
    env = {name: value for name, value in (("env_vars", given.env), ("pip", given.pip)) if value}
    if env:
        options["runtime_env"] = env
    return options
