"""`nbray.client("host:port").connect()`: the older way to say `nbray.init(address="host:port")`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from nbray import connection


class ClientContext(connection.RayContext):
    """What `connect()` returns. As a context manager it disconnects at the end."""

    def disconnect(self) -> None:
        """Leave the cluster."""
        connection.shutdown()


class ClientBuilder:
    """Collects what `init` is told, and calls it at `connect()`."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self._told: dict[str, Any] = {}

    def env(self, env: Mapping[str, Any]) -> Self:
        """The runtime environment of the job."""
        self._told["runtime_env"] = dict(env)
        return self

    def namespace(self, namespace: str) -> Self:
        """Where the job's named actors live."""
        self._told["namespace"] = namespace
        return self

    def connect(self) -> ClientContext:
        """Attach, as `nbray.init` does with the same arguments. Raises what it raises."""
        return ClientContext(connection.init(self.address, **self._told)._facts)


def client(address: str | None = None) -> ClientBuilder:
    """A builder for a connection to the cluster at `address`; `.connect()` makes it."""
    return ClientBuilder(address)
