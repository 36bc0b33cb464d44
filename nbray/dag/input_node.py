"""Where what `execute()` is given comes into a graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from nbray.dag.dag_node import DAGInputData, DAGNode, Values


class InputNode(DAGNode):
    """The input of a graph: `with InputNode() as given: graph = f.bind(given)`.

    `given[0]`, `given["x"]` and `given.x` are parts of it.
    """

    def __init__(self) -> None:
        super().__init__((), {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Nothing ends here: Ray's programs write the `with`."""

    def __getitem__(self, key: int | str) -> InputAttributeNode:
        return InputAttributeNode(self, key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # what pickle and copy ask every object for
        return InputAttributeNode(self, name, attribute=True)

    def _run(self, _values: Values, given: Any) -> Any:
        return given


class InputAttributeNode(DAGNode):
    """A part of the input, taken where the graph is executed: an index, a key, or an attribute."""

    def __init__(self, whole: InputNode, key: int | str, *, attribute: bool = False) -> None:
        if not isinstance(key, int | str):
            raise TypeError(f"a part of a graph's input is named by an index or a string, not by {key!r}")
        super().__init__((), {})
        self._whole, self._key, self._attribute = whole, key, attribute

    @property
    def key(self) -> int | str:
        """The index, key or name."""
        return self._key

    def _needs(self) -> Iterator[DAGNode]:
        yield self._whole

    def _run(self, values: Values, _given: Any) -> Any:
        whole = values[self._whole]
        if self._attribute and not isinstance(whole, DAGInputData):
            return getattr(whole, str(self._key))
        return whole[self._key]


__all__ = ["DAGInputData", "InputAttributeNode", "InputNode"]
