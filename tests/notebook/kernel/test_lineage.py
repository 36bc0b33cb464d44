"""The lineage of a real notebook: what its variables come from, what is stale, and what the page of a card is told of it."""

from __future__ import annotations

from typing import Any

import pytest

Kernel = Any
KEPT = "application/vnd.nbray.run.v1+json"


@pytest.fixture(scope="module", autouse=True)
def cells(kernel: Kernel) -> None:
    """A small notebook: a number, tasks that take it, and a cell under %%remote that takes their results."""
    kernel.ok("@nbray.remote\ndef double(x):\n    return x * factor\nfactor = 2")
    kernel.ok("parts = [double.remote(i) for i in range(10)]; nbray.wait(parts, num_returns=10)")
    kernel.ok("whole = sum(nbray.get(parts))")
    kernel.ok("%%remote --refs\nremote_value = whole + 1")


def told(kernel: Kernel, name: str) -> str:
    (shown,) = kernel.ok(f"%nbray lineage {name}").displays
    return str(shown["text/plain"])


def test_a_variable_tells_the_tasks_and_cells_that_it_came_from(kernel: Kernel) -> None:
    text = told(kernel, "remote_value")
    assert "double ×10" in text
    assert "whole " in text
    assert "nothing" in text.splitlines()[-1]
    assert "↻" not in text


def test_the_list_of_variables_leaves_out_functions_and_modules(kernel: Kernel) -> None:
    (shown,) = kernel.ok("%nbray lineage").displays
    names = [line.split()[0] for line in shown["text/plain"].splitlines()[2:]]
    assert {"parts", "whole", "remote_value"} <= set(names)
    assert not {"double", "nbray", "os"} & set(names)


def test_what_was_made_before_its_input_changed_is_stale_until_it_is_made_again(kernel: Kernel) -> None:
    kernel.ok("factor = 3")
    assert "↻ stale: factor was changed by In[" in told(kernel, "parts")
    assert "↻ stale: it was made from parts, which is stale" in told(kernel, "whole")
    kernel.ok("factor = 2")
    kernel.ok("parts = [double.remote(i) for i in range(10)]; nbray.wait(parts, num_returns=10)")
    assert "↻" not in told(kernel, "parts").splitlines()[1]
    assert "↻ stale: parts was changed by" in told(kernel, "whole")


def test_a_name_that_is_not_there_is_answered_with_those_that_are(kernel: Kernel) -> None:
    assert "nothing called nonsense is in the lineage; there is: " in kernel.run("%nbray lineage nonsense").stderr


def test_a_card_keeps_the_lineage_around_its_cell(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote\ndef slow(x):\n    time.sleep(0.3)\n    return x")
    cell = kernel.ok("kept = nbray.get([slow.remote(p) for p in parts[:4]])")
    kernel.until(
        lambda: any((data.get(KEPT) or {}).get("lineage", {}).get("nodes") for data in cell.updates), "the lineage that stays"
    )
    labels = {node["label"] for node in cell.updates[-1][KEPT]["lineage"]["nodes"]}
    assert "double ×10" in labels
    assert {"parts", "kept"} <= labels


def test_a_result_that_was_shown_comes_from_its_cell_and_has_its_own_type(kernel: Kernel) -> None:
    kernel.ok("parts[0]")
    number = max(int(each) for each in kernel.eval("[n for n in Out if Out[n] is parts[0]]"))
    text = told(kernel, f"Out[{number}]")
    assert text.splitlines()[0].startswith(f"Out[{number}] · ObjectRef · from In[{number}]")


def test_a_value_that_was_fetched_leads_to_its_tasks(kernel: Kernel) -> None:
    kernel.ok("triple = nbray.remote(lambda x: 3 * x).options(name='triple')\nlater = [triple.remote(i) for i in range(9)]")
    kernel.ok("fetched = nbray.get(later)")
    kernel.ok("once = nbray.get(double.remote(4))")
    text = told(kernel, "fetched")
    assert "triple ×9" in text
    assert "later" in text
    assert "double" in told(kernel, "once")


def test_the_output_of_a_remote_cell_leads_to_its_task_and_is_in_the_card_that_stays(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote\nimport time\ntime.sleep(0.5)\nfar = 7")
    assert "1 task" in told(kernel, "far").split("comes from", 1)[1].splitlines()[0]
    kernel.until(lambda: any((data.get(KEPT) or {}).get("objects") for data in cell.updates), "what stays of the card")
    assert "far" in {node["label"] for node in cell.updates[-1][KEPT]["lineage"]["nodes"]}


def test_a_result_that_was_shown_is_stale_once_its_input_changed(kernel: Kernel) -> None:
    kernel.ok("base = 5")
    kernel.ok("@nbray.remote\ndef add(x):\n    return x + base")
    cell = kernel.ok("nbray.get(add.remote(1))")
    assert cell.value == "6"
    number = kernel.eval("max(n for n in Out if Out[n] == 6)")
    assert "↻" not in told(kernel, f"Out[{number}]")
    kernel.ok("base = 6")
    assert "↻ stale: " in told(kernel, f"Out[{number}]")
