"""What holds for every test: nothing that a test starts outlives it, and in CI nothing is skipped quietly.

Everything that a test run starts inherits `NBRAY_TEST_RUN` and is found again by it in /proc/*/environ, however it was started and
whoever its parent is by then. Runtime directories are made under a directory of this run's own, so that two runs, or a cluster of
the developer's, do not see each other.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

RUN = uuid.uuid4().hex
MARK = f"NBRAY_TEST_RUN={RUN}".encode()

pytest_plugins = ["pytester"]

#: Tests below these directories of tests/ start processes.
STARTING = {
    "browser",
    "cli",
    "cluster",
    "conformance",
    "dashboard",
    "driver",
    "engines",
    "kernel",
    "node",
    "notebook",
    "server",
    "tutorials",
    "worker",
}

#: What is on its way out may take this long to be gone. A bound, not a wait: what is gone at once is seen at once.
GONE_WITHIN_S = 10.0

#: File descriptors that a process opens once, at the first use of a library, and keeps: the zmq context's mailbox, epoll and
#: event descriptors (two for the context and two for each of its threads), and asyncio's and the signal module's wake-up pairs.
KEPT_FDS = 12

os.environ["NBRAY_TEST_RUN"] = RUN
# Short, because the path of a unix socket is limited to 107 bytes.
RUNTIME = Path(tempfile.mkdtemp(prefix="nbt-"))
os.environ["XDG_RUNTIME_DIR"] = str(RUNTIME)
os.environ["NBRAY_ENVIRONMENT_CACHE"] = str(RUNTIME / "environments")


class Surroundings(NamedTuple):
    """What a test may not leave more of."""

    processes: dict[int, str]  #: pid: command line
    directories: set[str]
    shared_memory: set[str]
    fds: Counter[str]


def marked_processes() -> dict[int, str]:
    """Processes that inherited this run's mark, and children of this process that nobody has waited for."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if MARK in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone meanwhile, or somebody else's
    for child in psutil.Process().children():
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                found[child.pid] = "(ended, and not waited for)"
        except psutil.NoSuchProcess:
            continue
    return found


def runtime_directories() -> set[str]:
    """Paths of the directories of node lives under this run's runtime root."""
    return {str(path) for path in (RUNTIME / "nbray").glob("*") if path.is_dir() and path.name != "connections"}


def shared_memory() -> set[str]:
    """Names in /dev/shm. The browser's own come and go with the browser."""
    directory = Path("/dev/shm")
    return {path.name for path in directory.iterdir() if "hromium" not in path.name} if directory.is_dir() else set()


def open_files() -> Counter[str]:
    """How many descriptors this process has on each thing: a path, or a kind such as `anon_inode:[eventpoll]` or `socket`."""
    kinds: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        try:
            kinds[os.readlink(f"/proc/self/fd/{fd}").partition(":[")[0]] += 1
        except FileNotFoundError:
            continue  # the listing's own
    return kinds


def look() -> Surroundings:
    return Surroundings(marked_processes(), runtime_directories(), shared_memory(), open_files())


def left_behind(before: Surroundings) -> list[str]:
    """What is here now and was not then, in words; empty when all is as it was."""
    now = look()
    found = [f"process {pid}: {command}" for pid, command in now.processes.items() if pid not in before.processes]
    found += [f"directory {path}" for path in sorted(now.directories - before.directories)]
    found += [f"/dev/shm/{name}" for name in sorted(now.shared_memory - before.shared_memory)]
    if now.fds.total() > before.fds.total() + KEPT_FDS:
        found.append(f"{now.fds.total() - before.fds.total()} file descriptors: {dict(now.fds - before.fds)}")
    return found


def assert_nothing_left(before: Surroundings, what: str) -> None:
    """Fail, naming it, when something is still left after `GONE_WITHIN_S`; end the processes, so that one leak is one failure."""
    gc.collect()
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := left_behind(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
        gc.collect()
    if left:
        for pid in set(marked_processes()) - set(before.processes):
            end(pid)
        pytest.fail(f"{what} left behind:\n  " + "\n  ".join(left), pytrace=False)


def end(pid: int) -> None:
    """Kill a process and, where it is a child of ours, take its exit status: or it would be the next thing left behind."""
    try:
        process = psutil.Process(pid)
        process.kill()
        process.wait(timeout=GONE_WITHIN_S)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        return


def starts_processes(request: pytest.FixtureRequest) -> bool:
    if os.environ.get("CONFORMANCE_SUBJECT") == "ray":
        return False  # what Ray leaves behind is not ours to check
    below = Path(str(request.node.path)).relative_to(Path(__file__).parent).parts[:-1]
    return not STARTING.isdisjoint(below)


@pytest.fixture(scope="module", autouse=True)
def module_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """The check for what a module's tests share, such as a cluster: made first of all fixtures, so that it ends last."""
    if not starts_processes(request):
        yield
        return
    before = look()
    yield
    assert_nothing_left(before, request.node.name)


@pytest.fixture(autouse=True)
def item_leaves_nothing(request: pytest.FixtureRequest, module_leaves_nothing: None) -> Iterator[None]:
    """The check for a test that starts its own. Where the module already runs something, new workers may be its: checked later."""
    before = look() if starts_processes(request) else None
    yield
    if before is not None and not before.processes:
        assert_nothing_left(before, request.node.name)


def pytest_unconfigure() -> None:
    shutil.rmtree(RUNTIME, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    refuse_skip(outcome.get_result(), item.nodeid)  # type: ignore[attr-defined]


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    outcome = yield
    refuse_skip(outcome.get_result(), collector.nodeid)  # type: ignore[attr-defined]


def refuse_skip(report: pytest.TestReport | pytest.CollectReport, name: str) -> None:
    """In CI a skip is a failure, unless its reason begins with "GPU": a suite that runs nothing must not be green."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith("GPU"):
        report.outcome = "failed"
        report.longrepr = f"{name} was skipped, which CI does not accept: {reason}"


@pytest.fixture(scope="session")
def browser_path() -> str:
    """The executable of a Chromium. Skips, saying what to install, where there is none."""
    for name in (os.environ.get("NBRAY_BROWSER"), "chromium", "chromium-browser", "google-chrome"):
        if name and (path := shutil.which(name)):
            return path
    pytest.skip("no Chromium: install one, or set NBRAY_BROWSER to its path")
