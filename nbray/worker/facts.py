"""Where the calling thread of a worker is: in which task or actor, and what that has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nbray.engines.native import ONE_CPU
from nbray.engines.port import RuntimeFacts
from nbray.wire import messages as m

if TYPE_CHECKING:
    from nbray.worker.executor import Executor

_Push = m.PushTask | m.PushCall


def facts_of(executor: Executor) -> RuntimeFacts:
    current = executor.current.get() or executor.in_main or executor._idle
    welcome = executor.runtime.welcome
    assert welcome is not None
    push, actor, engine = current.push, executor.actor, executor.engine
    group, captures = engine.groups.here or (b"", False)
    return RuntimeFacts(
        engine.job.process,
        executor.runtime.me.node,
        executor.runtime.process,
        executor.runtime.namespace,
        welcome.session,
        task=push.task if push else None,
        task_name=push.name if push else None,
        actor=actor.id if actor else None,
        actor_name=actor.name if actor else None,
        amounts=_amounts(executor, push),
        attempt=push.attempt if push else 0,
        cancelled=current.cancelled,
        restarted=actor is not None and actor.epoch > 0,
        in_async_actor=actor is not None and actor.spec.is_async,
        group=group,
        captures=captures,
        devices=tuple(executor.share.devices),
        function_name=None if push is None else _function_name(executor, push),
        temp_dir=os.path.dirname(welcome.log_directory),
    )


def _amounts(executor: Executor, push: _Push | None) -> dict[str, int]:
    if executor.actor is not None:
        return executor.actor.spec.running
    if isinstance(push, m.PushTask):
        return ONE_CPU if push.amounts is None else push.amounts
    return {}


def _function_name(executor: Executor, push: _Push) -> str:
    if executor.actor is not None:
        cls, method = executor.actor.cls, push.method if isinstance(push, m.PushCall) else "__init__"
        return f"{cls.__module__}.{cls.__qualname__}.{method}"
    assert isinstance(push, m.PushTask)
    runs = executor.function(push.function)
    return f"{runs.__module__}.{runs.__qualname__}"
