"""nbray.widgets in a real kernel: what is shown at once, who is told what while somebody looks, and what stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

Kernel = Any
BOUND_S = 60.0
WIDGET = "application/vnd.jupyter.widget-view+json"
DRAWS = "any(thread.name == 'nbray-pictures' for thread in __import__('threading').enumerate())"
GATED = """
import pathlib, tempfile
gates = pathlib.Path(tempfile.mkdtemp())
@nbray.remote
def gated(name):
    while not (gates / name).exists():
        time.sleep(0.02)
    if name == 'bad':
        raise ValueError(name)
"""


@pytest.fixture(scope="module")
def views(kernel: Kernel) -> Kernel:
    kernel.ok(GATED)
    kernel.gates = Path(kernel.eval("str(gates)"))
    kernel.subshell = kernel.create_subshell()
    return kernel


def shown(kernel: Kernel, code: str) -> tuple[Any, str]:
    """The cell that shows a picture, and the id of its model."""
    cell = kernel.ok(code)
    (data,) = (data for data in cell.displays if WIDGET in data)
    assert data["text/plain"]
    assert data["text/html"]
    return data, str(data[WIDGET]["model_id"])


def see(kernel: Kernel, model: str, *, seen: bool = True) -> None:
    kernel.command(model, kernel.subshell, "seen", page="a page", seen=seen)


def told(kernel: Kernel, model: str) -> list[dict[str, Any]]:
    said = [c["data"].get("content", {}) for c in kernel.comms if c["type"] == "comm_msg" and c["comm_id"] == model]
    return [content["snapshot"] for content in said if "snapshot" in content]


def test_the_cluster_is_live_while_it_is_seen_and_asks_nothing_otherwise(views: Kernel) -> None:
    data, model = shown(views, "nbray.widgets.Cluster()")
    assert "2 CPUs" in data["text/plain"]
    assert "1 node" in data["text/html"]
    assert told(views, model) == []
    see(views, model)
    held = views.start("ref = gated.options(name='the one').remote('one'); nbray.get(ref)")
    views.until(
        lambda: any(row["task"] == "the one" for now in told(views, model) for row in now["nodes"][0]["workers"]),
        "the worker that runs it, while the cell blocks",
    )
    answer = views.command(model, views.subshell, "scale", node="", cpus=3)
    assert answer["result"]["was"] == 2.0, answer
    views.until(lambda: told(views, model)[-1]["nodes"][0]["cpus"] == 3, "the new number of CPUs")
    views.command(model, views.subshell, "scale", node="", cpus=2)
    assert "whole CPUs" in views.command(model, views.subshell, "scale", node="", cpus=0)["error"]
    see(views, model, seen=False)
    (views.gates / "one").touch()
    views.until(lambda: held.idle and held.reply is not None, "the end of the cell")
    while views.eval(DRAWS):
        pass
    count = len(told(views, model))
    views.ok("nbray.get(nbray.remote(lambda: 1).remote())")
    assert len(told(views, model)) == count


def test_two_pictures_share_one_thread(views: Kernel) -> None:
    models = [shown(views, "nbray.widgets.Cluster()")[1], shown(views, "nbray.widgets.Cluster()")[1]]
    for model in models:
        see(views, model)
    views.until(lambda: all(told(views, model) for model in models), "a snapshot of each")
    assert views.eval("[thread.name for thread in __import__('threading').enumerate()].count('nbray-pictures')") == 1
    for model in models:
        see(views, model, seen=False)


def test_progress_goes_on_to_its_end_and_then_says_so(views: Kernel) -> None:
    data, model = shown(
        views, "refs = [gated.remote('good') for _ in range(3)] + [gated.remote('bad')]\nnbray.widgets.Progress(refs)"
    )
    assert "0 of 4 tasks done" in data["text/plain"]
    see(views, model)
    views.until(lambda: any(now["running"] == 2 for now in told(views, model)), "two that run")
    for gate in ("good", "bad"):
        (views.gates / gate).touch()
    views.until(lambda: bool(told(views, model)) and told(views, model)[-1]["over"], "the end")
    last = told(views, model)[-1]
    assert (last["done"], last["failed"], last["state"]) == (3, 1, "failed")
    assert last["words"].startswith("3 of 4 tasks done, 1 failed")
    views.until(lambda: model in views.replaced, "what a saved notebook keeps of it")
    assert "3 of 4 tasks done" in views.replaced[model]["text/plain"]
    assert WIDGET not in views.replaced[model]


def test_a_timeline_is_of_the_cell_that_is_asked_for_and_is_sent_whole_to_who_asks_again(views: Kernel) -> None:
    views.ok("nbray.get([nbray.remote(lambda: 1).options(name='short').remote() for _ in range(5)])")
    number = views.eval("len(In) - 2")
    data, model = shown(views, f"nbray.widgets.Timeline({number})")
    assert f"In[{number}] · 5 tasks" in data["text/plain"]
    assert "<svg" in data["text/html"]
    see(views, model)
    views.until(lambda: bool(told(views, model)) and told(views, model)[-1]["over"], "the end")
    assert [now["first"] for now in told(views, model)] == [0]
    buffers = [c["buffers"] for c in views.comms if c["type"] == "comm_msg" and c["comm_id"] == model and c["buffers"]]
    assert [len(parts) for parts in buffers] == [1]
    views.command(model, views.subshell, "resync")
    views.until(lambda: len(told(views, model)) == 2, "everything again")
    assert views.command(model, views.subshell, "perfetto")["result"]
    unknown = views.run("nbray.widgets.Timeline(99999)")
    assert "nothing is known of the tasks of 99999" in unknown.traceback
    see(views, model, seen=False)


def test_lineage_opens_what_its_page_asks_for_and_objects_release_names(views: Kernel) -> None:
    views.ok("source = nbray.remote(lambda: 1).options(name='loads').remote()")
    views.ok(
        "scores = [nbray.remote(lambda x: x).options(name='uses').remote(source) for _ in range(10)]\nnbray.get(scores)\n'done'"
    )
    data, model = shown(views, "nbray.widgets.Lineage('scores')")
    assert data["text/plain"].startswith("scores · list of 10")
    assert "loads" in data["text/html"]
    graph = views.command(model, views.subshell, "change", opened=[])["result"]["graph"]
    (group,) = [node for node in graph["nodes"] if node["label"] == "uses ×10"]
    opened = views.command(model, views.subshell, "change", opened=[group["key"]])["result"]["graph"]
    assert sum(node.get("name") == "uses" for node in opened["nodes"]) == 10
    everything = views.command(model, views.subshell, "change", whole=True)["result"]["graph"]
    assert {node["label"] for node in everything["nodes"]} > {node["label"] for node in graph["nodes"]}
    data, model = shown(views, "nbray.widgets.Objects()")
    assert "scores" in data["text/plain"]
    assert views.command(model, views.subshell, "release", names=["scores"])["result"].startswith("scores released")
    assert views.eval("'scores' in globals()") is False
    see(views, model)
    views.until(
        lambda: bool(told(views, model)) and all(row["names"] != "scores" for row in told(views, model)[-1]["rows"]), "its row gone"
    )
    see(views, model, seen=False)


def test_a_view_without_anywidget_is_still_and_says_what_to_install(views: Kernel) -> None:
    cell = views.ok(
        "import sys\nkept = sys.modules.pop('nbray.cards.widget')\nsys.modules['nbray.cards.widget'] = None\n"
        "try:\n    display(nbray.widgets.Cluster())\nfinally:\n    sys.modules['nbray.cards.widget'] = kept"
    )
    (data,) = cell.displays
    assert WIDGET not in data
    assert "pip install anywidget" in data["text/html"]


def test_when_the_cluster_stops_the_view_says_so_and_the_end_of_the_kernel_leaves_text_and_html(views: Kernel) -> None:
    cell = views.ok("nbray.widgets.Cluster()")
    model = cell.displays[0][WIDGET]["model_id"]
    see(views, model)
    views.until(lambda: bool(told(views, model)), "a snapshot")
    views.command(model, views.subshell, "stop")
    views.until(lambda: "not attached" in told(views, model)[-1].get("gone", ""), "the word that it is gone")
    assert views.eval("nbray.is_initialized()") is False
    other = views.ok("nbray.init(num_cpus=2); nbray.widgets.Cluster()").displays[0][WIDGET]["model_id"]
    views.client.shutdown()
    stayed: dict[str, Any] = {}
    while {model, other} - stayed.keys():
        message = views.client.get_iopub_msg(timeout=BOUND_S)
        if message["msg_type"] == "update_display_data":
            stayed[message["content"]["transient"]["display_id"]] = message["content"]["data"]
    assert all(WIDGET not in data for data in stayed.values())
    assert "not attached" in stayed[model]["text/plain"]
    assert "1 node · 2 CPUs" in stayed[other]["text/html"]
