"""Packages at the head: whole or not there, held by jobs and by actors that outlive them, bounded."""

from __future__ import annotations

import pytest

from nbray import config
from nbray.head.packages import PackageRefused, Packages
from nbray.head.records import Persist

URI = "gcs://_ray_pkg_1.zip"


def put(packages: Packages, index: int, data: bytes, chunks: int = 2, uri: str = URI, job: str = "a") -> None:
    packages.put({"uri": uri, "job": job, "index": index, "chunks": chunks, "data": data})


def test_a_package_is_there_when_its_last_chunk_is() -> None:
    packages = Packages([])
    put(packages, 1, b"two")
    assert not packages.has({"uri": URI, "job": "a"})
    with pytest.raises(PackageRefused, match="not finished uploading"):
        packages.get({"uri": URI, "index": 1})
    put(packages, 0, b"one")
    assert packages.has({"uri": URI, "job": "a"})
    assert [packages.get({"uri": URI, "index": index}) for index in (0, 1)] == [(2, b"one"), (2, b"two")]


def test_it_goes_with_the_last_job_that_named_it() -> None:
    packages = Packages([])
    put(packages, 0, b"x", chunks=1)
    assert packages.has({"uri": URI, "job": "b"})
    packages.job_ended("a", [])
    assert URI in packages.held
    packages.job_ended("b", [])
    assert not packages.held


def test_an_actor_that_outlives_its_job_keeps_it() -> None:
    packages = Packages([])
    put(packages, 0, b"x", chunks=1)
    packages.job_ended("a", ['{"working_dir":"gcs://_ray_pkg_1.zip"}'])
    assert URI in packages.held
    packages.job_ended("another", [])
    assert not packages.held


def test_a_head_that_is_restarted_has_what_it_had() -> None:
    out: list[object] = []
    packages = Packages(out)  # type: ignore[arg-type]
    put(packages, 0, b"one")
    put(packages, 1, b"two")
    saved = {one.key: one.value for one in out if isinstance(one, Persist) and one.value is not None}
    again = Packages([])
    again.restore(saved, ["a"])
    assert again.get({"uri": URI, "index": 1}) == (2, b"two")


def test_the_longest_unused_makes_way_when_the_head_keeps_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "PACKAGES_HELD", 10)
    packages = Packages([])
    for number in (1, 2):
        put(packages, 0, b"1234", chunks=1, uri=f"gcs://_ray_pkg_{number}.zip")
    assert packages.has({"uri": "gcs://_ray_pkg_1.zip", "job": "a"})
    put(packages, 0, b"1234", chunks=1, uri="gcs://_ray_pkg_3.zip")
    assert list(packages.held) == ["gcs://_ray_pkg_1.zip", "gcs://_ray_pkg_3.zip"]
    with pytest.raises(PackageRefused, match="alone is over"):
        put(packages, 0, b"12345678901", chunks=1, uri="gcs://_ray_pkg_4.zip")


def test_chunks_that_cannot_be_are_refused() -> None:
    packages = Packages([])
    for index, chunks, data in ((2, 2, b""), (-1, 2, b""), (0, 10**6, b""), (0, 1, "text")):
        with pytest.raises(PackageRefused):
            put(packages, index, data, chunks)  # type: ignore[arg-type]
    assert not packages.held
