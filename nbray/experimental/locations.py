"""Where objects are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbray import api, session
from nbray.exceptions import GetTimeoutError
from nbray.refs import ObjectRef


def get_object_locations(obj_refs: Sequence[ObjectRef[Any]], timeout_ms: int = -1) -> dict[ObjectRef[Any], dict[str, Any]]:
    """For each reference its `node_ids` (hex; empty while there is no value, and for a value small enough to travel in messages)
    and `object_size` in bytes (None while unknown).

    References that another process owns are waited for up to `timeout_ms`: negative is for ever. Raises RuntimeError without a
    cluster, and GetTimeoutError.
    """
    engine = session.engine
    if engine is None:
        raise RuntimeError("nbray hasn't been initialized: there are no objects to locate")
    here = engine.facts().process
    borrowed = [ref for ref in dict.fromkeys(obj_refs) if ref.owner_address().process != here]
    if borrowed:
        patience_s = None if timeout_ms < 0 else timeout_ms / 1000
        known, _ = api.wait(borrowed, num_returns=len(borrowed), timeout=patience_s, fetch_local=False)
        if len(known) < len(borrowed):
            raise GetTimeoutError(
                f"the owners of {len(borrowed) - len(known)} objects did not say where they are in {timeout_ms} ms"
            )
    return get_local_object_locations(obj_refs)


def get_local_object_locations(obj_refs: Sequence[ObjectRef[Any]]) -> dict[ObjectRef[Any], dict[str, Any]]:
    """As `get_object_locations`, from what this process knows: nobody is asked."""
    engine = session.engine
    if engine is None:
        raise RuntimeError("nbray hasn't been initialized: there are no objects to locate")
    found = {}
    for ref in obj_refs:
        facts = engine.facts_of(ref)
        node = facts["node"]
        found[ref] = {"node_ids": [node] if node else [], "object_size": facts["size"]}
    return found
