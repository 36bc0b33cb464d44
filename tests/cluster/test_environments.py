"""Runtime environments with real processes: interpreters of their own, packages that travel, edits that arrive."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbray as ray
from nbray import session
from nbray.exceptions import RuntimeEnvSetupError
from tests.cluster.conditions import until
from tests.cluster.test_two_nodes import command


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory on the driver's own path, as that of a notebook is."""
    return tmp_path_factory.mktemp("beside")


@pytest.fixture(scope="module", autouse=True)
def cluster(beside: Path) -> Iterator[None]:
    sys.path.insert(0, str(beside))
    ray.init(num_cpus=2)
    yield
    ray.shutdown()
    sys.path.remove(str(beside))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of one package: tiny 1.0 and 2.0."""
    place = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        with zipfile.ZipFile(place / f"tiny_thing-{version}-py3-none-any.whl", "w") as wheel:
            info = f"tiny_thing-{version}.dist-info"
            wheel.writestr("tiny_thing.py", f"VERSION = {version!r}\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-thing\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    return place


@ray.remote
def tiny() -> tuple[str, str, int]:
    import tiny_thing

    return tiny_thing.VERSION, sys.prefix, os.getpid()


def offline(wheels: Path, *packages: str) -> dict[str, Any]:
    return {"packages": list(packages), "pip_install_options": ["--no-index", "--find-links", str(wheels), "-q"]}


def edit(path: Path, text: str) -> None:
    path.write_text(text)
    assert session.engine is not None
    session.engine.set_default_cell("")  # as the notebook does before each cell


# ----------------------------------------------------------------------------------------------------- interpreters


def test_requirements_are_installed_once_and_their_environments_do_not_mix(wheels: Path) -> None:
    one = tiny.options(runtime_env={"pip": offline(wheels, "tiny-thing==1.0")})
    two = tiny.options(runtime_env={"pip": offline(wheels, "tiny-thing==2.0")})
    first, second = ray.get([one.remote(), two.remote()], timeout=120)
    assert (first[0], second[0]) == ("1.0", "2.0")
    assert first[1] != second[1] != sys.prefix
    again = tiny.options(runtime_env={"pip": offline(wheels, "tiny-thing==1.0"), "env_vars": {"A": "1"}})
    assert ray.get(again.remote(), timeout=120)[:2] == first[:2]
    with pytest.raises(ModuleNotFoundError):
        ray.get(tiny.remote())


def test_an_actor_and_its_children_are_in_the_environment_that_was_installed(wheels: Path) -> None:
    @ray.remote(runtime_env={"pip": offline(wheels, "tiny-thing==2.0")})
    class Versions:
        def own(self) -> str:
            import tiny_thing

            return str(tiny_thing.VERSION)

        def of_a_child(self) -> str:
            return str(ray.get(tiny.remote())[0])

    actor = Versions.remote()
    assert ray.get([actor.own.remote(), actor.of_a_child.remote()], timeout=120) == ["2.0", "2.0"]


def test_an_installed_environment_sees_what_the_driver_has_installed(wheels: Path) -> None:
    @ray.remote(runtime_env={"pip": offline(wheels, "tiny-thing")})
    def array() -> Any:
        import numpy as np

        return np.arange(100_000)

    assert ray.get(array.remote(), timeout=120).sum() == 4999950000


def test_a_requirement_that_does_not_exist_fails_with_the_installers_own_words(wheels: Path) -> None:
    with pytest.raises(RuntimeEnvSetupError, match=r"(?s)pip install no-such-thing.*exit code 1.*No matching distribution found"):
        ray.get(tiny.options(runtime_env={"pip": offline(wheels, "no-such-thing")}).remote(), timeout=120)


def test_an_actor_whose_environment_fails_says_so_at_its_first_call(wheels: Path) -> None:
    @ray.remote(runtime_env={"pip": offline(wheels, "no-such-thing")})
    class Never:
        def call(self) -> None: ...

    actor = Never.remote()
    with pytest.raises(RuntimeEnvSetupError, match="No matching distribution found"):
        ray.get(actor.call.remote(), timeout=120)


def test_an_environment_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    source = tmp_path / "slow"
    source.mkdir()
    (source / "setup.py").write_text("import os, select\nopen('begun', 'w').close()\nselect.select([], [], [], 600)\n")
    env = {
        "pip": {"packages": [str(source)], "pip_install_options": ["--no-index", "--no-build-isolation"]},
        "config": {"setup_timeout_seconds": 2},
    }
    with pytest.raises(RuntimeEnvSetupError, match="setup_timeout_seconds=2"):
        ray.get(tiny.options(runtime_env=env).remote(), timeout=120)


def test_uv_installs_as_pip_does(wheels: Path) -> None:
    options = ["--no-index", "--find-links", str(wheels), "--no-cache", "--offline"]
    env = {"uv": {"packages": ["tiny-thing==2.0"], "uv_pip_install_options": options}}
    assert ray.get(tiny.options(runtime_env=env).remote(), timeout=120)[0] == "2.0"


@pytest.mark.skipif(shutil.which("conda") is not None, reason="conda is here")
def test_a_node_without_conda_says_so() -> None:
    with pytest.raises(RuntimeEnvSetupError, match="conda is not installed on this node"):
        ray.get(tiny.options(runtime_env={"conda": "anything"}).remote(), timeout=60)


def test_a_conda_environment_by_directory_is_an_interpreter_of_its_own() -> None:
    @ray.remote(runtime_env={"conda": sys.prefix})
    def where() -> str:
        return sys.prefix

    assert ray.get(where.remote(), timeout=60) == sys.prefix


def test_an_interpreter_that_is_none_fails_its_tasks_and_nobody_elses() -> None:
    @ray.remote
    def fine() -> int:
        return 1

    with pytest.raises(RuntimeEnvSetupError, match=r"(?s)`/bin/false` was no worker that could take a task"):
        ray.get(fine.options(runtime_env={"py_executable": "/bin/false"}).remote(), timeout=60)
    assert ray.get(fine.remote(), timeout=60) == 1


# ----------------------------------------------------------------------------------------------------- packages and hooks


def test_a_working_directory_of_a_task_is_a_directory_or_a_zip(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "data.txt").write_text("text")

    @ray.remote
    def read() -> str:
        return Path("data.txt").read_text()

    assert ray.get(read.options(runtime_env={"working_dir": str(own)}).remote()) == "text"
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", own)
    assert ray.get(read.options(runtime_env={"working_dir": packed}).remote()) == "text"
    assert ray.get(read.options(runtime_env={"working_dir": f"file://{packed}"}).remote()) == "text"


def test_a_working_directory_that_is_edited_is_sent_again(tmp_path: Path) -> None:
    (tmp_path / "edited_in_directory.py").write_text("VALUE = 1\n")

    @ray.remote(runtime_env={"working_dir": str(tmp_path)})
    def value() -> int:
        import edited_in_directory

        return int(edited_in_directory.VALUE)

    assert ray.get(value.remote()) == 1
    edit(tmp_path / "edited_in_directory.py", "VALUE = 2\n")
    assert ray.get(value.remote()) == 2


def test_a_wheel_and_a_single_file_are_py_modules(tmp_path: Path, wheels: Path) -> None:
    (tmp_path / "one_file.py").write_text("VALUE = 'file'\n")

    @ray.remote(runtime_env={"py_modules": [str(tmp_path / "one_file.py"), str(wheels / "tiny_thing-1.0-py3-none-any.whl")]})
    def values() -> tuple[str, str]:
        import one_file
        import tiny_thing

        return one_file.VALUE, tiny_thing.VERSION

    assert ray.get(values.remote()) == ("file", "1.0")


def test_the_state_api_lists_environments_and_why_one_failed(wheels: Path) -> None:
    from nbray.util.state import list_runtime_envs

    env = {"pip": offline(wheels, "no-such-thing-either")}
    with pytest.raises(RuntimeEnvSetupError):
        ray.get(tiny.options(runtime_env=env).remote(), timeout=120)
    failed = [each for each in list_runtime_envs(detail=True) if not each.success]
    assert any("no-such-thing-either" in str(each.runtime_env) and "No matching" in str(each.error) for each in failed)


def test_a_job_whose_directory_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(os.urandom(100_000))
    script = f"import nbray as ray\nray.init(runtime_env={{'working_dir': {str(tmp_path)!r}}})"
    environment = {**os.environ, "NBRAY_PACKAGE_BYTES": "50000"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 1
    assert "exceeds the maximum size" in done.stderr
    assert "large.bin" in done.stderr


def test_a_package_that_is_gone_or_missing_is_said_where_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a valid path"):
        tiny.options(runtime_env={"working_dir": str(tmp_path / "nothing")})
    with pytest.raises(RuntimeEnvSetupError, match="neither on this node nor at the head"):
        ray.get(tiny.options(runtime_env={"working_dir": "gcs://_ray_pkg_0123.zip"}).remote(), timeout=60)


def test_a_hook_can_be_named_and_one_that_raises_fails_every_task(beside: Path) -> None:
    (beside / "hooks_beside.py").write_text(
        "import os\ndef good(): os.environ['GOOD'] = '1'\ndef bad(): raise OSError('no disk')\n"
    )

    @ray.remote
    def seen() -> str | None:
        return os.environ.get("GOOD")

    assert ray.get(seen.options(runtime_env={"worker_process_setup_hook": "hooks_beside.good"}).remote()) == "1"
    bad = seen.options(runtime_env={"worker_process_setup_hook": "hooks_beside.bad"})
    for ref in [bad.remote() for _ in range(3)]:
        with pytest.raises(RuntimeEnvSetupError, match=r"(?s)Failed to execute the setup hook.*no disk"):
            ray.get(ref)


def test_a_hook_that_raises_fails_an_actor() -> None:
    def hook() -> None:
        raise OSError("no disk")

    @ray.remote(runtime_env={"worker_process_setup_hook": hook})
    class Never:
        def call(self) -> None: ...

    with pytest.raises(RuntimeEnvSetupError, match="no disk"):
        ray.get(Never.remote().call.remote(), timeout=60)


# ----------------------------------------------------------------------------------------------------- edits


def test_modules_beside_the_driver_that_are_edited_reach_the_next_call(beside: Path) -> None:
    (beside / "edited_outer.py").write_text("import edited_inner\ndef both(): return 'a', edited_inner.one()\n")
    (beside / "edited_inner.py").write_text("def one(): return 1\n")

    @ray.remote
    def call() -> tuple[str, int]:
        import edited_outer

        return edited_outer.both()

    assert ray.get(call.remote()) == ("a", 1)
    # The same length, within the same second: bytecode would be taken for fresh.
    edit(beside / "edited_inner.py", "def one(): return 2\n")
    assert ray.get(call.remote()) == ("a", 2)
    edit(beside / "edited_outer.py", "import edited_inner\ndef both(): return 'b', edited_inner.one()\n")
    assert ray.get([call.remote() for _ in range(4)]) == [("b", 2)] * 4


def test_a_script_sees_edits_without_cells(beside: Path) -> None:
    (beside / "edited_by_script.py").write_text("VALUE = 1\n")

    @ray.remote
    def value() -> int:
        import edited_by_script

        return int(edited_by_script.VALUE)

    assert ray.get(value.remote()) == 1
    (beside / "edited_by_script.py").write_text("VALUE = 2\n")
    until(lambda: ray.get(value.remote()) == 2, "the edit reaches a task")


def test_a_module_that_is_edited_while_a_task_has_it_is_not_taken_for_what_the_task_has(beside: Path) -> None:
    path = beside / "edited_meanwhile.py"
    path.write_text("VALUE = 1\n")
    os.utime(path, (0, 0))

    @ray.remote
    def value(then: str | None) -> int:
        import edited_meanwhile

        if then is not None:
            path.write_text(then)
        return int(edited_meanwhile.VALUE)

    assert ray.get(value.remote("VALUE = 2\n")) == 1
    until(lambda: ray.get(value.remote(None)) == 2, "the edit reaches a task")


def test_a_file_that_is_replaced_by_one_of_the_same_time_and_size_is_seen(beside: Path) -> None:
    path, other = beside / "replaced.py", beside / "other.txt"
    for place, text in ((path, "VALUE = 1\n"), (other, "VALUE = 2\n")):
        place.write_text(text)
        os.utime(place, (10**9, 10**9))

    @ray.remote
    def value() -> int:
        import replaced

        return int(replaced.VALUE)

    assert ray.get(value.remote()) == 1
    os.replace(other, path)
    session.engine.set_default_cell("")  # type: ignore[union-attr]
    assert ray.get(value.remote()) == 2


def test_new_actors_have_the_edit_and_old_ones_keep_what_they_are(beside: Path) -> None:
    (beside / "edited_class.py").write_text("class Thing:\n    def value(self): return 1\n")
    import edited_class  # type: ignore[import-not-found]

    remote = ray.remote(edited_class.Thing)
    old = remote.remote()
    assert ray.get(old.value.remote()) == 1
    edit(beside / "edited_class.py", "class Thing:\n    def value(self): return 2\n")
    assert ray.get(remote.remote().value.remote()) == 2
    assert ray.get(old.value.remote()) == 1


def test_children_of_a_task_see_what_their_parent_sees(beside: Path) -> None:
    (beside / "edited_for_children.py").write_text("VALUE = 1\n")

    @ray.remote
    def child() -> int:
        import edited_for_children

        return int(edited_for_children.VALUE)

    @ray.remote
    def parent() -> list[int]:
        return ray.get([child.remote(), child.options(num_cpus=0.5).remote()])

    assert ray.get(parent.remote()) == [1, 1]
    edit(beside / "edited_for_children.py", "VALUE = 2\n")
    assert ray.get(parent.remote()) == [2, 2]


def test_nothing_is_looked_at_while_tasks_import_nothing_of_the_drivers() -> None:
    script = "import nbray as ray, json\nray.init(num_cpus=1)\n"
    script += "f = ray.remote(lambda: len(json.dumps({})))\nray.get([f.remote() for _ in range(10)])\n"
    script += "from nbray import session\nprint(session.engine.environments.look_due)\nray.shutdown()\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "None"


def test_a_cell_that_changes_the_path_or_the_directory_changes_it_for_the_next_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "found_later.py").write_text("VALUE = 1\n")

    @ray.remote
    def value() -> tuple[int, str]:
        import found_later

        return int(found_later.VALUE), os.getcwd()

    assert session.engine is not None
    with pytest.raises(ModuleNotFoundError):
        ray.get(value.remote())
    monkeypatch.syspath_prepend(tmp_path)
    session.engine.set_default_cell("")
    assert ray.get(value.remote())[0] == 1
    monkeypatch.chdir(tmp_path)
    session.engine.set_default_cell("")
    assert ray.get(value.remote()) == (1, str(tmp_path))


# ----------------------------------------------------------------------------------------------------- other nodes

FAR = """
import os, sys
import nbray as ray

ray.init(address=sys.argv[1], runtime_env={"working_dir": sys.argv[2]})

@ray.remote(resources={"alice": 1})
def read():
    return open("data.txt").read(), len(open("large.bin", "rb").read())

print(ray.get(read.remote(), timeout=60))
"""


def test_a_node_that_has_no_copy_fetches_the_package_from_the_head(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "data.txt").write_text("far")
    (work / "large.bin").write_bytes(os.urandom(9_000_000))
    caches = {name: {"NBRAY_ENVIRONMENT_CACHE": str(tmp_path / name)} for name in ("head", "node", "driver")}
    said = command("start", "--head", "--port", "0", "--num-cpus", "1", **caches["head"])
    try:
        address, token = re.search(r"at (\S+) \(pid", said), re.search(r"NBRAY_TOKEN=(\S+)", said)
        assert address
        assert token
        command(
            "start",
            "--address",
            address[1],
            "--num-cpus",
            "1",
            "--resources",
            '{"alice": 1}',
            NBRAY_TOKEN=token[1],
            **caches["node"],
        )
        done = subprocess.run(
            [sys.executable, "-c", FAR, address[1], str(work)],
            env={**os.environ, **caches["driver"]}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "('far', 9000000)" in done.stdout
    finally:
        command("stop")
