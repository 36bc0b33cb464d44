"""The parts of documents that are measured: between two markers, and nothing else of the page is touched."""

from __future__ import annotations

from pathlib import Path


def put(document: Path, begin: str, end: str, text: str) -> None:
    """Write `text` between the lines `begin` and `end`. Raises ValueError if the markers are not there."""
    before, begun, rest = document.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"{document} has no lines {begin} and {end}: put them where the measured part goes")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
