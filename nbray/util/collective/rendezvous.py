"""The actor where the members of a group meet. Arrays do not pass through it: members put them into the object store and leave
references, small ones the values themselves.

    members: joining -> complete -> (one left, or died) broken -> all gone: the actor ends

An exchange is complete when every rank has brought its part, under the same label; each then gets all parts. Whoever waits
for a member that died or left is told so, within about DEATHS_S.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from nbray import session
from nbray.actors import ActorClass, ActorHandle
from nbray.util.state.asking import Asker

NAMESPACE = "nbray.util.collective"
DEATHS_S = 1.0  #: between looks at who lives
LOOK_S = 5.0  #: for one look

#: What a call comes to: (True, value), or (False, why not). Not raised: an error of a group is the caller's to word.
Answer = tuple[bool, Any]


class _Meeting:
    """One exchange. `done` has everybody's part, by rank."""

    def __init__(self, label: Any) -> None:
        self.label = label
        self.parts: dict[int, Any] = {}
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.left = 0  #: members that have had it


class _Rendezvous:
    """One group of `world_size` ranks."""

    def __init__(self, world_size: int) -> None:
        self._size = world_size
        self._members: dict[int, tuple[str, str]] = {}  #: rank -> node and process, hex
        self._gone: set[int] = set()
        self._complete = asyncio.Event()
        self._over = asyncio.Event()
        self._broken = ""  #: why nothing can be completed any more
        self._meetings: dict[int, _Meeting] = {}
        self._letters: dict[tuple[int, int, int], asyncio.Future[Any]] = {}  #: (from, to, number) -> what was sent
        self._watching: asyncio.Task[None] | None = None

    async def join(self, rank: int, world_size: int, node: str, process: str, patience_s: float) -> Answer:
        """(True, None) when all are there; (False, None) when this group is at its end and another is to be made."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        if self._broken or self._gone:
            return False, None
        if world_size != self._size:
            return False, f"it was made for {self._size} members, and rank {rank} says {world_size}"
        if rank in self._members:
            return False, f"rank {rank} has joined it already"
        self._members[rank] = (node, process)
        if len(self._members) == self._size:
            self._complete.set()
        try:
            await asyncio.wait_for(self._complete.wait(), patience_s)
        except TimeoutError:
            missing = sorted(set(range(self._size)) - set(self._members))
            self._break(f"ranks {missing} had not joined after {patience_s:g} s")
        return (False, self._broken) if self._broken else (True, None)

    async def exchange(self, rank: int, number: int, label: Any, part: Any, patience_s: float) -> Answer:
        """Everybody's parts, by rank."""
        if self._broken:
            return False, self._broken
        meeting = self._meetings.get(number)
        if meeting is None:
            meeting = self._meetings[number] = _Meeting(label)
        if meeting.label != label:
            first = min(meeting.parts)
            self._break(f"rank {rank} calls {_said(label)} while rank {first} calls {_said(meeting.label)}")
            return False, self._broken
        meeting.parts[rank] = part
        if len(meeting.parts) == self._size:
            meeting.done.set_result([meeting.parts[r] for r in range(self._size)])
        missing = lambda: f"ranks {sorted(set(range(self._size)) - set(meeting.parts))} did not call {_said(label)}"
        answer = await self._awaited(meeting.done, patience_s, missing)
        meeting.left += 1
        if meeting.left == self._size:
            self._meetings.pop(number, None)
        return answer

    async def send(self, source: int, target: int, number: int, value: Any) -> Answer:
        if self._broken:
            return False, self._broken
        self._letter(source, target, number).set_result(value)
        return True, None

    async def receive(self, source: int, target: int, number: int, patience_s: float) -> Answer:
        letter = self._letter(source, target, number)
        if self._broken and not letter.done():
            return False, self._broken
        answer = await self._awaited(letter, patience_s, lambda: f"rank {source} sent nothing")
        self._letters.pop((source, target, number), None)
        return answer

    async def leave(self, rank: int) -> None:
        """The member has destroyed the group: for the others it is over too. The last one ends this actor."""
        self._gone.add(rank)
        self._break(f"rank {rank} left the group")
        if len(self._gone) == self._size:
            self._over.set()

    def _letter(self, source: int, target: int, number: int) -> asyncio.Future[Any]:
        key = (source, target, number)
        if key not in self._letters:
            self._letters[key] = asyncio.get_running_loop().create_future()
        return self._letters[key]

    async def _awaited(self, future: asyncio.Future[Any], patience_s: float, who: Callable[[], str]) -> Answer:
        done, _ = await asyncio.wait([future], timeout=patience_s)
        if not done:
            self._break(f"{who()} within {patience_s:g} s")
        elif not future.cancelled():
            return True, future.result()
        return False, self._broken

    def _break(self, why: str) -> None:
        """Nothing can be completed any more: tell everybody who waits. What is complete is still given out."""
        self._broken = self._broken or why
        self._complete.set()
        waiting = [meeting.done for meeting in self._meetings.values()] + list(self._letters.values())
        for future in waiting:
            future.cancel()  # does nothing to what has a result

    # -- who lives

    async def _watch(self) -> None:
        while not (self._broken and self._gone.issuperset(self._members)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), DEATHS_S)
                break
            dead = await asyncio.to_thread(_dead, set(self._members.values()))
            for rank, where in self._members.items():
                if rank not in self._gone and where in dead:
                    self._gone.add(rank)
                    self._break(f"rank {rank} died (process {where[1][:4]} of node {where[0][:4]})")
        me = session.current().self_actor()
        assert me is not None
        session.current().kill_actor(me, True)


def _dead(members: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these (node, process) have certainly ended. Of a node that does not answer nothing is known."""
    asker = Asker(session.current(), LOOK_S)
    rows = asker.workers()
    alive = {(row["node_id"], row["worker_id"]) for row in rows if row["is_alive"]}
    answered = {row["node_id"] for row in rows} | {node["node_id"] for node in asker.nodes() if not node["alive"]}
    return {member for member in members if member[0] in answered and member not in alive}


def _said(label: Any) -> str:
    return " ".join(str(part) for part in label)


def of(group: str, world_size: int) -> ActorHandle:
    """The rendezvous of that group in this namespace; the first who asks makes it."""
    name = f"{session.current().facts().namespace}/{group}"
    options = {"name": name, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached", "num_cpus": 0}
    return ActorClass(_Rendezvous, {}).options(**options).remote(world_size)
