"""Whatever happens to the cluster, the kernel keeps its process and its variables, and the next cell works."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import psutil
import pytest

Kernel = Any


@pytest.fixture(scope="module", autouse=True)
def variables(kernel: Kernel) -> None:
    """What must still be there at the end."""
    kernel.ok("import numpy as np\nkept = 'here'\nlarge = np.arange(500_000.0)")


def daemons_of(kernel: Kernel) -> list[psutil.Process]:
    """The node daemons that the kernel started and that live; one that was killed may be there still, without a command line."""
    found = []
    for child in psutil.Process(kernel.manager.provisioner.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "nbray.node" in child.cmdline():
                found.append(child)
    return found


def cluster_of(kernel: Kernel) -> psutil.Process:
    daemons = daemons_of(kernel)
    assert len(daemons) == 1, daemons
    return daemons[0]


def test_the_next_cell_works_after_every_worker_was_killed(kernel: Kernel) -> None:
    pid = kernel.eval("os.getpid()")
    kernel.ok("%%remote --each i=range(4)\nos.getpid()")
    workers = [p for p in cluster_of(kernel).children(recursive=True) if not p.children()]
    assert workers
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    # The cell may be sent to each of them in turn before their deaths are told.
    assert kernel.ok(f"%%remote --retries {len(workers)}\nkept").value == "'here'"
    assert kernel.eval("os.getpid()") == pid


def test_a_cell_whose_worker_is_killed_says_so(kernel: Kernel) -> None:
    cell = kernel.run("%%remote\nimport signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert cell.error["ename"] == "WorkerCrashedError"
    assert "SIGKILL" in cell.traceback
    assert "nbray/notebook" not in cell.traceback
    assert kernel.ok("%%remote\n6 * 7").value == "42"


def test_the_next_cell_works_after_the_daemon_was_killed(kernel: Kernel) -> None:
    pid = kernel.eval("os.getpid()")
    kernel.ok("%%remote\nfloat(large.sum())")
    kernel.ok("%%remote --refs\nlost = list(range(100_000))")
    killed = cluster_of(kernel).pid
    os.kill(killed, signal.SIGKILL)
    at_once = kernel.run("%%remote\nkept")  # it may have been sent before the death was seen, and was lost then
    assert at_once.value == "'here'" or (at_once.error or {}).get("ename") == "NodeDiedError", at_once
    # The kernel starts another once it has seen the death; what is submitted from then on waits for that one.
    kernel.until(lambda: any(daemon.pid != killed for daemon in daemons_of(kernel)), "another daemon")
    assert kernel.ok("%%remote\nkept").value == "'here'"
    assert kernel.eval("(os.getpid(), kept)") == (pid, "here")
    assert kernel.run("nbray.get(lost, timeout=30)").error is not None
    assert kernel.ok("%%remote\nfloat(large[3])").value == "3.0"  # its copy in the store went with the daemon


def test_a_cell_that_waits_while_the_daemon_is_killed_ends_with_an_answer_or_an_error(kernel: Kernel) -> None:
    waiting = kernel.start("%%remote\nprint('begun', flush=True)\nimport time\ntime.sleep(600)")
    kernel.until(lambda: "begun" in waiting.stdout, "the task")
    os.kill(cluster_of(kernel).pid, signal.SIGKILL)
    kernel.until(lambda: waiting.idle, "the end of the waiting cell")
    assert waiting.error is not None
    assert kernel.ok("%%remote\nkept").value == "'here'"


def test_stopping_and_using_again_starts_anew(kernel: Kernel) -> None:
    kernel.ok("%nbray stop")
    assert "none yet" in kernel.ok("%nbray status").displays[0]["text/plain"]
    assert kernel.ok("%%remote\nkept").value == "'here'"
    issuing = kernel.ok("@nbray.remote\ndef again():\n    print('routed')\n\nnbray.get(again.remote())")
    assert issuing.stdout == "routed\n"
