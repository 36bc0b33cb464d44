"""Where the bundles of a placement group go: what is found keeps the strategy's promise, and what can be found is found."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbray.ids import Address
from nbray.sched.bundles import explain, feasible, place
from nbray.sched.resources import fits, give, to_amounts
from nbray.wire.messages import GroupSpec, NodeInfo

A, B, C = b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"
OWNER = Address(A, b"owner000")
STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


def node(name: bytes, cpus: float = 4, free: float | None = None, gpus: float = 0, **labels: str) -> NodeInfo:
    total, left = {"CPU": cpus, "GPU": gpus}, {"CPU": cpus if free is None else free, "GPU": gpus}
    return NodeInfo(name, "h", 1, to_amounts(total), to_amounts(left), labels)


def spec(strategy: str, *bundles: dict[str, float], **more) -> GroupSpec:
    return GroupSpec(b"g" * 16, [to_amounts(bundle) for bundle in bundles], strategy, OWNER, OWNER, **more)


def cpus(*numbers: float) -> list[dict[str, float]]:
    return [{"CPU": number} for number in numbers]


def keeps_the_promise(wanted: GroupSpec, nodes: list[NodeInfo], places: dict[int, bytes]) -> bool:
    for one in nodes:
        together: dict[str, int] = {}
        for index, where in places.items():
            if where == one.node:
                give(together, wanted.bundles[index])
        if not fits(one.available, together):
            return False
    used = list(places.values())
    if wanted.strategy == "STRICT_PACK":
        return len(set(used)) == 1
    return wanted.strategy != "STRICT_SPREAD" or len(set(used)) == len(used)


@st.composite
def groups(draw: st.DrawFn) -> tuple[GroupSpec, list[NodeInfo]]:
    sizes = st.fixed_dictionaries({"CPU": st.integers(1, 3), "GPU": st.integers(0, 2)})
    bundles = draw(st.lists(sizes, min_size=1, max_size=4))
    names = [bytes([97 + i]) * 8 for i in range(draw(st.integers(1, 4)))]
    nodes = [node(name, draw(st.integers(0, 6)), gpus=draw(st.integers(0, 3))) for name in names]
    return spec(draw(st.sampled_from(STRATEGIES)), *bundles), nodes


@given(groups())
def test_a_place_is_found_exactly_when_there_is_one(case):
    wanted, nodes = case
    names = [one.node for one in nodes]
    every_way = product(names, repeat=len(wanted.bundles))
    possible = any(keeps_the_promise(wanted, nodes, dict(enumerate(way))) for way in every_way)
    found = place(wanted, nodes)
    assert (found is not None) == possible
    assert found is None or (sorted(found) == list(range(len(wanted.bundles))) and keeps_the_promise(wanted, nodes, found))
    assert feasible(wanted, nodes) == possible  # all is free
    assert explain(wanted, nodes)


@given(groups())
def test_packing_needs_no_more_nodes_than_spreading(case):
    wanted, nodes = case
    packed = place(GroupSpec(wanted.group, wanted.bundles, "PACK", OWNER, OWNER), nodes)
    spread = place(GroupSpec(wanted.group, wanted.bundles, "SPREAD", OWNER, OWNER), nodes)
    assert packed is None or spread is None or len(set(packed.values())) <= len(set(spread.values()))


def test_pack_takes_one_node_if_one_is_enough_and_the_fuller_of_two():
    assert set((place(spec("PACK", *cpus(1, 1)), [node(A), node(B, 4, 3)]) or {}).values()) == {B}


def test_pack_spills_over_only_when_it_must():
    found = place(spec("PACK", *cpus(2, 2, 2)), [node(A), node(B)])
    assert found is not None
    assert sorted(map(list(found.values()).count, {A, B})) == [1, 2]


def test_spread_uses_every_node_before_one_twice():
    found = place(spec("SPREAD", *cpus(1, 1, 1, 1)), [node(A), node(B), node(C)])
    assert found is not None
    assert set(found.values()) == {A, B, C}


def test_strict_spread_wants_a_node_for_each():
    assert place(spec("STRICT_SPREAD", *cpus(1, 1, 1)), [node(A), node(B)]) is None
    assert not feasible(spec("STRICT_SPREAD", *cpus(1, 1, 1)), [node(A), node(B)])
    assert "not enough nodes" in explain(spec("STRICT_SPREAD", *cpus(1, 1, 1)), [node(A), node(B)])


def test_what_is_lost_is_placed_beside_what_is_left():
    wanted, nodes = spec("STRICT_SPREAD", *cpus(1, 1)), [node(A), node(B)]
    assert place(wanted, nodes, {0: A}) == {1: B}
    assert place(wanted, nodes[:1], {0: A}) is None
    assert place(spec("STRICT_PACK", *cpus(1, 1)), nodes, {0: B}) == {1: B}


def test_strict_pack_prefers_the_node_it_is_told():
    assert place(spec("STRICT_PACK", *cpus(1, 1), target=B), [node(A), node(B)]) == {0: B, 1: B}
    assert place(spec("STRICT_PACK", *cpus(1, 1), target=B), [node(A), node(B, 4, 1)]) == {0: A, 1: A}


def test_a_bundle_with_a_selector_goes_where_it_matches():
    wanted = spec("PACK", *cpus(1, 1), selectors=[[("zone", "b")], []])
    nodes = [node(A, zone="a"), node(B, zone="b")]
    assert (place(wanted, nodes) or {})[0] == B
    assert place(wanted, nodes[:1]) is None
    assert "labels of bundle 0: zone=b" in explain(wanted, nodes[:1])


@pytest.mark.parametrize(
    ("wanted", "nodes", "said"),
    [
        (spec("PACK", *cpus(1)), [], "no node of the cluster is alive"),
        (spec("PACK", *cpus(1, 9)), [node(A)], "bundle 1 needs num_cpus=9; the largest node"),
        (spec("STRICT_PACK", *cpus(3, 3)), [node(A), node(B)], "no node could hold all of it"),
        (spec("PACK", *cpus(3, 3, 3)), [node(A), node(B)], "the nodes together could not hold it"),
        (spec("PACK", *cpus(3, 3)), [node(A, 4, 0), node(B)], "too much of it is in use"),
    ],
)
def test_a_group_that_waits_is_told_why(wanted, nodes, said):
    assert said in explain(wanted, nodes)


def test_a_hundred_bundles_on_a_hundred_nodes_are_placed_at_once():
    many = [node(i.to_bytes(8, "big"), 2) for i in range(1, 101)]
    for strategy in ("PACK", "SPREAD"):
        assert len(place(spec(strategy, *cpus(*[1] * 200)), many) or {}) == 200
    assert len(place(spec("SPREAD", *cpus(*[0.001] * 3000)), [node(A), node(B)]) or {}) == 3000
    assert len(place(spec("STRICT_SPREAD", *cpus(*[2] * 100)), many) or {}) == 100
