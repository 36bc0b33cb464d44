"""`nbray job ...` as a person types it, on a cluster of `nbray start`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbray.driver import looking
from nbray.job_submission import JobSubmissionClient
from tests.cli.test_cli import Cluster, nbray, one_line
from tests.cluster.conditions import until


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    nbray("stop", "--force")


def test_submit_follows_the_output_and_exits_as_the_job_did(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import os, nbray\nnbray.init()\nprint('in', os.getcwd(), os.environ['A'])\n")
    (tmp_path / "env.json").write_text('{"env_vars": {"A": "b c"}}')
    done = nbray(
        *("job", "submit", "--submission-id", "good", "--working-dir", str(tmp_path), "--runtime-env", str(tmp_path / "env.json")),
        *("--verbose", "--", "python", "script.py"),
    )
    assert done.code == 0, done.out + done.err
    assert "Submitting to cluster" in done.out
    assert "Job 'good' submitted successfully" in done.out
    assert f"in {tmp_path} b c\n" in done.out
    assert done.out.endswith("Job 'good' succeeded\n")
    failed = nbray("job", "submit", "--", "echo one; exit 4")
    assert failed.code == 1
    assert "exit code 4" in failed.out
    assert nbray("job", "logs", "good").out == f"in {tmp_path} b c\n"
    assert nbray("logs", "job", "--id", "good").out == f"in {tmp_path} b c\n"
    assert "type: SUBMISSION" in nbray("get", "jobs", "good").out
    listed = nbray("job", "list")
    assert "good" in listed.out
    assert "SUCCEEDED" in listed.out
    assert [job["status"] for job in json.loads(nbray("job", "list", "--format", "json").out)][:2] == ["SUCCEEDED", "FAILED"]


def test_a_job_runs_on_until_it_is_stopped_and_is_gone_when_deleted(cluster: Cluster) -> None:
    begun = nbray("job", "submit", "--no-wait", "--submission-id", "long", "--", "echo begun; sleep 1000")
    assert begun.code == 0, begun.err
    assert "nbray job stop long" in begun.out
    assert "Status for job 'long'" in nbray("job", "status", "long").out
    assert "non-terminal state" in one_line(nbray("job", "delete", "long"))
    assert "Job 'long' was stopped" in nbray("job", "stop", "long").out
    assert nbray("job", "logs", "-f", "long").out.startswith("begun\n")
    assert "deleted successfully" in nbray("job", "delete", "long").out
    assert "does not exist" in one_line(nbray("job", "status", "long"))


def test_status_says_which_jobs_wait_and_why(cluster: Cluster) -> None:
    assert (
        nbray("job", "submit", "--no-wait", "--submission-id", "holds", "--entrypoint-num-cpus", "1", "--", "sleep 1000").code == 0
    )
    until(lambda: "Status for job 'holds': RUNNING" in nbray("job", "status", "holds").out, "it runs", within_s=60)
    assert nbray("job", "submit", "--no-wait", "--submission-id", "waits", "--entrypoint-num-cpus", "1", "--", "echo\nhi").code == 0
    asks = ("--entrypoint-label-selector", '{"zone": "b"}')
    assert nbray("job", "submit", "--no-wait", "--submission-id", "nowhere", *asks, "--", "true").code == 0
    told = nbray("status").out
    assert "Submitted jobs that wait:\n  waits on node " in told
    assert "It waits for num_cpus=1, which its node has, but not free. (echo hi)\n" in told
    assert "  nowhere: The entrypoint needs a node with zone=b; no node has such labels." in told
    assert "holds" not in told
    assert "Submitted jobs that run:\n  holds on node " in nbray("status", "-v").out
    for name in ("waits", "nowhere", "holds"):
        assert nbray("job", "stop", name).code == 0


def test_a_client_that_is_to_make_a_cluster_says_why_it_does_not(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"create_cluster_if_needed=True starts none here: .* nbray start --head"):
        JobSubmissionClient(str(tmp_path / "no.json"), create_cluster_if_needed=True)


def test_from_another_machine_a_job_is_submitted_with_the_token(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o700)
    elsewhere = {"XDG_RUNTIME_DIR": str(tmp_path / "other"), "NBRAY_TOKEN": cluster.token}
    done = nbray("job", "submit", "--address", cluster.address, "--", "echo", "from afar", **elsewhere)
    assert done.code == 0, done.out + done.err
    assert "from afar\n" in done.out


def test_a_head_that_is_started_again_says_what_became_of_its_jobs(tmp_path: Path) -> None:
    nbray("stop", "--force")
    first = Cluster("--state", str(tmp_path / "journal"))
    assert nbray("job", "submit", "--no-wait", "--submission-id", "ran", "--", "sleep 1000").code == 0
    assert nbray("job", "submit", "--submission-id", "done", "--", "true").code == 0
    nbray("stop", "--force")
    again = nbray("start", "--head", "--port", first.address.rpartition(":")[2], "--state", str(tmp_path / "journal"))
    assert again.code == 0, again.err
    try:
        assert "Job 'done' succeeded" in nbray("job", "status", "done").out
        status = nbray("job", "status", "ran").out
        assert "Job 'ran' failed" in status
        assert "head's node ended while it ran there" in status
        assert "which is gone" in one_line(nbray("job", "logs", "done"))
    finally:
        nbray("stop", "--force")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("job", "submit"), "nothing to run"), (("job", "submit", "--entrypoint-num-cpus", "-1", "--", "true"), "num_cpus")],
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    started = Cluster()
    try:
        assert said in one_line(nbray(*arguments, "--address", started.address) if arguments[-1] == "submit" else nbray(*arguments))
    finally:
        nbray("stop", "--force")


ACTORS = """
import nbray
nbray.init("auto", namespace="lab")

@nbray.remote(num_cpus=0)
class Counter:
    def ping(self): return 1

for name in ("one", "two"):
    nbray.get(Counter.options(name=name, lifetime="detached").remote().ping.remote())
"""


def test_named_actors_are_killed_at_once_or_asked_to_end() -> None:
    head = Cluster()
    try:
        done = nbray("job", "submit", "--", sys.executable, "-c", ACTORS)
        assert done.code == 0, done.out + done.err
        assert "it is DEAD" in nbray("kill-actor", "--name", "one", "--force", "--no-restart").out
        assert "Asked Counter two to end" in nbray("kill-actor", "--name", "two", "--namespace", "lab").out
        with looking.at(head.address) as (viewer, _):
            until(lambda: {one["state"] for one in viewer.ask("actors")} == {"DEAD"}, "both are dead")
        assert "is called one" in one_line(nbray("kill-actor", "--name", "one"))
        assert "--force" in one_line(nbray("kill-actor", "--name", "one", "--no-restart"))
    finally:
        nbray("stop", "--force")
