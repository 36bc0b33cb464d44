"""Submitted jobs in runtime environments: their command lines run in them, wherever they run, and say why they cannot."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbray.job_submission import JobStatus, JobSubmissionClient
from nbray.job_submission.records import JobErrorType
from tests.cluster.conditions import until
from tests.cluster.test_two_nodes import command

BOUND_S = 120


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A head with two CPUs and two GPUs that nobody has, and a node of another zone with a runtime root of its own."""
    place = tmp_path_factory.mktemp("c")
    os.chmod(place, 0o700)
    mine = pytest.MonkeyPatch()
    mine.setenv("XDG_RUNTIME_DIR", str(place))
    mine.setenv("NBRAY_ENVIRONMENT_CACHE", str(place / "cache"))
    mine.delenv("NBRAY_ADDRESS", raising=False)
    command("start", "--head", "--port", "0", "--num-cpus", "2", "--num-gpus", "2")
    address = next((place / "nbray" / "connections").glob("*.json"))
    mine.setenv("NBRAY_ENVIRONMENT_CACHE", str(place / "other-cache"))
    command("start", "--address", str(address), "--num-cpus", "1", "--labels", "zone=far")
    mine.setenv("NBRAY_ENVIRONMENT_CACHE", str(place / "cache"))
    yield
    command("stop")
    mine.undo()


@pytest.fixture(scope="module")
def client(cluster: None) -> Iterator[JobSubmissionClient]:
    made = JobSubmissionClient()
    until(lambda: sum(node["alive"] for node in made._ask("nodes")) == 2, "both nodes are there", within_s=60)
    yield made
    made.close()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheels")
    with zipfile.ZipFile(place / "tiny_thing-1.0-py3-none-any.whl", "w") as wheel:
        info = "tiny_thing-1.0.dist-info"
        wheel.writestr("tiny_thing.py", "VERSION = '1.0'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return place


def pip(wheels: Path, package: str) -> dict[str, Any]:
    return {"packages": [package], "pip_install_options": ["--no-index", "--find-links", str(wheels), "-q"]}


def finished(client: JobSubmissionClient, **job: Any) -> str:
    """The log of the job, which has succeeded."""
    name = client.submit_job(**job)
    status = client.wait_job(name, BOUND_S)
    log = client.get_job_logs(name)
    assert status == JobStatus.SUCCEEDED, f"{client.get_job_info(name).message}\n{log}"
    return log


PROGRAM = """
import json, sys
import nbray, shapes, tiny_thing

nbray.init(log_to_driver=False)

@nbray.remote
def there():
    import shapes, tiny_thing
    return [shapes.SIDES, tiny_thing.VERSION, sys.prefix]

print(json.dumps([[shapes.SIDES, tiny_thing.VERSION, sys.prefix], nbray.get(there.remote())]))
"""


def test_the_entrypoint_and_its_tasks_are_in_the_environment_that_was_installed(
    client: JobSubmissionClient, wheels: Path, tmp_path: Path
) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "__init__.py").write_text("SIDES = 3\n")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "program.py").write_text(PROGRAM)
    env = {"pip": pip(wheels, "tiny-thing"), "py_modules": [str(tmp_path / "shapes")], "working_dir": str(tmp_path / "dir")}
    here, there = json.loads(finished(client, entrypoint="python program.py", runtime_env=env).splitlines()[-1])
    assert here == there
    assert here[:2] == [3, "1.0"]
    assert here[2] != sys.prefix
    assert env["pip"]["packages"] == ["tiny-thing"], "what the caller gave is the caller's"


def test_a_job_on_another_node_runs_in_a_copy_of_its_directory(client: JobSubmissionClient, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("what it needs\n")
    (tmp_path / "left.log").write_text("not wanted\n")
    log = finished(
        client,
        entrypoint="cat data.txt; ls; pwd",
        runtime_env={"working_dir": str(tmp_path), "excludes": ["*.log"]},
        entrypoint_label_selector={"zone": "far"},
    )
    assert log.startswith("what it needs\n")
    assert "left.log" not in log
    assert str(tmp_path) not in log
    assert "what it needs" in finished(client, entrypoint="cat data.txt", runtime_env={"working_dir": str(tmp_path)})


def test_an_environment_that_cannot_be_made_fails_the_job_with_the_installers_own_words(
    client: JobSubmissionClient, wheels: Path
) -> None:
    job = client.submit_job(entrypoint="echo never", runtime_env={"pip": pip(wheels, "no-such-thing")})
    followed = "".join(client.follow_job_logs(job))
    info = client.get_job_info(job)
    assert (info.status, info.error_type) == (JobStatus.FAILED, JobErrorType.RUNTIME_ENV_SETUP_FAILURE)
    assert (info.message or "").startswith("runtime_env setup failed: ")
    for said in (info.message or "", client.get_job_logs(job), followed):
        assert "No matching distribution found for no-such-thing" in said


def test_an_environment_that_is_still_being_made_is_given_up_with_its_job(client: JobSubmissionClient, tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    fake = tmp_path / "slow" / "setup.py"
    fake.write_text(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(1000)\n")
    slow = {"packages": [str(tmp_path / "slow")], "pip_install_options": ["--no-index", "--no-build-isolation", "-q"]}
    job = client.submit_job(entrypoint="true", runtime_env={"pip": slow})
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"), "it installs", within_s=60)
    assert "being made: pip install" in (client.get_job_info(job).message or "")
    assert client.stop_job(job)
    assert client.wait_job(job, 30) == JobStatus.STOPPED
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the installer is gone", within_s=30)


def test_an_entrypoint_sees_the_devices_that_it_holds(client: JobSubmissionClient) -> None:
    assert finished(client, entrypoint="echo seen=$CUDA_VISIBLE_DEVICES.", entrypoint_num_gpus=2) == "seen=0,1.\n"
    assert finished(client, entrypoint="echo seen=$CUDA_VISIBLE_DEVICES.") == "seen=.\n"


def test_a_setup_hook_of_a_submitted_job_is_named(client: JobSubmissionClient) -> None:
    with pytest.raises(ValueError, match="Invalid type"):
        client.submit_job(entrypoint="true", runtime_env={"worker_process_setup_hook": print})


def test_the_command_line_takes_labels_and_memory(client: JobSubmissionClient) -> None:
    said = command(
        "job", "submit", "--entrypoint-label-selector", '{"zone": "far"}', "--entrypoint-memory", "1000000", "--", "echo hi"
    )
    assert "hi\n" in said
    assert "succeeded" in said
