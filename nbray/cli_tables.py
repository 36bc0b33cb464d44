"""How the command line shows records: tables that fit the terminal, JSON, YAML. A column that does not fit is named, not cut."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

FORMATS = ("default", "table", "json", "yaml")
#: Wide enough for every column, where nobody looks at a terminal.
ENDLESS = 100_000
#: Characters of one value in a table; the middle of a longer one is left out.
LONGEST = 40


def width() -> int:
    """Columns of the terminal; as good as endless for pipes and files, unless COLUMNS says otherwise."""
    return shutil.get_terminal_size((80 if sys.stdout.isatty() else ENDLESS, 24)).columns


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], room: int, hint: str = "a wider terminal has it") -> str:
    """Rows under headings. `columns` come most important first: those at the end are left out, by name, where room ends."""
    cells = {column: [_cell(row.get(column)) for row in rows] for column in columns}
    widths = {column: max([len(column), *map(len, cells[column])]) for column in columns}
    shown: list[str] = []
    used = 0
    for column in columns:
        if shown and used + 2 + widths[column] > room:
            continue
        used += widths[column] + (2 if shown else 0)
        shown.append(column)
    lines = ["  ".join(column.upper().ljust(widths[column]) for column in shown).rstrip()]
    lines += ["  ".join(cells[column][i].ljust(widths[column]) for column in shown).rstrip() for i in range(len(rows))]
    if hidden := [column for column in columns if column not in shown]:
        lines += ["", *_wrapped(f"No room for: {', '.join(hidden)} ({hint})", room)]
    return "\n".join(lines)


def _wrapped(text: str, room: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        text = ", ".join(f"{key}={_cell(each)}" for key, each in value.items())
    elif isinstance(value, float):
        text = f"{value:,.3f}".rstrip("0").rstrip(".")
    else:
        text = str(value).replace("\n", " ")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 13]}…{text[-12:]}"


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)


def as_yaml(value: Any, indent: int = 0) -> str:
    """Plain data as YAML. Texts that could be read as something else are quoted as in JSON, which YAML reads."""
    pad = " " * indent
    if isinstance(value, Mapping) and value:
        return "\n".join(f"{pad}{_scalar(str(key))}:{_nested(each, indent + 4)}" for key, each in value.items())
    if isinstance(value, list | tuple) and value:
        return "\n".join(f"{pad}-   {as_yaml(each, indent + 4).lstrip()}" for each in value)
    return pad + _scalar(value)


def _nested(value: Any, indent: int) -> str:
    return f"\n{as_yaml(value, indent)}" if isinstance(value, Mapping | list | tuple) and value else f" {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and value and value.replace("_", "").replace("-", "").replace(".", "").isalnum():
        looks_like_a_word = not value[0].isdigit() and value[0] not in "-." and value.lower() not in _WORDS
        return value if looks_like_a_word else json.dumps(value)
    return json.dumps(value, default=str)


_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "nan", "inf", "y", "n"}
