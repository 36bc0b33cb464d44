"""The page at /nbray in a real browser: served by nbray itself: by keyboard, light and dark, wide and narrow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, sync_playwright

import nbray

from .conftest import FLAGS, PAGE_WITHIN_MS

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=window.pwned=1>"
TABS = ["Overview", "Tasks", "Actors", "Objects", "Jobs", "Logs"]


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
        if tab != "Jobs":
            shown.get_by_text(
                "worker-" if tab == "Logs" else "Gate" if tab == "Actors" else EVIL if tab != "Objects" else "driver"
            ).first.wait_for()
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


def barriers(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in {"serious", "critical"}]


def test_whatever_a_server_says_is_text_and_without_a_socket_the_page_asks(browser: Browser, context: Any) -> None:
    """A snapshot in which every text is markup, told by request because there is no socket."""
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
    views = {
        "overview": overview,
        **{tab.lower(): table for tab in TABS[1:]},
        f"log/{EVIL}": {"name": EVIL, "text": EVIL, "whole": False},
    }
    told = {"clusters": [cluster], "cluster": EVIL, "views": views, "problem": EVIL, "scope": "machine"}

    def tell(route: Route) -> None:
        route.fulfill(status=200, content_type="application/json", body=json.dumps(told))

    page = browser.new_context().new_page()
    page.set_default_timeout(PAGE_WITHIN_MS)
    page.route_web_socket("**/nbray/api/watch", lambda socket: socket.close())
    page.route("**/nbray/api/snapshot?**", tell)
    page.goto(f"http://{context.dashboard_url}")
    page.locator(".nbray-clusternode").first.wait_for()
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("tabpanel").get_by_text(EVIL).first.wait_for()
    page.get_by_role("tabpanel").get_by_role("button", name=EVIL).click()
    page.get_by_role("log").get_by_text(EVIL).wait_for()
    assert page.evaluate("window.pwned") is None
    assert page.locator("#nbray img").count() == 0
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
