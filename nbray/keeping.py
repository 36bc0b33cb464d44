"""Objects with names that outlive the notebook: `nbray.keep(df, "df")` now, `nbray.kept("df")` after the kernel was restarted.

They are owned by one detached actor of the cluster, which therefore has to outlive the kernel too: one that `nbray start` or
JupyterLab's panel began.
"""

from __future__ import annotations

from typing import Any

from nbray import connection
from nbray.api import get, get_actor, put, remote
from nbray.refs import ObjectRef

NAMESPACE = "nbray.kept"
KEEPER = "keeper"


class Keeper:
    """Holds references to what it put itself: whoever gave the value may end."""

    def __init__(self) -> None:
        self._kept: dict[str, ObjectRef[Any]] = {}

    def keep(self, name: str, value: Any, replace: bool) -> bool:
        """Whether it is kept: not when the name is taken and not to be replaced."""
        if name in self._kept and not replace:
            return False
        self._kept[name] = put(value)
        return True

    def find(self, name: str) -> list[ObjectRef[Any]]:
        """The reference in a list, so that it travels as one; empty when there is none."""
        return [self._kept[name]] if name in self._kept else []

    def names(self) -> list[str]:
        return sorted(self._kept)

    def drop(self, name: str) -> bool:
        return self._kept.pop(name, None) is not None


def keep(value: Any, name: str, *, replace: bool = False) -> None:
    """Keep a value, or what a reference stands for, on the cluster under `name`. It is copied once, in the cluster's store.

    Raises ValueError when the name is taken (unless `replace`) or is no name, and RuntimeError when the cluster would end with
    this process.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"a kept object's name is a string that is not empty, not {name!r}")
    if not get(_keeper().keep.remote(name, value, replace)):
        raise ValueError(f"{name!r} is kept already; nbray.keep(..., replace=True) keeps this one instead")


def kept(name: str | None = None) -> Any:
    """The reference to what is kept under `name`; without a name, all names. Raises KeyError for a name that keeps nothing."""
    if name is None:
        return get(_keeper().names.remote())
    found = get(_keeper().find.remote(name))
    if not found:
        raise KeyError(f"nothing is kept as {name!r}; kept are: {', '.join(kept()) or 'none'}")
    return found[0]


def unkeep(name: str) -> None:
    """Let go of what is kept under `name`; it is freed when nobody else holds it. Raises KeyError when nothing is."""
    if not get(_keeper().drop.remote(name)):
        raise KeyError(f"nothing is kept as {name!r}; kept are: {', '.join(kept()) or 'none'}")


def _keeper() -> Any:
    engine = connection.engine()
    if engine.description().get("embedded"):
        raise RuntimeError(
            "this cluster ends with this process, and what it keeps would too. Start one that stays: `nbray start --head`, or the "
            "nbray panel of JupyterLab; nbray.init() in a new session then attaches to it"
        )
    try:
        return get_actor(KEEPER, NAMESPACE)
    except ValueError:
        options = {"name": KEEPER, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True, "num_cpus": 0}
        return remote(Keeper).options(**options).remote()
