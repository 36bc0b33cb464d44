"""Actors as their callers see them: where each one lives now, and the calls on their way to it.

    UNKNOWN -- WatchActor --> PENDING -> ALIVE -> RESTARTING -> ALIVE ... -> DEAD      (the head says which)

Calls of one caller begin in the order in which they were made, in each concurrency group by itself: a call whose arguments are
not ready holds back those behind it, unless the actor runs its calls out of order. Each life of the actor (epoch) counts a
caller's calls from 0, and the receiver starts them in that order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from nbray.ids import ActorId, Address, NodeId, ProcessId, object_id
from nbray.machine import Effect, Send
from nbray.owner import obituary
from nbray.owner.objects import ObjectTable
from nbray.owner.records import (
    NOTHING,
    PUSHED,
    QUEUED,
    ActorClient,
    ActorKilled,
    ActorKnown,
    Called,
    Notice,
    OwnedObject,
    OwnedTask,
)
from nbray.owner.tasks import TaskTable
from nbray.wire.messages import (
    ActorRejected,
    ActorUpdate,
    CancelTask,
    Failure,
    KillActor,
    PushCall,
    RegisterActor,
    ReleaseActor,
    Stuck,
    TaskDone,
    Value,
    WatchActor,
)

#: With more calls than this on their way, an actor has enough to do for as long as further ones wait for company.
BUSY = 16


class CallTable:
    """Steps actors and calls; appends effects to `out`."""

    def __init__(self, me: Address, objects: ObjectTable, tasks: TaskTable, out: list[Effect]) -> None:
        self.me = me
        self.head = Address(b"", b"")
        self.objects = objects
        self.tasks = tasks
        self.out = out
        self.actors: dict[ActorId, ActorClient] = {}
        self._known: dict[ProcessId, set[bytes]] = {}
        self._creating: dict[ActorId, tuple[OwnedTask, RegisterActor]] = {}

    def client(self, actor: ActorId, class_name: str) -> ActorClient:
        client = self.actors.get(actor)
        if client is None:
            client = self.actors[actor] = ActorClient(actor, class_name)
        return client

    # ------------------------------------------------------------------------------------------ creation

    def create(self, task: OwnedTask, register: RegisterActor) -> None:
        """The creation task's object stands for the actor: its count is the count of handles."""
        client = self.client(task.id, register.spec.class_name)
        client.owned = client.watched = True
        client.state = "PENDING"
        self._creating[task.id] = (task, register)
        self.tasks.tasks[task.id] = task
        self.objects.own(object_id(task.id), task.push.cell, task.line).seen = True
        self.tasks.pin_arguments(task)
        if task.missing == 0:
            self.tasks.arguments_ready(task)

    def route(self, task: OwnedTask, now: float) -> None:
        """A creation or a call has its arguments."""
        creating = self._creating.get(task.id)
        if creating is None:
            assert isinstance(task.push, PushCall)
            client = self.actors[task.push.actor]
            if client.waiting.pop(task.id, None) is not None:
                client.line(task).append(task)
            self._advance(client, client.line(task))
            return
        task.state = QUEUED
        register = creating[1]
        spec = msgspec.structs.replace(register.spec, dependencies=self.tasks.leases.resolved(task))
        # The arguments stay pinned while the actor may be started again; whoever made it counts for them.
        self.out.append(Send(self.head, msgspec.structs.replace(register, spec=spec)))

    # ------------------------------------------------------------------------------------------ calls

    def call(self, event: Called) -> None:
        task, push = event.task, event.task.push
        client = self.client(event.actor, event.class_name)
        self.tasks.tasks[push.task] = task
        self.objects.own_returns(task, event.objects)
        if push.stream is not None:
            self.tasks.streams.begin(task)
        over = client.failure if client.state == "DEAD" else client.killed
        if over is not None:
            self.tasks.fail(task, obituary.actor_call_lost(task, over, begun=False))
            return
        if not client.watched:
            client.watched = True
            self.out.append(Send(self.head, WatchActor(client.actor, self.me)))
        client.unordered = event.unordered
        line = client.line(task)
        line.append(task)
        if task.needs or push.contains:
            self.tasks.pin_arguments(task)
        if event.alive:
            # The call holds the actor until it has reported: a handle dropped after its last call does not cut it short.
            self.objects.hold(event.alive)
            task.pins = [*(task.pins or ()), event.alive]
        if task.needs:
            if task.missing == 0:
                self.tasks.arguments_ready(task)
        else:
            self._advance(client, line)

    def _advance_all(self, client: ActorClient) -> None:
        for line in list(client.lines.values()):
            self._advance(client, line)

    def _advance(self, client: ActorClient, line: deque[OwnedTask]) -> None:
        """Send the calls at the front of the line that have their arguments."""
        if client.state != "ALIVE" or client.killed is not None:
            return
        assert client.address is not None
        while line:
            task = line[0]
            task_id = task.push.task
            if task_id not in self.tasks.tasks:
                line.popleft()
                continue  # cancelled, or failed by an argument
            if task.needs:
                if task.missing:
                    if not client.unordered:
                        return
                    client.waiting[task_id] = line.popleft()
                    continue
                if self.tasks.lost_argument(task):
                    continue  # looked at again: it waits for the argument, or has ended
            line.popleft()
            self._push(client, client.address, task)

    def _push(self, client: ActorClient, address: Address, task: OwnedTask) -> None:
        known = self._known.get(address.process)
        if known is None:
            known = self._known[address.process] = set()
        if b"job" not in known:
            self.tasks.leases.introduce(address, known, b"")
        push: Any = task.push
        if task.needs:
            push = msgspec.structs.replace(push, dependencies=self.tasks.leases.resolved(task))
        if push.stream is not None:
            push = msgspec.structs.replace(push, stream=self.tasks.streams.terms(task))
        if push.owner.node != self.me.node:
            push = self.tasks.leases.readdressed(push)
        # Nobody else has seen this attempt, so its place in the line is filled in, and not a copy made.
        msgspec.structs.force_setattr(push, "epoch", client.epoch)
        msgspec.structs.force_setattr(push, "sequence", client.sequence)
        task.push = push
        client.sequence += 1
        client.running[push.task] = task
        task.state = PUSHED
        self.out.append(Send(address, push, len(client.running) > BUSY))

    def reported(self, event: TaskDone, task: OwnedTask) -> None:
        """The actor's process still holds references from the call's arguments: count it."""
        assert isinstance(task.push, PushCall)
        address = self.actors[task.push.actor].address or self.me
        self.objects.pass_on(event.borrows, Address(address.node, event.worker))

    def done(self, event: TaskDone, now: float) -> None:
        """A call's report. Late ones (an old epoch, a cancelled call) were dropped by the caller of this."""
        task = self.tasks.tasks[event.task]
        assert isinstance(task.push, PushCall)
        client = self.actors[task.push.actor]
        client.running.pop(task.id, None)
        self.tasks.take_values(event, task, (client.address or self.me).node)

    def retry(self, task: OwnedTask) -> None:
        """An exception that the call may repeat, before calls that have not been sent: one of them may wait for its result."""
        assert isinstance(task.push, PushCall)
        client = self.actors[task.push.actor]
        client.running.pop(task.id, None)
        task.use_retry()
        task.push = msgspec.structs.replace(task.push, attempt=task.push.attempt + 1)
        task.state = "WAITING"
        client.line(task).appendleft(task)
        self._advance(client, client.line(task))

    def cancel(self, task: OwnedTask, recursive: bool) -> None:
        task.cancelled = True
        assert isinstance(task.push, PushCall)
        client = self.actors[task.push.actor]
        if task.state == PUSHED and client.address is not None:
            self.out.append(Send(client.address, CancelTask(task.id, recursive)))
        elif task.state != PUSHED:
            self.tasks.fail(task, obituary.cancelled(task))
            client.waiting.pop(task.id, None)
            self._advance(client, client.line(task))

    def kill(self, event: ActorKilled) -> None:
        """For who kills it the actor is dead at once; what is under way ends when the head has said so, or by its report."""
        self.out.append(Send(self.head, KillActor(event.actor, event.no_restart)))
        client = self.client(event.actor, event.class_name)
        if event.no_restart and client.state != "DEAD":
            client.killed = obituary.actor_killed(event.actor, client.class_name)

    def fail_early(self, task: OwnedTask, failure: Failure) -> None:
        """An argument failed: the task, the call, or the actor that was to be made of it."""
        if task.id in self._creating:
            self.tasks.tasks.pop(task.id, None)
            self.died(self.actors[task.id], failure)
            return
        self.tasks.fail(task, failure)
        if isinstance(task.push, PushCall):
            client = self.actors[task.push.actor]
            client.waiting.pop(task.id, None)
            self._advance(client, client.line(task))

    # ------------------------------------------------------------------------------------------ the head's word

    def rejected(self, event: ActorRejected) -> None:
        client = self.actors.get(event.actor)
        if client is not None and client.state != "DEAD":
            self.died(client, Failure("ActorDiedError", message=event.reason, fields={"actor": event.actor.hex()}))

    def updated(self, event: ActorUpdate) -> None:
        client = self.actors.get(event.actor)
        if client is None or client.state == "DEAD" or event.epoch < client.epoch:
            return
        self.out.append(ActorKnown(event.actor, event.state))
        client.state = event.state
        self._waits(client, event.waiting)
        if event.state == "ALIVE":
            if event.epoch != client.epoch:
                self._lose_running(client, final=False)
                client.epoch, client.sequence = event.epoch, 0
            client.address = event.address
            self._created(client, NOTHING)
            self._advance_all(client)
        elif event.state == "RESTARTING":
            self._lose_running(client, final=False)
        elif event.state == "DEAD":
            self.died(client, event.failure or Failure("ActorDiedError", message=f"the actor {client.class_name} is dead"))

    def _waits(self, client: ActorClient, why: str) -> None:
        """Who called it, or asked for it, is told why it is not there."""
        if why and why != client.why:
            creating = self._creating.get(client.actor)
            asked = [task for line in client.lines.values() for task in line][:1] + ([creating[0]] if creating else [])
            if asked:
                self.out.append(Notice(asked[0].push.cell, "waiting", f"Actor {client.class_name}: {why}"))
        client.why = why

    def stuck(self, cell: str) -> Iterator[Stuck]:
        """Calls of a cell whose actor is not placed, by actor."""
        for client in self.actors.values():
            if client.why and any(task.push.cell == cell for line in client.lines.values() for task in list(line)[:1]):
                yield Stuck(client.class_name, f"Actor {client.class_name}: {client.why}")

    def why_queued(self, task: OwnedTask) -> str:
        """Why the actor that the call is for is not there; nothing when it is, or when nobody has said."""
        client = self.actors.get(task.push.actor) if isinstance(task.push, PushCall) else None
        return f"actor {client.class_name}: {client.why}" if client is not None and client.why else ""

    def died(self, client: ActorClient, failure: Failure) -> None:
        client.state, client.failure = "DEAD", failure
        self._created(client, Value(failure=failure))
        self._lose_running(client, final=True)
        waiting = [task for line in client.lines.values() for task in line] + list(client.waiting.values())
        for line in client.lines.values():
            line.clear()
        client.waiting.clear()
        for task in waiting:
            if task.id in self.tasks.tasks:
                self.tasks.fail(task, obituary.actor_call_lost(task, failure, begun=False))
        creating = self._creating.pop(client.actor, None)
        if creating is not None:
            self.tasks.unpin(creating[0])

    def _created(self, client: ActorClient, value: Value) -> None:
        creating = self._creating.get(client.actor)
        obj = self.objects.objects.get(object_id(client.actor))
        self.tasks.tasks.pop(client.actor, None)
        if creating is not None:
            creating[0].state = "DONE"
            if creating[0].missing:
                self.tasks.awaits_no_more(creating[0])
        if client.owned and obj is not None and obj.value is None:
            self.objects.set_value(obj, value)

    def _lose_running(self, client: ActorClient, final: bool) -> None:
        """The life that these calls were sent to is over: again in the next, or failed."""
        if client.address is not None:
            self._known.pop(client.address.process, None)
        lost, client.running = list(client.running.values()), {}
        for task in reversed(lost):
            if client.address is not None:
                self._sealed_in_vain(task, client.address.node)
            if task.cancelled:
                self.tasks.fail(task, obituary.cancelled(task))
            elif not final and task.retries != 0:
                task.use_retry()
                task.push = msgspec.structs.replace(task.push, attempt=task.push.attempt + 1)
                task.state = "WAITING"
                client.line(task).appendleft(task)
            else:
                self.tasks.fail(task, self._call_lost(client, task, final))

    def _sealed_in_vain(self, task: OwnedTask, node: NodeId) -> None:
        """It may have sealed a result and died before it could say so."""
        for index in range(task.push.returns):
            self.objects.sealed_in_vain(object_id(task.id, index), node)
        if task.push.stream is not None:
            self.tasks.streams.attempt_lost(task, node)

    def _call_lost(self, client: ActorClient, task: OwnedTask, final: bool) -> Failure:
        if final and client.failure is not None:
            return obituary.actor_call_lost(task, client.failure, begun=True)
        message = (
            f"The actor is restarting: {client.class_name} lost its process while {task.push.name} ran, and the call has no "
            "retries left"
        )
        unavailable = Failure("ActorUnavailableError", message=message, fields={"actor": client.actor.hex()})
        return obituary.actor_call_lost(task, unavailable, begun=True)

    def object_freed(self, obj: OwnedObject) -> None:
        """No handle is left: the actor ends after its pending calls."""
        client = self.actors.get(obj.id[:16])
        if client is None or not client.owned or obj.id != object_id(client.actor):
            return
        if client.state != "DEAD":
            self.out.append(Send(self.head, ReleaseActor(client.actor)))

    def cluster_gone(self, failure: Failure) -> None:
        for client in self.actors.values():
            if client.state != "DEAD":
                self.died(client, failure)

    def check(self) -> None:
        for client in self.actors.values():
            for task in client.running.values():
                assert task.state == PUSHED, task.id.hex()
            assert client.state == "ALIVE" or not client.running, client.class_name
            assert client.unordered or not client.waiting, client.class_name
            assert not client.waiting.keys() - self.tasks.tasks.keys(), client.class_name
