"""What a value is, in a few words for people: `array of float64, 1,000 × 20`, `list of 3`. Runs no code of the user's classes."""

from __future__ import annotations

from typing import Any

LONGEST = 120
#: Packages whose objects' `shape` and `dtype` are cheap to ask and have no effect.
SHAPED = frozenset({"numpy", "pandas", "polars", "pyarrow", "scipy", "torch", "jax", "jaxlib", "xarray", "cupy"})
COUNTED = (list, tuple, set, frozenset, dict, str, bytes, bytearray)


def describe(value: Any) -> str:
    """Type, and shape or length where there is one."""
    kind = type(value)
    if kind in COUNTED:
        return f"{kind.__name__} of {len(value):,}"
    name = kind.__qualname__
    if kind.__module__.partition(".")[0] in SHAPED:
        name = _shaped(name, value)
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _shaped(name: str, value: Any) -> str:
    try:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        sizes = None if shape is None else " × ".join(f"{int(size):,}" for size in tuple(shape))
    except Exception:  # noqa: BLE001 -- a lazy table may refuse; its name is something
        return name
    if name == "ndarray":
        return f"array of {dtype}, {sizes or 'a scalar'}"
    if dtype is not None:
        name = f"{name} of {dtype}"
    return f"{name}, {sizes}" if sizes else name
