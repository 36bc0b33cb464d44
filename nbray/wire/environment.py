"""Runtime environments as they travel: canonical JSON, empty for none. A task's is laid over its job's or its parent's."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=256)
def merged(base: str, own: str) -> str:
    """`own` over `base`: environment variables one by one, everything else as a whole."""
    if not base or not own:
        return own or base
    under, over = json.loads(base), json.loads(own)
    result: dict[str, Any] = {**under, **over}
    variables = {**under.get("env_vars", {}), **over.get("env_vars", {})}
    if variables:
        result["env_vars"] = variables
    return json.dumps(result, sort_keys=True, separators=(",", ":"))


def variables(environment: str) -> dict[str, str]:
    """The environment variables that it sets."""
    return dict(json.loads(environment).get("env_vars", {})) if environment else {}
