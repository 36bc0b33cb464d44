"""Jobs: submitted, looked at, followed, stopped and deleted, as Ray's documentation does it."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.subject import needs_dashboard, ray

pytestmark = needs_dashboard

CLUSTER = {"num_cpus": 2, "num_gpus": 2}
BOUND_S = 60.0
jobs = importlib.import_module(f"{ray.__name__}.job_submission")
JobStatus = jobs.JobStatus


@pytest.fixture(scope="module")
def client(cluster: None) -> Iterator[Any]:
    made = jobs.JobSubmissionClient()
    yield made
    if hasattr(made, "close"):  # Ray's has nothing to close
        made.close()


def until(client: Any, job: str, *wanted: Any) -> Any:
    """The status, once it is one of `wanted`."""
    deadline = time.monotonic() + BOUND_S
    while (status := client.get_job_status(job)) not in wanted:
        assert not status.is_terminal(), f"{job} is {status}: {client.get_job_info(job).message}"
        assert time.monotonic() < deadline, f"{job} is {status}"
        time.sleep(0.05)
    return status


def done(client: Any, job: str) -> Any:
    return until(client, job, JobStatus.SUCCEEDED)


def test_a_job_succeeds_and_its_output_is_its_log(client: Any) -> None:
    job = client.submit_job(entrypoint="echo hello; echo trouble >&2")
    assert isinstance(job, str)
    done(client, job)
    log = client.get_job_logs(job)
    assert "hello\n" in log
    assert "trouble\n" in log
    info = client.get_job_info(job)
    assert (info.status, info.submission_id, info.type) == (JobStatus.SUCCEEDED, job, jobs.JobType.SUBMISSION)
    assert info.entrypoint == "echo hello; echo trouble >&2"
    assert info.message == "Job finished successfully."
    assert info.driver_exit_code == 0
    assert 0 < info.start_time <= info.end_time


def test_a_job_fails_with_its_exit_code_and_last_output(client: Any) -> None:
    job = client.submit_job(entrypoint="echo so far; exit 3")
    until(client, job, JobStatus.FAILED)
    info = client.get_job_info(job)
    assert info.driver_exit_code == 3
    assert "exit code 3" in info.message
    assert "so far" in info.message


def test_a_script_attaches_to_the_cluster_that_runs_it(client: Any, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        f"import {ray.__name__} as ray\n"
        "ray.init()\n"
        "f = ray.remote(lambda: 42)\n"
        "print('the answer', ray.get(f.remote()))\n"
        "print('here', ray.get_runtime_context().get_job_id())\n"
    )
    job = client.submit_job(entrypoint="python script.py", runtime_env={"working_dir": str(tmp_path)})
    done(client, job)
    log = client.get_job_logs(job)
    assert "the answer 42" in log
    info = client.get_job_info(job)
    assert f"here {info.job_id}" in log
    assert info.driver_info.id == info.job_id
    assert info.driver_info.pid.isdigit()


def test_environment_variables_reach_the_script_and_its_tasks(client: Any, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        f"import os, {ray.__name__} as ray\n"
        "ray.init()\n"
        "f = ray.remote(lambda: os.environ.get('RATE'))\n"
        "print('rates', os.environ['RATE'], ray.get(f.remote()))\n"
    )
    job = client.submit_job(entrypoint="python script.py", runtime_env={"env_vars": {"RATE": "0.1"}, "working_dir": str(tmp_path)})
    done(client, job)
    assert "rates 0.1 0.1" in client.get_job_logs(job)


def test_metadata_and_a_chosen_id_come_back(client: Any) -> None:
    assert client.submit_job(entrypoint="true", submission_id="my-job", metadata={"owner": "me"}) == "my-job"
    assert client.get_job_info("my-job").metadata["owner"] == "me"
    with pytest.raises(RuntimeError, match="already exists"):
        client.submit_job(entrypoint="true", submission_id="my-job")
    assert "my-job" in [job.submission_id for job in client.list_jobs()]
    done(client, "my-job")


def test_a_running_job_is_stopped(client: Any) -> None:
    job = client.submit_job(entrypoint="echo begun; sleep 1000")
    until(client, job, JobStatus.RUNNING)
    assert client.stop_job(job) is True
    until(client, job, JobStatus.STOPPED)
    assert client.get_job_info(job).message == "Job was intentionally stopped."
    assert client.stop_job(job) is False


def test_a_job_is_deleted_when_it_is_over_and_not_before(client: Any) -> None:
    job = client.submit_job(entrypoint="sleep 1000")
    until(client, job, JobStatus.RUNNING)
    with pytest.raises(RuntimeError, match="non-terminal state"):
        client.delete_job(job)
    client.stop_job(job)
    until(client, job, JobStatus.STOPPED)
    assert client.delete_job(job) is True
    with pytest.raises(RuntimeError, match="does not exist"):
        client.get_job_status(job)


def test_what_does_not_exist_is_a_runtime_error(client: Any) -> None:
    for ask in (client.get_job_status, client.get_job_info, client.get_job_logs, client.stop_job, client.delete_job):
        with pytest.raises(RuntimeError, match="does not exist"):
            ask("no-such-job")


def test_a_log_is_followed_as_it_grows(client: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = client.submit_job(entrypoint=f"echo first; while [ ! -e {gate} ]; do sleep 0.1; done; echo last")

    async def follow() -> str:
        said = ""
        async for lines in client.tail_job_logs(job):
            said += lines
            if "first" in said and not gate.exists():
                assert client.get_job_status(job) == JobStatus.RUNNING
                gate.touch()
        return said

    said = asyncio.run(asyncio.wait_for(follow(), BOUND_S))
    assert said.index("first\n") < said.index("last\n")
    done(client, job)


def test_the_resources_of_an_entrypoint_are_held_while_it_runs(client: Any) -> None:
    job = client.submit_job(entrypoint="sleep 1000", entrypoint_num_cpus=1.5)
    until(client, job, JobStatus.RUNNING)
    assert ray.available_resources().get("CPU") == 0.5
    waits = client.submit_job(entrypoint="true", entrypoint_num_cpus=1)
    assert client.get_job_status(waits) == JobStatus.PENDING
    client.stop_job(job)
    done(client, waits)


def test_the_words_for_a_status() -> None:
    assert [status.value for status in JobStatus] == ["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
    assert JobStatus("RUNNING") == "RUNNING"
    assert [status.is_terminal() for status in JobStatus] == [False, False, True, True, True]


@pytest.mark.parametrize("bad", [{"address": 1}, {"address": "auto", "metadata": 1}, {"address": "auto", "headers": 1}])
def test_arguments_of_the_client_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must be a"):
        jobs.JobSubmissionClient(**bad)


def test_the_state_api_lists_the_job(client: Any) -> None:
    state = importlib.import_module(f"{ray.__name__}.util.state")
    job = client.submit_job(entrypoint="true")
    done(client, job)
    (found,) = state.list_jobs(filters=[("submission_id", "=", job)])
    assert (found.status, found.type, found.entrypoint) == ("SUCCEEDED", "SUBMISSION", "true")


def test_an_entrypoint_sees_the_gpus_that_it_holds(client: Any) -> None:
    job = client.submit_job(entrypoint="echo devices=$CUDA_VISIBLE_DEVICES.", entrypoint_num_gpus=2)
    done(client, job)
    assert "devices=0,1." in client.get_job_logs(job)


def test_an_entrypoint_runs_on_a_node_with_the_labels_that_it_asks_for(client: Any) -> None:
    (node,) = ray.nodes()
    job = client.submit_job(entrypoint="true", entrypoint_label_selector={"ray.io/node-id": node["NodeID"]})
    done(client, job)


@pytest.mark.differs("stop-of-a-waiting-job")
def test_a_job_that_no_node_can_take_waits_and_can_be_stopped(client: Any) -> None:
    waits = client.submit_job(entrypoint="true", entrypoint_label_selector={"zone": "nowhere"})
    assert client.get_job_status(waits) == JobStatus.PENDING
    client.stop_job(waits)
    until(client, waits, JobStatus.STOPPED)


def test_modules_of_the_environment_can_be_imported_by_the_entrypoint(client: Any, tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "__init__.py").write_text("SIDES = 3\n")
    job = client.submit_job(
        entrypoint="python -c 'import shapes; print(shapes.SIDES)'", runtime_env={"py_modules": [str(tmp_path / "shapes")]}
    )
    done(client, job)
    assert client.get_job_logs(job).endswith("3\n")


def test_a_hook_of_a_submitted_job_is_named_and_no_function(client: Any) -> None:
    with pytest.raises(ValueError, match="Invalid type"):
        client.submit_job(entrypoint="true", runtime_env={"worker_process_setup_hook": print})
