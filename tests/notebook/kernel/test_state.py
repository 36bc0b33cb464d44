"""The State API in a notebook: what the tables of %nbray show, and lines of cells as places."""

from __future__ import annotations

from typing import Any

Kernel = Any


def shown(cell: Any) -> str:
    return "\n".join(str(display["text/plain"]) for display in cell.displays)


def test_tasks_and_references_know_the_line_of_their_cell(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote\ndef placed():\n    return 1")
    cell = kernel.ok("other = 1\nkept = placed.remote()\nnbray.get(kept)")
    number = cell.reply["content"]["execution_count"] if "content" in cell.reply else cell.reply["execution_count"]
    assert kernel.eval("kept.call_site()") == f"In[{number}] line 2"
    tasks = shown(kernel.ok("%nbray tasks"))
    assert "placed" in tasks
    assert f"In[{number}] line 2" in tasks
    objects = shown(kernel.ok("%nbray objects"))
    assert next(line.split()[:2] for line in objects.splitlines() if f"In[{number}] line 2" in line) == ["kept", "int"]


def test_actors_are_listed_by_the_same_api(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote(num_cpus=0)\nclass Shown:\n    pass\nactor = Shown.remote()\nnbray.get(actor.__ray_ready__.remote())")
    assert "ALIVE" in shown(kernel.ok("%nbray actors"))
    kernel.ok("from nbray.util.state import list_actors")
    assert kernel.eval("[a.state for a in list_actors() if a.class_name == 'Shown']") == ["ALIVE"]


def test_scale_changes_what_the_node_offers_and_says_what_a_local_cluster_cannot(kernel: Kernel) -> None:
    before = kernel.eval("nbray.cluster_resources()['CPU']")
    assert "offers 5 CPUs now" in kernel.ok("%nbray scale 5").text
    assert kernel.eval("nbray.cluster_resources()['CPU']") == 5
    assert f"it was {5:g}" in kernel.ok(f"%nbray scale {before:g}").text
    assert "nbray start --head" in kernel.run("%nbray scale --nodes 2").text
    assert "CPUS [--node ID]" in kernel.run("%nbray scale").text
    assert "1 to 100,000 whole CPUs" in kernel.run("%nbray scale 0").text
