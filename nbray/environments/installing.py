"""Interpreters of their own: one per set of requirements, made once per machine and user, and then only used.

    pip, uv          a virtual environment that sees what this interpreter sees, and before that what was installed into it
    conda            an environment of conda's, by name or made from its description
    py_executable    whatever command the user names

Each is a command that starts Python. A worker is then `<command> fresh.py`, which finds nbray where this interpreter has it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import site
import subprocess
import sys
import venv
from typing import Any

from nbray.environments.cache import Cache, Held
from nbray.environments.fetching import SetupFailed
from nbray.node.parentage import die_with_parent

TAIL_CHARACTERS = 8000  #: of what an installer said
PIP_OPTIONS = ["--disable-pip-version-check", "--no-cache-dir"]
UV_OPTIONS = ["--no-cache"]
PARENT_FILE = "nbray_parent.pth"


class Installed:
    """An interpreter: the command that starts it, and the use of what it is made of (None for what is not ours)."""

    def __init__(self, command: list[str], held: Held | None) -> None:
        self.command = command
        self.held = held


def install(setup: dict[str, Any], cache: Cache) -> Installed:
    """The interpreter for `setup`, which names one. Raises SetupFailed with the installer's own words."""
    if "pip" in setup:
        return _environment("pip", setup["pip"], cache)
    if "uv" in setup:
        return _environment("uv", setup["uv"], cache)
    if "conda" in setup:
        return _conda(setup["conda"], cache)
    return Installed(shlex.split(setup["py_executable"]), None)


def _name(kind: str, wanted: Any) -> str:
    said = json.dumps([wanted, sys.version, sys.prefix], sort_keys=True)
    return f"{kind}-{hashlib.blake2b(said.encode(), digest_size=12).hexdigest()}"


# ----------------------------------------------------------------------------------------------------- pip and uv


def _environment(kind: str, wanted: dict[str, Any], cache: Cache) -> Installed:
    held = cache.hold(_name(kind, wanted), lambda directory: _fill(kind, wanted, directory))
    return Installed([f"{held.path}/bin/python"], held)


def _fill(kind: str, wanted: dict[str, Any], directory: str) -> None:
    venv.EnvBuilder(symlinks=True, with_pip=False).create(directory)
    python = f"{directory}/bin/python"
    library = _run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], directory).strip()
    # What this interpreter sees comes after what is installed here: also when it is a virtual environment itself, which
    # --system-site-packages would pass over.
    with open(f"{library}/{PARENT_FILE}", "w", encoding="utf-8") as file:
        file.writelines(f"import site; site.addsitedir({parent!r})\n" for parent in parents())
    listed = f"{directory}/requirements.txt"
    with open(listed, "w", encoding="utf-8") as file:
        file.write("\n".join(wanted["packages"]) + "\n")
    if kind == "pip":
        _pip(wanted, python, listed, directory)
    else:
        _uv(wanted, python, listed, directory)


def parents() -> list[str]:
    """Where this interpreter finds what is installed."""
    return [path for path in [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])] if path]


def _pip_command(python: str) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        _run([python, "-m", "ensurepip", "--upgrade"], None)
        return [python, "-m", "pip"]
    return [sys.executable, "-m", "pip", "--python", python]


def _pip(wanted: dict[str, Any], python: str, listed: str, directory: str) -> None:
    pip = _pip_command(python)
    options = wanted.get("pip_install_options", PIP_OPTIONS)
    if wanted.get("pip_version"):
        _run([*pip, "install", *options, f"pip{wanted['pip_version']}"], directory)
        pip = [python, "-m", "pip"]
    _run([*pip, "install", *options, "-r", listed], directory)
    if wanted.get("pip_check"):
        _run([*pip, "check"], directory)


def _uv(wanted: dict[str, Any], python: str, listed: str, directory: str) -> None:
    uv = _uv_command(wanted.get("uv_version"), python, directory)
    _run([*uv, "pip", "install", "--python", python, *wanted.get("uv_pip_install_options", UV_OPTIONS), "-r", listed], directory)
    if wanted.get("uv_check"):
        _run([*uv, "pip", "check", "--python", python], directory)


def _uv_command(version: str | None, python: str, directory: str) -> list[str]:
    """A uv of the version that is asked for, else the one that is here."""
    program = shutil.which("uv")
    if version is None and program is not None:
        return [program]
    if version is None and importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    try:
        _run([*_pip_command(python), "install", *PIP_OPTIONS, f"uv{version or ''}"], directory)
    except SetupFailed as failure:
        raise SetupFailed(f"uv{version or ''} is not on this node, and could not be installed. {failure}") from None
    return [python, "-m", "uv"]


# ----------------------------------------------------------------------------------------------------- conda


def _conda(wanted: str | dict[str, Any], cache: Cache) -> Installed:
    conda = os.environ.get("CONDA_EXE") or shutil.which("conda") or shutil.which("mamba") or shutil.which("micromamba")
    if isinstance(wanted, str) and os.path.isabs(wanted):
        return _checked(Installed([f"{wanted}/bin/python"], None))
    if conda is None:
        raise SetupFailed(
            f"runtime_env['conda'] = {wanted!r}: conda is not installed on this node ({os.uname().nodename}): there is no conda, "
            "mamba or micromamba in PATH, and CONDA_EXE is not set. Install one of them there, or use pip or uv."
        )
    if isinstance(wanted, str):
        known = json.loads(_run([conda, "env", "list", "--json"], None))["envs"]
        places = [place for place in known if os.path.basename(place) == wanted]
        if not places:
            raise SetupFailed(f"there is no conda environment {wanted!r} on this node ({os.uname().nodename}); it has {known}")
        return _checked(Installed([f"{places[0]}/bin/python"], None))
    held = cache.hold(_name("conda", wanted), lambda directory: _conda_create(conda, wanted, directory))
    return _checked(Installed([f"{held.path}/env/bin/python"], held))


def _conda_create(conda: str, wanted: dict[str, Any], directory: str) -> None:
    described = f"{directory}/environment.yml"
    with open(described, "w", encoding="utf-8") as file:
        # JSON is YAML.
        file.write(wanted["yaml"] if set(wanted) == {"yaml"} else json.dumps(wanted))
    _run([conda, "env", "create", "--yes", "--prefix", f"{directory}/env", "--file", described], directory)


def _checked(installed: Installed) -> Installed:
    """Raises SetupFailed unless it is a Python that can load what this one pickles and imports."""
    version = _run([*installed.command, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], None).strip()
    ours = "{}.{}".format(*sys.version_info[:2])
    if version != ours:
        raise SetupFailed(
            f"{installed.command[0]} is Python {version}, and the cluster runs Python {ours}; pickled functions need the same "
            f"minor version: put python={ours} among the dependencies"
        )
    return installed


# ----------------------------------------------------------------------------------------------------- running


def _run(command: list[str], directory: str | None) -> str:
    """What the command printed. Raises SetupFailed with the command and the end of what it said."""
    # A PYTHONPATH meant for this interpreter would hide from pip what is in the other one.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    here = os.getpid()
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            preexec_fn=lambda: die_with_parent(here),
        )  # fmt: skip
    except OSError as error:
        raise SetupFailed(f"{command[0]} could not be started: {error}") from None
    if done.returncode:
        said = f"{done.stdout}{done.stderr}".strip()[-TAIL_CHARACTERS:]
        raise SetupFailed(f"`{' '.join(command)}` failed with exit code {done.returncode}:\n{said}")
    return done.stdout
