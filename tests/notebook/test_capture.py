"""What a cell reads and binds: rule by rule, and against Python itself on generated cells."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbray.notebook.capture import Capture, capture


def certain(found: Capture) -> set[str]:
    return {read.name for read in found.reads if read.certain and not hasattr(builtins, read.name)}


def possible(found: Capture) -> set[str]:
    return {read.name for read in found.reads if not read.certain and not hasattr(builtins, read.name)}


@pytest.mark.parametrize(
    ("source", "needed", "maybe", "bound"),
    [
        ("x = 1\nprint(x)", "", "", "x"),
        ("y = x", "x", "", "y"),
        ("x = x + 1", "x", "", "x"),
        ("x += 1", "x", "", "x"),
        ("x[0] += f(i)", "x f i", "", "x"),
        ("a, (b, *c) = d", "d", "", "a b c"),
        ("a = b = c", "c", "", "a b"),
        ("m.cfg['k'].v = 1", "m", "", "m"),
        ("del d['k']", "d", "", "d"),
        ("del x", "x", "", "x"),
        ("x = 1\ndel x\nx", "", "", "x"),
        ("x: int = 3", "", "", "x"),
        ("x: int", "", "", ""),
        ("x: T = 1", "T", "", "x"),
        ("(n := 10) + n", "", "", "n"),
        ("import os.path, numpy as np\nfrom a import b as c", "", "", "os np c"),
        ("for i in xs:\n    t += i", "xs t", "", "i t"),
        ("for i in xs:\n    u = i\nu", "xs", "u", "i u"),
        ("for a[0] in xs: pass", "a xs", "", "a"),
        ("while go:\n    go = step()", "go", "step", "go"),
        ("with open(p) as f, g() as (h, k):\n    f", "p g", "", "f h k"),
        ("if c:\n    x = 1\nelse:\n    x = 2\nx", "c", "", "x"),
        ("if c:\n    x = 1\nx", "c", "x", "x"),
        ("if c:\n    raise E\nelse:\n    x = 1\nx", "c", "E", "x"),
        ("a and b or c", "a", "b c", ""),
        ("a if b else c", "b", "a c", ""),
        ("try:\n    u\nexcept NameError:\n    u = 1\nu", "", "u", "u"),
        ("try:\n    u = f()\nexcept ValueError as e:\n    u = e\nu", "f", "", "u"),
        ("try:\n    pass\nfinally:\n    z = q", "q", "", "z"),
        ("def f(a, b=q, *, k=w) -> R:\n    return a + g", "q w R", "g", "f"),
        ("def f():\n    return f()", "", "", "f"),
        ("def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = y\n    return g", "", "y", "f"),
        ("def f():\n    global total\n    total = 1", "", "total", "f total"),
        ("@deco\nasync def f():\n    await g()", "deco", "g", "f"),
        ("h = lambda a, b=c: a + b + d", "c", "d", "h"),
        ("class A(B, metaclass=M):\n    x = y\n    z = x\n    def m(self):\n        return x", "B M y", "x", "A"),
        ("class A:\n    def m(self):\n        return super().m() and __class__", "", "", "A"),
        ("class A:\n    xs = [1]\n    ys = [q for _ in xs]", "q", "", "A"),
        ("[i * j for i in xs if i > k]", "xs j k", "", ""),
        ("{k: v for k, v in d.items()}", "d", "", ""),
        ("[y := f(x) for x in xs]", "f xs", "", "y"),
        ("[a for a in b for b in c]", "b c", "", ""),
        ("[(lambda: i + n)() for i in xs]", "xs", "n", ""),
        ("x = [x for x in x]", "x", "", "x"),
        ("match v:\n    case [a, *r]:\n        b = a\n    case {'k': q, **m}:\n        1", "v", "", "a r b q m"),
        ("match v:\n    case P(z=s):\n        1\n    case _ if w:\n        t = 1", "v", "P w", "s t"),
        ("from m import *\nsin(x)", "", "sin x", ""),
        ("x = await ref", "ref", "", "x"),
        ("async with pool as p:\n    async for i in p: pass", "pool", "", "p i"),
        ("f'{a} {b!r:>{w}}'", "a b w", "", ""),
        ("for _ in range(3):\n    pass", "", "", ""),
        ("print(sum(xs))", "xs", "", ""),
        ("__name__", "", "", ""),
        ("out = !ls {folder} $name", "", "folder name", "out"),
        ("", "", "", ""),
    ],
)  # fmt: skip
def test_names_are_classified_by_the_order_in_which_python_meets_them(source: str, needed: str, maybe: str, bound: str) -> None:
    found = capture(source)
    assert certain(found) == set(needed.split())
    assert possible(found) == set(maybe.split())
    assert set(found.binds) == set(bound.split())


def test_lines_count_as_the_notebook_shows_them_also_after_blank_lines() -> None:
    found = capture("\n\n  \nfirst = second")
    assert [(read.name, read.line) for read in found.reads] == [("second", 5)]
    assert found.code.count("\n", 0, found.code.index("first")) == 4


def test_the_first_certain_read_gives_the_line() -> None:
    found = capture("def f():\n    return x\nprint(1)\nx")
    assert [(r.name, r.line, r.certain) for r in found.reads if r.name == "x"] == [("x", 5, True)]


@pytest.mark.parametrize(
    ("source", "shows"), [("x", True), ("x;", False), ("x = 1", False), ("x; # done", False), ("f(\n 1)\n\n", True), ("", False)]
)
def test_the_last_expression_shows_unless_a_semicolon_ends_it(source: str, shows: bool) -> None:
    assert capture(source).shows is shows


def test_a_syntax_error_has_the_line_as_written() -> None:
    with pytest.raises(SyntaxError) as caught:
        capture("x = 1\n!ls\ny = = 2")
    assert caught.value.lineno == 4
    assert (caught.value.text or "").strip() == "y = = 2"


@pytest.mark.parametrize("source", ["return 3", "break", "nonlocal x", "def f():\n    x = 1\n    global x"])
def test_what_only_the_compiler_refuses_is_a_syntax_error_too(source: str) -> None:
    with pytest.raises(SyntaxError):
        capture(source)


def test_magics_are_named_with_their_line_and_shell_lines_are_not_magics() -> None:
    found = capture("!ls\n%timeit f(x)\ny = %who_ls")
    assert [(magic.name, magic.line) for magic in found.magics] == [("timeit", 3), ("who_ls", 4)]


def test_changes_in_place_are_told_from_assignments() -> None:
    found = capture("a[0] = 1\nb.c = 2\nd = 3\ne += 1")
    assert found.mutated == {"a", "b", "e"}
    assert found.binds == ("a", "b", "d", "e")


def test_names_that_ipython_keeps_for_itself_are_never_outputs() -> None:
    assert capture("_ = 1\nIn = 2\n__ = 3\nx = 4").binds == ("x",)


# -- against Python: run the cell with exactly the inputs that were found

names = st.sampled_from(["a", "b", "c", "d"])
expressions = st.recursive(
    names | st.just("1"),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"({p[0]} + {p[1]})"),
        st.tuples(names, inner).map(lambda p: f"sum([{p[0]} for {p[0]} in range({p[1]} % 3)])"),
        st.tuples(names, inner).map(lambda p: f"(lambda {p[0]}: {p[0]})({p[1]})"),
        st.tuples(names, inner).map(lambda p: f"({p[0]} := {p[1]})"),
    ),
    max_leaves=4,
)


def indented(body: str) -> str:
    return "\n".join("    " + line for line in body.splitlines())


statements = st.recursive(
    st.one_of(
        st.tuples(names, expressions).map(lambda p: f"{p[0]} = {p[1]}"),
        st.tuples(names, expressions).map(lambda p: f"{p[0]} += {p[1]}"),
        expressions,
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("\n".join),
        st.tuples(expressions, inner, inner).map(lambda p: f"if {p[0]} % 2:\n{indented(p[1])}\nelse:\n{indented(p[2])}"),
        st.tuples(names, inner).map(lambda p: f"for {p[0]} in range(2):\n{indented(p[1])}"),
        inner.map(lambda body: f"try:\n{indented(body)}\nfinally:\n    pass"),
    ),
    max_leaves=8,
)


def compiles(source: str) -> bool:
    """Walrus targets are not allowed everywhere."""
    try:
        compile(source, "<cell>", "exec")
    except SyntaxError:
        return False
    return True


@given(statements.filter(compiles))
def test_a_cell_runs_with_the_inputs_that_were_found_as_it_does_with_everything(source: str) -> None:
    everything = {"a": 1, "b": 2, "c": 3, "d": 4}
    full: dict[str, Any] = dict(everything)
    found = capture(source)
    exec(found.code, full)
    partial: dict[str, Any] = {read.name: everything[read.name] for read in found.reads if read.name in everything}
    exec(found.code, partial)
    for name in found.binds:
        # A branch that did not run bound nothing: then the notebook keeps what it has.
        assert partial.get(name, everything[name]) == full[name]
    assert {name for name in everything if full[name] != everything[name]} <= set(found.binds)
