"""What the command line of a submitted job finds around it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from nbray.node.records import StartEntrypoint
from nbray.node.surroundings import directory_of, variables_of
from nbray.wire.environment import place_name
from nbray.wire.messages import RunEntrypoint

PACKAGE, MODULE = "gcs://_ray_pkg_1.zip", "gcs://_ray_pkg_2.zip"


def order(
    env: dict[str, Any] | None = None, interpreter: str = "", devices: list[int] | None = None, **more: Any
) -> StartEntrypoint:
    said = RunEntrypoint("j", "true", {}, more.pop("variables", {}), env=json.dumps(env) if env else "", **more)
    return StartEntrypoint(said, interpreter, devices or [])


def around(start: StartEntrypoint, **ours: str) -> dict[str, str]:
    return variables_of(start, "/run/node", "/places", {"PATH": "/usr/bin", **ours})


HERE = os.path.dirname(sys.executable)


def test_python_is_the_one_that_runs_the_cluster_unless_the_environment_has_its_own() -> None:
    assert around(order())["PATH"] == f"{HERE}:/usr/bin"
    own = around(order({"pip": {"packages": ["x"]}}, "/env/bin/python"), PYTHONHOME="/elsewhere")
    assert own["PATH"] == f"/env/bin:{HERE}:/usr/bin"
    assert own["VIRTUAL_ENV"] == "/env"
    assert "PYTHONHOME" not in own
    assert around(order({"conda": "c"}, "/c/bin/python"))["CONDA_PREFIX"] == "/c"


def test_a_command_that_is_no_path_leaves_python_what_it_is() -> None:
    assert around(order({"py_executable": "nsys profile python"}, "nsys profile python"))["PATH"] == f"{HERE}:/usr/bin"


def test_packages_come_first_on_the_path_of_modules_and_the_directory_is_the_working_dir() -> None:
    start = order({"working_dir": PACKAGE, "py_modules": [MODULE]})
    packages = [f"/places/{place_name(uri)}" for uri in (PACKAGE, MODULE)]
    assert around(start, PYTHONPATH="/mine")["PYTHONPATH"] == ":".join([*packages, "/mine"])
    assert directory_of(start, "/places") == packages[0]
    assert directory_of(order(directory="/data"), "/places") == "/data"
    assert around(order(modules=["/data"]))["PYTHONPATH"] == "/data"
    assert "PYTHONPATH" not in around(order())


@pytest.mark.parametrize(("visible", "seen"), [(None, "0,2"), ("5,6,7", "5,7"), ("5", "5,2")])
def test_devices_have_the_names_that_the_daemon_knows_them_by(visible: str | None, seen: str) -> None:
    ours = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert around(order(devices=[0, 2]), **ours)["CUDA_VISIBLE_DEVICES"] == seen
    assert around(order(), **ours).get("CUDA_VISIBLE_DEVICES") == visible


def test_the_jobs_own_variables_win_and_may_name_what_was_there() -> None:
    own = around(order(variables={"PATH": "/mine:${PATH}", "A": "1"}), A="0", NBRAY_TOKEN="secret")
    assert own["PATH"] == f"/mine:{HERE}:/usr/bin"
    assert own["A"] == "1"
    assert own["NBRAY_ADDRESS"] == "/run/node"
    assert "NBRAY_TOKEN" not in own
