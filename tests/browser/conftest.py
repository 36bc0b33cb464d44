"""A JupyterLab server of its own for each test module, and pages on its notebooks in a real browser."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright
from playwright.sync_api import TimeoutError as NotSeenError

BUNDLE = Path(__file__).resolve().parents[2] / "nbray" / "labextension"
TOKEN = "a-token-for-this-test"
STARTED_WITHIN_S = 60.0
PAGE_WITHIN_MS = 60_000
KEY_PRESSES = 6
BEGUN = re.compile(r"\[(\*|\d+)\]")  #: the prompt of a cell that runs or has run
IDLE = "document.querySelector('.jp-NotebookPanel .jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'"
#: As root, Chromium's sandbox does not start; the rest keeps it from talking to anything but the server.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def wait_until(condition: Callable[[], bool], bound_s: float, otherwise: Callable[[], str]) -> None:
    """Return when `condition()` holds; fail with `otherwise()` after `bound_s`."""
    deadline = time.monotonic() + bound_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(otherwise())
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Lab:
    """A running JupyterLab: where its notebooks lie, and how to open one."""

    def __init__(self, directory: Path, port: int, browser: BrowserContext) -> None:
        self.directory, self.port, self.browser = directory, port, browser

    def open(self, name: str, cells: list[str], *, app: str = "lab/tree", kept: list[Any] | None = None) -> Notebook:
        """Write a notebook and open it; returns when its kernel is idle. Code is not typed: the editor would indent it again.

        `app` "notebooks" is Notebook 7. `kept` are outputs that the first cell already has.
        """
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        if kept is not None:
            notebook.cells[0].outputs = kept
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.directory / name)
        page = self.browser.new_page()
        page.set_default_timeout(PAGE_WITHIN_MS)
        # On a slow machine JupyterLab may ask for the kernel that the notebook names already, as it would ask a person.
        page.add_locator_handler(
            page.locator(".jp-Dialog", has_text="Select Kernel"), lambda dialog: dialog.locator(".jp-mod-accept").click()
        )
        page.goto(f"http://127.0.0.1:{self.port}/{app}/{name}?token={TOKEN}{'&reset' if app == 'lab/tree' else ''}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function(IDLE)
        return Notebook(page)


class Notebook:
    """An open notebook, by what a person does with it and sees of it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def run(self, index: int) -> None:
        """Run one cell, as Ctrl+Enter does; returns when it has begun."""
        cell = self.page.locator(".jp-Notebook .jp-Cell").nth(index)
        self.press("Control+Enter", cell.locator(".jp-InputPrompt", has_text=BEGUN), cell.locator(".jp-InputArea-editor"))

    def press(self, keys: str, until: Any, inside: Any | None = None) -> None:
        """Press `keys`, having clicked `inside`, until something is seen: JupyterLab drops keys while it is still setting up."""
        for attempt in range(KEY_PRESSES):
            try:
                if inside is not None:
                    inside.click()
            except NotSeenError:
                said = self.page.locator(".jp-Dialog").all_inner_texts()
                pytest.fail(f"it cannot be clicked; dialogs: {said}")
            self.page.keyboard.press(keys)
            try:
                until.wait_for(timeout=PAGE_WITHIN_MS / KEY_PRESSES)
                return
            except NotSeenError:
                if attempt == KEY_PRESSES - 1:
                    raise

    def output(self, index: int) -> Any:
        """A locator of everything under a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-Cell-outputWrapper")

    def sees(self, index: int, text: str) -> None:
        """Wait until `text` is under cell `index`."""
        self.output(index).get_by_text(text).first.wait_for()

    def stop(self) -> None:
        """Press the stop button of the notebook's toolbar."""
        self.page.locator('.jp-NotebookPanel-toolbar [data-command="notebook:interrupt-kernel"]').first.click()

    def idle(self) -> None:
        self.page.wait_for_function(IDLE)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, browser_path: str) -> Iterator[Lab]:
    """JupyterLab on a free port with settings of its own, and a browser."""
    directory = tmp_path_factory.mktemp("lab")
    home = tmp_path_factory.mktemp("home")
    settings = home / "lab-settings"
    settings.mkdir()
    # A question about news would lie over the notebook.
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (settings / "overrides.json").write_text(json.dumps(quiet), encoding="utf-8")
    port = free_port()
    own = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    options = [f"--ServerApp.port={port}", f"--ServerApp.root_dir={directory}", f"--IdentityProvider.token={TOKEN}"]
    options += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--allow-root", "--no-browser"]
    options += [f"--LabApp.app_settings_dir={settings}"]
    # The bundle of this tree, before one that was installed with an earlier one.
    bundles = home / "labextensions"
    bundles.mkdir()
    (bundles / "nbray-lab").symlink_to(BUNDLE)
    options += [f"--LabApp.extra_labextensions_path={bundles}"]
    log = home / "server.log"
    with log.open("w", encoding="utf-8") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env={**os.environ, **own, "IPYTHONDIR": str(home / "ipython")},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: "is running at" in log.read_text(encoding="utf-8") or server.poll() is not None,
            STARTED_WITHIN_S,
            lambda: f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')}",
        )
        with sync_playwright() as playwright:
            profile = str(home / "profile")
            browser = playwright.chromium.launch_persistent_context(
                profile, executable_path=browser_path, args=FLAGS, headless=True
            )
            yield Lab(directory, port, browser)
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=30)
