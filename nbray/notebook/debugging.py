"""`%nbray debug`: which failure is meant, what is known of it, and running it once more here.

%nbray debug                    the latest failure, at a prompt
%nbray debug p x                one command, no prompt; also -c "up" -c "p x"
%nbray debug NAME --item K      a job's handle (or an exception), and the item of --each that failed
%nbray debug --rerun            the task again, in this process, under pdb
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import pdb  # noqa: T100 -- this is the debugger
import sys
import threading
from collections.abc import Sequence
from types import CodeType, TracebackType
from typing import Any, NamedTuple

from IPython.core import magic_arguments
from IPython.core.error import StdinNotImplementedError, UsageError
from IPython.utils._process_common import arg_split

from nbray.exceptions import PACKAGE_DIRECTORY, RayTaskError, TaskCancelledError
from nbray.notebook.arguments import parse, unquoted
from nbray.notebook.current import Notebook
from nbray.notebook.job import Failed, Job
from nbray.notebook.postmortem import SnapshotPdb
from nbray.notebook.remote_cell import compiled, namespace_of
from nbray.wire.snapshots import read

MACHINERY = (PACKAGE_DIRECTORY, pdb.__file__, pdb.bdb.__file__)  # type: ignore[attr-defined]


@magic_arguments.magic_arguments()
@magic_arguments.argument("words", nargs="*", help="a job's handle or an exception by its variable, and a command, as in: p x")
@magic_arguments.argument("-c", "--command", action="append", type=unquoted, help="a command instead of the prompt; may repeat")
@magic_arguments.argument("--item", type=int, metavar="K", help="the failed item of --each [default: the first]")
@magic_arguments.argument("--rerun", action="store_true", help="run the task here, with the same inputs, under pdb")
def debug(_line: str) -> None:
    """Look at the frames and variables of a task that failed."""


class Target(NamedTuple):
    """One failure, and the job that it is of, if it is of one."""

    error: BaseException
    job: Job | None = None
    item: int | None = None


def run(notebook: Notebook, line: str) -> None:
    """Do what `%nbray debug LINE` says. Raises UsageError where there is nothing to look at, with what there is instead."""
    given = parse(debug, _options_first(line))
    words: list[str] = given.get("words", [])
    commands: list[str] = given.get("command", [])
    named = None
    if words and isinstance(notebook.namespace.get(words[0]), Job | BaseException):
        named, words = notebook.namespace[words[0]], words[1:]
    if words:
        if not hasattr(SnapshotPdb, f"do_{words[0]}"):
            raise UsageError(
                f"{words[0]} is no job's handle, no exception and no command; commands are: where, up, down, p, list, locals"
            )
        commands = [" ".join(words), *commands]
    commands = [part.strip() for command in commands for part in command.split(";;")]
    target = _target(notebook, named, given.get("item"))
    if given.get("rerun"):
        rerun(target, commands or None)
        return
    data = target.error._snapshot if isinstance(target.error, RayTaskError) else b""
    if not data:
        raise UsageError(_no_snapshot(target))
    again = "%nbray debug --rerun" if target.item is None else f"%nbray debug --rerun --item {target.item}"
    SnapshotPdb(read(data), again).look(commands or None)


def _options_first(line: str) -> str:
    """`NAME --item 3 p x` with its options in front: argparse takes words in one piece only."""
    options: list[str] = []
    words: list[str] = []
    parts = iter(arg_split(line, strict=False))
    for part in parts:
        if part in {"-c", "--command", "--item"}:
            options += [part, *itertools.islice(parts, 1)]
        else:
            (options if part.startswith("-") else words).append(part)
    return " ".join(options + words)


def _target(notebook: Notebook, named: Job | BaseException | None, item: int | None) -> Target:
    if isinstance(named, BaseException):
        return Target(named)
    job = named or next((job for job in reversed(notebook.jobs) if job.done() and job.failures), None)
    last = getattr(sys, "last_value", None)  # of a plain task: what IPython showed
    if named is None and item is None and isinstance(last, RayTaskError) and (job is None or _newer(last, job, notebook)):
        return Target(last)
    if job is None:
        raise UsageError("nothing has failed that %nbray debug could look at: no %%remote cell, and no task whose error was shown")
    if not job.failures:
        raise UsageError(f"{job.label} is {job.status}, so there is nothing to look at")
    failed = _chosen(job, item)
    return Target(failed.error, job, failed.item)


def _newer(error: RayTaskError, job: Job, notebook: Notebook) -> bool:
    return not any(each is error for each in job.errors) and job.ended < notebook.failed_at


def _chosen(job: Job, item: int | None) -> Failed:
    if item is None:
        return next((f for f in job.failures if not isinstance(f.error, TaskCancelledError)), job.failures[0])
    for failed in job.failures:
        if failed.item == item:
            return failed
    numbers = [str(failed.item) for failed in job.failures if failed.item is not None]
    if not numbers:
        raise UsageError(f"{job.label} has no --each, so --item does not go with it")
    more = f" and {len(numbers) - 20} more" if len(numbers) > 20 else ""
    raise UsageError(f"item {item} of {job.label} did not fail; these did: {', '.join(numbers[:20])}{more}")


def _no_snapshot(target: Target) -> str:
    error, job = target.error, target.job
    if not isinstance(error, RayTaskError):
        return f"{type(error).__name__} was raised by no code of a task, so there are no frames to look at: {str(error)[:300]}"
    if job is None:
        return (
            "the task kept no frames: of a cell's plain tasks each worker keeps those of the first failures; it keeps all where "
            "NBRAY_ON_ERROR=snapshot is in its environment, as in "
            'f.options(runtime_env={"env_vars": {"NBRAY_ON_ERROR": "snapshot"}})'
        )
    if job.plan.options.on_error == "plain":
        return f"{job.label} ran with --on-error plain, so it kept no frames; %nbray debug --rerun runs it here"
    return (
        f"{job.label} kept no frames of this failure: a task keeps those of its first failed items, and a job a bounded number in "
        "all; choose another with --item, or %nbray debug --rerun runs it here"
    )


# -------------------------------------------------------------------------------------------------- once more


class _Here(pdb.Pdb):
    def __init__(self, commands: Sequence[str] | None) -> None:
        super().__init__(readrc=False, nosigint=True)
        if commands is not None:
            self.cmdqueue += [*commands, "quit"]


def rerun(target: Target, commands: Sequence[str] | None) -> None:
    """Run a job's task in this process: it stops at the cell's first line, and where it raises. Binds nothing in the notebook."""
    job = target.job
    if job is None:
        raise UsageError("--rerun is for %%remote cells: of a plain task the notebook does not keep the arguments")
    if job.again is None:
        why = (
            "ran in an actor, whose state is there"
            if job.plan.place.actor is not None
            else "let its inputs go when a later cell failed"
        )
        raise UsageError(f"{job.label} cannot run here: it {why}")
    task, references = job.again
    extra = {task.item: job.plan.items[target.item]} if job.plan.items is not None and target.item is not None else {}
    namespace, _ = namespace_of(task, job.engine.get(references, None) if references else [], extra)
    code, debugger = compiled(task), _Here(commands)
    try:
        if code.co_flags & inspect.CO_COROUTINE:
            # The kernel's own loop runs in this thread; so no stepping, and the prompt opens where it raises.
            raised = _awaited(code, namespace)
        else:
            raised = _stepped(debugger, code, namespace)
        if raised is None:
            return
        print(f"{type(raised).__name__}: {raised}")
        trace = raised.__traceback__
        while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(MACHINERY):
            trace = trace.tb_next
        _ask(debugger, trace)
    except StdinNotImplementedError:
        print('This front end takes no input. Say what to do in the line: %nbray debug --rerun -c "continue" -c "p x"')
    finally:
        sys.settrace(None)


def _stepped(debugger: pdb.Pdb, code: CodeType, namespace: dict[str, Any]) -> BaseException | None:
    try:
        debugger.run(code, namespace)  # bdb executes code as well as text
    except StdinNotImplementedError:
        raise
    except KeyboardInterrupt:
        print("left the debugger")
        return None
    except BaseException as error:  # noqa: BLE001 -- whatever the user's cell raises is what is looked at
        return error
    if not debugger.quitting:
        print("it did not fail here")
    return None


def _awaited(code: CodeType, namespace: dict[str, Any]) -> BaseException | None:
    raised: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(eval(code, namespace))  # the user's own cell
        except BaseException as error:  # noqa: BLE001 -- as above
            raised.append(error)

    thread = threading.Thread(target=body, name="nbray-rerun", daemon=True)
    thread.start()
    thread.join()
    if not raised:
        print("it did not fail here")
    return raised[0] if raised else None


def _ask(debugger: pdb.Pdb, trace: TracebackType | None) -> None:
    debugger.reset()
    try:
        debugger.interaction(None, trace)
    except KeyboardInterrupt:
        print("left the debugger")
