"""Where a node life stands, and who is kept out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nbray.wire import rundir

NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> str:
    return f"{tmp_path}/n"


@pytest.fixture
def place(root: str) -> Iterator[rundir.RunDirectory]:
    place = rundir.create(root)
    yield place
    place.remove()


def test_a_new_directory_is_private_locked_and_has_room_for_logs_and_spilled_objects(place: rundir.RunDirectory) -> None:
    for path in (place.path, place.logs, place.spill):
        assert os.stat(path).st_mode & 0o777 == 0o700
    assert rundir.clean_stale(os.path.dirname(place.path)) == []
    assert os.path.isdir(place.path)


def test_the_path_of_every_socket_fits(place: rundir.RunDirectory) -> None:
    assert len(os.fsencode(f"{place.path}/{'f' * 16}")) <= rundir.SOCKET_PATH_BYTES


def test_a_root_that_is_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    root = tmp_path / ("x" * 100)
    with pytest.raises(ValueError, match="too long"):
        rundir.create(str(root))
    assert not root.exists()


def test_removing_leaves_nothing_and_twice_is_once(root: str) -> None:
    place = rundir.create(root)
    Path(place.path, "socket").touch()
    place.remove()
    place.remove()
    assert os.listdir(root) == []


def plant_symlink(root: str) -> None:
    os.mkdir(f"{root}.elsewhere", 0o700)
    os.symlink(f"{root}.elsewhere", root)


def plant_dangling_symlink(root: str) -> None:
    os.symlink(f"{root}.nowhere", root)


def plant_open_directory(root: str) -> None:
    os.mkdir(root)
    os.chmod(root, 0o777)


def plant_group_readable(root: str) -> None:
    os.mkdir(root)
    os.chmod(root, 0o750)


def plant_file(root: str) -> None:
    Path(root).touch()


def plant_foreign_directory(root: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory of another user")
    os.mkdir(root, 0o700)
    os.chown(root, NOBODY, NOBODY)


@pytest.mark.parametrize(
    "plant",
    [plant_symlink, plant_dangling_symlink, plant_open_directory, plant_group_readable, plant_file, plant_foreign_directory],
)
def test_a_hostile_root_is_refused_by_name_and_left_as_it_was(plant, root: str) -> None:  # type: ignore[no-untyped-def]
    plant(root)
    before = os.lstat(root)
    with pytest.raises(rundir.HostileDirectory) as refused:
        rundir.create(root)
    assert root in str(refused.value)
    assert f"uid {before.st_uid}" in str(refused.value), "whose it is"
    after = os.lstat(root)
    assert (after.st_mode, after.st_uid, after.st_ino) == (before.st_mode, before.st_uid, before.st_ino)
    assert not os.path.exists(f"{root}.nowhere")


def test_xdg_runtime_dir_is_used_only_if_it_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    assert rundir.runtime_root() == f"{tmp_path}/nbray"
    tmp_path.chmod(0o755)
    assert rundir.runtime_root() == f"/tmp/nbray-{os.geteuid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert rundir.runtime_root() == f"/tmp/nbray-{os.geteuid()}"


def test_objects_are_not_spilled_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    place = rundir.create()
    try:
        assert place.path.startswith(f"{tmp_path}/nbray/")
        assert place.spill.startswith("/tmp/nbray-")
    finally:
        place.remove()
    assert not os.path.exists(place.spill)


def test_what_a_killed_process_left_is_removed_and_nothing_else(root: str, place: rundir.RunDirectory) -> None:
    code = "import sys, signal; from nbray.wire import rundir; print(rundir.create(sys.argv[1]).path, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stale = process.stdout.readline().strip()
        assert rundir.clean_stale(root) == [], "its process lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
    keep = [f"{root}/connections", f"{root}/r123", f"{root}/notes"]
    for path in keep:
        os.mkdir(path, 0o700)
    os.mkdir(f"{root}.target", 0o700)
    Path(f"{root}.target", "precious").touch()
    os.symlink(f"{root}.target", f"{root}/r0123456789")
    assert rundir.clean_stale(root) == [stale]
    assert not os.path.exists(stale)
    assert all(os.path.isdir(path) for path in [*keep, place.path])
    assert os.path.exists(f"{root}.target/precious")
    assert os.path.islink(f"{root}/r0123456789")


def test_creating_and_cleaning_at_the_same_time_takes_nothing_that_is_in_use(root: str) -> None:
    made: list[rundir.RunDirectory] = []
    cleaned: list[str] = []

    def create() -> None:
        for _ in range(20):
            made.append(rundir.create(root))  # noqa: PERF401 -- the other threads must see them one by one

    def clean() -> None:
        for _ in range(60):
            cleaned.extend(rundir.clean_stale(root))

    threads = [threading.Thread(target=target) for target in (create, clean, create, clean)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cleaned == []
    assert len(made) == 40
    for place in made:
        assert os.path.isdir(place.spill)
        place.remove()


def test_a_root_that_was_never_made_has_nothing_stale(root: str) -> None:
    assert rundir.clean_stale(root) == []
    assert rundir.in_use(root) == []


def test_directories_in_use_are_those_with_a_daemon_that_listens(root: str, place: rundir.RunDirectory) -> None:
    assert rundir.in_use(root) == []
    Path(place.path, rundir.LIFELINE).touch()
    assert rundir.in_use(root) == [place.path]


def test_two_that_remove_one_directory_at_the_same_time_both_succeed(tmp_path: Path) -> None:
    root_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(20):
            (tmp_path / "r0").mkdir()
            for i in range(50):
                (tmp_path / "r0" / str(i)).touch()
            with ThreadPoolExecutor(2) as pool:
                for removal in [pool.submit(rundir._remove_entry, root_fd, "r0") for _ in range(2)]:
                    removal.result()
            assert not (tmp_path / "r0").exists()
    finally:
        os.close(root_fd)
