"""What the notebook's names keep alive: by references, and by values whose bytes lie in the object store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nbray.ids import Address
from nbray.notebook.holders import NAMED, held_views, names_of_objects, release
from nbray.refs import ObjectRef
from nbray.store.views import pinned_view


@pytest.fixture
def released() -> list[str]:
    return []


@pytest.fixture
def view(released: list[str]) -> memoryview:
    return pinned_view(memoryview(bytearray(800)), lambda: released.append("released"))


def as_array(view: memoryview) -> np.ndarray[Any, Any]:
    return np.frombuffer(view, np.float64).reshape(10, 10)


def test_an_array_that_was_only_shown_is_told_to_be_kept_by_that(view: memoryview) -> None:
    shown = as_array(view)
    namespace = {"Out": {3: shown}, "_": shown, "_3": shown, "other": np.zeros(5)}
    (row,) = held_views(namespace)
    assert row["names"] == "Out[3], _"
    assert row["type"] == "array of float64, 10 × 10"
    assert row["size"] == 800
    assert row["state"] == "pinned, only because it was shown"


def test_a_part_of_an_array_holds_all_of_it_and_a_copy_nothing(view: memoryview) -> None:
    (row,) = held_views({"part": as_array(view)[2:4, 1], "copy": as_array(view).copy()})
    assert (row["names"], row["state"], row["size"]) == ("part", "pinned", 800)


def test_a_table_over_the_store_is_found_by_its_columns(view: memoryview) -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(as_array(view), copy=False)
    (row,) = held_views({"df": table, "text": pd.DataFrame({"a": ["x"]}), "column": 7})
    assert (row["names"], row["type"], row["size"]) == ("df", "DataFrame, 10 × 10", 800)


def test_releasing_what_was_shown_frees_the_bytes(released: list[str]) -> None:
    namespace: dict[str, Any] = {"Out": {}}
    memory = pinned_view(memoryview(bytearray(800)), lambda: released.append("released"))
    namespace["Out"][3] = namespace["_"] = namespace["_3"] = as_array(memory)
    del memory
    names = held_views(namespace)[0]["release"]
    assert released == []
    release(namespace, names)
    assert released == ["released"]


def test_arrays_in_a_list_or_a_dict_hold_their_bytes_too(view: memoryview) -> None:
    found = held_views({"many": [as_array(view), as_array(view)[1:]], "named": {"a": as_array(view)}, "plain": [1, 2]})
    assert [(row["names"], row["size"]) for row in found] == [("many", 800), ("named", 800)]


class Proxy:
    """A value that runs code of its own when somebody asks what it is."""

    asked: list[str] = []

    @property
    def __class__(self) -> type:  # type: ignore[override]
        self.asked.append("__class__")
        return ObjectRef

    def __repr__(self) -> str:
        self.asked.append("__repr__")
        return "proxy"

    def __hash__(self) -> int:
        return 7


def reference(number: int) -> ObjectRef[Any]:
    return ObjectRef(number.to_bytes(20, "big"), Address(b"n" * 8, b"p" * 8))


def test_objects_go_by_what_the_notebook_calls_them_and_no_code_of_the_users_is_run() -> None:
    one, two, three = map(reference, range(3))
    namespace = {
        "df": one, "parts": [two, "x", one], "models": {"a": three, 7: two, Proxy(): three}, "bag": {two},
        "_": one, "_private": one, "Out": {4: one, 5: Proxy()}, "odd": Proxy(), "odds": [Proxy()],
    }  # fmt: skip
    assert names_of_objects(namespace) == {
        one.binary(): ["df", "parts[2]", "Out[4]"],
        two.binary(): ["parts[0]", "models[7]", "bag"],
        three.binary(): ["models['a']", "models"],
    }
    assert Proxy.asked == []


def test_the_names_that_are_told_are_bounded() -> None:
    many = [reference(number) for number in range(NAMED + 10)]
    namespace: dict[str, Any] = {"x" * 500: many, **{f"name{i}": many[0] for i in range(50)}, "last": many[-1]}
    told = names_of_objects(namespace)
    assert told[many[-1].binary()] == ["last"], "a long list does not take the room of what comes after it"
    assert len(names_of_objects({f"name{i}": many[i * 900 : (i + 1) * 900] for i in range(6)})) == NAMED
    assert max(len(names) for names in told.values()) <= 5
    assert max(len(name) for names in told.values() for name in names) <= 80
