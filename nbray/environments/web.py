"""Packages from elsewhere: https://, http:// and file://. Apart, because urllib costs what the rest of a builder does."""

from __future__ import annotations

import urllib.request

from nbray import config

FETCH_TIMEOUT_S = 60.0


def fetch(uri: str, path: str) -> None:
    """Write what is at `uri` to `path`. Raises OSError with the reason, ValueError when it is too large."""
    with urllib.request.urlopen(uri, timeout=FETCH_TIMEOUT_S) as source, open(path, "wb") as file:
        taken = 0
        while piece := source.read(1 << 20):
            taken += len(piece)
            if taken > config.PACKAGE_BYTES:
                raise ValueError(f"{uri} exceeds the maximum size of {config.PACKAGE_BYTES / 2**20:.2f}MiB")
            file.write(piece)
