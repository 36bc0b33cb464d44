"""Placement groups as this process asks for them, and which of them what it submits goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbray.engines.port import GroupChoice, GroupOptions
from nbray.ids import object_id
from nbray.owner.records import GroupAwaited, GroupGivenUp, GroupMade
from nbray.refs import ObjectRef
from nbray.sched.resources import fits, to_floats
from nbray.wire.messages import Amounts, CreateGroup, GroupSpec, RemoveGroup, Shape

if TYPE_CHECKING:
    from nbray.engines.native import NativeEngine


class GroupDesk:
    """Implements engines/port.py:GroupEngine. `here` is the group that the running task or actor is in, and whether it captures its
    children; None: in none."""

    def __init__(self, engine: NativeEngine) -> None:
        self.here: tuple[bytes, bool] | None = None
        self._engine = engine
        self._bundles: dict[bytes, list[Amounts]] = {}  #: of groups that children were captured by

    def enter(self, group: tuple[bytes, bool] | None) -> None:
        """What runs in this process from now on is in that group, or in none; whether it captures what it submits."""
        if group != self.here:
            self.here = group
            self._engine._shapes.clear()  # they depend on it

    def live_in(self, placement: Shape) -> None:
        """The same, for the actor that this process becomes."""
        self.enter((placement.group, placement.capture) if placement.group else None)

    def create(self, options: GroupOptions) -> bytes:
        engine, runtime = self._engine, self._engine.runtime
        runtime.wait_attached()
        group = engine._ids.next()
        spec = GroupSpec(
            group, options.bundles, options.strategy, runtime.me, engine.job, options.name, engine.facts_here().namespace,
            options.detached, options.selectors, options.target,
        )  # fmt: skip
        question = engine.questions.open()
        runtime.post(runtime.state.calls.head, CreateGroup(spec, question.request))
        answer = engine.questions.wait(question)
        if answer.error:
            raise ValueError(answer.error)
        runtime.step(GroupMade(group))
        return group

    def remove(self, group: bytes) -> None:
        runtime = self._engine.runtime
        runtime.wait_attached()
        runtime.post(runtime.state.calls.head, RemoveGroup(group))
        runtime.step(GroupGivenUp(group))

    def ready(self, group: bytes, value: Any) -> ObjectRef[Any]:
        engine, runtime = self._engine, self._engine.runtime
        runtime.wait_attached()
        pickled, contains = engine._packer.dumps(value, "placement group", "value")
        new = object_id(engine._ids.next())
        runtime.step(GroupAwaited(new, group, engine.sealed(new, runtime.me, pickled, contains, value), engine.current_cell()))
        return ObjectRef(new, runtime.me, engine)

    def choose(self, choice: GroupChoice, demands: list[Amounts], name: str) -> tuple[bytes, int, bool]:
        """(group, bundle, capture) for work that says `choice`. Raises ValueError when the group that captures it has no bundle
        of that size."""
        inherited = self.here if self.here is not None and self.here[1] else None
        capture = inherited is not None if choice.capture is None else choice.capture
        if not choice.inherits or inherited is None:
            return choice.group, choice.bundle, capture and bool(choice.group)
        group = inherited[0]
        self._check_fit(group, demands, name)
        return group, -1, True

    def _check_fit(self, group: bytes, demands: list[Amounts], name: str) -> None:
        if group not in self._bundles:
            told = self._engine.questions.ask("groups", {"group": group})
            self._bundles[group] = told[0]["bundles"] if told else []
        bundles = self._bundles[group]
        for demand in demands:
            if bundles and not any(fits(bundle, demand) for bundle in bundles):
                raise ValueError(
                    f"Cannot schedule {name} with the placement group because the resource request {to_floats(demand)} cannot fit "
                    f"into any bundles for the placement group, {[to_floats(bundle) for bundle in bundles]}. Ask for less, or say "
                    "scheduling_strategy='DEFAULT' to run it outside of the group."
                )
