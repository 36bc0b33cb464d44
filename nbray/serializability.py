"""Where in a value the part sits that does not pickle: `args[1].cfg._lock`, not "cannot pickle '_thread.lock' object"."""

from __future__ import annotations

import builtins
import dis
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle

DEPTH = 30  #: parts of a path; deeper culprits are named by the path so far
TRIES = 2000  #: values pickled while looking, over all levels; a culprit that needs more is named by its container


def path_to_culprit(value: Any, name: str = "value") -> str:
    """The path from `name` to the innermost part of `value` that does not pickle; `name` itself when it all pickles.

    >>> import threading
    >>> path_to_culprit(({"jobs": [threading.Lock()]},), "args")
    "args[0]['jobs'][0]"
    """
    return find_culprit(value, name)[0]


def find_culprit(value: Any, name: str = "value") -> tuple[str, Any]:
    """(path, part) as `path_to_culprit`, with the part itself."""
    return trail_to_culprit(value, name)[-1]


def trail_to_culprit(value: Any, name: str = "value", depth: int = DEPTH) -> list[tuple[str, Any]]:
    """(path, part) from `value` itself to the innermost part that does not pickle, `depth` steps in at most."""
    left, seen = TRIES, {id(value)}
    trail = [(name, value)]
    for _ in range(depth):
        path, here = trail[-1]
        for step, part in _parts(here):
            if id(part) in seen:
                continue
            left -= 1
            if left < 0:
                return trail
            if not pickles(part):
                seen.add(id(part))
                trail.append((_join(path, step), part))
                break
        else:
            return trail
    return trail


def explain(what: str, value: Any, name: str, error: BaseException) -> TypeError:
    """The TypeError to raise when `value`, part of `what`, did not pickle because of `error`.

    `what` reads like "the argument of f()"; `name` is what the path starts with.
    """
    path, part = find_culprit(value, name)
    return TypeError(
        f"Could not serialize {what}: {path} is a {_type_name(part)}, which does not pickle ({type(error).__name__}: {error}). "
        f"Make it where it is used, leave it out with __getstate__, or keep it in an actor."
    )


def captured(function: Any) -> dict[str, Any]:
    """The globals and closure variables that `function` uses, by name: what is pickled with it."""
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    scope = function.__globals__
    found = {n: scope[n] for n in global_names(code) if n in scope and not hasattr(builtins, n)}
    for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[variable] = cell.cell_contents
        except ValueError:  # the variable is assigned later than the function is defined
            continue
    return found


def global_names(code: types.CodeType) -> set[str]:
    """Every name that `code`, or a function inside it, looks up in its globals."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= global_names(constant)
    return names


def pickles(value: Any) -> bool:
    try:
        cloudpickle.dumps(value, 5, buffer_callback=_ignore_buffer)
    except Exception:  # noqa: BLE001 -- user code runs in here: whatever it raises, the answer is no
        return False
    return True


def _ignore_buffer(_buffer: object) -> None:
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """(step, part): the step is `[...]` for items, `.name` for attributes, and a bare name for what a function captured."""
    if isinstance(value, Mapping):
        for key, item in list(value.items()):
            yield f"[{key!r:.60}]", item
        return
    if isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
        return
    if isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        return
    if isinstance(value, types.FunctionType):
        yield from captured(value).items()
        positional = value.__code__.co_varnames[: value.__code__.co_argcount]
        defaults = value.__defaults__ or ()
        yield from ((f"({n}=)", d) for n, d in zip(positional[len(positional) - len(defaults) :], defaults, strict=False))
        yield from ((f"({n}=)", default) for n, default in (value.__kwdefaults__ or {}).items())
        return
    if isinstance(value, type):
        yield from ((f".{n}", part) for n, part in list(vars(value).items()) if not n.startswith("__"))
        return
    yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(getattr(type(value), "__reduce__", None), types.FunctionType):
        try:
            value.__reduce__()
        except Exception:  # noqa: BLE001 -- it refuses to be pickled itself, whatever it is made of
            return
    state = getattr(value, "__dict__", None)
    if isinstance(state, dict):
        yield from ((f".{n}", part) for n, part in list(state.items()))
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__"):
                yield f".{slot}", getattr(value, slot, None)


def _join(path: str, step: str) -> str:
    return path + step if step[0] in ".[(" else f"{path} -> {step}"


def _type_name(value: Any) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
