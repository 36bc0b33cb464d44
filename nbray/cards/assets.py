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
    "perfetto.js",
    "lineage.js",
    "plan.js",
    "flame.js",
    "card.js",
    "cluster.js",
    "views.js",
)  #: in dependency order
#: What a page makes of it, by name.
VIEWS = ("createCard", "createCluster", "createTimelineView", "createProgress", "createLineageView", "createObjectsView")
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.MULTILINE)


@cache
def module() -> str:
    """One ES module that exports what makes each view. Each file keeps its names to itself, as it does for a bundler."""
    parts, where = [], {}
    for name in FILES:
        source = (STATIC / name).read_text(encoding="utf-8")
        own = f"$${name.removesuffix('.js')}"
        exported = _EXPORT.findall(source)
        where.update(dict.fromkeys(exported, own))
        body = _EXPORT.sub("", _IMPORT.sub(r"const {\1} = $$\2;\n", source))
        parts.append(f"const {own} = (() => {{\n{body}\nreturn {{ {', '.join(exported)} }};\n}})();\n")
    parts += [f"export const {view} = {where[view]}.{view};\n" for view in VIEWS]
    return "".join(parts)


@cache
def style() -> str:
    return (STATIC / "card.css").read_text(encoding="utf-8")


@cache
def version() -> str:
    """Names the code: pages keep one copy of each version."""
    return hashlib.blake2b((module() + style()).encode(), digest_size=8).hexdigest()
