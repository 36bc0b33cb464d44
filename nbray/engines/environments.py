"""Runtime environments of this process, ready to travel: local directories become packages, and edits become new environments.

A driver's own modules, beside the notebook or in a working copy, are imported by its workers from where they are. Workers say
which (ModulesLoaded); the driver looks at those files, and at the directories that it has packed, before a cell and now and then.
After an edit everything that is submitted has another `_generation` in its environment, or another package, and therefore goes to
fresh workers. Not reloaded ones: a reload leaves old classes, instances and `from` imports behind, and a fork costs milliseconds.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from nbray import config
from nbray.environments import packing
from nbray.environments.cache import ARCHIVE, Cache, Held, user_root
from nbray.environments.packing import Tree
from nbray.ids import Address
from nbray.wire import environment
from nbray.wire import messages as m

#: Of an environment: it is a Text in messages.
MOST_CHARACTERS = 65_536
SUPERSEDED_KEPT = 8  #: packages from before an edit that stay in the cache
_Stat = tuple[int, int, int]  #: time of modification in nanoseconds, size, inode


class Packed:
    """A tree as it was packed last."""

    def __init__(self, tree: Tree, signature: str, uri: str, held: Held) -> None:
        self.tree, self.signature, self.uri, self.held = tree, signature, uri, held


class Environments:
    """`ask` asks the head, `holder` says for whom it shall keep what is uploaded: the id of a job in hex. `on_edit` is called after
    an edit was seen, so that nobody keeps an environment from before."""

    def __init__(self, ask: Callable[..., Any], holder: Callable[[], str], on_edit: Callable[[], None]) -> None:
        self.base = ""  #: the environment of the job, or of the task that runs here: canonical JSON
        self.look_due: float | None = None  #: monotonic seconds; None while there is nothing to look at
        self.generation = 0
        self.uploads = True  #: False where every node is this machine and finds packages in the user's cache
        self._ask = ask
        self._holder = holder
        self._on_edit = on_edit
        # Two: whoever packs waits for the head, whose answer the I/O thread brings, which must not wait to say what was imported.
        self._packing = threading.Lock()
        self._watching = threading.Lock()
        self._cache: Cache | None = None
        self._packed: dict[Tree, Packed] = {}
        self._superseded: deque[Packed] = deque()
        self._ready: dict[str, str] = {}  #: what was prepared, until the next edit
        self._uploaded: set[tuple[str, str]] = set()  #: (holder, URI)
        self._used: dict[str, Held] = {}  #: by URI
        self._modules: dict[str, _Stat] = {}  #: the files that workers have imported, as they were then

    # ------------------------------------------------------------------------------------------ making ready

    def of(self, own: str) -> str:
        """What a task or actor with this environment of its own runs in: laid over ours, with URIs in place of local paths.

        Raises ValueError when a directory is gone or too large, and when the whole is too long.
        """
        whole = environment.merged(self.base, own)
        if not whole and not self.generation:
            return ""
        ready = self._ready.get(whole)
        if ready is None:
            with self._packing:
                ready = self._prepared(environment.parsed(whole))
                if len(ready) > MOST_CHARACTERS:
                    raise ValueError(f"the runtime environment has {len(ready):,} characters; {MOST_CHARACTERS:,} can be sent")
                self._ready[whole] = ready
        return ready

    def _prepared(self, whole: dict[str, Any]) -> str:
        excludes = tuple(whole.pop("excludes", ()))
        if "working_dir" in whole:
            whole["working_dir"] = self._uri(whole["working_dir"], excludes, is_module=False)
        if "py_modules" in whole:
            whole["py_modules"] = [self._uri(each, excludes, is_module=True) for each in whole["py_modules"]]
        hook = whole.get("_hook")
        if hook is not None and "://" not in hook:
            whole["_hook"] = self._keep(*packing.blob(base64.b64decode(hook), self._store(), ".pkl"))
        if self.generation:  # else it is what our own parent has
            whole[environment.GENERATION] = self.generation
        return environment.canonical(whole)

    def _uri(self, place: str, excludes: tuple[str, ...], *, is_module: bool) -> str:
        if "://" in place:
            return place
        if not os.path.exists(place):
            raise ValueError(f"the runtime environment names {place}, which is not there any more")
        tree = Tree(place, excludes, os.path.basename(place) if is_module and os.path.isdir(place) else "")
        found = packing.files(tree)
        signature = packing.signature(found)
        known = self._packed.get(tree)
        if known is None or known.signature != signature:
            pack = packing.archive if _is_archive(place) else packing.package
            if known is not None:
                self._supersede(known)
            known = self._packed[tree] = Packed(tree, signature, *pack(found, place, self._store()))
            self._look_later(0.0)
        return self._keep(known.uri, known.held)

    def _supersede(self, old: Packed) -> None:
        """Tasks that were submitted just before an edit may still need the package from before; those of an hour ago do not."""
        self._superseded.append(old)
        while len(self._superseded) > SUPERSEDED_KEPT:
            oldest = self._superseded.popleft()
            needed = {packed.uri for packed in (*self._packed.values(), *self._superseded)}
            held = None if oldest.uri in needed else self._used.pop(oldest.uri, None)
            if held is not None:
                held.close()

    def _store(self) -> Cache:
        if self._cache is None:
            self._cache = Cache(user_root())
        return self._cache

    def _keep(self, uri: str, held: Held) -> str:
        """Hold it in the cache for as long as this process lives, and let the head have it."""
        job = self._holder()
        if uri in self._used and self._used[uri] is not held:
            held.close()
        else:
            self._used[uri] = held
        if self.uploads and (job, uri) not in self._uploaded:
            if not self._ask("package_has", uri=uri, job=job):
                self._upload(uri, f"{self._used[uri].path}/{ARCHIVE}", job)
            self._uploaded.add((job, uri))
        return uri

    def _upload(self, uri: str, path: str, job: str) -> None:
        chunks = max(1, -(-os.path.getsize(path) // config.PACKAGE_CHUNK))
        with open(path, "rb") as file:
            for index in range(chunks):
                self._ask("package_put", uri=uri, job=job, index=index, chunks=chunks, data=file.read(config.PACKAGE_CHUNK))

    # ------------------------------------------------------------------------------------------ edits

    def loaded(self, said: m.ModulesLoaded, me: Address) -> None:
        """A worker has imported files of ours. From the I/O thread."""
        with self._watching:
            for path, modified_ns, size in said.files:
                here, as_read = _stat(path), modified_ns if modified_ns != m.UNSURE else 0
                if here is None or (here[:2] != (as_read, size) and said.worker.node != me.node):
                    continue  # a file of another machine
                if said.generation == self.generation:
                    # Edited meanwhile, if it differs: the next look sees it.
                    self._modules[path] = here if here[:2] == (as_read, size) else (as_read, size, 0)
                else:
                    self._modules.setdefault(path, here)  # old workers know nothing new
            if self._modules:
                self._look_later(0.0)

    def outdate(self) -> None:
        """What workers have seen of this process's surroundings is no longer true: from now on fresh ones."""
        with self._packing:
            self.generation += 1
            self._ready.clear()
        self._on_edit()

    def look(self, *, now: bool = False) -> None:
        """See whether anything was edited, when it is time for that or the caller cannot wait."""
        if self.look_due is None or (not now and time.monotonic() < self.look_due):
            return
        with self._packing, self._watching:
            began = time.monotonic()
            edited = [path for path, known in self._modules.items() if _stat(path) not in (known, None)]
            changed = [packed for packed in self._packed.values() if not _is_as_packed(packed)]
            self._look_later(time.monotonic() - began)
            if not edited and not changed:
                return
            if edited:
                self.generation += 1
            for path in edited:
                self._modules[path] = _stat(path) or (0, 0, 0)
                _forget_bytecode(path)
            self._ready.clear()
        self._on_edit()

    def _look_later(self, took_s: float) -> None:
        self.look_due = time.monotonic() + max(config.LOOK_S, took_s / config.LOOK_SHARE)

    def close(self) -> None:
        with self._packing:
            for held in self._used.values():
                held.close()
            self._used.clear()
            self._packed.clear()
            self._uploaded.clear()


def _is_archive(place: str) -> bool:
    return place.endswith((".zip", ".whl")) and os.path.isfile(place)


def _stat(path: str) -> _Stat | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _is_as_packed(packed: Packed) -> bool:
    try:
        return packing.signature(packing.files(packed.tree)) == packed.signature
    except OSError:
        return False  # something is being moved there; whoever packs it next says what


def _forget_bytecode(path: str) -> None:
    """Bytecode names its source by seconds and size: an edit of the same length within a second would not be noticed."""
    with contextlib.suppress(OSError):
        os.unlink(importlib.util.cache_from_source(path))
