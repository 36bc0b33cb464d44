"""What a node daemon is told when it is started: JSON on an inherited pipe, so that nothing of it shows in `ps`."""

from __future__ import annotations

from typing import Literal

import msgspec

from nbray import config
from nbray.node import accelerators, monitor
from nbray.node.forking import DEFAULT_ENTRY
from nbray.sched.resources import HEAD_NODE, NODE, UNIT, to_amounts
from nbray.wire.addresses import facing, is_address
from nbray.wire.messages import Amounts


class NetworkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a gateway is told. The credentials are those of wire/auth.py."""

    cluster: str
    secret: bytes
    server_public: bytes
    source: str  #: the file or variable that the secret came from, for errors to name
    role: str = "node"
    bind: tuple[str, int] | None = None  #: where to listen (port 0: any); None: this node only dials out
    join: tuple[str, int] | None = None  #: the gateway of the head to join; None: this is the head

    def __repr__(self) -> str:
        return f"NetworkSettings(cluster={self.cluster!r}, source={self.source!r}, bind={self.bind}, join={self.join}, secret=...)"


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """None means: find out. Amounts as people write them (2 CPUs are 2); memory and object store in bytes."""

    role: Literal["head", "join", "client"] = "head"  #: client: a driver's node without CPUs, which does not listen
    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: dict[str, float] = {}
    memory: int | None = None
    object_store_memory: int | None = None
    labels: dict[str, str] = {}
    root: str | None = None  #: runtime root; None: the user's
    keep: bool = False  #: stay when the last driver leaves
    host: str = ""  #: what other nodes call this machine; "": its host name
    session: str = ""  #: of a head: the name of this cluster's life; "": a new one
    state_path: str | None = None  #: of a head: where its journal is; None: nothing outlives the process
    network: NetworkSettings | None = None  #: None: no TCP at all
    entry: str = DEFAULT_ENTRY  #: what a forked worker runs


class Started(msgspec.Struct, frozen=True):
    """What a daemon says on its other pipe once it listens."""

    directory: str
    pid: int
    node: bytes
    session: str
    port: int | None = None  #: of the gateway, if it listens


class Capacity(msgspec.Struct, frozen=True):
    """What the node offers. `cpus_from` is the phrase for people."""

    total: Amounts
    store_bytes: int
    cpus_from: str


def capacity(settings: NodeSettings) -> Capacity:
    """Measure what was not told. Raises ValueError naming the resource that makes no sense."""
    limit = monitor.memory_limit()
    store = settings.object_store_memory
    if store is None:
        store = min(int(limit.value * config.STORE_FRACTION), config.STORE_MAX)
    page = 4096
    store = max(page, store // page * page)
    if settings.role == "client":
        return Capacity({}, store, "none: a driver's own node runs no tasks")
    found = monitor.cpu_count()
    cpus: float = found.value if settings.num_cpus is None else settings.num_cpus
    phrase = found.where if settings.num_cpus is None else f"{cpus:g} CPUs: num_cpus"
    memory = settings.memory if settings.memory is not None else max(0, limit.value - store)
    gpus, kind = accelerators.found() if settings.num_gpus is None else (settings.num_gpus, "")
    marks: dict[str, float] = {f"accelerator_type:{kind}": 1} if kind else {}
    amounts = to_amounts({"CPU": cpus, "GPU": gpus, "memory": memory, "object_store_memory": store, **marks, **settings.resources})
    return Capacity(amounts, store, phrase)


def named_by(settings: NodeSettings, *, is_head: bool) -> Amounts:
    """One of what only this node has, so that tasks can be sent to it by resources={"node:<address>": 0.01}."""
    if settings.role == "client":
        return {}
    address = settings.host if is_address(settings.host) else facing()
    return {f"{NODE}{address}": UNIT} | ({HEAD_NODE: UNIT} if is_head else {})
