"""Two ledgers, their processes, disks and mail, in any order: whoever holds a pin reads what was written, always; every fetch
and loan is answered; and when all is over no byte and no file is left.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter, deque
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbray import config
from nbray.ids import Address, object_id
from nbray.machine import Effect, Send, Tick
from nbray.store.allocator import ALIGN, aligned
from nbray.store.ledger import Ledger
from nbray.store.orders import (
    ProcessExited,
    RemoveSpilled,
    Restore,
    RestoreDone,
    RestoreFailed,
    SendChunk,
    Spill,
    SpillDone,
    SpillFailed,
    WriteChunk,
)
from nbray.wire.messages import (
    CopyMade,
    FetchObject,
    FreeObjects,
    LoanRegion,
    Location,
    NodeDied,
    ObjectPinned,
    ObjectUnavailable,
    PushChunk,
    RegionLoaned,
    ReturnRegion,
    SealObject,
    StoreFull,
    Unpin,
)

LINES = 40
NODES = (b"node-one", b"node-two")
OWNER = Address(NODES[0], b"driver01")


def content(id_: bytes, size: int) -> bytes:
    return (hashlib.blake2b(id_).digest() * (size // 64 + 1))[:size]


class Node:
    def __init__(self, name: bytes) -> None:
        self.name = name
        self.ledger = Ledger(name, LINES * ALIGN)
        self.arena = bytearray(LINES * ALIGN)
        self.files: dict[str, bytes] = {}
        self.disk: deque[Spill | Restore | RemoveSpilled] = deque()
        self.processes = [name[5:] + b"-pr" + bytes([65 + i, 65]) for i in range(3)]
        self.alive = True


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.saved = config.CHUNK_BYTES, config.TRANSFER_WINDOW
        config.CHUNK_BYTES, config.TRANSFER_WINDOW = 2 * ALIGN, 2
        self.now = 0.0
        self.nodes = {name: Node(name) for name in NODES}
        self.mail: dict[tuple[bytes, bytes], deque[Any]] = {(a, b): deque() for a in NODES for b in NODES if a != b}
        self.dead: set[bytes] = set()
        self.loans: list[tuple[bytes, bytes, int, int]] = []  # node, process, offset, size
        self.sealed: dict[bytes, Location] = {}
        self.writing: list[tuple[bytes, bytes, bytes, int, int]] = []  # node, process, object, offset, size: not announced yet
        self.copies: dict[bytes, set[bytes]] = {}
        self.pins: list[tuple[bytes, bytes, bytes, int, int]] = []  # node, process, object, offset, size
        self.fetching: Counter[tuple[bytes, bytes]] = Counter()
        self.copies_too_late: list[CopyMade] = []
        self.borrowing: set[int] = set()
        self.count = 0

    # -- carrying out

    def tell(self, name: bytes, event: Any) -> None:
        node = self.nodes[name]
        if not node.alive:
            return
        for effect in node.ledger.handle(event, self.now):
            self.carry_out(node, effect)
        node.ledger.check()
        while self.copies_too_late:
            copy = self.copies_too_late.pop()
            self.tell(copy.node, FreeObjects([copy.object]))

    def carry_out(self, node: Node, effect: Effect) -> None:
        if isinstance(effect, WriteChunk):
            node.arena[effect.offset : effect.offset + len(effect.data)] = effect.data
        elif isinstance(effect, SendChunk):
            data = bytes(node.arena[effect.source : effect.source + effect.length])
            chunk = PushChunk(effect.ticket, effect.object, effect.offset, effect.total, zlib.crc32(data), data)
            self.mail[node.name, effect.to.node].append(chunk)
        elif isinstance(effect, Spill | Restore | RemoveSpilled):
            node.disk.append(effect)
        elif isinstance(effect, Send):
            if effect.to.process in self.nodes:
                self.mail[node.name, effect.to.node].append(effect.message)
            else:
                self.hear(node, effect.to.process, effect.message)

    def hear(self, node: Node, process: bytes, message: Any) -> None:
        assert process not in self.dead
        if isinstance(message, RegionLoaned):
            self.borrowing.remove(message.request)
            self.loans.append((node.name, process, message.offset, message.size))
        elif isinstance(message, StoreFull):
            self.borrowing.remove(message.request)
        elif isinstance(message, CopyMade):
            if message.object in self.sealed:
                self.copies.setdefault(message.object, set()).add(message.node)
            else:
                self.copies_too_late.append(message)  # as every owner must: freed while the copy was being made
        elif isinstance(message, ObjectPinned):
            self.fetching[process, message.object] -= 1
            pin = (node.name, process, message.object, message.offset, message.size)
            self.pins.append(pin)
            self.look(pin)
        elif isinstance(message, ObjectUnavailable):
            self.fetching[process, message.object] -= 1
        assert all(count >= 0 for count in self.fetching.values()), "answered twice"

    def look(self, pin: tuple[bytes, bytes, bytes, int, int]) -> None:
        node, _, id_, offset, size = pin
        assert bytes(self.nodes[node].arena[offset : offset + size]) == content(id_, size), "a reader sees other bytes"

    # -- what may happen

    def running(self, name: bytes) -> list[bytes]:
        node = self.nodes[name]
        return [process for process in node.processes if process not in self.dead] if node.alive else []

    def pick(self, data: st.DataObject) -> tuple[bytes, bytes] | None:
        choices = [(name, process) for name in NODES for process in self.running(name)]
        return data.draw(st.sampled_from(choices)) if choices else None

    @rule(data=st.data(), lines=st.integers(1, LINES // 2))
    def borrow(self, data: st.DataObject, lines: int) -> None:
        if who := self.pick(data):
            self.count += 1
            self.borrowing.add(self.count)
            self.tell(who[0], LoanRegion(self.count, who[1], lines * ALIGN))

    @precondition(lambda self: self.loans)
    @rule(data=st.data(), size=st.integers(0, 20 * ALIGN))
    def write(self, data: st.DataObject, size: int) -> None:
        """Into the start of a loan; others may hear of it before it is announced."""
        node, process, offset, lent = self.loans.pop(data.draw(st.integers(0, len(self.loans) - 1)))
        size = min(size, lent)
        self.count += 1
        id_ = object_id(OWNER.process + self.count.to_bytes(8, "big"))
        self.nodes[node].arena[offset : offset + size] = content(id_, size)
        self.writing.append((node, process, id_, offset, size))
        self.sealed[id_] = Location(node, size, process)
        if aligned(size) < lent:
            self.loans.append((node, process, offset + aligned(size), lent - aligned(size)))

    @precondition(lambda self: self.writing)
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        node, process, id_, offset, size = self.writing.pop(data.draw(st.integers(0, len(self.writing) - 1)))
        self.tell(node, SealObject(id_, OWNER, process, offset, size))

    @precondition(lambda self: self.loans)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        node, process, offset, size = self.loans.pop(data.draw(st.integers(0, len(self.loans) - 1)))
        self.tell(node, ReturnRegion(process, offset, size))

    @precondition(lambda self: self.sealed)
    @rule(data=st.data(), secondary=st.booleans())
    def fetch(self, data: st.DataObject, secondary: bool) -> None:
        who = self.pick(data)
        if who is None:
            return
        id_ = data.draw(st.sampled_from(sorted(self.sealed)))
        location = self.sealed[id_]
        if secondary and self.copies.get(id_):
            location = Location(min(self.copies[id_]), location.size, location.writer)
        self.fetching[who[1], id_] += 1
        self.tell(who[0], FetchObject(id_, OWNER, who[1], location))

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        pin = self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))
        self.look(pin)
        self.tell(pin[0], Unpin(pin[1], [pin[2]]))

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.sealed)))
        for name in {self.sealed.pop(id_).node, *self.copies.pop(id_, ())}:
            self.tell(name, FreeObjects([id_]))

    @precondition(lambda self: any(node.disk for node in self.nodes.values()))
    @rule(which=st.booleans(), goes_wrong=st.sampled_from(["", "", "", "once", "for good"]))
    def disk_works(self, which: bool, goes_wrong: str) -> None:
        node = self.nodes[NODES[which]]
        if node.disk and node.alive:
            self.disk_step(node, goes_wrong)

    def disk_step(self, node: Node, goes_wrong: str) -> None:
        order = node.disk.popleft()
        if isinstance(order, RemoveSpilled):
            del node.files[order.name]
        elif isinstance(order, Spill):
            data = bytes(node.arena[order.offset : order.offset + order.size])
            assert data == content(order.object, order.size)
            if goes_wrong:
                self.tell(node.name, SpillFailed(order.object, "disk", goes_wrong == "once"))
            else:
                node.files[order.name] = data
                self.tell(node.name, SpillDone(order.object, zlib.crc32(data)))
        elif goes_wrong:
            self.tell(node.name, RestoreFailed(order.object, goes_wrong == "for good", "disk"))
        else:
            data = node.files[order.name]
            assert zlib.crc32(data) == order.crc
            node.arena[order.offset : order.offset + order.size] = data
            self.tell(node.name, RestoreDone(order.object))

    @precondition(lambda self: any(self.mail.values()))
    @rule(which=st.booleans(), count=st.integers(1, 4), damaged=st.sampled_from([False] * 9 + [True]))
    def mail_comes(self, which: bool, count: int, damaged: bool) -> None:
        to, from_ = NODES[which], NODES[not which]
        for _ in range(count):
            if self.mail[from_, to]:
                message = self.mail[from_, to].popleft()
                if damaged and isinstance(message, PushChunk):
                    message = PushChunk(
                        message.ticket, message.object, message.offset, message.total, message.crc ^ 1, message.data
                    )
                self.tell(to, message)

    @rule()
    def time_passes(self) -> None:
        deadlines = [node.ledger.next_deadline() for node in self.nodes.values() if node.alive]
        soonest = min((at for at in deadlines if at is not None), default=None)
        if soonest is not None:
            self.now = max(self.now, soonest)
            for name in NODES:
                self.tell(name, Tick())

    @rule(data=st.data())
    def process_dies(self, data: st.DataObject) -> None:
        if (who := self.pick(data)) and len(self.running(who[0])) > 1:
            self.kill(*who)

    def kill(self, name: bytes, process: bytes) -> None:
        self.dead.add(process)
        self.loans = [loan for loan in self.loans if loan[1] != process]
        self.writing = [writing for writing in self.writing if writing[1] != process]
        self.pins = [pin for pin in self.pins if pin[1] != process]
        for key in [key for key in self.fetching if key[0] == process]:
            del self.fetching[key]
        self.tell(name, ProcessExited(process))

    @precondition(lambda self: self.nodes[NODES[1]].alive and self.count > 10)
    @rule()
    def other_node_dies(self) -> None:
        gone = NODES[1]
        for process in self.running(gone):
            self.kill(gone, process)
        self.nodes[gone].alive = False
        self.mail[NODES[0], gone].clear()
        while self.mail[gone, NODES[0]]:  # what it sent is here before the word of its death
            self.tell(NODES[0], self.mail[gone, NODES[0]].popleft())
        self.tell(NODES[0], NodeDied(gone, "test"))

    # -- what must hold

    @invariant()
    def readers_see_what_was_written(self) -> None:
        for pin in self.pins:
            self.look(pin)

    def quiet(self) -> None:
        """Everything under way ends: mail, disks, and the waits that only time ends."""
        for _ in range(1000):
            for name in NODES:
                while self.nodes[name].disk and self.nodes[name].alive:
                    self.disk_step(self.nodes[name], "")
            for (_, to), letters in self.mail.items():
                while letters:
                    self.tell(to, letters.popleft())
            busy = any(self.mail.values()) or any(node.disk for node in self.nodes.values() if node.alive)
            if not busy and all(self.nodes[name].ledger.next_deadline() is None for name in NODES if self.nodes[name].alive):
                return
            if not busy:
                self.time_passes()
        raise AssertionError("it never becomes quiet")

    def teardown(self) -> None:
        try:
            while self.writing:
                node, process, id_, offset, size = self.writing.pop()
                self.tell(node, SealObject(id_, OWNER, process, offset, size))
            while self.loans:
                node, process, offset, size = self.loans.pop()
                self.tell(node, ReturnRegion(process, offset, size))
            self.quiet()
            while self.loans:  # granted meanwhile
                node, process, offset, size = self.loans.pop()
                self.tell(node, ReturnRegion(process, offset, size))
            self.quiet()
            assert not +self.fetching, "a fetch was never answered"
            for node, process, id_, _, _ in self.pins:
                self.tell(node, Unpin(process, [id_]))
            for id_, location in self.sealed.items():
                for name in {location.node, *self.copies.get(id_, ())}:
                    self.tell(name, FreeObjects([id_]))
            self.quiet()
            for node in self.nodes.values():
                if node.alive:
                    assert node.ledger.used == 0, node.ledger.objects()
                    assert node.files == {}
        finally:
            config.CHUNK_BYTES, config.TRANSFER_WINDOW = self.saved


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
