"""Remote functions: what `@nbray.remote` makes of a function.

`f.remote(x)` is the hot path of the whole runtime: arguments are counted, the definition is compared by identity, and the
engine is asked. Everything else was worked out when the function was decorated or `.options()` was called.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from nbray import connection, session
from nbray.dag.function_node import FunctionNode
from nbray.definitions import Definition
from nbray.generators import ObjectRefGenerator
from nbray.options import TASK, checked, task_options
from nbray.refs import ObjectRef
from nbray.signatures import CallShape

STREAMS = -1  #: in place of a number of returns
Refs = ObjectRef[Any] | list[ObjectRef[Any]] | None  #: for num_returns 1, more, and 0


class RemoteFunction:
    """A function that runs as a task: `f.remote(...)` returns a reference at once. Calling it directly is a TypeError."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        """`options` are checked. Raises ValueError for an `async def` function."""
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ValueError(
                f"'async def' should not be used for remote tasks: {function.__name__} would return a coroutine, which nobody "
                "awaits. Wrap it, `def task(): return asyncio.run(...)`, or make it a method of an actor."
            )
        name = getattr(function, "__name__", type(function).__name__)
        generates = inspect.isgeneratorfunction(function)
        if options.get("num_gpus"):
            options = {"max_calls": 1, **options}  # memory of a GPU is given back by the end of the process only (as in Ray)
        self._settle(Definition(function, name, "remote function"), options, CallShape.of(function), generates)
        functools.update_wrapper(self, function)
        del self.__dict__["__wrapped__"]  # inspect.unwrap would look through us

    def _settle(self, definition: Definition, options: Mapping[str, Any], shape: CallShape, generates: bool) -> None:
        self._definition, self._given, self._shape, self._generates = definition, dict(options), shape, generates
        self._task_options = task_options(options, generates=generates)
        self._least, self._most = shape.least, shape.most
        stream = self._task_options.stream
        self._returns = STREAMS if stream is not None and not stream.dynamic else self._task_options.returns

    @property
    def __wrapped_definition__(self) -> Definition:
        return self._definition

    @property
    def _function(self) -> Callable[..., Any]:
        """The function itself, which programs for Ray call in place as `f._function(...)`."""
        function: Callable[..., Any] = self._definition.target
        return function

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function as a task. Returns a reference; None for num_returns=0, a list of references for more than 1, and for
        a generator function an ObjectRefGenerator, which gives the references as they come.

        Raises TypeError when the arguments do not fit the function, or one of them does not pickle.
        """
        if kwargs or not self._least <= len(args) <= self._most:
            self._shape.check(self._definition.name, args, kwargs)
        engine = session.engine
        if engine is None:
            engine = connection.engine()
        refs = engine.submit(self._definition.spec(), args, kwargs, self._task_options)
        if self._returns == 1:
            return refs[0]
        if self._returns == STREAMS:
            return ObjectRefGenerator(engine, refs[0], self._definition.name)
        return refs or None

    def options(self, **options: Any) -> RemoteFunction:
        """The same function with other options, for this use."""
        return self._with({**self._given, **checked(TASK, options, in_options=True)})

    def _remote(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        """`remote` with arguments as a tuple and a dict, as older Ray programs call it."""
        return self.options(**options).remote(*(args or ()), **(kwargs or {}))

    def bind(self, *args: Any, **kwargs: Any) -> FunctionNode:
        """The call as a node of a task graph (nbray.dag), which its `execute()` makes. Raises TypeError as `remote` does."""
        self._shape.check(self._definition.name, args, kwargs)
        return FunctionNode(self, args, kwargs)

    def _with(self, options: Mapping[str, Any]) -> RemoteFunction:
        other = RemoteFunction.__new__(RemoteFunction)
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k.startswith("__")})
        other._settle(self._definition, options, self._shape, self._generates)
        return other

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        name = self._definition.name
        raise TypeError(f"Remote functions cannot be called directly. Instead of running '{name}()', try '{name}.remote()'.")

    def __repr__(self) -> str:
        return f"RemoteFunction({self._definition.name})"

    def __getstate__(self) -> dict[str, Any]:
        return {"definition": self._definition, "options": self._given, "shape": self._shape, "generates": self._generates}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__name__ = self.__qualname__ = state["definition"].__dict__.get("name", "function")
        self._settle(state["definition"], state["options"], state["shape"], state["generates"])
