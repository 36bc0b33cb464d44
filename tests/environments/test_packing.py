"""From a directory to a package: what belongs to it, how it is named, and what is refused."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from nbray import config
from nbray.environments import packing
from nbray.environments.cache import ARCHIVE, Cache
from nbray.environments.packing import Tree


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cache"))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def names(root: Path, *excludes: str, top: str = "") -> list[str]:
    return [file.name for file in packing.files(Tree(str(root), excludes, top))]


def test_what_gitignore_rayignore_and_excludes_name_stays_at_home(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "work",
        {
            "a.py": "", "b.log": "", "keep.log": "", "data/big.bin": "", "data/small.csv": "", "sub/.gitignore": "*.tmp\n",
            "sub/x.tmp": "", "sub/x.py": "", "x.tmp": "", ".gitignore": "*.log\n!keep.log\n", ".rayignore": "/data/*.bin\n",
            ".git/HEAD": "", "__pycache__/a.pyc": "", "secret/key": "",
        },
    )  # fmt: skip
    kept = [name for name in names(root, "secret/") if "ignore" not in name]
    assert kept == ["a.py", "data/small.csv", "keep.log", "sub/x.py", "x.tmp"]


def test_a_module_lies_below_its_own_name(tmp_path: Path) -> None:
    root = tree(tmp_path / "pkg", {"__init__.py": "", "inner/x.py": ""})
    assert names(root, top="pkg") == ["pkg/__init__.py", "pkg/inner/x.py"]


def test_links_are_followed_and_never_in_a_circle(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", {"data.csv": ""})
    root = tree(tmp_path / "work", {"sub/a.py": ""})
    (root / "data").symlink_to(tmp_path / "elsewhere")
    (root / "sub" / "circle").symlink_to(root)
    (root / "broken").symlink_to(tmp_path / "nothing")
    assert names(root) == ["data/data.csv", "sub/a.py"]


def test_the_name_follows_content_and_nothing_else(tmp_path: Path, cache: Cache) -> None:
    def uri(root: Path) -> str:
        uri, held = packing.package(packing.files(Tree(str(root))), str(root), cache)
        held.close()
        return uri

    one = tree(tmp_path / "one", {"a.py": "1", "b/c.py": "2"})
    other = tree(tmp_path / "other", {"b/c.py": "2", "a.py": "1"})
    assert uri(one) == uri(other)
    os.utime(one / "a.py", (0, 0))
    assert uri(one) == uri(other), "a time is no content"
    (other / "a.py").chmod(0o755)
    executable = uri(other)
    assert executable != uri(one)
    (one / "a.py").write_text("3")
    assert len({uri(one), uri(other), executable}) == 2


def test_the_package_has_every_file_with_its_mode(tmp_path: Path, cache: Cache) -> None:
    root = tree(tmp_path / "work", {"run.sh": "#!/bin/sh\n", "a/b.txt": "text"})
    (root / "run.sh").chmod(0o755)
    _uri, held = packing.package(packing.files(Tree(str(root))), "work", cache)
    with held, zipfile.ZipFile(f"{held.path}/{ARCHIVE}") as archive:
        assert archive.namelist() == ["a/b.txt", "run.sh"]
        assert archive.getinfo("run.sh").external_attr >> 16 & 0o111
        assert archive.read("a/b.txt") == b"text"


def test_a_signature_changes_with_every_write_and_file(tmp_path: Path) -> None:
    root = tree(tmp_path / "work", {"a.py": "1"})

    def signature() -> str:
        return packing.signature(packing.files(Tree(str(root))))

    seen = [signature()]
    (root / "b.py").write_text("")
    seen.append(signature())
    os.utime(root / "a.py", ns=(1, 1))
    seen.append(signature())
    (root / "b.py").unlink()
    seen.append(signature())
    assert len(set(seen)) == 4
    assert signature() == seen[-1]


def test_a_package_that_is_too_large_is_refused_with_its_largest_files(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "work", {"small.py": "1"})
    (root / "huge.bin").write_bytes(os.urandom(300_000))
    monkeypatch.setattr(config, "PACKAGE_BYTES", 200_000)
    with pytest.raises(ValueError, match=r"(?s)exceeds the maximum size of .*huge\.bin.*small\.py.*excludes"):
        packing.package(packing.files(Tree(str(root))), "work", cache)
    assert os.listdir(cache.root) == [], "nothing is left of it"


def test_an_empty_directory_is_refused(tmp_path: Path, cache: Cache) -> None:
    root = tree(tmp_path / "work", {"a.log": "", ".rayignore": "*\n"})
    with pytest.raises(ValueError, match="everything in it is excluded"):
        packing.package(packing.files(Tree(str(root))), "work", cache)
