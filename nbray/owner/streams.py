"""Streams: what the generators that this process submitted have yielded, and how far their consumers have come.

    item i of task T is the object T, 1 + i; the object T, 0 is the task's end (`completed()`)

           taken      known
             |          |
    . . . . [x][x][x][x](?)        The object at `known` is there before its item is. Whoever waits for "the next item or the
                                   end" waits for that object: it becomes the item, the error that ended the task, or OVER.

While somebody may take them, the stream holds the objects from `taken` to `known`; what is taken, the taker holds. Items that
nobody can take are let go as they come. An attempt that repeats another yields the same items: what is known is not taken twice,
and what was lost with its node is filled in.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from nbray.ids import Address, NodeId, ObjectId, TaskId, index_of, object_id, task_of
from nbray.machine import Effect, Send
from nbray.owner import obituary
from nbray.owner.objects import ObjectTable
from nbray.owner.records import DONE, FORGOTTEN, NOTHING, PUSHED, QUEUED, WAITING, NextItem, OwnedObject, OwnedTask
from nbray.wire.messages import Failure, ItemsTaken, ItemYielded, PushTask, Streaming, Value

#: More than any stream has: the producer waits for nobody.
ALL = 2**62
#: Stored items that a worker may have on their way when it dies: more than the microseconds of a message's way allow.
SEALED_UNHEARD = 8
OVER = Value(failure=Failure("ObjectRefStreamEndOfStreamError", message="the generator has no more items"))


class Stream(msgspec.Struct, gc=False):
    """One generator task, while somebody may take its items or some of them may have to be made again."""

    task: OwnedTask
    known: int = 0  #: items that came, the error that ended the task among them
    taken: int = 0
    came: int = 0  #: items that the latest attempt has got to
    held: bool = True  #: somebody may take the rest
    ended: bool = False
    tell: bool = False  #: the producer counts what is taken
    kept: set[int] | None = None  #: returns in a store: the task can make them again
    lost: set[int] | None = None  #: of these, the ones that the next attempts are to fill in
    vain: dict[int, set[NodeId]] | None = None  #: returns without an object of which an attempt that is over may have left copies


class StreamTable:
    """Steps streams; appends effects to `out`."""

    def __init__(self, objects: ObjectTable, out: list[Effect]) -> None:
        self.objects = objects
        self.out = out
        self.streams: dict[TaskId, Stream] = {}
        self.late = 0
        self.where: Callable[[OwnedTask], Address | None]  #: the worker that runs a pushed task

    def begin(self, task: OwnedTask) -> None:
        """A generator was submitted; its end is an object already."""
        stream = self.streams[task.id] = Stream(task)
        # An error is the last item too, and it is that one that nobody may have looked at.
        self.objects.objects[object_id(task.id)].seen = True
        self._open(stream)

    def terms(self, task: OwnedTask) -> Streaming:
        """What the attempt that is about to be pushed is told."""
        stream = self.streams[task.id]
        terms = task.push.stream
        assert terms is not None
        have = max(0, min(stream.lost) - 1) if stream.lost else stream.known
        stream.came = have
        if have == terms.have and stream.taken == terms.taken and stream.held:
            return terms
        return msgspec.structs.replace(terms, have=have, taken=stream.taken if stream.held else ALL)

    def pushed(self, task: OwnedTask) -> PushTask:
        assert isinstance(task.push, PushTask)
        return msgspec.structs.replace(task.push, stream=self.terms(task))

    # ------------------------------------------------------------------------------------------ items

    def yielded(self, event: ItemYielded, task: OwnedTask | None) -> None:
        """An item has come. `task` is the task that it comes from, if that is not over."""
        each = object_id(event.task, 1 + event.index)
        if task is None or task.push.attempt != event.attempt or task.state != PUSHED:
            self.late += 1
            self._refuse_late(task, each, event.value)
            return
        stream = self.streams[event.task]
        stream.came = event.index + 1
        if task.cancelled and not _is_dynamic(task):
            self._refuse(each, event.value)  # what comes next is that it was cancelled
            return
        obj = self.objects.objects.get(each)
        if event.index == stream.known and not stream.ended:
            stream.known += 1
            if stream.held:
                self._open(stream)
        if event.tell and not stream.tell:
            stream.tell = True
            if stream.taken or not stream.held:
                self._tell(stream)
        if obj is None or obj.value is not None:
            self._refuse(each, event.value)
        else:
            self._set(stream, obj, event.value)

    def _open(self, stream: Stream) -> None:
        """There is an object for whoever waits for what comes next."""
        push = stream.task.push
        obj = self.objects.own(object_id(push.task, 1 + stream.known), push.cell, stream.task.line)
        for node in sorted(stream.vain.pop(1 + stream.known, ()) if stream.vain else ()):
            self.objects.sealed_in_vain(obj.id, node)
        if stream.ended:
            self.objects.set_value(obj, OVER, counted=False)

    def _set(self, stream: Stream, obj: OwnedObject, value: Value) -> None:
        task, index = stream.task, index_of(obj.id)
        if stream.lost:
            stream.lost.discard(index)
        if value.location is not None:
            obj.once = task.unrepeatable()
            if not obj.once:
                obj.task = task
                if stream.kept is None:
                    stream.kept = set()
                stream.kept.add(index)
        self.objects.set_value(obj, value)

    def _refuse(self, each: ObjectId, value: Value) -> None:
        self.objects.give_back(value.contains)
        if value.location is not None:
            self.objects.sealed_in_vain(each, value.location.node)

    def _refuse_late(self, task: OwnedTask | None, each: ObjectId, value: Value) -> None:
        """An item of an attempt that is over. The one that follows may still seal it: a store drops what comes after its end."""
        if task is None or value.location is None:
            self._refuse(each, value)
            return
        self.objects.give_back(value.contains)
        self._in_vain(self.streams[task.id], index_of(each), value.location.node)

    def _in_vain(self, stream: Stream, index: int, node: NodeId) -> None:
        """There may be a copy that no attempt stands for: it goes with the item, or with the stream."""
        each = object_id(stream.task.id, index)
        if each in self.objects.objects or index <= stream.known:
            self.objects.sealed_in_vain(each, node)
            return
        if stream.vain is None:
            stream.vain = {}
        stream.vain.setdefault(index, set()).add(node)

    # ------------------------------------------------------------------------------------------ taking

    def ask(self, task: TaskId) -> None:
        """The next item for whoever asks, who holds it from now on."""
        stream = self.streams[task]
        each = object_id(task, 1 + stream.taken)
        if stream.taken < stream.known:
            stream.taken += 1
            if stream.tell:
                self._tell(stream)
            self.out.append(NextItem(each, "TAKEN"))
        else:
            self.out.append(NextItem(each, "OVER" if stream.ended else "PENDING"))

    def missed(self, answer: NextItem) -> None:
        """Who asked does not know: the next to ask has the item, unless a later one is taken already."""
        if answer.state != "TAKEN":
            return
        stream = self.streams.get(task_of(answer.object))
        if stream is not None and stream.held and stream.taken == index_of(answer.object):
            stream.taken -= 1
        else:
            self.objects.drop([answer.object])

    def next_of(self, task: TaskId) -> ObjectId | None:
        """The object to wait for before the next item can be taken; None when all is taken."""
        stream = self.streams[task]
        return None if stream.ended and stream.taken == stream.known else object_id(task, 1 + stream.taken)

    def _tell(self, stream: Stream) -> None:
        where = self.where(stream.task) if stream.task.state == PUSHED else None
        if where is not None:
            self.out.append(Send(where, ItemsTaken(stream.task.id, stream.taken if stream.held else ALL)))

    def drop(self, task: TaskId) -> None:
        """Nobody takes the rest: it goes, and the producer waits for nobody."""
        stream = self.streams.get(task)
        if stream is None or not stream.held:
            return
        stream.held = False
        if stream.tell:
            self._tell(stream)
        self.objects.drop([object_id(task, 1 + index) for index in range(stream.taken, stream.known + 1)])
        self._forget(stream)

    # ------------------------------------------------------------------------------------------ the end

    def end(self, task: OwnedTask, value: Value, raised: bool) -> None:
        """The task is over: `value` is what it returned, None or the collection of its items, or why it failed.

        `raised`: by the generator's own code. Then the error is the last item, and the task's end is an end like others.
        """
        stream = self.streams[task.id]
        dynamic = _is_dynamic(task)
        if stream.lost:
            self._end_again(stream, value.failure)
        if not stream.ended:
            stream.ended = True
            if task.cancelled and value.failure is None and not dynamic:
                self._refuse(object_id(task.id), value)
                value = Value(failure=obituary.cancelled(task, ran=True))  # it went on all the same, and its items were not taken
            self._last(stream, value.failure)
        end = self.objects.objects.get(object_id(task.id))
        if end is None or end.value is not None:
            self._refuse(object_id(task.id), value)
        elif raised and not dynamic:
            self.objects.set_value(end, NOTHING)
        else:
            self._set(stream, end, value)
        vain, stream.vain = stream.vain, None
        for index in sorted(vain or ()):
            for node in sorted((vain or {})[index]):
                self.objects.sealed_in_vain(object_id(task.id, index), node)
        if dynamic:
            self.drop(task.id)  # whoever has the collection holds its items
        self._forget(stream)

    def _last(self, stream: Stream, failure: Failure | None) -> None:
        """Whoever waits for the next item has the error, once, or is told that there is none."""
        last = self.objects.objects.get(object_id(stream.task.id, 1 + stream.known))
        if failure is not None:
            stream.known += 1
            if stream.held:
                self._open(stream)
        if last is not None:
            self.objects.set_value(last, OVER if failure is None else Value(failure=failure), counted=False)

    def _end_again(self, stream: Stream, failure: Failure | None) -> None:
        """An attempt that was to make lost items again did not get to them: they will not come."""
        assert stream.lost is not None
        for index in sorted(stream.lost):
            if failure is None and index <= stream.came:
                continue  # lost after the attempt had passed it
            stream.lost.discard(index)
            obj = self.objects.objects[object_id(stream.task.id, index)]
            fewer = (
                f"{stream.task.push.name} yielded {index} items or more, and {stream.came} when it ran again to make lost ones "
                "again: a generator that is retried must yield the same items"
            )
            said = failure or Failure("StreamingGeneratorReplayInconsistentError", message=fewer)
            self.objects.set_value(obj, Value(failure=said), counted=False)

    def attempt_lost(self, task: OwnedTask, node: NodeId) -> None:
        """The worker is gone. It may have sealed items and died before it could say so: they go when their objects go."""
        stream = self.streams[task.id]
        for index in range(stream.came, stream.came + SEALED_UNHEARD):
            self._in_vain(stream, 1 + index, node)

    def lose(self, task: OwnedTask, obj: OwnedObject) -> None:
        """The value of a return is lost, and the task is to run again for it, or runs."""
        stream = self.streams[task.id]
        if stream.lost is None:
            stream.lost = set()
        stream.lost.add(index_of(obj.id))

    def give_up(self, task: OwnedTask) -> None:
        """What was lost cannot be made again."""
        stream = self.streams[task.id]
        lost, stream.lost = stream.lost, None
        for index in sorted(lost or ()):
            obj = self.objects.objects[object_id(task.id, index)]
            obj.once = task.unrepeatable() or FORGOTTEN
            failure = obituary.lost(obj, f"{task.push.name} yielded it, and its only copy is gone with its node")
            self.objects.set_value(obj, Value(failure=failure), counted=False)
        self._forget(stream)

    def has_lost(self, task: OwnedTask) -> bool:
        stream = self.streams.get(task.id)
        return stream is not None and bool(stream.lost)

    def may_repeat(self, task: OwnedTask) -> bool:
        """Whether returns of this task are there that it may have to make again."""
        stream = self.streams.get(task.id)
        return stream is not None and bool(stream.kept)

    def freed(self, obj: OwnedObject) -> None:
        assert obj.task is not None
        stream = self.streams.get(obj.task.id)
        if stream is not None and stream.kept is not None:
            stream.kept.discard(index_of(obj.id))
            self._forget(stream)

    def never_again(self, task: OwnedTask) -> None:
        """The task is over, and will not be repeated."""
        stream = self.streams[task.id]
        for index in stream.kept or ():
            obj = self.objects.objects[object_id(task.id, index)]
            obj.task, obj.once = None, task.unrepeatable() or FORGOTTEN
        stream.kept = None
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        over = stream.ended and stream.task.state not in (WAITING, QUEUED, PUSHED)
        if over and not stream.held and not stream.kept and not stream.lost:
            self.streams.pop(stream.task.id, None)

    def check(self) -> None:
        for task, stream in self.streams.items():
            assert stream.taken <= stream.known, task.hex()
            if stream.held:
                for index in range(stream.taken, stream.known + 1):
                    obj = self.objects.objects[object_id(task, 1 + index)]
                    assert obj.count > 0, obj.id.hex()
                    assert index == stream.known or obj.value is not None or index + 1 in (stream.lost or ()), obj.id.hex()
                    assert index < stream.known or stream.ended == (obj.value is not None), obj.id.hex()
            assert stream.ended or stream.task.state != DONE, task.hex()


def _is_dynamic(task: OwnedTask) -> bool:
    return task.push.stream is not None and task.push.stream.dynamic
