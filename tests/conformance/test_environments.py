"""Runtime environments, as Ray documents them: job level, task level, what is inherited, what is refused."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.subject import ray


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__dot__", ".")).write_text(text)
    return directory


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A job with an environment of its own: a working directory, a module, variables, a hook."""
    job = write(tmp_path_factory.mktemp("job"), data__dot__txt="of the job", job_module__dot__py="VALUE = 'job'\n")
    write(job, __dot__gitignore="*.secret\n", left__dot__secret="x", out__dot__big="x")
    module = write(tmp_path_factory.mktemp("modules") / "job_package", __init____dot__py="VALUE = 'package'\n")

    def hook() -> None:
        os.environ["HOOK_RAN"] = str(int(os.environ.get("HOOK_RAN", "0")) + 1)

    ray.init(
        num_cpus=2,
        runtime_env={
            "working_dir": str(job),
            "excludes": ["*.big"],
            "py_modules": [str(module)],
            "env_vars": {"OF_JOB": "job", "OVERRIDDEN": "job"},
            "worker_process_setup_hook": hook,
        },
    )
    yield
    ray.shutdown()


def test_the_working_directory_of_the_job_is_where_its_tasks_run() -> None:
    @ray.remote
    def read() -> tuple[str, str]:
        import job_module

        return Path("data.txt").read_text(), job_module.VALUE

    assert ray.get(read.remote()) == ("of the job", "job")


def test_what_is_excluded_or_ignored_does_not_travel() -> None:
    @ray.remote
    def listed() -> list[str]:
        return sorted(name for name in os.listdir() if name.endswith((".txt", ".secret", ".big")))

    assert ray.get(listed.remote()) == ["data.txt"]


def test_a_py_module_keeps_the_name_of_its_directory() -> None:
    @ray.remote
    def value() -> str:
        import job_package

        return job_package.VALUE

    assert ray.get(value.remote()) == "package"


def test_the_hook_ran_once_in_the_worker_before_its_first_task() -> None:
    @ray.remote
    def ran() -> str | None:
        return os.environ.get("HOOK_RAN")

    assert set(ray.get([ran.remote() for _ in range(4)])) == {"1"}


def test_actors_live_in_the_environment_of_their_job() -> None:
    @ray.remote
    class Reader:
        def __init__(self) -> None:
            import job_module

            self.value = job_module.VALUE

        def read(self) -> tuple[str, str, str | None]:
            return self.value, Path("data.txt").read_text(), os.environ.get("HOOK_RAN")

    assert ray.get(Reader.remote().read.remote()) == ("job", "of the job", "1")


def test_variables_of_a_task_are_merged_one_by_one_over_those_of_the_job() -> None:
    @ray.remote(runtime_env={"env_vars": {"OVERRIDDEN": "task", "OF_TASK": "task"}})
    def variables() -> list[str | None]:
        return [os.environ.get(name) for name in ("OF_JOB", "OVERRIDDEN", "OF_TASK")]

    assert ray.get(variables.remote()) == ["job", "task", "task"]


def test_a_child_inherits_the_environment_of_its_parent() -> None:
    @ray.remote
    def child() -> list[str | None]:
        return [os.environ.get(name) for name in ("OVERRIDDEN", "OF_PARENT")]

    @ray.remote(runtime_env={"env_vars": {"OVERRIDDEN": "parent", "OF_PARENT": "parent"}})
    def parent() -> list[str | None]:
        return ray.get(child.remote())

    assert ray.get(parent.remote()) == ["parent", "parent"]


def test_a_task_without_an_environment_does_not_see_that_of_another() -> None:
    @ray.remote
    def seen() -> str | None:
        return os.environ.get("OF_ANOTHER")

    assert ray.get(seen.options(runtime_env={"env_vars": {"OF_ANOTHER": "1"}}).remote()) == "1"
    assert ray.get([seen.remote() for _ in range(4)]) == [None] * 4


def test_a_variable_can_refer_to_what_was_there_before() -> None:
    @ray.remote(runtime_env={"env_vars": {"PATH": "/first:${PATH}"}})
    def path() -> str:
        return os.environ["PATH"]

    first, _, rest = ray.get(path.remote()).partition(":")
    assert first == "/first"
    assert rest


def test_the_context_knows_the_environment() -> None:
    @ray.remote(runtime_env={"env_vars": {"OF_TASK": "task"}})
    def told() -> tuple[dict[str, str], str]:
        context = ray.get_runtime_context()
        return dict(context.runtime_env["env_vars"]), context.get_runtime_env_string()

    variables, text = ray.get(told.remote())
    assert variables["OF_TASK"] == "task"
    assert variables["OF_JOB"] == "job"
    assert json.loads(text)["env_vars"]["OF_TASK"] == "task"
    assert ray.get_runtime_context().runtime_env["env_vars"]["OF_JOB"] == "job"


def test_the_interpreter_can_be_named() -> None:
    @ray.remote(runtime_env={"py_executable": f"{sys.executable} -X importtime=0 -X utf8"})
    def utf8() -> int:
        return sys.flags.utf8_mode

    assert ray.get(utf8.remote()) == 1


@pytest.mark.parametrize(
    ("env", "error", "said"),
    [
        ({"pip": ["a"], "conda": "b"}, ValueError, "cannot be specified at the same time"),
        ({"pip": ["a"], "uv": ["b"]}, ValueError, "cannot be specified at the same time"),
        ({"env_vars": {"A": 1}}, TypeError, r"Dict\[str, str\]"),
        ({"env_vars": ["A"]}, TypeError, r"Dict\[str, str\]"),
        ({"excludes": "a"}, TypeError, r"List\[str\]"),
        ({"working_dir": 1}, TypeError, "`working_dir` must be a string"),
        ({"py_modules": "a"}, TypeError, "`py_modules` must be a list"),
        ({"pip": 1}, TypeError, r"runtime_env\['pip'\] must be of type"),
        ({"pip": {"pip_check": True}}, ValueError, "must include field 'packages'"),
        ({"pip": {"packages": ["a"], "other": 1}}, ValueError, "can only have these fields"),
        ({"pip": {"packages": ["a"], "pip_check": 1}}, TypeError, "pip_check"),
        ({"uv": {"packages": ["a"], "uv_version": 1}}, TypeError, "uv_version"),
        ({"conda": 1}, TypeError, r"runtime_env\['conda'\] must be of type"),
        ({"conda": "nothing.yaml"}, ValueError, "Can't find conda YAML file"),
        ({"pip": "nothing.txt"}, ValueError, "is not a valid file"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(env: dict[str, object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        ray.runtime_env.RuntimeEnv(**env)


def test_the_class_is_a_dict_with_questions(tmp_path: Path) -> None:
    requirements = write(tmp_path, requirements__dot__txt="one\ntwo==2\n") / "requirements.txt"
    env = ray.runtime_env.RuntimeEnv(pip=str(requirements), env_vars={"A": "1"})
    assert env.has_pip()
    assert env["pip"]["packages"] == ["one", "two==2"]
    assert env.env_vars() == {"A": "1"}
    assert ray.runtime_env.RuntimeEnv.deserialize(env.serialize()).to_dict()["env_vars"] == {"A": "1"}


@pytest.mark.parametrize(("config", "error"), [({"setup_timeout_seconds": 0}, ValueError), ({"eager_install": "yes"}, TypeError)])
def test_a_config_is_checked(config: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        ray.runtime_env.RuntimeEnvConfig(**config)


def test_a_config_has_rays_defaults() -> None:
    config = ray.runtime_env.RuntimeEnvConfig()
    assert (config["setup_timeout_seconds"], config["eager_install"]) == (600, True)
