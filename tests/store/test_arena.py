"""The arena, in real shared memory and real processes."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nbray.store import arena as arena_module
from nbray.store.arena import TWO_THREADS_FROM, Arena, create_arena

SIZE = 1 << 20


@pytest.fixture
def arena() -> Iterator[Arena]:
    fd = create_arena(SIZE)
    made = Arena(fd, SIZE)
    os.close(fd)
    yield made
    made.close()


def test_the_arena_can_neither_shrink_nor_grow_under_its_readers() -> None:
    fd = create_arena(SIZE)
    for size in (SIZE - 4096, SIZE + 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_without_memfd_the_arena_is_a_file_without_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(arena_module.tempfile, "tempdir", str(tmp_path))
    fd = create_arena(SIZE)
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(fd).st_blocks * 512 >= SIZE, "a hole would be SIGBUS when the disk is full"
    arena = Arena(fd, SIZE)
    arena.write(SIZE - 3, b"end")
    assert os.pread(fd, 3, SIZE - 3) == b"end"
    os.close(fd)


def test_two_mappings_of_one_arena_see_each_others_bytes() -> None:
    fd = create_arena(SIZE)
    one, other = Arena(fd, SIZE), Arena(fd, SIZE)
    os.close(fd)
    assert one.write(128, b"hello") == 5
    assert bytes(other.read(128, 5)) == b"hello"


def test_an_arena_that_is_smaller_than_announced_is_refused_before_it_can_kill() -> None:
    fd = create_arena(4096)
    with pytest.raises(ValueError, match="would be fatal"):
        Arena(fd, 8192)
    os.close(fd)


def test_buffers_of_any_type_and_shape_are_written_as_bytes(arena: Arena) -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert arena.write(0, memoryview(matrix)) == 48
    assert bytes(arena.read(0, 48)) == matrix.tobytes()
    assert arena.write(64, bytearray(b"xyz")) == 3
    assert arena.write(64, b"") == 0
    assert bytes(arena.read(64, 3)) == b"xyz"


@pytest.mark.parametrize(("offset", "size"), [(-1, 4), (SIZE - 3, 4), (SIZE + 1, 0), (0, SIZE + 1), (0, -1)])
def test_a_range_outside_the_arena_is_refused(arena: Arena, offset: int, size: int) -> None:
    with pytest.raises(ValueError, match="not inside the arena"):
        arena.read(offset, size)
    with pytest.raises(ValueError, match="not inside the arena"):
        arena.pinned_view(offset, size, lambda: None)


def test_a_large_buffer_arrives_whole() -> None:
    size = TWO_THREADS_FROM + 12345
    fd = create_arena(size + 200)
    arena = Arena(fd, size + 200)
    os.close(fd)
    data = np.random.default_rng(1).integers(0, 255, size, np.uint8)
    assert arena.write(64, memoryview(data)) == size
    assert np.array_equal(np.frombuffer(arena.read(64, size), np.uint8), data)
    assert bytes(arena.read(0, 64)) == bytes(64)
    assert bytes(arena.read(64 + size, 136)) == bytes(136)


def test_views_cannot_be_written_through(arena: Arena) -> None:
    for view in (arena.read(0, 8), arena.pinned_view(0, 8, lambda: None)):
        assert view.readonly
        assert not np.frombuffer(view, np.uint8).flags.writeable
        with pytest.raises(TypeError):
            view[0] = 1


def test_a_pin_lasts_until_the_last_slice_of_the_last_array_dies(arena: Arena) -> None:
    released: list[int] = []
    arena.write(64, bytes(range(100)))
    view = arena.pinned_view(64, 100, lambda: released.append(1))
    array = np.frombuffer(view, np.uint8)
    part = array[10:20].reshape(2, 5)[1]
    del view, array
    gc.collect()
    assert released == []
    assert part.tolist() == [15, 16, 17, 18, 19]
    del part
    gc.collect()
    assert released == [1]


def test_arrays_unpickled_over_a_view_pin_it(arena: Arena) -> None:
    released: list[int] = []
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps({"a": np.arange(1000.0), "b": b"x"}, 5, buffer_callback=buffers.append)
    (raw,) = (buffer.raw() for buffer in buffers)
    arena.write(0, raw)
    value = pickle.loads(data, buffers=[arena.pinned_view(0, raw.nbytes, lambda: released.append(1))])
    part = value["a"][5:10]
    del value
    gc.collect()
    assert released == []
    assert part.tolist() == [5, 6, 7, 8, 9]
    del part
    gc.collect()
    assert released == [1]


def test_a_view_that_nobody_reads_is_released_when_it_is_dropped(arena: Arena) -> None:
    released: list[int] = []
    arena.pinned_view(0, 0, lambda: released.append(1))
    assert released == [1]


def test_a_view_outlives_the_closing_of_its_arena(arena: Arena) -> None:
    arena.write(0, b"still here")
    view = arena.pinned_view(0, 10, lambda: None)
    arena.close()
    arena.close()
    assert bytes(view) == b"still here"
    with pytest.raises(ValueError, match="closed"):
        arena.read(0, 1)


def test_closing_unmaps_once_no_view_is_left() -> None:
    def mappings() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:nbray-arena")

    before = mappings()
    fd = create_arena(SIZE)
    arena = Arena(fd, SIZE)
    os.close(fd)
    view = arena.pinned_view(0, 10, lambda: None)
    arena.close()
    assert mappings() == before + 1
    del view
    assert mappings() == before


def test_many_threads_write_their_own_regions_at_once() -> None:
    part = TWO_THREADS_FROM
    fd = create_arena(4 * part)
    arena = Arena(fd, 4 * part)
    os.close(fd)
    threads = [threading.Thread(target=arena.write, args=(i * part, bytes([i + 1]) * part)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = np.frombuffer(arena.read(0, 4 * part), np.uint8).reshape(4, part)
    assert [(row.min(), row.max()) for row in whole] == [(i, i) for i in (1, 2, 3, 4)]


def test_a_process_that_only_reads_and_writes_chunks_does_not_load_numpy() -> None:
    program = (
        "import os, sys\n"
        "from nbray.store import arena, ledger, spill, transfer\n"
        "fd = arena.create_arena(1 << 23); a = arena.Arena(fd, 1 << 23)\n"
        "a.write(0, bytes(4 << 20)); a.read(0, 100)\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_core_dump_leaves_the_arena_out(arena: Arena) -> None:
    assert hasattr(mmap, "MADV_DONTDUMP")
    arena.write(0, b"x")
    lines = Path("/proc/self/smaps").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "memfd:nbray-arena" in line)
    flags = next(line for line in lines[at:] if line.startswith("VmFlags"))
    assert "dd" in flags.split()
