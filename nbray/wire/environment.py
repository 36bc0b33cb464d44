"""Runtime environments as they travel: canonical JSON, empty for none. A task's is laid over its job's or its parent's.

    env_vars, worker_process_setup_hook      done by the worker when it enters the environment
    working_dir, py_modules, _hook           URIs of packages, made present on a node before it gives a worker for them
    pip, uv, conda, py_executable            decide which interpreter the worker is
    config, _generation                      how to make it; which state of the driver's own modules it has seen

What a node has to make is the `setup` of an environment; those that differ in nothing else share it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

#: Each of these decides which packages the interpreter sees: of two, the inner one counts.
INTERPRETERS = ("pip", "uv", "conda", "py_executable")
SETUP = ("working_dir", "py_modules", "_hook", *INTERPRETERS)
GENERATION = "_generation"
#: What a driver uploads has this scheme (as in Ray), the hash of its content, and a suffix.
STORED = "gcs://"
SETUP_TIMEOUT_S = 600
_NAMED = re.compile(r"\$\{(\w+)\}")


def canonical(environment: dict[str, Any]) -> str:
    """Equal text for equal environments; empty for one that asks for nothing."""
    return json.dumps(environment, sort_keys=True, separators=(",", ":")) if environment else ""


@lru_cache(maxsize=256)
def merged(base: str, own: str) -> str:
    """`own` over `base`: environment variables one by one, everything else as a whole."""
    if not base or not own:
        return own or base
    under, over = json.loads(base), json.loads(own)
    if any(name in over for name in INTERPRETERS):
        under = {name: value for name, value in under.items() if name not in INTERPRETERS}
    if "worker_process_setup_hook" in over:
        under.pop("_hook", None)
    result: dict[str, Any] = {**under, **over}
    variables = {**under.get("env_vars", {}), **over.get("env_vars", {})}
    if variables:
        result["env_vars"] = variables
    return canonical(result)


def parsed(environment: str) -> dict[str, Any]:
    return dict(json.loads(environment)) if environment else {}


def variables(environment: str) -> dict[str, str]:
    """The environment variables that it sets."""
    return dict(parsed(environment).get("env_vars", {}))


def expanded(wanted: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """`wanted` variables, where ${NAME} stands for what was there before."""
    return {name: _NAMED.sub(lambda found: before.get(found[1], ""), value) for name, value in wanted.items()}


def public(environment: str) -> dict[str, Any]:
    """What a person asked for, without our own notes."""
    return {name: value for name, value in parsed(environment).items() if not name.startswith("_")}


@lru_cache(maxsize=256)
def setup_of(environment: str) -> str:
    """The part that a node has to make, as canonical JSON; empty when a worker can enter it as it is."""
    if not environment:
        return ""
    whole = json.loads(environment)
    return canonical({name: whole[name] for name in SETUP if name in whole})


@lru_cache(maxsize=256)
def timeout_of(environment: str) -> float | None:
    """Seconds that making it may take; None for ever."""
    timeout = parsed(environment).get("config", {}).get("setup_timeout_seconds", SETUP_TIMEOUT_S)
    return None if timeout == -1 else float(timeout)


def packages(whole: dict[str, Any]) -> list[str]:
    """The URIs of the packages of an environment or setup."""
    found = [whole.get("working_dir"), *whole.get("py_modules", []), whole.get("_hook")]
    return [uri for uri in found if uri]


def holder_of(submission: str) -> str:
    """For whom the head keeps the packages of a submitted job; drivers have their process id in hex."""
    return f"submission {submission}"


def place_name(uri: str) -> str:
    """The name of the directory, below a node's own directory for environments, where the package lies unpacked."""
    return f"p-{hashlib.blake2b(uri.encode(), digest_size=12).hexdigest()}"


def in_words(setup: str) -> str:
    """What is being made, for a person who waits for it."""
    whole = parsed(setup)
    said = [f"{name} install {' '.join(whole[name]['packages'])}" for name in ("pip", "uv") if name in whole]
    if "conda" in whole:
        said.append(f"conda environment {whole['conda']}" if isinstance(whole["conda"], str) else "conda env create")
    said += [name for name in ("working_dir", "py_modules", "py_executable") if name in whole]
    return ", ".join(said) or "worker_process_setup_hook"
