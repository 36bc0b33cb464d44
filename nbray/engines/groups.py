"""Placement groups as this process asks for them, and which of them what it submits goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbray.engines.port import GroupChoice, GroupOptions
from nbray.ids import object_id
from nbray.owner.groups import PLACED
from nbray.owner.records import GroupAwaited, GroupGivenUp, GroupMade
from nbray.refs import ObjectRef
from nbray.sched.resources import fits, to_floats
from nbray.wire.messages import Amounts, CreateGroup, GroupSpec, GroupUpdate, Shape

if TYPE_CHECKING:
    from nbray.engines.native import NativeEngine


class GroupDesk:
    """Implements engines/port.py:GroupEngine. `here` is the group that the running task or actor is in, and whether it captures its
    children; None: in none."""

    def __init__(self, engine: NativeEngine) -> None:
        self.here: tuple[bytes, bool] | None = None
        self._engine = engine
        self._bundles: dict[bytes, list[Amounts]] = {}  #: of groups that children were captured by
        self._unconfirmed: set[bytes] = set()  #: the head was sent these, and may not have read it yet

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
        if not options.name:  # nothing can be wrong with it: who makes many need not wait for a word about each
            self._unconfirmed.add(group)
            runtime.step(GroupMade(CreateGroup(spec)))
            return group
        question = engine.questions.open()
        runtime.step(GroupMade(CreateGroup(spec, question.request)))
        answer = engine.questions.wait(question)
        if answer.error:
            runtime.step(GroupUpdate(group, "REMOVED"))
            raise ValueError(answer.error)
        return group

    def confirm(self, group: bytes) -> None:
        """Return when the head knows the group. Others whom this process tells of it reach the head by other ways, and sooner."""
        if group in self._unconfirmed:
            if not self._engine.runtime.state.groups.state(group):
                self._engine.questions.ask("groups", {"group": group})  # behind CreateGroup
            self._unconfirmed.discard(group)

    def remove(self, group: bytes) -> None:
        runtime = self._engine.runtime
        runtime.wait_attached()
        self._unconfirmed.discard(group)
        runtime.step(GroupGivenUp(group))

    def is_placed(self, group: bytes) -> bool:
        return self._engine.runtime.state.groups.state(group) in PLACED

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
            self.confirm(choice.group)
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
