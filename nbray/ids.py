"""Identifiers: plain `bytes`, because they are made a million times and only ever compared and sent.

    process id   8 bytes   random; a node's daemon uses the node's own id, the head uses HEAD
    node id      8 bytes   random; names one life of one node daemon (a restarted daemon has a new one)
    task id     16 bytes   the owner's process id, then a counter, big-endian
    object id   20 bytes   the task id, then the index of the return value; a put counts as a task with one return
    actor id    16 bytes   the creating task's id

So whoever holds an object id knows which process owns the object, and asks nobody.
"""

from __future__ import annotations

import itertools
import os
from typing import NamedTuple

NodeId = bytes
ProcessId = bytes
TaskId = bytes
ObjectId = bytes
ActorId = bytes
FunctionId = bytes  #: blake2b-16 of the pickled function: the same code has the same id in every process

#: The head's mailbox on the head node. Addressed as `Address(head_node, HEAD)`.
HEAD: ProcessId = b"\x00head\x00\x00\x00"

INDEX_BYTES = 4
_FIRST = b"\0" * INDEX_BYTES


class Address(NamedTuple):
    """Where a mailbox is: the node, and the process on it."""

    node: NodeId
    process: ProcessId

    def __str__(self) -> str:
        return f"{short(self.process)}@{short(self.node)}"


def new_process_id() -> ProcessId:
    return os.urandom(8)


def object_id(task: TaskId, index: int = 0) -> ObjectId:
    return task + index.to_bytes(INDEX_BYTES, "big") if index else task + _FIRST


def task_of(object_id: ObjectId) -> TaskId:
    return object_id[:16]


def owner_of(task_or_object_id: bytes) -> ProcessId:
    return task_or_object_id[:8]


def index_of(object_id: ObjectId) -> int:
    return int.from_bytes(object_id[16:], "big")


class TaskIds:
    """The task ids of one process, in order. `next()` is safe from any thread: a C iterator steps atomically."""

    __slots__ = ("_count", "_process")

    def __init__(self, process: ProcessId) -> None:
        self._process = process
        self._count = itertools.count(1)

    def next(self) -> TaskId:
        return self._process + next(self._count).to_bytes(8, "big")


def short(identifier: bytes) -> str:
    """Four characters that a person can compare. Task and object ids differ in their counter, so that is shown too.

    >>> short(bytes.fromhex("b71e004200000000"))
    'b71e'
    """
    head = identifier[:2].hex()
    return head if len(identifier) <= 8 else f"{head}#{int.from_bytes(identifier[8:16], 'big')}"
