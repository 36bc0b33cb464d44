"""Actors: what `@nbray.remote` makes of a class, the handle that `.remote()` returns, and its methods.

    ActorClass --remote()--> ActorHandle --.name--> ActorMethod --remote()--> ObjectRef

A handle is an actor's token and the table of its methods. The token's reference counts the handles: when the last one is
gone the actor ends. Handles from `get_actor`, and an actor's own, have none and keep nothing alive.
"""

from __future__ import annotations

import difflib
import inspect
import pickle
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NoReturn

import cloudpickle
import msgspec

from nbray import connection, session, shown
from nbray.dag.class_node import ClassMethodNode, ClassNode, bound_method
from nbray.dag.dag_node import DAGNode
from nbray.definitions import Definition
from nbray.engines.port import ActorToken, CallOptions, Engine
from nbray.exceptions import ActorHandleNotFoundError
from nbray.generators import ObjectRefGenerator
from nbray.identifiers import ActorID
from nbray.options import ACTOR, METHOD, actor_options, call_options, checked, streaming
from nbray.signatures import CallShape
from nbray.wire.messages import SYSTEM_GROUP

WINDOW = "_generator_backpressure_num_objects"
METHOD_OPTIONS = "__nbray_method_options__"

#: What every actor answers to, carried out by its worker: it has started; run a function with the instance; end in order.
BUILT_IN = ("__ray_ready__", "__ray_call__", "__ray_terminate__")


class ActorClassInheritanceException(TypeError):
    """A class was derived from an actor class; derive from the plain class and decorate the result."""


class Method(msgspec.Struct, frozen=True):
    """What a handle knows of one method. Travels with the token, so it holds nothing of the user's."""

    name: str
    shape: CallShape
    options: CallOptions  #: from `@nbray.method`; the actor's own max_task_retries is in the token
    own: tuple[str, ...] = ()  #: the options that `@nbray.method` names, which the actor's do not replace
    generates: bool = False
    retried_types: bytes = b""  #: pickled classes of its retry_exceptions, loaded only where the method is called


class HandleTable(msgspec.Struct, frozen=True):
    """What a handle knows of its actor. Travels with every handle, opaque to the head, so that `get_actor` finds it too."""

    methods: dict[str, Method]
    groups: tuple[str, ...] = ()  #: its concurrency groups
    max_pending_calls: int = -1
    unordered: bool = False
    traced: bool = True


#: Options of a method by the field of CallOptions that they are.
_FIELDS = {"num_returns": "returns", "concurrency_group": "group", "enable_task_events": "traced"}


# ------------------------------------------------------------------------------------------------------- the class


class ActorClass:
    """A class whose instances live in processes of their own: `A.remote(...)` returns a handle at once."""

    def __init__(self, cls: type, options: Mapping[str, Any]) -> None:
        """`options` are checked."""
        methods = method_table(cls)
        definition = Definition(cls, cls.__name__, "actor class")
        is_async = any(_is_async(f) for f in _functions(cls).values())
        self._settle(definition, options, methods, CallShape.of(cls), is_async)
        self.__module__, self.__doc__ = cls.__module__, cls.__doc__
        self.__name__, self.__qualname__ = cls.__name__, cls.__qualname__

    def _settle(
        self, definition: Definition, options: Mapping[str, Any], methods: dict[str, Method], shape: CallShape, is_async: bool
    ) -> None:
        self._definition, self._given, self._methods, self._shape, self._is_async = (
            definition,
            dict(options),
            methods,
            shape,
            is_async,
        )
        self._actor_options = taken = actor_options(options, is_async=is_async)
        groups = (SYSTEM_GROUP, *taken.groups)
        table = HandleTable(methods, groups, taken.max_pending_calls, taken.unordered, taken.traced)
        self._table = msgspec.msgpack.encode(table)
        self._groupless = [m.name for m in methods.values() if m.options.group and m.options.group not in groups]

    @property
    def __wrapped_definition__(self) -> Definition:
        return self._definition

    @property
    def __ray_metadata__(self) -> SimpleNamespace:
        return SimpleNamespace(class_name=self._definition.name, modified_class=self._definition.target, is_asyncio=self._is_async)

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor. Returns its handle before it runs; an error in `__init__` shows at the first call."""
        shape = self._shape
        if kwargs or not shape.least <= len(args) <= shape.most:
            shape.check(f"{self._definition.name}.__init__", args, kwargs)
        if self._groupless:
            self._refuse_groups()
        engine = session.engine
        if engine is None:
            engine = connection.engine()
        token = engine.create_actor(self._definition.spec(), self._table, args, kwargs, self._actor_options)
        return ActorHandle(engine, token)

    def _refuse_groups(self) -> NoReturn:
        method = self._methods[self._groupless[0]]
        raise ValueError(_unknown_group(f"{self._definition.name}.{method.name}", method.options.group, self._actor_options.groups))

    def options(self, **options: Any) -> ActorClass:
        """The same class with other options, for this use."""
        other = ActorClass.__new__(ActorClass)
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k.startswith("__")})
        given = {**self._given, **checked(ACTOR, options, in_options=True)}
        other._settle(self._definition, given, self._methods, self._shape, self._is_async)
        return other

    def _remote(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any) -> ActorHandle:
        """`remote` with arguments as a tuple and a dict, as older Ray programs call it."""
        return self.options(**options).remote(*(args or ()), **(kwargs or {}))

    def bind(self, *args: Any, **kwargs: Any) -> ClassNode:
        """A node of a task graph (nbray.dag) that makes an actor. Raises TypeError as `remote` does."""
        self._shape.check(f"{self._definition.name}.__init__", args, kwargs)
        return ClassNode(self, args, kwargs)

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        name = self._definition.name
        raise TypeError(f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'.")

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> NoReturn:
        raise ActorClassInheritanceException(
            f"Inheriting from the actor class {self._definition.name} is not supported: derive from the plain class and decorate "
            "the classes that you want to run as actors"
        )

    def __getattr__(self, name: str) -> Any:
        """Class methods, static methods and constants of the class itself, which need no actor."""
        if name.startswith("__") or "_definition" not in self.__dict__:
            raise AttributeError(name)
        try:
            return getattr(self._definition.target, name)
        except AttributeError:
            raise AttributeError(f"actor class {self._definition.name} has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return [*(n for n in self._methods if n not in BUILT_IN), "options", "remote", "bind"]

    def __repr__(self) -> str:
        return f"ActorClass({self._definition.name})"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "definition": self._definition,
            "options": self._given,
            "methods": msgspec.msgpack.encode(self._methods),
            "shape": self._shape,
            "is_async": self._is_async,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        methods = msgspec.msgpack.decode(state["methods"], type=dict[str, Method])
        self._settle(state["definition"], state["options"], methods, state["shape"], state["is_async"])


def method(*args: Any, **options: Any) -> Callable[[Any], Any]:
    """Give a method of an actor class options of its own: `@nbray.method(num_returns=2)`."""
    if args or not options:
        listed = "num_returns, max_task_retries, retry_exceptions, concurrency_group, enable_task_events"
        raise ValueError(
            f"The @nbray.method decorator must be applied with options, for example @nbray.method(num_returns=2): {listed}"
        )
    accepted = checked(METHOD, options)

    def annotate(function: Any) -> Any:
        streaming(accepted, generates=inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function))
        setattr(function, METHOD_OPTIONS, accepted)
        return function

    return annotate


def method_table(cls: type) -> dict[str, Method]:
    """Every method of `cls` that a handle offers, by name."""
    table = {}
    for name, function in _functions(cls).items():
        raw = inspect.getattr_static(cls, name)
        given = getattr(function, METHOD_OPTIONS, {})
        generates = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        shape = CallShape.of(function, bound=not isinstance(raw, staticmethod | classmethod))
        types = given.get("retry_exceptions")
        retried = cloudpickle.dumps(types) if isinstance(types, tuple) else b""
        options = call_options({**given, "retry_exceptions": True} if retried else given, generates=generates)
        table[name] = Method(name, shape, options, tuple(given), generates, retried)
    return table | {name: Method(name, CallShape(), CallOptions()) for name in BUILT_IN}


def _functions(cls: type) -> dict[str, Any]:
    found = inspect.getmembers(cls, lambda member: inspect.isfunction(member) or inspect.ismethod(member))
    return dict(found)


def _unknown_group(method: str, group: str, groups: Iterable[str]) -> str:
    known = ", ".join(map(repr, groups)) or "none"
    return f"{method} names the concurrency group {group!r}, which its actor does not have; concurrency_groups has {known}"


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


# ------------------------------------------------------------------------------------------------------- the handle


class ActorHandle:
    """A running actor: `handle.method.remote(...)`. Equal to every other handle of the same actor; pass it anywhere."""

    def __init__(self, engine: Engine, token: ActorToken) -> None:
        self._engine, self._token = engine, token
        self._table = msgspec.msgpack.decode(token.methods, type=HandleTable)
        self._methods = self._table.methods
        self._limit = self._table.max_pending_calls
        self._options: dict[str, CallOptions] = {}  #: of the methods called so far

    def _options_of(self, method: Method) -> CallOptions:
        """The method's own, else what the actor says of all its methods."""
        found = self._options.get(method.name)
        if found is None:
            table, own = self._table, method.own
            changed: dict[str, Any] = {"unordered": table.unordered}
            if "max_task_retries" not in own:
                changed["max_task_retries"] = self._token.max_task_retries
            if "enable_task_events" not in own:
                changed["traced"] = table.traced
            if method.retried_types:
                types = pickle.loads(method.retried_types)  # noqa: S301 -- where methods are called, user code runs anyway
                changed["retry_exceptions"] = types
            found = self._options[method.name] = msgspec.structs.replace(method.options, **changed)
        return found

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._token.actor)

    _ray_actor_id = _actor_id

    def _live_engine(self) -> Engine:
        """The engine to call through. Raises ActorHandleNotFoundError when the actor belongs to a session that has ended."""
        engine = self._engine
        if session.engine is not engine:
            raise ActorHandleNotFoundError(
                f"{self!r} belongs to a session that has ended (nbray.shutdown() was called since); create the actor again"
            )
        return engine

    def __getattr__(self, name: str) -> ActorMethod:
        methods = self.__dict__.get("_methods")
        if methods is None:
            raise AttributeError(name)
        found = methods.get(name)
        if found is None:
            close = difflib.get_close_matches(name, methods, n=1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise AttributeError(f"'{self._token.class_name}' actor has no method '{name}'.{meant}")
        return ActorMethod(self, found)

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError(f"{self!r} is an actor; call one of its methods: handle.method.remote()")

    def __dir__(self) -> list[str]:
        return list({"__init__": None, **self._methods})  # Ray lists it also where the class has none of its own

    def __eq__(self, other: object) -> bool:
        return self._token.actor == other._token.actor if isinstance(other, ActorHandle) else NotImplemented

    def __hash__(self) -> int:
        return int.from_bytes(self._token.actor)  # the same in every process, unlike the hash of bytes

    def __repr__(self) -> str:
        return f"Actor({self._token.class_name}, {self._token.actor.hex()})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> shown.Bundle:
        """What a notebook shows: whether it lives, where, and what it can be called for; from what this process knows."""
        del include, exclude
        engine = self._engine
        known = engine.looks.actor(self._token.actor) if engine is session.engine else None
        return shown.of_actor(repr(self), known, [name for name in self._methods if not name.startswith("_")])

    def __reduce__(self) -> tuple[Any, ...]:
        return receive_handle, (self._token,)


def receive_handle(token: ActorToken) -> ActorHandle:
    """Unpickle a handle: it calls through the engine of this process."""
    return ActorHandle(session.current(), token)


class ActorMethod:
    """A method of an actor: `.remote(...)` calls it and returns a reference at once."""

    __slots__ = ("_call_options", "_handle", "_method")

    def __init__(self, handle: ActorHandle, method: Method, options: CallOptions | None = None) -> None:
        self._handle, self._method = handle, method
        if options is None:
            options = handle._options.get(method.name) or handle._options_of(method)
        self._call_options = options

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method. Returns a reference; None for num_returns=0, a list of references for more than 1, and for a generator
        an ObjectRefGenerator, which gives the references as they come."""
        handle, method, options = self._handle, self._method, self._call_options
        shape = method.shape
        if kwargs or not shape.least <= len(args) <= shape.most:
            shape.check(f"{handle._token.class_name}.{method.name}", args, kwargs)
        engine = handle._engine
        if session.engine is not engine:
            engine = handle._live_engine()
        if handle._limit > 0:
            engine.pending_calls(handle._token, handle._limit)
        refs = engine.call_actor(handle._token, method.name, args, kwargs, options)
        if options.stream is not None and not options.stream.dynamic:
            return ObjectRefGenerator(engine, refs[0], options.name or f"{handle._token.class_name}.{method.name}")
        if options.returns == 1:
            return refs[0]
        return refs or None

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options, for this use."""
        given = checked(METHOD, options, in_options=True)
        group = given.get("concurrency_group", "")
        if group and group not in self._handle._table.groups:
            where = f"{self._handle._token.class_name}.{self._method.name}"
            raise ValueError(_unknown_group(where, group, self._handle._table.groups))
        changes = {_FIELDS.get(name, name): value for name, value in given.items() if name not in ("num_returns", WINDOW)}
        return ActorMethod(
            self._handle, self._method, msgspec.structs.replace(self._call_options, **self._returns(given), **changes)
        )

    def _returns(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What options of a call change in how its results come back."""
        stream, returns = self._call_options.stream, self._call_options.returns
        if "num_returns" in given:
            stream = streaming(given, generates=self._method.generates)
            returns = 1 if stream is not None else given["num_returns"]
        if stream is not None and not stream.dynamic:
            was = self._call_options.stream or stream
            stream = msgspec.structs.replace(stream, window=given.get(WINDOW, was.window), per_yield=was.per_yield)
        return {"stream": stream, "returns": returns}

    def _remote(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        return self.options(**options).remote(*(args or ()), **(kwargs or {}))

    def bind(self, *args: Any, **kwargs: Any) -> ClassMethodNode | tuple[DAGNode, ...]:
        """The call as a node of a task graph (nbray.dag); where it has several results, a node for each."""
        self._method.shape.check(f"{self._handle._token.class_name}.{self._method.name}", args, kwargs)
        return bound_method(self, args, kwargs, self._call_options.returns)

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        name = self._method.name
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{name}()', try 'object.{name}.remote()'."
        )

    def __repr__(self) -> str:
        return f"ActorMethod({self._handle._token.class_name}.{self._method.name})"
