"""From a directory beside the notebook to a package: one zip, named by what is in it.

    files(tree)       what belongs to it, by .gitignore, .rayignore and excludes
    signature(tree)   names, sizes and times: costs a stat per file, and says whether anything may have changed
    package(tree)     reads everything once, into the cache of environments

The name is a hash of names and contents, so the same directory is the same package in every process and on every day.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

from nbray import config
from nbray.environments.cache import ARCHIVE, UNFINISHED, Cache, Held
from nbray.wire.environment import STORED

#: Never wanted in a package: history, environments of this machine, compiled code.
ALWAYS_EXCLUDED = [".git", ".venv", "venv", "__pycache__"]
IGNORE_FILES = (".gitignore", ".rayignore")
_READ_BYTES = 1 << 20
#: Zip files know no times before 1980, and the same content must be the same package.
_EPOCH = (1980, 1, 1, 0, 0, 0)
#: Whether a path below where the rules hold is left out; that of a directory ends in /.
Rules = Callable[[str], bool]


class Tree(NamedTuple):
    """A directory (or one file) to pack. With `top`, everything lies below a directory of that name."""

    root: str
    excludes: tuple[str, ...] = ()
    top: str = ""


class File(NamedTuple):
    path: str
    name: str  #: inside the package, with /
    size: int
    modified_ns: int
    executable: bool


def files(tree: Tree) -> list[File]:
    """Everything in the tree that is not excluded, by name. Directories without files are left out, devices and sockets too."""
    if os.path.isfile(tree.root):
        return [_file(tree.root, os.path.basename(tree.root))]
    from nbray.environments import ignoring

    own = ignoring.rules([*ALWAYS_EXCLUDED, *tree.excludes])
    found = list(_below(tree.root, "", [("", own)], (os.path.realpath(tree.root),), ignoring.rules))
    prefix = f"{tree.top}/" if tree.top else ""
    return sorted(file._replace(name=prefix + file.name) for file in found)


def _below(
    directory: str,
    inside: str,
    rules: list[tuple[str, Rules]],
    above: tuple[str, ...],
    read: Callable[[Iterable[str]], Rules],
) -> Iterator[File]:
    """`inside` is the directory's name in the tree, "" or ending in /; `rules` come with where they hold; `read` makes them of
    the lines of a file. Links are followed, but not to a directory that is `above`."""
    for ignore in IGNORE_FILES:
        path = f"{directory}/{ignore}"
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="replace") as lines:
                rules = [*rules, (inside, read(lines))]
    with os.scandir(directory) as entries:
        for entry in entries:
            name = inside + entry.name
            is_directory = entry.is_dir()
            tested = f"{name}/" if is_directory else name
            if any(left_out(tested[len(where) :]) for where, left_out in rules):
                continue
            if is_directory:
                real = os.path.realpath(entry.path)
                if real not in above:
                    yield from _below(entry.path, f"{name}/", rules, (*above, real), read)
            elif entry.is_file():
                yield _file(entry.path, name)


def _file(path: str, name: str) -> File:
    facts = os.stat(path)
    return File(path, name, facts.st_size, facts.st_mtime_ns, bool(facts.st_mode & stat.S_IXUSR))


def signature(found: list[File]) -> str:
    """Equal as long as no file was added, removed or written."""
    digest = hashlib.blake2b(digest_size=16)
    for file in found:
        digest.update(repr((file.name, file.size, file.modified_ns, file.executable)).encode())
    return digest.hexdigest()


def package(found: list[File], what: str, cache: Cache) -> tuple[str, Held]:
    """(URI, its use in the cache) of the package of these files. `what` is what errors call it.

    Raises ValueError naming the largest files when it is larger than config.PACKAGE_BYTES.
    """
    if not found:
        raise ValueError(f"{what} is empty, or everything in it is excluded ({', '.join(IGNORE_FILES)}, excludes)")
    name = _name(found)
    held = cache.find(name)
    if held is None:
        # Named by what was written, not by what was read before: a log in the directory may grow meanwhile.
        with tempfile.NamedTemporaryFile(dir=cache.root, prefix=UNFINISHED) as target:
            name = _write(found, target, what)
            held = cache.hold(name, lambda directory: os.link(target.name, f"{directory}/{ARCHIVE}"))
    return f"{STORED}{name}.zip", held


def _name(found: list[File]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in found:
        with open(file.path, "rb") as source:
            _add(digest, file, hashlib.file_digest(source, "blake2b").digest())
    return f"_ray_pkg_{digest.hexdigest()}"


def _add(digest: hashlib.blake2b, file: File, content: bytes) -> None:
    digest.update(f"{file.name}\0{int(file.executable)}\0".encode())
    digest.update(content)


def _write(found: list[File], target: IO[bytes], what: str) -> str:
    """Write the zip; the name of what it holds."""
    digest = hashlib.blake2b(digest_size=16)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in found:
            entry = zipfile.ZipInfo(file.name, _EPOCH)
            entry.external_attr = (stat.S_IFREG | (0o755 if file.executable else 0o644)) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            content = hashlib.blake2b()
            with open(file.path, "rb") as source, archive.open(entry, "w", force_zip64=True) as into:
                while piece := source.read(_READ_BYTES):
                    content.update(piece)
                    into.write(piece)
                    _weigh(found, target.tell(), what)
            _add(digest, file, content.digest())
    return f"_ray_pkg_{digest.hexdigest()}"


def archive(found: list[File], path: str, cache: Cache) -> tuple[str, Held]:
    """As `package`, of one file that is a zip or wheel already."""
    _weigh(found, found[0].size, path)
    name = _name(found)
    suffix = os.path.splitext(path)[1]
    return f"{STORED}{name}{suffix}", cache.hold(name, lambda directory: shutil.copyfile(path, f"{directory}/{ARCHIVE}"))


def blob(data: bytes, cache: Cache, suffix: str) -> tuple[str, Held]:
    """As `package`, of bytes: a hook."""
    name = f"_ray_blob_{hashlib.blake2b(data, digest_size=16).hexdigest()}"

    def make(directory: str) -> None:
        with open(f"{directory}/{ARCHIVE}", "wb") as file:
            file.write(data)

    return f"{STORED}{name}{suffix}", cache.hold(name, make)


def _weigh(found: list[File], size: int, what: str) -> None:
    if size <= config.PACKAGE_BYTES:
        return
    largest = sorted(found, key=lambda file: -file.size)[:5]
    named = "\n".join(f"    {file.size / 2**20:10.1f} MiB  {file.name}" for file in largest)
    raise ValueError(
        f"{what}: its package exceeds the maximum size of {config.PACKAGE_BYTES / 2**20:.2f}MiB. Its largest files:\n{named}\n"
        "Exclude what tasks do not need (excludes=[...], .gitignore, .rayignore), give an https:// URI of a zip, or put data into "
        "nbray.put()."
    )
