"""The ordered pass behind `capture.py`: one method per kind of node, in the order in which Python runs them. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nbray.notebook.scopes import first_line, reach

#: Names that every module has; a cell that reads them means its own.
MODULE_NAMES = frozenset({"__name__", "__builtins__", "__doc__", "__spec__", "__package__", "__loader__", "__annotations__"})
NAME_ERRORS = frozenset({"NameError", "Exception", "BaseException"})
SHELL_NAME = re.compile(r"\{([^{}]+)\}|\$([A-Za-z_]\w*)")


class Read(NamedTuple):
    """A name that the cell takes from outside. `line` counts the magic's own line as 1, as the notebook's line numbers do."""

    name: str
    line: int
    certain: bool


class IPythonLine(NamedTuple):
    """A `%magic` inside the cell, which needs the notebook's own shell."""

    name: str
    line: int


class Walker:
    """The ordered pass. `sure` and `maybe` are the two sets; `guards` counts the branches around the current node."""

    def __init__(self) -> None:
        self.reads: dict[str, Read] = {}
        self.binds: dict[str, None] = {}
        self.mutated: set[str] = set()
        self.magics: list[IPythonLine] = []
        self.stars: list[str] = []
        self.sure: set[str] = set()
        self.maybe: set[str] = set()
        self.gone: set[str] = set()  # deleted by the cell: reading one is the cell's own NameError
        self.guards = 0
        self.shadows: list[set[str]] = []  # names of the comprehensions and class bodies around the current node

    # -- names

    def read(self, name: str, line: int, *, certain: bool = True) -> None:
        if name in self.sure or name in MODULE_NAMES or any(name in shadow for shadow in self.shadows):
            return
        if name in self.gone and name not in self.maybe:
            return
        certain = certain and not self.guards and name not in self.maybe and not self.stars
        known = self.reads.get(name)
        if known is None or (certain and not known.certain):
            self.reads[name] = Read(name, known.line if known and not certain else line, certain)

    def bind(self, name: str) -> None:
        self.binds.setdefault(name)
        self.sure.add(name)
        self.maybe.add(name)
        self.gone.discard(name)

    def bind_here(self, name: str) -> None:
        """Bind in the innermost class body, or in the cell."""
        if self.shadows:
            self.shadows[-1].add(name)
        else:
            self.bind(name)

    def unbind(self, name: str, line: int) -> None:
        if self.shadows and name in self.shadows[-1]:
            self.shadows[-1].discard(name)
            return
        self.read(name, line)
        self.binds.setdefault(name)
        self.sure.discard(name)
        self.maybe.discard(name)
        self.gone.add(name)

    def mutate(self, target: ast.expr) -> None:
        root: ast.expr = target
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if isinstance(root, ast.Name) and not any(root.id in shadow for shadow in self.shadows):
            self.binds.setdefault(root.id)
            self.mutated.add(root.id)

    # -- statements

    def block(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        handler = getattr(self, "do_" + type(node).__name__, None)
        if handler is not None:
            handler(node)
        else:
            self.parts(node)

    def parts(self, node: ast.AST) -> None:
        """Any node without a rule of its own: its children in source order, which is the order Python runs them in."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self.statement(child)
            elif isinstance(child, ast.expr):
                self.expression(child)
            else:
                self.parts(child)

    def do_Assign(self, node: ast.Assign) -> None:  # noqa: N802 -- named after the node
        self.expression(node.value)
        for target in node.targets:
            self.target(target)

    def do_AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802
        self.expression(node.annotation)
        if node.value is not None:
            self.expression(node.value)
            self.target(node.target)
        elif not isinstance(node.target, ast.Name):
            self.parts(node.target)

    def do_AugAssign(self, node: ast.AugAssign) -> None:  # noqa: N802
        if isinstance(node.target, ast.Name):
            self.read(node.target.id, node.lineno)
            self.expression(node.value)
            self.bind_here(node.target.id)
            # `xs += [1]` changes the object itself where it can, and an input may be a read-only view.
            self.mutated.add(node.target.id)
        else:
            self.target(node.target)
            self.expression(node.value)

    def do_Delete(self, node: ast.Delete) -> None:  # noqa: N802
        for target in node.targets:
            for part in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                if isinstance(part, ast.Name):
                    self.unbind(part.id, part.lineno)
                else:
                    self.target(part)

    def do_Import(self, node: ast.Import) -> None:  # noqa: N802
        for alias in node.names:
            self.bind_here(alias.asname or alias.name.split(".")[0])

    def do_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(node.module or ".")
            else:
                self.bind_here(alias.asname or alias.name)

    def do_Global(self, node: ast.Global) -> None:  # noqa: N802
        """At the top of a cell this says nothing that is not so already; in functions the symbol table has seen it."""

    def do_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:  # noqa: N802
        arguments = node.args
        for expression in [*node.decorator_list, *arguments.defaults, *filter(None, arguments.kw_defaults)]:
            self.expression(expression)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in filter(None, every):
            if argument.annotation is not None:
                self.expression(argument.annotation)
        if node.returns is not None:
            self.expression(node.returns)
        self.bind_here(node.name)
        self.later(node)

    do_AsyncFunctionDef = do_FunctionDef  # noqa: N815

    def later(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        reached = reach(node)
        hidden = self.shadows
        # A class body's names are not seen by the functions in it; a comprehension's are.
        self.shadows = [shadow for shadow in hidden if not isinstance(shadow, _ClassNames)]
        for name in sorted(reached.reads - reached.binds):
            self.read(name, first_line(node, name), certain=False)
        for name in sorted(reached.binds):
            self.read(name, first_line(node, name), certain=False)
            self.binds.setdefault(name)
            self.maybe.add(name)
        self.shadows = hidden

    def do_ClassDef(self, node: ast.ClassDef) -> None:  # noqa: N802
        for expression in [*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)]:
            self.expression(expression)
        self.shadows.append(_ClassNames({"__module__", "__qualname__"}))
        self.block(node.body)
        self.shadows.pop()
        self.bind_here(node.name)

    def do_If(self, node: ast.If) -> None:  # noqa: N802
        self.expression(node.test)
        self.branches([node.body, node.orelse])

    def do_While(self, node: ast.While) -> None:  # noqa: N802
        self.expression(node.test)
        self.branches([node.body, node.orelse], every=False)

    def do_For(self, node: ast.For | ast.AsyncFor) -> None:  # noqa: N802
        self.expression(node.iter)
        before = set(self.sure)
        self.target(node.target)
        # The body is taken as running: a misspelt name in a loop should be told before anything is sent.
        self.block(node.body)
        self.sure = before
        self.block(node.orelse)

    do_AsyncFor = do_For  # noqa: N815

    def do_With(self, node: ast.With | ast.AsyncWith) -> None:  # noqa: N802
        for item in node.items:
            self.expression(item.context_expr)
            if item.optional_vars is not None:
                self.target(item.optional_vars)
        self.block(node.body)

    do_AsyncWith = do_With  # noqa: N815

    def do_Try(self, node: ast.Try) -> None:  # noqa: N802
        before = set(self.sure)
        guarded = any(_catches_name_error(handler) for handler in node.handlers)
        self.guards += guarded
        self.block(node.body)
        self.guards -= guarded
        self.block(node.orelse)
        ends = [] if _leaves(node.body) else [set(self.sure)]
        self.guards += 1
        for handler in node.handlers:
            self.sure = set(before)
            if handler.type is not None:
                self.expression(handler.type)
            if handler.name:
                self.bind_here(handler.name)
            self.block(handler.body)
            if handler.name:
                self.sure.discard(handler.name)
                self.binds.pop(handler.name, None) if handler.name not in before else None
            if not _leaves(handler.body):
                ends.append(set(self.sure))
        self.guards -= 1
        self.sure = set.intersection(*ends) if ends else before
        self.block(node.finalbody)

    do_TryStar = do_Try  # noqa: N815

    def do_Match(self, node: ast.Match) -> None:  # noqa: N802
        self.expression(node.subject)
        before = set(self.sure)
        ends = []
        self.guards += 1
        for case in node.cases:
            self.sure = set(before)
            self.pattern(case.pattern)
            if case.guard is not None:
                self.expression(case.guard)
            self.block(case.body)
            if not _leaves(case.body):
                ends.append(set(self.sure))
        self.guards -= 1
        last = node.cases[-1]
        catches_all = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and last.guard is None
        self.sure = set.intersection(*ends) if ends and catches_all else before

    def pattern(self, node: ast.pattern) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.MatchAs | ast.MatchStar) and part.name:
                self.bind_here(part.name)
            elif isinstance(part, ast.MatchMapping) and part.rest:
                self.bind_here(part.rest)
            elif isinstance(part, ast.Name):
                self.read(part.id, part.lineno)

    def branches(self, bodies: Iterable[Sequence[ast.stmt]], *, every: bool = True) -> None:
        """Bodies of which one runs (`every`), or perhaps none. What all of them bind is bound for sure afterwards."""
        before = set(self.sure)
        ends = []
        self.guards += 1
        for body in bodies:
            self.sure = set(before)
            self.block(body)
            if not _leaves(body):
                ends.append(self.sure)
        self.guards -= 1
        self.sure = set.intersection(*ends) if ends and every else before

    # -- expressions

    def expression(self, node: ast.expr) -> None:
        handler = getattr(self, "see_" + type(node).__name__, None)
        if handler is not None:
            handler(node)
        else:
            self.parts(node)

    def see_Name(self, node: ast.Name) -> None:  # noqa: N802
        if isinstance(node.ctx, ast.Load):
            self.read(node.id, node.lineno)
        else:
            self.target(node)

    def see_NamedExpr(self, node: ast.NamedExpr) -> None:  # noqa: N802
        self.expression(node.value)
        if any(not isinstance(shadow, _ClassNames) for shadow in self.shadows):
            # Inside a comprehension `:=` binds in the cell, once per turn, and there may be none.
            self.binds.setdefault(node.target.id)
            self.maybe.add(node.target.id)
            self.shadows[-1].add(node.target.id)
        else:
            self.bind_here(node.target.id)

    def see_Lambda(self, node: ast.Lambda) -> None:  # noqa: N802
        for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.expression(default)
        self.later(node)

    def see_BoolOp(self, node: ast.BoolOp) -> None:  # noqa: N802
        self.expression(node.values[0])
        self.guards += 1
        for value in node.values[1:]:
            self.expression(value)
        self.guards -= 1

    def see_IfExp(self, node: ast.IfExp) -> None:  # noqa: N802
        self.expression(node.test)
        self.guards += 1
        self.expression(node.body)
        self.expression(node.orelse)
        self.guards -= 1

    def see_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:  # noqa: N802
        self.comprehension(node.generators, [node.elt])

    see_SetComp = see_GeneratorExp = see_ListComp  # noqa: N815

    def see_DictComp(self, node: ast.DictComp) -> None:  # noqa: N802
        self.comprehension(node.generators, [node.key, node.value])

    def comprehension(self, generators: Sequence[ast.comprehension], results: Sequence[ast.expr]) -> None:
        self.expression(generators[0].iter)  # evaluated outside the comprehension's own scope
        hidden = self.shadows
        own: set[str] = set()
        self.shadows = [*(shadow for shadow in hidden if not isinstance(shadow, _ClassNames)), own]
        for i, generator in enumerate(generators):
            if i:
                self.expression(generator.iter)
            own.update(n.id for n in ast.walk(generator.target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            for test in generator.ifs:
                self.expression(test)
        for result in results:
            self.expression(result)
        self.shadows = hidden

    def see_Call(self, node: ast.Call) -> None:  # noqa: N802
        called = node.func
        if isinstance(called, ast.Attribute) and _is_shell(called.value):
            self.shell_line(called.attr, node)
            return
        self.parts(node)

    def shell_line(self, method: str, node: ast.Call) -> None:
        text = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
        if method in {"system", "getoutput"}:
            for braces, dollar in SHELL_NAME.findall(" ".join(text)):
                for name in re.findall(r"[A-Za-z_]\w*", braces or dollar):
                    self.read(name, node.lineno, certain=False)
        else:
            self.magics.append(IPythonLine(text[0] if text else method, node.lineno))

    # -- targets

    def target(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name):
            self.bind_here(node.id)
        elif isinstance(node, ast.Tuple | ast.List):
            for element in node.elts:
                self.target(element)
        elif isinstance(node, ast.Starred):
            self.target(node.value)
        else:
            self.parts(node)
            self.mutate(node)


class _ClassNames(set[str]):
    """Names bound in a class body: seen by its statements, not by the functions in it."""


def _is_shell(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython"


def _leaves(body: Sequence[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], ast.Raise | ast.Return | ast.Break | ast.Continue)


def _catches_name_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(each, ast.Name) and each.id in NAME_ERRORS for each in caught)
