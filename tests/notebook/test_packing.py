"""How values travel between the notebook and a cell, without a cluster: what is taken out, and what is made at home."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from nbray.ids import Address
from nbray.notebook.inputs import same_bytes
from nbray.notebook.packing import at_home, pack, pickled_size, unpack
from nbray.refs import ObjectRef


def nothing(_obj: Any) -> None:
    return None


def defined(source: str, **more: Any) -> dict[str, Any]:
    """A namespace in which `source` ran, as a notebook's would be."""
    namespace: dict[str, Any] = {"__name__": "__main__", **more}
    exec(source, namespace)
    return namespace


def test_what_is_swapped_comes_back_as_what_was_sent_beside() -> None:
    array = np.zeros(3)
    data = pack({"a": array, "b": [array]}, lambda obj: ("array", 0) if obj is array else None)
    other = np.ones(3)
    loaded = unpack(data, {"array": [other]})
    assert loaded["a"] is other
    assert loaded["b"][0] is other


def test_what_is_shared_stays_shared() -> None:
    part = [1]
    loaded = unpack(pack({"a": part, "b": {"c": part}}, nothing), {})
    assert loaded["a"] is loaded["b"]["c"]


def test_functions_of_the_notebook_see_the_namespace_that_they_arrive_in() -> None:
    home = defined("k = 1\ndef f(): return k\nclass C:\n    def m(self): return f() + k")
    there: dict[str, Any] = {"__name__": "__main__"}
    there.update(unpack(pack({"f": home["f"], "C": home["C"]}, nothing), {}, there))
    assert there["f"].__globals__ is there
    there["k"] = 10
    assert there["f"]() == 10
    assert there["C"]().m() == 20


def test_a_function_brings_what_it_needs_and_overwrites_nothing() -> None:
    home = defined("k, only = 1, 2\ndef f(): return k + only")
    there: dict[str, Any] = {"__name__": "__main__", "k": 100}
    function = unpack(pack(home["f"], nothing), {}, there)
    assert (function(), there["k"], there["only"]) == (102, 100, 2)


def test_size_counts_arrays_and_names_no_reference() -> None:
    assert pickled_size(np.zeros(1000)) > 8000
    assert pickled_size("x" * 5000) > 5000
    reference = ObjectRef(b"\1" * 20, Address(b"", b""), None)
    assert pickled_size([reference]) > 0  # pickled for real, it would ask an engine that is not there
    with pytest.raises(TypeError):
        pickled_size({"a": threading.Lock()})


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


def test_read_only_arrays_become_writable_wherever_they_are() -> None:
    reference = ObjectRef(b"\1" * 20, Address(b"", b""), None)
    arrived = {"a": read_only(np.arange(3)), "b": [read_only(np.asfortranarray(np.ones((2, 3))))], "r": reference}
    made = at_home(arrived, {})
    made["a"][0] = 9
    made["b"][0][0, 0] = 9
    assert made["b"][0].flags.f_contiguous
    assert made["r"] is reference


def test_values_without_views_are_not_copied() -> None:
    for value in (3, "text", [1, {"a": 2}], {"w": np.zeros(3)}, None):
        assert at_home(value, {}) is value


@pytest.mark.parametrize("dtype", ["f8", "u1", "M8[ns]", "c16", "?", "S5", "i4,f8"])
def test_equal_bytes_are_found_equal_and_one_changed_byte_is_seen(dtype: str) -> None:
    array = np.zeros(100_003, dtype)
    other = array.copy()
    assert same_bytes(array, other)
    for place in (0, 50_000, 100_002):
        changed = array.copy()
        changed.view(np.uint8)[place * array.itemsize] ^= 1
        assert not same_bytes(array, changed)


def test_nan_is_itself_and_order_and_shape_count() -> None:
    array = np.full((4, 5), np.nan)
    assert same_bytes(array, array.copy())
    assert not same_bytes(array, array.reshape(5, 4))
    assert not same_bytes(array, np.asfortranarray(array))
    assert same_bytes(np.array([]), np.array([]))
