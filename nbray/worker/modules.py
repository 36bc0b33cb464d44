"""Which of the user's own source files this worker has imported: what the driver watches for edits.

Installed packages, the standard library and nbray itself are left out, and so are packages of a runtime environment, whose
directory never changes. A file that was written while it may have been read, or just before, is told with UNSURE as its time: what
was imported may be older, or an edit of the same moment and length may follow that nobody could see.
"""

from __future__ import annotations

import os
import sys
import sysconfig

from nbray.exceptions import PACKAGE_DIRECTORY
from nbray.wire.messages import UNSURE
from nbray.wire.rundir import ENVIRONMENTS

#: Looked up before workers are forked: it takes as long as a tenth of a fork.
_STANDARD = tuple({f"{sysconfig.get_paths()[name]}{os.sep}" for name in ("stdlib", "platstdlib")})
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}", f"{os.sep}{ENVIRONMENTS}{os.sep}p-")


#: A file system's clock is behind by up to this: two edits within it may have one time of modification.
TICK_NS = 10_000_000


class ImportedModules:
    """`count` is that of sys.modules at the last look: as long as it is the same, nothing was imported."""

    def __init__(self) -> None:
        self.count = len(sys.modules)
        self._seen: set[str] = set(sys.modules)

    def new_files(self, since_ns: int) -> list[tuple[str, int, int]]:
        """(path, time of modification in ns, bytes) of every source file imported since the last look, `since_ns` or later."""
        modules = dict(sys.modules)
        names = modules.keys() - self._seen
        self.count = len(modules)
        self._seen |= names
        found = []
        for name in names:
            path = getattr(modules[name], "__file__", None)
            if isinstance(path, str) and path.endswith(".py") and self._is_own(path):
                try:
                    facts = os.stat(path)
                except OSError:
                    continue  # it was removed meanwhile
                written_ns = facts.st_mtime_ns if facts.st_mtime_ns < since_ns - TICK_NS else UNSURE
                found.append((os.path.abspath(path), written_ns, facts.st_size))
        return found

    def _is_own(self, path: str) -> bool:
        return not path.startswith((PACKAGE_DIRECTORY, *_STANDARD)) and not any(part in path for part in _INSTALLED)
