"""Placement groups as this process asks for them, and which of them what it submits goes to."""

from __future__ import annotations

from nbray.engines.port import GroupChoice, GroupOptions
from nbray.ids import Address
from nbray.owner.questions import Questions
from nbray.sched.resources import fits, to_floats
from nbray.wire.messages import Amounts, CreateGroup, GroupSpec


class GroupDesk:
    """`here` is the group that the running task or actor is in, and whether it captures its children; None: in none."""

    def __init__(self, questions: Questions) -> None:
        self.here: tuple[bytes, bool] | None = None
        self._questions = questions
        self._bundles: dict[bytes, list[Amounts]] = {}  #: of groups that children were captured by

    def create(self, group: bytes, options: GroupOptions, job: Address, namespace: str) -> None:
        """Register the group with the head. Raises ValueError with the head's words when the name is taken."""
        runtime = self._questions.runtime
        spec = GroupSpec(
            group, options.bundles, options.strategy, runtime.me, job, options.name, namespace, options.detached,
            options.selectors, options.target,
        )  # fmt: skip
        question = self._questions.open()
        runtime.post(runtime.state.calls.head, CreateGroup(spec, question.request))
        answer = self._questions.wait(question)
        if answer.error:
            raise ValueError(answer.error)

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
            told = self._questions.ask("groups", {"group": group})
            self._bundles[group] = told[0]["bundles"] if told else []
        bundles = self._bundles[group]
        for demand in demands:
            if bundles and not any(fits(bundle, demand) for bundle in bundles):
                raise ValueError(cannot_fit(name, demand, bundles))


def cannot_fit(name: str, demand: Amounts, bundles: list[Amounts]) -> str:
    """What is said of work that is larger than every bundle of its group."""
    return (
        f"Cannot schedule {name} with the placement group because the resource request {to_floats(demand)} cannot fit into any "
        f"bundles for the placement group, {[to_floats(bundle) for bundle in bundles]}. Ask for less, or say "
        "scheduling_strategy='DEFAULT' to run it outside of the group."
    )
