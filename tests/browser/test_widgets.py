"""nbray.widgets on a real page: live while it is seen, steered by keyboard, and never markup of what somebody named."""

from __future__ import annotations

import pytest

from .conftest import Lab

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=window.pwned=1>"
BEGIN = "%load_ext nbray\nimport nbray, time, threading\nnbray.init(num_cpus=2)"
WORK = f"""
@nbray.remote
def slow(seconds):
    time.sleep(seconds)
refs = [slow.options(name={EVIL!r}).remote(60 * (i % 2)) for i in range(2)]
nbray.widgets.Progress(refs)
"""
HOLDS = "display(nbray.widgets.Objects(), nbray.widgets.Lineage('refs'))"
DRAWS = "any(thread.name == 'nbray-pictures' for thread in threading.enumerate())"


def test_the_cluster_is_drawn_while_it_is_seen_and_steered_by_keyboard(lab: Lab) -> None:
    hidden = f"end = time.monotonic() + 30\nwhile {DRAWS} and time.monotonic() < end: time.sleep(0.1)\nprint('drawing', {DRAWS})"
    filler = "print('\\n'.join('a long output' for _ in range(400)))"
    notebook = lab.open(
        "cluster.ipynb", [BEGIN, "nbray.widgets.Cluster()", WORK, "nbray.widgets.Timeline()", filler, hidden, HOLDS]
    )
    page = notebook.page
    for index in (0, 1, 2):
        notebook.run(index)
        notebook.idle()
    cluster = notebook.output(1).locator(".nbray-cluster")
    cluster.locator(".nbray-workers").get_by_text(EVIL, exact=False).first.wait_for()
    cluster.get_by_text("1 running", exact=False).first.wait_for()
    assert page.evaluate("window.pwned") is None
    notebook.output(2).get_by_text("1 of 2 tasks done", exact=False).last.wait_for()
    box = cluster.get_by_role("spinbutton")
    box.fill("5")
    box.press("Enter")
    cluster.get_by_text("5 CPUs", exact=False).first.wait_for()
    notebook.run(3)
    notebook.idle()
    notebook.output(3).locator("canvas").wait_for()
    notebook.run(6)
    notebook.idle()
    notebook.output(6).locator(".nbray-objects").get_by_text("list of 2 references", exact=False).first.wait_for()
    notebook.output(6).locator(".nbray-lineage").get_by_role("button", name="refs, variable").wait_for()
    notebook.run(4)
    notebook.idle()
    notebook.run(5)
    page.locator(".jp-Notebook .jp-Cell").nth(5).scroll_into_view_if_needed()
    notebook.sees(5, "drawing False")
    stop = cluster.get_by_role("button", name="Stop")
    stop.scroll_into_view_if_needed()
    stop.press("Enter")
    cluster.get_by_role("button", name="Stop: everything on it ends").press("Enter")
    cluster.get_by_text("not attached to a cluster", exact=False).wait_for()
