"""The verbs: remote, get, put, wait, cancel, kill and what asks about the cluster. Checks arguments and asks the engine.

`init`, `shutdown` and what starts an engine are in `connection.py`; a person finds all of it as `nbray.<name>`.
"""

from __future__ import annotations

import inspect
import json
import numbers
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nbray import connection, session
from nbray.actors import ActorClass, ActorHandle, ActorMethod
from nbray.connection import attached
from nbray.engines.port import Engine
from nbray.exceptions import SentToBackground, StaleRefError
from nbray.functions import RemoteFunction
from nbray.generators import ObjectRefGenerator
from nbray.options import ACTOR, TASK, checked
from nbray.refs import ObjectRef
from nbray.trace import chrome_events

FOR_EVER_S = 1e9  #: a timeout beyond this is none: clocks cannot express it
MILLISECONDS_FROM = 1000  #: a timeout of `wait` from here on was probably meant in milliseconds, as Ray had it before 0.8


def remote(*args: Any, **options: Any) -> Any:
    """Make a function a remote function, or a class an actor class: `@nbray.remote`, or `@nbray.remote(num_cpus=2)`."""
    if len(args) == 1 and not options and (callable(args[0]) or isinstance(args[0], staticmethod | classmethod)):
        return _make_remote(args[0], {})
    if args or not options:
        raise AssertionError(
            "The @nbray.remote decorator must be applied either with no arguments and no parentheses, '@nbray.remote', or with "
            f"options by name, '@nbray.remote(num_returns=2)'{f'; it was given {args!r:.80}' if args else ''}."
        )
    return lambda target: _make_remote(target, options)


def _make_remote(target: Any, options: Mapping[str, Any]) -> RemoteFunction | ActorClass:
    if isinstance(target, RemoteFunction | ActorClass):
        raise TypeError(f"{target!r} is remote already; use its .options() for other options")
    if isinstance(target, staticmethod | classmethod):
        raise TypeError("In a class body, put @staticmethod above @nbray.remote: the function is made remote first")
    if inspect.isclass(target):
        return ActorClass(target, checked(ACTOR, options))
    if inspect.isfunction(target) or inspect.isbuiltin(target):
        return RemoteFunction(target, checked(TASK, options))
    raise TypeError(f"The @nbray.remote decorator must be applied to either a function or a class, not to {type(target)}.")


# ------------------------------------------------------------------------------------------------------- objects


def get(object_refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a reference, or the values of a list of references in its order; waits until they are there.

    Raises what the task raised (also a RayTaskError), as soon as one of the list has failed; GetTimeoutError after
    `timeout` seconds, where 0 asks for what is ready now.
    """
    engine = session.engine
    if engine is None:
        if type(object_refs) is ObjectRef and not connection.was_forked():
            _refuse_stale([object_refs], None)  # no cluster is started to be told that
        engine = connection.engine()
    if timeout is not None:
        timeout = _seconds("get", timeout)
    if type(object_refs) is ObjectRef:
        if object_refs._engine is not engine:
            _refuse_stale([object_refs], engine)
        try:
            return engine.get((object_refs,), timeout)[0]
        except SentToBackground as sent:
            sent.waited_for = object_refs
            raise
    if isinstance(object_refs, ObjectRefGenerator):
        return object_refs  # its items are references, got one by one
    if not isinstance(object_refs, list):
        raise ValueError(
            f"Invalid type of object refs, {type(object_refs)}, is given. 'object_refs' must either be an ObjectRef or a list of "
            f"ObjectRefs.{_advice(object_refs)}"
        )
    for ref in object_refs:
        if type(ref) is not ObjectRef:
            raise TypeError(f"Attempting to call `get` on the value {_shown(ref)}, which is not an nbray.ObjectRef.{_advice(ref)}")
        if ref._engine is not engine:
            _refuse_stale([ref], engine)
    try:
        return engine.get(object_refs, timeout) if object_refs else []
    except SentToBackground as sent:
        sent.waited_for = list(object_refs)
        raise


def put(value: Any, **others: Any) -> ObjectRef[Any]:
    """Keep `value` in the object store and return a reference to it. Raises TypeError naming the part that does not pickle."""
    if others:
        name = next(iter(others))
        if name == "_owner":
            raise ValueError("put(_owner=...) is no longer supported: whoever puts an object owns it")
        raise TypeError(f"put() got an unexpected keyword argument {name!r}")
    if isinstance(value, ObjectRef):
        raise TypeError(
            "Calling 'put' on an nbray.ObjectRef is not allowed: it refers to an object already. To have a reference to a "
            "reference, put it in a list: nbray.put([ref])."
        )
    return connection.engine().put(value)


def wait(
    object_refs: Any, *, num_returns: Any = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[Any], list[Any]]:
    """Wait until `num_returns` of the references are ready, or `timeout` seconds. Returns (ready, not ready), both in order.

    No more than `num_returns` are in the first list. A failed task is ready too, and a generator when its `next` would not wait.
    """
    engine = connection.engine()
    if isinstance(object_refs, list) and any(type(ref) is ObjectRefGenerator for ref in object_refs):
        return _wait_generators(engine, object_refs, num_returns, timeout, fetch_local)
    if isinstance(object_refs, ObjectRef | ObjectRefGenerator):
        raise TypeError("wait() expected a list of nbray.ObjectRef, got a single nbray.ObjectRef")
    if not isinstance(object_refs, list):
        raise TypeError(f"wait() expected a list of nbray.ObjectRef, got {type(object_refs)}.{_advice(object_refs)}")
    if set(map(type, object_refs)) - {ObjectRef}:
        odd = next(ref for ref in object_refs if type(ref) is not ObjectRef)
        raise TypeError(f"wait() expected a list of nbray.ObjectRef, got list containing {type(odd)}.{_advice(odd)}")
    if timeout is not None:
        if type(timeout) in (int, float) and MILLISECONDS_FROM <= timeout < FOR_EVER_S:
            warnings.warn(
                f"wait(timeout={timeout}) waits {timeout} seconds. Ray before 0.8 took milliseconds here: if you meant those, "
                f"it is timeout={timeout / 1000:g} today.",
                DeprecationWarning,
                stacklevel=2,
            )
        timeout = _seconds("wait", timeout)
    if not object_refs:
        return [], []
    # One pass with no call in it: programs wait in a loop over what is left of a thousand references.
    ids = {ref._id if ref._engine is engine else None for ref in object_refs}
    if None in ids:
        _refuse_stale(object_refs, engine)
    if len(ids) != len(object_refs):
        raise ValueError("Wait requires a list of unique object refs.")
    if isinstance(num_returns, bool) or not issubclass(type(num_returns), numbers.Integral):
        raise TypeError(f"num_returns is a number of references, not {num_returns!r}")
    if num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}.")
    if num_returns > len(object_refs):
        raise ValueError(f"num_returns cannot be greater than the number of objects provided: {num_returns} of {len(object_refs)}.")
    try:
        return engine.wait(object_refs, int(num_returns), timeout, fetch_local)
    except SentToBackground as sent:
        sent.waited_for = list(object_refs)
        raise


def _wait_generators(
    engine: Engine, given: list[Any], num_returns: Any, timeout: float | None, fetch_local: bool
) -> tuple[list[Any], list[Any]]:
    """`wait` where some of what is waited for are generators: the next item of each stands for it."""
    for one in given:
        if isinstance(one, ObjectRefGenerator):
            one._live_engine()
    refs = [one._waitable(engine) if isinstance(one, ObjectRefGenerator) else one for one in given]
    try:
        ready, rest = wait(refs, num_returns=num_returns, timeout=timeout, fetch_local=fetch_local)
    except SentToBackground as sent:
        sent.waited_for = list(given)
        raise
    of = dict(zip(refs, given, strict=True))
    return [of[ref] for ref in ready], [of[ref] for ref in rest]


def cancel(ref: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel the task that makes `ref`: if it has not begun it never will; if it runs, it gets a KeyboardInterrupt, or with
    `force` its process is killed. `get` then raises TaskCancelledError. Does nothing to a finished task.

    A call of an actor that has begun goes on in the actor: get_runtime_context().is_canceled() turns True in it, and when it
    ends its result is dropped. In an async actor it gets asyncio.CancelledError."""
    engine = connection.engine()
    if isinstance(ref, ObjectRefGenerator):
        ref = ref.completed()
    if not isinstance(ref, ObjectRef):
        actor = " For actors, try nbray.kill." if isinstance(ref, ActorHandle) else ""
        raise TypeError(f"nbray.cancel() only supported for object refs.{actor} Got: {type(ref)}.")
    _refuse_stale([ref], engine)
    engine.cancel(ref, force, recursive)


def kill(actor: Any, *, no_restart: bool = True) -> None:
    """Kill an actor at once: no clean-up of its own runs, and calls under way fail. `no_restart=False` uses up a restart."""
    # With a handle whose session has ended, no cluster is started to say so.
    engine = actor._live_engine() if isinstance(actor, ActorHandle) else connection.engine()
    if not isinstance(actor, ActorHandle):
        task = " For tasks, try nbray.cancel()." if isinstance(actor, ObjectRef) else ""
        raise ValueError(f"nbray.kill() only supported for actors.{task} Got: {type(actor)}.")
    engine.kill_actor(actor._token, no_restart)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A handle of the actor with that name, which does not keep it alive. Raises ValueError when there is none."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"Please supply a non-empty value to get_actor: a name, not {name!r}")
    connection.check_namespace(namespace)
    engine = connection.engine()
    return ActorHandle(engine, engine.find_actor(name, namespace))


# ------------------------------------------------------------------------------------------------------- the cluster


def nodes() -> list[dict[str, Any]]:
    """One dict per node that is or was in the cluster: NodeID, Alive, Resources, NodeManagerHostname ..."""
    return attached("nodes").nodes()


def cluster_resources() -> dict[str, float]:
    """What the living nodes have in all: {"CPU": 4.0, ...}."""
    return _sum(node["Resources"] for node in attached("cluster_resources").nodes() if node["Alive"])


def available_resources() -> dict[str, float]:
    """What is free now; what is used up is left out."""
    free = _sum(node.get("Available", {}) for node in attached("available_resources").nodes() if node["Alive"])
    return {name: amount for name, amount in free.items() if amount > 0}


def _sum(resources: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in resources:
        for name, amount in one.items():
            total[name] = round(total.get(name, 0.0) + amount, 4)
    return total


def get_gpu_ids() -> list[int] | list[str]:
    """The GPUs that the calling task or actor has, as CUDA_VISIBLE_DEVICES names them; [] without any.

    Numbers from 0; the names in CUDA_VISIBLE_DEVICES where the node was started with it.
    """
    return list(connection.engine().facts().devices)  # type: ignore[return-value]


def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """What ran where and when, as Chrome trace events for Perfetto; written to `filename` if there is one."""
    events = chrome_events(attached("timeline").trace())
    if filename is None:
        return events
    with open(filename, "w", encoding="utf-8") as file:
        json.dump(events, file)
    return None


def error_info() -> list[dict[str, Any]]:
    """Tasks of this job that failed: [{"type", "message", "task", "name"}]. Today the error is in the task's reference."""
    warnings.warn("error_info() is deprecated; get() of the reference raises the error itself", DeprecationWarning, stacklevel=2)
    failed = [record for record in attached("error_info").trace() if record["state"] == "FAILED"]
    return [{"type": "task", "message": r["detail"] or f"{r['name']} failed", "task": r["id"], "name": r["name"]} for r in failed]


# ------------------------------------------------------------------------------------------------------- arguments


def _seconds(verb: str, timeout: Any) -> float | None:
    if isinstance(timeout, bool) or not issubclass(type(timeout), numbers.Real):
        hint = "; use .total_seconds()" if hasattr(timeout, "total_seconds") else ""
        raise TypeError(f"The 'timeout' argument of {verb}() is a number of seconds or None, not {type(timeout).__name__}{hint}")
    if not timeout >= 0:  # also NaN
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    return None if timeout > FOR_EVER_S else float(timeout)


def _refuse_stale(refs: Sequence[ObjectRef[Any]], engine: Engine | None) -> None:
    for ref in refs:
        if engine is None or ref._engine is not engine:
            raise StaleRefError(
                f"{ref!r} belongs to a session that has ended, or to no cluster at all; make the object again in this session",
                object_ref_hex=ref.hex(),
            )


def _shown(value: object) -> str:
    try:
        return f"{value!r:.100}"
    except Exception as failure:  # noqa: BLE001 -- somebody's repr
        return f"<{type(value).__name__} whose repr raised {type(failure).__name__}>"


def _advice(value: object) -> str:
    """What somebody who passes this to `get` probably wants to do."""
    if isinstance(value, list | tuple | set) and any(isinstance(item, ObjectRef) for item in value):
        return " Make one flat list of the references: [ref for inner in refs for ref in inner], or list(refs)."
    if isinstance(value, RemoteFunction | ActorMethod | ActorClass):
        return f" Did you mean to call it? Try .remote() on {value!r}."
    if isinstance(value, ActorHandle):
        return " Call one of the actor's methods: handle.method.remote()."
    if inspect.iscoroutine(value):
        value.close()
        return " It is a coroutine: await it, or asyncio.run() it."
    if inspect.isgenerator(value) or isinstance(value, map | filter):
        return " Make a list of it: list(refs)."
    return ""
