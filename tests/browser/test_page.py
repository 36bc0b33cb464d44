"""The page at /nbray in a real browser: served by nbray itself: by keyboard, light and dark, wide and narrow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, sync_playwright

import nbray

from .conftest import FLAGS, PAGE_WITHIN_MS

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=window.pwned=1>"
TABS = ["Overview", "Tasks", "Timeline", "Lineage", "Plan", "Actors", "Objects", "Jobs", "Logs"]
#: What each has to show, where that is not the name that would be markup.
SHOWN = {
    "Timeline": ".nbray-legend :text('onerror')",
    "Lineage": ".nbray-node[aria-label*='onerror']",
    "Plan": "output:text('core')",
    "Actors": "text=Gate",
    "Objects": "text=made at test_page.py",
    "Jobs": "td",
    "Logs": "text=worker-",
}


class Gate:
    """An actor that others wait at."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def wait(self) -> None:
        await self.opened.wait()

    async def open(self) -> None:
        self.opened.set()


@pytest.fixture(scope="module")
def browser(browser_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=browser_path, args=FLAGS, headless=True)


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    """A cluster of this process with its page, where everything has a name that would be markup."""
    context = nbray.init(num_cpus=2, resources={EVIL: 1}, include_dashboard=True, dashboard_port=0)
    gate = nbray.remote(num_cpus=0)(Gate).options(name=EVIL).remote()

    def held(gate: Any) -> None:
        print(EVIL)
        nbray.get(gate.wait.remote())

    refs = [nbray.remote(held).options(name=EVIL).remote(gate)]
    refs.append(nbray.remote(lambda: None).options(name=EVIL, resources={EVIL: 2}).remote())
    ended = [nbray.remote(num_cpus=0)(lambda i: i).options(name=EVIL).remote(i) for i in range(9)]
    nbray.get([nbray.remote(num_cpus=0)(lambda i: 1 / i).options(name=f"{EVIL} of {EVIL}").remote(each) for each in ended[1:]])
    yield context
    gate.open.remote()
    nbray.shutdown()


def opened(browser: Browser, url: str, **options: Any) -> tuple[Page, list[str]]:
    """The page there, and what the browser complains about, such as something against the page's policy."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(PAGE_WITHIN_MS)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    return page, complaints


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 380)])
def test_every_view_is_reached_by_keyboard_shows_names_as_text_and_has_no_barrier(
    browser: Browser, context: Any, scheme: str, width: int
) -> None:
    page, complaints = opened(
        browser, f"http://{context.dashboard_url}", color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    page.locator(".nbray-clusternode").first.get_by_text(EVIL).first.wait_for()
    found: list[str] = []
    page.get_by_role("tab", name="Overview").focus()
    for tab in TABS:
        assert page.get_by_role("tab", name=tab).get_attribute("aria-selected") == "true"
        shown = page.get_by_role("tabpanel")
        (shown.locator(SHOWN[tab]) if tab in SHOWN else shown.get_by_text(EVIL)).first.wait_for()
        found += [f"{tab}: {each}" for each in barriers(page)]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{tab} is wider than the page"
        page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Overview").get_attribute("aria-selected") == "true", "the arrow goes round"
    page.keyboard.press("End")
    log = page.get_by_role("tabpanel").get_by_role("button", name="worker-")
    log.first.wait_for()
    for at in range(log.count()):
        log.nth(at).focus()
        page.keyboard.press("Enter")
        said = page.get_by_role("log")
        said.wait_for()
        if EVIL in said.inner_text():
            break
        page.get_by_role("button", name="All logs").press("Enter")
    else:
        pytest.fail("no worker's log has what the task printed")
    assert not found, "\n".join(found)
    assert not complaints
    assert page.evaluate("window.pwned") is None
    assert page.locator("#nbray img").count() == 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background.strip("rgb()").split(","))) < 200) == (scheme == "dark"), background
    page.context.close()


def test_the_timeline_of_a_job_is_saved_as_a_trace(browser: Browser, context: Any) -> None:
    page, complaints = opened(browser, f"http://{context.dashboard_url}")
    page.get_by_role("tab", name="Timeline").click()
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save for Perfetto").click()
    events = json.loads(Path(saving.value.path()).read_text(encoding="utf-8"))
    assert {EVIL, f"{EVIL} of {EVIL}"} <= {event["name"] for event in events}
    assert not complaints
    page.context.close()


def barriers(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in {"serious", "critical"}]


def markup() -> dict[str, Any]:
    """A snapshot in which every text is markup."""
    worker = {"id": EVIL, "pid": EVIL, "state": EVIL, "task": EVIL, "since_s": 1, "actor": EVIL, "cpu": 1, "memory": 1}
    node = {
        "id": EVIL, "host": EVIL, "head": False, "state": "dead", "cause": EVIL, "cpus": 1, "waiting": [EVIL], "more_workers": 0,
        "meters": [{"label": EVIL, "text": EVIL, "share": 0.5, "past": [1, 2]}], "workers": [worker], "states": {EVIL: 1},
    }  # fmt: skip
    overview = {
        "sentence": EVIL, "tasks": {EVIL: 1}, "nodes": [node, {**node, "id": "b" + EVIL, "state": "alive"}], "more_nodes": 0,
        "actors": [{"name": EVIL, "state": EVIL, "pid": 1, "why": EVIL}], "silent": [EVIL], "removable": [EVIL],
    }  # fmt: skip
    table = {"columns": [EVIL, "id"], "rows": [[EVIL, EVIL]], "total": 7, "problems": [EVIL], "ids": [EVIL]}
    cluster = {"id": EVIL, "name": EVIL, "address": EVIL, "pid": EVIL, "mine": True}
    cell = {"tag": EVIL, "title": EVIL, "tasks": 1, "from_ms": 0, "to_ms": 1}
    past = {
        "job": EVIL, "jobs": [{"id": EVIL, "name": EVIL, "state": EVIL, "notebook": EVIL}], "lost": True, "v": 2, "edition": 1,
        "spans": 0, "span_names": [EVIL], "workers": [EVIL], "cells": [cell, {**cell, "tag": "b" + EVIL}],
        "counts": {"submitted": 2, "done": 1, "failed": 1, "cancelled": 0, "running": 0, "queued": 0},
    }  # fmt: skip
    views = {
        "overview": overview,
        **{tab.lower(): table for tab in TABS[1:]},
        f"log/{EVIL}": {"name": EVIL, "text": EVIL, "whole": False},
        "past": past,
        f"past/{EVIL}": past,
    }
    return {"clusters": [cluster], "cluster": EVIL, "views": views, "problem": EVIL, "scope": "machine"}


#: What is asked for besides, by the end of its path.
LONG = {
    "spans": {"edition": 1, "first": 0, "data": ""},
    "lineage": {
        "nodes": [
            {"key": EVIL, "kind": "task", "label": EVIL, "detail": EVIL, "title": EVIL, "tasks": 1, "expands": True, "stale": EVIL}
        ],
        "edges": [], "coarse": False, "hidden": 0, "silent": [EVIL],
    },
    "plan": {"cores": [1], "nodes": [1], "seconds": [[1.0]], "path_s": 1.0, "notes": [EVIL], "sentence": EVIL},
}  # fmt: skip


def told_markup(browser: Browser, url: str) -> Page:
    """The page, told that by request because there is no socket."""
    said = json.dumps(markup())

    def tell(route: Route) -> None:
        route.fulfill(status=200, content_type="application/json", body=said)

    def tell_more(route: Route) -> None:
        asked = route.request.url.partition("?")[0].rpartition("/")[2]
        route.fulfill(status=200, content_type="application/json", body=json.dumps(LONG[asked]))

    page = browser.new_context().new_page()
    page.set_default_timeout(PAGE_WITHIN_MS)
    page.route_web_socket("**/nbray/api/watch", lambda socket: socket.close())
    page.route("**/nbray/api/snapshot?**", tell)
    page.route("**/jobs/**", tell_more)
    page.goto(url)
    page.locator(".nbray-clusternode").first.wait_for()
    return page


def test_whatever_a_server_says_is_text_and_without_a_socket_the_page_asks(browser: Browser, context: Any) -> None:
    page = told_markup(browser, f"http://{context.dashboard_url}")
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("tabpanel").get_by_text(EVIL).locator("visible=true").first.wait_for()
    page.get_by_role("tabpanel").get_by_role("button", name=EVIL).click()
    page.get_by_role("log").get_by_text(EVIL).wait_for()
    assert page.evaluate("window.pwned") is None
    assert page.locator("#nbray img").count() == 0
    page.context.close()


def test_a_button_that_was_pressed_keeps_the_keyboard_while_its_request_runs_and_asks_once(browser: Browser, context: Any) -> None:
    page = told_markup(browser, f"http://{context.dashboard_url}")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/nodes", hold)
    grow = page.get_by_role("button", name="Add a node")
    grow.focus()
    with page.expect_request("**/nodes"):
        page.keyboard.press("Enter")
    grow.and_(page.locator("[aria-disabled=true]:focus")).wait_for()
    page.keyboard.press("Enter")
    held[0].fulfill(status=503, content_type="application/json", body=json.dumps({"message": "no room"}))
    page.get_by_role("alert").get_by_text("no room").wait_for()
    grow.and_(page.locator("[aria-disabled=false]:focus")).wait_for()
    assert len(held) == 1
    page.context.close()


def test_a_page_that_nobody_sees_asks_nothing(browser: Browser, context: Any) -> None:
    page = browser.new_context().new_page()
    page.set_default_timeout(PAGE_WITHIN_MS)
    page.add_init_script(
        "let unseen = false; Object.defineProperty(document, 'hidden', { get: () => unseen });"
        "window.see = (yes) => { unseen = !yes; document.dispatchEvent(new Event('visibilitychange')); }"
    )
    with page.expect_websocket(lambda socket: "/nbray/api/watch" in socket.url) as first:
        page.goto(f"http://{context.dashboard_url}")
    page.locator(".nbray-clusternode").first.wait_for()
    with first.value.expect_event("close"):
        page.evaluate("see(false)")
    with page.expect_websocket(lambda socket: "/nbray/api/watch" in socket.url):
        page.evaluate("see(true)")
    page.context.close()
