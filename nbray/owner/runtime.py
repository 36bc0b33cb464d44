"""The shell around an owner: one lock, one mailbox, the threads that receive and that tidy up. It decides nothing.

user threads      step(event) under the lock, send what comes out themselves
nbray-io          receives messages; steps; tells waiters
nbray-lifeline    blocks on the daemon's lifeline; its end of file wakes nbray-io
nbray-tidy        runs callbacks, and drains dropped references of an otherwise idle process
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from nbray.exceptions import HeadUnavailableError, RaySystemError, SentToBackground
from nbray.ids import Address, ObjectId, ProcessId
from nbray.machine import Effect, Send, Tick
from nbray.owner import records as r
from nbray.owner.guard import InterruptGuard
from nbray.owner.leaving import Leaving
from nbray.owner.outgoing import Outgoing
from nbray.owner.state import OwnerState
from nbray.owner.store_client import StoreClient
from nbray.owner.waiting import INSIDE, Waiter, WaitList
from nbray.refs import ObjectRef
from nbray.store.arena import Arena
from nbray.wire import lifeline
from nbray.wire.mailbox import Mailbox, MailboxDrained
from nbray.wire.messages import ActorRejected, Failure, Message, PushCall, PushTask, RegionLoaned, StoreFull, Welcome

E = TypeVar("E", bound=Effect)
#: Dropped references of an idle process are collected this long, then released together.
TIDY_S = 0.05
#: Who calls while another cluster is started waits this long for it.
ATTACH_S = 15.0
ENLISTED_AT_ONCE = 10_000  #: objects of one wait, under the lock and the guard: some 20 ms
SHUT_DOWN = "nbray was shut down while this waited for an object, which nobody will make now; call nbray.init() to start again"


class Runtime:
    """An owner with its mailbox. `engines/native.py` gives it the port's face; `worker/` adds an executor."""

    def __init__(self, process: ProcessId, role: str, job: str = "", namespace: str = "") -> None:
        self.process = process
        self.role = role
        self.job_name = job
        self.namespace = namespace
        self.submission = ""  #: the submitted job that began this driver
        self.me = Address(b"\0" * 8, process)
        # Collecting garbage may run somebody's __del__ in the midst of a step, in the thread that holds this: such a call must
        # neither wait for itself nor step the machine. `is_inside` tells it.
        self.lock = threading.RLock()
        self.is_inside: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]
        self.state = OwnerState(self.me)
        self.guard = InterruptGuard(self.call_soon, SPARED)
        self.waiting = WaitList()
        self.leaving: Leaving | None = None  #: a driver's: whether its notebook's cell is still to wait
        self.welcome: Welcome | None = None
        self.directory = ""
        self.store: StoreClient
        self.attached = threading.Event()
        self._known = threading.Event()  #: whether we are attached is settled: cleared while another cluster may be started
        self.closing = False
        self.why_gone = ""
        self.on_message: Callable[[Message], None] = lambda _m: None  #: messages that are not the owner's
        self.on_effect: Callable[[Effect], None] = lambda _e: None  #: effects that are not Send or Ready; outside the lock
        self.on_lost: Callable[[str], None] = lambda _why: None  #: our node is gone; from nbray-io
        self.on_trouble: Callable[[str], None] = _to_stderr
        self.on_wait: Callable[[], float | None] | None = None  #: nbray-io is about to wait: after how many seconds to call again
        self.on_stepped: Callable[[], None] = lambda: None  #: nbray-io or nbray-tidy has stepped the owner
        self.on_block: Callable[[str], None] = lambda _in: None  #: a thread of this process is about to wait, in "GET" or "WAIT"
        self.on_unblock: Callable[[], None] = lambda: None
        self.on_work: Callable[[list[PushTask | PushCall]], None] = lambda _pushes: None  #: what this process is to run
        self._mailbox: Mailbox | None = None
        self._outgoing = Outgoing()
        self._line: socket.socket | None = None
        self._line_ended = False
        self._dropped: deque[ObjectId] = deque()
        self._released: deque[ObjectId] = deque()
        self._later: deque[Any] = deque()  #: facts from inside of a step
        self._tidy_due = False
        self._settle_at: float | None = None
        self._chores: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._io = 0  #: the ident of nbray-io

    # ------------------------------------------------------------------------------------------ attaching

    def attach(self, directory: str) -> None:
        """Join the node whose runtime directory this is. Raises ConnectionError with what to do about it."""
        hello = lifeline.hello(self.role, self.process, job=self.job_name, namespace=self.namespace, submission=self.submission)
        # The mailbox is bound before Hello: whoever hears of this process may write to it at once. The node's id is not known
        # before Welcome, and is only needed to tell local peers from others.
        mailbox = Mailbox(Address(b"", self.process), directory)
        try:
            line, welcome, arena_fd = lifeline.connect(directory, hello)
        except BaseException:
            mailbox.close()
            raise
        mailbox.settle(welcome.node)
        self.me = Address(welcome.node, self.process)
        with self.lock:
            self._mailbox = self._outgoing.mailbox = mailbox
            self._line, self._line_ended = line, False
            self.welcome, self.directory = welcome, directory
            mailbox.wake()  # connects us to ourselves while the directory exists
            arena = Arena(arena_fd, welcome.arena_bytes)
            os.close(arena_fd)  # the mapping has a descriptor of its own
            self.store = StoreClient(arena, welcome.node, self.process, self.post, self.guard)
            now = time.monotonic()
            self._send(self.state.handle(r.Attached(welcome.node, welcome.head), now), now)
        self.attached.set()
        self._known.set()
        self._start(f"nbray-lifeline-{directory[-6:]}", lambda: self._watch(line, mailbox))
        if len(self._threads) == 1:
            self._start("nbray-io", self._receive)
            self._start("nbray-tidy", self._tidy)

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self, line: socket.socket, mailbox: Mailbox) -> None:
        """Nothing is ever said on a lifeline after Welcome: whatever ends this wait is the node's end, or ours."""
        with contextlib.suppress(OSError):
            line.recv(1)
        line.close()
        with self.lock:
            if self._mailbox is mailbox:
                self._line_ended = True
                mailbox.wake()

    # ------------------------------------------------------------------------------------------ stepping

    def step(self, event: Any) -> None:
        """Give the machine one fact, from any thread, and carry out what it orders."""
        self.guard.enter()
        try:
            self.step_within(event)
        finally:
            self.guard.leave()

    def step_within(self, event: Any) -> None:
        """The same between the guard's `enter` and `leave`."""
        if self.is_inside():
            self.step_later(event)
            return
        with self.lock:
            rest = self._step(event)
        for effect in rest:
            self._carry_out(effect)

    def ask(self, event: Any, kind: type[E], undone: Callable[[E], Any]) -> E:
        """Step, and return the one effect of `kind` that this fact is answered with. `undone(effect)` is the fact that the asker
        never got it: an interrupt came first."""
        self.refuse_inside()
        self.guard.enter()
        answer = None
        try:
            try:
                with self.lock:
                    rest = self._step(event)
                for effect in rest:
                    if isinstance(effect, kind):
                        answer = effect
                    else:
                        self._carry_out(effect)
            finally:
                self.guard.leave()
        except BaseException:
            if answer is not None:
                self.step_later(undone(answer))
            raise
        assert answer is not None, event
        return answer

    def step_later(self, event: Any) -> None:
        """Soon, on nbray-tidy. From anywhere, also inside the lock: no lock is taken here."""
        self._later.append(event)
        self._chores.put(self._catch_up)

    def _step(self, event: Any) -> list[Effect]:
        now = time.monotonic()
        if self._dropped or self._released or self._later:
            self._drain(now)
        return self._send(self.state.handle(event, now), now)

    def _send(self, effects: list[Effect], now: float) -> list[Effect]:
        """Send at once; return the rest, for after the lock."""
        if not effects:
            return effects
        rest: list[Effect] = []
        outgoing = self._outgoing
        together: dict[Address, list[Message]] = {}
        for effect in effects:
            if type(effect) is Send:
                messages = together.get(effect.to)
                if messages is not None:
                    messages.append(effect.message)
                elif effect.soon:
                    outgoing.send_soon(effect.to, effect.message, now)
                else:
                    together[effect.to] = [effect.message]
            elif type(effect) is r.Ready:
                obj = self.state.objects.objects.get(effect.object)
                failed = obj is not None and obj.value is not None and obj.value.failure is not None
                for callback in self.waiting.ready(effect.object, failed):
                    self._chores.put(callback)
            else:
                rest.append(effect)
        for to, messages in together.items():
            outgoing.send(to, messages)
        return rest

    def flush(self) -> None:
        """What waits for company leaves now. From any thread."""
        if self._outgoing.due is not None:
            with self.locked():
                self._outgoing.flush()

    def _carry_out(self, effect: Effect) -> None:
        self.on_effect(effect)

    def _drain(self, now: float) -> None:
        dropped, released = self._dropped, self._released
        while self._later:  # before what was dropped, which it may have made
            self._chore_effects(self._send(self.state.handle(self._later.popleft(), now), now))
        if released:
            views = [released.popleft() for _ in range(len(released))]
            self._chore_effects(self._send(self.state.handle(r.ViewsReleased(views), now), now))
        if dropped:
            gone = [dropped.popleft() for _ in range(len(dropped))]
            self._chore_effects(self._send(self.state.handle(r.Dropped(gone), now), now))

    def _chore_effects(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._chores.put(lambda e=effect: self._carry_out(e))  # type: ignore[misc]

    def post(self, to: Address, message: Message) -> None:
        """Send a message that no machine decided on: questions, loans, output."""
        if self.is_inside():
            self._chores.put(lambda: self.post(to, message))
            return
        self.guard.enter()
        try:
            with self.lock:
                self._outgoing.send(to, [message])
        finally:
            self.guard.leave()

    # ------------------------------------------------------------------------------------------ references

    def forget(self, object_id: ObjectId) -> None:
        """A reference was collected. Runs anywhere, also inside the lock: no lock is taken here."""
        self._dropped.append(object_id)
        if not self._tidy_due:
            self._tidy_due = True
            self._chores.put(self._settle)

    def released(self, object_id: ObjectId) -> None:
        """A view over pinned bytes died. As `forget`."""
        self._released.append(object_id)
        if not self._tidy_due:
            self._tidy_due = True
            self._chores.put(self._settle)

    def _settle(self) -> None:
        """On nbray-tidy: let more come before releasing what no step has released meanwhile."""
        self._settle_at = time.monotonic() + TIDY_S

    def _catch_up(self) -> None:
        if self._later:
            self.step(r.Dropped([]))

    def refuse_inside(self) -> None:
        """Raise RaySystemError where waiting would be for ever: in the midst of a step, and in the thread that brings answers."""
        if self.is_inside() or threading.get_ident() == self._io:
            raise RaySystemError(INSIDE)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run `function` on nbray-tidy."""
        self._chores.put(function)

    # ------------------------------------------------------------------------------------------ waiting

    def wait_for(self, object_ids: list[ObjectId], count: int, timeout_s: float | None, local: bool, eager: bool) -> bool:
        """Wait until `count` of the distinct `object_ids` are ready (`eager`: or one has failed). False after the timeout."""
        self.refuse_inside()
        waiter, missing = Waiter(count, eager), list[ObjectId]()
        leaving = self.leaving if timeout_s != 0 else None  # who only looks waits for nothing
        done = False
        self.guard.enter()
        try:
            if not eager:
                with self.lock:
                    if self._are_ready(object_ids, count, local):
                        return True
            for first in range(0, len(object_ids), ENLISTED_AT_ONCE):
                if first:
                    self.guard.wait(_go_on)  # the stop button, between pieces of a very long list
                missing += self._enlist(object_ids[first : first + ENLISTED_AT_ONCE], waiter, local, None if missing else leaving)
                if waiter.over:
                    return True
            if not missing:
                return True
            # All under the guard but the wait itself: who says that it is blocked must say that it no longer is.
            self.on_block("GET" if eager else "WAIT")
            try:
                done = self.guard.wait(lambda: waiter.wait(timeout_s))
            finally:
                self.on_unblock()
        finally:
            if missing:
                self._forget_wait(waiter, missing, leaving)
            self.guard.leave()
        if self.closing and not waiter.over:
            raise RaySystemError(SHUT_DOWN)
        if done and waiter.given_up:
            raise SentToBackground
        return done

    def _enlist(self, object_ids: list[ObjectId], waiter: Waiter, local: bool, leaving: Leaving | None) -> list[ObjectId]:
        """`waiter` will be told of these, and of those that are ready is told at once. Returns the others. `leaving`: with them the
        wait begins."""
        with self.lock:
            now = time.monotonic()
            if self._later:
                self._drain(now)
            missing = []
            for object_id in object_ids:
                if self.is_ready(object_id, local):
                    waiter.tell(self.has_failed(object_id))
                else:
                    missing.append(object_id)
            if not missing or waiter.over:
                return []
            if self.closing:
                raise RaySystemError(SHUT_DOWN)
            if leaving is not None and leaving.cell:
                leaving.begin_wait(waiter)
            waiter.enlisted += len(missing)
            for object_id in missing:
                self.waiting.add(object_id, waiter)
            rest = self._send(self.state.handle(r.Wanted(missing, local), now), now)
            self._outgoing.flush()
        for effect in rest:
            self._carry_out(effect)
        return missing

    def _forget_wait(self, waiter: Waiter, missing: list[ObjectId], leaving: Leaving | None) -> None:
        if leaving is not None:
            leaving.end_wait(waiter)
        if waiter.enlisted:
            with self.lock:
                self.waiting.remove(missing, waiter)

    def _are_ready(self, object_ids: list[ObjectId], count: int, local: bool) -> bool:
        """Whether `count` are ready. Looks no further than it must: whoever waits for one of many comes again for each."""
        for object_id in object_ids:
            if count <= 0:
                break
            count -= self.is_ready(object_id, local)
        return count <= 0

    def is_ready(self, object_id: ObjectId, local: bool) -> bool:
        """Under the lock: whether a `get` of it would not wait."""
        obj = self.state.objects.objects.get(object_id)
        if obj is None or obj.value is None:
            return False
        return obj.value.location is None or not local or obj.pinned is not None

    def has_failed(self, object_id: ObjectId) -> bool:
        obj = self.state.objects.objects.get(object_id)
        return obj is not None and obj.value is not None and obj.value.failure is not None

    @contextlib.contextmanager
    def locked(self) -> Iterator[OwnerState]:
        """The machine, for looking at it."""
        self.guard.enter()
        try:
            with self.lock:
                yield self.state
        finally:
            self.guard.leave()

    def on_ready(self, object_id: ObjectId, callback: Callable[[], None], local: bool = True) -> None:
        with self.locked() as state:
            if not self.is_ready(object_id, local):
                self.waiting.add(object_id, callback)
                now = time.monotonic()
                rest = self._send(state.handle(r.Wanted([object_id], local), now), now)
                self._outgoing.flush()
                self._chore_effects(rest)
                return
        self._chores.put(callback)

    # ------------------------------------------------------------------------------------------ threads

    def _receive(self) -> None:
        self._io = threading.get_ident()
        while not self.closing:
            mailbox = self._mailbox
            if mailbox is None:
                self.attached.wait()  # another cluster could not be started; `init` or `close` ends this
                continue
            deadline = self.state.next_deadline()
            soon = self._outgoing.due
            if soon is not None and (deadline is None or soon < deadline):
                deadline = soon
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self.on_wait is not None and (again := self.on_wait()) is not None:
                timeout = again if timeout is None else min(timeout, again)
            try:
                messages = mailbox.receive(timeout) if timeout != 0.0 else []
            except MailboxDrained:
                return
            if messages:
                self.guard.look()
                try:
                    self._take(messages)
                except Exception:  # noqa: BLE001 -- a broken message or a bug of ours must not end all receiving
                    self.on_trouble(traceback.format_exc())
            elif self._line_ended:
                self._lose(mailbox)
            elif deadline is not None and time.monotonic() >= deadline:
                self.flush()
                self.step(Tick())

    def _take(self, messages: list[Message]) -> None:
        """Step the owner's messages of one frame under one lock; hand the others on in their order."""
        mine: list[Message] = []
        work: list[PushTask | PushCall] = []
        for message in messages:
            kind = type(message)
            if kind is PushTask or kind is PushCall:
                if mine:
                    self._step_all(mine)
                    mine = []
                work.append(message)  # type: ignore[arg-type]
                continue
            if work:
                self.on_work(work)
                work = []
            if self.state.takes(message):
                mine.append(message)
                if kind is not ActorRejected:
                    continue  # whoever asked for the name waits for its rejection as well
            if mine:
                self._step_all(mine)
                mine = []
            if isinstance(message, RegionLoaned | StoreFull):
                self.store.answered(message)
            else:
                self.on_message(message)
        if work:
            self.on_work(work)
        if mine:
            self._step_all(mine)
        self.on_stepped()

    def _step_all(self, events: list[Message]) -> None:
        with self.lock:
            now = time.monotonic()
            if self._dropped or self._released or self._later:
                self._drain(now)
            rest = self._send(self.state.handle_all(events, now), now)
            if self._outgoing.due is not None:
                self._outgoing.flush()
        for effect in rest:
            self._carry_out(effect)

    def _lose(self, mailbox: Mailbox) -> None:
        """Our node's daemon is gone, and with it every process and object on the node."""
        self._known.clear()
        self.attached.clear()
        node = self.me.node
        self.store.end()
        with self.lock:
            self._mailbox = self._outgoing.mailbox = None
            self._outgoing.flush()
            self._line_ended = False
        mailbox.close(linger=False)
        if self.closing:
            return
        self.why_gone = f"the daemon of node {node.hex()[:4]} ended"
        self.step(r.NodeLost(node, Failure("NodeDiedError", message=self.why_gone, fields={"node": node.hex()})))
        self.on_lost(self.why_gone)

    def _tidy(self) -> None:
        """Chores as they come: somebody waits for each. What was dropped is settled between them, when it is due."""
        while True:
            due = self._settle_at
            try:
                chore = self._chores.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                chore = self._settle_now
            else:
                if due is not None and time.monotonic() >= due:
                    self._settle_now()
            if chore is None:
                return
            try:
                chore()
            except Exception:  # noqa: BLE001 -- somebody's callback: the others' are still to come
                self.on_trouble(traceback.format_exc())

    def _settle_now(self) -> None:
        self._settle_at = None
        self._tidy_due = False
        if self._dropped or self._released:
            self.step(r.Dropped([]))

    def wait_attached(self, timeout_s: float = ATTACH_S) -> None:
        """API calls wait here while a new cluster is started. Raises HeadUnavailableError, at once where none will be."""
        if self.attached.is_set():
            return
        self.refuse_inside()
        settled = self._known.wait(timeout_s)
        if not self.attached.is_set():
            late = "" if settled else f", and another has been starting for {timeout_s:g} s"
            raise HeadUnavailableError(f"{self.why_gone or 'the cluster is gone'}{late}; nbray.init() attaches to a cluster again")

    def stay_detached(self, why: str) -> None:
        """No other cluster is started: whoever waits for one is told."""
        self.why_gone = why
        self._known.set()

    def abandon(self) -> None:
        """The process ends now: wait only for what has been sent to leave it. Nothing works afterwards."""
        mailbox = self._mailbox
        if mailbox is not None:
            mailbox.drain()

    def close(self) -> None:
        """Leave the node; whoever waits for an object is told. Idempotent; from any thread but ours."""
        if self.closing:
            return
        self.closing = True
        left = self._hang_up()
        with self.lock:
            for callback in self.waiting.abandon():
                self._chores.put(callback)
        self._chores.put(None)
        self.attached.set()
        self._known.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                if thread.name == "nbray-io":
                    thread.join(timeout=5)
                    left += self._hang_up()  # it was attaching to another node just then
                thread.join(timeout=5)
        for mailbox in left:
            mailbox.close()
        self.store.end()
        self.store.arena.close()
        self.guard.uninstall()

    def _hang_up(self) -> list[Mailbox]:
        """End the lifeline. The mailbox is used no more, and whoever reads it is woken: to be closed when that has ended."""
        with self.lock:
            self._outgoing.flush()
            mailbox, self._mailbox = self._mailbox, None
            self._outgoing.mailbox = None
            if mailbox is not None:
                mailbox.wake()
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)
        return [] if mailbox is None else [mailbox]


#: What finalizers call: Python would swallow what is raised there, and the count of the reference would be wrong for ever.
SPARED = frozenset(function.__code__ for function in (ObjectRef.__del__, Runtime.forget, Runtime.released))


def _go_on() -> bool:
    return True


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
