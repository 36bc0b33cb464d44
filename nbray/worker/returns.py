"""What a task with several return values gave back, as so many values."""

from __future__ import annotations

from typing import Any


def several(name: str, returns: int, result: Any) -> list[Any]:
    """Raises ValueError when these are not `returns` values."""
    try:
        results = list(result)
    except TypeError:
        raise ValueError(
            f"{name} was to return {returns} values (num_returns={returns}), and returned one {type(result).__name__}"
        ) from None
    if len(results) != returns:
        raise ValueError(f"{name} was to return {returns} values (num_returns={returns}), and returned {len(results)}")
    return results
