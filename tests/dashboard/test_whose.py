"""What a page calls a cluster that no `nbray start` began: by the notebook or the process that it belongs to."""

from __future__ import annotations

import os
import subprocess

import pytest

from nbray.dashboard.clusters import _whose


@pytest.mark.parametrize(
    ("argument", "notebook", "called"),
    [("ipykernel_launcher", "analysis.ipynb", "analysis.ipynb ({})"), ("script", "", "process {}")],
)
def test_a_cluster_is_called_after_the_notebook_of_its_kernel_and_not_of_a_script_that_the_notebook_runs(
    argument: str, notebook: str, called: str
) -> None:
    environment = {**os.environ, "JPY_SESSION_NAME": "/home/me/analysis.ipynb"}
    command = ["sh", "-c", "cat & echo $!; wait", argument]  # a parent and its child, as a kernel and its daemon are
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert _whose(child) == (notebook, called.format(parent.pid))
        finally:
            parent.kill()
            os.kill(child, 9)


def test_nothing_is_read_of_a_process_that_has_ended() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert _whose(gone.pid) == ("", f"process {gone.pid}")
