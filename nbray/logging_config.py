"""LoggingConfig: how `logging` writes in the driver and in every worker of its job."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from nbray import session

ENCODINGS = ("TEXT", "JSON")
#: Always written, by the names of logging.LogRecord.
_ALWAYS = ("asctime", "levelname", "message", "filename", "lineno")
STANDARD = frozenset(
    {"args", "asctime", "created", "exc_info", "exc_text", "filename", "funcName", "levelname", "levelno", "lineno", "message"}
    | {"module", "msecs", "msg", "name", "pathname", "process", "processName", "relativeCreated", "stack_info", "taskName"}
    | {"thread", "threadName"}
)


@dataclass
class LoggingConfig:
    """Given to `nbray.init(logging_config=...)`. `encoding` is TEXT or JSON, one line each; `log_level` is that of the root logger.

    Each line says where it was written: job_id, node_id, worker_id, and task_id, task_name and actor_id where there are such.
    `additional_log_standard_attrs` names further attributes of logging.LogRecord.
    """

    encoding: str = "TEXT"
    log_level: str = "INFO"
    additional_log_standard_attrs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"Invalid encoding type: {self.encoding}. Valid encoding types are: {list(ENCODINGS)}")
        for name in self.additional_log_standard_attrs:
            if name not in STANDARD:
                raise ValueError(f"Unknown python logging standard attribute: {name}. The valid attributes are: {sorted(STANDARD)}")

    def to_json(self) -> str:
        """As a worker is told of it."""
        return json.dumps([self.encoding, self.log_level, self.additional_log_standard_attrs])


def from_json(told: str) -> LoggingConfig:
    """What `to_json` wrote."""
    return LoggingConfig(*json.loads(told))


def apply(config: LoggingConfig) -> None:
    """Have the root logger of this process write so. Again: instead of what was applied before."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(handler)
    handler = _Handler()
    handler.setLevel(config.log_level)
    handler.setFormatter(_Formatter(config))
    root.setLevel(config.log_level)
    root.addHandler(handler)


class _Handler(logging.StreamHandler[Any]):
    """Writes to whatever sys.stderr is by then: a notebook, and a task whose output is shown, replace it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Formatter(logging.Formatter):
    def __init__(self, config: LoggingConfig) -> None:
        super().__init__()
        self._json = config.encoding == "JSON"
        self._more = list(config.additional_log_standard_attrs)

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created)) + f",{record.msecs:03.0f}"
        extra = {name: getattr(record, name) for name in self._more if name not in _ALWAYS} | _where()
        trouble = self.formatException(record.exc_info) if record.exc_info else ""
        if self._json:
            told: dict[str, Any] = {name: getattr(record, name) for name in _ALWAYS}
            return json.dumps({**told, **extra, **({"exc_text": trouble} if trouble else {})}, default=str)
        line = f"{record.asctime}\t{record.levelname} {record.filename}:{record.lineno} -- {record.message}"
        line += "".join(f" {name}={value}" for name, value in extra.items())
        return f"{line}\n{trouble}" if trouble else line


def _where() -> dict[str, str]:
    """Where this thread is in the cluster; {} outside of one."""
    if session.engine is None:
        return {}
    facts = session.engine.facts()
    found = {"job_id": facts.job.hex(), "node_id": facts.node.hex(), "worker_id": facts.process.hex()}
    if facts.task:
        found |= {"task_id": facts.task.hex(), "task_name": facts.task_name or ""}
    if facts.actor:
        found |= {"actor_id": facts.actor.hex(), "actor_name": facts.actor_name or ""}
    return found
