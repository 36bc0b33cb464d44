"""User code as the simulator knows it: how long it takes, what it submits and waits for, what it returns, how it fails.

A program's value is a number: its own, plus the values of its arguments, of the references inside its arguments if it reads
them, and of its children if it waits for them. So everybody can say what an object must contain, and nobody needs to run it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from nbray.sched.resources import UNIT
from nbray.wire.messages import Shape


class Program(msgspec.Struct, frozen=True, array_like=True):
    """One task, or one call of an actor."""

    number: int = 1  #: what it adds to its value
    duration_s: float = 0.01
    function: int = 0  #: programs of one function are taken to be alike in duration
    stored_bytes: int = 0  #: its result lies in the object store, of this size (a multiple of 8); 0: in the message
    cpus: float = 1.0
    children: list[Program] = []  #: submitted in this order
    gets: bool = True  #: waits for its children; else it returns their references
    nested: Literal["ignore", "read", "return", "keep"] = "ignore"  #: what becomes of references inside its arguments
    retries: int = 3  #: -1: for ever
    retry_exceptions: bool = False
    raises: int = 0  #: so many executions end with an exception
    crashes: int = 0  #: so many executions end with the process
    exits: bool = False  #: of an actor: exit_actor()
    stubborn: bool = False  #: goes on when it is interrupted
    yields: int = 0  #: items of a generator, each as long on its way as the program takes; item i is the program's number + 1 + i
    window: int = -1  #: items that may wait to be taken
    max_calls: int = 0  #: so many runs of its function end the worker; 0: none do
    group: str = ""  #: of an actor: the concurrency group of the call

    @property
    def shape(self) -> Shape:
        return Shape({"CPU": round(self.cpus * UNIT)} if self.cpus else {})

    @property
    def key(self) -> str:
        return f"cpus={self.cpus:g}"

    @property
    def failing(self) -> bool:
        """Whether it, or what it waits for, fails by its own doing, with no fault from outside."""
        allowed = self.retries if self.retry_exceptions else 0
        if 0 <= allowed < self.raises or 0 <= self.retries < self.crashes:
            return True
        return self.gets and any(child.failing for child in self.children)

    @property
    def violent(self) -> bool:
        """Whether it, or what it submits, ends a process."""
        return self.crashes > 0 or self.exits or any(child.violent for child in self.children)

    @property
    def certain(self) -> bool:
        """Whether it succeeds whatever befalls workers and nodes, as long as its arguments do and its owner lives."""
        return self.retries == -1 and not self.failing and not self.exits and all(child.certain for child in self.children)

    def value(self) -> int:
        """Its value, without what arguments add."""
        return self.number + (sum(child.value() for child in self.children) if self.gets else 0)


class ActorProgram(msgspec.Struct, frozen=True, array_like=True):
    """An actor class and its creation."""

    cpus: float = 0.0
    init_s: float = 0.02
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int = 1
    raises: bool = False  #: in `__init__`
    name: str = ""
    groups: dict[str, int] = {}
    unordered: bool = False


encode = msgspec.msgpack.Encoder().encode
decode_program = msgspec.msgpack.Decoder(Program).decode
decode_actor = msgspec.msgpack.Decoder(ActorProgram).decode


def payload_of(number: int, size: int) -> bytes:
    """The bytes of a stored value: the number, again and again, so that a byte of another object shows."""
    return number.to_bytes(8, "big", signed=True) * (size // 8)


def number_in(payload: bytes) -> int | None:
    """The number of a stored value; None if these bytes are no value."""
    first = payload[:8]
    return int.from_bytes(first, "big", signed=True) if len(payload) >= 8 and first * (len(payload) // 8) == payload else None
