"""`ray.actor`: the handle's type for annotations, and how an actor ends itself."""

from __future__ import annotations

from typing import NoReturn

from nbray import session
from nbray.actors import ActorClass, ActorClassInheritanceException, ActorHandle, ActorMethod, method


def exit_actor() -> NoReturn:
    """End the actor that calls this: for good, whatever its max_restarts. Raises TypeError outside of an actor.

    Calls that run beside this one finish; what has not begun fails with ActorDiedError, and so does this call. Then
    `__ray_shutdown__` and atexit handlers run, for ACTOR_EXIT_S at most.
    """
    engine = session.engine
    if engine is None or engine.self_actor() is None:
        raise TypeError("exit_actor called outside of an actor: it ends the actor whose method calls it")
    engine.exit_actor()
    raise AssertionError("the engine's exit_actor returned")


__all__ = ["ActorClass", "ActorClassInheritanceException", "ActorHandle", "ActorMethod", "exit_actor", "method"]
