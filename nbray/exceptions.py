"""Every error that nbray raises. The names are Ray's, so that `except` clauses and forum answers keep working.

    RayError
    ├─ RayTaskError                          the task itself raised; also an instance of what it raised
    ├─ TaskCancelledError
    ├─ WorkerCrashedError
    ├─ RayActorError
    │  ├─ ActorDiedError
    │  │  └─ ActorInitError                  `__init__` raised
    │  └─ ActorUnavailableError
    ├─ GetTimeoutError (TimeoutError)
    ├─ ObjectLostError
    │  ├─ ObjectFetchTimedOutError
    │  ├─ ObjectFreedError
    │  ├─ ObjectReconstructionFailedError
    │  ├─ OwnerDiedError
    │  ├─ ReferenceCountingAssertionError (AssertionError)
    │  └─ StaleRefError                      the reference belongs to a session that has ended
    ├─ ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, PlasmaObjectNotAvailable
    ├─ NodeDiedError, LocalRayletDiedError
    ├─ RaySystemError
    │  ├─ HeadUnavailableError (ConnectionError)
    │  ├─ NodeStartError
    │  ├─ StreamingGeneratorReplayInconsistentError, RayDirectTransportError, RayCgraphCapacityExceeded
    │  ├─ RayChannelError > RayChannelTimeoutError (TimeoutError)
    │  └─ ResultDeserializationError         a value arrived whole and could not be loaded here
    ├─ ResultSerializationError (TypeError)  a task returned what cannot be pickled
    ├─ UnserializableException               a task raised what cannot be loaded
    ├─ RuntimeEnvSetupError
    ├─ TaskUnschedulableError, ActorUnschedulableError > ActorPlacementGroupRemoved
    ├─ TaskPlacementGroupRemoved
    ├─ ActorAlreadyExistsError (ValueError), ActorHandleNotFoundError (ValueError)
    ├─ PendingCallsLimitExceeded, AsyncioActorExit, DeadlockError
    ├─ AuthenticationError, RpcError, CrossLanguageError, UserCodeException
    └─ ObjectRefStreamEndOfStreamError, OufOfBandObjectRefSerializationException

    KeyboardInterrupt
    └─ SentToBackground                      a cell's Background button ended a wait of its code; no error of the program

An error is a message and facts. `SomeError("what happened", node=..., pid=...)` keeps each fact as an attribute; classes
name the facts that they always have. All of them pickle. Ids are hex strings.
"""

from __future__ import annotations

import copyreg
import os
import traceback
import warnings
from typing import Any

from nbray import shown
from nbray.sourcelines import with_cells

#: Facts of errors that a notebook shows, in this order.
SHOWN_FACTS = ("name", "function_name", "node", "ip", "pid", "task", "attempt", "cell", "actor_repr", "signal", "exit_code")
PACKAGE_DIRECTORY = os.path.dirname(os.path.abspath(__file__)) + os.sep


class RayError(Exception):
    """The root. `message` is prose; `log_tail`, `log_path` and `hint` are added to it when they are there."""

    log_tail: str = ""  #: the last lines that the process wrote
    log_path: str = ""
    hint: str = ""  #: what to do next

    def __init__(self, message: str = "", **facts: Any) -> None:
        self.message = message
        self.__dict__.update(facts)
        super().__init__(message)

    def __str__(self) -> str:
        told = [self.message or _first_line(type(self).__doc__)]
        if self.log_tail and self.log_tail not in told[0]:
            where = f" ({self.log_path})" if self.log_path else ""
            told.append(f"Last output{where}:\n{self.log_tail.rstrip()}")
        if self.hint and self.hint not in told[0]:
            told.append(self.hint)
        return "\n".join(told)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> shown.Bundle:
        """What a notebook shows of an error that is a value: what, where, and the rest under a fold."""
        del include, exclude
        lines = _safe_text(self).strip().splitlines() or [""]
        facts = [f"{name} {_short(name, value)}" for name in SHOWN_FACTS if (value := self.__dict__.get(name)) not in (None, "")]
        cause = self.__dict__.get("cause")
        first = f"{type(cause).__name__}: {_safe_text(cause)}" if isinstance(cause, BaseException) else lines[0]
        rest = lines if isinstance(cause, BaseException) else lines[1:]
        return shown.bundle(type(self).__name__, shown.State(first, "bad"), facts, "\n".join(with_cells(rest)), "in full")

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the constructor: subclasses may ask for arguments that only the place of raising has.
        return _load, (type(self), self.args, _with_own_cause(self.__dict__.copy()))


def _short(name: str, value: object) -> str:
    """Ids by their beginning, as everywhere; attempts from 1, as people count."""
    if name == "attempt" and isinstance(value, int):
        return str(value + 1)
    return str(value)[:8] if name in {"node", "task", "worker"} else str(value)


def _safe_text(value: object) -> str:
    try:
        return str(value)
    except Exception as failure:  # noqa: BLE001 -- somebody's __str__
        return f"<its __str__ raised {type(failure).__name__}>"


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().split("\n", 1)[0]


def _load(cls: type[RayError], args: tuple[Any, ...], state: dict[str, Any]) -> RayError:
    error: RayError = _bare(cls)
    error.args = args
    error.__dict__.update(state)
    if isinstance(cause := state.get("cause"), _OwnReduction):
        error.cause = cause.error  # type: ignore[attr-defined]  # copied without a pickle
    return error


class _OwnReduction:
    """Stands in a pickle for an exception, which is then written as its own class wants it and loads as itself.

    tblib, which dask imports, registers a reducer of its own for every exception class that there is at that moment. What it
    writes loads without `__init__` and so loses what built-in classes keep in C (StopIteration.value, ImportError.name).
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.error.__reduce_ex__(protocol)


def pickled_as_its_own(error: BaseException) -> Any:
    """What to pickle in place of `error`, so that no reducer of tblib's gets hold of it; those of the user's own count."""
    reducer = copyreg.dispatch_table.get(type(error))
    return _OwnReduction(error) if (getattr(reducer, "__module__", "") or "").split(".")[0] == "tblib" else error


def _with_own_cause(state: dict[str, Any]) -> dict[str, Any]:
    if isinstance(cause := state.get("cause"), BaseException):
        state["cause"] = pickled_as_its_own(cause)
    return state


def _bare(cls: type[Any], *arguments: Any) -> Any:
    """An instance made by the built-in type below `cls`, so that no user `__new__` or `__init__` runs."""
    base: Any = cls
    while base.__flags__ & (1 << 9):  # Py_TPFLAGS_HEAPTYPE: made by a class statement
        base = base.__base__
    return base.__new__(cls, *arguments)


class RaySystemError(RayError):
    """nbray itself failed."""

    client_exc: str = ""
    traceback_str: str = ""


# ------------------------------------------------------------------------------------------------------- tasks


class RayTaskError(RayError):
    """A task raised. What `get` raises is an instance of this class and of the class of `cause`.

    `str()` is the remote traceback: the user's frames only, below a line that says which task, process and node.
    """

    function_name: str
    traceback_str: str
    cause: BaseException | None  #: what the task raised, without its traceback; a RayError when that does not pickle
    pid: int | None = None
    ip: str | None = None
    actor_repr: str | None = None
    actor_id: str | None = None
    _snapshot: bytes = b""  #: the task's frames (worker/snapshots.py), where they were asked for

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException | None,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(traceback_str, **facts)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.proctitle = proctitle or f"nbray::{function_name}()"
        self.pid, self.ip, self.actor_repr, self.actor_id = pid, ip, actor_repr, actor_id

    def as_instanceof_cause(self) -> RayTaskError:
        """This error as an instance of the cause's class too, with the cause's attributes.

        Where the class refuses to be derived from, this error itself, after a warning.
        """
        cause = self.cause
        if cause is None or issubclass(RayTaskError, type(cause)) or isinstance(cause, RayTaskError):
            return self
        if _acts_on_the_caller(cause):
            return self
        try:
            return _dual(self, cause)
        except Exception as refusal:  # noqa: BLE001 -- a metaclass or __init_subclass__ may raise anything
            warnings.warn(
                f"{type(cause).__qualname__} cannot be derived from ({refusal}), so `except {type(cause).__name__}` will not "
                "catch this error; catch nbray.exceptions.RayTaskError and look at its `.cause`",
                RuntimeWarning,
                stacklevel=3,
            )
            return self

    def __str__(self) -> str:
        return self.traceback_str

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the task's frames first, then where the notebook asked for the result."""
        lines = self.traceback_str.rstrip().split("\n")
        here = [f for f in traceback.extract_tb(self.__traceback__) if not _is_machinery(f.filename)]
        if here:
            lines += ["", "asked for here:", *"".join(traceback.format_list(here)).rstrip().split("\n")]
        return with_cells(lines)


def _is_machinery(filename: str) -> bool:
    return filename.startswith(PACKAGE_DIRECTORY) or any(f"{os.sep}{name}{os.sep}" in filename for name in ("IPython", "ipykernel"))


def _acts_on_the_caller(cause: BaseException) -> bool:
    """Raised in the driver, these would end it, or look like its own interrupt or cancellation: they stay in `.cause`."""
    if isinstance(cause, SystemExit | KeyboardInterrupt | GeneratorExit):
        return True
    return type(cause).__name__ == "CancelledError" and not isinstance(cause, Exception)


class _Dual:
    """What every dual class says of itself. The user's class may define these for its own sake; here they would lie or fail."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Everything is copied from the cause after `__new__`: the user's constructor does not run a second time."""

    def __repr__(self: Any) -> str:
        return f"{type(self).__name__}({_safe_repr(self.cause)})"

    def __str__(self: Any) -> str:
        return str(self.traceback_str)

    def __reduce_ex__(self: Any, _protocol: Any) -> tuple[Any, ...]:
        return _load_dual, (self.args, _with_own_cause({k: v for k, v in self.__dict__.items() if k in self._own}))

    def __reduce__(self: Any) -> tuple[Any, ...]:
        return self.__reduce_ex__(2)  # type: ignore[no-any-return]

    def _render_traceback_(self: Any) -> list[str]:
        return RayTaskError._render_traceback_(self)


def _dual(error: RayTaskError, cause: BaseException) -> RayTaskError:
    cls = type(cause)
    name = f"RayTaskError({cls.__name__})"
    metaclass: Any = type(cls)
    dual_class = metaclass(name, (_Dual, RayTaskError, cls), {"__module__": RayTaskError.__module__, "__qualname__": name})
    dual = _bare(dual_class, cause.message, cause.exceptions) if isinstance(cause, BaseExceptionGroup) else _bare(dual_class)
    dual.args = cause.args
    _copy_slots(cause, dual)
    dual.__dict__.update(getattr(cause, "__dict__", {}))
    dual.__dict__.update(error.__dict__, _own=(*error.__dict__, "__notes__"))
    dual.__traceback__ = error.__traceback__
    return dual  # type: ignore[no-any-return]


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as failure:  # noqa: BLE001 -- somebody's repr
        return f"<{type(value).__name__} whose repr raised {type(failure).__name__}>"


def _copy_slots(source: BaseException, target: BaseException) -> None:
    """Attributes that do not live in `__dict__`: OSError.errno, SyntaxError.lineno, `__slots__` of the user's class."""
    for cls in type(source).__mro__:
        if cls in BaseException.__mro__:
            continue
        for name, descriptor in vars(cls).items():
            if type(descriptor).__name__ not in ("member_descriptor", "getset_descriptor") or name.startswith("__"):
                continue
            try:
                setattr(target, name, getattr(source, name))
            except (AttributeError, TypeError):
                continue  # unset, or read-only because the constructor of a group has set it


def _load_dual(args: tuple[Any, ...], state: dict[str, Any]) -> RayError:
    error = _load(RayTaskError, args, state)
    assert isinstance(error, RayTaskError)
    return error.as_instanceof_cause()


class TaskCancelledError(RayError):
    """This task or its dependency was cancelled."""

    task_id: str | None = None


class WorkerCrashedError(RayError):
    """The worker died unexpectedly while it ran this task."""

    pid: int | None = None
    node: str | None = None
    signal: int | None = None  #: exactly one of `signal` and `exit_code`, unless nothing is known
    exit_code: int | None = None
    oom: bool = False


class ResultSerializationError(RayError, TypeError):
    """A task returned something that does not pickle. The message names the path to the part that does not."""


class UnserializableException(RayError):
    """A task raised an exception that cannot be loaded here. The text is the original one."""


class UserCodeException(RayError):
    """An exception in user code."""


class RuntimeEnvSetupError(RayError):
    """The runtime environment of a task or actor could not be made."""


class TaskUnschedulableError(RayError):
    """The task can never run where it was told to."""


class TaskPlacementGroupRemoved(RayError):
    """The placement group of the task was removed."""


class DeadlockError(RayError):
    """Every process waits for another one of them, and no more may be started."""


# ------------------------------------------------------------------------------------------------------- actors


class RayActorError(RayError):
    """The actor died unexpectedly before finishing this task."""

    actor_id: str | None = None
    actor_init_failed: bool = False
    preempted: bool = False
    maybe_executed: bool | None = None  #: False: the call certainly never began; None: unknown


class ActorDiedError(RayActorError):
    """The actor is dead for good: no call to it will succeed any more."""


class ActorInitError(ActorDiedError):
    """The actor died because of an error raised in its creation task."""

    actor_init_failed: bool = True


class ActorUnavailableError(RayActorError):
    """The actor cannot be reached at the moment; it may come back."""


class ActorUnschedulableError(RayError):
    """The actor can never run where it was told to."""


class ActorPlacementGroupRemoved(ActorUnschedulableError):
    """The placement group of the actor was removed."""


class ActorAlreadyExistsError(RayError, ValueError):
    """An actor of that name exists already in the namespace."""


class ActorHandleNotFoundError(RayError, ValueError):
    """The handle belongs to a session that has ended; create the actor again."""


class PendingCallsLimitExceeded(RayError):
    """The handle has `max_pending_calls` unfinished calls already."""


class AsyncioActorExit(RayError):
    """An asyncio actor ends on purpose."""


class SentToBackground(KeyboardInterrupt):
    """A wait of a notebook's cell was ended by the Background button of its card; what it waited for goes on."""

    waited_for: Any = None  #: what `get`, `wait` or a generator's `next` was given

    def __init__(self, message: str = "this cell was sent to the background, so its code waits no more; its tasks go on") -> None:
        super().__init__(message)


# ------------------------------------------------------------------------------------------------------- objects


class GetTimeoutError(RayError, TimeoutError):
    """A get took longer than its timeout."""


class ObjectLostError(RayError):
    """Every copy of the object is gone."""

    object_ref_hex: str | None = None
    owner_address: str | None = None
    call_site: str = ""


class ObjectFetchTimedOutError(ObjectLostError):
    """The object could not be fetched from any node in time."""


class ObjectFreedError(ObjectLostError):
    """The object was freed by hand while a reference to it lived."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The object is lost, and the task that made it cannot make it again."""

    reason: str = ""  #: a key of REASON_MESSAGES
    reason_message: str = ""
    REASON_MESSAGES = {
        "OBJECT_UNRECONSTRUCTABLE_PUT": (
            "it was created by nbray.put(), or stored as a large argument, which nothing can repeat. Return it from a task "
            "instead, which can run again"
        ),
        "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED": (
            "the maximum number of task retries has been exceeded. Raise max_retries with @nbray.remote(max_retries=N)"
        ),
        "OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED": (
            "the task was created with max_retries=0. Enable retries with @nbray.remote(max_retries=N)"
        ),
        "OBJECT_UNRECONSTRUCTABLE_ACTOR_TASK": (
            "a method of an actor made it, whose state is another by now. Put it in a task, or call the method again"
        ),
        "OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED": "the task that would produce it was cancelled",
        "OBJECT_UNRECONSTRUCTABLE_TASK_FAILED": "the task failed when it ran again to produce it",
        "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED": (
            "how it was made has been forgotten to save memory. NBRAY_LINEAGE_LIMIT is the number of finished tasks that a "
            "process keeps for this"
        ),
    }


class OwnerDiedError(ObjectLostError):
    """The process that made the reference has ended, and the object with it."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """An object was deleted while it was still referenced: a bug in nbray."""


class StaleRefError(ObjectLostError):
    """The reference belongs to a session that has ended; make the object again in this one."""


class ObjectStoreFullError(RayError):
    """The object store is full, and nothing in it can be moved to disk."""


class OutOfDiskError(RayError):
    """The disk that takes spilled objects is full."""


class OutOfMemoryError(RayError):
    """A worker was ended because its node ran out of memory."""


class PlasmaObjectNotAvailable(RayError):
    """The object is not in the store of this node."""


class ObjectRefStreamEndOfStreamError(RayError):
    """A generator has no more values."""


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A retried generator gave another number of values than the first time."""


class OufOfBandObjectRefSerializationException(RayError):
    """A reference was pickled outside of nbray's own pickling."""


# ------------------------------------------------------------------------------------------------------- the system


class HeadUnavailableError(RaySystemError, ConnectionError):
    """The head of the cluster does not answer."""


class NodeStartError(RaySystemError):
    """The processes of the local node could not be started."""


class ResultDeserializationError(RaySystemError):
    """A value arrived whole but could not be loaded in this process."""

    type_name: str = ""


class NodeDiedError(RayError):
    """The node died, or cannot be reached any more."""

    node: str | None = None


class LocalRayletDiedError(RayError):
    """The node daemon of this machine died."""


class AuthenticationError(RayError):
    """The other side refused our credentials, or we refused theirs."""


class RpcError(RayError):
    """A message to another process of the cluster failed."""


class CrossLanguageError(RayError):
    """A task in another language failed."""


class RayDirectTransportError(RaySystemError):
    """A direct transfer between devices failed."""


class RayChannelError(RaySystemError):
    """A channel failed."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel was not ready in time."""


class RayCgraphCapacityExceeded(RaySystemError):
    """A compiled graph has too many executions in flight."""


#: Every class above, as Ray lists its own.
RAY_EXCEPTION_TYPES: list[type[RayError]] = [
    each for each in list(globals().values()) if isinstance(each, type) and issubclass(each, RayError)
]
