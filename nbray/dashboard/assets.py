"""The files of the page: an allow-list, read once. The modules are those of cards and panel, as they are on disk."""

from __future__ import annotations

from functools import cache

from nbray.cards.assets import STATIC

TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
#: What the page loads; nothing else of the directory is served.
FILES = (
    *("page.css", "card.css", "panel.css", "icon.svg"),
    *(
        "page.js",
        "panel.js",
        "past.js",
        "timeline.js",
        "lineage.js",
        "jump.js",
        "perfetto.js",
        "plan.js",
        "cluster.js",
        "watch.js",
        "format.js",
    ),
)


@cache
def page() -> str:
    return (STATIC / "page.html").read_text(encoding="utf-8")


def file(name: str) -> tuple[str, str] | None:
    """(content type, content) of a file of the page; None for any other name."""
    return _read(name) if name in FILES else None


@cache
def _read(name: str) -> tuple[str, str]:
    return TYPES[name.rpartition(".")[2]], (STATIC / name).read_text(encoding="utf-8")
