"""What may be written in a runtime environment, beyond what Ray's own rows say (tests/conformance/test_environments.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbray.runtime_env import RuntimeEnv, RuntimeEnvConfig, checked
from nbray.wire import environment


def test_a_module_is_taken_by_its_directory_or_file() -> None:
    import json.decoder

    import nbray

    env = RuntimeEnv(py_modules=[nbray, json.decoder])
    assert env.py_modules() == [str(Path(nbray.__file__).parent), json.decoder.__file__]


def test_paths_are_made_absolute_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    assert RuntimeEnv(working_dir="work")["working_dir"] == str(tmp_path / "work")


@pytest.mark.parametrize(
    ("env", "error", "said"),
    [
        ({"pips": ["a"]}, ValueError, "no field 'pips'.* pip,"),
        ({"container": {}}, NotImplementedError, "start nodes inside of containers"),
        ({"working_dir": "s3://bucket/x.zip"}, NotImplementedError, "https://"),
        ({"working_dir": "https://host/x.tar"}, ValueError, "only .zip"),
        ({"working_dir": __file__}, ValueError, "must be a directory or a .zip file"),
        ({"worker_process_setup_hook": 3}, TypeError, "must be a function"),
        ({"worker_process_setup_hook": "function"}, ValueError, "module.function"),
        ({"py_executable": "python", "pip": ["a"]}, ValueError, "cannot be specified at the same time"),
        ({"config": {"timeout": 3}}, ValueError, "setup_timeout_seconds"),
        ({"pip": [1]}, TypeError, "pip"),
    ],
)
def test_a_mistake_is_said_where_it_is_written(env: dict[str, object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        RuntimeEnv(**env)


def test_a_config_class_and_a_dict_are_the_same() -> None:
    one = checked({"env_vars": {"A": "1"}, "config": RuntimeEnvConfig(setup_timeout_seconds=7)})
    other = checked({"env_vars": {"A": "1"}, "config": {"setup_timeout_seconds": 7}})
    assert one == other
    assert environment.timeout_of(environment.canonical(one)) == 7


def test_what_installs_inside_replaces_what_installs_outside() -> None:
    base = environment.canonical(checked({"pip": ["a"], "env_vars": {"A": "1"}}))
    own = environment.canonical(checked({"uv": ["b"], "env_vars": {"B": "2"}}))
    merged = environment.parsed(environment.merged(base, own))
    assert set(merged) == {"uv", "env_vars"}
    assert merged["env_vars"] == {"A": "1", "B": "2"}


def test_a_hook_by_name_replaces_one_by_value() -> None:
    base = environment.canonical(checked({"worker_process_setup_hook": lambda: None}))
    own = environment.canonical(checked({"worker_process_setup_hook": "module.function"}))
    assert json.loads(environment.merged(base, own)) == {"worker_process_setup_hook": "module.function"}


def test_variables_and_generations_need_nothing_made() -> None:
    assert environment.setup_of('{"_generation":3,"config":{},"env_vars":{"A":"1"}}') == ""
    assert environment.setup_of("") == ""
