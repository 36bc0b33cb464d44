"""Spilling to real files, and reading back what disks and people do to them."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from nbray import config
from nbray.ids import Address
from nbray.store.arena import Arena, create_arena
from nbray.store.orders import (
    Fact,
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
from nbray.store.spill import STEP_BYTES, Spiller
from nbray.store.transfer import move_chunk
from nbray.wire.messages import PushChunk

SIZE = 16 * 2**20
OBJECT = b"o" * 20


class Disk:
    """A spiller over an arena of its own; `do` waits for an order's outcome."""

    def __init__(self, directory: Path) -> None:
        fd = create_arena(SIZE)
        self.arena = Arena(fd, SIZE)
        os.close(fd)
        self.directory = directory
        self.facts: SimpleQueue[Fact] = SimpleQueue()
        self.spiller = Spiller(self.arena, directory, self.facts.put)

    def do(self, order: Spill | Restore) -> Fact:
        self.spiller.submit(order)
        return self.facts.get(timeout=30)

    def close(self) -> None:
        self.spiller.close()
        self.arena.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "spilled")
    yield made
    made.close()


def spill(disk: Disk, data: bytes, name: str = "object") -> int:
    disk.arena.write(64, data)
    done = disk.do(Spill(OBJECT, 64, len(data), name))
    assert isinstance(done, SpillDone), done
    return done.crc


@pytest.mark.parametrize("size", [0, 1, 1000, 2 * STEP_BYTES + 17])
def test_what_was_spilled_comes_back_elsewhere_in_the_arena(disk: Disk, size: int) -> None:
    data = os.urandom(size)
    crc = spill(disk, data)
    assert (disk.directory / "object").stat().st_size == size
    assert disk.do(Restore(OBJECT, 1024, size, "object", crc)) == RestoreDone(OBJECT)
    assert bytes(disk.arena.read(1024, size)) == data


def test_spilled_bytes_are_for_this_user_only(disk: Disk) -> None:
    spill(disk, b"secret")
    assert stat.S_IMODE(disk.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((disk.directory / "object").stat().st_mode) == 0o600


def test_a_flipped_byte_is_found(disk: Disk) -> None:
    crc = spill(disk, bytes(5000))
    file = disk.directory / "object"
    damaged = bytearray(file.read_bytes())
    damaged[4321] ^= 1
    file.write_bytes(damaged)
    fact = disk.do(Restore(OBJECT, 8192, 5000, "object", crc))
    assert isinstance(fact, RestoreFailed)
    assert fact.corrupt
    assert "checksum" in fact.reason


@pytest.mark.parametrize("size", [0, 4999, 5001])
def test_a_file_of_another_length_is_damaged(disk: Disk, size: int) -> None:
    crc = spill(disk, bytes(5000))
    (disk.directory / "object").write_bytes(bytes(size))
    fact = disk.do(Restore(OBJECT, 8192, 5000, "object", crc))
    assert isinstance(fact, RestoreFailed)
    assert fact.corrupt
    assert bytes(disk.arena.read(8192 + 5000, 64)) == bytes(64)


def test_a_missing_file_is_a_lost_copy(disk: Disk) -> None:
    crc = spill(disk, b"x")
    (disk.directory / "object").unlink()
    fact = disk.do(Restore(OBJECT, 8192, 1, "object", crc))
    assert isinstance(fact, RestoreFailed)
    assert fact.corrupt


def test_a_file_that_cannot_be_opened_may_be_readable_another_time(disk: Disk) -> None:
    crc = spill(disk, b"x")
    (disk.directory / "object").rename(disk.directory / "elsewhere")
    (disk.directory / "object").symlink_to(disk.directory / "elsewhere")
    fact = disk.do(Restore(OBJECT, 8192, 1, "object", crc))
    assert isinstance(fact, RestoreFailed)
    assert not fact.corrupt, "nobody's link is followed, and nothing was found damaged"


def test_a_removed_object_leaves_no_file(disk: Disk) -> None:
    spill(disk, b"x", "one")
    spill(disk, b"y", "two")
    disk.spiller.submit(RemoveSpilled("one"))
    disk.spiller.submit(RemoveSpilled("never there"))
    spill(disk, b"z", "three")
    assert sorted(file.name for file in disk.directory.iterdir()) == ["three", "two"]


def test_closing_removes_every_file_and_ends_the_thread(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "spilled")
    spill(disk, b"x")
    disk.close()
    assert list(disk.directory.iterdir()) == []
    assert "nbray-spill" not in [thread.name for thread in threading.enumerate()]


def test_spilling_stops_before_the_file_system_is_full(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DISK_STOP", 0.0)
    fact = disk.do(Spill(OBJECT, 0, 1000, "object"))
    assert isinstance(fact, SpillFailed)
    assert fact.disk_full
    assert str(disk.directory) in fact.reason
    assert "spilling stops at 0%" in fact.reason
    assert list(disk.directory.iterdir()) == []
    monkeypatch.undo()
    spill(disk, b"again")


def test_a_write_that_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    # In a process of its own: the limit on the size of files would also stop pytest.
    program = f"""
import os, resource, sys
from pathlib import Path
from queue import SimpleQueue
from nbray.store.arena import Arena, create_arena
from nbray.store.orders import Spill
from nbray.store.spill import Spiller
fd = create_arena({SIZE})
facts = SimpleQueue()
spiller = Spiller(Arena(fd, {SIZE}), Path({str(tmp_path)!r}), facts.put)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, resource.RLIM_INFINITY))
spiller.submit(Spill(b"o" * 20, 0, 10_000_000, "big"))
fact = facts.get(timeout=30)
print(type(fact).__name__, fact.disk_full, fact.reason, os.listdir({str(tmp_path)!r}))
spiller.submit(Spill(b"o" * 20, 0, 1000, "small"))
print(type(facts.get(timeout=30)).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert first == f"SpillFailed False writing to {tmp_path} failed: File too large []"
    assert second == "SpillDone"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_full_file_system_is_told_as_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        disk = Disk(small / "spilled")
        spill(disk, bytes(500_000), "first")
        fact = disk.do(Spill(OBJECT, 0, 600_000, "second"))
        assert isinstance(fact, SpillFailed)
        assert fact.disk_full
        # The same again, when the file system finds out only while it is being written.
        monkeypatch.setattr(config, "DISK_STOP", 100.0)
        fact = disk.do(Spill(OBJECT, 0, 600_000, "second"))
        assert isinstance(fact, SpillFailed)
        assert fact.disk_full
        assert "No space left" in fact.reason
        assert [file.name for file in disk.directory.iterdir()] == ["first"]
        disk.close()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_order_that_cannot_be_carried_out_still_has_an_outcome(disk: Disk) -> None:
    assert isinstance(disk.do(Spill(OBJECT, SIZE, 1, "object")), SpillFailed)
    assert isinstance(disk.do(Restore(OBJECT, SIZE, 1, "object", 0)), RestoreFailed)
    spill(disk, b"and the thread lives")


# ---------------------------------------------------------------------------------------------- chunks of a transfer


def test_a_chunk_travels_from_one_arena_into_another(disk: Disk, tmp_path: Path) -> None:
    there = Disk(tmp_path / "there")
    disk.arena.write(100, b"some bytes")
    sent: list[tuple[Address, PushChunk]] = []
    to = Address(b"node-two", b"node-two")
    move_chunk(disk.arena, SendChunk(to, b"t" * 16, OBJECT, 4, 6, 10, 104), lambda *what: sent.append(what))
    ((address, chunk),) = sent
    assert (address, chunk.offset, chunk.total, chunk.data) == (to, 4, 10, b" bytes")
    move_chunk(there.arena, WriteChunk(504, chunk.data), lambda *what: sent.append(what))
    assert bytes(there.arena.read(500, 12)) == bytes(4) + b" bytes" + bytes(2)
    assert len(sent) == 1
    there.close()
