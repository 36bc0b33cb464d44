"""Runtime environments as a user writes them: `nbray.init(runtime_env={...})`, and the same on tasks and actors.

    RuntimeEnv(...) or a dict  --checked-->  plain values  --options.environment-->  canonical JSON (wire/environment.py)

Nothing is read, packed or installed here but requirement files: what is wrong with the text of an environment is said where it is
written, what is wrong with making it where it is used.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from types import ModuleType
from typing import Any

import cloudpickle

from nbray.wire.environment import SETUP_TIMEOUT_S, STORED

__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]

ARCHIVES = (".zip", ".whl")
#: Ray's fields without machinery here, and what to do instead.
UNBUILT = {
    "container": "workers run on the node itself: start nodes inside of containers, or use pip or conda",
    "image_uri": "workers run on the node itself: start nodes inside of the image, or use pip or conda",
    "java_jars": "there are no Java workers",
    "_nsight": "set the profiler as py_executable: 'nsys profile ... python'",
    "_rocprof_sys": "set the profiler as py_executable",
}


class RuntimeEnvConfig(dict[str, Any]):
    """How an environment is made. `setup_timeout_seconds`: -1 for no limit. `eager_install`: begin when the job does."""

    known_fields = frozenset({"setup_timeout_seconds", "eager_install"})

    def __init__(self, setup_timeout_seconds: int = SETUP_TIMEOUT_S, eager_install: bool = True) -> None:
        if isinstance(setup_timeout_seconds, bool) or not isinstance(setup_timeout_seconds, int):
            raise TypeError(f"setup_timeout_seconds must be of type int, got: {type(setup_timeout_seconds)}")
        if setup_timeout_seconds <= 0 and setup_timeout_seconds != -1:
            raise ValueError(f"setup_timeout_seconds must be greater than zero or equals to -1, got: {setup_timeout_seconds}")
        if not isinstance(eager_install, bool):
            raise TypeError(f"eager_install must be a boolean. got {type(eager_install)}")
        super().__init__(setup_timeout_seconds=setup_timeout_seconds, eager_install=eager_install)

    @classmethod
    def default_config(cls) -> RuntimeEnvConfig:
        return cls()

    @classmethod
    def parse_and_validate_runtime_env_config(cls, config: Any) -> RuntimeEnvConfig:
        """From a dict or a RuntimeEnvConfig. Raises TypeError, ValueError."""
        if isinstance(config, cls):
            return config
        if not isinstance(config, Mapping):
            raise TypeError(f"runtime_env['config'] must be of type dict or RuntimeEnvConfig, got: {type(config)}")
        unknown = set(config) - cls.known_fields
        if unknown:
            raise ValueError(f"runtime_env['config'] has no fields {sorted(map(str, unknown))}; it has {sorted(cls.known_fields)}")
        return cls(**config)

    def to_dict(self) -> dict[str, Any]:
        return dict(self)


class RuntimeEnv(dict[str, Any]):
    """A runtime environment: a dict that checks what is put into it. A plain dict does as well wherever one is taken.

    Raises TypeError and ValueError that name the field; NotImplementedError for what nbray does not do, with what it does.
    """

    known_fields: frozenset[str] = frozenset()  # filled in below, from the table of checks

    def __init__(self, *, _validate: bool = True, **fields: Any) -> None:
        super().__init__()
        if not _validate:
            self.update(fields)
            return
        for name, value in fields.items():
            if value is not None:
                self[name] = value
        self._check_together()

    def __setitem__(self, name: str, value: Any) -> None:
        if name in UNBUILT:
            raise NotImplementedError(f"runtime_env[{name!r}] is not built yet; {UNBUILT[name]}")
        check = _CHECKS.get(name)
        if check is None:
            raise ValueError(f"runtime_env has no field {name!r}; it has {', '.join(sorted(_CHECKS))}")
        checked = check(value)
        if checked is not None:
            super().__setitem__(name, checked)

    def _check_together(self) -> None:
        named = [name for name in ("pip", "uv", "conda") if name in self]
        if len(named) > 1:
            specified = "".join(f"\nspecified {name} field: {self.get(name)}" for name in ("pip", "uv", "conda"))
            raise ValueError(
                "The 'pip' field, 'uv' field, and 'conda' field of runtime_env cannot be specified at the same time."
                f"{specified}\nPackages for pip can stand among the dependencies of a conda environment."
            )
        if named and "py_executable" in self:
            raise ValueError(f"The 'py_executable' and the {named[0]!r} field of runtime_env cannot be specified at the same time.")

    def set(self, name: str, value: Any) -> None:
        self[name] = value

    @classmethod
    def deserialize(cls, text: str) -> RuntimeEnv:
        return cls(_validate=False, **json.loads(text))

    def serialize(self) -> str:
        return json.dumps(type(self)(**self), sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        plain = deepcopy(dict(self))
        if "config" in plain:
            plain["config"] = dict(plain["config"])
        return plain

    # -- Ray's questions

    def has_working_dir(self) -> bool:
        return "working_dir" in self

    def working_dir(self) -> str:
        return str(self.get("working_dir", ""))

    working_dir_uri = working_dir

    def py_modules(self) -> list[str]:
        return list(self.get("py_modules", []))

    py_modules_uris = py_modules

    def py_executable(self) -> str | None:
        return self.get("py_executable")

    def env_vars(self) -> dict[str, str]:
        return dict(self.get("env_vars", {}))

    def has_pip(self) -> bool:
        return "pip" in self

    def pip_config(self) -> dict[str, Any]:
        return dict(self.get("pip", {}))

    def has_uv(self) -> bool:
        return "uv" in self

    def uv_config(self) -> dict[str, Any]:
        return dict(self.get("uv", {}))

    def has_conda(self) -> bool:
        return "conda" in self

    def conda_env_name(self) -> str | None:
        name = self.get("conda")
        return name if isinstance(name, str) else None

    def conda_config(self) -> str | None:
        config = self.get("conda")
        return json.dumps(config, sort_keys=True) if isinstance(config, Mapping) else None


# ----------------------------------------------------------------------------------------------------- one field each


def _refused(name: str, wanted: str, value: Any) -> TypeError:
    return TypeError(f"runtime_env['{name}'] must be of type {wanted}, got {type(value)}")


def _env_vars(value: Any) -> dict[str, str] | None:
    if not isinstance(value, Mapping):
        raise _refused("env_vars", "Dict[str, str]", value)
    for key, text in value.items():
        if not isinstance(key, str):
            raise TypeError(f"runtime_env['env_vars'] must be of type Dict[str, str], but the key {key} is of type {type(key)}")
        if not isinstance(text, str):
            raise TypeError(f"runtime_env['env_vars'] must be of type Dict[str, str], but the value {text} is of type {type(text)}")
    return dict(value) or None


def _working_dir(value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError(f"`working_dir` must be a string, got {type(value)}.")
    return _package("working_dir", value)


def _py_modules(value: Any) -> list[str] | None:
    if not isinstance(value, list | tuple):
        raise TypeError(f"`py_modules` must be a list of strings, got {type(value)}.")
    return [_package("py_modules", _module(each)) for each in value] or None


def _module(each: Any) -> str:
    if isinstance(each, ModuleType):
        places = list(getattr(each, "__path__", []))
        if len(places) > 1:
            raise ValueError(
                f"runtime_env['py_modules']: {each.__name__} is in {len(places)} directories; name the one that is meant"
            )
        place = places[0] if places else getattr(each, "__file__", None)
        if place is None:
            raise ValueError(f"runtime_env['py_modules']: the module {each.__name__} is in no file")
        return str(place)
    if isinstance(each, os.PathLike):
        return str(os.fspath(each))
    if not isinstance(each, str):
        raise TypeError(f"`py_module` must be a string, got {type(each)}.")
    return each


def _package(field: str, place: str) -> str:
    """A local path, made absolute, or a URI whose scheme nodes can fetch."""
    scheme, separator, rest = place.partition("://")
    if separator:
        if place.startswith(STORED):
            return place
        if scheme not in ("https", "http", "file"):
            raise NotImplementedError(
                f"runtime_env[{field!r}]: nodes fetch https:// and file:// themselves, not {scheme}://; download {place} and give "
                "its local path"
            )
        if not rest.split("?", 1)[0].endswith(ARCHIVES):
            raise ValueError(f"runtime_env[{field!r}]: only .zip (and .whl) files can be fetched, not {place}")
        return place
    path = os.path.abspath(os.path.expanduser(place))
    if os.path.isdir(path):
        return path
    kinds = ".zip" if field == "working_dir" else ".zip, .whl and .py"
    if not os.path.exists(path):
        raise ValueError(f"runtime_env[{field!r}]: {place} is not a valid path: there is no directory or {kinds} file {path}")
    if not path.endswith((".zip",) if field == "working_dir" else (*ARCHIVES, ".py")):
        raise ValueError(f"runtime_env[{field!r}]: {path} must be a directory or a {kinds} file")
    return path


def _excludes(value: Any) -> list[str] | None:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise _refused("excludes", "List[str]", value)
    return list(value) or None


def _requirements_file(path: str) -> list[str]:
    if not os.path.isfile(path):
        raise ValueError(f"{path} is not a valid file: there is no requirements file of that name")
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    return [line for line in lines if line and not line.startswith("#")]


def _installer(name: str, fields: Mapping[str, type]) -> Callable[[Any], dict[str, Any] | None]:
    """A check for `pip` or `uv`: a list, a requirements file, or a dict with `packages` and these fields."""

    def check(value: Any) -> dict[str, Any] | None:
        if isinstance(value, str):
            value = {"packages": _requirements_file(value)}
        elif isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
            value = {"packages": list(value)}
        elif not isinstance(value, Mapping):
            raise _refused(name, "str, List[str] or dict", value)
        unknown = set(value) - set(fields) - {"packages"}
        if unknown:
            raise ValueError(
                f"runtime_env['{name}'] can only have these fields: packages, {', '.join(fields)}, but got: {list(value)}"
            )
        if "packages" not in value:
            raise ValueError(f"runtime_env['{name}'] must include field 'packages', but got {dict(value)}")
        packages = value["packages"]
        if isinstance(packages, str):
            packages = _requirements_file(packages)
        if not isinstance(packages, list | tuple) or not all(isinstance(each, str) for each in packages):
            raise TypeError(f"runtime_env['{name}']['packages'] must be of type list[str] got {type(packages)}")
        result: dict[str, Any] = {f"{name}_check": False, **value, "packages": list(dict.fromkeys(packages))}
        for field, kind in fields.items():
            if field in result and not isinstance(result[field], kind):
                raise TypeError(f"runtime_env['{name}']['{field}'] must be of type {kind.__name__}, got {type(result[field])}")
        return result if result["packages"] else None

    return check


def _conda(value: Any) -> str | dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, str):
        raise _refused("conda", "str or dict", value)
    if value.endswith((".yaml", ".yml")):
        if not os.path.isfile(value):
            raise ValueError(f"Can't find conda YAML file {value}.")
        with open(value, encoding="utf-8") as file:
            return {"yaml": file.read()}  # nodes hand it to conda as it is
    if os.path.isabs(value) and not os.path.isdir(value):
        raise ValueError(f"Can't find conda env directory {value}.")
    return value


def _hook(value: Any) -> str | Callable[[], Any]:
    if isinstance(value, str):
        if not all(part.isidentifier() for part in value.split(".")) or "." not in value:
            raise ValueError(f"worker_process_setup_hook {value!r} must name a function as 'module.function'")
        return value
    if not callable(value):
        raise TypeError(f"worker_process_setup_hook must be a function, got {type(value)}.")
    return value  # type: ignore[no-any-return]


def _py_executable(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refused("py_executable", "str", value)
    return value


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "env_vars": _env_vars,
    "working_dir": _working_dir,
    "py_modules": _py_modules,
    "excludes": _excludes,
    "pip": _installer("pip", {"pip_check": bool, "pip_version": str, "pip_install_options": list}),
    "uv": _installer("uv", {"uv_check": bool, "uv_version": str, "uv_pip_install_options": list}),
    "conda": _conda,
    "py_executable": _py_executable,
    "worker_process_setup_hook": _hook,
    "config": RuntimeEnvConfig.parse_and_validate_runtime_env_config,
}
RuntimeEnv.known_fields = frozenset(_CHECKS)


def checked(value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` checked, in values that JSON can say: a hook that is a function becomes its name and its pickle."""
    env = dict(RuntimeEnv(**value))
    hook = env.get("worker_process_setup_hook")
    if hook is not None and not isinstance(hook, str):
        env["worker_process_setup_hook"] = getattr(hook, "__qualname__", type(hook).__name__)
        env["_hook"] = base64.b64encode(cloudpickle.dumps(hook, 5)).decode()
    if "config" in env:
        env["config"] = dict(env["config"])
    return env
