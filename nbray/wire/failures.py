"""Errors as they travel: an exception becomes a Failure where it was raised, and an exception again where `get` is called.

    worker:  failure_of(error)          the user's exception, pickled, and always its texts as well
    machine: system_failure(kind, ...)  a death, a cancellation, a full store: a class of nbray/exceptions.py and its facts
    owner:   dependency_failure(f, ..)  what becomes of a task whose argument has failed
    reader:  error_of(failure)          what to raise

A failure explains itself also where its pickle cannot be loaded; the texts never come from the pickle.
"""

from __future__ import annotations

import pickle
import re
import traceback
from typing import Any

import cloudpickle

from nbray import exceptions
from nbray.exceptions import PACKAGE_DIRECTORY, RayError, RayTaskError, UnserializableException, pickled_as_its_own
from nbray.ids import short
from nbray.wire.messages import Failure

FRAMES = 400  #: of one traceback; the innermost are kept
TEXT_LIMIT = 100_000  #: characters of one traceback; its middle is cut
PICKLE_LIMIT = 4 * 2**20  #: bytes; an exception that carries more than this is sent as text
DEPENDENCY_FAILED = "At least one of the input arguments for this task could not be computed:"

_BANNER = re.compile(r"^Traceback \(most recent call last\):$", re.MULTILINE)


def failure_of(
    error: BaseException,
    *,
    name: str,
    pid: int,
    node: bytes,
    task: bytes,
    attempt: int,
    actor_repr: str | None = None,
    actor_id: str | None = None,
    ip: str = "127.0.0.1",
    snapshot: bytes = b"",
) -> Failure:
    """What `error`, raised by user code in the task `name`, looks like to whoever gets its result. Never raises.

    `attempt` counts from 0. `actor_repr` is the repr of the actor instance, for its methods. `snapshot` is its frames,
    where the worker took them.
    """
    who = _header(name, pid=pid, ip=ip, node=node, task=task, attempt=attempt, actor_repr=actor_repr, actor_id=actor_id)
    type_name, message = _type_name(error), _text_of(error)
    cause = error.cause if isinstance(error, RayTaskError) and error.cause is not None else error
    payload, problem = _pickled(cause)
    fields: dict[str, Any] = {"name": name, "pid": pid, "ip": ip, "node": node, "task": task, "attempt": attempt}
    if actor_repr is not None:
        fields["actor_repr"] = actor_repr
    if actor_id is not None:
        fields["actor_id"] = actor_id
    if problem:
        fields["not_serializable"] = problem
    return Failure("RayTaskError", type_name, message, _remote_traceback(error, who), payload, fields, snapshot)


def system_failure(kind: str, message: str, **fields: Any) -> Failure:
    """A failure that no user code raised. `kind` is a class of nbray/exceptions.py; fields are its facts (ids as bytes)."""
    return Failure(kind, kind, message, "", b"", {k: v for k, v in fields.items() if v is not None})


def dependency_failure(failure: Failure, name: str) -> Failure:
    """What a task called `name` fails with when an argument failed: the same cause, and both stories.

    A chain of dependants keeps the text of the first failure once, below the name of the last.
    """
    if failure.kind == "RayTaskError":
        inner = failure.traceback.split(DEPENDENCY_FAILED + "\n", 1)[-1]
        kept = failure.fields
        if inner == failure.traceback:
            inner = f"nbray.exceptions.RayTaskError({failure.type_name.rpartition('.')[2]}): {failure.traceback}"
        type_name, payload = failure.type_name, failure.pickle
    else:
        inner = f"nbray.exceptions.{failure.kind}: {failure.message}"
        type_name, payload = f"nbray.exceptions.{failure.kind}", b""
        kept = {"cause_kind": failure.kind, "cause_fields": dict(failure.fields)}
    text = f"nbray::{name}()\n{DEPENDENCY_FAILED}\n{inner}"
    return Failure("RayTaskError", type_name, failure.message, text, payload, {**kept, "name": name}, failure.snapshot)


def error_of(failure: Failure) -> BaseException:
    """The exception to raise for `failure`. Never raises itself."""
    facts = {k: _readable(v) for k, v in failure.fields.items()}
    if failure.kind == "RayTaskError":
        error = _task_error(failure, facts)
        if failure.snapshot:
            error._snapshot = failure.snapshot
        return error.as_instanceof_cause()
    cls = getattr(exceptions, failure.kind, None)
    if not (isinstance(cls, type) and issubclass(cls, RayError)):
        return exceptions.RaySystemError(f"{failure.kind}: {failure.message}", **facts)
    return cls(failure.message, **facts)


def _task_error(failure: Failure, facts: dict[str, Any]) -> RayTaskError:
    cause = _cause(failure, facts.pop("not_serializable", ""), facts.pop("cause_kind", ""), facts.pop("cause_fields", {}))
    return RayTaskError(str(facts.pop("name", "task")), failure.traceback, cause, **facts)


def _cause(failure: Failure, problem: str, kind: str, fields: dict[str, Any]) -> BaseException:
    if kind:
        return error_of(Failure(kind, kind, failure.message, "", b"", fields))
    if failure.pickle:
        try:
            cause = pickle.loads(failure.pickle)  # noqa: S301 -- only readers of results ask
        except Exception as refusal:  # noqa: BLE001 -- user code runs in here
            return _unloadable(failure, f"{type(refusal).__name__}: {refusal}")
        return cause if isinstance(cause, BaseException) else _unloadable(failure, f"it loads as {type(cause).__name__}")
    if problem.startswith(_LOADS):
        return _unloadable(failure, problem.removeprefix(_LOADS))
    what = f"{failure.type_name}: {failure.message}"
    return RayError(f"The original cause of the RayTaskError ({what}) isn't serializable: {problem}")


def _unloadable(failure: Failure, why: str) -> UnserializableException:
    return UnserializableException(
        f"Failed to unpickle serialized exception {failure.type_name} ({why}). Its text: {failure.traceback or failure.message}",
        type_name=failure.type_name,
    )


def _readable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _header(
    name: str, *, pid: int, ip: str, node: bytes, task: bytes, attempt: int, actor_repr: str | None, actor_id: str | None
) -> str:
    inside = f"pid={pid}, ip={ip}"
    if actor_id is not None:
        inside += f", actor_id={actor_id}"
    if actor_repr is not None:
        inside += f", repr={actor_repr}"
    return f"nbray::{name}() ({inside}) [task {short(task)}, attempt {attempt + 1}, node {short(node)}]"


def _remote_traceback(error: BaseException, header: str) -> str:
    """The traceback of `error` with the user's frames only, the header where Python says "Traceback"."""
    told = traceback.TracebackException(type(error), error, error.__traceback__, limit=-FRAMES, compact=True)
    _cut_own_frames(told)
    text = "".join(told.format()).rstrip("\n")
    lines, banners = _BANNER.subn(lambda _match: header, text)
    if not banners:  # no frame was the user's, or a group, which has a banner of its own
        lines = f"{header}\n{text}"
    if len(lines) > TEXT_LIMIT:
        half = TEXT_LIMIT // 2
        lines = f"{lines[:half]}\n... {len(lines) - TEXT_LIMIT} characters left out ...\n{lines[-half:]}"
    return lines


def _cut_own_frames(told: traceback.TracebackException) -> None:
    open_, seen = [told], set()
    while open_:
        one = open_.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.stack = traceback.StackSummary.from_list([f for f in one.stack if not f.filename.startswith(PACKAGE_DIRECTORY)])
        open_ += [e for e in (one.__cause__, one.__context__, *(one.exceptions or ())) if e is not None]


def _type_name(error: BaseException) -> str:
    cause = error.cause if isinstance(error, RayTaskError) and error.cause is not None else error
    cls = type(cause)
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:TEXT_LIMIT]
    except Exception as failure:  # noqa: BLE001 -- user code runs in here
        return f"<the text of this {type(error).__name__} raised {type(failure).__name__}>"


_LOADS = "it pickles but does not load: "


class _WithoutInit:
    """Pickles an exception so that it loads without its `__init__`: the commonest one that does not load otherwise takes more
    arguments than it passes on to its base."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self._error), self._error.args, self._error.__dict__)


def _made(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _pickled_without_init(error: BaseException, problem: str) -> tuple[bytes, str]:
    try:
        payload: bytes = cloudpickle.dumps(_WithoutInit(error))
        again = pickle.loads(payload)  # noqa: S301 -- our own
    except Exception:  # noqa: BLE001 -- user code runs in here
        return b"", problem
    return (payload, "") if isinstance(again, BaseException) and len(payload) <= PICKLE_LIMIT else (b"", problem)


def _pickled(error: BaseException) -> tuple[bytes, str]:
    """(pickle, ""), or (b"", why not). Loaded once here: whoever waits for the result has no way to ask for another form."""
    try:
        payload: bytes = cloudpickle.dumps(pickled_as_its_own(error))
    except Exception as failure:  # noqa: BLE001 -- user code runs in here
        return b"", f"{type(failure).__name__}: {failure}"
    if len(payload) > PICKLE_LIMIT:
        return b"", f"it is {len(payload):,} bytes, more than the {PICKLE_LIMIT:,} that an error may carry"
    try:
        again = pickle.loads(payload)  # noqa: S301 -- our own
    except Exception as failure:  # noqa: BLE001 -- user code runs in here
        return _pickled_without_init(error, f"{_LOADS}{type(failure).__name__}: {failure}")
    if not isinstance(again, BaseException):
        return b"", f"{_LOADS}it comes back as {type(again).__name__}"
    return payload, ""
