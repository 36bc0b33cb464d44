"""Looking at a cluster without being part of its work: the command line and the panel ask and end, they submit nothing."""

from __future__ import annotations

import os
import time
from typing import Any, Self

from nbray.ids import Address, new_process_id, short
from nbray.wire import lifeline
from nbray.wire.mailbox import Mailbox
from nbray.wire.messages import Answer, Ask, Message

ANSWER_S = 5.0


class Viewer:
    """An attachment to the node daemon in `directory`. One thread at a time; close it, or use it as a context manager."""

    def __init__(self, directory: str) -> None:
        """Raises ConnectionError when no daemon answers there, HostileDirectory when the directory is not ours."""
        process = new_process_id()
        self.directory = directory
        # Bound before Hello, as every mailbox is; the node's id comes with Welcome.
        self._mailbox = Mailbox(Address(b"", process), directory)
        try:
            self._line, self.welcome, arena = lifeline.connect(directory, lifeline.hello("viewer", process))
        except BaseException:
            self._mailbox.close()
            raise
        os.close(arena)
        self.pid, _ = lifeline.peer_of(self._line)
        self._mailbox.settle(self.welcome.node)
        self._requests = 0
        self._abandoned = False
        self._mailbox.wake()  # connects us to ourselves, so that `abandon` is no more than a word

    def ask(self, what: str, **arguments: Any) -> Any:
        """The head's answer. Raises ConnectionError when none comes within ANSWER_S and the `patience_s` of the question,
        ValueError with the head's refusal."""
        return self.ask_at(self.welcome.head, ANSWER_S + float(arguments.get("patience_s", 0)), what, arguments)

    def ask_at(self, whom: Address, patience_s: float, what: str, arguments: dict[str, Any]) -> Any:
        """The answer of the head or of a node. Raises as `ask` does."""
        self._requests += 1
        self._mailbox.send(whom, Ask(self._requests, self._mailbox.address, what, arguments))
        deadline = time.monotonic() + patience_s
        while not self._abandoned:
            left = deadline - time.monotonic()
            # Also when it is over: on a busy machine this thread may be the one that is late, and the answer here.
            messages = self._mailbox.receive(max(0.0, left))
            for message in messages:
                if isinstance(message, Answer) and message.request == self._requests:
                    if message.error:
                        raise ValueError(message.error)
                    return message.result
            if left <= 0 and not messages:
                break
        if self._abandoned:
            raise ConnectionAbortedError("nobody waits for this answer any more")
        asked = "the head" if whom == self.welcome.head else f"node {short(whom.node)}"
        raise ConnectionError(
            f"{asked} did not answer within {patience_s:g} s; the node daemon in {self.directory} (pid {self.pid}) does"
        )

    def tell(self, message: Message) -> None:
        """Say something to the head; what is asked afterwards it hears afterwards."""
        self._mailbox.send(self.welcome.head, message)

    def fileno(self) -> int:
        """Of the lifeline: it becomes readable when the daemon ends."""
        return self._line.fileno()

    def abandon(self) -> None:
        """A question that another thread of this process waits for ends with ConnectionAbortedError; so do all later ones."""
        self._abandoned = True
        self._mailbox.wake()

    def close(self) -> None:
        self._mailbox.close()
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
