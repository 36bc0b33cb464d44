"""The ledger: what each party is told, in every order in which things may happen. `check()` runs after every event."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from nbray import config
from nbray.ids import Address, TaskIds, object_id
from nbray.machine import Effect, IllegalTransition, Send, Tick
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
    ChunkTaken,
    CopyMade,
    FetchObject,
    FreeObjects,
    LoanRegion,
    Location,
    NodeDied,
    ObjectPinned,
    ObjectUnavailable,
    PullObject,
    PullRefused,
    PushChunk,
    RegionLoaned,
    ReturnRegion,
    SealObject,
    StoreFull,
    Unpin,
)

KB = 1024
NODE, OTHER, THIRD = b"node-one", b"node-two", b"node-thr"
DRIVER, WORKER, READER = b"driver01", b"worker01", b"reader01"
OWNER = Address(NODE, DRIVER)
IDS = TaskIds(DRIVER)


def new_object() -> bytes:
    return object_id(IDS.next())


class Store:
    """A ledger whose disk and peers are this test. Time stands still until `at` is moved."""

    def __init__(self, size: int = 100 * KB, can_spill: bool = True, node: bytes = NODE) -> None:
        self.ledger = Ledger(node, size, can_spill)
        self.node = node
        self.at = 100.0
        self.requests = 0

    def tell(self, event: Any) -> list[Effect]:
        effects = self.ledger.handle(event, self.at)
        self.ledger.check()
        return effects

    def said(self, event: Any) -> list[Any]:
        """The messages that `event` made the ledger send."""
        return [effect.message for effect in self.tell(event) if isinstance(effect, Send)]

    def loan(self, size: int, process: bytes = WORKER) -> list[Effect]:
        self.requests += 1
        return self.tell(LoanRegion(self.requests, process, size))

    def lent(self, size: int, process: bytes = WORKER) -> RegionLoaned:
        (loaned,) = loans(self.loan(size, process))
        return loaned

    def seal(self, size: int, process: bytes = WORKER, id_: bytes | None = None) -> bytes:
        """A new object, borrowed for and sealed."""
        id_ = id_ or new_object()
        self.tell(SealObject(id_, OWNER, process, self.lent(size, process).offset, size))
        return id_

    def fetch(
        self, id_: bytes, node: bytes | None = None, size: int = 0, process: bytes = READER, writer: bytes = WORKER
    ) -> list[Effect]:
        return self.tell(FetchObject(id_, OWNER, process, Location(node or self.node, size, writer)))

    def spill_all(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Spill):
                self.spill_all(self.tell(SpillDone(effect.object, 7)))

    def wait(self) -> list[Effect]:
        """Move the clock to the next deadline."""
        deadline = self.ledger.next_deadline()
        assert deadline is not None
        assert deadline > self.at
        self.at = deadline
        return self.tell(Tick())


def messages(effects: list[Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def loans(effects: list[Effect]) -> list[RegionLoaned]:
    return [message for message in messages(effects) if isinstance(message, RegionLoaned)]


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect.message if isinstance(effect, Send) else effect) for effect in effects]


# ---------------------------------------------------------------------------------------------- loans, seals, pins


def test_a_loan_is_granted_sealed_read_and_freed() -> None:
    store = Store()
    id_ = store.seal(10 * KB)
    (pinned,) = messages(store.fetch(id_))
    assert pinned == ObjectPinned(id_, 0, 10 * KB)
    assert store.tell(FreeObjects([id_])) == []
    assert store.ledger.used == 10 * KB, "a reader still has it"
    store.tell(Unpin(READER, [id_]))
    assert store.ledger.used == 0
    assert store.ledger.stats() == {"capacity": 100 * KB, "used": 0, "pinned": 0, "lent": 0, "spilled": 0, "objects": 0}


def test_memory_of_a_freed_object_is_reused_and_known_to_be_warm() -> None:
    store = Store()
    id_ = store.seal(10 * KB)
    assert not store.lent(KB).warm
    store.tell(FreeObjects([id_]))
    again = store.lent(10 * KB)
    assert (again.offset, again.warm) == (0, True)


def test_one_loan_holds_many_objects_and_its_rest_is_returned() -> None:
    store = Store()
    region = store.lent(64 * KB)
    ids = [new_object() for _ in range(3)]
    for i in (2, 0, 1):  # threads of one process seal in any order
        store.tell(SealObject(ids[i], OWNER, WORKER, region.offset + i * KB, 1000))
    store.tell(ReturnRegion(WORKER, region.offset + 3 * KB, 61 * KB))
    assert store.ledger.used == 3 * KB
    store.tell(FreeObjects(ids))
    assert store.ledger.used == 0


def test_sealing_memory_that_was_not_lent_is_impossible_and_changes_nothing() -> None:
    store = Store()
    region = store.lent(10 * KB)
    for process, offset, size in ((READER, region.offset, KB), (WORKER, region.offset + 5 * KB, 6 * KB), (WORKER, -64, KB)):
        with pytest.raises(IllegalTransition):
            store.tell(SealObject(new_object(), OWNER, process, offset, size))
        store.ledger.check()
    with pytest.raises(IllegalTransition):
        store.tell(ReturnRegion(WORKER, region.offset, 11 * KB))
    assert store.ledger.stats()["lent"] == 10 * KB


def test_a_process_that_dies_gives_back_its_loans_and_pins_and_its_late_words_are_dropped() -> None:
    store = Store()
    region = store.lent(10 * KB)
    id_ = store.seal(20 * KB)
    store.fetch(id_, process=WORKER)
    store.fetch(id_, process=WORKER)
    store.tell(ProcessExited(WORKER))
    assert store.ledger.used == 20 * KB, "what it sealed is its owner's"
    assert store.tell(SealObject(new_object(), OWNER, WORKER, region.offset, KB)) == []
    assert store.tell(ReturnRegion(WORKER, region.offset, KB)) == []
    assert store.tell(Unpin(WORKER, [id_])) == []
    assert store.fetch(id_, process=WORKER) == []
    assert store.loan(KB) == []
    assert store.tell(ProcessExited(WORKER)) == []
    assert sum(store.ledger.dropped.values()) == 6
    store.tell(FreeObjects([id_]))
    assert store.ledger.used == 0


def test_each_fetch_is_one_pin() -> None:
    store = Store()
    id_ = store.seal(KB)
    store.fetch(id_)
    store.fetch(id_)
    store.tell(FreeObjects([id_]))
    store.tell(Unpin(READER, [id_]))
    assert store.ledger.used == KB
    store.tell(Unpin(READER, [id_]))
    assert store.ledger.used == 0
    store.tell(Unpin(READER, [id_]))
    assert store.ledger.dropped == {"Unpin": 1}


def test_objects_of_an_owner_that_died_are_freed_when_nobody_reads_them() -> None:
    store = Store()
    read, idle = store.seal(KB), store.seal(KB)
    store.fetch(read)
    store.tell(ProcessExited(DRIVER))
    assert [(entry["object"], entry["freed"]) for entry in store.ledger.objects()] == [(read, True)]
    (refused,) = messages(store.fetch(read))
    assert refused.lost
    (refused,) = messages(store.fetch(idle))
    assert refused.lost
    store.tell(Unpin(READER, [read]))
    store.seal(KB)  # a result of a task that nobody waits for any more
    assert store.ledger.used == 0


def test_an_object_of_no_bytes_can_be_sealed_read_and_freed() -> None:
    store = Store()
    id_ = store.seal(0)
    assert messages(store.fetch(id_)) == [ObjectPinned(id_, 0, 0)]
    store.tell(Unpin(READER, [id_]))
    store.tell(FreeObjects([id_]))
    assert store.ledger.used == 0


# ---------------------------------------------------------------------------------------------- before the seal


def test_a_fetch_waits_for_a_seal_that_is_on_its_way() -> None:
    store = Store()
    region, id_ = store.lent(KB), new_object()
    assert store.fetch(id_) == []
    assert store.ledger.next_deadline() is None, "a writer may take as long as it likes"
    assert messages(store.tell(SealObject(id_, OWNER, WORKER, region.offset, KB))) == [ObjectPinned(id_, region.offset, KB)]


def test_a_fetch_fails_when_the_writer_dies_before_its_seal() -> None:
    store = Store()
    store.lent(KB)
    id_ = new_object()
    store.fetch(id_)
    (answer,) = messages(store.tell(ProcessExited(WORKER)))
    assert (answer.object, answer.lost) == (id_, True)
    assert "died before it could announce it" in answer.reason
    (answer,) = messages(store.fetch(id_))
    assert "died before it could announce it" in answer.reason


def test_a_fetch_fails_when_the_writer_has_nothing_left_to_seal() -> None:
    store = Store()
    region, id_ = store.lent(KB), new_object()
    store.fetch(id_)
    (answer,) = messages(store.tell(ReturnRegion(WORKER, region.offset, KB)))
    assert (answer.object, answer.lost) == (id_, True)
    (answer,) = messages(store.fetch(id_, writer=b"nobody01"))
    assert answer.lost


def test_an_object_freed_before_its_seal_is_gone_when_the_seal_comes() -> None:
    store = Store()
    region, id_ = store.lent(2 * KB), new_object()
    store.fetch(id_)
    (answer,) = messages(store.tell(FreeObjects([id_])))
    assert answer.lost
    store.tell(SealObject(id_, OWNER, WORKER, region.offset, KB))
    assert store.ledger.stats()["objects"] == 0
    assert store.ledger.used == KB, "the rest of the loan"


def test_an_early_free_is_forgotten_with_the_writer() -> None:
    store = Store()
    store.lent(KB)
    id_ = new_object()
    store.tell(FreeObjects([id_]))
    store.tell(ProcessExited(WORKER))
    store.seal(KB, process=READER, id_=id_)
    assert store.ledger.stats()["objects"] == 1


def test_a_fetch_of_what_was_freed_is_refused_soon_and_a_late_seal_of_it_is_dropped() -> None:
    """Another attempt of its task may have made it too; nobody will ever free that copy."""
    store = Store()
    id_ = store.seal(KB)
    region = store.lent(4 * KB)  # the same writer may be about to seal it
    store.tell(FreeObjects([id_]))
    store.fetch(id_)
    store.fetch(id_)
    answers = messages(store.wait())
    assert [answer.lost for answer in answers] == [True, True]
    store.tell(SealObject(id_, OWNER, WORKER, region.offset, KB))
    assert store.ledger.stats()["objects"] == 0


def test_an_object_that_is_made_twice_keeps_its_first_bytes() -> None:
    store = Store()
    id_ = store.seal(KB)
    (before,) = messages(store.fetch(id_))
    store.seal(KB, id_=id_)
    (after,) = messages(store.fetch(id_))
    assert after.offset == before.offset
    assert store.ledger.used == KB


# ---------------------------------------------------------------------------------------------- room


def test_a_loan_larger_than_the_store_is_refused_at_once() -> None:
    store = Store()
    (full,) = messages(store.loan(101 * KB))
    assert isinstance(full, StoreFull)
    assert (full.wanted, full.capacity) == (101 * KB, 100 * KB)
    assert "whole object store" in full.reason


def test_over_the_threshold_the_least_recently_used_primary_is_spilled_first() -> None:
    store = Store()
    first, second = store.seal(30 * KB), store.seal(30 * KB)
    store.fetch(first)
    store.tell(Unpin(READER, [first]))
    id_ = new_object()
    effects = store.loan(25 * KB)
    (spill,) = [effect for effect in effects if isinstance(effect, Spill)]
    assert (spill.object, spill.size) == (second, 30 * KB)
    assert kinds(store.tell(SealObject(id_, OWNER, WORKER, loans(effects)[0].offset, 25 * KB))) == []


def test_a_spilled_object_is_read_from_memory_until_its_room_is_needed() -> None:
    store = Store()
    ids = [store.seal(30 * KB) for _ in range(2)]
    store.spill_all(store.loan(30 * KB))
    assert store.ledger.stats()["spilled"] == 30 * KB
    assert kinds(store.fetch(ids[0]))[0] is ObjectPinned
    store.tell(Unpin(READER, [ids[0]]))
    assert kinds(store.loan(30 * KB))[0] is RegionLoaned, "no wait for the disk"
    assert kinds(store.fetch(ids[0])) == [], "and now it has to wait for room"


def test_a_put_into_a_full_store_waits_while_cold_objects_are_spilled() -> None:
    store = Store()
    cold, _ = store.seal(40 * KB), store.seal(40 * KB)
    (spill,) = store.loan(40 * KB)
    assert isinstance(spill, Spill)
    assert spill.object == cold
    (loaned,) = loans(store.tell(SpillDone(cold, 7)))
    assert (loaned.offset, loaned.size) == (0, 40 * KB)


def test_when_enough_is_free_but_not_in_one_piece_spilling_goes_on() -> None:
    store = Store()
    ids = [store.seal(20 * KB) for _ in range(4)]
    effects = store.loan(50 * KB)
    assert [effect.object for effect in effects if isinstance(effect, Spill)] == ids[:2], "as much as it should take"
    assert store.tell(SpillDone(ids[0], 7)) == []
    assert kinds(store.tell(SpillDone(ids[1], 7))) == [Spill, Spill]
    (loaned,) = loans(store.tell(SpillDone(ids[2], 7)))
    assert loaned.size == 50 * KB


def test_a_spilled_object_comes_back_for_all_who_asked_with_one_read() -> None:
    store = Store()
    id_ = store.seal(60 * KB)
    store.spill_all(store.loan(50 * KB))
    region = store.lent(KB)
    store.tell(ReturnRegion(WORKER, region.offset, KB))
    assert store.fetch(id_) == []
    assert store.fetch(id_, process=DRIVER) == []
    (restore,) = store.tell(ReturnRegion(WORKER, 0, 50 * KB))
    assert isinstance(restore, Restore)
    assert (restore.object, restore.size, restore.crc) == (id_, 60 * KB, 7)
    assert store.fetch(id_) == []
    answers = store.tell(RestoreDone(id_))
    assert [(effect.to.process, type(effect.message)) for effect in answers if isinstance(effect, Send)] == [
        (READER, ObjectPinned),
        (DRIVER, ObjectPinned),
        (READER, ObjectPinned),
    ]


def test_a_loan_that_finds_no_room_is_answered_with_the_largest_holders() -> None:
    store = Store()
    big, small = store.seal(60 * KB), store.seal(20 * KB)
    store.fetch(big)
    store.fetch(small)
    store.lent(10 * KB)
    assert store.loan(50 * KB) == []
    assert store.ledger.next_deadline() == store.at + config.STORE_WAIT_S
    (full,) = messages(store.wait())
    assert isinstance(full, StoreFull)
    assert [(holder, size) for holder, size, _ in full.holders] == [
        (big, 60 * KB),
        (small, 20 * KB),
        (WORKER.ljust(20, b"\0"), 10 * KB),
    ]
    assert "alive" in full.holders[0][2]
    assert not full.disk_full
    assert store.ledger.next_deadline() is None


def test_a_waiting_loan_is_granted_when_a_reader_lets_go() -> None:
    store = Store()
    id_ = store.seal(70 * KB)
    store.fetch(id_)
    assert store.loan(50 * KB) == []
    (spill,) = store.tell(Unpin(READER, [id_]))
    assert isinstance(spill, Spill)
    assert kinds(store.tell(SpillDone(id_, 7))) == [RegionLoaned]


def test_a_small_loan_does_not_overtake_a_large_one() -> None:
    store = Store()
    id_ = store.seal(60 * KB)
    store.fetch(id_)
    assert store.loan(50 * KB) == []
    assert store.loan(KB, process=READER) == []
    store.tell(FreeObjects([id_]))
    assert [loaned.request for loaned in loans(store.tell(Unpin(READER, [id_])))] == [2, 3]


def test_a_loan_that_waits_is_forgotten_with_its_process() -> None:
    store = Store()
    id_ = store.seal(90 * KB, process=READER)
    store.fetch(id_)
    store.loan(50 * KB)
    store.tell(ProcessExited(WORKER))
    assert store.ledger.next_deadline() is None
    store.tell(FreeObjects([id_]))
    assert store.tell(Unpin(READER, [id_])) == []


def test_when_the_disk_is_full_the_memory_copy_stands_and_the_put_is_told_of_the_disk() -> None:
    store = Store()
    id_ = store.seal(70 * KB)
    (spill,) = store.loan(50 * KB)
    assert isinstance(spill, Spill)
    assert store.tell(SpillFailed(id_, "writing to /scratch failed: no space left", True)) == []
    assert kinds(store.fetch(id_)) == [ObjectPinned]
    store.tell(Unpin(READER, [id_]))
    assert store.ledger.next_deadline() == store.at + min(config.STORE_WAIT_S, config.SPILL_RETRY_S)
    full = next(message for message in messages(store.wait()) if isinstance(message, StoreFull))
    assert full.disk_full
    assert "no space left" in full.reason
    assert "no space left" in full.holders[0][2]


def test_spilling_is_tried_again_after_a_while() -> None:
    store = Store()
    id_ = store.seal(90 * KB)
    store.tell(SpillFailed(id_, "I/O error", False))
    other = store.seal(KB)
    assert store.ledger.next_deadline() == store.at + config.SPILL_RETRY_S
    (spill,) = store.wait()
    assert isinstance(spill, Spill)
    store.tell(SpillDone(spill.object, 7))
    assert {entry["object"]: entry["spilled"] for entry in store.ledger.objects()}[other] is False


def test_without_a_directory_nothing_is_spilled_and_the_put_is_told_why() -> None:
    store = Store(can_spill=False)
    store.seal(90 * KB)
    assert store.loan(50 * KB) == []
    (full,) = messages(store.wait())
    assert "no directory" in full.reason


def test_an_object_freed_while_it_is_written_out_goes_when_that_ends() -> None:
    for outcome in (lambda id_: SpillDone(id_, 7), lambda id_: SpillFailed(id_, "I/O error", False)):
        store = Store()
        id_ = store.seal(90 * KB)
        store.tell(FreeObjects([id_]))
        assert store.ledger.used == 90 * KB, "the disk's thread still reads there"
        effects = store.tell(outcome(id_))
        assert store.ledger.used == 0
        assert effects == ([RemoveSpilled(id_.hex())] if isinstance(outcome(id_), SpillDone) else [])


def test_an_object_pinned_while_it_is_written_out_stays_in_memory() -> None:
    store = Store()
    id_ = store.seal(90 * KB)
    assert kinds(store.fetch(id_)) == [ObjectPinned]
    store.tell(SpillDone(id_, 7))
    assert store.loan(50 * KB) == []
    store.tell(FreeObjects([id_]))
    assert kinds(store.tell(Unpin(READER, [id_]))) == [RemoveSpilled, RegionLoaned]


def spilled(store: Store) -> tuple[bytes, int]:
    """An object that is only on disk, and the offset of a loan of 50 KiB that keeps it there."""
    id_ = store.seal(60 * KB)
    effects = store.loan(50 * KB)
    (spill,) = effects
    assert isinstance(spill, Spill)
    (loaned,) = loans(store.tell(SpillDone(id_, 7)))
    return id_, loaned.offset


def test_a_damaged_spill_file_is_a_lost_copy() -> None:
    store = Store()
    id_, loan = spilled(store)
    store.tell(ReturnRegion(WORKER, loan, 50 * KB))
    assert kinds(store.fetch(id_)) == [Restore]
    effects = store.tell(RestoreFailed(id_, True, "checksum"))
    (answer,) = messages(effects)
    assert isinstance(answer, ObjectUnavailable)
    assert answer.lost
    assert RemoveSpilled(id_.hex()) in effects
    assert store.ledger.used == 0
    (answer,) = messages(store.fetch(id_))
    assert (answer.lost, "damaged" in answer.reason) == (True, True)


def test_a_read_that_may_work_another_time_keeps_the_file() -> None:
    store = Store()
    id_, loan = spilled(store)
    store.tell(ReturnRegion(WORKER, loan, 50 * KB))
    store.fetch(id_)
    (answer,) = messages(store.tell(RestoreFailed(id_, False, "too many open files")))
    assert not answer.lost
    assert kinds(store.fetch(id_)) == [Restore]


def test_a_restore_that_finds_no_room_says_so_and_loses_nothing() -> None:
    store = Store()
    id_, loan = spilled(store)
    assert store.fetch(id_) == []
    (answer,) = messages(store.wait())
    assert (answer.object, answer.lost) == (id_, False)
    store.tell(ReturnRegion(WORKER, loan, 50 * KB))
    assert kinds(store.fetch(id_)) == [Restore]


def test_an_object_freed_on_disk_takes_its_file_along() -> None:
    store = Store()
    id_, _ = spilled(store)
    assert store.tell(FreeObjects([id_])) == [RemoveSpilled(id_.hex())]


def test_an_object_freed_while_it_is_read_back_goes_when_that_ends() -> None:
    store = Store()
    id_, loan = spilled(store)
    store.tell(ReturnRegion(WORKER, loan, 50 * KB))
    store.fetch(id_)
    (answer,) = messages(store.tell(FreeObjects([id_])))
    assert answer.lost
    assert store.ledger.used == 60 * KB, "the disk's thread still writes there"
    assert store.tell(RestoreDone(id_)) == [RemoveSpilled(id_.hex())]
    assert store.ledger.used == 0


def test_a_restore_nobody_waits_for_any_more_is_not_begun() -> None:
    store = Store()
    id_, loan = spilled(store)
    store.fetch(id_)
    store.tell(ProcessExited(READER))
    assert store.ledger.next_deadline() is None
    assert store.tell(ReturnRegion(WORKER, loan, 50 * KB)) == []


def test_an_outcome_of_the_disk_that_nobody_ordered_is_impossible() -> None:
    store = Store()
    id_ = store.seal(KB)
    for event in (SpillDone(id_, 7), RestoreDone(id_), SpillFailed(new_object(), "", False)):
        with pytest.raises(IllegalTransition):
            store.tell(event)


# ---------------------------------------------------------------------------------------------- between nodes


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CHUNK_BYTES", 4 * KB)
    monkeypatch.setattr(config, "TRANSFER_WINDOW", 3)


def chunk(asked: PullObject, offset: int, total: int, size: int = 4 * KB) -> PushChunk:
    data = bytes([offset // KB % 251]) * min(size, total - offset)
    return PushChunk(asked.ticket, asked.object, offset, total, zlib.crc32(data), data)


def pulling(store: Store, size: int = 10 * KB) -> tuple[bytes, PullObject]:
    id_ = new_object()
    (effect,) = store.fetch(id_, node=OTHER, size=size, writer=b"remote01")
    assert isinstance(effect, Send)
    assert effect.to == Address(OTHER, OTHER)
    return id_, effect.message


def test_an_object_on_another_node_is_pulled_once_for_all_who_want_it() -> None:
    store = Store()
    id_, asked = pulling(store)
    assert (asked.object, asked.node, asked.ticket[:8]) == (id_, NODE, NODE)
    assert store.fetch(id_, node=OTHER, size=10 * KB, process=DRIVER) == []
    for offset in (8 * KB, 0):
        write, taken = store.tell(chunk(asked, offset, 10 * KB))
        assert isinstance(write, WriteChunk)
        assert write.offset == offset
        assert isinstance(taken, Send)
        assert taken == Send(Address(OTHER, OTHER), ChunkTaken(asked.ticket, offset))
    effects = store.tell(chunk(asked, 4 * KB, 10 * KB))
    assert kinds(effects) == [WriteChunk, ChunkTaken, CopyMade, ObjectPinned, ObjectPinned]
    copy = effects[2]
    assert isinstance(copy, Send)
    assert (copy.to, copy.message) == (OWNER, CopyMade(id_, NODE))
    assert kinds(store.fetch(id_, node=OTHER, size=10 * KB)) == [ObjectPinned]


def test_a_chunk_that_comes_twice_is_taken_twice_and_written_once() -> None:
    store = Store()
    _, asked = pulling(store)
    store.tell(chunk(asked, 0, 10 * KB))
    assert kinds(store.tell(chunk(asked, 0, 10 * KB))) == [ChunkTaken]


def test_an_empty_object_can_be_pulled() -> None:
    store = Store()
    _, asked = pulling(store, size=0)
    assert kinds(store.tell(chunk(asked, 0, 0))) == [ChunkTaken, CopyMade, ObjectPinned]


def test_a_damaged_chunk_starts_the_pull_again_and_three_make_the_copy_lost() -> None:
    store = Store()
    id_, asked = pulling(store)
    for _ in range(2):
        bad = chunk(asked, 0, 10 * KB)
        refused, again = store.said(PushChunk(asked.ticket, id_, 0, 10 * KB, bad.crc ^ 1, bad.data))
        assert isinstance(refused, PullRefused)
        assert isinstance(again, PullObject)
        assert again.ticket != asked.ticket
        assert store.tell(chunk(asked, 0, 10 * KB)) == [], "what comes under an old ticket is late"
        asked = again
    refused, answer = store.said(PushChunk(asked.ticket, id_, 0, 10 * KB, 1, b"x"))
    assert isinstance(refused, PullRefused)
    assert isinstance(answer, ObjectUnavailable)
    assert answer.lost
    assert store.ledger.used == 0


@pytest.mark.parametrize(
    ("offset", "total", "size"), [(-1, 10 * KB, 1), (8 * KB, 10 * KB, 3 * KB), (0, 11 * KB, KB), (0, 10 * KB, 0)]
)
def test_a_chunk_that_does_not_fit_the_object_is_never_written(offset: int, total: int, size: int) -> None:
    store = Store()
    id_, asked = pulling(store)
    data = bytes(size)
    effects = store.tell(PushChunk(asked.ticket, id_, offset, total, zlib.crc32(data), data))
    assert WriteChunk not in kinds(effects)


def test_a_pull_waits_for_room_and_secondary_copies_make_it() -> None:
    store = Store()
    old, asked = pulling(store, size=40 * KB)
    for offset in range(0, 40 * KB, 4 * KB):
        store.tell(chunk(asked, offset, 40 * KB))
    store.tell(Unpin(READER, [old]))
    primary = store.seal(40 * KB)
    _, asked = pulling(store, size=30 * KB)
    assert [entry["object"] for entry in store.ledger.objects()] == [primary], "the copy was evicted, without a word to the disk"
    (answer,) = messages(store.fetch(old, writer=b"remote01"))
    assert (answer.lost, "evicted" in answer.reason) == (True, True)
    assert store.tell(FreeObjects([old])) == []


def test_a_pull_too_large_for_this_node_is_refused_without_losing_the_copy() -> None:
    store = Store()
    (answer,) = messages(store.fetch(new_object(), node=OTHER, size=101 * KB))
    assert not answer.lost


def test_a_pull_that_finds_no_room_gives_up_without_losing_the_copy() -> None:
    store = Store()
    store.lent(90 * KB)
    id_ = new_object()
    assert store.fetch(id_, node=OTHER, size=20 * KB) == []
    (answer,) = messages(store.wait())
    assert (answer.object, answer.lost) == (id_, False)


def test_the_death_of_the_source_loses_the_copy_and_frees_the_room() -> None:
    store = Store()
    id_, asked = pulling(store)
    store.tell(chunk(asked, 0, 10 * KB))
    (answer,) = store.said(NodeDied(OTHER, "lease ran out"))
    assert (answer.object, answer.lost) == (id_, True)
    assert "lease ran out" in answer.reason
    assert store.ledger.used == 0
    (answer,) = messages(store.fetch(id_, node=OTHER, size=10 * KB))
    assert answer.lost, "asking a dead node is no use"


def test_who_named_another_source_gets_the_object_from_there() -> None:
    store = Store()
    id_, asked = pulling(store)
    assert store.fetch(id_, node=THIRD, size=10 * KB, process=DRIVER) == []
    effects = store.tell(PullRefused(asked.ticket, id_, "evicted"))
    answer, again = messages(effects)
    assert isinstance(answer, ObjectUnavailable)
    assert isinstance(again, PullObject)
    assert [effect.to for effect in effects if isinstance(effect, Send)] == [Address(NODE, READER), Address(THIRD, THIRD)]


def test_a_refused_pull_says_whether_the_copy_is_lost() -> None:
    for lost in (True, False):
        store = Store()
        id_, asked = pulling(store)
        (answer,) = store.said(PullRefused(asked.ticket, id_, "why", lost))
        assert answer.lost is lost
        assert store.ledger.used == 0


def test_a_pull_for_nobody_is_stopped_and_its_late_chunks_are_dropped() -> None:
    store = Store()
    _, asked = pulling(store)
    (refused,) = store.said(ProcessExited(READER))
    assert isinstance(refused, PullRefused)
    assert store.ledger.used == 0
    assert store.tell(chunk(asked, 0, 10 * KB)) == []
    assert store.ledger.dropped == {"PushChunk": 1}


def test_freeing_an_object_stops_its_pull() -> None:
    store = Store()
    id_, _ = pulling(store)
    refused, answer = store.said(FreeObjects([id_]))
    assert isinstance(refused, PullRefused)
    assert isinstance(answer, ObjectUnavailable)
    assert store.ledger.used == 0


def test_an_object_made_here_while_it_is_pulled_serves_those_who_wait() -> None:
    store = Store()
    id_, _ = pulling(store)
    region = store.lent(10 * KB)
    said = store.said(SealObject(id_, OWNER, WORKER, region.offset, 10 * KB))
    assert [type(message) for message in said] == [PullRefused, ObjectPinned]
    assert store.ledger.used == 10 * KB


def test_a_primary_sealed_over_a_secondary_copy_is_not_evicted_any_more() -> None:
    store = Store()
    id_, asked = pulling(store)
    for offset in range(0, 10 * KB, 4 * KB):
        store.tell(chunk(asked, offset, 10 * KB))
    store.tell(Unpin(READER, [id_]))
    store.seal(10 * KB, id_=id_)
    assert kinds(store.loan(95 * KB)) == [Spill]


def test_a_transfer_keeps_a_window_of_chunks_in_flight_and_its_object_in_memory() -> None:
    store = Store()
    id_ = store.seal(18 * KB)
    asked = PullObject(id_, OTHER, b"t" * 16)
    effects = store.tell(asked)
    assert [(effect.offset, effect.length, effect.source) for effect in effects if isinstance(effect, SendChunk)] == [
        (0, 4 * KB, 0),
        (4 * KB, 4 * KB, 4 * KB),
        (8 * KB, 4 * KB, 8 * KB),
    ]
    store.tell(FreeObjects([id_]))
    assert kinds(store.tell(ChunkTaken(asked.ticket, 4 * KB))) == [SendChunk]
    assert store.tell(ChunkTaken(asked.ticket, 4 * KB)) == [], "taken twice is taken once"
    (last,) = store.tell(ChunkTaken(asked.ticket, 0))
    assert isinstance(last, SendChunk)
    assert (last.offset, last.length, last.total) == (16 * KB, 2 * KB, 18 * KB)
    for offset in (8, 12):
        store.tell(ChunkTaken(asked.ticket, offset * KB))
        assert store.ledger.used == 18 * KB
    store.tell(ChunkTaken(asked.ticket, 16 * KB))
    assert store.ledger.used == 0


def test_a_spilled_object_is_read_back_for_a_transfer() -> None:
    store = Store()
    id_, loan = spilled(store)
    assert store.tell(PullObject(id_, OTHER, b"t" * 16)) == []
    assert kinds(store.tell(ReturnRegion(WORKER, loan, 50 * KB))) == [Restore]
    assert kinds(store.tell(RestoreDone(id_))) == [SendChunk] * 3


def test_a_transfer_ends_when_the_other_side_dies_or_refuses() -> None:
    for event in (NodeDied(OTHER, "gone"), PullRefused(b"t" * 16, new_object(), "enough")):
        store = Store()
        id_ = store.seal(18 * KB)
        store.tell(PullObject(id_, OTHER, b"t" * 16))
        store.tell(FreeObjects([id_]))
        assert store.ledger.used == 18 * KB
        store.tell(event)
        assert store.ledger.used == 0
        assert store.tell(ChunkTaken(b"t" * 16, 0)) == []


def test_a_pull_of_what_is_not_here_is_refused_at_once_or_after_a_moment_if_a_seal_may_come() -> None:
    store = Store()
    (refused,) = store.said(PullObject(new_object(), OTHER, b"a" * 16))
    assert isinstance(refused, PullRefused)
    assert refused.lost
    region, id_ = store.lent(8 * KB), new_object()
    assert store.tell(PullObject(id_, OTHER, b"b" * 16)) == []
    assert store.tell(PullObject(new_object(), OTHER, b"c" * 16)) == []
    assert kinds(store.tell(SealObject(id_, OWNER, WORKER, region.offset, 4 * KB))) == [SendChunk]
    (refused,) = messages(store.wait())
    assert refused.ticket == b"c" * 16


def test_objects_of_an_owner_on_a_dead_node_are_freed() -> None:
    store = Store()
    region, id_ = store.lent(KB), TaskIds(b"elsewher").next() + bytes(4)
    store.tell(SealObject(id_, Address(OTHER, b"elsewher"), WORKER, region.offset, KB))
    assert store.ledger.used == KB
    store.tell(NodeDied(OTHER, "gone"))
    assert store.ledger.used == 0


def test_two_ledgers_move_an_object_between_them() -> None:
    source, target = Store(node=OTHER), Store()
    id_ = source.seal(50 * KB)
    arena = {OTHER: bytearray(range(256)) * 400, NODE: bytearray(100 * KB)}
    stores = {OTHER: source, NODE: target}
    mail = [(NODE, effect) for effect in target.fetch(id_, node=OTHER, size=50 * KB)]
    pinned = None
    while mail:
        node, effect = mail.pop(0)
        if isinstance(effect, WriteChunk):
            arena[node][effect.offset : effect.offset + len(effect.data)] = effect.data
        elif isinstance(effect, SendChunk):
            data = bytes(arena[node][effect.source : effect.source + effect.length])
            message = PushChunk(effect.ticket, effect.object, effect.offset, effect.total, zlib.crc32(data), data)
            mail += [(effect.to.node, answer) for answer in stores[effect.to.node].tell(message)]
        elif isinstance(effect, Send) and effect.to.process in stores:
            mail += [(effect.to.node, answer) for answer in stores[effect.to.node].tell(effect.message)]
        elif isinstance(effect, Send) and isinstance(effect.message, ObjectPinned):
            pinned = effect.message
    assert pinned is not None
    assert arena[NODE][pinned.offset : pinned.offset + pinned.size] == arena[OTHER][: 50 * KB]
    source.tell(FreeObjects([id_]))
    assert source.ledger.used == 0, "the transfer holds it no longer"
