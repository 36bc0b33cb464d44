"""The front end's code, as it leaves for the page: one ES module made of the files in static/, and one style sheet.

The files import each other by name so that a bundler can take them as they are (the JupyterLab extension does); a page that
gets them over a comm cannot resolve file names, so here they are put into one module in dependency order. Only two forms of
statement are used, each on a line of its own: `import { a, b } from "./file.js";` and `export` before a declaration.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
FILES = (
    "format.js",
    "timeline.js",
    "jump.js",
    "objects.js",
    "output.js",
    "lineage.js",
    "plan.js",
    "flame.js",
    "card.js",
    "cluster.js",
    "views.js",
)  #: in dependency order
#: What a page makes of it, by name.
VIEWS = ("createCard", "createCluster", "createTimelineView", "createProgress", "createLineageView", "createObjects")
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./[a-z]+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=function|const|class)", re.MULTILINE)


@cache
def module() -> str:
    """One ES module that exports what makes each view."""
    parts = []
    for name in FILES:
        source = (STATIC / name).read_text(encoding="utf-8")
        parts.append(_EXPORT.sub("", _IMPORT.sub("", source)))
    return "\n".join([*parts, f"export {{ {', '.join(VIEWS)} }};\n"])


@cache
def style() -> str:
    return (STATIC / "card.css").read_text(encoding="utf-8")


@cache
def version() -> str:
    """Names the code: pages keep one copy of each version."""
    return hashlib.blake2b((module() + style()).encode(), digest_size=8).hexdigest()
