"""A worker's life, from the fork on: mailbox, Hello, run what is sent, leave in order."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback
from typing import NoReturn

from nbray import session
from nbray.engines.native import NativeEngine
from nbray.ids import Address
from nbray.owner.runtime import Runtime
from nbray.wire.messages import ActorExiting, PushCall, PushTask
from nbray.worker import showing
from nbray.worker.actor import ActorExit
from nbray.worker.boot import WorkerBoot
from nbray.worker.executor import Executor
from nbray.worker.output import OutputSender
from nbray.worker.overheard import Listening, Log


def run(boot: WorkerBoot) -> NoReturn:
    """Be the worker that `boot` describes. Never returns; an exit code other than 0 is a crash."""
    code = 1
    try:
        code = _live(boot)
    except BaseException:  # noqa: BLE001 -- whatever it is, it belongs in the log, and the process ends
        traceback.print_exc(file=sys.__stderr__)
    os._exit(code)


def _live(boot: WorkerBoot) -> int:
    runtime = Runtime(boot.process, "worker")
    engine = NativeEngine(runtime, Address(boot.node, b"\0" * 8), is_driver=False)
    session.set_current(engine)
    executor = Executor(engine)
    output = OutputSender(runtime.post, executor.speakers.here, boot.node, Log(boot.log_path))
    listening = Listening(lambda: _overhear(executor, output), executor.is_busy)
    runtime.on_wait = listening.until_next
    executor.flush_output = lambda: output.flush(final=True)
    executor.overhear = lambda push: _task_ended(executor, output, listening, push)
    executor.send_output = executor.breakpoints.flush = output.flush
    engine.facts_here = executor.facts
    engine.task_here = executor.task_here
    engine.show_here = output.display
    engine.exit_here = lambda: _exit_actor(executor)
    engine.self_here = lambda: executor.actor.token() if executor.actor is not None else None
    engine.on_unclaimed = executor.take
    runtime.on_work = executor.take_work
    runtime.on_stepped = executor.look_at_keeps
    runtime.on_block = executor.blocked
    runtime.on_unblock = executor.unblocked
    engine.witness.running_here = executor.running_now
    runtime.on_lost = lambda _why: os._exit(1)  # the daemon is gone; the kernel may not have told us yet
    output.install()
    _exit_politely(executor, output)
    showing.install(output.display)
    executor.breakpoints.install()
    runtime.attach(boot.directory)
    executor.state.me = runtime.me
    executor.serve()
    return _leave(executor, output)


def _overhear(executor: Executor, output: OutputSender) -> bool:
    """From nbray-io, now and then."""
    heard = output.overhear(executor.speakers.others)
    if heard:
        output.flush()
    return heard


def _task_ended(executor: Executor, output: OutputSender, listening: Listening, push: PushTask | PushCall) -> None:
    output.overhear(lambda: executor.speakers.others(push))
    listening.task_ended()


def _exit_politely(executor: Executor, output: OutputSender) -> None:
    """`os._exit` in user code ends the process at once, but not before what was finished and printed earlier has left."""
    worker, leave = os.getpid(), os._exit

    def exit_after_sending(status: int) -> NoReturn:
        if os.getpid() == worker:  # a child that user code forked has no mailbox
            output.overhear(executor.speakers.others)
            output.flush(final=True)
            executor.runtime.flush()
            executor.runtime.abandon()
        leave(status)

    os._exit = exit_after_sending


def _exit_actor(executor: Executor) -> NoReturn:
    if executor.actor is None and not executor.state.is_actor:
        raise TypeError("exit_actor called on a non-actor worker: it ends the actor that calls it, so call it in an actor's method")
    # Decided here, not where the exception arrives: a bare `except` in the method changes nothing.
    executor.leave_actor(executor.current.get(), "exit_actor() was called")
    raise ActorExit


def _leave(executor: Executor, output: OutputSender) -> int:
    """An orderly end: the actor's hook, atexit handlers, the last words. The node ends whoever takes longer than ACTOR_EXIT_S."""
    actor = executor.actor
    if actor is not None and executor.state.exiting:
        executor.runtime.post(executor.state.node, ActorExiting(actor.id, actor.epoch, executor.state.exiting))
    try:
        if actor is not None and not executor.init_failed:
            actor.farewell()
    except BaseException:  # noqa: BLE001 -- the user's hook keeps neither the process nor the other hooks
        traceback.print_exc()
    try:
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 -- nor do these
        traceback.print_exc()
    output.overhear(executor.speakers.others)
    output.flush(final=True)
    with contextlib.suppress(OSError):
        executor.runtime.close()
    return executor.exit_code or 0
