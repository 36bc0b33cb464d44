"""Who is attached to this daemon: guests become members by their Hello, and are lost at the end of file.

Drivers are watched by pidfd as well: a child that the driver forked holds a copy of the socket, and would keep it open.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Callable

from nbray import config
from nbray.ids import ProcessId
from nbray.node.loop import Loop
from nbray.wire.lifeline import Guest, Listener, NotAHello
from nbray.wire.messages import Hello, Welcome

#: Connections that have not said Hello, at one time. Then the oldest goes: a process of ours says it with its first breath.
GUESTS_LIMIT = 64
#: With no file descriptor left for guests, accepting rests for this long.
REST_S = 1.0
REPORT_EVERY_S = 60.0


class Lifelines:
    """The listener, the guests and the members. The callbacks are called in the loop.

    `admit(guest, hello)` answers Welcome, or the reason of refusal; `joined(hello, pid)` and `lost(hello, pid)` follow.
    """

    def __init__(
        self,
        loop: Loop,
        directory: str,
        arena_fd: int,
        *,
        admit: Callable[[Guest, Hello], Welcome | str],
        joined: Callable[[Hello, int], None],
        lost: Callable[[Hello, int], None],
    ) -> None:
        self.members: dict[ProcessId, Guest] = {}
        self.turned_away: Counter[str] = Counter()
        self._loop = loop
        self._arena_fd = arena_fd
        self._admit, self._joined, self._lost = admit, joined, lost
        self._waiting: dict[Guest, None] = {}  #: oldest first
        self._pidfds: dict[ProcessId, int] = {}
        self._reports_at = 0.0
        self._listener = Listener(directory)
        loop.watch(self._listener, self._accept)

    def _accept(self) -> None:
        while True:
            try:
                guest = self._listener.accept_nowait()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                self._rest(f"no file descriptor is left for another process ({error.strerror}); raise ulimit -n")
                return
            if guest is None:
                break
            if len(self._waiting) >= GUESTS_LIMIT:
                self._make_room(next(iter(self._waiting)))
            self._waiting[guest] = None
            self._loop.watch(guest.connection, lambda guest=guest: self._hear(guest))  # type: ignore[misc]
            self._loop.call_later(config.PRE_AUTH_S, lambda guest=guest: self._too_late(guest))  # type: ignore[misc]
        if self._listener.strangers:
            self.turned_away["another user"] += self._listener.strangers
            self._listener.strangers = 0

    def _make_room(self, oldest: Guest) -> None:
        # It may have spoken while we accepted others.
        self._hear(oldest)
        if oldest in self._waiting:
            self._dismiss(oldest, "no Hello yet, and others wait")

    def _rest(self, why: str) -> None:
        """Stop accepting for a moment. The listener stays readable, so watching it would spin."""
        self._loop.unwatch(self._listener)
        self._loop.call_later(REST_S, self._resume)
        self._report(why)

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.watch(self._listener, self._accept)

    def _too_late(self, guest: Guest) -> None:
        if guest in self._waiting:
            self._dismiss(guest, f"no Hello within {config.PRE_AUTH_S:g} s")

    def _dismiss(self, guest: Guest, why: str) -> None:
        self._waiting.pop(guest, None)
        self._loop.unwatch(guest.connection)
        guest.close()
        if why:
            self.turned_away[why.partition(":")[0]] += 1
            self._report(f"turned away process {guest.pid}: {why}")

    def _report(self, text: str) -> None:
        """One line a minute: whoever sends garbage would like a full disk."""
        now = self._loop.now()
        if now >= self._reports_at:
            self._reports_at = now + REPORT_EVERY_S
            print(f"lifeline: {text}; so far {dict(self.turned_away)}", file=sys.stderr, flush=True)

    def _hear(self, guest: Guest) -> None:
        member = guest not in self._waiting
        try:
            hello = guest.read()
        except BlockingIOError:
            return
        except NotAHello as error:
            hello = None
            if not member:
                self._dismiss(guest, str(error))
                return
        if member:
            # End of file; or a member that speaks, which no process of ours does.
            self._lose(guest)
        elif hello is None:
            self._dismiss(guest, "")
        else:
            self._answer(guest, hello)

    def _answer(self, guest: Guest, hello: Hello) -> None:
        answer = self._admit(guest, hello)
        if isinstance(answer, str):
            self._waiting.pop(guest, None)
            self._loop.unwatch(guest.connection)
            guest.refuse(answer)
            self.turned_away["refused"] += 1
            self._report(f"refused process {guest.pid} ({hello.role}): {answer}")
            return
        try:
            guest.welcome(answer, self._arena_fd)
        except OSError:  # it hung up meanwhile
            self._dismiss(guest, "")
            return
        self._waiting.pop(guest, None)
        self.members[hello.process] = guest
        self._joined(hello, guest.pid)
        if hello.role == "driver":
            self._watch_pid(guest, hello.process)

    def _watch_pid(self, guest: Guest, process: ProcessId) -> None:
        if not hasattr(os, "pidfd_open") or guest.pid <= 0:
            return  # another pid namespace: the end of file has to do
        try:
            pidfd = os.pidfd_open(guest.pid)
        except ProcessLookupError:
            self._lose(guest)
            return
        except OSError:
            return
        self._pidfds[process] = pidfd
        self._loop.watch(pidfd, lambda: self._lose(guest))

    def _lose(self, guest: Guest) -> None:
        hello = guest.hello
        if hello is None or self.members.get(hello.process) is not guest:
            return
        self.drop(hello.process)
        self._lost(hello, guest.pid)

    def drop(self, process: ProcessId) -> None:
        """Forget a member without a word: how it ended is known otherwise."""
        guest = self.members.pop(process, None)
        if guest is not None:
            self._loop.unwatch(guest.connection)
            guest.close()
        pidfd = self._pidfds.pop(process, None)
        if pidfd is not None:
            self._loop.unwatch(pidfd)
            os.close(pidfd)

    def close(self) -> None:
        """Every member sees the end of file."""
        self._loop.unwatch(self._listener)
        self._listener.close()
        for guest in list(self._waiting):
            self._dismiss(guest, "")
        for process in list(self.members):
            self.drop(process)
