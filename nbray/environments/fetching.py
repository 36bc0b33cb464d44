"""From a URI to an unpacked directory on this node, by way of this user's cache.

gcs://_ray_pkg_<hash>.zip     what a driver packed: in the cache of this machine already, or asked of the head in chunks
https://, http://, file://    fetched by this node
"""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import zipfile

from nbray.environments.cache import ARCHIVE, Cache, Held
from nbray.wire.environment import STORED, place_name


class SetupFailed(Exception):
    """The environment cannot be made. The text is for the user."""


class Fetcher:
    """`directory` is the node's runtime directory, by which the head is reached; `place` is where things are unpacked."""

    def __init__(self, cache: Cache, place: Cache, directory: str) -> None:
        self._cache = cache
        self._place = place
        self._directory = directory

    def unpacked(self, uri: str) -> Held:
        """The directory with the contents of the package. Raises SetupFailed."""
        return self._place.hold(place_name(uri), lambda target: self._unpack(uri, target))

    def _unpack(self, uri: str, target: str) -> None:
        with self._archive(uri) as held:
            packed = f"{held.path}/{ARCHIVE}"
            if uri.endswith(".pkl"):
                shutil.copyfile(packed, f"{target}/{ARCHIVE}")
                return
            try:
                with zipfile.ZipFile(packed) as archive:
                    extract(archive, target, unwrap=not uri.startswith(STORED) and uri.split("?", 1)[0].endswith(".zip"))
            except zipfile.BadZipFile as error:
                raise SetupFailed(f"{uri} is not a zip file: {error}") from None

    def _archive(self, uri: str) -> Held:
        if uri.startswith(STORED):
            name = os.path.splitext(uri.removeprefix(STORED))[0]
            if "/" in name or not name.startswith("_ray_"):
                raise SetupFailed(f"{uri} is not a package that a driver of nbray has uploaded")
            return self._cache.hold(name, lambda directory: self._from_head(uri, f"{directory}/{ARCHIVE}"))
        return self._cache.hold(place_name(uri), lambda directory: _from_net(uri, f"{directory}/{ARCHIVE}"))

    def _from_head(self, uri: str, path: str) -> None:
        # By name: on most nodes everything is in the cache already, and nothing of this is needed.
        viewers = importlib.import_module("nbray.driver.viewer")
        with viewers.Viewer(self._directory) as viewer, open(path, "wb") as file:
            index, chunks = 0, 1
            while index < chunks:
                try:
                    chunks, data = viewer.ask("package_get", uri=uri, index=index)
                except ValueError as refusal:
                    raise SetupFailed(f"the package {uri} is neither on this node nor at the head: {refusal}") from None
                file.write(data)
                index += 1


def _from_net(uri: str, path: str) -> None:
    try:
        importlib.import_module("nbray.environments.web").fetch(uri, path)
    except (OSError, ValueError) as error:
        raise SetupFailed(f"{uri} could not be fetched: {error}") from None


def extract(archive: zipfile.ZipFile, target: str, *, unwrap: bool) -> None:
    """Unpack into `target`, executable files executable. `unwrap`: an archive with one directory and nothing else (as forges
    make them) is unpacked without that directory, unless it is a Python package."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    strip = _wrapper([entry.filename for entry in entries]) if unwrap else ""
    for entry in entries:
        name = entry.filename.removeprefix(strip)
        path = os.path.normpath(f"{target}/{name}")
        if not path.startswith(f"{target}/"):
            raise SetupFailed(f"{archive.filename} has an entry {entry.filename!r} that would be unpacked outside of its directory")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with archive.open(entry) as source, open(path, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        if entry.external_attr >> 16 & stat.S_IXUSR:
            os.chmod(path, 0o755)


def _wrapper(names: list[str]) -> str:
    """The single top directory of all names, with its slash; "" when there is none, or when it is a package itself."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    if len(tops) != 1 or any("/" not in name for name in names):
        return ""
    top = tops.pop()
    return "" if f"{top}/__init__.py" in names else f"{top}/"
