"""The JupyterLab extension: cards that a saved notebook kept, the panel, the cell's button; and the same cards in Notebook 7."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nbray.cards.flame import Flame
from nbray.cards.page import page as static_page
from nbray.cards.printed import Printed
from nbray.cards.run import Run
from nbray.cards.saved import MIME, Extras, bundle
from nbray.cards.words import text
from nbray.engines.port import CellProgress, NameCount
from nbray.trace import TraceRecord

from .conftest import PAGE_WITHIN_MS, TOKEN, Lab

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=window.pwned=1>"
S = 10**9


def kept_card() -> nbformat.NotebookNode:
    """The output that a run of four tasks leaves in a notebook."""
    run = Run("In[3]", S)
    records = [
        TraceRecord(
            "task", bytes([i]) * 16, EVIL, "FINISHED", "c", b"", b"n" * 8, bytes([i % 2]) * 8, 0, S, 0, S + i * S, 2 * S + i * S
        )
        for i in range(4)
    ]
    run.take(CellProgress({EVIL: NameCount(4, 4)}, records))
    run.end(6 * S)
    shot = run.snapshot(0)
    row = {
        "names": "df",
        "release": ["df"],
        "type": EVIL,
        "size": 5e6,
        "state": "ready",
        "where": "b71e",
        "line": "",
        "holders": "",
        "stale": "",
    }
    objects = {"rows": [row], "objects": 3, "size": 5e6, "only_shown": 0, "more": 2, "at_ms": 6000.0}
    saved = bundle(run, shot, Printed(), None, Extras(objects=objects))
    data = {"text/plain": text(shot), "text/html": static_page(shot, run.spans), MIME: saved}
    return nbformat.v4.new_output("display_data", data=data)


def test_a_kept_card_is_drawn_without_a_kernel_and_by_keyboard(lab: Lab) -> None:
    notebook = lab.open("kept.ipynb", ["1"], kept=[kept_card()])
    card = notebook.output(0).locator(".nbray-card")
    card.get_by_text("4 tasks").first.wait_for()
    card.locator("canvas").wait_for()
    card.get_by_role("tab", name="Timeline").press("ArrowLeft")
    card.get_by_role("tabpanel").get_by_text(EVIL).first.wait_for()
    assert notebook.page.evaluate("window.pwned") is None


def test_a_kept_card_has_its_objects_and_a_trace_for_perfetto_without_a_kernel(lab: Lab) -> None:
    notebook = lab.open("held.ipynb", ["1"], kept=[kept_card()])
    card = notebook.output(0).locator(".nbray-card")
    card.get_by_role("tab", name="Objects").click()
    panel = card.get_by_role("tabpanel")
    panel.get_by_text("3 values, 3 objects, 5.0 MB").wait_for()
    panel.get_by_text("as it was when the run had ended").wait_for()
    panel.get_by_text(EVIL).wait_for()
    assert panel.get_by_role("button").count() == 0, "nobody is there to release anything"
    card.get_by_role("tab", name="Timeline").click()
    panel.get_by_text("4 tasks saved").wait_for()
    with notebook.page.expect_download() as download:
        panel.get_by_role("button", name="Save for Perfetto").press("Enter")
    events = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    ran = [event for event in events if event["ph"] == "X"]
    assert [(event["name"], event["ts"], event["dur"], event["tid"]) for event in ran] == [
        (EVIL, (1 + i) * 1e6, 1e6, 1 + i % 2) for i in range(4)
    ]
    assert {event["args"]["name"] for event in events if event["name"] == "thread_name"} == {
        "worker 0000 on node 6e6e",
        "worker 0101 on node 6e6e",
    }


def test_a_kept_flame_graph_is_walked_by_keyboard_and_widens(lab: Lab) -> None:
    flame = Flame("cpu", 100)
    for stack, samples in (("In[3] line 2;fit (model.py)", 30), ("In[3] line 2;load (data.py);" + EVIL, 60), ("In[3] line 3", 10)):
        flame.add(stack.split(";"), samples)
    output = kept_card()
    output["data"][MIME]["profile"] = flame.to_data()
    notebook = lab.open("flame.ipynb", ["1"], kept=[output])
    card = notebook.output(0).locator(".nbray-card")
    frames = card.get_by_role("treeitem")
    frames.first.wait_for()
    assert card.get_by_role("tab", name="Profile").get_attribute("aria-selected") == "true"
    frames.first.press("ArrowDown")
    card.get_by_role("treeitem", name="load (data.py): 600 ms, 60.0 %").press("Enter")
    widths = frames.evaluate_all("frames => frames.map((frame) => frame.style.width)")
    assert widths == ["100%", "100%", "100%"], "the frame, what called it, and what it calls"
    assert frames.count() == 3
    card.get_by_role("button", name="Show all").click()
    assert frames.count() == 5
    assert notebook.page.evaluate("window.pwned") is None


def test_the_panel_knows_the_notebook_by_its_names_and_the_button_sends_a_cell(lab: Lab) -> None:
    made = "df = nbray.remote(lambda: 7).options(name='make').remote()\nnbray.get(df)"
    notebook = lab.open("panel.ipynb", ["%load_ext nbray\nimport nbray\nnbray.init(num_cpus=3)", "f = 1", made])
    notebook.run(0)
    notebook.sees(0, "nbray")
    page = notebook.page
    with page.expect_websocket(lambda socket: "/nbray/api/watch" in socket.url) as watching:
        page.locator('[data-id="nbray-panel"]').first.click()
    panel = page.locator("#nbray-panel")
    panel.get_by_role("button", name="cluster of panel.ipynb").click()
    panel.get_by_text("of 3", exact=False).first.wait_for()
    for tab, seen in (("Tasks", "No tasks yet."), ("Logs", "zygote"), ("Overview", "of 3")):
        panel.get_by_role("tab", name=tab).click()
        panel.get_by_role("tabpanel").get_by_text(seen).first.wait_for()
    notebook.run(2)
    for tab, there in (
        ("Objects", "td:text-is('df')"),
        ("Jobs", "td:text-is('panel.ipynb')"),
        ("Timeline", ".nbray-legend :text('make')"),
    ):
        panel.get_by_role("tab", name=tab).click()
        panel.get_by_role("tabpanel").locator(there).first.wait_for()
    panel.get_by_role("tab", name="Lineage").click()
    panel.get_by_role("button", name="df, variable").wait_for()
    panel.get_by_role("button", name="make, tasks").press("Enter")
    page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".jp-InputArea-editor").click()
    panel.get_by_role("button", name="Go to In[2]").click()
    page.locator(".jp-Notebook .jp-Cell").nth(2).and_(page.locator(".jp-mod-active")).wait_for()
    with watching.value.expect_event("close"):  # it looks only while it is seen
        page.locator('[data-id="nbray-panel"]').first.click()
    page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".jp-InputArea-editor").click()
    page.locator('[data-command="nbray:toggle-remote"]').first.click()
    page.locator(".jp-Notebook .jp-Cell").nth(1).get_by_text("%%remote").wait_for()


def test_the_palette_has_the_commands_and_the_settings_are_a_schema(lab: Lab) -> None:
    notebook = lab.open("palette.ipynb", ["1"])
    page = notebook.page
    asked = page.locator(".lm-CommandPalette-input")
    notebook.press("Control+Shift+c", asked)
    asked.fill("nbray")
    for label in ("Show nbray Clusters", "Run Cell on nbray"):
        page.locator(".lm-CommandPalette-item", has_text=label).wait_for()
    page.locator(".lm-CommandPalette-item", has_text="Show nbray Clusters").click()
    page.locator("#nbray-panel").get_by_role("button", name="Start a cluster").wait_for()
    schema = page.request.get(f"http://127.0.0.1:{lab.port}/lab/api/settings/nbray-lab:plugin?token={TOKEN}").json()["schema"]
    assert schema["properties"]["magic"]["default"] == "%%remote"
    assert schema["additionalProperties"] is False


def test_notebook_7_shows_a_live_card_whose_buttons_work_while_the_cell_blocks(lab: Lab) -> None:
    body = "import nbray, time\n@nbray.remote\ndef slow(i):\n    time.sleep(0.2)\nnbray.get([slow.remote(i) for i in range(3000)])"
    more = "refs = [slow.remote(i) for i in range(40)]\nnbray.get(refs)"
    notebook = lab.open("seven.ipynb", ["%load_ext nbray", body, more, "left = %nbray last\nlen(left.result())"], app="notebooks")
    notebook.run(0)
    notebook.sees(0, "nbray")
    notebook.run(1)
    notebook.output(1).locator(".nbray-card").get_by_role("button", name="Cancel").click()
    notebook.sees(1, "TaskCancelledError")
    notebook.output(1).locator(".nbray-card").get_by_text("cancelled").first.wait_for()
    notebook.run(2)
    notebook.output(2).locator(".nbray-card").get_by_role("button", name="Background").click()
    notebook.sees(2, "its code stopped at line 2")
    assert notebook.output(2).locator('[data-mime-type*="stderr"], [data-mime-type*="error"]').count() == 0
    notebook.run(3)
    notebook.sees(3, "40")
    notebook.output(2).locator(".nbray-card").get_by_text("40 tasks").first.wait_for()


def test_under_jupyter_the_page_starts_scales_and_stops_a_cluster(lab: Lab) -> None:
    page = lab.browser.new_page()
    page.set_default_timeout(PAGE_WITHIN_MS)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"http://127.0.0.1:{lab.port}/nbray?token={TOKEN}")
    try:
        page.get_by_label("CPUs of the new cluster").fill("1")
        page.get_by_role("button", name="Start a cluster").press("Enter")
        head = page.locator(".nbray-clusternode", has_text="Head")
        head.get_by_text("of 1 given out").wait_for()
        page.get_by_label("CPUs of the new node").fill("2")
        # A cluster and a node are seen before the request that began them has its answer: until then these are disabled.
        page.get_by_role("button", name="Add a node", disabled=False).press("Enter")
        node = page.locator(".nbray-clusternode").nth(1)
        node.get_by_text("of 2 given out").wait_for()
        node.get_by_label("CPUs of node").fill("3")
        node.get_by_role("button", name="Set CPUs").press("Enter")
        node.get_by_text("of 3 given out").wait_for()
        end = node.get_by_role("button", name="End this node")
        end.press("Enter")
        node.get_by_role("button", name="End it").press("Enter")
        page.get_by_text(": dead").first.wait_for()
        assert head.get_by_role("button", name="End this node").count() == 0
        ours = page.get_by_role("group", name="Clusters").get_by_role("button", pressed=True)
        ours = page.locator(f'[data-cluster="{ours.get_attribute("data-cluster")}"]')
        page.get_by_role("button", name="Stop this cluster", disabled=False).press("Enter")
        ours.wait_for(state="detached")
    finally:
        page.close()
        subprocess.run([sys.executable, "-m", "nbray", "stop", "--force"], check=False, capture_output=True)
