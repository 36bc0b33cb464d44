"""What the command line of a submitted job finds around it: environment variables and a directory.

    PATH              first the Python of its runtime environment, else the one that runs the cluster
    PYTHONPATH        first the working_dir and py_modules
    NBRAY_ADDRESS     the node to attach to
    CUDA_VISIBLE_DEVICES, VIRTUAL_ENV, CONDA_PREFIX     where it has any

Variables of the runtime environment come last and win; ${NAME} in them stands for what was there.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping

from nbray.node.accelerators import VISIBLE, visible_ids
from nbray.node.records import StartEntrypoint
from nbray.wire import environment

_NOT_FOR_JOBS = ("NBRAY_TOKEN", "NBRAY_ADDRESS", "RAY_ADDRESS")


def directory_of(order: StartEntrypoint, places: str) -> str:
    """Where to run; "": where the daemon runs. `places` is where this node unpacks packages."""
    packed = environment.parsed(order.said.env).get("working_dir")
    return order.said.directory or (f"{places}/{environment.place_name(packed)}" if packed else "")


def variables_of(order: StartEntrypoint, address: str, places: str, ours: Mapping[str, str]) -> dict[str, str]:
    """All of the environment. `address` is the node's own for drivers, `ours` the daemon's environment."""
    said = order.said
    around = {name: value for name, value in ours.items() if name not in _NOT_FOR_JOBS}
    around |= {"PYTHONUNBUFFERED": "1", "NBRAY_ADDRESS": address}
    _put_first(around, "PATH", [*_interpreter(order.interpreter, said.env, around), os.path.dirname(sys.executable)], os.defpath)
    env = environment.parsed(said.env)
    packed = [uri for uri in (env.get("working_dir"), *env.get("py_modules", [])) if uri]
    modules = [*said.modules, *(f"{places}/{environment.place_name(uri)}" for uri in packed)]
    if modules:
        _put_first(around, "PYTHONPATH", modules, "")
    if order.devices:
        around[VISIBLE] = ",".join(_names(order.devices, ours.get(VISIBLE)))
    return {**around, **environment.expanded(said.environment, around)}


def _interpreter(command: str, env: str, around: dict[str, str]) -> list[str]:
    """The directory of the environment's own Python, whose variables are set as `activate` does. A command that is no path leaves
    `python` what it is."""
    program = shlex.split(command)[0] if command else ""
    if not os.path.isabs(program):
        return []
    directory = os.path.dirname(program)
    kind = next((name for name in environment.INTERPRETERS if name in environment.parsed(env)), "")
    variable = {"pip": "VIRTUAL_ENV", "uv": "VIRTUAL_ENV", "conda": "CONDA_PREFIX"}.get(kind)
    if variable is not None:
        around[variable] = os.path.dirname(directory)
    around.pop("PYTHONHOME", None)
    return [directory]


def _put_first(around: dict[str, str], name: str, entries: list[str], otherwise: str) -> None:
    rest = around.get(name) or otherwise
    around[name] = os.pathsep.join([*entries, *filter(None, [rest])])


def _names(numbers: list[int], visible: str | None) -> list[str]:
    """The devices as this machine's CUDA names them, where the daemon itself sees only some."""
    ids = None if visible is None else visible_ids(visible)
    return [str(number) if ids is None or number >= len(ids) else ids[number] for number in numbers]
