"""What the notebook's names hold, and who else does: types, sizes, tasks, actors, tracebacks, and what is left after a release."""

from __future__ import annotations

from typing import Any

import pytest

Kernel = Any

ROWS = """
from nbray.notebook.holders import held_objects, release
def found():
    notebook = get_ipython()._nbray_extension.notebook
    return held_objects(notebook.namespace, notebook.engine(), notebook.history.stale)
def rows():
    return {row["names"]: row for row in found()["rows"]}
def let_go(*names):
    notebook = get_ipython()._nbray_extension.notebook
    return release(notebook.namespace, list(names), notebook.engine())
"""


@pytest.fixture(scope="module", autouse=True)
def helpers(kernel: Kernel) -> None:
    kernel.ok("import numpy as np")
    kernel.ok(ROWS)


def row(kernel: Kernel, names: str) -> dict[str, Any]:
    found: dict[str, Any] = kernel.eval(f"rows()[{names!r}]")
    return found


def test_type_and_shape_are_known_of_results_that_never_came_here(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote\ndef table(n):\n    return np.ones((n, 20))\nlarge = table.remote(10_000); nbray.wait([large])")
    kernel.ok(
        "small = nbray.put({'a': 1, 'b': 2}); text = nbray.put('x' * 200_000); many = [table.remote(2_000) for _ in range(3)]"
    )
    kernel.ok("nbray.wait(many, num_returns=3)")
    assert row(kernel, "large")["type"] == "array of float64, 10,000 × 20"
    assert row(kernel, "large")["size"] >= 1_600_000
    assert row(kernel, "small")["type"] == "dict of 2"
    assert row(kernel, "text")["type"] == "str of 200,000"
    assert row(kernel, "many")["type"] == "list of 3 references, the first to array of float64, 2,000 × 20"


def test_tasks_and_actors_that_hold_an_object_are_named_and_outlast_a_release(kernel: Kernel) -> None:
    kernel.ok(
        "@nbray.remote(num_cpus=0)\nclass Keeper:\n    def keep(self, refs):\n        self.refs = refs\n"
        "keeper = Keeper.remote(); kept = nbray.put(np.zeros(100_000)); nbray.get(keeper.keep.remote([kept]))"
    )
    assert row(kernel, "kept")["holders"] == "actor Keeper"
    kernel.ok("@nbray.remote(num_cpus=64)\ndef never(x):\n    return x\nwaiting = never.remote(kept)")
    assert row(kernel, "kept")["holders"] == "actor Keeper, waiting task never"
    assert kernel.eval("let_go('kept')") == "kept released; still held by actor Keeper, waiting task never"
    kernel.ok("nbray.cancel(waiting); del waiting")
    assert kernel.eval("let_go('kept')") == "kept: gone already"


def test_a_finished_task_that_may_have_to_run_again_holds_what_it_took(kernel: Kernel) -> None:
    kernel.ok("taken = nbray.put(np.zeros(50_000))")
    kernel.ok("@nbray.remote\ndef grown(x):\n    return np.concatenate([x, x])\nmade = [grown.remote(taken) for _ in range(3)]")
    kernel.ok("nbray.wait(made, num_returns=3); None")
    assert row(kernel, "taken")["holders"] == "3 finished tasks grown, to make lost results again"
    kernel.ok("del made")
    assert row(kernel, "taken")["holders"] == ""


def test_a_reference_that_no_name_leads_to_is_this_notebooks_all_the_same(kernel: Kernel) -> None:
    kernel.ok("seen = nbray.put(1); hidden = {'deep': {'er': [seen]}}; import copy; deep = copy.copy([[nbray.put(2)]])")
    kernel.ok("again = __import__('pickle').loads(__import__('pickle').dumps(seen)); boxed = [[again]]; del again")
    assert row(kernel, "seen")["holders"] == "this notebook"
    assert kernel.eval("let_go('seen')").startswith("seen released; still held by this notebook")


def test_what_the_last_error_keeps_alive_is_told_and_can_be_released(kernel: Kernel) -> None:
    kernel.ok("def fails(n):\n    inner = nbray.put(np.zeros(n))\n    raise ValueError(n)")
    assert kernel.run("fails(50_000)").error is not None
    name = "last traceback: inner in fails()"
    assert row(kernel, name)["type"] == "array of float64, 50,000"
    assert kernel.eval(f"let_go({name!r})").startswith(f"{name} released")


def test_an_array_that_was_shown_is_told_by_the_magic(kernel: Kernel) -> None:
    kernel.ok("big = nbray.put(np.arange(200_000))")
    kernel.ok("nbray.get(big)")
    text = kernel.ok("%nbray objects").displays[0]["text/plain"]
    assert "pinned, only because it was shown" in text


def test_the_objects_that_no_variable_holds_are_one_row_for_each_place(kernel: Kernel) -> None:
    kernel.ok("boxes = [[nbray.put(i)] for i in range(300)]")
    text = kernel.ok("%nbray objects").displays[1]["text/plain"]
    assert sum(" 300 " in line for line in text.splitlines()) == 1
    assert len(text.splitlines()) < 60


def test_an_input_that_was_sent_along_was_made_at_its_cell(kernel: Kernel) -> None:
    kernel.ok("sent = np.ones(300_000)")
    kernel.ok("%%remote -o shape --each i=range(2)\nshape = sent.shape")
    text = kernel.ok("%nbray objects").displays[1]["text/plain"]
    assert "cloudpickle" not in text


def test_an_object_that_many_names_hold_counts_once(kernel: Kernel) -> None:
    before = kernel.eval("(found()['objects'], found()['size'])")
    kernel.ok(
        "shared = nbray.put(np.zeros(100_000)); also = [shared, shared]; array = nbray.get(shared); again = nbray.get(shared)"
    )
    assert row(kernel, "shared")["size"] == row(kernel, "also")["size"] == row(kernel, "array")["size"] >= 800_000
    objects, size = kernel.eval("(found()['objects'], found()['size'])")
    assert objects == before[0] + 1
    assert size == before[1] + row(kernel, "shared")["size"]


def test_a_sum_of_which_a_part_was_not_measured_says_so(kernel: Kernel) -> None:
    kernel.ok(
        "from nbray.notebook import holders; asked, holders.ASKED = holders.ASKED, 2; three = [nbray.put(i) for i in range(3)]"
    )
    try:
        assert "the first 2 measured" in row(kernel, "three")["type"]
        assert ", at least " in kernel.ok("%nbray objects").displays[0]["text/plain"].splitlines()[0]
    finally:
        kernel.ok("holders.ASKED = asked; del three")


def test_what_is_held_only_because_it_was_shown_is_added_up(kernel: Kernel) -> None:
    kernel.ok("nbray.put(np.ones(300_000))")
    assert kernel.eval("found()['only_shown']") >= 2_400_000
    assert "of it only because it was shown" in kernel.ok("%nbray objects").displays[0]["text/plain"].splitlines()[0]
