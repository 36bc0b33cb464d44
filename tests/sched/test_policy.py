"""Where work goes, and what is said while it waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbray.sched.policy import choose, explain, feasible, load
from nbray.sched.resources import fits, to_amounts
from nbray.wire.messages import NodeInfo, QueuedDemand, Shape

A, B, C = b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"


def node(
    name: bytes,
    cpus: float = 4,
    free: float | None = None,
    *,
    waiting: int = 0,
    alive: bool = True,
    suspect: bool = False,
    **more: float,
) -> NodeInfo:
    total = to_amounts({"CPU": cpus, **more})
    return NodeInfo(
        node=name,
        host="h",
        pid=1,
        total=total,
        available=to_amounts({"CPU": cpus if free is None else free, **more}),
        alive=alive,
        suspect=suspect,
        queued=[QueuedDemand(amounts={}, count=waiting, why="")] if waiting else [],
    )


def shape(cpus: float = 1, strategy: str = "DEFAULT", at: bytes = b"", *, soft: bool = False, **more: float) -> Shape:
    return Shape(amounts=to_amounts({"CPU": cpus, **more}), strategy=strategy, node=at, soft=soft)


def pick(
    wanted: Shape, *nodes: NodeInfo, local: bytes | None = A, near: list[tuple[bytes, int]] | None = None, turn: int = 0
) -> bytes | None:
    return choose(wanted, local, nodes, near or [], turn)


def test_the_local_node_is_packed_first() -> None:
    assert pick(shape(), node(A), node(B), local=B) == B


def test_without_a_local_node_the_first_below_half_full_is_packed() -> None:
    assert pick(shape(), node(A, free=1), node(B, free=3), node(C), local=None) == B


def test_beyond_half_full_work_spreads_to_the_emptiest_node() -> None:
    assert pick(shape(), node(A, free=1), node(B, free=2), local=A) == B


def test_equally_full_nodes_leave_work_where_it_is() -> None:
    assert pick(shape(), node(A, free=2), node(B, free=2), local=B) == B


def test_work_goes_to_its_arguments_when_there_is_room() -> None:
    assert pick(shape(), node(A), node(B, free=1), near=[(B, 10**6), (A, 10)]) == B


def test_work_does_not_wait_for_its_arguments() -> None:
    assert pick(shape(), node(A), node(B, free=0), near=[(B, 10**6)]) == A


def test_spread_takes_turns_among_nodes_with_room() -> None:
    nodes = [node(A), node(B, free=0), node(C)]
    assert [pick(shape(strategy="SPREAD"), *nodes, turn=turn) for turn in range(4)] == [A, C, A, C]


def test_spread_over_full_nodes_takes_turns_too() -> None:
    nodes = [node(A, free=0), node(B, free=0)]
    assert [pick(shape(strategy="SPREAD"), *nodes, turn=turn) for turn in range(3)] == [A, B, A]


def test_hard_affinity_is_obeyed_even_when_that_node_is_busy() -> None:
    assert pick(shape(strategy="NODE", at=B), node(A), node(B, free=0)) == B


def test_hard_affinity_to_a_dead_node_has_no_answer() -> None:
    wanted = shape(strategy="NODE", at=B)
    assert pick(wanted, node(A), node(B, alive=False)) is None
    assert not feasible(wanted, [node(A), node(B, alive=False)])


def test_soft_affinity_goes_elsewhere_when_its_node_is_dead_or_too_small() -> None:
    assert pick(shape(strategy="NODE", at=B, soft=True), node(A), node(B, alive=False)) == A
    assert pick(shape(cpus=4, strategy="NODE", at=B, soft=True), node(A), node(B, cpus=2)) == A


def test_a_busy_node_is_an_answer_only_when_none_has_room() -> None:
    assert pick(shape(), node(A, free=0), node(B)) == B
    assert pick(shape(), node(A, free=0, waiting=9), node(B, free=0)) == A
    assert pick(shape(), node(A, free=0, waiting=9), node(B, free=0, waiting=1), local=None) == B


def test_a_demand_beyond_every_node_has_no_answer() -> None:
    assert pick(shape(cpus=5), node(A), node(B)) is None
    assert pick(shape(alice=1), node(A)) is None


def test_custom_resources_restrict_to_the_nodes_that_have_them() -> None:
    assert pick(shape(alice=1), node(A), node(B, alice=1)) == B


def test_suspect_and_dead_nodes_get_nothing_new() -> None:
    assert pick(shape(), node(A, suspect=True), node(B, alive=False), node(C)) == C
    assert pick(shape(), node(A, suspect=True)) is None


def test_a_demand_that_only_a_suspect_node_holds_is_not_given_up() -> None:
    assert feasible(shape(), [node(A, suspect=True)])
    assert feasible(shape(strategy="NODE", at=A), [node(A, suspect=True)])


def test_load_is_that_of_the_fullest_resource() -> None:
    assert load({"CPU": 4, "GPU": 2}, {"CPU": 4, "GPU": 1}) == 0.5
    assert load({}, {}) == 0.0


def test_an_impossible_demand_is_explained_by_the_largest_node_and_what_to_do() -> None:
    said = explain(shape(GPU=2), [node(A), node(b"\xb7\x1e" + b"\0" * 6, GPU=1)])
    assert said == "Needs num_gpus=2; the largest node (b71e) has 1. Lower the demand, or add a node: nbray start --address ..."


def test_a_busy_cluster_is_explained_by_its_freest_node_and_the_queue_there() -> None:
    said = explain(shape(cpus=4), [node(A, free=0), node(B, free=1, waiting=3)])
    assert said.startswith("Needs num_cpus=4; the freest node (6262) has 1 of num_cpus=4 free, and 3 requests wait there.")


def test_every_reason_for_waiting_on_one_named_node_is_told_apart() -> None:
    wanted = shape(cpus=2, strategy="NODE", at=B)
    assert "not in the cluster" in explain(wanted, [node(A)])
    assert "is dead" in explain(wanted, [node(A), node(B, alive=False)])
    assert "num_cpus=2; the largest node (6262) has 1" in explain(wanted, [node(B, cpus=1)])
    assert "missed its heartbeats" in explain(wanted, [node(B, suspect=True)])
    assert "has 1 of num_cpus=4 free" in explain(wanted, [node(B, free=1)])


def test_a_suspect_cluster_is_not_called_too_small() -> None:
    assert "missed its heartbeats" in explain(shape(), [node(A, suspect=True)])
    assert "No node of the cluster is alive" in explain(shape(), [node(A, alive=False)])


some_nodes = st.lists(
    st.builds(
        lambda cpus, free, alice, alive, suspect, waiting: (cpus, min(free, cpus), alice, alive, suspect, waiting),
        st.integers(0, 8), st.integers(0, 8), st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 3),
    ),
    max_size=6,
)  # fmt: skip
some_shapes = st.builds(
    lambda cpus, strategy, at, soft, alice: shape(cpus, strategy, bytes([at]) * 8, soft=soft, alice=alice),
    st.integers(0, 8), st.sampled_from(["DEFAULT", "SPREAD", "NODE"]), st.integers(0, 6), st.booleans(), st.integers(0, 2),
)  # fmt: skip


@given(
    some_nodes,
    some_shapes,
    st.integers(0, 5),
    st.lists(st.tuples(st.integers(0, 6).map(lambda i: bytes([i]) * 8), st.integers(0, 9))),
    st.integers(0, 99),
)
def test_the_chosen_node_is_healthy_and_able_and_has_room_if_any_has(
    facts: list, wanted: Shape, local: int, near: list, turn: int
) -> None:
    nodes = [
        node(bytes([i]) * 8, cpus, free, alice=alice, alive=alive, suspect=suspect, waiting=waiting)
        for i, (cpus, free, alice, alive, suspect, waiting) in enumerate(facts)
    ]
    answer = choose(wanted, bytes([local]) * 8, nodes, near, turn)
    assert explain(wanted, nodes)
    able = [n for n in nodes if n.alive and not n.suspect and fits(n.total, wanted.amounts)]
    hard = wanted.strategy == "NODE" and not wanted.soft
    if answer is None:
        assert not able or (hard and wanted.node not in {n.node for n in able})
        return
    chosen = next(n for n in able if n.node == answer)
    assert feasible(wanted, nodes)
    if wanted.strategy == "NODE" and wanted.node in {n.node for n in able}:
        assert answer == wanted.node
    elif any(fits(n.available, wanted.amounts) for n in able):
        assert fits(chosen.available, wanted.amounts)
