"""The cache of environments: made once, kept while it is used, removed by age."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbray.environments.cache import Cache
from nbray.wire.rundir import HostileDirectory


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cache"))


def fill(directory: str, size: int = 100) -> None:
    (Path(directory) / "content").write_bytes(bytes(size))


def test_what_is_there_is_not_made_again(cache: Cache) -> None:
    made: list[str] = []

    def make(directory: str) -> None:
        made.append(directory)
        fill(directory)

    with cache.hold("one", make) as first, cache.hold("one", make) as second:
        assert first.path == second.path
        assert os.path.exists(f"{first.path}/content")
    assert len(made) == 1


def test_a_maker_that_fails_leaves_nothing_and_the_next_one_tries_again(cache: Cache) -> None:
    def breaks(directory: str) -> None:
        fill(directory)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.hold("one", breaks)
    assert cache.find("one") is None
    with cache.hold("one", fill) as held:
        assert os.path.exists(f"{held.path}/content")


def test_what_a_maker_that_was_killed_has_left_is_cleared_away(cache: Cache) -> None:
    os.mkdir(f"{cache.root}/one")
    (Path(cache.root) / "one" / "half").write_text("")
    with cache.hold("one", fill) as held:
        assert not os.path.exists(f"{held.path}/half")


def test_what_is_used_stays_and_the_rest_goes_by_age(cache: Cache) -> None:
    for age, name in enumerate(("oldest", "middle", "newest")):
        cache.hold(name, lambda directory: fill(directory, 1000)).close()
        os.utime(f"{cache.root}/{name}.lock", (age + 1, age + 1))
    with cache.hold("used", lambda directory: fill(directory, 1000)):
        os.utime(f"{cache.root}/used.lock", (0, 0))
        assert cache.collect(2100) == ["oldest", "middle"]
        assert cache.find("oldest") is None
        assert cache.collect(0) == ["newest"]
    assert cache.collect(0) == ["used"]
    assert os.listdir(cache.root) == []


def test_another_process_that_uses_it_keeps_it_until_it_ends(cache: Cache) -> None:
    cache.hold("one", fill).close()
    program = (
        "import sys; from nbray.environments.cache import Cache\n"
        f"held = Cache({cache.root!r}).find('one'); print(held is not None, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert cache.collect(0) == []
        other.communicate()
    assert cache.collect(0) == ["one"]


def test_a_cache_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    os.chmod(tmp_path / "open", 0o755)
    with pytest.raises(HostileDirectory):
        Cache(str(tmp_path / "open"))
