"""Actors in a graph: one that each execution makes anew, and calls of it or of an actor that is there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from nbray.dag.dag_node import DAGNode, Values
from nbray.dag.input_node import InputAttributeNode, InputNode


class ClassNode(DAGNode):
    """What `A.bind(...)` returns: every execution makes an actor of its own. `node.method.bind(...)` is a call of it."""

    def __init__(self, cls: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """`cls` is an actor class."""
        super().__init__(args, kwargs)
        self._class = cls
        self._last: ClassMethodNode | None = None
        if any(isinstance(node, InputNode | InputAttributeNode) for node in self._in_order()):
            raise ValueError(
                f"InputNode cannot be an argument of {cls!r}.bind(): an actor is made before there is an input. Give it to a method"
            )

    def _run(self, values: Values, _given: Any) -> Any:
        return self._call(self._class.remote, values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("bind", "remote"):
            return super().__getattr__(name)
        if name not in dir(self._class):
            raise AttributeError(f"{self._class!r} has no method {name!r}")
        return UnboundClassMethod(self, name, {})

    def __repr__(self) -> str:
        return f"ClassNode({self._class!r})"


class UnboundClassMethod:
    """`class_node.method`, which has `bind` and `options`."""

    def __init__(self, node: ClassNode, name: str, options: dict[str, Any]) -> None:
        self.node, self.name, self._options = node, name, options

    def bind(self, *args: Any, **kwargs: Any) -> ClassMethodNode:
        """A call of this method, after those that were bound before it."""
        node = self.node
        node._last = bound = ClassMethodNode(self, args, kwargs, after=node._last)
        return bound

    def options(self, **options: Any) -> Self:
        """The same method with options for this call."""
        return type(self)(self.node, self.name, {**self._options, **options})

    def of(self, values: Values) -> Any:
        """The method of the actor that this execution has made."""
        method = getattr(values[self.node], self.name)
        return method.options(**self._options) if self._options else method

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "remote":
            raise AttributeError(f".{self.name}.remote(): there is no actor yet; .bind() puts the call into the graph")
        raise AttributeError(f"{self.name!r} of a graph's actor has `bind` and `options`, not {name!r}")

    def __repr__(self) -> str:
        return f"{self.node!r}.{self.name}"


class ClassMethodNode(DAGNode):
    """What `class_node.method.bind(...)` and `handle.method.bind(...)` return."""

    def __init__(self, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], after: ClassMethodNode | None = None) -> None:
        """`method` has a `.remote`, or is an UnboundClassMethod. `after` is the call of the actor that was bound before: they
        run in that order, also those whose results nobody takes."""
        super().__init__(args, kwargs)
        self._method, self._after = method, after

    def _needs(self) -> Iterator[DAGNode]:
        if isinstance(self._method, UnboundClassMethod):
            yield self._method.node
        if self._after is not None:
            yield self._after
        yield from super()._needs()

    def _run(self, values: Values, _given: Any) -> Any:
        method = self._method
        return self._call((method.of(values) if isinstance(method, UnboundClassMethod) else method).remote, values)

    def __repr__(self) -> str:
        return f"ClassMethodNode({self._method!r})"


class ClassMethodOutputNode(DAGNode):
    """One of several results of a method of a living actor: `handle.method.bind()` returns a tuple of these."""

    def __init__(self, call: ClassMethodNode, index: int) -> None:
        super().__init__((call,), {})
        self._whole, self._index = call, index

    def _run(self, values: Values, _given: Any) -> Any:
        return values[self._whole][self._index]


def bound_method(
    method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], returns: int
) -> ClassMethodNode | tuple[DAGNode, ...]:
    """`handle.method.bind(...)`: a node, or a node for each of its results where it has several."""
    call = ClassMethodNode(method, args, kwargs)
    return call if returns <= 1 else tuple(ClassMethodOutputNode(call, index) for index in range(returns))
