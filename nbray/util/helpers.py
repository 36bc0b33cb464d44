"""Results as they come: `as_completed` over references, `map_unordered` over items with a bound on what is in flight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nbray import api
from nbray.functions import RemoteFunction
from nbray.refs import ObjectRef

CHUNK_SIZE = 10
BACKPRESSURE_SIZE = 100


def as_completed(
    refs: Sequence[ObjectRef[Any]], *, chunk_size: int = CHUNK_SIZE, yield_obj_refs: bool = False, **wait_options: Any
) -> Iterator[Any]:
    """Values of `refs` (with `yield_obj_refs` the references) in batches of up to `chunk_size`, each when all of it is ready.

    Within a batch they come in the order of `refs`. `wait_options` go to `nbray.wait`: timeout, fetch_local. A failed
    reference raises what its task raised.
    """
    _check(chunk_size, wait_options)
    return _batches(list(refs), chunk_size, yield_obj_refs, wait_options)


def map_unordered(
    fn: RemoteFunction,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = BACKPRESSURE_SIZE,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    **wait_options: Any,
) -> Iterator[Any]:
    """Results of `fn.remote(item)` as `as_completed` gives them; `items` is read only as far as `backpressure_size` allows.

    At most `backpressure_size` calls are in flight; None: no bound.
    """
    if backpressure_size is not None and backpressure_size <= 0:
        raise ValueError(f"backpressure_size must be positive, not {backpressure_size}")
    _check(chunk_size, wait_options)
    return _mapped(fn, items, backpressure_size, chunk_size, yield_obj_refs, wait_options)


def _mapped(
    fn: RemoteFunction, items: Iterable[Any], bound: int | None, chunk_size: int, as_refs: bool, wait_options: dict[str, Any]
) -> Iterator[Any]:
    flying: list[ObjectRef[Any]] = []
    for item in items:
        flying.append(fn.remote(item))
        while bound is not None and len(flying) >= bound:
            values, flying = _next_batch(flying, chunk_size, as_refs, wait_options)
            yield from values
    yield from _batches(flying, chunk_size, as_refs, wait_options)


def _batches(flying: list[ObjectRef[Any]], chunk_size: int, as_refs: bool, wait_options: dict[str, Any]) -> Iterator[Any]:
    while flying:
        values, flying = _next_batch(flying, chunk_size, as_refs, wait_options)
        yield from values


def _next_batch(
    flying: list[ObjectRef[Any]], chunk_size: int, as_refs: bool, wait_options: dict[str, Any]
) -> tuple[list[Any], list[ObjectRef[Any]]]:
    ready, rest = api.wait(flying, num_returns=min(chunk_size, len(flying)), **wait_options)
    return (ready if as_refs else api.get(ready)), rest


def _check(chunk_size: int, wait_options: dict[str, Any]) -> None:
    if chunk_size < 1:
        raise ValueError(f"`chunk_size` must be >= 1, not {chunk_size}")
    if "num_returns" in wait_options:
        raise ValueError("`chunk_size` says how many are waited for at a time; leave `num_returns` out")
