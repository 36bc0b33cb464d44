"""One dashboard from its start to its end: with its cluster, with its process's orders, or with Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from nbray.dashboard import alone, verbs
from nbray.dashboard.clusters import Clusters
from nbray.dashboard.door import Door
from nbray.driver import dashboard
from nbray.driver.dashboard import Place, Settings
from nbray.driver.viewer import Viewer
from nbray.wire.addresses import ANYWHERE

Ready = Callable[[Place, str], None]  #: where it listens, and a token


def run(settings: Settings, ready: Ready) -> None:
    """Serve until the cluster of `settings` ends, or SIGTERM or SIGINT comes. `ready` is called once visitors can come in.

    Raises OSError when it cannot listen, ConnectionError when there is no cluster.
    """
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Viewer(settings.directory)) if settings.directory else None
        sockets, port = alone.listen(settings.host, settings.port)
        names = alone.called(settings.host)
        door = Door(port, names)
        here = Place(names[0] if settings.host in ANYWHERE else settings.host, port, os.getpid(), door.key)
        if settings.directory:
            path = dashboard.write(settings.directory, here)
            stack.callback(_forget, path)
        asyncio.run(_serve(settings, door, sockets, cluster, lambda: ready(here, door.token())))


async def _serve(settings: Settings, door: Door, sockets: list, cluster: Viewer | None, ready: Callable[[], None]) -> None:  # type: ignore[type-arg]
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    shared = verbs.Shared(Clusters(settings.directory, settings.name))
    server = alone.serve(shared, door, sockets)
    for ends in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ends, over.set)
    if cluster is not None:
        loop.add_reader(cluster.fileno(), over.set)
    try:
        ready()
        await over.wait()
    finally:
        if cluster is not None:
            loop.remove_reader(cluster.fileno())
        server.stop()
        shared.close()
        await server.close_all_connections()


def _forget(path: str) -> None:
    with contextlib.suppress(OSError):  # the directory goes with its cluster
        os.unlink(path)
