"""The trace: what happened, one record per finished task (and few others), in every process; the head gathers them.

A record is made when something ends and carries all its times, so the hot path pays for one. Times are wall-clock
nanoseconds of the process that knows them. Kept in a ring of TRACE_RECORDS.

    kind      "task", "actor", "put", "worker", "node"
    state     FINISHED, FAILED, CANCELLED; for the other kinds a word of their own
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import msgspec

from nbray import config


class TraceRecord(msgspec.Struct, array_like=True, gc=False):
    """One line of the log. Times in ns since the epoch; 0 where the stage was never reached."""

    kind: str
    id: bytes
    name: str
    state: str
    cell: str = ""
    parent: bytes = b""
    node: bytes = b""
    worker: bytes = b""
    attempt: int = 0
    submitted_ns: int = 0
    pushed_ns: int = 0
    started_ns: int = 0
    ended_ns: int = 0
    done_ns: int = 0
    cpu_ns: int = 0
    needs: list[bytes] = []
    returns: int = 0
    detail: str = ""
    actor: bytes = b""  #: of a call
    line: str = ""  #: where it was submitted
    function: str = ""  #: where the task goes by another name
    demand: dict[str, int] = {}  #: what it was given of its node while it ran, in units of sched.resources.UNIT; none for calls
    fetch_ns: int = 0  #: how long its arguments were on their way


_encode = msgspec.msgpack.Encoder().encode
_decode: msgspec.msgpack.Decoder[list[TraceRecord]] = msgspec.msgpack.Decoder(list[TraceRecord])


def wall_ns() -> int:
    """For records only: nothing is timed out by this clock."""
    return time.time_ns()


class Trace:
    """The ring of one process. `unsent` is what the head has not been given yet."""

    def __init__(self) -> None:
        self.records: deque[TraceRecord] = deque(maxlen=config.TRACE_RECORDS)
        self.unsent: deque[TraceRecord] = deque(maxlen=config.TRACE_RECORDS)
        self.added = 0

    @property
    def forgotten(self) -> int:
        """Records that made way for later ones."""
        return max(0, self.added - config.TRACE_RECORDS)

    def add(self, record: TraceRecord) -> None:
        self.added += 1
        self.records.append(record)
        self.unsent.append(record)

    def take_unsent(self, most: int = 20_000) -> bytes:
        """Up to `most` records, encoded; empty bytes when there are none."""
        batch = [self.unsent.popleft() for _ in range(min(most, len(self.unsent)))]
        return _encode(batch) if batch else b""


def decode_records(blob: bytes) -> list[TraceRecord]:
    """The records of a TraceBatch. Raises msgspec.DecodeError for anything else."""
    return _decode.decode(blob)


def as_dict(record: TraceRecord) -> dict[str, Any]:
    """For people and for JSON: ids in hex."""
    fields = msgspec.structs.asdict(record)
    return {k: v.hex() if isinstance(v, bytes) else [x.hex() for x in v] if k == "needs" else v for k, v in fields.items()}


def from_dict(told: dict[str, Any]) -> TraceRecord:
    """What `as_dict` was given."""
    ids = {name: bytes.fromhex(told[name]) for name in ("id", "parent", "node", "worker", "actor")}
    return TraceRecord(**{**told, **ids, "needs": [bytes.fromhex(each) for each in told["needs"]]})


def chrome_events(records: list[dict[str, Any]], rows: dict[tuple[str, str], int] | None = None) -> list[dict[str, Any]]:
    """Chrome's trace format, which Perfetto opens: one row per worker, complete events in microseconds, queue time beside them.

    `rows` (worker -> number) goes on from one piece of a long trace to the next.
    """
    events: list[dict[str, Any]] = []
    rows = {} if rows is None else rows
    for record in records:
        if not record["started_ns"]:
            continue
        key = (record["node"], record["worker"])
        if key not in rows:
            rows[key] = len(rows) + 1
            where = {"name": f"worker {record['worker'][:4]} on node {record['node'][:4]}"}
            events.append({"ph": "M", "name": "thread_name", "pid": 1, "tid": rows[key], "args": where})
        events.append(
            {
                "ph": "X",
                "cat": record["kind"],
                "name": record["name"],
                "pid": 1,
                "tid": rows[key],
                "ts": record["started_ns"] / 1000,
                "dur": max(0, record["ended_ns"] - record["started_ns"]) / 1000,
                "args": {
                    "task": record["id"],
                    "state": record["state"],
                    "cell": record["cell"],
                    "attempt": record["attempt"],
                    "waited_ms": max(0, record["started_ns"] - record["submitted_ns"]) / 1e6,
                    "transfer_ms": record["fetch_ns"] / 1e6,
                },
            }
        )
    return events
