"""What a process sends: at once, or within SOON_S together with what follows to the same mailbox.

A frame costs its sender and its receiver more than a message does. Whoever knows that the receiver is busy says so (`Send.soon`);
what waits leaves when there is enough of it, with anything else to the same mailbox (the order is kept), when the sender is
about to wait itself, and at the latest at `due`, which nbray-io sees to.
"""

from __future__ import annotations

from nbray.ids import Address
from nbray.wire.mailbox import Mailbox
from nbray.wire.messages import Message

#: A message waits this long for the next one.
SOON_S = 0.001
#: And not for more than these: half of what a worker is sent ahead, so that it is never left without work.
SOON_MOST = 32


class Outgoing:
    """Under the runtime's lock."""

    def __init__(self) -> None:
        self.mailbox: Mailbox | None = None
        self.due: float | None = None  #: monotonic seconds; None while nothing waits
        self._waiting: dict[Address, list[Message]] = {}

    def send(self, to: Address, messages: list[Message]) -> None:
        """Now, after what waits for the same mailbox."""
        if self._waiting:
            before = self._waiting.pop(to, None)
            if before is not None:
                messages = before + messages
            if not self._waiting:
                self.due = None
        mailbox = self.mailbox
        if mailbox is None:
            return
        if len(messages) == 1:
            mailbox.send(to, messages[0])
        else:
            mailbox.send_all(to, messages)

    def send_soon(self, to: Address, message: Message, now: float) -> None:
        waiting = self._waiting.get(to)
        if waiting is None:
            waiting = self._waiting[to] = []
        waiting.append(message)
        if len(waiting) >= SOON_MOST:
            self.send(to, [])
        elif self.due is None:
            self.due = now + SOON_S
            if self.mailbox is not None:
                self.mailbox.wake()  # for the time
        elif now >= self.due:
            self.flush()

    def flush(self) -> None:
        """Everything leaves now."""
        for to in list(self._waiting):
            self.send(to, [])
        self.due = None
