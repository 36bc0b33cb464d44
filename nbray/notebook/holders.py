"""Which of the notebook's names hold objects of the cluster: `df`, `Out[7]`, `_`, a list of references, an entry of a dict.

A name holds an object by a reference, or by a value that was got without a copy: an array whose bytes lie in the store pins them
there for as long as it lives, and `Out` keeps every array that was ever shown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from nbray.engines.port import Engine
from nbray.refs import ObjectRef
from nbray.store.views import Pinned

ASKED = 10_000  #: references of one value whose sizes are added up
COLUMNS_LOOKED_AT = 100  #: of a table of pandas
HISTORY = frozenset({"_", "__", "___"})  #: names that IPython binds to the last results


def _references(value: Any) -> Iterator[ObjectRef[Any]]:
    if isinstance(value, ObjectRef):
        yield value
    elif type(value) in (list, tuple, set):
        yield from (each for each in list(value) if isinstance(each, ObjectRef))
    elif type(value) is dict:
        yield from (each for each in list(value.values()) if isinstance(each, ObjectRef))


def _named(namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of everything a person could mean; results by `Out[n]`."""
    for name, value in list(namespace.items()):
        if name == "Out" and isinstance(value, dict):
            yield from ((f"Out[{number}]", result) for number, result in list(value.items()))
        elif name in HISTORY or not name.startswith("_"):
            yield name, value


def held_by_names(namespace: dict[str, Any]) -> dict[bytes, list[str]]:
    """Names by the id of the task that made what they hold."""
    found: dict[bytes, list[str]] = {}
    for name, value in _named(namespace):
        if name in HISTORY:
            continue
        for ref in _references(value):
            names = found.setdefault(ref.task_id().binary(), [])
            if name not in names:
                names.append(name)
    return found


def held_objects(namespace: dict[str, Any], engine: Engine) -> list[dict[str, Any]]:
    """One row for each value that holds references, or bytes of the store: its names, what it is, and where its bytes are. The
    largest first."""
    groups: dict[int, tuple[list[str], Any]] = {}
    for name, value in _named(namespace):
        if next(_references(value), None) is not None:
            groups.setdefault(id(value), ([], value))[0].append(name)
    rows = [_row(names, value, engine) for names, value in groups.values()] + held_views(namespace)
    return sorted(rows, key=lambda row: -(row["size"] or 0))


def held_views(namespace: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each array, or table of pandas, whose bytes lie in the store."""
    groups: dict[int, tuple[list[str], Any]] = {}
    for name, value in _named(namespace):
        if any(_is_view(array) for array in _arrays(value)):
            groups.setdefault(id(value), ([], value))[0].append(name)
    rows = []
    for names, value in groups.values():
        shown = all(name in HISTORY or name.startswith("Out[") for name in names)
        rows.append(
            {
                "names": ", ".join(names),
                "release": names,
                "type": _said(value),
                "size": sum(array.nbytes for array in _arrays(value) if _is_view(array)),
                "state": "pinned, only because it was shown" if shown else "pinned",
                "where": "here",
            }
        )
    return rows


def _arrays(value: Any) -> list[np.ndarray[Any, Any]]:
    """The arrays that a value consists of, where that can be told without making any."""
    if isinstance(value, np.ndarray):
        return [value]
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return []
    columns: list[Any] = []
    if isinstance(value, pandas.Series):
        columns = [value]
    elif isinstance(value, pandas.DataFrame):
        columns = [value.iloc[:, i] for i in range(min(value.shape[1], COLUMNS_LOOKED_AT))]
    return [column.values for column in columns if isinstance(column.dtype, np.dtype)]


def _is_view(array: np.ndarray[Any, Any]) -> bool:
    """Whether its bytes are those of a pinned object."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, Pinned):
            return True
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, Pinned)


def _said(value: Any) -> str:
    """`array of float64, 1000 × 20`."""
    shape = " × ".join(f"{size:,}" for size in value.shape)
    if isinstance(value, np.ndarray):
        return f"array of {value.dtype}, {shape or 'a scalar'}"
    return f"{type(value).__name__}, {shape}"


def _row(names: list[str], value: Any, engine: Engine) -> dict[str, Any]:
    refs = list(_references(value))
    facts = [engine.facts_of(ref) for ref in refs[:ASKED]]
    sizes = [fact["size"] for fact in facts if fact["size"] is not None]
    states = sorted({fact["state"].lower() for fact in facts})
    nodes = sorted({fact["node"][:4] for fact in facts if fact["node"]})
    kind = "reference" if isinstance(value, ObjectRef) else f"{type(value).__name__} of {len(refs):,} references"
    if len(refs) > ASKED:
        kind += f", the first {ASKED:,} measured"
    return {
        "names": ", ".join(names),
        "release": names,
        "type": kind,
        "size": sum(sizes) if sizes else None,
        "state": ", ".join(states),
        "where": ", ".join(nodes),
    }


def release(namespace: dict[str, Any], names: list[str]) -> int:
    """Take these names away, so that what only they held is freed. Returns how many there were."""
    gone = 0
    for name in names:
        if name.startswith("Out["):
            number = int(name[4:-1])
            gone += namespace["Out"].pop(number, None) is not None
            namespace.pop(f"_{number}", None)
        elif name in HISTORY:
            namespace[name] = ""
        else:
            gone += namespace.pop(name, None) is not None
    return gone
