"""Looking at a cluster without being part of its work: the command line and the panel ask and end, they submit nothing."""

from __future__ import annotations

import os
import time
from typing import Any, Self

from nbray.ids import Address, new_process_id
from nbray.wire import lifeline
from nbray.wire.mailbox import Mailbox
from nbray.wire.messages import Answer, Ask

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

    def ask(self, what: str, **arguments: Any) -> Any:
        """The head's answer. Raises ConnectionError when none comes within ANSWER_S and the `patience_s` of the question,
        ValueError with the head's refusal."""
        self._requests += 1
        answer_s = ANSWER_S + float(arguments.get("patience_s", 0))
        self._mailbox.send(self.welcome.head, Ask(self._requests, self._mailbox.address, what, arguments))
        deadline = time.monotonic() + answer_s
        while (left := deadline - time.monotonic()) > 0:
            for message in self._mailbox.receive(left):
                if isinstance(message, Answer) and message.request == self._requests:
                    if message.error:
                        raise ValueError(message.error)
                    return message.result
        raise ConnectionError(
            f"the head did not answer within {answer_s:g} s; the node daemon in {self.directory} (pid {self.pid}) does"
        )

    def close(self) -> None:
        self._mailbox.close()
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
