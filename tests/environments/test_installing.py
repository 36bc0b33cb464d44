"""Interpreters: what conda is asked for, and which Pythons are taken. pip and uv are in tests/cluster, with workers in them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from nbray.environments.cache import Cache
from nbray.environments.fetching import SetupFailed
from nbray.environments.installing import install


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cache"))


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


@pytest.fixture
def conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that answers as conda does: it knows one environment, and makes others by a link to this Python. What it was asked
    is in `asked`."""
    known = tmp_path / "envs" / "known" / "bin" / "python"
    known.parent.mkdir(parents=True)
    known.symlink_to(sys.executable)
    asked = tmp_path / "asked"
    place = program(
        tmp_path / "bin" / "conda",
        "import json, os, sys\n"
        f"print(json.dumps(sys.argv[1:]), file=open({str(asked)!r}, 'a'))\n"
        "if sys.argv[2] == 'list':\n"
        f"    print(json.dumps({{'envs': [{str(known.parent.parent)!r}]}}))\n"
        "else:\n"
        "    if 'broken' in open(sys.argv[sys.argv.index('--file') + 1]).read():\n"
        "        sys.exit('ResolvePackageNotFound: broken')\n"
        "    bin = sys.argv[sys.argv.index('--prefix') + 1] + '/bin'\n"
        f"    os.makedirs(bin); os.symlink({sys.executable!r}, bin + '/python')\n",
    )
    monkeypatch.setenv("CONDA_EXE", str(place))
    return asked


def test_a_conda_environment_is_found_by_its_name(cache: Cache, conda: Path, tmp_path: Path) -> None:
    installed = install({"conda": "known"}, cache)
    assert installed.command == [f"{tmp_path}/envs/known/bin/python"]
    with pytest.raises(SetupFailed, match="no conda environment 'other'"):
        install({"conda": "other"}, cache)


def test_a_description_makes_one_environment_however_often_it_is_used(cache: Cache, conda: Path) -> None:
    for _ in range(2):
        installed = install({"conda": {"dependencies": ["python", "numpy"]}}, cache)
        assert installed.held is not None
        installed.held.close()
        assert os.access(installed.command[0], os.X_OK)
    (asked,) = map(json.loads, conda.read_text().splitlines())
    assert asked[:2] == ["env", "create"]


def test_what_conda_says_is_in_the_error(cache: Cache, conda: Path) -> None:
    with pytest.raises(SetupFailed, match="ResolvePackageNotFound: broken"):
        install({"conda": {"yaml": "dependencies: [broken]"}}, cache)
    assert conda.exists()


def test_a_python_of_another_version_is_refused(cache: Cache, tmp_path: Path) -> None:
    program(tmp_path / "old" / "bin" / "python", "print('2.7')")
    with pytest.raises(SetupFailed, match=r"is Python 2\.7, and the cluster runs Python"):
        install({"conda": str(tmp_path / "old")}, cache)


def test_a_command_is_taken_as_a_shell_would(cache: Cache) -> None:
    installed = install({"py_executable": "'/a b/python' -X utf8"}, cache)
    assert installed.command == ["/a b/python", "-X", "utf8"]
