"""Makes one runtime environment on one node: `python -m nbray.environments.builder`, a child of the node's daemon.

    stdin    one line of JSON: {"setup", "directory", "place", "parent"}; then nothing, until its end of file
    stdout   one line of JSON: {"command": [...], "locks": [...]} or {"error": text}
    stderr   the node's log of environments

Whoever ordered it takes the locks of the result itself and then closes stdin; until then they are held here, so that nobody
removes in between what was just made.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from typing import Any

from nbray import config
from nbray.environments.cache import Cache, Held, user_root
from nbray.environments.fetching import Fetcher, SetupFailed
from nbray.node.parentage import die_with_parent
from nbray.wire.environment import INTERPRETERS, packages


def main() -> None:
    order = json.loads(sys.stdin.readline())
    die_with_parent(order["parent"])
    cache, place = Cache(user_root()), Cache(order["place"])
    uses: list[Held] = []
    try:
        place.collect(0)  # of environments that the node has let go of
        result = make(order, cache, place, uses)
    except SetupFailed as failure:
        result = {"error": str(failure)}
    except Exception:  # noqa: BLE001 -- the node must be told why, whatever it is
        result = {"error": traceback.format_exc()}
    print(json.dumps(result), flush=True)
    sys.stdin.read()
    for use in uses:
        use.close()
    cache.collect(config.ENVIRONMENTS_CACHED)


def make(order: dict[str, Any], cache: Cache, place: Cache, uses: list[Held]) -> dict[str, Any]:
    """Everything of `order["setup"]`; what it is made of is added to `uses`. Raises SetupFailed."""
    setup = order["setup"]
    fetcher = Fetcher(cache, place, order["directory"])
    for uri in packages(setup):
        uses.append(fetcher.unpacked(uri))  # noqa: PERF401 -- what was unpacked before one fails is used until the end
    if not any(name in setup for name in INTERPRETERS):
        return {"command": [], "locks": [use.lock for use in uses]}
    # By name: most environments are directories, and wait for no installer to be loaded.
    installed = importlib.import_module("nbray.environments.installing").install(setup, cache)
    if installed.held is not None:
        uses.append(installed.held)
    return {"command": installed.command, "locks": [use.lock for use in uses]}


if __name__ == "__main__":
    main()
