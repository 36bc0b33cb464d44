"""The least that a worker is: it says Hello, and obeys ExitWorker. For tests of the daemon, which knows no more of a worker."""

from __future__ import annotations

import os
import select
import signal

from nbray.ids import Address
from nbray.wire import lifeline
from nbray.wire.mailbox import Mailbox
from nbray.wire.messages import CancelTask, ExitWorker
from nbray.worker.boot import WorkerBoot


def run(boot: WorkerBoot) -> None:
    mailbox = Mailbox(Address(boot.node, boot.process), boot.directory)
    line, _, arena_fd = lifeline.connect(boot.directory, lifeline.hello("worker", boot.process))
    assert os.fstat(arena_fd).st_size == os.fstat(boot.arena_fd).st_size == boot.arena_bytes
    print(f"worker {os.getpid()} is here", flush=True)
    while True:
        message = mailbox.receive_nowait()
        if isinstance(message, ExitWorker):
            raise SystemExit(0)
        if isinstance(message, CancelTask):  # stands for a crash
            os.kill(os.getpid(), signal.SIGSEGV)
        if message is None and line in select.select([mailbox.fd, line], [], [])[0]:
            raise SystemExit(1)
