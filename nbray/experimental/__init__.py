"""What Ray has under `ray.experimental` and programs use, and spellings of older Ray."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbray.absent import missing

if TYPE_CHECKING:
    from nbray.experimental.locations import get_local_object_locations, get_object_locations

_HOMES = {
    "get_local_object_locations": "nbray.experimental.locations",
    "get_object_locations": "nbray.experimental.locations",
}
_MODULES = (
    "internal_kv",
    "locations",
    "multiprocessing",
    "queue",
    "state",
    "tqdm_ray",
)

__all__ = ["get_local_object_locations", "get_object_locations"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"nbray.experimental.{name}")
    raise missing(__name__, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
