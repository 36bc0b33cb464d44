"""What a notebook shows of nbray's own things: the same as text and as HTML, escaped, from what this process knows."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbray
from nbray import shown
from nbray.exceptions import RayError, RayTaskError, TaskPlacementGroupRemoved
from nbray.util.placement_group import PlacementGroup

EVIL = "<img src=x onerror=alert(1)>"


def text_of(thing: Any) -> str:
    """Its text; its HTML must say every word of it."""
    bundle = thing._repr_mimebundle_()
    said = html.unescape(re.sub(r"<[^>]+>", " ", bundle["text/html"]))
    words = [part for part in re.split(r" · |\n", bundle["text/plain"]) if part.strip()]
    assert all(part.strip() in said for part in words), (words, said)
    assert EVIL not in bundle["text/html"]
    assert "<script" not in bundle["text/html"]
    return str(bundle["text/plain"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    nbray.init(num_cpus=2)
    yield
    nbray.shutdown()


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[], None]:
    """Opens a gate at which `passes` waits."""
    return (tmp_path / "open").touch


@nbray.remote
def passes(path: str) -> str:
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)
    return "x"


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def increment(self) -> int:
        self.count += 1
        return self.count

    def _hidden(self) -> None: ...


@pytest.mark.usefixtures("cluster")
def test_a_reference_says_its_state_size_place_and_where_it_was_made(tmp_path: Path, gate: Callable[[], None]) -> None:
    ref = passes.options(name=EVIL).remote(str(tmp_path / "open"))
    said = text_of(ref)
    assert said.startswith(f"ObjectRef({ref.hex()}) · ▸ ")
    assert f"from {EVIL}" in said
    assert "test_shown.py:" in said
    gate()
    nbray.get(ref)
    assert "✓ ready" in text_of(ref)
    large = nbray.put(np.zeros(1_000_000))
    assert "array of float64, 1,000,000 · 8.0 MB · on this node" in text_of(large)
    assert repr(large) == f"ObjectRef({large.hex()})"
    assert "its owner knows" in text_of(nbray.ObjectRef.from_random())


@pytest.mark.usefixtures("cluster")
def test_a_failed_reference_says_so_and_its_error_shows_where_and_in_full() -> None:
    def fails() -> None:
        raise ValueError(EVIL)

    ref = nbray.remote(fails).remote()
    with pytest.raises(ValueError) as caught:
        nbray.get(ref)
    assert "✗ failed" in text_of(ref)
    error: Any = caught.value
    assert isinstance(error, RayTaskError)
    said = text_of(error)
    assert said.startswith(f"RayTaskError(ValueError) · ✗ ValueError: {EVIL}")
    assert f"pid {error.pid}" in said
    assert "raise ValueError(EVIL)" in said
    assert "<details>" in error._repr_mimebundle_()["text/html"]


def test_an_error_that_cannot_say_itself_still_shows() -> None:
    class Mute(RayError):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "its __str__ raised RuntimeError" in text_of(Mute("x"))
    assert "node b71e0000" in text_of(RayError("gone", node="b71e000000000000", hint="start another"))


@pytest.mark.usefixtures("cluster")
def test_an_actor_says_whether_it_lives_and_what_it_can_do() -> None:
    handle = nbray.remote(Counter).remote()
    nbray.get(handle.increment.remote())
    said = text_of(handle)
    assert "✓ alive" in said
    assert "on this node" in said
    assert "methods: increment" in said
    assert "_hidden" not in said
    nbray.kill(handle)
    with pytest.raises(nbray.exceptions.ActorDiedError):
        nbray.get(handle.increment.remote())
    assert "✗ dead" in text_of(handle)


@pytest.mark.usefixtures("cluster")
def test_a_generator_says_how_far_it_is() -> None:
    def three() -> Iterator[int]:
        yield from range(3)

    items = nbray.remote(three).remote()
    nbray.get(items.completed())
    next(items)
    assert "✓ ended · 3 items so far, 1 taken" in text_of(items)
    with pytest.warns(DeprecationWarning, match="dynamic"):
        dynamic = nbray.get(nbray.remote(num_returns="dynamic")(three).remote())
    nbray.wait([*dynamic._refs], num_returns=3)
    assert text_of(dynamic).startswith("DynamicObjectRefGenerator(3 references)")


@pytest.mark.usefixtures("cluster")
def test_a_placement_group_says_whether_it_is_placed_and_its_bundles() -> None:
    group = nbray.util.placement_group([{"CPU": 1}, {"CPU": 1}], name="shown")
    assert "placed · 2 bundles · 2 of CPU 1" in text_of(group), "or is being placed: never unknown"
    nbray.get(group.ready())
    assert "✓ placed · 2 bundles · 2 of CPU 1" in text_of(group)
    nbray.util.remove_placement_group(group)
    assert "removed" in text_of(group)
    assert "no such group" in text_of(PlacementGroup(b"x" * 16))


@pytest.mark.usefixtures("cluster")
def test_a_group_that_another_process_made_is_asked_for() -> None:
    def made() -> bytes:
        return nbray.util.placement_group([{"CPU": 1000}], lifetime="detached").key

    group = PlacementGroup(nbray.get(nbray.remote(made).remote()))
    assert "▸ is being placed" in text_of(group)
    assert "1 bundle · CPU 1000" in text_of(group)
    nbray.util.remove_placement_group(group)


@pytest.mark.usefixtures("cluster")
def test_a_group_that_has_no_place_yet_says_that_it_is_being_placed_and_one_that_was_removed_that_it_was() -> None:
    group = nbray.util.placement_group([{"CPU": 1000}])
    shown = text_of(group)  # and why it waits, once that has been told
    assert "▸ is being placed" in shown
    assert shown.endswith("· 1 bundle · CPU 1000")
    nbray.util.remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved):
        nbray.get(group.ready())
    assert "■ removed" in text_of(group)


def test_states_that_are_not_known_here_are_not_guessed() -> None:
    assert "? its state is not known here" in shown.of_actor("Actor(A)", {"state": "", "call_site": ""}, ())["text/plain"]
    assert "? its state is not known here" in shown.of_group("G", {"state": "", "why": ""}, None)["text/plain"]
    waiting = {"state": "PENDING", "task_state": "WAITING", "mine": True, "copies": [], "here": "aa"}
    assert shown.of_object("R", waiting)["text/plain"] == "R · ▸ waits for its arguments"


def test_what_a_session_that_ended_has_left_says_so() -> None:
    nbray.shutdown()
    context = nbray.init(num_cpus=1)
    ref, handle = nbray.put(1), nbray.remote(Counter).remote()
    assert "✓ attached" in text_of(context)
    nbray.shutdown()
    assert "no longer attached" in text_of(context)
    assert "session that has ended" in text_of(ref)
    assert "session that has ended" in text_of(handle)
