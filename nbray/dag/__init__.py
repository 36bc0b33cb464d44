"""Task graphs: `bind()` instead of `.remote()` draws a graph, and `execute()` runs it, as often as one likes.

    with InputNode() as given:
        total = add.bind(double.bind(given[0]), given[1])
    nbray.get(total.execute(3, 4))

Built on `.remote()` alone: a node is a call that has not been made. Graphs are not compiled.
"""

from __future__ import annotations

from nbray.absent import missing
from nbray.dag.class_node import ClassMethodNode, ClassNode
from nbray.dag.dag_node import DAGNode
from nbray.dag.function_node import FunctionNode
from nbray.dag.input_node import DAGInputData, InputAttributeNode, InputNode
from nbray.dag.output_node import MultiOutputNode

__all__ = [
    "ClassMethodNode",
    "ClassNode",
    "DAGInputData",
    "DAGNode",
    "FunctionNode",
    "InputAttributeNode",
    "InputNode",
    "MultiOutputNode",
]


def __getattr__(name: str) -> None:
    raise missing(__name__, name)
