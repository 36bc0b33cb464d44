"""Whatever happens to the cluster, the kernel keeps its process and its variables, and the next cell works."""

from __future__ import annotations

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


def cluster_of(kernel: Kernel) -> psutil.Process:
    """The node daemon that the kernel started."""
    children = psutil.Process(kernel.eval("os.getpid()")).children()
    daemons = [child for child in children if "nbray.node" in " ".join(child.cmdline())]
    assert len(daemons) == 1, [child.cmdline() for child in children]
    return daemons[0]


def test_the_next_cell_works_after_every_worker_was_killed(kernel: Kernel) -> None:
    pid = kernel.eval("os.getpid()")
    kernel.ok("%%remote --each i=range(4)\nos.getpid()")
    workers = [p for p in cluster_of(kernel).children(recursive=True) if not p.children()]
    assert workers
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    assert kernel.ok("%%remote --retries 3\nkept").value == "'here'"
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
    os.kill(cluster_of(kernel).pid, signal.SIGKILL)
    assert kernel.ok("%%remote\nkept").value == "'here'"
    assert kernel.eval("(os.getpid(), kept)") == (pid, "here")
    assert kernel.run("nbray.get(lost, timeout=30)").error is not None
    assert kernel.ok("%%remote\nfloat(large[3])").value == "3.0"  # its copy in the store went with the daemon


def test_a_cell_that_waits_while_the_daemon_is_killed_ends_with_an_answer_or_an_error(kernel: Kernel) -> None:
    waiting = kernel.start("%%remote\nprint('begun', flush=True)\nimport time\ntime.sleep(600)")
    kernel.until(lambda: "begun" in waiting.stdout, "the task")
    daemons = [p for p in psutil.process_iter(["cmdline", "ppid"]) if p.info["ppid"] == kernel.manager.provisioner.pid]
    for daemon in daemons:
        if "nbray.node" in " ".join(daemon.info["cmdline"] or []):
            os.kill(daemon.pid, signal.SIGKILL)
    kernel.until(lambda: waiting.idle, "the end of the waiting cell")
    assert waiting.error is not None
    assert kernel.ok("%%remote\nkept").value == "'here'"


def test_stopping_and_using_again_starts_anew(kernel: Kernel) -> None:
    kernel.ok("%nbray stop")
    assert "none yet" in kernel.ok("%nbray status").displays[0]["text/plain"]
    assert kernel.ok("%%remote\nkept").value == "'here'"
    issuing = kernel.ok("@nbray.remote\ndef again():\n    print('routed')\n\nnbray.get(again.remote())")
    assert issuing.stdout == "routed\n"
