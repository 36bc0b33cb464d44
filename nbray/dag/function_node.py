"""A call of a remote function in a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbray.dag.dag_node import DAGNode, Values


class FunctionNode(DAGNode):
    """What `f.bind(...)` returns, also `f.options(...).bind(...)`."""

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """`function` has a `.remote`."""
        super().__init__(args, kwargs)
        self._function = function

    def _run(self, values: Values, _given: Any) -> Any:
        return self._call(self._function.remote, values)

    def __repr__(self) -> str:
        return f"FunctionNode({self._function!r})"
