"""Packages of runtime environments that drivers have uploaded: kept in chunks while a job that named them runs, or an actor that
needs them lives. Pure.

package_has    uri, job                            -> whether all of it is here; from then on it is held for the job
package_put    uri, job, index, chunks, data       -> None; the package is here when its last chunk is
package_get    uri, index                          -> [chunks, data]
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from nbray import config
from nbray.head.records import Persist
from nbray.machine import Effect

TABLE = "packages"


class PackageRefused(ValueError):
    """The asker is told this text."""


class Package(msgspec.Struct, gc=False):
    """One package. `pieces` has one entry per chunk, None for those that have not come."""

    pieces: list[bytes | None]
    jobs: set[str] = set()  #: those that hold it: drivers in hex, submitted jobs as `holder_of` says

    @property
    def is_whole(self) -> bool:
        return None not in self.pieces

    @property
    def size(self) -> int:
        return sum(len(piece) for piece in self.pieces if piece is not None)


class Packages:
    """By URI, the longest unused first. The name is a hash of the content, so whoever uploads one again uploads the same."""

    def __init__(self, out: list[Effect]) -> None:
        self.out = out
        self.held: dict[str, Package] = {}

    def has(self, arguments: dict[str, Any]) -> bool:
        package = self._used(str(arguments["uri"]))
        if package is None or not package.is_whole:
            return False
        package.jobs.add(str(arguments["job"]))
        return True

    def _used(self, uri: str) -> Package | None:
        package = self.held.pop(uri, None)
        if package is not None:
            self.held[uri] = package  # the latest used is the last to go
        return package

    def put(self, arguments: dict[str, Any]) -> None:
        uri, index, chunks, data = str(arguments["uri"]), int(arguments["index"]), int(arguments["chunks"]), arguments["data"]
        if not isinstance(data, bytes) or len(data) > config.PACKAGE_CHUNK or not 0 <= index < chunks:
            raise PackageRefused(f"chunk {index} of {chunks} of {uri} is no chunk")
        if chunks * config.PACKAGE_CHUNK > config.PACKAGE_BYTES + config.PACKAGE_CHUNK:
            raise PackageRefused(f"{uri} exceeds the maximum size of {config.PACKAGE_BYTES / 2**20:.2f}MiB")
        package = self.held.pop(uri, None)
        if package is None or len(package.pieces) != chunks:
            package = Package([None] * chunks, set())
        self.held[uri] = package
        self._make_room(len(data), uri)
        package.pieces[index] = data
        package.jobs.add(str(arguments["job"]))
        self.out.append(Persist(TABLE, _key(uri, index), msgspec.msgpack.encode((chunks, data))))

    def _make_room(self, size: int, keep: str) -> None:
        """Packages that were used the longest ago go first: a notebook that is edited all day uploads one after each edit, and
        nodes that have begun with one have it."""
        while sum(package.size for package in self.held.values()) + size > config.PACKAGES_HELD:
            oldest = next(iter(self.held))
            if oldest == keep:
                del self.held[keep]
                raise PackageRefused(f"{keep} alone is over the {config.PACKAGES_HELD / 2**20:.0f} MiB that the head keeps")
            self._forget(oldest)

    def _forget(self, uri: str) -> None:
        package = self.held.pop(uri)
        self.out += [Persist(TABLE, _key(uri, index), None) for index in range(len(package.pieces))]

    def get(self, arguments: dict[str, Any]) -> tuple[int, bytes]:
        uri, index = str(arguments["uri"]), int(arguments["index"])
        package = self._used(uri)
        if package is None or not package.is_whole or not 0 <= index < len(package.pieces):
            raise PackageRefused(
                f"the head has no package {uri}; the job that uploaded it has ended, or has not finished uploading"
            )
        piece = package.pieces[index]
        assert piece is not None
        return len(package.pieces), piece

    def job_ended(self, job: str, needed: Collection[str]) -> None:
        """Let go of what only this job held. `needed` are the environments of actors that live on."""
        for uri, package in list(self.held.items()):
            package.jobs.discard(job)
            if not package.jobs and not any(uri in environment for environment in needed):
                self._forget(uri)

    def restore(self, saved: dict[bytes, bytes], jobs: Collection[str]) -> None:
        """Of which job each was is not remembered: all `jobs` that run hold all of them."""
        for key, value in saved.items():
            uri, index = msgspec.msgpack.decode(key, type=tuple[str, int])
            chunks, data = msgspec.msgpack.decode(value, type=tuple[int, bytes])
            package = self.held.setdefault(uri, Package([None] * chunks, set(jobs)))
            package.pieces[index] = data


def _key(uri: str, index: int) -> bytes:
    return msgspec.msgpack.encode((uri, index))
