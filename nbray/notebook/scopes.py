"""Which names of the cell a nested scope reaches for: functions, lambdas, and what they read or bind as `global`.

A function's body runs later, if at all, so what it reads is needed *maybe*. Python's own symbol table decides what is local
there; only the way from a node to its table is ours.
"""

from __future__ import annotations

import ast
import copy
import symtable
from collections.abc import Iterator
from typing import NamedTuple


class Reach(NamedTuple):
    """Names of the module that a nested scope reads, and those that it binds through `global`."""

    reads: frozenset[str]
    binds: frozenset[str]


def reach(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Reach:
    """What the body of `node` reaches for, without its decorators and defaults (those are read when it is defined)."""
    table = symtable.symtable(ast.unparse(_bare(node)), "<scope>", "exec")
    reads: set[str] = set()
    binds: set[str] = set()
    for scope in _nested(table):
        for symbol in scope.get_symbols():
            if not symbol.is_global():
                continue
            name = symbol.get_name()
            if symbol.is_referenced():
                reads.add(name)
            if symbol.is_assigned() or symbol.is_imported():
                binds.add(name)
    # `super()` and methods that name `__class__` get it from the class around them, which this table does not show.
    return Reach(frozenset(reads - {"__class__"}), frozenset(binds))


def first_line(node: ast.AST, name: str) -> int:
    """The first line under `node` on which `name` is read."""
    lines = [n.lineno for n in ast.walk(node) if isinstance(n, ast.Name) and n.id == name]
    return min(lines, default=getattr(node, "lineno", 1))


def _bare(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> ast.AST:
    given = node.args
    arguments = ast.arguments(
        posonlyargs=[ast.arg(a.arg) for a in given.posonlyargs],
        args=[ast.arg(a.arg) for a in given.args],
        vararg=ast.arg(given.vararg.arg) if given.vararg else None,
        kwonlyargs=[ast.arg(a.arg) for a in given.kwonlyargs],
        kw_defaults=[None] * len(given.kwonlyargs),
        kwarg=ast.arg(given.kwarg.arg) if given.kwarg else None,
        defaults=[],
    )
    bare = copy.copy(node)
    bare.args = arguments
    if isinstance(bare, ast.Lambda):
        return ast.Expression(bare)
    bare.decorator_list, bare.returns = [], None
    return ast.fix_missing_locations(ast.Module([bare], type_ignores=[]))


def _nested(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _nested(child)
