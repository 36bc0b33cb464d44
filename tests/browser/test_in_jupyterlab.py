"""What a person sees in JupyterLab: output under its cell, errors that point at the cell, and a stop button that stops."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from .conftest import Lab

pytestmark = pytest.mark.browser


def test_a_remote_cell_prints_shows_and_fails_under_itself(lab: Lab) -> None:
    notebook = lab.open(
        "first.ipynb",
        ["%load_ext nbray", "%%remote\nprint('hello from a worker')\n6 * 7", "%%remote\n1 / 0", "'and the notebook ' + 'goes on'"],
    )
    notebook.run(0)
    notebook.sees(0, "nbray")
    notebook.run(1)
    notebook.sees(1, "hello from a worker")
    notebook.sees(1, "42")
    notebook.run(2)
    notebook.sees(2, "ZeroDivisionError")
    notebook.run(3)
    notebook.sees(3, "and the notebook goes on")


def test_the_stop_button_ends_a_running_cell_and_the_next_one_runs(lab: Lab) -> None:
    notebook = lab.open(
        "stop.ipynb",
        [
            "%load_ext nbray",
            "%%remote\nimport time\nprint('begun')\nfor _ in range(6000):\n    time.sleep(0.1)",
            "%%remote\n'still ' + 'here'",
        ],
    )
    notebook.run(0)
    notebook.sees(0, "nbray")
    notebook.run(1)
    notebook.sees(1, "begun")
    notebook.stop()
    notebook.sees(1, "KeyboardInterrupt")
    notebook.idle()
    notebook.run(2)
    notebook.sees(2, "still here")


SLOW = "import time\n@nbray.remote\ndef {name}(i):\n    time.sleep(0.2)\n    return i\n"


def test_a_card_shows_a_running_cell_and_its_button_stops_it(lab: Lab) -> None:
    body = "import nbray\n" + SLOW.format(name="slow") + "nbray.get([slow.remote(i) for i in range(3000)])"
    notebook = lab.open("card.ipynb", ["%load_ext nbray", body, "'still ' + 'here'"])
    notebook.run(0)
    notebook.sees(0, "nbray")
    notebook.run(1)
    card = notebook.output(1).locator(".nbray-card")
    card.get_by_text("running").first.wait_for()
    card.get_by_role("tab", name="Timeline").click()
    card.locator("canvas").wait_for()
    card.get_by_role("tab", name="Tasks").press("ArrowRight")
    card.get_by_role("button", name="Cancel").click()
    notebook.sees(1, "TaskCancelledError")
    kept = notebook.output(1).locator(".nbray-card[data-state=cancelled]")
    kept.wait_for()
    assert kept.get_by_role("button", name="Cancel").count() == 0, "what stays has no widget behind it"
    notebook.run(2)
    notebook.sees(2, "still here")


def test_what_tasks_are_called_is_text_in_a_card(lab: Lab) -> None:
    evil = "<img src=x onerror=window.pwned=1>"
    body = (
        "import nbray, time\n@nbray.remote\ndef f():\n    time.sleep(1)\n"
        f"    raise ValueError({evil!r})\nnbray.wait([f.options(name={evil!r}).remote() for _ in range(6)], num_returns=6)"
    )
    notebook = lab.open("evil.ipynb", ["%load_ext nbray", body])
    notebook.run(0)
    notebook.run(1)
    card = notebook.output(1).locator(".nbray-card")
    for tab in ("Tasks", "Timeline", "Lineage", "Objects", "Errors"):
        card.get_by_role("tab", name=tab).click()
    kept = notebook.output(1).locator(".nbray-card[data-state=failed]")
    kept.get_by_role("tab", name="Errors").click()
    kept.get_by_role("tabpanel").get_by_text(evil).first.wait_for()
    assert notebook.page.evaluate("window.pwned") is None
    assert notebook.output(1).locator("img").count() == 0


def violations(page: Any, within: str) -> list[str]:
    """What axe-core calls serious or critical in the elements that match; JupyterLab's own page is not ours to judge."""
    found = Axe().run(page, context=within).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]


def test_cards_live_and_kept_have_no_serious_barrier_and_are_reached_by_keyboard_alone(lab: Lab) -> None:
    body = (
        "import nbray, time\n@nbray.remote\ndef slow(i):\n    time.sleep(0.4)\n    return 1 / (i % 5)\n"
        "refs = [slow.remote(i) for i in range(2000)]\nready, rest = nbray.wait(refs, num_returns=2000)"
    )
    notebook = lab.open("barriers.ipynb", ["%load_ext nbray", body])
    notebook.run(0)
    notebook.sees(0, "nbray")
    notebook.run(1)
    page = notebook.page
    live = notebook.output(1).locator(".nbray-card")
    live.get_by_text("failed").first.wait_for()
    found = []
    for tab in ("Tasks", "Timeline", "Plan", "Lineage", "Objects", "Errors"):
        live.get_by_role("tab", name=tab).click()
        live.get_by_role("tabpanel").locator("table, canvas, svg, ul").first.wait_for()
        found += [f"live {tab}: {each}" for each in violations(page, ".jp-OutputArea-child .nbray-card")]
    live.get_by_role("tab", name="Errors").focus()
    for tab in ("Tasks", "Timeline", "Plan"):  # from the last the arrow goes round to the first
        page.keyboard.press("ArrowRight")
        assert live.get_by_role("tab", name=tab).get_attribute("aria-selected") == "true"
    page.keyboard.press("Tab")
    answer = live.locator("output")
    before = answer.inner_text()
    page.keyboard.press("ArrowRight")
    assert answer.inner_text() != before, "the slider moves by keyboard, and the answer with it"
    live.get_by_role("button", name="Cancel").focus()
    page.keyboard.press("Enter")
    kept = notebook.output(1).locator(".nbray-card[data-state=failed], .nbray-card[data-state=cancelled]")
    kept.wait_for()
    notebook.idle()
    found += [f"kept: {each}" for each in violations(page, ".jp-Notebook .jp-OutputArea-child")]
    assert not found, "\n".join(found)
