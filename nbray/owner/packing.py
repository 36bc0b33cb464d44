"""Arguments and values into payloads: references counted, large parts put into the store, culprits named."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pickle import dumps as c_dumps  # the function itself: a task may put another into the module
from typing import Any, NamedTuple

from nbray.config import INLINE_LIMIT
from nbray.handlers import is_of_signal
from nbray.ids import Address
from nbray.owner.repeats import Repeats
from nbray.refs import ObjectRef
from nbray.serializability import path_to_culprit
from nbray.wire.messages import Held
from nbray.wire.values import ArgRef, Pickled, checksum, dumps

#: In place of the pickle of (args, kwargs): they are the value of dependency 0, because they are too large for a message.
ARGUMENTS_ARE_AN_OBJECT = b"\x02"
OF, BOTH = "argument of ", "(args, kwargs)"  #: how arguments are called where they are pickled


class Packed(NamedTuple):
    """The arguments of one task. `kept` are references made on the way, alive until the task holds them itself."""

    payload: bytes
    crc: int
    needs: list[Held] | None
    contains: list[Held]
    kept: list[ObjectRef[Any]]


NO_ARGUMENTS = Packed(b"", 0, None, [], [])
NOTHING_HELD = NO_ARGUMENTS.contains
#: Arguments that are looked at one by one before they are pickled.
FEW = 8
#: Values of these types hold no references, and the C pickler says of them all there is to say.
PLAIN = frozenset((bytes, str, int, float, bool, type(None)))
SMALL, LARGEST = 4096, 2**63


class Packer:
    """Pickles for one process. `put` stores a pickled value, which it gets too, and returns its reference."""

    def __init__(
        self,
        put: Callable[[Pickled, list[Held], Any], ObjectRef[Any]],
        owner: Callable[[ObjectRef[Any]], Address],
        say: Callable[[str], None] = lambda _text: None,
        spent: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`owner(ref)` is where its owner is now: our own node may be another than when the reference was made. `say` gets what a
        person should know about what is shipped; `spent` how long it took to pack arguments that were too large for a message."""
        self._put = put
        self._owner = owner
        self._local = threading.local()
        self._repeats = Repeats(say)
        self._spent = spent

    def lend(self, ref: ObjectRef[Any]) -> Address:
        """A reference is being pickled. In a pickle of the user's own nobody counts it: it keeps nothing alive."""
        owner = self._owner(ref)
        lent: dict[bytes, Held] | None = getattr(self._local, "lent", None)
        if lent is not None:
            lent[ref._id] = Held(ref._id, owner)
        return owner

    def dumps(self, value: Any, what: str, name: str) -> tuple[Pickled, list[Held]]:
        """Pickle `value`; also the references inside. Raises TypeError naming the path to what does not pickle."""
        if type(value) in PLAIN:
            return Pickled(c_dumps(value, 5), []), []
        before = getattr(self._local, "lent", None)
        lent: dict[bytes, Held] = {}
        self._local.lent = lent
        try:
            return dumps(value), list(lent.values())
        except Exception as error:
            if is_of_signal(error):
                raise
            raise TypeError(
                f"Could not serialize the {_culprit(what, path_to_culprit(value, name))} ({type(error).__name__}: {error})"
            ) from error
        finally:
            self._local.lent = before

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Packed:
        """Pickle (args, kwargs) with the references at top level set apart."""
        if not args and not kwargs:
            return NO_ARGUMENTS
        if not kwargs and len(args) <= FEW and all([_is_small(a) for a in args]):  # noqa: C419 -- a generator costs more
            payload = c_dumps((args, kwargs), 5)
            return Packed(payload, checksum(payload), None, NOTHING_HELD, [])
        needs: dict[bytes, int] = {}
        held: list[Held] = []

        def stand_in(ref: ObjectRef[Any]) -> ArgRef:
            index = needs.get(ref._id)
            if index is None:
                index = needs[ref._id] = len(held)
                held.append(Held(ref._id, self._owner(ref)))
            return ArgRef(index)

        args = tuple([stand_in(a) if type(a) is ObjectRef else a for a in args])
        if kwargs:
            kwargs = {k: stand_in(v) if type(v) is ObjectRef else v for k, v in kwargs.items()}
        what, began = f"{OF}{name}", time.perf_counter()
        pickled, contains = self.dumps((args, kwargs), what, BOTH)
        if pickled.size <= INLINE_LIMIT:
            payload = pickled.payload()
            return Packed(payload, checksum(payload), held or None, contains, [])
        packed = self._large(args, kwargs, what, stand_in, held)
        self._spent(time.perf_counter() - began)
        return packed

    def _large(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        what: str,
        stand_in: Callable[[ObjectRef[Any]], ArgRef],
        held: list[Held],
    ) -> Packed:
        """Over the limit: each large argument becomes an object of its own, and if that is not enough, all of them one."""
        kept: list[ObjectRef[Any]] = []
        made: dict[int, ObjectRef[Any]] = {}  # the same object twice in one call is stored once

        def set_apart(value: Any, name: str) -> Any:
            if type(value) in (ArgRef, int, float, bool, type(None)):
                return value
            ref = made.get(id(value))
            if ref is None:
                pickled, inner = self.dumps(value, what, name)
                if pickled.size <= INLINE_LIMIT:
                    return value
                self._repeats.shipped(what, name, value, pickled.size)
                ref = made[id(value)] = self._put(pickled, inner, value)
                kept.append(ref)
            return stand_in(ref)

        args = tuple([set_apart(a, f"args[{i}]") for i, a in enumerate(args)])
        kwargs = {k: set_apart(v, f"kwargs[{k!r}]") for k, v in kwargs.items()}
        pickled, contains = self.dumps((args, kwargs), what, BOTH)
        if pickled.size <= INLINE_LIMIT:
            payload = pickled.payload()
            return Packed(payload, checksum(payload), held, contains, kept)
        # Very many arguments. Their stand-ins count from 1: dependency 0 is the pickle of all of them.
        whole = self._put(pickled, contains, (args, kwargs))
        needs = [Held(whole._id, self._owner(whole)), *held]
        return Packed(ARGUMENTS_ARE_AN_OBJECT, checksum(ARGUMENTS_ARE_AN_OBJECT), needs, [], [*kept, whole])


def _culprit(what: str, path: str) -> str:
    """The rest of the sentence: what could not be serialized, and why."""
    callee = what.removeprefix(OF)
    if callee == what:
        return f"{what}: {path} does not pickle"
    path = path.replace(f"{BOTH}[0]", "args", 1).replace(f"{BOTH}[1]", "kwargs", 1)
    return f"argument {path} for a task or actor {callee}: it does not pickle"  # Ray's words


def _is_small(value: Any) -> bool:
    kind = type(value)
    if kind is int:
        return -LARGEST < value < LARGEST  # type: ignore[no-any-return]
    return kind is float or kind is bool or value is None or ((kind is str or kind is bytes) and len(value) <= SMALL)


def unpack(payload: bytes, load: Callable[[int], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) in a worker. `load(i)` gives the value of dependency i; `load(-1)` the unpickled payload."""
    if not payload:
        return (), {}
    if payload == ARGUMENTS_ARE_AN_OBJECT:
        args, kwargs = load(0)
        first = 1
    else:
        args, kwargs = load(-1)
        first = 0
    args = tuple([load(a.index + first) if type(a) is ArgRef else a for a in args])
    if kwargs:
        kwargs = {k: load(v.index + first) if type(v) is ArgRef else v for k, v in kwargs.items()}
    return args, kwargs
