"""What a forked worker is told by its node daemon, by way of the zygote."""

from __future__ import annotations

import msgspec

from nbray.ids import Address


class WorkerBoot(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Everything that `worker.main.run` needs. The child has its log on file descriptors 1 and 2, its own process group,
    and dies with the zygote. It binds its mailbox first and says Hello on the lifeline, as role "worker", second: it may be
    sent work as soon as it has said Hello.

    `arena_fd` is open in the child, who may close it; Welcome brings another descriptor of the same arena.
    """

    directory: str  #: the node's runtime directory: mailboxes and lifeline
    node: bytes
    process: bytes  #: the worker's own id
    head: Address
    session: str
    arena_bytes: int
    log_directory: str
    log_path: str = ""  #: filled in by the zygote: `log_directory`/worker-<pid>.log
    arena_fd: int = -1  #: filled in by the zygote
    command: str = ""  #: become this interpreter, in a shell's words; empty: stay the fork
