"""Which cell made a variable, from what, and whether that has changed since."""

from __future__ import annotations

import types
from typing import Any

import pytest

from nbray.notebook.provenance import Provenance, parsed
from nbray.notebook.versions import Versions, mark_of


class Notebook:
    """Runs cells in a namespace of its own, as a kernel does, and tells a Provenance of them."""

    def __init__(self) -> None:
        self.known = Provenance()
        self.versions = Versions()
        self.namespace: dict[str, Any] = {}
        self.count = 0

    def run(self, source: str, cell: str = "") -> None:
        self.count += 1
        run = self.known.begin(f"In[{self.count}]", f"tag-{self.count}", cell, source)
        exec(source.partition("\n")[2] if source.startswith("%%") else source, self.namespace)  # what tests of cells are for
        self.known.end(run, *self.versions.changes(self.namespace))


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


def test_a_variable_is_stale_once_its_input_is_bound_again(notebook: Notebook) -> None:
    notebook.run("data = [1, 2]")
    notebook.run("total = sum(data)")
    assert notebook.known.stale("total") == ""
    notebook.run("data = [3]")
    assert notebook.known.stale("total") == "data was changed by In[3] after In[2] had read it"
    notebook.run("total = sum(data)")
    assert notebook.known.stale("total") == ""


def test_a_result_that_was_shown_is_stale_as_a_variable_is(notebook: Notebook) -> None:
    notebook.run("data = [1, 2]")
    notebook.run("sum(data)")
    assert notebook.known.stale("Out[2]") == ""
    notebook.run("data = [3]")
    assert notebook.known.stale("Out[2]") == "data was changed by In[3] after In[2] had read it"
    notebook.run("sum(data)")
    assert notebook.known.stale("Out[4]") == ""
    assert notebook.known.stale("Out[9]") == "", "nothing was shown there"


def test_what_was_fetched_leads_back_until_its_source_is_bound_again(notebook: Notebook) -> None:
    notebook.run("class nbray:\n    get = list")
    notebook.run("refs = [1, 2]")
    notebook.run("values = nbray.get(refs)")
    assert notebook.known.fetched("values").names == {"refs"}
    notebook.run("nbray.get(refs)")
    assert notebook.known.fetched("Out[4]").names == {"refs"}
    notebook.run("refs = [3]")
    assert notebook.known.fetched("values").names == frozenset()


def test_what_a_function_of_the_notebook_fetched_leads_to_the_tasks_that_it_submits(notebook: Notebook) -> None:
    notebook.run("class nbray:\n    get = sum\nclass f:\n    remote = int")
    notebook.run("def run(n):\n    return nbray.get([f.remote(i) for i in range(n)])\ndef both():\n    return [run(2), run(3)]")
    notebook.run("def plain(n):\n    return n")
    notebook.run("direct = run(3); through = sorted(both()); nothing = plain(3)")
    assert notebook.known.fetched("direct").functions == {"f"}
    assert notebook.known.fetched("through").functions == {"f"}
    assert notebook.known.fetched("nothing").functions == frozenset()


def test_what_is_made_from_something_stale_is_stale_too(notebook: Notebook) -> None:
    for source in ("a = [1]", "b = a + [2]", "c = b + [3]", "a = [9]"):
        notebook.run(source)
    assert notebook.known.stale("c") == "it was made from b, which is stale"
    assert notebook.known.stale("a") == ""


def test_a_cell_that_ran_again_and_made_the_same_changes_nothing(notebook: Notebook) -> None:
    cell = "n = 5\nnames = ['a', 'b']\ndef f(x):\n    return x * n"
    notebook.run(cell)
    notebook.run("y = f(2)")
    notebook.run(cell)
    assert notebook.known.stale("y") == ""


def test_a_function_counts_with_what_it_reads_when_it_is_called(notebook: Notebook) -> None:
    notebook.run("scale = 2\ndef inner(x):\n    return x * scale\ndef f(x):\n    return inner(x)")
    notebook.run("y = f(1)")
    notebook.run("scale = 3")
    assert notebook.known.stale("y") == "scale was changed by In[3] after In[2] had read it"
    assert notebook.known.stale("f") == "", "a function reads when it is called"
    notebook.run("y = f(1)")
    assert notebook.known.stale("y") == ""


def test_another_definition_of_a_function_makes_its_results_stale(notebook: Notebook) -> None:
    notebook.run("def f(x):\n    return x")
    notebook.run("y = f(1)")
    notebook.run("def f(x):\n    return x + 1")
    assert "f was changed by In[3]" in notebook.known.stale("y")


def test_a_change_in_place_that_the_source_shows_is_a_change(notebook: Notebook) -> None:
    notebook.run("import numpy as np\na = np.zeros(5)")
    notebook.run("total = a.sum()")
    notebook.run("print(len(a), end='')")
    assert notebook.known.stale("total") == ""
    notebook.run("a[0] = 7")
    assert notebook.known.stale("total") == "a was changed by In[4] after In[2] had read it"


def test_a_question_while_a_cell_runs_does_not_hide_what_it_changes(notebook: Notebook) -> None:
    notebook.run("xs = [object()]")
    notebook.run("size = len(xs)")
    source = "xs[0] = object()"
    run = notebook.known.begin("In[3]", "tag-3", "", source)
    assert notebook.known.stale("size") == ""
    exec(source, notebook.namespace)
    notebook.known.end(run, *notebook.versions.changes(notebook.namespace))
    assert notebook.known.stale("size") == "xs was changed by In[3] after In[2] had read it"


def test_a_cell_that_binds_its_own_input_is_not_stale_for_that(notebook: Notebook) -> None:
    notebook.run("xs = [1]")
    notebook.run("xs = xs + [2]\nlast = xs[-1]")
    assert notebook.known.stale("xs") == ""
    assert notebook.known.stale("last") == ""


def test_the_body_of_a_remote_cell_and_its_line_are_read(notebook: Notebook) -> None:
    notebook.run("n = 3\nk = 4")
    notebook.run("%%remote --each i=range(n)\nout = k + 1")
    run = notebook.known.maker("out")
    assert run is not None
    assert notebook.known.inputs(run) == {"n": 1, "k": 1}


def test_a_cell_that_ran_again_supersedes_its_earlier_run(notebook: Notebook) -> None:
    notebook.run("a = [1]", cell="x")
    first = notebook.known.runs[1]
    assert notebook.known.superseded(first) is None
    notebook.run("a = [1, 2]", cell="x")
    assert notebook.known.superseded(first) is notebook.known.runs[2]


@pytest.mark.parametrize("source", ["def (", "%%bash\necho $x", "%%html\n<b>", "%%"])
def test_what_is_no_python_reads_nothing(source: str) -> None:
    assert parsed(source).reads == frozenset()


def test_values_that_say_the_same_have_the_same_mark() -> None:
    def one(x: int) -> int:
        return x

    again = types.FunctionType(one.__code__, {}, "one")
    assert mark_of(one) == mark_of(again)
    assert mark_of([1, {"a": (2.0, "x")}]) == mark_of([1, {"a": (2.0, "x")}])
    assert mark_of([1]) != mark_of([2])
    assert mark_of(object()) is None


def test_no_value_is_kept_alive(notebook: Notebook) -> None:
    import weakref

    class Large:
        pass

    notebook.namespace["large"] = Large()
    alive = weakref.ref(notebook.namespace["large"])
    notebook.run("pass")
    del notebook.namespace["large"]
    notebook.run("pass")
    assert alive() is None
