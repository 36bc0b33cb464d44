"""Which tasks' results the variables of a cell were made of, as far as its source says. Pure: source in, names out.

    x = nbray.get(refs)                     from whatever `refs` holds
    y = sum(nbray.get([f.remote(i) for i in xs]))       from the tasks `f` of this cell

A *flow* is what a value leads back to: the names that it was made of, the functions whose tasks made it, and whether results were
fetched on the way. What was only passed to a task is not in it, as the task knows that itself. Functions of the notebook have one
too: the tasks that they submit, and whether they fetch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import NamedTuple

SHOWN = ""  #: stands for what the cell shows as Out


class Flow(NamedTuple):
    names: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    fetched: bool = False
    calls: frozenset[str] = frozenset()  #: functions that it went through, perhaps of the notebook

    def __or__(self, other: Flow) -> Flow:
        fetched = self.fetched or other.fetched
        return Flow(self.names | other.names, self.functions | other.functions, fetched, self.calls | other.calls)


NOTHING = Flow()


def fetched(body: list[ast.stmt]) -> dict[str, Flow]:
    """Of a cell's statements: the names whose values were made of results that it, or a function that it called, may have fetched;
    SHOWN if its last expression was."""
    flows = _Flows()
    flows.block(body)
    if body and isinstance(body[-1], ast.Expr):
        flows.known[SHOWN] = flows.of(body[-1].value)
    return {name: flow for name, flow in flows.known.items() if flow.calls or (flow.fetched and (flow.names or flow.functions))}


def of_functions(body: list[ast.stmt]) -> dict[str, Flow]:
    """The functions that a cell defines: what whoever calls them gets leads back to."""
    defined = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name: _Flows().all(node.body)._replace(names=frozenset()) for node in defined}


class _Flows:
    """One pass in the order of the source; `known` are the names that it has bound so far."""

    def __init__(self) -> None:
        self.known: dict[str, Flow] = {}
        self._depth = 0  # in branches and loops what a name had before may still be there

    # -- statements

    def block(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._bind(node.target, self.of(node.value))
        elif isinstance(node, ast.AugAssign):
            self._join(node.target, self.of(node.value))
        elif isinstance(node, ast.Expr):
            self._called(node.value)
        elif isinstance(node, ast.For | ast.AsyncFor):
            self._bind(node.target, self.of(node.iter))
            self._inside(node.body, node.orelse)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, self.of(item.context_expr))
            self._inside(node.body)
        elif isinstance(node, ast.If | ast.While):
            self._inside(node.body, node.orelse)
        elif isinstance(node, ast.Try | ast.TryStar):
            self._inside(node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody)

    def _inside(self, *bodies: list[ast.stmt]) -> None:
        self._depth += 1
        for body in bodies:
            self.block(body)
        self._depth -= 1

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        pairs = isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List)
        if pairs and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
            for one, other in zip(target.elts, value.elts, strict=True):  # type: ignore[attr-defined]
                self._assign(one, other)
        else:
            self._bind(target, self.of(value))

    def _bind(self, target: ast.expr, flow: Flow) -> None:
        if isinstance(target, ast.Name) and not self._depth:
            self.known[target.id] = flow
        elif isinstance(target, ast.Tuple | ast.List):
            for each in target.elts:
                self._bind(each, flow)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, flow)
        else:
            self._join(target, flow)

    def _join(self, target: ast.expr, flow: Flow) -> None:
        """What it was made of before counts too: `total += ...`, `results[i] = ...`."""
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name):
            self.known[target.id] = self.known.get(target.id, NOTHING) | flow

    def _called(self, value: ast.expr) -> None:
        """`results.append(...)`: what goes into a method of a name is in it afterwards."""
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr != "remote":
            flow = self.all([*value.args, *(keyword.value for keyword in value.keywords)])
            if flow.fetched or flow.calls:
                self._join(value.func.value, flow)

    # -- expressions

    def of(self, node: ast.expr) -> Flow:
        if isinstance(node, ast.Name):
            return Flow(frozenset({node.id})) | self.known.get(node.id, NOTHING)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Await):
            return self.of(node.value)._replace(fetched=True)
        if isinstance(node, ast.NamedExpr):
            flow = self.of(node.value)
            self._bind(node.target, flow)
            return flow
        return self.all(ast.iter_child_nodes(node))

    def _call(self, node: ast.Call) -> Flow:
        called, given = node.func, [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(called, ast.Attribute) and called.attr == "remote":
            return Flow(functions=frozenset({_function(called.value)} - {""}))
        if called.attr == "get" if isinstance(called, ast.Attribute) else isinstance(called, ast.Name) and called.id == "get":
            return self.all(given)._replace(fetched=True)
        inside = [called.value] if isinstance(called, ast.Attribute) else []
        through = Flow(calls=frozenset({called.id})) if isinstance(called, ast.Name) else NOTHING
        return self.all([*inside, *given]) | through

    def all(self, nodes: Iterable[ast.AST]) -> Flow:
        flow = NOTHING
        for node in nodes:
            flow |= self.of(node) if isinstance(node, ast.expr) else self.all(ast.iter_child_nodes(node))
        return flow


def _function(node: ast.expr) -> str:
    """What is called in `f.remote()`, `f.options(...).remote()`, `actor.method.remote()`, `nbray.remote(f).remote()`."""
    while isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr != "remote":
            node = node.func.value
        else:
            node = node.args[0] if node.args else node.func
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
