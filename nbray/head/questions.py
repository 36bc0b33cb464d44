"""What can be asked of the head: listings, the key-value store, and the gathered trace.

nodes, actors, jobs      a list of dicts with plain values; ids as hex
job_describe             job_id, metadata: keeps a driver's metadata -> True
named_actors             [{"name", "namespace"}]; arguments: namespace (one), or all_namespaces=True
groups                   the placement groups; arguments: group (bytes, one)
named_group              name, namespace -> the id of the group that has the name, or None
trace                    a list of bytes: the batches of nbray/trace.py that processes have sent, oldest first; arguments:
                         without (a list of process ids: not theirs)
trace_since              the same, piece by piece: {"first", "next", "last", "batches": [[driver, records]]}; arguments: number
                         (the `next` of the answer before; 0 at first), room (bytes)
kv_put                   namespace, key, value, overwrite=True -> whether it was written
kv_get                   namespace, key -> bytes, or None
kv_del                   namespace, key, by_prefix=False -> how many were deleted
kv_keys                  namespace, prefix=b"" -> a sorted list of bytes
package_...              see packages.py
metrics                  see metrics.py
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

import msgspec

from nbray.head.directory import Directory
from nbray.head.groups import GroupRecord, Groups
from nbray.head.members import Members
from nbray.head.metrics import Metrics
from nbray.head.packages import PackageRefused, Packages
from nbray.head.records import ActorRecord, JobRecord, NodeRecord, Persist
from nbray.ids import ProcessId
from nbray.machine import Effect
from nbray.wire.messages import TraceBatch

KV_VALUE_BYTES = 8 * 2**20
KV_KEY_BYTES = 4096
#: All batches of a trace must fit into one answer, and that into one message.
TRACE_BYTES = 12 * 2**20


class BadQuestion(ValueError):
    """The asker is told this text."""


class KeyValues:
    """A small durable dictionary per namespace, for function blobs, packages and whatever a library keeps there."""

    def __init__(self, out: list[Effect]) -> None:
        self.out = out
        self.spaces: dict[str, dict[bytes, bytes]] = {}

    def put(self, arguments: dict[str, Any]) -> bool:
        space, key = self._key(arguments)
        value = arguments.get("value")
        if not isinstance(value, bytes):
            raise BadQuestion(f"kv_put needs bytes as its value, not {type(value).__name__}")
        if len(value) > KV_VALUE_BYTES:
            raise BadQuestion(
                f"kv_put of {key!r}: {len(value):,} bytes are over the limit of {KV_VALUE_BYTES:,}; put large values into objects"
            )
        held = self.spaces.setdefault(space, {})
        if key in held and not arguments.get("overwrite", True):
            return False
        held[key] = value
        self.out.append(Persist("kv", _path(space, key), value))
        return True

    def get(self, arguments: dict[str, Any]) -> bytes | None:
        space, key = self._key(arguments)
        return self.spaces.get(space, {}).get(key)

    def delete(self, arguments: dict[str, Any]) -> int:
        space, key = self._key(arguments)
        held = self.spaces.get(space, {})
        doomed = [k for k in held if k.startswith(key)] if arguments.get("by_prefix") else [key] * (key in held)
        for one in doomed:
            del held[one]
            self.out.append(Persist("kv", _path(space, one), None))
        if not held:
            self.spaces.pop(space, None)
        return len(doomed)

    def keys(self, arguments: dict[str, Any]) -> list[bytes]:
        prefix = arguments.get("prefix", b"")
        space, prefix = self._key({**arguments, "key": prefix})
        return sorted(key for key in self.spaces.get(space, {}) if key.startswith(prefix))

    def restore(self, saved: dict[bytes, bytes]) -> None:
        for path, value in saved.items():
            space, key = msgspec.msgpack.decode(path, type=tuple[str, bytes])
            self.spaces.setdefault(space, {})[key] = value

    def _key(self, arguments: dict[str, Any]) -> tuple[str, bytes]:
        space, key = arguments.get("namespace") or "", arguments.get("key")
        if not isinstance(space, str) or not isinstance(key, bytes | str):
            raise BadQuestion("the key-value store takes a text as namespace and bytes or text as key")
        key = key.encode() if isinstance(key, str) else key
        if len(key) > KV_KEY_BYTES or len(space) > KV_KEY_BYTES:
            raise BadQuestion(f"a key of {len(key):,} bytes is over the limit of {KV_KEY_BYTES:,}")
        return space, key


def _path(space: str, key: bytes) -> bytes:
    return msgspec.msgpack.encode((space, key))


class TraceStore:
    """The latest `TRACE_BYTES` of trace, as it came."""

    def __init__(self) -> None:
        self.batches: deque[TraceBatch] = deque()
        self.size_bytes = 0
        self.dropped = 0  #: batches that made way for later ones

    def add(self, batch: TraceBatch) -> None:
        self.batches.append(batch)
        self.size_bytes += len(batch.records)
        while self.size_bytes > TRACE_BYTES:
            self.size_bytes -= len(self.batches.popleft().records)
            self.dropped += 1

    def since(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Batches are numbered as they came. A number that this head has not come to, which is one of the head before it, or that
        has made way, is answered from the oldest on: whoever asks sees it by `first`."""
        number, room = arguments.get("number", 0), arguments.get("room", TRACE_BYTES)
        if not isinstance(number, int) or not isinstance(room, int):
            raise BadQuestion("trace_since takes whole numbers as number and room")
        oldest, last = self.dropped, self.dropped + len(self.batches)
        first = number if oldest <= number <= last else oldest
        told: list[list[bytes]] = []
        for batch in itertools.islice(self.batches, first - oldest, None):
            room -= len(batch.records)
            if told and room < 0:
                break
            told.append([batch.job, batch.records])
        return {"first": first, "next": first + len(told), "last": last, "batches": told}


class Questions:
    """Answers from the state of the others; changes nothing but the key-value store and what a driver says of itself."""

    def __init__(
        self, members: Members, groups: Groups, directory: Directory, jobs: dict[ProcessId, JobRecord], out: list[Effect]
    ) -> None:
        self.members = members
        self.groups = groups
        self.directory = directory
        self.jobs = jobs
        self.out = out
        self.kv = KeyValues(out)
        self.packages = Packages(out)
        self.metrics = Metrics()
        self.trace = TraceStore()
        self._known = {
            "nodes": self._nodes,
            "actors": self._actors,
            "named_actors": self._named_actors,
            "groups": self._groups,
            "named_group": lambda a: self.groups.names.get((a.get("namespace") or "", a.get("name") or "")),
            "jobs": self._jobs,
            "trace": lambda a: [b.records for b in self.trace.batches if b.process not in a.get("without", ())],
            "trace_since": self.trace.since,
            "job_describe": self._describe_job,
            "kv_put": self.kv.put,
            "kv_get": self.kv.get,
            "kv_del": self.kv.delete,
            "kv_keys": self.kv.keys,
            "package_has": self.packages.has,
            "package_put": self.packages.put,
            "package_get": self.packages.get,
            "metrics": self.metrics.listing,
        }

    def answer(self, what: str, arguments: dict[str, Any]) -> Any:
        """Raises BadQuestion, with the reason for the asker."""
        answerer = self._known.get(what)
        if answerer is None:
            raise BadQuestion(f"the head cannot be asked for {what!r}; it knows {', '.join(sorted(self._known))}")
        try:
            return answerer(arguments)
        except PackageRefused as refusal:
            raise BadQuestion(str(refusal)) from None

    def _nodes(self, _: dict[str, Any]) -> list[dict[str, Any]]:
        records = [*self.members.nodes.values(), *self.members.dead.values()]
        return [_node(record, self._queue() if record.info.is_head else []) for record in records]

    def _queue(self) -> list[dict[str, Any]]:
        """Actors wait at the head, so they are listed with its node."""
        return [
            {
                "amounts": dict(record.spec.placement.amounts),
                "count": count,
                "why": f"actor {record.spec.class_name}: {record.waiting}",
            }
            for record, count in self.directory.placing.waiting()
        ]

    def _actors(self, _: dict[str, Any]) -> list[dict[str, Any]]:
        return [_actor(record) for record in [*self.directory.live.values(), *self.directory.dead.values()]]

    def _named_actors(self, arguments: dict[str, Any]) -> list[dict[str, str]]:
        everywhere, where = arguments.get("all_namespaces", False), arguments.get("namespace", "")
        return [{"name": name, "namespace": space} for space, name in sorted(self.directory.names) if everywhere or space == where]

    def _groups(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        records = {**self.groups.removed, **self.groups.live}
        wanted = arguments.get("group")
        return [_group(record) for group, record in records.items() if wanted is None or group == wanted]

    def _jobs(self, _: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "job_id": job.driver.process.hex(),
                "node_id": job.driver.node.hex(),
                "name": job.name,
                "namespace": job.namespace,
                "pid": job.pid,
                "state": "ENDED" if job.ended else "RUNNING",
                "submission_id": job.submission,
                "metadata": job.metadata,
                "start_time": job.started_ms,
                "end_time": job.ended_ms,
            }
            for job in self.jobs.values()
        ]

    def _describe_job(self, arguments: dict[str, Any]) -> bool:
        process, metadata = arguments.get("job_id"), arguments.get("metadata")
        job = self.jobs.get(process) if isinstance(process, bytes) else None
        if job is None or not isinstance(metadata, dict):
            raise BadQuestion("job_describe takes the process id of a driver that is attached, and its metadata")
        job.metadata = {str(key): str(value) for key, value in metadata.items()}
        self.out.append(Persist("jobs", job.driver.process, msgspec.msgpack.encode(job)))
        return True


def _node(record: NodeRecord, waiting_actors: list[dict[str, Any]]) -> dict[str, Any]:
    view = record.view()
    return {
        "node_id": view.node.hex(),
        "host": view.host,
        "pid": view.pid,
        "total": view.total,
        "available": view.available,
        "labels": view.labels,
        "gateway": view.gateway,
        "alive": view.alive,
        "suspect": view.suspect,
        "is_head": view.is_head,
        "store_bytes": view.store_bytes,
        "store_used": view.store_used,
        "queued": [{"amounts": q.amounts, "count": q.count, "why": q.why} for q in view.queued] + waiting_actors,
        "death_cause": record.cause,
    }


def _group(record: GroupRecord) -> dict[str, Any]:
    spec = record.spec
    return {
        "group": spec.group,
        "name": spec.name,
        "namespace": spec.namespace,
        "strategy": spec.strategy,
        "state": record.state,
        "bundles": spec.bundles,
        "nodes": [record.places.get(index, b"").hex() for index in range(len(spec.bundles))],
        "detached": spec.detached,
        "job_id": spec.job.process.hex(),
        "why": record.why,
    }


def _actor(record: ActorRecord) -> dict[str, Any]:
    spec = record.spec
    last = record.failure.fields if record.failure else {}  # where it was when it died
    return {
        "actor_id": record.actor.hex(),
        "class_name": spec.class_name,
        "state": record.state,
        "name": spec.name,
        "namespace": spec.namespace,
        "pid": record.pid or last.get("pid", 0),
        "node_id": record.node.hex() if record.node else last.get("node", ""),
        "job_id": spec.job.process.hex(),
        "restarts": record.restarts,
        "death_cause": record.failure.message if record.failure else "",
        "detached": spec.detached,
        "waiting": record.waiting,
        "resources": spec.running,
        "death_kind": record.failure.kind if record.failure else "",
        "env": spec.env,
        "group": spec.placement.group.hex(),
        "line": spec.line,
        "cell": spec.cell,
        "owner_id": spec.owner.process.hex(),
    }
