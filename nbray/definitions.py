"""A function or class as it was defined, pickled once, and again only when something that it refers to was replaced.

In a notebook a function's globals are edited under it all day: `scale = 3` in a later cell must reach the next call of a
remote function that reads `scale`. Comparing values would cost what pickling costs, so identities are compared: a name that
refers to another object than at the last pickling makes a new definition. Changing a list in place does not.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import threading
import types
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import cloudpickle

from nbray.config import MESSAGE_LIMIT
from nbray.engines.port import FunctionSpec
from nbray.handlers import is_of_signal
from nbray.serializability import captured, explain, global_names

WARN_BYTES = 10 * 2**20  #: of a pickled definition (as in Ray)
LIMIT_BYTES = MESSAGE_LIMIT - 2**20  #: a definition travels in one message; Ray's limit is 100 MB
WALK_LIMIT = 10_000  #: functions and classes looked at for one definition

_pickling = threading.local()


class Definition:
    """`target` with its pickled form. In a process that received it, the target is loaded only if somebody asks."""

    def __init__(self, target: Any, name: str, what: str) -> None:
        """`what` is "remote function" or "actor class"."""
        self.name, self.what = name, what
        self._target = target
        self._spec: FunctionSpec | None = None
        self._seen: tuple[int, ...] = ()
        self._kept: list[Any] = []  # what `_seen` are the ids of: alive, so that no id is used again
        self._watched: list[tuple[dict[str, Any], tuple[str, ...]]] = []
        self._cells: list[types.CellType] = []

    @property
    def target(self) -> Any:
        if self._target is None:
            assert self._spec is not None
            self._target = pickle.loads(self._spec.payload)  # noqa: S301 -- only drivers and workers ask
        return self._target

    def spec(self) -> FunctionSpec:
        """The pickled form. Raises TypeError with the path to what does not pickle, ValueError when it is too large."""
        spec = self._spec
        if spec is not None and self._seen == self._look():
            return spec
        return self._pickle()

    def _look(self) -> tuple[int, ...]:
        watched = self._watched
        if not watched and not self._cells:
            return ()
        if len(watched) == 1 and not self._cells:
            scope, names = watched[0]
            return tuple(map(id, map(scope.get, names)))
        return tuple(map(id, self._values()))

    def _values(self) -> Iterator[Any]:
        for scope, names in self._watched:
            yield from map(scope.get, names)
        for cell in self._cells:
            try:
                yield cell.cell_contents
            except ValueError:  # not assigned yet
                yield cell

    def _pickle(self) -> FunctionSpec:
        self._watched, self._cells = _references(self._target)
        self._kept = list(self._values())
        seen = tuple(map(id, self._kept))
        busy: set[int] = _pickling.__dict__.setdefault("busy", set())
        busy.add(id(self))
        try:
            payload = cloudpickle.dumps(self._target, 5)
        except Exception as error:
            if is_of_signal(error):
                raise
            raise explain(f"the {self.what.removeprefix('remote ')} {self.name}", self._target, self.name, error) from error
        finally:
            busy.discard(id(self))
        self._weigh(len(payload))
        known = self._spec
        if known is None or known.payload != payload:
            identifier = hashlib.blake2b(payload, digest_size=16).digest()
            known = FunctionSpec(identifier, self.name, payload, zlib.crc32(payload))
        self._seen, self._spec = seen, known
        return known

    def _weigh(self, size: int) -> None:
        if size <= WARN_BYTES:
            return
        said = f"{size / 2**20:.1f} MiB, mostly {_largest(self._target)}"
        advice = "Put large values with nbray.put() once and pass the reference as an argument."
        if size > LIMIT_BYTES:
            raise ValueError(f"The {self.what} {self.name} is too large ({said} > {LIMIT_BYTES / 2**20:.0f} MiB). {advice}")
        warnings.warn(f"The {self.what} {self.name} is very large ({said}). {advice}", UserWarning, stacklevel=5)

    def __getstate__(self) -> dict[str, Any]:
        if id(self) in _pickling.__dict__.get("busy", ()):
            # The target refers to itself (recursion): the pickler that is at work knows it already.
            return {"name": self.name, "what": self.what, "_target": self._target}
        return {"name": self.name, "what": self.what, "_spec": self.spec()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state.get("_target"), state["name"], state["what"])  # type: ignore[misc]
        self._spec = state.get("_spec")


def _references(target: Any) -> tuple[list[tuple[dict[str, Any], tuple[str, ...]]], list[types.CellType]]:
    """The globals, by scope, and the closure cells that the pickled form of `target` depends on, transitively."""
    scopes: dict[int, tuple[dict[str, Any], set[str]]] = {}
    cells: dict[int, types.CellType] = {}
    open_: list[Any] = [target]
    seen: set[int] = set()
    while open_ and len(seen) < WALK_LIMIT:
        one = open_.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one = getattr(one, "__wrapped_definition__", one)
        one = one.target if isinstance(one, Definition) else one
        if isinstance(one, staticmethod | classmethod | types.MethodType):
            open_.append(one.__func__)
        elif isinstance(one, property):
            open_ += [one.fget, one.fset]
        elif isinstance(one, types.FunctionType) and (one is target or _by_value(one)):
            scope = scopes.setdefault(id(one.__globals__), (one.__globals__, set()))[1]
            names = global_names(one.__code__)
            scope |= names
            cells.update((id(c), c) for c in one.__closure__ or ())
            open_ += captured(one).values()
        elif isinstance(one, type) and (one is target or _by_value(one)):
            open_ += [*vars(one).values(), *one.__bases__]
    return [(scope, tuple(sorted(names))) for scope, names in scopes.values() if names], list(cells.values())


def _by_value(thing: Any) -> bool:
    """Whether cloudpickle writes the thing itself, not its module and name."""
    module = sys.modules.get(thing.__module__ or "")
    if module is None or module.__name__ == "__main__" or module.__name__ in cloudpickle.list_registry_pickle_by_value():
        return True
    found: Any = module
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is not thing


def _largest(target: Any) -> str:
    sizes = {}
    functions = [target] if isinstance(target, types.FunctionType) else [f for f in vars(target).values() if callable(f)]
    for function in functions:
        for name, value in captured(function).items():
            sizes[name] = len(cloudpickle.dumps(value, 5))
    if not sizes:
        return "its own code and defaults"
    name = max(sizes, key=sizes.__getitem__)
    return f"its variable `{name}` ({sizes[name] / 2**20:.1f} MiB)"
