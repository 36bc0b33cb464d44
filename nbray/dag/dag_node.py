"""What every node of a task graph is: arguments, among them other nodes, and a way to run once these have values.

execute(input) -> the nodes below this one, arguments first -> each runs once -> this one's reference, handle or list
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

#: Node -> what it gave in this execution.
Values = dict["DAGNode", Any]


class DAGInputData:
    """What `execute` was given when that was not a single positional argument: `data[0]`, `data["x"]`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._args, self._kwargs = args, kwargs

    def __getitem__(self, key: int | str) -> Any:
        return self._args[key] if isinstance(key, int) else self._kwargs[key]


class DAGNode:
    """A call that has not been made. `execute()` makes it, and first those that its arguments need."""

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._bound_args, self._bound_kwargs = args, dict(kwargs)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph that ends here; every node in it runs once, however many others take its result.

        The arguments are the input: `InputNode()` stands for a single positional one, `InputNode()[0]` and `InputNode().x` for
        its parts, or for the arguments themselves where there are several. Returns at once what `.remote()` would: a reference
        for a function or method, a handle for a class, a list of them for a MultiOutputNode.
        """
        given = args[0] if len(args) == 1 and not kwargs else DAGInputData(*args, **kwargs)
        values: Values = {}
        for node in self._in_order():
            values[node] = node._run(values, given)
        return values[self]

    def experimental_compile(self, **_options: Any) -> NoReturn:
        """Ray's compiled graphs, which are not built. Raises NotImplementedError."""
        raise NotImplementedError(
            "experimental_compile(): compiled graphs are not built in nbray. execute() runs the same graph as tasks and actor "
            "calls; make the actors beforehand (A.remote(), then handle.method.bind()), and they serve every execution"
        )

    def with_tensor_transport(self, *_args: Any, **_options: Any) -> NoReturn:
        """Ray's transports of compiled graphs, which are not built. Raises NotImplementedError."""
        raise NotImplementedError("with_tensor_transport(): tensors travel through the object store, without a copy on one node")

    def get_args(self) -> tuple[Any, ...]:
        """The positional arguments of `bind`."""
        return self._bound_args

    def get_kwargs(self) -> dict[str, Any]:
        """The keyword arguments of `bind`."""
        return dict(self._bound_kwargs)

    # ------------------------------------------------------------------------------------------ for kinds of nodes

    def _run(self, values: Values, given: Any) -> Any:
        """Make the call; `values` has those of every node that `_needs` names, `given` is the input."""
        raise NotImplementedError

    def _needs(self) -> Iterator[DAGNode]:
        """The nodes that have to run before this one."""
        yield from nodes_in((self._bound_args, self._bound_kwargs))

    def _call(self, callee: Callable[..., Any], values: Values) -> Any:
        return callee(*filled(self._bound_args, values), **filled(self._bound_kwargs, values))

    def _in_order(self) -> list[DAGNode]:
        """This node and all below it, each behind what it needs. Not recursive: a chain may be thousands long."""
        order: dict[DAGNode, None] = {}
        open_: list[tuple[DAGNode, Iterator[DAGNode]]] = [(self, self._needs())]
        while open_:
            node, needs = open_[-1]
            below = next((each for each in needs if each not in order), None)
            if below is None:
                order[node] = None
                open_.pop()
            else:
                open_.append((below, below._needs()))
        return list(order)

    def __getattr__(self, name: str) -> Any:
        if name == "remote":
            raise AttributeError(f"{type(self).__name__} has no .remote(): it is part of a graph, which .execute() runs")
        if name == "bind":
            raise AttributeError(f".bind() cannot be used again on {type(self).__name__}")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


def nodes_in(value: Any) -> Iterator[DAGNode]:
    """The nodes in an argument: itself, or inside lists, tuples, sets and the values of dicts, however deep."""
    if isinstance(value, DAGNode):
        yield value
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from nodes_in(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from nodes_in(each)


def filled(value: Any, values: Values) -> Any:
    """`value` with the values of its nodes in their places. What has no node in it is the same object as before."""
    if isinstance(value, DAGNode):
        return values[value]
    if next(nodes_in(value), None) is None:
        return value
    if isinstance(value, dict):
        return {key: filled(each, values) for key, each in value.items()}
    inside = [filled(each, values) for each in value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*inside)  # a named tuple
    return type(value)(inside)
