"""Write the parts of the documentation that repeat the code: `docs/protocol.md`, and the tables of `docs/user-guide.md`.

    python docs/generate.py            write them
    python docs/generate.py --check    change nothing; exit status 1 and the names of those that are out of step

Sources are read as text wherever comments matter: `#:` comments and the dashed lines that open a section are not visible to
an import.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from nbray.notebook.magics import NbrayMagics
from nbray.notebook.subcommands import Subcommands

ROOT = Path(__file__).resolve().parent.parent
MESSAGES = ROOT / "nbray" / "wire" / "messages.py"
CONFIG = ROOT / "nbray" / "config.py"
PROTOCOL = ROOT / "docs" / "protocol.md"
GUIDE = ROOT / "docs" / "user-guide.md"

SECTION = re.compile(r"^# -{20,} (?P<title>.+)$")


@dataclass
class Field:
    """One field of a message: as written in the source."""

    name: str
    type: str
    default: str
    comment: str


@dataclass
class Struct:
    """One message or record."""

    name: str
    doc: str
    fields: list[Field]
    is_message: bool


@dataclass
class Section:
    """One edge: its title, the comment lines under it, and what travels on it."""

    title: str
    line: int
    prose: str = ""
    structs: list[Struct] = field(default_factory=list)


def comment_after(line: str) -> str:
    """The text of a trailing `#:` comment, or nothing."""
    _, _, text = line.partition("#: ")
    return text.strip()


def sections_of(lines: list[str]) -> list[Section]:
    """The dashed section lines of a source, with the plain comments directly under each."""
    found = []
    for number, line in enumerate(lines, start=1):
        if match := SECTION.match(line):
            prose = []
            for below in lines[number:]:
                if not below.startswith("# "):
                    break
                prose.append(below[2:])
            found.append(Section(match["title"], number, " ".join(prose)))
    return found


def as_written(node: ast.expr, lines: list[str]) -> str:
    """The source of an expression, on one line: `100_000` stays `100_000`."""
    return " ".join((ast.get_source_segment("\n".join(lines), node) or "").split())


def struct_of(node: ast.ClassDef, lines: list[str]) -> Struct:
    fields = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            default = "" if item.value is None else as_written(item.value, lines)
            last = (item.end_lineno or item.lineno) - 1
            fields.append(Field(item.target.id, as_written(item.annotation, lines), default, comment_after(lines[last])))
    base = node.bases[0].id if node.bases and isinstance(node.bases[0], ast.Name) else ""
    return Struct(node.name, ast.get_docstring(node) or "", fields, base == "Message")


def read_protocol(source: str) -> tuple[str, list[Section], str]:
    """The module's docstring, its sections in order, and the protocol version."""
    tree, lines = ast.parse(source), source.splitlines()
    sections = sections_of(lines)
    version = "?"
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            above = [section for section in sections if section.line < node.lineno]
            if above:
                above[-1].structs.append(struct_of(node, lines))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROTOCOL_VERSION":
            version = ast.unparse(node.value)
    return ast.get_docstring(tree) or "", sections, version


def cell(text: str) -> str:
    """`text` as the content of one Markdown table cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table, as lines."""
    marks = ["|" + "|".join(f" {cell(value)} " for value in row) + "|" for row in rows]
    return ["|" + "|".join(f" {name} " for name in header) + "|", "|" + "---|" * len(header), *marks]


def struct_lines(struct: Struct) -> list[str]:
    lines = [f"### {struct.name}", ""]
    if struct.doc:
        lines += [struct.doc, ""]
    if struct.fields:
        rows = [
            [f"`{each.name}`", f"`{each.type}`", f"`{each.default}`" if each.default else "", each.comment]
            for each in struct.fields
        ]
        lines += [*table(["field", "type", "default", ""], rows), ""]
    return lines


def protocol_page(source: str) -> str:
    """`docs/protocol.md`, from the source of the messages."""
    doc, sections, version = read_protocol(source)
    count = sum(struct.is_message for section in sections for struct in section.structs)
    lines = [
        "# Protocol",
        "",
        "<!-- Written by docs/generate.py from nbray/wire/messages.py; edit that, then run `make docs`. -->",
        "",
        f"Version {version}, {count} messages.",
        "",
        re.sub(r"\s*`docs/protocol.md` is generated from this file\.", "", doc),
        "",
    ]
    for section in sections:
        lines += [f"## {section.title[0].upper()}{section.title[1:]}", ""]
        if section.prose:
            lines += [section.prose, ""]
        for struct in section.structs:
            lines += struct_lines(struct)
    return "\n".join(lines).rstrip() + "\n"


def settings(source: str) -> list[tuple[str, str, str]]:
    """(name, default as written, comment) of every number in config.py that the environment can override."""
    lines = source.splitlines()
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and isinstance(node.target, ast.Name):
            last = (node.end_lineno or node.lineno) - 1
            found.append((node.target.id, as_written(node.value.args[1], lines), comment_after(lines[last])))
    return found


def settings_table(source: str) -> list[str]:
    rows = [[f"`NBRAY_{name}`", f"`{default}`", comment] for name, default, comment in settings(source)]
    return table(["variable", "default", ""], rows)


def magic_options_table() -> list[str]:
    """The options of `%%remote`, as its parser has them."""
    rows = []
    for action in NbrayMagics.remote_cell.parser._actions:
        value = "|".join(action.choices) if action.choices else action.metavar or ""
        takes_value = action.nargs != 0
        written = "/".join(action.option_strings) + (f" {value}" if takes_value else "")
        rows.append([f"`{written}`", (action.help or "").replace("%%", "%")])
    return table(["option", ""], rows)


def subcommands_table() -> list[str]:
    """The words after `%nbray`. Asking for them does nothing with a notebook, so none is needed."""
    words = Subcommands(cast("Any", None)).words
    return table(["", ""], [[f"`%nbray {word}`", said] for word, (_, said) in words.items()])


def replace_part(page: str, name: str, lines: list[str]) -> str:
    """`page` with what stands between `<!-- name -->` and `<!-- end -->` replaced. Raises ValueError when it has no such part."""
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    body = "\n".join(["", *lines, "", ""])
    changed, count = pattern.subn(lambda match: match[1] + body + match[2], page)
    if count != 1:
        raise ValueError(f"{GUIDE.name} has {count} parts named {name!r}; one is needed")
    return changed


def guide_page(page: str) -> str:
    """`docs/user-guide.md` with its generated parts as the code says now."""
    page = replace_part(page, "magic-options", magic_options_table())
    page = replace_part(page, "subcommands", subcommands_table())
    return replace_part(page, "settings", settings_table(CONFIG.read_text(encoding="utf-8")))


def pages() -> dict[Path, str]:
    """Every generated document, as it should be."""
    return {
        PROTOCOL: protocol_page(MESSAGES.read_text(encoding="utf-8")),
        GUIDE: guide_page(GUIDE.read_text(encoding="utf-8")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    stale = []
    for path, wanted in pages().items():
        if path.exists() and path.read_text(encoding="utf-8") == wanted:
            continue
        stale.append(path.relative_to(ROOT))
        if not check:
            path.write_text(wanted, encoding="utf-8")
    if check and stale:
        sys.stderr.write(f"Out of step with the code: {', '.join(map(str, stale))}. Run `make docs` and commit the result.\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
