"""The least that a worker is: it says Hello, and obeys. For tests of the daemon, which knows no more of a worker than that."""

from __future__ import annotations

import os
import select
import signal
import subprocess

from nbray.ids import Address
from nbray.wire import lifeline
from nbray.wire.mailbox import Mailbox
from nbray.wire.messages import CancelTask, DefineFunction, ExitWorker, RecallTasks
from nbray.worker.boot import WorkerBoot


def run(boot: WorkerBoot) -> None:
    """CancelTask stands for a crash, DefineFunction for a print, RecallTasks for user code that starts a process and forgets it."""
    mailbox = Mailbox(Address(boot.node, boot.process), boot.directory)
    line, _, arena_fd = lifeline.connect(boot.directory, lifeline.hello("worker", boot.process))
    assert os.fstat(arena_fd).st_ino == os.fstat(boot.arena_fd).st_ino
    assert os.fstat(arena_fd).st_size == boot.arena_bytes
    print(f"worker {os.getpid()} is here", flush=True)
    while True:
        match mailbox.receive_nowait():
            case ExitWorker():
                raise SystemExit(0)
            case CancelTask():
                os.kill(os.getpid(), signal.SIGSEGV)
            case DefineFunction(name=text):
                print(text, flush=True)
            case RecallTasks():
                subprocess.Popen(["sleep", "1000"])
                # One that hides: in a session of its own, and its parent has ended.
                subprocess.run(["sh", "-c", "sleep 1001 &"], start_new_session=True, check=True)
            case None:
                if line in select.select([mailbox.fd, line], [], [])[0]:
                    raise SystemExit(1)


def refuse_to_start(_boot: WorkerBoot) -> None:
    raise ImportError("libgone.so: cannot open shared object file")
