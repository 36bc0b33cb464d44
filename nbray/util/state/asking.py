"""One asker of the cluster, whatever it asks through: this process's engine, or a look from outside (driver/viewer.py).

    head        nodes, actors, jobs: it knows
    nodes       their processes; the head asks them all
    processes   tasks, objects, what runs: each node asks those on it

Who did not answer in time, or died meanwhile, is kept in `silent`: an answer says what it lacks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from nbray import session
from nbray.driver import looking
from nbray.util.state.exception import RayStateApiException, ServerUnavailable

#: How long a process is waited for: it answers in milliseconds, unless it holds the interpreter in C code or the machine is full.
PATIENCE_S = 10.0
#: Of `timeout`, what processes may take; the rest is for the way.
SHARE = 0.8

ADDRESS_NOTE = "call nbray.init() first, or give address="


class Source(Protocol):
    """What questions are asked through."""

    def ask(self, what: str, **arguments: Any) -> Any: ...


class Asker:
    """Questions of one call of the State API. `timeout` is in seconds."""

    def __init__(self, source: Source, timeout: float) -> None:
        if timeout <= 0:
            raise ValueError(f"timeout={timeout} is no time at all; give seconds")
        self._source = source
        self._patience_s = min(PATIENCE_S, SHARE * timeout)
        self.silent: list[str] = []
        self._nodes: list[dict[str, Any]] | None = None
        self._workers: list[dict[str, Any]] | None = None

    def head(self, what: str, **arguments: Any) -> Any:
        return self._source.ask(what, **arguments)

    def nodes(self) -> list[dict[str, Any]]:
        if self._nodes is None:
            self._nodes = list(self.head("nodes"))
        return self._nodes

    def hosts(self) -> dict[str, str]:
        """Node id -> host."""
        return {node["node_id"]: node["host"] for node in self.nodes()}

    def each_node(self, of: str, node: str = "", **arguments: Any) -> list[Any]:
        """What the nodes answer to `of`, each for itself; `node`: only that one."""
        return [result for _, _, result in self.said_by_nodes(of, node, **arguments)]

    def said_by_nodes(self, of: str, node: str = "", **arguments: Any) -> list[Any]:
        """[node, its mailbox, what it answers] for each."""
        said = self.head("everywhere", of=of, arguments=arguments, node=node)
        self._hear(said)
        return list(said["answers"])

    def each_process(self, of: str, process: bytes = b"", **arguments: Any) -> dict[bytes, Any]:
        """Process id -> what it answers to `of`; `process`: only that one is asked."""
        inner = {"of": of, "arguments": arguments, "patience_s": self._patience_s, "process": process.hex()}
        said = self.head("everywhere", of="processes", arguments=inner, patience_s=self._patience_s)
        self._hear(said)
        answers: dict[bytes, Any] = {}
        for _, _, here in said["answers"]:
            self._hear(here)
            answers |= {process: msgspec.msgpack.decode(payload) for _, process, payload in here["answers"]}
        return answers

    def workers(self) -> list[dict[str, Any]]:
        """Drivers and workers of all nodes (node/census.py), each with the `ip` of its node."""
        if self._workers is None:
            hosts = self.hosts()
            rows = [row for rows in self.each_node("workers") for row in rows]
            self._workers = [{**row, "ip": hosts.get(row["node_id"], "")} for row in rows]
        return self._workers

    def _hear(self, said: dict[str, Any]) -> None:
        for node, process, why in said["silent"]:
            who = f"node {node.hex()[:4]}" if node == process else f"process {process.hex()[:4]} of node {node.hex()[:4]}"
            if why == "has ended":
                continue  # it has nothing to say any more, and whoever lists it finds it among the dead
            self.silent.append(f"{who} {why}")

    def say_who(self) -> list[str]:
        """Those who did not answer, with their pids where these are known."""
        return list(dict.fromkeys(self.silent))


@contextlib.contextmanager
def asking(address: str | None, timeout: float) -> Iterator[Asker]:
    """Whom to ask: the cluster that this process is attached to, or the one at `address`. Raises ServerUnavailable."""
    engine = session.engine
    if engine is not None and address in (None, "auto", engine.description().get("address")):
        yield Asker(engine, timeout)
        return
    if address is None and not os.environ.get(looking.ADDRESS_VARIABLE):
        raise ServerUnavailable(f"there is no cluster to ask: {ADDRESS_NOTE}")
    with contextlib.ExitStack() as stack:
        try:
            viewer, _ = stack.enter_context(looking.at(address))
        except ConnectionError as error:
            raise ServerUnavailable(str(error)) from None
        yield Asker(viewer, timeout)


def refused(error: Exception) -> RayStateApiException:
    return RayStateApiException(str(error))
