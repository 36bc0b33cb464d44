"""Finding a cluster to look at: an address, a runtime directory, or whatever runs here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from nbray.driver import joining, launch
from nbray.driver.viewer import Viewer
from nbray.wire import connection_file, rundir

ADDRESS_VARIABLE = "NBRAY_ADDRESS"


@contextlib.contextmanager
def at(address: str | None) -> Iterator[tuple[Viewer, str]]:
    """A viewer of the cluster that is meant, and what to call that. Raises ConnectionError when there is none, or several."""
    if address in (None, "", "auto"):
        address = os.environ.get(ADDRESS_VARIABLE) or "auto"
    if os.path.isdir(address):
        with Viewer(address) as viewer:
            yield viewer, f"the cluster in {address}"
        return
    try:
        found = connection_file.find(address)
    except ConnectionError:
        running = rundir.in_use()
        if address != "auto" or not running:
            raise
        # No `nbray start` here, but a notebook or script has a cluster of its own.
        if len(running) > 1:
            several = " | ".join(running)
            raise ConnectionError(f"several notebooks or scripts have clusters here; name one: --address {several}") from None
        with Viewer(running[0]) as viewer:
            yield viewer, "the local cluster of a notebook or script"
        return
    name = f"cluster {found.connection.cluster[:8]} at {found.connection.address}"
    with contextlib.ExitStack() as stack:
        directory = joining.directory_here(found)
        if directory is None:
            # A cluster elsewhere is reached through a node of our own, for as long as we look.
            client = joining.start_client(found, object_store_memory=2**20)
            stack.callback(launch.stop, client)
            directory = client.directory
        yield stack.enter_context(Viewer(directory)), name
