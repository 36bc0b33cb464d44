"""Concurrency groups of an actor: which of its calls may start. Pure.

Each group has its own queue and its own bound, and knows nothing of the others: a group that is full of slow calls holds up
nobody but itself. Within a group, calls of one caller start in the order in which they came, unless the actor runs its calls
out of order; a call whose arguments are on their way then holds up only itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from nbray.ids import ProcessId, TaskId
from nbray.wire.messages import SYSTEM_GROUP, PushCall, PushTask


class Sent(msgspec.Struct, gc=False):
    """A task or call that is here and has not reported."""

    push: PushTask | PushCall
    ready: bool
    running: bool = False
    cancelled: bool = False


class Group:
    """`limit` calls at once; the others wait in the order of their arrival."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: dict[TaskId, Sent] = {}


class Groups:
    """The groups of one actor by name; "" is the one of methods that name none."""

    def __init__(self, concurrency: int, named: Mapping[str, int], *, unordered: bool) -> None:
        self.unordered = unordered
        self.groups = {"": Group(concurrency), SYSTEM_GROUP: Group(1)} | {name: Group(limit) for name, limit in named.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.groups

    def add(self, name: str, sent: Sent) -> None:
        self.groups[name].waiting[sent.push.task] = sent

    def startable(self, name: str) -> Sequence[Sent]:
        """Calls of the group that start now, in their order: each counts as running from here on."""
        group = self.groups[name]
        if not group.waiting or group.running >= group.limit:
            return ()
        held_back: set[ProcessId] = set()
        begun: list[Sent] = []
        for sent in group.waiting.values():
            if group.running >= group.limit:
                break
            caller = sent.push.owner.process
            if not sent.ready:
                if not self.unordered:
                    held_back.add(caller)  # this caller's later calls wait with it, other callers' do not
            elif caller not in held_back:
                group.running += 1
                begun.append(sent)
        for sent in begun:
            del group.waiting[sent.push.task]
        return begun

    def over(self, name: str, sent: Sent) -> None:
        """The call has ended, or will never start."""
        group = self.groups[name]
        if group.waiting.pop(sent.push.task, None) is None:
            group.running -= 1

    def check(self) -> None:
        for name, group in self.groups.items():
            assert 0 <= group.running <= group.limit, f"group {name!r} runs {group.running} of {group.limit}"


def group_of(push: PushTask | PushCall) -> str:
    return push.group if isinstance(push, PushCall) else ""
