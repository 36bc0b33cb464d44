"""What the source of a cell says of the results that its variables were made of."""

from __future__ import annotations

import ast

import pytest

from nbray.notebook.fetched import SHOWN, fetched


def flow(source: str, name: str) -> tuple[set[str], set[str]]:
    found = fetched(ast.parse(source).body).get(name)
    return (set(), set()) if found is None else (set(found.names), set(found.functions))


@pytest.mark.parametrize(
    ("source", "functions"),
    [
        ("x = nbray.get(f.remote(1))", {"f"}),
        ("x = nbray.get([fit.remote(load.remote(i)) for i in range(8)])", {"fit"}),
        ("x = sum(ray.get([f.options(num_cpus=2).remote(i) for i in xs], timeout=3))", {"f"}),
        ("x = get(actor.method.remote())", {"method"}),
        ("x = nbray.get(nbray.remote(f).remote(1))", {"f"}),
        ("x = await f.remote(1)", {"f"}),
        ("x, y = nbray.get(f.remote()), nbray.get(g.remote())", {"f"}),
        ("refs = [f.remote(i) for i in range(3)]\nready, rest = nbray.wait(refs)\nx = nbray.get(ready)", {"f"}),
        ("x = []\nfor r in [f.remote(i) for i in range(3)]:\n    x.append(nbray.get(r))", {"f"}),
        ("x = {}\nx['a'] = nbray.get(f.remote())", {"f"}),
        ("x = 0\nx += nbray.get(f.remote())", {"f"}),
        ("a = nbray.get(f.remote())\nx = a + 1", {"f"}),
        ("with open('p') as file:\n    x = nbray.get(f.remote())", {"f"}),
        ("try:\n    x = nbray.get(f.remote())\nexcept ValueError:\n    x = nbray.get(g.remote())", {"f", "g"}),
        ("print(x := nbray.get(f.remote()))", {"f"}),
    ],
)
def test_the_functions_whose_results_were_fetched_are_known(source: str, functions: set[str]) -> None:
    assert flow(source, "x")[1] == functions


@pytest.mark.parametrize(
    "source", ["x = f.remote(1)", "x = 1", "x = refs", "x = nbray.get(f.remote())\nx = 1", "def g():\n    x = get(refs)"]
)
def test_what_fetches_nothing_leads_nowhere(source: str) -> None:
    assert flow(source, "x") == (set(), set())


def test_names_that_were_fetched_are_told_and_what_tasks_were_given_is_not() -> None:
    assert "refs" in flow("x = nbray.get(refs)", "x")[0]
    assert "data" not in flow("x = nbray.get(f.remote(data))", "x")[0]


def test_the_last_expression_counts_as_what_is_shown() -> None:
    assert flow("y = 1\nnbray.get(refs)", SHOWN)[0] >= {"refs"}
    assert flow("nbray.get(refs)\ny = 1", SHOWN) == (set(), set())
