"""Which of the notebook's names hold objects of the cluster: `df`, `Out[7]`, `_`, a list of references, an entry of a dict.

A name holds an object by a reference, or by a value that was got without a copy: an array whose bytes lie in the store pins them
there for as long as it lives, and `Out` keeps every array that was ever shown.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from nbray.cards.words import bytes_text, count_text
from nbray.describing import describe
from nbray.engines.holding import said
from nbray.engines.port import Engine
from nbray.refs import ObjectRef
from nbray.store.views import Pinned

ASKED = 10_000  #: references of one value whose sizes are added up
SAMPLED = 2_000  #: references of one value that the lineage looks at, evenly spread
COLUMNS_LOOKED_AT = 100  #: of a table of pandas
ITEMS_LOOKED_AT = 1_000  #: of a list, for arrays
NAMED, NAMED_OF_ONE, NAMES_EACH, NAME_CHARACTERS = 5_000, 1_000, 5, 80  #: objects that a page is told the names of, and of each
SEEN_KEPT = 10_000
TRACEBACK = "last traceback"
HISTORY = frozenset({"_", "__", "___"})  #: names that IPython binds to the last results


_seen: dict[bytes, str] = {}  # what small objects turned out to be


def _is_ref(value: Any) -> bool:
    """By its type: `isinstance` asks the value for its `__class__`, which may be anybody's code."""
    return issubclass(type(value), ObjectRef)


def _references(value: Any, step: int = 1) -> Iterator[ObjectRef[Any]]:
    """Those that a value is or has; with a `step`, of every so many of its items."""
    if _is_ref(value):
        yield value
        return
    items = value.values() if type(value) is dict else value if type(value) in (list, tuple, set) else ()
    yield from (each for each in (list(items) if step == 1 else islice(items, 0, None, step)) if _is_ref(each))


def _sample(value: Any) -> list[ObjectRef[Any]]:
    """Some of the references in a value, all where they are few: a look that is taken again and again has a bounded cost."""
    size = len(value) if type(value) in (list, tuple, set, dict) else 1
    try:
        return list(_references(value, -(-size // SAMPLED) or 1))
    except RuntimeError:  # a cell that runs has changed it meanwhile
        return list(_references(value))


def _named_references(name: str, value: Any) -> Iterator[tuple[str, ObjectRef[Any]]]:
    """Each with what it is called: `df`, `parts[3]`, `models['a']`; the entries of anything else by the name alone."""
    items = enumerate(value) if type(value) in (list, tuple) else value.items() if type(value) is dict else ()
    entries: list[tuple[Any, Any]] = list(islice(items, NAMED_OF_ONE))
    if not entries:
        yield from ((name, ref) for ref in islice(_references(value), NAMED_OF_ONE))
    for key, each in entries:
        if _is_ref(each):
            yield (f"{name}[{key!r}]" if type(key) in (int, str) else name), each


def shown_results(namespace: dict[str, Any]) -> dict[str, Any]:
    """`Out[n]` and what it shows."""
    shown = namespace.get("Out")
    return {f"Out[{number}]": result for number, result in list(shown.items())} if isinstance(shown, dict) else {}


def _named(namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of everything a person could mean; results by `Out[n]`."""
    for name, value in list(namespace.items()):
        if name == "Out" and isinstance(value, dict):
            yield from shown_results(namespace).items()
        elif name in HISTORY or not name.startswith("_"):
            yield name, value
    yield from _in_last_traceback(namespace)


def _in_last_traceback(namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Variables of the functions in which the last error was raised: Python keeps them until the next one."""
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    frames = traceback.walk_tb(error.__traceback__ if error is not None else None)
    for frame, _ in frames:
        if frame.f_globals is namespace and frame.f_code.co_name != "<module>" and "<cell line" not in frame.f_code.co_name:
            for name, value in list(frame.f_locals.items()):
                yield f"{TRACEBACK}: {name} in {frame.f_code.co_name}()", value


def held_by_names(namespace: dict[str, Any]) -> dict[bytes, list[str]]:
    """Names by the id of the task that made what they hold; of a value with very many references a sample counts."""
    found: dict[bytes, list[str]] = {}
    for name, value in _named(namespace):
        if name in HISTORY or name.startswith(TRACEBACK):
            continue
        for ref in _sample(value):
            names = found.setdefault(ref.task_id().binary(), [])
            if name not in names:
                names.append(name)
    return found


def names_of_objects(namespace: dict[str, Any]) -> dict[bytes, list[str]]:
    """Object id -> what the notebook calls it, of the first NAMED objects. Runs no code of the user's."""
    found: dict[bytes, list[str]] = {}
    for name, value in _named(namespace):
        if name in HISTORY or name.startswith(TRACEBACK):
            continue
        for called, ref in _named_references(name, value):
            names = found.setdefault(ref.binary(), [])
            if len(names) < NAMES_EACH and called not in names:
                names.append(called[:NAME_CHARACTERS])
            if len(found) >= NAMED:
                return found
    return found


def held_objects(namespace: dict[str, Any], engine: Engine, stale: Callable[[str], str] = lambda _name: "") -> dict[str, Any]:
    """What the names hold. `rows`: one for each value that holds references, or bytes of the store: its names, what it is, where
    its bytes are, and who else holds them, the largest first. `objects`, `size`: how many objects and bytes that is together, each
    object once, however many names hold it; `partly`: some were not measured, being so many; `only_shown`: the bytes that nothing
    but `Out` or `_` holds.

    `stale(name)` says why a variable is not what its cell would make now."""
    groups = _groups(namespace, lambda value: next(_references(value), None) is not None)
    rows = [_row(names, values, engine) for names, values in groups] + held_views(namespace)
    holders = engine.holders_of([row.pop("ids") for row in rows], [row.pop("known") for row in rows])
    for row, others in zip(rows, holders, strict=True):
        row["holders"] = said(others)
        row["stale"] = next((why for name in row["release"] if (why := stale(name))), "")
    rows.sort(key=lambda row: -(row["size"] or 0))
    every: dict[Hashable, int] = {}
    kept: set[Hashable] = set()
    partly = False
    for row in rows:
        partly |= row.pop("partly")
        objects = row.pop("objects")
        twice = every.keys() & objects.keys()
        every |= objects | {object_: max(every[object_], objects[object_]) for object_ in twice}
        kept |= set() if _only_shown(row["release"]) else objects.keys()
    only_shown = sum(size for object_, size in every.items() if object_ not in kept)
    return {"rows": rows, "objects": len(every), "size": sum(every.values()), "partly": partly, "only_shown": only_shown}


def first_rows(found: dict[str, Any], most: int) -> dict[str, Any]:
    """The same with at most `most` rows, and how many `more` there are."""
    rows = found["rows"]
    return {**found, "rows": rows[:most], "more": found.get("more", 0) + max(0, len(rows) - most)}


def objects_text(found: dict[str, Any]) -> str:
    """`objects: 5 in 3 values, 1.6 MB`, of what `held_objects` has found."""
    if not found["rows"]:
        return "objects"
    shown = f", {bytes_text(found['only_shown'])} of it only because it was shown" if found["only_shown"] else ""
    values = count_text(len(found["rows"]) + found.get("more", 0), "value")
    least = "at least " if found["partly"] else ""
    return f"objects: {found['objects']:,} in {values}, {least}{bytes_text(found['size'])}{shown}"


def named_ids(namespace: dict[str, Any]) -> set[bytes]:
    """Objects that some name refers to."""
    return {ref.binary() for _, value in _named(namespace) for ref in _references(value)}


def _groups(namespace: dict[str, Any], holds: Callable[[Any], bool]) -> list[tuple[list[str], list[Any]]]:
    """Values that hold something, each with all its names; references to one object are one value."""
    groups: dict[Hashable, tuple[list[str], dict[int, Any]]] = {}
    for name, value in _named(namespace):
        if holds(value):
            key = value.binary() if isinstance(value, ObjectRef) else id(value)
            names, values = groups.setdefault(key, ([], {}))
            values[id(value)] = value
            if name not in names:
                names.append(name)
    return [(names, list(values.values())) for names, values in groups.values()]


def _only_shown(names: list[str]) -> bool:
    return all(name in HISTORY or name.startswith("Out[") for name in names)


def _state(state: str, names: list[str]) -> str:
    return f"{state}, only because it was shown" if _only_shown(names) else state


def held_views(namespace: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each array, or table of pandas, whose bytes lie in the store."""
    rows = []
    for names, (value,) in _groups(namespace, lambda value: any(_is_view(array) for array in _arrays(value))):
        pinned = _pinned(value)
        rows.append(
            {
                "names": ", ".join(names),
                "release": names,
                "type": describe(value),
                "size": sum(pinned.values()),
                "state": _state("pinned", names),
                "where": "here",
                "line": "",
                "objects": pinned,
                "partly": False,
                "ids": (),
                "known": 0,
            }
        )
    return rows


def _arrays(value: Any) -> list[np.ndarray[Any, Any]]:
    """The arrays that a value consists of, where that can be told without making any."""
    if isinstance(value, np.ndarray):
        return [value]
    if type(value) in (list, tuple):
        return [each for each in value[:ITEMS_LOOKED_AT] if isinstance(each, np.ndarray)]
    if type(value) is dict:
        return [each for each in list(value.values())[:ITEMS_LOOKED_AT] if isinstance(each, np.ndarray)]
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
    return _pin_of(array) is not None


def _pin_of(array: np.ndarray[Any, Any]) -> Pinned | None:
    """What pins the object that its bytes are a part of."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, Pinned):
            return base
        base = base.base
    return base.obj if isinstance(base, memoryview) and isinstance(base.obj, Pinned) else None


def _pinned(value: Any) -> dict[Hashable, int]:
    """Bytes of the store that a value keeps, by object: a slice of an object keeps all of it."""
    pins = (pin for array in _arrays(value) if (pin := _pin_of(array)) is not None)
    return {pin.object or id(pin): pin.nbytes for pin in pins}


def _row(names: list[str], values: list[Any], engine: Engine) -> dict[str, Any]:
    value = values[0]
    refs = [ref for each in values for ref in _references(each)]
    facts, objects = engine.facts_of_all(refs[:ASKED]), [ref.binary() for ref in refs]
    sizes = {object_: fact["size"] for object_, fact in zip(objects, facts, strict=False) if fact["size"] is not None}
    states = sorted({fact["state"].lower() for fact in facts})
    nodes = sorted({fact["node"][:4] for fact in facts if fact["node"]})
    what = _described(refs[0], facts[0], engine)
    kind = (
        what or "not known yet"
        if isinstance(value, ObjectRef)
        else f"{type(value).__name__} of {count_text(len(refs), 'reference')}"
    )
    if what and not isinstance(value, ObjectRef):
        kind += f" to {what}" if len(refs) == 1 else f", the first to {what}"
    if len(refs) > ASKED:
        kind += f"; the first {ASKED:,} measured"
    return {
        "names": ", ".join(names),
        "release": names,
        "type": kind,
        "size": sum(sizes.values()) if sizes else None,
        "state": _state(", ".join(states), names),
        "where": ", ".join(nodes),
        "line": facts[0]["call_site"],
        "objects": dict.fromkeys(objects, 0) | sizes,
        "partly": len(refs) > ASKED,
        "ids": set(objects),
        "known": len(set(map(id, refs))),
    }


def _described(ref: ObjectRef[Any], fact: dict[str, Any], engine: Engine) -> str:
    """Type and shape. What lies in the store said so when it was made; what is small is here, and is looked at."""
    if fact["type"] or fact["state"] != "READY" or fact["node"]:
        return str(fact["type"])
    known = _seen.get(ref.binary())
    if known is None:
        try:
            known = describe(engine.get([ref], 0)[0])
        except Exception:  # noqa: BLE001 -- it may not load here; that is told when somebody gets it
            known = ""
        if len(_seen) > SEEN_KEPT:
            _seen.clear()
        _seen[ref.binary()] = known
    return known


def release(namespace: dict[str, Any], names: list[str], engine: Engine | None = None) -> str:
    """Take these names away, so that what only they held is freed. Returns what still holds it, in words."""
    held = [(name, value) for name, value in _named(namespace) if name in names]
    ids = {ref.binary() for _, value in held for ref in _references(value)}
    views = any(_is_view(array) for _, value in held for array in _arrays(value))
    gone = list(dict.fromkeys(name for name, _ in held))
    held.clear()
    for name in gone:
        _take_away(namespace, name)
    if not gone:
        return f"{', '.join(names)}: gone already"
    still = said(engine.holders_of([ids], [0])[0]) if engine is not None and ids else ""
    rest = (
        f"still held by {still}"
        if still
        else "its bytes are free unless something else views them"
        if views
        else "nothing holds it any more"
    )
    return f"{', '.join(gone)} released; {rest}"


def _take_away(namespace: dict[str, Any], name: str) -> None:
    if name.startswith("Out["):
        number = int(name[4:-1])
        namespace["Out"].pop(number, None)
        namespace.pop(f"_{number}", None)
    elif name in HISTORY:
        namespace[name] = ""
    elif name.startswith(TRACEBACK):
        for each in ("last_exc", "last_value", "last_traceback", "last_type"):
            if hasattr(sys, each):
                setattr(sys, each, None)
    else:
        namespace.pop(name, None)
