"""Submitted jobs and the processes behind them: nothing of one outlives its end, and a long log stays within bounds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import nbray as ray
from nbray.job_submission import JobStatus, JobSubmissionClient
from tests.cluster.conditions import until

CLUSTER = None


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobSubmissionClient]:
    monkeypatch.setenv("NBRAY_LOG_BYTES", "20000")
    monkeypatch.setenv("NBRAY_JOB_STOP_S", "0.2")
    ray.init(num_cpus=1)
    made = JobSubmissionClient()
    yield made
    made.close()
    ray.shutdown()


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path} is written", within_s=30)
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


#: Leaves a process in a session of its own, whose parent has ended.
HIDES = "setsid sh -c 'echo $$ > {0}; sleep 1000' & while [ ! -s {0} ]; do sleep 0.05; done; "


def test_what_a_job_leaves_behind_ends_with_it(client: JobSubmissionClient, tmp_path: Path) -> None:
    job = client.submit_job(entrypoint=HIDES.format(tmp_path / "pid") + "echo done")
    assert client.wait_job(job, 30) == JobStatus.SUCCEEDED
    assert client.get_job_logs(job) == "done\n"
    assert is_gone(pid_in(tmp_path / "pid"))


def test_a_job_that_ignores_sigterm_is_killed_with_all_it_has_begun(client: JobSubmissionClient, tmp_path: Path) -> None:
    job = client.submit_job(entrypoint="trap '' TERM; " + HIDES.format(tmp_path / "pid") + "while :; do sleep 1; done")
    pid = pid_in(tmp_path / "pid")
    assert client.stop_job(job)
    assert client.wait_job(job, 30) == JobStatus.STOPPED
    assert is_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_end_with_their_cluster(client: JobSubmissionClient, tmp_path: Path, number: int) -> None:
    client.submit_job(entrypoint=HIDES.format(tmp_path / "pid") + "sleep 1000")
    pid = pid_in(tmp_path / "pid")
    daemon = ray.session.engine.description()["daemon_pid"]  # type: ignore[union-attr]
    os.kill(daemon, number)
    until(lambda: is_gone(pid), "the job is gone", within_s=30)
    until(lambda: is_gone(daemon), "the daemon is gone", within_s=30)


def test_a_job_whose_supervisor_is_killed_has_failed_and_is_gone(client: JobSubmissionClient, tmp_path: Path) -> None:
    job = client.submit_job(entrypoint=f"echo $$ > {tmp_path / 'pid'}; sleep 1000 & sleep 1000")
    shell = psutil.Process(pid_in(tmp_path / "pid"))
    until(lambda: len(shell.children()) == 2, "both run", within_s=30)
    sleeps = shell.children()
    os.kill(shell.ppid(), signal.SIGKILL)
    assert client.wait_job(job, 30) == JobStatus.FAILED
    assert "watched over it was killed by signal 9" in (client.get_job_info(job).message or "")
    until(lambda: all(is_gone(each.pid) for each in [shell, *sleeps]), "all of it is gone", within_s=30)


def test_a_long_log_keeps_its_end_and_says_what_is_gone(client: JobSubmissionClient) -> None:
    job = client.submit_job(entrypoint="i=0; while [ $i -lt 12000 ]; do echo line $i; i=$((i+1)); done")
    followed = "".join(client.follow_job_logs(job))
    assert client.wait_job(job, 30) == JobStatus.SUCCEEDED
    assert followed.endswith("line 11999\n")
    log = client.get_job_logs(job)
    assert log.startswith("[")
    assert "bytes of this log are gone" in log.splitlines()[0]
    kept = log.splitlines()[2:]  # the first that is kept may be cut
    assert 20_000 < len(log) < 41_000
    assert kept == [f"line {n}" for n in range(12_000 - len(kept), 12_000)]


def test_a_directory_that_is_not_there_is_a_failure_to_begin(client: JobSubmissionClient, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a valid path"):
        client.submit_job(entrypoint="true", runtime_env={"working_dir": str(tmp_path / "nowhere")})
    (tmp_path / "gone").mkdir()
    held = client.submit_job(entrypoint="sleep 1000", entrypoint_num_cpus=1)
    job = client.submit_job(entrypoint="true", runtime_env={"working_dir": str(tmp_path / "gone")}, entrypoint_num_cpus=1)
    (tmp_path / "gone").rmdir()
    client.stop_job(held)
    assert client.wait_job(job, 30) == JobStatus.FAILED
    assert f"could not start: {tmp_path / 'gone'}: No such file" in (client.get_job_info(job).message or "")


def test_a_deleted_job_leaves_no_file(client: JobSubmissionClient) -> None:
    job = client.submit_job(entrypoint="echo hello", submission_id="a/../b c")
    assert client.wait_job(job, 30) == JobStatus.SUCCEEDED
    logs = Path(ray.session.engine.description()["log_directory"])  # type: ignore[union-attr]
    assert [path.name for path in logs.glob("job-*")] == ["job-a%2F..%2Fb%20c.log"]
    client.delete_job(job)
    until(lambda: not list(logs.glob("job-*")), "the log is gone", within_s=30)


def test_a_job_outlives_its_submitter(client: JobSubmissionClient, tmp_path: Path) -> None:
    where = ray.session.engine.description()["directory"]  # type: ignore[union-attr]
    waits = f"while [ ! -e {tmp_path / 'go'} ]; do sleep 0.05; done"
    program = (
        "from nbray.job_submission import JobSubmissionClient\n"
        f"JobSubmissionClient({where!r}).submit_job(entrypoint={waits!r}, submission_id='j')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    until(lambda: client.get_job_status("j") == JobStatus.RUNNING, "it runs", within_s=30)
    (tmp_path / "go").touch()
    assert client.wait_job("j", 30) == JobStatus.SUCCEEDED


def test_an_address_that_speaks_http_means_the_cluster_here_or_is_refused(client: JobSubmissionClient) -> None:
    here = JobSubmissionClient("http://127.0.0.1:8265")
    assert [job.type.value for job in here.list_jobs()] == ["DRIVER"]
    here.close()
    with pytest.raises(
        ConnectionError, match=r"Failed to connect to nbray at address: http://10.1.2.3:8265. It has no HTTP server"
    ):
        JobSubmissionClient("http://10.1.2.3:8265")


def test_the_driver_of_a_job_and_its_submission_may_not_disagree(client: JobSubmissionClient) -> None:
    program = "import nbray; nbray.init(runtime_env={'env_vars': {'A': 'mine'}})"
    job = client.submit_job(entrypoint=f'python -c "{program}"', runtime_env={"env_vars": {"A": "theirs"}})
    assert client.wait_job(job, 30) == JobStatus.FAILED
    assert "Failed to merge the Job's runtime env" in client.get_job_logs(job)
