"""A roster says what the policy would say of all nodes, and looks at few of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbray.sched import roster as roster_module
from nbray.sched.policy import choose
from nbray.sched.resources import UNIT, to_amounts
from nbray.sched.rooms import has_room, without
from nbray.sched.roster import Roster
from nbray.wire.messages import BundleInfo, NodeInfo, Shape

GROUP = b"g" * 16


def name(number: int) -> bytes:
    return number.to_bytes(8, "big")


def info(number: int, cpus: int = 4, free: int | None = None, *, gpus: int = 0, suspect: bool = False, **more: object) -> NodeInfo:
    total = to_amounts({"CPU": cpus, "GPU": gpus})
    available = to_amounts({"CPU": cpus if free is None else min(free, cpus), "GPU": gpus})
    return NodeInfo(name(number), "h", 1, total, available, suspect=suspect, **more)  # type: ignore[arg-type]


def filled(*nodes: NodeInfo) -> Roster:
    made = Roster()
    for each in nodes:
        made[each.node] = each
    return made


NODES = st.integers(0, 9)
STEPS = st.one_of(
    st.builds(info, NODES, st.integers(0, 4), st.integers(0, 4), gpus=st.integers(0, 1), suspect=st.booleans()),
    NODES,  # it leaves
    st.builds(
        Shape,
        amounts=st.builds(to_amounts, st.fixed_dictionaries({"CPU": st.integers(0, 4)}, optional={"GPU": st.just(1)})),
        strategy=st.sampled_from(["DEFAULT", "DEFAULT", "NODE"]),
        node=st.builds(name, NODES),
        soft=st.booleans(),
    ),
)


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=60), st.lists(st.tuples(st.builds(name, NODES), st.integers(0, 3)), max_size=3), st.booleans())
def test_whatever_has_happened_it_chooses_what_the_policy_chooses(steps: list[object], near: list, here_apart: bool) -> None:
    made = Roster()
    me = info(99, 2, 1) if here_apart else None
    for step in steps:
        if isinstance(step, NodeInfo):
            made[step.node] = step
        elif isinstance(step, int):
            made.pop(name(step), None)
        else:
            assert isinstance(step, Shape)
            here = me or made.get(name(0))
            everyone = [*([me] if me is not None else []), *made.values()]
            found = made.choose(step, here, near)
            assert found == choose(step, here.node if here is not None else None, everyone, near, 0)
            with_room = made.with_room(step, here, near)
            assert with_room in (found, None)
            roomy = [each for each in everyone if not each.suspect and has_room(each, step)]
            if step.strategy == "DEFAULT":
                assert (with_room is None) == (not roomy)
            if found is not None and found in made and with_room is not None:
                made[found] = without(made[found], step, step.amounts)  # as its users do


def test_spread_takes_turns_among_the_nodes_with_room() -> None:
    made = filled(info(1), info(2, free=0), info(3))
    wanted = Shape(to_amounts({"CPU": 1}), strategy="SPREAD")
    assert [made.choose(wanted, None) for _ in range(4)] == [name(1), name(3), name(1), name(3)]
    assert made.with_room(Shape(to_amounts({"CPU": 5}), strategy="SPREAD"), None) is None


def test_spread_counts_the_node_that_asks() -> None:
    made = filled(info(1), info(2))
    wanted = Shape(to_amounts({"CPU": 1}), strategy="SPREAD")
    assert [made.choose(wanted, info(7)) for _ in range(4)] == [name(7), name(1), name(2), name(7)]


def test_a_group_has_only_the_nodes_that_hold_its_bundles() -> None:
    bundle = BundleInfo(GROUP, 0, to_amounts({"CPU": 1}), to_amounts({"CPU": 1}))
    made = filled(info(1), info(2, bundles=[bundle]), info(3))
    wanted = Shape(to_amounts({"CPU": 1}), group=GROUP, bundle=0)
    assert made.choose(wanted, made[name(1)]) == name(2)
    made[name(2)] = info(2)
    assert made.choose(wanted, made[name(1)]) is None


def test_nodes_that_leave_are_forgotten_everywhere() -> None:
    bundle = BundleInfo(GROUP, 0, to_amounts({"CPU": 1}), to_amounts({"CPU": 1}))
    made = filled(info(1, bundles=[bundle]), info(2))
    del made[name(1)]
    assert list(made) == [name(2)]
    assert made.choose(Shape(to_amounts({"CPU": 1}), group=GROUP), None) is None
    assert made.choose(Shape(to_amounts({"CPU": 1})), None) == name(2)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The nodes that were asked whether they have room."""
    asked: list[bytes] = []

    def counted(node: NodeInfo, shape: Shape) -> bool:
        asked.append(node.node)
        return has_room(node, shape)

    monkeypatch.setattr(roster_module, "has_room", counted)
    return asked


def test_filling_a_thousand_nodes_looks_at_a_few_nodes_for_each_choice(looks: list[bytes]) -> None:
    made = filled(*(info(number, 4) for number in range(1000)))
    wanted = Shape({"CPU": UNIT})
    for _ in range(4000):
        found = made.with_room(wanted, None)
        assert found is not None
        made[found] = without(made[found], wanted, wanted.amounts)
    assert made.with_room(wanted, None) is None
    assert len(looks) < 4 * 4000


def test_a_full_cluster_is_not_looked_through_for_every_demand(looks: list[bytes]) -> None:
    made = filled(*(info(number, 4, 0) for number in range(1000)))
    wanted = Shape({"CPU": UNIT})
    assert made.with_room(wanted, None) is None
    looks.clear()
    for number in range(100):
        made[name(number)] = info(number, 4, 0, gpus=1)  # news, but none of room
        assert made.with_room(wanted, None) is None
        made[name(500)] = info(500, 4, 1)
        assert made.with_room(wanted, None) == name(500)
        made[name(500)] = info(500, 4, 0)
    assert len(looks) < 1000
