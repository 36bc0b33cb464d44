"""A graph with several ends."""

from __future__ import annotations

from typing import Any

from nbray.dag.dag_node import DAGNode, Values, filled


class MultiOutputNode(DAGNode):
    """`MultiOutputNode([a, b]).execute(...)` returns a list of what the nodes give."""

    def __init__(self, args: list[Any] | tuple[Any, ...]) -> None:
        """Raises ValueError when `args` is neither a list nor a tuple."""
        if not isinstance(args, list | tuple):
            raise ValueError(f"Invalid input type for `args`, {type(args)}: MultiOutputNode takes a list of nodes")
        super().__init__(tuple(args), {})

    def _run(self, values: Values, _given: Any) -> Any:
        return list(filled(self._bound_args, values))
